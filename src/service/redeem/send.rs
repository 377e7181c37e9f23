//! Sending: the provider is asked until the outcome of a redemption is known, or the time to ask is over.

use std::time::Duration;

use tokio::time::sleep;

use super::{Inner, join::SendInProgress, window::Window};
use crate::{
    domain::redemption::{Action, Ask, Dedup, Failure, Next, Redemption, Step, Verdict, reason},
    failpoints::{self, Guard},
    provider::{Call, Doubt},
    service::{
        Error,
        clock::Deadline,
        providers::{LimitedProvider, Permit},
    },
    store::{Store, StoreError},
};

/// How often a request that never left is sent again before the redemption fails.
const MAX_UNREACHABLE: i32 = 4;
/// Until the reconciler's first check of a redemption that is left in doubt.
const FIRST_CHECK: Duration = Duration::from_millis(500);
/// The longest back-off beside what a provider asks for that is at work on a redemption.
const MAX_POLL_BACKOFF: Duration = Duration::from_secs(1);
/// How often it is read whether another server has settled a redemption, during a longer pause before a poll.
const SETTLED_POLL: Duration = Duration::from_secs(5);
/// How long to wait before the provider's id of its work is recorded again while there is no database. Nothing else has
/// it.
const RETRY: Duration = Duration::from_millis(250);

impl Inner {
    /// Waits before the next poll, and answers whether it may still be made. Where the provider calls, another server
    /// may be called, and settle the redemption: then the wait ends, too.
    async fn pause(
        &self,
        send: &SendInProgress<'_>,
        provider: &LimitedProvider,
        redemption: &Redemption,
        (window, pause): (&Window<'_>, Duration),
    ) -> bool {
        if provider.profile().webhook.is_none() || pause < SETTLED_POLL {
            return send.pause(window, pause).await;
        }
        let settled = Box::pin(async {
            loop {
                sleep(SETTLED_POLL).await;
                let id = redemption.redemption_id;
                let read = self.store.get_redemption(&redemption.pool_id, id).await;
                if read.is_ok_and(|read| read.is_some_and(|read| !read.state.is_open())) {
                    return;
                }
            }
        });
        tokio::select! {
            in_time = send.pause(window, pause) => in_time,
            () = settled => !window.has_passed(),
        }
    }

    /// Asks the provider until the outcome is known, or the time to ask is over. When the server stops, the call that is
    /// under way is the last. Thousands may wait for
    /// an answer here, so what comes after it is in boxes.
    pub(super) async fn send_and_settle(
        &self,
        provider: &LimitedProvider,
        permit: Permit,
        mut ask: Box<Ask>,
        redemption: &Redemption,
        window: Deadline,
    ) -> Result<Redemption, Error> {
        let send = self.announce(ask.redemption_id);
        let window = Window::new(window, &self.stopping.closing);
        let holder = redemption.holder.as_str();
        let limits = provider.limits();
        let mut attempts = 1;
        let mut call = Call::Send;
        let mut step = if !window.is_too_late() || !failpoints::holds(Guard::LateIsNotSent) {
            provider.send(permit, Doubt::FirstSend, &ask).await
        } else {
            attempts = 0;
            let answer = "the server stood still before it could be sent".to_owned();
            Step::InDoubt { answer, is_answer: false }
        };
        loop {
            ask.known.age = limits.send_window.saturating_sub(window.left());
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
                    let patience = window.left();
                    let again = provider.ask_in_time(Call::Send, Doubt::FirstSend, &ask, patience);
                    // What it was refused for stays the reason, where it takes no calls since.
                    step = again.await.unwrap_or(Step::SendAgain { failure, after: None });
                }
                // Busy, as far as can be told: what it counts once may be sent again.
                Step::Busy { after, answer }
                    if call == Call::Send && limits.provider.dedup == Dedup::Replay =>
                {
                    let pause = pause(after, attempts);
                    let lead_time = pause + limits.call_timeout;
                    let is_remembered = limits.provider.may_send_again(ask.known.age, lead_time);
                    if is_remembered && window.pause(pause).await {
                        let patience = window.left();
                        let again =
                            provider.ask_in_time(Call::Send, Doubt::InDoubt, &ask, patience);
                        step = again.await.unwrap_or(Step::Busy { after: None, answer });
                    } else if !window.has_passed() && limits.provider.cancels {
                        // A cancellation does no harm when it is late. So it may wait out what the provider asks for.
                        let patience = window.left() + limits.call_timeout;
                        let call_off = Box::pin(call_off(provider, &ask, answer, patience));
                        (step, call) = (call_off.await, Call::Cancel);
                    } else {
                        // By now somebody else may be at work on it.
                        step = Step::InDoubt { answer, is_answer: false };
                        continue;
                    }
                }
                Step::LookUp { task, after, answer } => {
                    if let Some(task) = task
                        && ask.known.task.is_none()
                    {
                        let kept = Box::pin(keep_task(&self.store, redemption, &task)).await?;
                        ask.known.task = kept.or(Some(task));
                    }
                    let question = question(provider, &ask);
                    let Some(question) = question.filter(|_| !window.has_passed()) else {
                        step = Step::InDoubt { answer, is_answer: false };
                        continue;
                    };
                    let pause = poll_pause(after, attempts);
                    if !self.pause(&send, provider, redemption, (&window, pause)).await {
                        step = Step::InDoubt { answer, is_answer: false };
                        continue;
                    }
                    let asked = provider.ask(question, Doubt::InDoubt, &ask, window.left());
                    (step, call) = (asked.await, question);
                }
                Step::Busy { after, answer } => {
                    let question = question(provider, &ask);
                    match question {
                        Some(question)
                            if send.pause(&window, poll_pause(after, attempts)).await =>
                        {
                            let asked = provider.ask(question, Doubt::InDoubt, &ask, window.left());
                            (step, call) = (asked.await, question);
                        }
                        _ => {
                            step = Step::InDoubt { answer, is_answer: false };
                            continue;
                        }
                    }
                }
                Step::Unproven { answer } => match question(provider, &ask) {
                    Some(question) if !window.has_passed() => {
                        let asked = provider.ask(question, Doubt::InDoubt, &ask, window.left());
                        (step, call) = (asked.await, question);
                    }
                    _ => {
                        step = Step::InDoubt { answer, is_answer: false };
                        continue;
                    }
                },
                Step::NotFound => {
                    let answer = "the provider does not find what it answered to before".to_owned();
                    step = Step::InDoubt { answer, is_answer: false };
                    continue;
                }
                Step::InDoubt { answer, .. } => {
                    let next = Next::Check {
                        after: FIRST_CHECK,
                        not_found: false,
                        odd_checks: 0,
                        checks: 0,
                    };
                    return Box::pin(self.settler.defer(redemption, answer, attempts, next)).await;
                }
            }
            attempts += 1;
        }
    }
}

