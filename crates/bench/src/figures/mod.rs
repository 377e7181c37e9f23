//! Figures: each is measured in a file of its own.

mod alone;
pub(crate) mod attacks;
mod auth;
pub(crate) mod bloat;
mod card;
pub(crate) mod costs;
mod cycles;
mod memory;
mod overload;
mod redeem;
mod size;

use std::time::Duration;

use crate::{
    args::{Args, Figure},
    goals::{self, Part, Row},
    ground::Ground,
    peers::{Peer, Rounds},
    report::progress,
    stats,
};

/// A run of each before those that count: connections are made, plans and pages found.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures what is asked for. One figure that fails does not take the others with it.
pub(crate) async fn measure(args: &Args, ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let mut rows = goals::rows();
    let wanted = |figures: &[Figure]| figures.iter().any(|figure| args.wants(*figure));
    if wanted(&[Figure::Cycles, Figure::Etcd, Figure::Echo]) {
        let done = Box::pin(cycles::measure(args, ground, &mut rows)).await;
        note_failure(&mut parts(&mut rows[goals::CYCLES..=goals::ECHO]), done);
    }
    if wanted(&[Figure::Alone]) {
        let done = Box::pin(alone::measure(args, ground, &mut rows[goals::ALONE])).await;
        note_failure(&mut parts(&mut rows[goals::ALONE..=goals::ALONE]), done);
    }
    if wanted(&[Figure::Redeem, Figure::Graphile]) {
        let done = Box::pin(redeem::measure(args, ground, &mut rows)).await;
        note_failure(&mut parts(&mut rows[goals::REDEEM..=goals::GRAPHILE]), done);
    }
    if wanted(&[Figure::Overload]) {
        let done = Box::pin(overload::measure(args, ground, &mut rows[goals::OVERLOAD])).await;
        note_failure(&mut parts(&mut rows[goals::OVERLOAD..=goals::OVERLOAD]), done);
    }
    if wanted(&[Figure::Waiting]) {
        let done = Box::pin(memory::waiting(args, ground, &mut rows[goals::MEMORY])).await;
        note_failure(&mut [&mut rows[goals::MEMORY].parts[goals::part::WAITING]], done);
        let done = Box::pin(memory::waiting_http2(args, ground, &mut rows[goals::MEMORY])).await;
        note_failure(&mut [&mut rows[goals::MEMORY].parts[goals::part::WAITING_HTTP2]], done);
    }
    if wanted(&[Figure::Stream]) {
        let done = Box::pin(memory::stream(args, ground, &mut rows[goals::MEMORY])).await;
        note_failure(&mut [&mut rows[goals::MEMORY].parts[goals::part::STREAM]], done);
    }
    if wanted(&[Figure::Size]) {
        let done = Box::pin(size::measure(args, ground, &mut rows[goals::SIZE])).await;
        note_failure(&mut parts(&mut rows[goals::SIZE..=goals::SIZE]), done);
    }
    if wanted(&[Figure::Auth]) {
        let done = Box::pin(auth::measure(args, ground, &mut rows[goals::AUTH])).await;
        note_failure(&mut parts(&mut rows[goals::AUTH..=goals::AUTH]), done);
    }
    if wanted(&[Figure::Card]) {
        let done = Box::pin(card::measure(args, ground, &mut rows[goals::CARD])).await;
        note_failure(&mut parts(&mut rows[goals::CARD..=goals::CARD]), done);
    }
    Ok(rows)
}

/// What was to be measured and was not has the failure as its reason.
fn note_failure(parts: &mut [&mut Part], done: anyhow::Result<()>) {
    let Err(error) = done else { return };
    progress(&format!("  failed: {error:#}"));
    for part in parts {
        if part.value.as_ref().is_err_and(|reason| reason == goals::NOT_ASKED_FOR) {
            part.value = Err(format!("{error:#}"));
        }
    }
}

/// All parts of some rows.
fn parts(rows: &mut [Row]) -> Vec<&mut Part> {
    rows.iter_mut().flat_map(|row| &mut row.parts).collect()
}

/// Runs the peers one after the other, in rounds.
async fn run_in_rounds(
    args: &Args,
    ground: &Ground,
    peers: &mut [Box<dyn Peer>],
) -> anyhow::Result<Vec<Rounds>> {
    for peer in peers.iter_mut() {
        peer.run_for(WARM_UP).await?;
    }
    let mut rounds: Vec<_> = peers
        .iter()
        .map(|peer| Rounds { name: peer.name().to_owned(), per_second: Vec::new() })
        .collect();
    for number in 1..=args.rounds() {
        for (peer, rounds) in peers.iter_mut().zip(&mut rounds) {
            ground.level().await?;
            let per_second = peer.run_for(args.run_duration()).await?;
            progress(&format!("  round {number}: {}: {per_second:.0}/s", rounds.name));
            rounds.per_second.push(per_second);
        }
    }
    Ok(rounds)
}

/// Notes a ratio of rates in a row: ours by theirs, round by round.
fn compare(row: &mut Row, unit: &'static str, ours: &Rounds, theirs: &Rounds) {
    let ratios = stats::ratios(&ours.per_second, &theirs.per_second);
    row.set(0, stats::median(&ratios), Some(stats::spread(&ratios)));
    for rounds in [ours, theirs] {
        row.measured.push(stats::measured(&rounds.name, unit, &rounds.per_second));
    }
}
