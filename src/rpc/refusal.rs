//! The answer to a call for which there is no permit, or whose caller may not make it.
//!
//! Under overload this is what the server does most of the time, so the answers are made once, and only
//! their headers are copied. There are few: HPACK sends each as one byte once a connection has seen it. A
//! detail made for one caller would be written out, and read, every time.

use std::{
    collections::HashMap,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use tonic::{Status, body::Body};

use super::status;
use crate::{
    access::{
        Refusal,
        table::{Row, TABLE},
    },
    admission::{MAX_PRESSURE, Refused},
};

/// When to come again when about half of those who come are admitted. Twice that for each step that the
/// pressure is steeper.
const RETRY: Duration = Duration::from_millis(100);
/// The answers for each step of the pressure. They differ in when to come again, so that callers who were
/// refused together do not come again together.
const JITTERS: usize = 8;

static ANSWERS: LazyLock<Vec<HeaderMap>> = LazyLock::new(|| {
    let all = (0..=MAX_PRESSURE).flat_map(|step| (0..JITTERS).map(move |jitter| (step, jitter)));
    all.map(|(step, jitter)| headers(after(step, jitter))).collect()
});

/// The answer.
pub(super) fn of(refused: Refused) -> http::Response<Body> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let jitter = NEXT.fetch_add(1, Ordering::Relaxed) % JITTERS;
    with(ANSWERS.get(refused.pressure * JITTERS + jitter))
}

/// The answer where nobody knows who calls.
pub(super) fn of_caller(refusal: Refusal) -> http::Response<Body> {
    static ANSWERS: LazyLock<HashMap<Refusal, HeaderMap>> = LazyLock::new(|| {
        use Refusal::{Busy, Invalid, Malformed, Missing, Unknown};
        let all = [Missing, Malformed, Invalid, Busy, Unknown];
        all.map(|refusal| (refusal, headers_of(status::unauthenticated(refusal)))).into()
    });
    count(refusal.as_str());
    with(ANSWERS.get(&refusal))
}

/// The answer where the caller lacks the role of this row.
pub(super) fn of_need(row: &'static Row) -> http::Response<Body> {
    static ANSWERS: LazyLock<HashMap<&str, HeaderMap>> = LazyLock::new(|| {
        let all = TABLE.iter();
        all.map(|row| (row.rpc, headers_of(status::permission_denied(row)))).collect()
    });
    count("denied");
    with(ANSWERS.get(row.rpc))
}

/// The answer where what the caller showed is not valid any more.
pub(super) fn of_ended() -> Status {
    count("ended");
    status::access_ended()
}

/// Notes that a call was refused for this.
pub(super) fn count(reason: &'static str) {
    metrics::counter!("holdfast_access_refusals_total", "reason" => reason).increment(1);
}

fn with(headers: Option<&HeaderMap>) -> http::Response<Body> {
    let mut answer = http::Response::new(Body::empty());
    if let Some(headers) = headers {
        *answer.headers_mut() = headers.clone();
    }
    answer
}

/// From half the time to one and a half times.
fn after(step: usize, jitter: usize) -> Duration {
    let whole = RETRY.as_millis() as u64 * (1 << step);
    Duration::from_millis(whole / 2 + whole * jitter as u64 / JITTERS as u64)
}

fn headers(retry_after: Duration) -> HeaderMap {
    headers_of(status::overloaded(retry_after))
}

fn headers_of(status: Status) -> HeaderMap {
    status.into_http::<Body>().headers().clone()
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn who_is_refused_comes_again_the_later_the_steeper_the_pressure_and_not_all_at_once() {
        let mut before = Duration::ZERO;
        for pressure in 0..=MAX_PRESSURE {
            let retries: Vec<_> = (0..JITTERS)
                .map(|_| {
                    let answer = of(Refused { pressure });
                    let status = Status::from_header_map(answer.headers()).unwrap();
                    assert_eq!(status.code(), Code::ResourceExhausted);
                    let details = status.get_error_details();
                    assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
                    details.retry_info().unwrap().retry_delay.unwrap()
                })
                .collect();
            let (least, most) = (retries.iter().min().unwrap(), retries.iter().max().unwrap());
            assert!(*least > before / 2 && *most > *least * 2, "{retries:?}");
            assert!(*least < Duration::from_secs(4) && *most < Duration::from_secs(10));
            before = *most;
        }
    }
}
