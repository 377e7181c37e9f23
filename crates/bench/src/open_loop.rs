//! Callers who come at a rate, whether or not those before them were answered.
//!
//! Each caller has a time at which to come. One who comes late, because the machine is busy, has waited since
//! then: calling less cannot improve what is measured from it.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// How often those whose time has come are let go.
const TICK: Duration = Duration::from_millis(1);
/// How long those who are not answered yet are waited for at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    /// Who had their time.
    pub(crate) intended: u64,
    /// Who came. The others found as many under way as this program keeps.
    pub(crate) sent: u64,
}

/// Lets `per_second` come for `lasting`, with at most `most` under way. Everyone gets the time at which
/// to come.
pub(crate) async fn open_loop<F, C>(
    per_second: f64,
    lasting: Duration,
    most: u32,
    mut come: C,
) -> Arrivals
where
    C: FnMut(Instant) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(most as usize));
    let begun = Instant::now();
    let mut arrivals = Arrivals { intended: 0, sent: 0 };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let elapsed = begun.elapsed();
        let due = due(per_second, elapsed.min(lasting));
        while arrivals.intended < due {
            #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
            let time = begun + Duration::from_secs_f64(arrivals.intended as f64 / per_second);
            arrivals.intended += 1;
            if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                arrivals.sent += 1;
                let came = come(time);
                tokio::spawn(async move {
                    came.await;
                    drop(permit);
                });
            }
        }
        if elapsed >= lasting {
            break;
        }
    }
    // Those who are not answered by then have their own deadlines behind them.
    let _ = tokio::time::timeout(PATIENCE, permits.acquire_many(most)).await;
    arrivals
}

/// How many have come after some time.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is never negative")]
fn due(per_second: f64, elapsed: Duration) -> u64 {
    (per_second * elapsed.as_secs_f64()) as u64
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn everyone_comes_and_those_for_whom_there_is_no_permit_are_counted() {
        let came = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&came);
        let arrivals = open_loop(1_000.0, Duration::from_millis(100), 1_000, |_| {
            let counted = Arc::clone(&counted);
            async move {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
        assert_eq!((arrivals.intended, arrivals.sent), (100, 100));
        assert_eq!(came.load(Ordering::Relaxed), 100);

        let pause = Duration::from_millis(200);
        let slow =
            open_loop(1_000.0, Duration::from_millis(100), 10, |_| tokio::time::sleep(pause));
        let arrivals = slow.await;
        assert_eq!((arrivals.intended, arrivals.sent), (100, 10));
    }
}
