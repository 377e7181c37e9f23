//! What a batch that did not go through leaves: items that were begun, and others that were not.

use std::fmt;

use super::{Batch, Outcome, compare, session::Ready, sheet::Sheet};
use crate::{
    cli::shared::{client::Server, output::Rows},
    rpc::pb,
};

/// What is known of the items without an outcome, of a batch that did not go through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    /// How many the server has begun.
    begun: u64,
    /// Whether the server could be asked.
    is_known: bool,
    /// How many are left.
    left: u64,
}

impl Rest {
    /// Asks the server which items were begun without an outcome.
    pub(super) async fn ask(
        server: &Server,
        batch: &Batch,
        ready: &Ready,
        sheet: &mut Sheet,
    ) -> Self {
        let mut rest = Self::default();
        let listed = compare::each_soon(server, batch, |name, redemption| {
            if sheet.waits_for(name) {
                rest.begun += 1;
                let outcome = Some(pb::batch_item_result::Outcome::Redemption(redemption.clone()));
                let result =
                    pb::BatchItemResult { item_id: name.to_owned(), outcome, replayed: true };
                sheet.put(&Outcome::of(result).at(ready.index.of(name)))?;
            }
            Ok(())
        })
        .await;
        rest.is_known = listed.is_ok();
        rest
    }

    /// Writes the rows that are left.
    pub(super) fn write(
        mut self,
        ready: &Ready,
        batch: &Batch,
        sheet: Sheet,
        rows: &mut Rows,
    ) -> anyhow::Result<Self> {
        let without = match self.is_known {
            true => ("NOT_BEGUN", "the command was ended before; the same command goes on with it"),
            false => ("UNKNOWN", "whether it was begun is not known; the same command finds out"),
        };
        let file = (&ready.cards, &batch.pool_id, &*ready.names);
        let finish = || sheet.finish(file, without, |row| rows.push(row));
        self.left = tokio::task::block_in_place(finish)?;
        Ok(self)
    }
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begun, left, .. } = self;
        if self.is_known {
            write!(
                f,
                "{begun} more were begun, and the server finishes them; {left} were not begun"
            )
        } else {
            write!(
                f,
                "of {left} more it is not known whether they were begun; the same command finds out"
            )
        }
    }
}
