//! The beats of servers: each writes its own, and judges by those of the others which are dead.
//!
//! A server is dead when its beat did not change over three beats of the judge's own that the database
//! acknowledged. No clock is compared, and a database that is slow or away delays the judge as well. The
//! judgement can be wrong: a server may be paused, or only its beats may be blocked. So all that may follow
//! from it is a look-up ([`super::reconcile::takeover`]).

use std::{collections::HashMap, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::{Store, StoreError, servers::Beat};

/// How often a server beats. A dead one is judged so after two to four of these. The redemptions that it sent are
/// looked up within 5 s of its death.
pub(super) const BEAT: Duration = Duration::from_millis(750);
/// Over so many of the judge's own beats another's must not have changed.
const SILENT_BEATS: u32 = 3;
/// How long the row of a server is kept that does not beat, by the database's clock.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// How often rows are removed.
const REMOVAL: Duration = Duration::from_secs(60);

/// Beats until `stop`, and tells `dead` of the servers that are.
pub async fn run(store: Store, dead: watch::Sender<Vec<Uuid>>, stop: CancellationToken) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut judge = Judge::new(store.server_id());
    let mut is_heard = true;
    let mut removed_at: Option<Instant> = None;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match beat_and_read(&store).await {
            Ok(beats) => {
                if !std::mem::replace(&mut is_heard, true) {
                    tracing::info!("this server's beat is acknowledged again");
                }
                metrics::counter!("holdfast_beats_total", "outcome" => "acknowledged").increment(1);
                judge.hear(&beats);
                publish(&judge, &dead);
            }
            Err(error) => {
                metrics::counter!("holdfast_beats_total", "outcome" => "failed").increment(1);
                if std::mem::replace(&mut is_heard, false) {
                    tracing::warn!(%error, "this server's beat is not acknowledged: others may take it for dead");
                }
                continue;
            }
        }
        if removed_at.is_none_or(|at| at.elapsed() >= REMOVAL) {
            removed_at = Some(Instant::now());
            remove_silent(&store).await;
        }
    }
}

/// What is read after a beat was acknowledged is at least as new as that beat.
async fn beat_and_read(store: &Store) -> Result<Vec<Beat>, StoreError> {
    store.beat().await?;
    store.list_beats().await
}

fn publish(judge: &Judge, dead: &watch::Sender<Vec<Uuid>>) {
    let now_dead = judge.dead();
    let living = judge.others.len() + 1 - now_dead.len();
    metrics::gauge!("holdfast_servers", "state" => "living").set(living as f64);
    metrics::gauge!("holdfast_servers", "state" => "dead").set(now_dead.len() as f64);
    dead.send_if_modified(|before| {
        let is_new = *before != now_dead;
        *before = now_dead;
        is_new
    });
}

async fn remove_silent(store: &Store) {
    match store.remove_servers(KEPT).await {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "servers that had not beaten for long were removed"),
        Err(error) => tracing::warn!(%error, "servers that are long gone could not be removed"),
    }
}

/// What one server thinks of the others.
#[derive(Debug)]
struct Judge {
    /// The judge, who is not judged.
    server_id: Uuid,
    others: HashMap<Uuid, Heard>,
}

/// What was heard of a server.
#[derive(Debug)]
struct Heard {
    beat: i64,
    /// Over so many of the judge's beats it was this.
    silent: u32,
}

impl Heard {
    fn is_dead(&self) -> bool {
        self.silent >= SILENT_BEATS
    }
}

impl Judge {
    fn new(server_id: Uuid) -> Self {
        Self { server_id, others: HashMap::new() }
    }

    /// Takes what was read after a beat of the judge's own was acknowledged.
    fn hear(&mut self, beats: &[Beat]) {
        let mut before = std::mem::take(&mut self.others);
        for Beat { server_id, beat } in beats.iter().filter(|it| it.server_id != self.server_id) {
            let heard = match before.remove(server_id) {
                Some(heard) => heard.and_now(*server_id, *beat),
                None => Heard { beat: *beat, silent: 0 },
            };
            self.others.insert(*server_id, heard);
        }
    }

    /// The servers that are dead, in the order of their ids.
    fn dead(&self) -> Vec<Uuid> {
        let dead = self.others.iter().filter(|(_, heard)| heard.is_dead());
        let mut dead: Vec<_> = dead.map(|(server_id, _)| *server_id).collect();
        dead.sort_unstable();
        dead
    }
}

impl Heard {
    fn and_now(self, server_id: Uuid, beat: i64) -> Self {
        if beat != self.beat {
            if self.is_dead() {
                tracing::info!(%server_id, "a server that was taken for dead beats again");
            }
            return Self { beat, silent: 0 };
        }
        let silent = self.silent.saturating_add(1);
        if silent == SILENT_BEATS {
            tracing::warn!(
                %server_id, beat,
                "a server's beat has stopped: what it had in flight at the provider is looked up"
            );
        }
        Self { beat, silent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);
    const THIRD: Uuid = Uuid::from_u128(3);

    fn beats(of: &[(Uuid, i64)]) -> Vec<Beat> {
        of.iter().map(|(server_id, beat)| Beat { server_id: *server_id, beat: *beat }).collect()
    }

    #[test]
    fn a_server_is_dead_when_its_beat_did_not_change_over_three_of_the_judges_own() {
        let mut judge = Judge::new(ME);
        for (round, is_dead) in [false, false, false, true, true].into_iter().enumerate() {
            judge.hear(&beats(&[(ME, round as i64), (OTHER, 7), (THIRD, round as i64)]));
            assert_eq!(judge.dead(), if is_dead { vec![OTHER] } else { Vec::new() }, "{round}");
        }
        judge.hear(&beats(&[(OTHER, 8), (THIRD, 5)]));
        assert!(judge.dead().is_empty(), "it beats again");
        for _ in 0..3 {
            assert!(judge.dead().is_empty());
            judge.hear(&beats(&[(OTHER, 8), (THIRD, 5)]));
        }
        assert_eq!(judge.dead(), [OTHER, THIRD]);
    }

    #[test]
    fn a_judge_whose_own_beats_are_not_acknowledged_judges_nobody() {
        let mut judge = Judge::new(ME);
        judge.hear(&beats(&[(OTHER, 7)]));
        judge.hear(&beats(&[(OTHER, 7)]));
        judge.hear(&beats(&[(OTHER, 7)]));
        // An hour without a database is not heard of; after it everybody beats.
        judge.hear(&beats(&[(OTHER, 8)]));
        assert!(judge.dead().is_empty());
    }

    #[test]
    fn a_beat_that_falls_is_a_change_too_as_after_a_restore_of_the_database() {
        let mut judge = Judge::new(ME);
        for beat in [9, 9, 9, 3] {
            judge.hear(&beats(&[(OTHER, beat)]));
            assert!(judge.dead().is_empty(), "{beat}");
        }
    }

    #[test]
    fn a_server_whose_row_is_gone_is_forgotten_and_nobody_judges_himself() {
        let mut judge = Judge::new(ME);
        for _ in 0..5 {
            judge.hear(&beats(&[(ME, 1), (OTHER, 7)]));
        }
        assert_eq!(judge.dead(), [OTHER]);
        judge.hear(&beats(&[(ME, 1)]));
        assert!(judge.dead().is_empty() && judge.others.is_empty());
    }
}
