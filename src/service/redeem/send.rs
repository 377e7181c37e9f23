//! Sending: the provider is asked until the outcome of a redemption is known, or the time to ask is over.

use std::time::Duration;

use super::Inner;
use crate::{
    domain::redemption::{Ask, Failure, Next, Redemption, Step, Verdict, reason},
    failpoints::{self, Guard},
    provider::{Call, Doubt},
    service::{Error, clock::Deadline},
};

/// How often a request that never left is sent again before the redemption fails.
const MAX_UNREACHABLE: i32 = 4;
/// Until the reconciler's first check of a redemption that is left in doubt.
const FIRST_CHECK: Duration = Duration::from_millis(500);
/// The longest back-off beside what a provider asks for that is at work on a redemption.
const MAX_POLL_BACKOFF: Duration = Duration::from_secs(1);
impl Inner {
    /// Asks the provider until the outcome is known, or the time to ask is over. Thousands may wait for
    /// an answer here, so what comes after it is in boxes.
    pub(super) async fn send_and_settle(
        &self,
        ask: &Ask,
        redemption: &Redemption,
        window: Deadline,
    ) -> Result<Redemption, Error> {
        let _send = self.announce(ask.redemption_id);
        let holder = redemption.holder.as_str();
        let mut attempts = 1;
        let mut call = Call::Send;
        let mut step = if !window.has_passed() || !failpoints::holds(Guard::LateIsNotSent) {
            self.send(ask).await
        } else {
            attempts = 0;
            Step::InDoubt { answer: "the server stood still before it could be sent".to_owned() }
        };
        loop {
            match step {
                Step::Settle(verdict) => {
                    let conclude = self.settler.conclude(redemption, verdict, attempts, holder);
                    return Box::pin(conclude).await;
                }
                Step::SendAgain { failure, after } => {
                    let pause = pause(after, attempts);
                    let unreachable = failure.reason == reason::PROVIDER_UNREACHABLE;
                    let has_ended = unreachable && attempts >= MAX_UNREACHABLE;
                    if has_ended || !window.pause(pause).await {
                        let settled =
                            self.settler.fail_unsent(redemption, failure, attempts, holder);
                        return Box::pin(settled).await;
                    }
                    step = self.send(ask).await;
                }
                // Busy, as far as can be told: what it counts once may be sent again.
                Step::Busy { after, answer }
                    if call == Call::Send && self.limits.provider.deduplicates =>
                {
                    let pause = pause(after, attempts);
                    if window.pause(pause).await {
                        let answer = self.provider.send_again(ask).await;
                        step = self.provider.judge(ask, Call::Send, Doubt::InDoubt, &answer);
                    } else if !window.has_passed() && self.limits.provider.cancels {
                        (step, call) = (Box::pin(self.call_off(ask, answer)).await, Call::Cancel);
                    } else {
                        // By now somebody else may be at work on it.
                        step = Step::InDoubt { answer };
                        continue;
                    }
                }
                Step::LookUp { after, answer } | Step::Busy { after, answer } => {
                    let pause = poll_pause(after, attempts);
                    if !self.limits.provider.looks_up || !window.pause(pause).await {
                        step = Step::InDoubt { answer };
                        continue;
                    }
                    (step, call) = (self.look_up(ask).await, Call::LookUp);
                }
                Step::Unproven { answer } => {
                    if window.has_passed() || !self.limits.provider.looks_up {
                        step = Step::InDoubt { answer };
                        continue;
                    }
                    (step, call) = (self.look_up(ask).await, Call::LookUp);
                }
                Step::NotFound => {
                    let answer = "the provider does not know the key that it answered to before";
                    step = Step::InDoubt { answer: answer.to_owned() };
                    continue;
                }
                Step::InDoubt { answer } => {
                    let next = Next::Check { after: FIRST_CHECK, not_found: false, checks: 0 };
                    return Box::pin(self.settler.defer(redemption, answer, attempts, next)).await;
                }
            }
            attempts += 1;
        }
    }

    async fn send(&self, ask: &Ask) -> Step {
        let answer = self.provider.send(ask).await;
        self.provider.judge(ask, Call::Send, Doubt::FirstSend, &answer)
    }

    async fn look_up(&self, ask: &Ask) -> Step {
        let answer = self.provider.look_up(ask.redemption_id).await;
        self.provider.judge(ask, Call::LookUp, Doubt::InDoubt, &answer)
    }

    /// The outcome of a redemption for which the provider was too busy until the time to send was over. Cancelled
    /// by its key it is as if it had never been sent.
    async fn call_off(&self, ask: &Ask, busy: String) -> Step {
        let answer = self.provider.cancel(ask.redemption_id).await;
        match self.provider.judge(ask, Call::Cancel, Doubt::InDoubt, &answer) {
            Step::Settle(Verdict::Failed(failure)) if failure.reason == reason::CANCELLED => {
                let reason = reason::PROVIDER_BUSY.to_owned();
                let message = format!("{busy}; then {}", failure.message);
                Step::Settle(Verdict::Failed(Failure { reason, message, code_spent: false }))
            }
            settle @ Step::Settle(_) => settle,
            _ => Step::InDoubt { answer: busy },
        }
    }
}

/// How long to wait before something is sent again. What the provider asks for is the least, so that one
/// that always asks for little is asked ever more rarely all the same.
fn pause(asked: Option<Duration>, attempts: i32) -> Duration {
    backoff(attempts).max(asked.unwrap_or_default())
}

/// The same before an outcome is looked up. A provider that says when wants to be asked then: the
/// back-off beside that stays short, so that the outcome does not wait for it.
fn poll_pause(asked: Option<Duration>, attempts: i32) -> Duration {
    match asked {
        Some(asked) => asked.max(backoff(attempts).min(MAX_POLL_BACKOFF)),
        None => backoff(attempts),
    }
}

/// 100 ms, 200 ms, 400 ms … at most 5 s.
fn backoff(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(10);
    Duration::from_millis(100).saturating_mul(1 << doublings).min(Duration::from_secs(5))
}
