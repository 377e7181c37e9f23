//! How a file is read: what the command says of it.

use clap::Args;

use super::amounts::Amounts;
use crate::domain::{id::PoolId, money::Currency};

/// The flags of every command that reads CSV.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FileArgs {
    /// Reads the column HEADER of the file as COLUMN, as in `--map card=code`. May be repeated.
    #[arg(long, value_name = "HEADER=COLUMN", value_parser = mapping)]
    map: Vec<(String, String)>,
    /// Leave out the columns that are not known. Without it they are an error.
    #[arg(long)]
    ignore_columns: bool,
    /// What amounts in the file are in: minor units (1000 is ten euros), or major units (10.00, 10,00 or €10.00).
    /// Minor units when not given. When it is given, the column may be called amount or balance.
    #[arg(long, value_enum)]
    amounts: Option<Amounts>,
}

impl FileArgs {
    /// How the command of a pool reads its file.
    pub(crate) fn options(&self, pool: &PoolId) -> Options {
        Options {
            pool: Some(pool.clone()),
            currency: None,
            amounts: self.amounts,
            ignore_columns: self.ignore_columns,
            may_repeat_cards: false,
            map: self.map.clone(),
        }
    }
}

/// How a file is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// The pool of a row that names none.
    pub(crate) pool: Option<PoolId>,
    /// The currency of an amount whose row names none.
    pub(crate) currency: Option<Currency>,
    /// What amounts are in. Minor units when it was not said.
    pub(crate) amounts: Option<Amounts>,
    /// Whether columns that are not known are left out.
    pub(crate) ignore_columns: bool,
    /// Whether a card may be there twice: in the demo, which shows what the server does about it.
    pub(crate) may_repeat_cards: bool,
    /// Headers, and the columns that they are.
    pub(crate) map: Vec<(String, String)>,
}

/// Reads `HEADER=COLUMN`. The header may hold `=`.
fn mapping(text: &str) -> Result<(String, String), &'static str> {
    match text.rsplit_once('=') {
        Some((header, column)) if !header.trim().is_empty() && !column.trim().is_empty() => {
            Ok((header.trim().to_owned(), column.trim().to_owned()))
        }
        _ => Err("must be written as HEADER=COLUMN, such as card=code"),
    }
}
