//! `holdfast redemption watch`: outcomes as they are recorded.

use std::pin::pin;

use clap::Args;
use time::OffsetDateTime;
use tonic::{Request, Status};

use crate::{
    cli::shared::{
        client::{RpcError, Server, ServerArgs, server_time},
        lost::{is_lost, wait},
        output::{FormatArgs, Rows, Sink, note},
        parse, view,
    },
    domain::id::PoolId,
    rpc::pb,
};

/// What stands for the beginning: the contract has nothing there.
const OLDEST: &str = "oldest";

#[derive(Args, Debug)]
pub(in crate::cli) struct WatchArgs {
    /// The pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    /// From where on: a cursor of an earlier row, `now`, or `oldest`.
    #[arg(long, value_name = "CURSOR", default_value = "now")]
    after: String,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Prints outcomes until it is stopped. A connection that is lost is opened again, after what was printed last.
pub(super) async fn run(args: WatchArgs, stopped: impl Future<Output = ()>) -> anyhow::Result<()> {
    let format = args.format.for_endless_stdout()?;
    let mut rows = Rows::new(format, view::REDEMPTION_WATCHED, Sink::stdout());
    let server = args.server.connect().await?;
    let mut after = if args.after == OLDEST { String::new() } else { args.after };
    let mut stopped = pin!(stopped);
    let mut lost = 0;
    loop {
        let ended = tokio::select! {
            biased;
            () = &mut stopped => break,
            ended = follow(&server, &args.pool, &mut after, &mut rows, &mut lost) => ended?,
        };
        if !is_lost(&ended) {
            return Err(RpcError(ended).into());
        }
        lost += 1;
        if lost == 1 {
            note(format_args!("the server does not answer ({}): trying again", ended.message()));
        }
        tokio::select! {
            biased;
            () = &mut stopped => break,
            () = tokio::time::sleep(wait(lost, &ended)) => {}
        }
    }
    rows.finish()?;
    Ok(())
}

/// Prints what one stream brings, and answers why it ended.
async fn follow(
    server: &Server,
    pool_id: &PoolId,
    after: &mut String,
    rows: &mut Rows,
    lost: &mut u32,
) -> anyhow::Result<Status> {
    let request =
        pb::WatchRedemptionsRequest { pool_id: pool_id.to_string(), after: after.clone() };
    let reply = match server.redemptions().watch_redemptions(Request::new(request)).await {
        Ok(reply) => reply,
        Err(status) => return Ok(status),
    };
    let skew = server_time(reply.metadata()) - OffsetDateTime::now_utc();
    let mut stream = reply.into_inner();
    loop {
        let told = match stream.message().await {
            Ok(Some(told)) => told,
            // A server that stops says so; whatever else ends a stream is no answer either.
            Ok(None) => {
                return Ok(Status::from(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)));
            }
            Err(status) => return Ok(status),
        };
        *lost = 0;
        if let Some(redemption) = &told.redemption {
            let row = view::redemption(redemption, OffsetDateTime::now_utc() + skew);
            rows.push(&view::watched(&row, &told.cursor))?;
        }
        *after = told.cursor;
    }
}
