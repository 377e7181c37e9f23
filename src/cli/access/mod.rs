//! `holdfast token`: make, list and revoke tokens.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::shared::{
    client::{PAGE_SIZE, RpcError, ServerArgs, required, unary, wire},
    database::DatabaseArgs,
    list::{ListOptions, print_list},
    output::{FormatArgs, Sink, after_change, note, record, while_read},
    parse, view,
};
use crate::{
    app::{self, NewToken, write_secret},
    config::parse_duration,
    domain::{
        access::{Grant, Grants, MAX_LIFETIME, MIN_LIFETIME, PoolPattern, Role},
        id::TokenName,
    },
    rpc::pb,
};

/// What to do about tokens.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, and print its secret: once, since only a hash of it is kept. With a database URL it is made there,
    /// without a server: so the first one is made.
    Create(CreateArgs),
    /// List the tokens, the revoked and expired ones too.
    List(ListArgs),
    /// Revoke a token: within seconds it stops working on every server.
    Revoke(RevokeArgs),
}

/// A role, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    /// Acquires, renews, releases, redeems; reads what it needs for that.
    Redeemer,
    /// What a redeemer may; changes pools, plans and accounts; settles redemptions.
    Operator,
    /// Reads everything, and changes nothing.
    Auditor,
    /// Everything, also tokens and providers.
    Admin,
}

impl RoleArg {
    fn role(self) -> Role {
        match self {
            Self::Redeemer => Role::Redeemer,
            Self::Operator => Role::Operator,
            Self::Auditor => Role::Auditor,
            Self::Admin => Role::Admin,
        }
    }

    fn message(self) -> pb::Role {
        match self {
            Self::Redeemer => pb::Role::Redeemer,
            Self::Operator => pb::Role::Operator,
            Self::Auditor => pb::Role::Auditor,
            Self::Admin => pb::Role::Admin,
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// Its name.
    #[arg(value_parser = parse::token)]
    name: TokenName,
    /// What it may do. Several are paired with as many --pools, in order; one alone is on all of them.
    #[arg(long, value_enum, required = true)]
    role: Vec<RoleArg>,
    /// On which pools: a pool's id, or the beginning of ids and *.
    #[arg(long, value_parser = pool_pattern, required = true)]
    pools: Vec<PoolPattern>,
    /// How long it is valid, 1m to ten years; for good when not given.
    #[arg(long, value_parser = parse_duration)]
    lifetime: Option<Duration>,
    /// A file to write the secret to, readable for its owner alone, instead of printing it. It must not be there yet.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Make it in this database, without a server.
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    list: ListOptions,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct RevokeArgs {
    /// The token.
    #[arg(value_parser = parse::token)]
    name: TokenName,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs one of the commands.
pub(super) async fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::List(args) => while_read(list(args)).await,
        TokenCommand::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let grants = paired(&args.role, &args.pools)?;
    if let Some(out) = &args.out {
        anyhow::ensure!(!out.exists(), "{} is there already: choose another file", out.display());
    }
    let secret = match args.database.given()? {
        Some(address) => {
            let least_to_most = MIN_LIFETIME..=MAX_LIFETIME;
            anyhow::ensure!(
                args.lifetime.is_none_or(|lifetime| least_to_most.contains(&lifetime)),
                "--lifetime must be 1m to ten years"
            );
            let grant = |(role, pools): &(RoleArg, PoolPattern)| Grant {
                role: role.role(),
                pools: pools.clone(),
            };
            let new = NewToken {
                name: args.name.clone(),
                grants: Grants::new(grants.iter().map(grant).collect()),
                lifetime: args.lifetime,
            };
            app::create_token(&address, new).await?.1.expose().to_owned()
        }
        None => {
            let grant = |(role, pools): &(RoleArg, PoolPattern)| pb::Grant {
                role: role.message().into(),
                pools: pools.as_str().to_owned(),
            };
            let request = pb::CreateTokenRequest {
                name: args.name.to_string(),
                grants: grants.iter().map(grant).collect(),
                lifetime: wire(args.lifetime)?,
            };
            let mut access = args.server.connect().await?.access();
            access.create_token(unary(request)).await.map_err(RpcError)?.into_inner().secret
        }
    };
    after_change(hand_over(&args, &secret))
}

fn hand_over(args: &CreateArgs, secret: &str) -> anyhow::Result<()> {
    match &args.out {
        Some(out) => {
            write_secret(out, secret)?;
            note(format_args!("token {} made: its secret is in {}", args.name, out.display()));
        }
        None => {
            let mut sink = Sink::stdout();
            sink.line(secret)?;
            sink.flush()?;
            note(format_args!("token {} made: keep the secret, it is not shown again", args.name));
        }
    }
    Ok(())
}

/// Each role with its pools.
fn paired(roles: &[RoleArg], pools: &[PoolPattern]) -> anyhow::Result<Vec<(RoleArg, PoolPattern)>> {
    match (roles, pools) {
        ([role], pools) => Ok(pools.iter().map(|pools| (*role, pools.clone())).collect()),
        (roles, [pools]) => Ok(roles.iter().map(|role| (*role, pools.clone())).collect()),
        (roles, pools) if roles.len() == pools.len() => {
            Ok(roles.iter().copied().zip(pools.iter().cloned()).collect())
        }
        _ => anyhow::bail!("give as many --pools as --role, each after its role, or one of either"),
    }
}

fn pool_pattern(text: &str) -> Result<PoolPattern, &'static str> {
    PoolPattern::parse(text)
        .ok_or("must be a pool's id, or the beginning of ids and *: shop-*, or *")
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let rows = args.list.rows(view::TOKEN, view::TOKEN, Sink::stdout())?;
    let mut access = args.server.connect().await?.access();
    print_list(
        rows,
        async |page_token| {
            let request = pb::ListTokensRequest { page_size: PAGE_SIZE, page_token };
            let page = access.list_tokens(unary(request)).await?.into_inner();
            Ok((page.tokens, page.next_page_token))
        },
        view::token,
    )
    .await
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let request = unary(pb::RevokeTokenRequest { name: args.name.to_string() });
    let mut access = args.server.connect().await?.access();
    let token = access.revoke_token(request).await.map_err(RpcError)?.into_inner().token;
    let row = view::token(&required(token, "token")?);
    after_change(record(args.format.for_stdout(), view::TOKEN, &row, Sink::stdout()).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_paired_with_pools_in_order_and_one_of_either_goes_with_all() {
        let pool = |text| PoolPattern::parse(text).unwrap();
        let (eu, us) = (pool("eu"), pool("us"));
        let both = [eu.clone(), us.clone()];
        use RoleArg::{Auditor, Operator, Redeemer};
        let pairs = |roles: &[RoleArg], pools: &[PoolPattern]| paired(roles, pools).unwrap();
        assert_eq!(pairs(&[Redeemer], &both), [(Redeemer, eu.clone()), (Redeemer, us.clone())]);
        assert_eq!(
            pairs(&[Redeemer, Auditor], &both),
            [(Redeemer, eu.clone()), (Auditor, us.clone())]
        );
        assert_eq!(
            pairs(&[Redeemer, Auditor], std::slice::from_ref(&eu)),
            [(Redeemer, eu.clone()), (Auditor, eu)]
        );
        assert!(paired(&[Redeemer, Auditor, Operator], &both).is_err());
    }
}
