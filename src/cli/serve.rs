//! `holdfast serve`: runs a server until it is told to stop.

use super::shared::stop::Stop;
use crate::{app::App, config::ServeArgs};

/// Serves until told to stop, and finishes what is under way. Told twice, it goes at once.
pub(super) async fn run(args: ServeArgs, mut stop: Stop) -> anyhow::Result<()> {
    let app = tokio::select! {
        app = App::start(&args) => app?,
        () = stop.asked() => return Ok(()),
    };
    let begin_stop = app.stopper();
    let mut stopped = std::pin::pin!(app.stopped());
    tokio::select! {
        ended = &mut stopped => return ended,
        () = stop.asked() => begin_stop.cancel(),
    }
    tokio::select! {
        ended = stopped => ended,
        () = stop.asked_again() => anyhow::bail!("told twice to stop: calls in progress are not waited for"),
    }
}