/// The call that asks what became of a redemption, if one can be made.
pub(in crate::service) fn question(provider: &LimitedProvider, ask: &Ask) -> Option<Call> {
    match provider.limits().provider.question(ask.known.task.is_some())? {
        Action::Find => Some(Call::Find),
        _ => Some(Call::LookUp),
    }
}

/// Commits the provider's id of its work, before anything is asked by it. `None`: the redemption is settled.
pub(in crate::service) async fn keep_task(
    store: &Store,
    redemption: &Redemption,
    task: &str,
) -> Result<Option<String>, Error> {
    let Redemption { pool_id, redemption_id, .. } = redemption;
    loop {
        match store.record_task(pool_id, *redemption_id, task).await {
            Err(StoreError::Unavailable(_) | StoreError::Overloaded) => sleep(RETRY).await,
            kept => {
                let kept = kept?;
                if kept.as_deref().is_some_and(|kept| kept != task) {
                    tracing::error!(
                        %pool_id, %redemption_id,
                        "the provider tells another id of its work than before: the first one is kept"
                    );
                }
                return Ok(kept);
            }
        }
    }
}

/// The outcome of a redemption for which the provider was too busy until the time to send was over. Cancelled
/// by its key it is as if it had never been sent.
async fn call_off(provider: &LimitedProvider, ask: &Ask, busy: String, patience: Duration) -> Step {
    match provider.ask(Call::Cancel, Doubt::InDoubt, ask, patience).await {
        Step::Settle(Verdict::Failed { failure, .. }) if failure.reason == reason::CANCELLED => {
            let reason = reason::PROVIDER_BUSY.to_owned();
            let message = format!("{busy}; then {}", failure.message);
            Step::Settle(Verdict::failed(Failure { reason, message, code_spent: false }))
        }
        settle @ Step::Settle(_) => settle,
        _ => Step::InDoubt { answer: busy, is_answer: false },
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
