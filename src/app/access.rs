//! Who may call a server: put together at its start.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    access::{Authenticator, file::Subjects, jwt::Jwt, tokens::TokenSecret},
    config::ServeArgs,
    domain::{
        access::{Grants, Token},
        database::Address,
        id::TokenName,
        principal::{Authority, Principal},
    },
    secret_file,
    service::admin::tokens::Tokens,
    store::Store,
};
use anyhow::Context as _;

/// Where a private Postgres's first token is, in the data directory.
pub const TOKEN_FILE: &str = "admin.token";

/// Who is asked, and what is known of them before the first call.
pub(super) async fn open(args: &ServeArgs, tokens: &Tokens) -> anyhow::Result<Authenticator> {
    if !args.access.is_on() {
        return Ok(Authenticator::off());
    }
    let subjects = Subjects::open(args.access.access_file.as_deref())?;
    let jwt = match args.access.jwt() {
        Some(settings) => Some(Jwt::open(settings).await.context("JWTs cannot be taken")?),
        None => None,
    };
    if args.has_private_postgres() {
        let file = args.data_dir.join(TOKEN_FILE);
        first_token(tokens, &file).await?;
    }
    tokens.read().await.context("the tokens cannot be read")?;
    if tokens.in_memory().is_empty() && args.access.access_file.is_none() {
        tracing::warn!(
            "nobody can call this server yet: make the first token with `holdfast token create NAME --role admin \
             --pools '*' --database-url …`"
        );
    }
    Ok(Authenticator::new(tokens.in_memory(), subjects, jwt))
}

/// Sees that there is a token for the commands of this machine: the one in the file, or a new one.
async fn first_token(tokens: &Tokens, file: &Path) -> anyhow::Result<()> {
    if file.exists() {
        let text = secret_file::read(file, "the admin token's file")?;
        let secret = TokenSecret::parse(text.trim()).with_context(|| {
            format!("{} holds no token: remove it, and the next start makes one", file.display())
        })?;
        return tokens.put_first(&secret, false).await;
    }
    let secret = TokenSecret::generate();
    tokens.put_first(&secret, true).await?;
    // The file comes last: without it, the next start makes another token.
    write_secret(file, secret.expose())?;
    tracing::info!(
        file = %file.display(),
        "an admin token was made for the commands of this machine, which find it there"
    );
    Ok(())
}

/// Writes a secret for its owner alone, into a file that is not there yet.
pub fn write_secret(file: &Path, secret: &str) -> anyhow::Result<()> {
    let cannot = || format!("the token cannot be written to {}", file.display());
    let part: PathBuf = {
        let mut name = file.as_os_str().to_owned();
        name.push(".new");
        name.into()
    };
    match fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(cannot);
        }
        _ => {}
    }
    let mut open = fs::OpenOptions::new();
    let mut opened =
        open.write(true).create_new(true).mode(0o600).open(&part).with_context(cannot)?;
    writeln!(opened, "{secret}").and_then(|()| opened.sync_all()).with_context(cannot)?;
    // Nobody sees half of it, and what is there already stays.
    let linked = fs::hard_link(&part, file).with_context(cannot);
    let _ = fs::remove_file(&part);
    linked
}

/// Who a command is that talks to the database itself.
pub(super) fn at_the_database() -> Authority {
    Authority::of(Principal::named("database"))
}

/// A token to be made in a database.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its name.
    pub name: TokenName,
    /// What it may do.
    pub grants: Grants,
    /// How long it is valid; for good when not given.
    pub lifetime: Option<Duration>,
}

/// Makes a token in a database, whether or not a server runs: the first one.
pub async fn create_token(
    address: &Address,
    new: NewToken,
) -> anyhow::Result<(Token, TokenSecret)> {
    let store = Store::open(address, 2)?;
    store.migrate().await.context("the database cannot be prepared")?;
    let tokens = Tokens::new(store.clone());
    let made = tokens.create(&new.name, &new.grants, new.lifetime, &at_the_database()).await;
    store.close().await;
    Ok(made?)
}
