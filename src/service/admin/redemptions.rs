//! Redemptions for people: they read them, and resolve those that nothing else can.

use crate::{
    domain::{
        id::{PoolId, RedemptionId, RequestId},
        money::Money,
        page::Page,
        pool::Pool,
        principal::{Authority, RequestKey},
        redemption::{Failure, Outcome, Redemption, RedemptionFilter, RedemptionState, Resolution},
    },
    secret::SecretKeys,
    service::{
        Error,
        error::{CountingWord, Violation, all},
        pools::{Pools, check_currencies},
        redeem::settle::Settler,
        words::{Word, check_words, words_of},
    },
    store::Store,
};

mod correction;

/// The reason of a failure that a person found out.
const RESOLVED_AS_FAILED: &str = "RESOLVED_AS_FAILED";
/// How many times the expected amount, or which part of it, is taken for a slip: a digit too many or too
/// few.
const SLIP: i64 = 10;
/// How often a word is compared anew with a redemption that has changed meanwhile.
const MAX_COMPARISONS: u32 = 5;

/// A person's word about a redemption.
#[derive(Clone, Debug)]
pub struct ResolveCommand {
    /// The redemption's pool.
    pub pool_id: PoolId,
    /// The redemption.
    pub redemption_id: RedemptionId,
    /// What became of it.
    pub outcome: ResolvedOutcome,
    /// The number of a person's word that this one takes the place of; none closes one whose outcome is open.
    pub corrects: Option<i32>,
    /// What is recorded of the amount may be contradicted.
    pub recorded_amount_is_wrong: bool,
    /// Who says so, and why.
    pub resolution: Resolution,
    /// Who calls.
    pub by: Authority,
}

/// See [`ResolveCommand`].
#[derive(Clone, Debug)]
pub enum ResolvedOutcome {
    /// Credited this much.
    Succeeded {
        /// What was credited.
        amount: Money,
        /// The provider's own name for it, if it is known.
        provider_ref: Option<String>,
    },
    /// Not credited.
    Failed {
        /// Whether the code is spent.
        code_spent: bool,
    },
}

/// The reading and resolving of redemptions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Redemptions {
    store: Store,
    pools: Pools,
    secret: SecretKeys,
    settler: Settler,
}

impl Redemptions {
    /// The redemptions of a store.
    pub fn new(store: Store, pools: Pools, secret: SecretKeys, settler: Settler) -> Self {
        Self { store, pools, secret, settler }
    }

    /// Reads a redemption by its id. One that the caller may not read is not there for it.
    pub async fn get(
        &self,
        pool_id: &PoolId,
        id: RedemptionId,
        by: &Authority,
    ) -> Result<(Pool, Redemption), Error> {
        let found = self.store.get_redemption(pool_id, id).await?;
        let found = found.filter(|redemption| by.may_read(&redemption.principal));
        self.found(pool_id, found, &id.to_string()).await
    }

    /// Reads the redemption that stands for the caller's own request of this name.
    pub async fn get_by_request(
        &self,
        pool_id: &PoolId,
        request_id: &RequestId,
        by: &Authority,
    ) -> Result<(Pool, Redemption), Error> {
        let request = RequestKey::new(by.principal.clone(), request_id.clone());
        let found = self.store.get_redemption_by_request(pool_id, &request).await?;
        self.found(pool_id, found.map(|(redemption, ..)| redemption), request_id.as_str()).await
    }

    async fn found(
        &self,
        pool_id: &PoolId,
        found: Option<Redemption>,
        name: &str,
    ) -> Result<(Pool, Redemption), Error> {
        let redemption =
            found.ok_or_else(|| Error::RedemptionNotFound(pool_id.clone(), name.to_owned()))?;
        Ok((self.pools.settings(pool_id).await?, redemption))
    }

    /// Lists the redemptions of a pool before `before`, newest first, at most `limit`.
    pub async fn list(
        &self,
        pool_id: &PoolId,
        filter: &RedemptionFilter,
        before: RedemptionId,
        limit: i64,
    ) -> Result<(Pool, Page<Redemption>), Error> {
        let pool = self.pools.settings(pool_id).await?;
        Ok((pool, self.store.list_redemptions(pool_id, filter, before, limit).await?))
    }

    /// Closes a redemption by a person's word. The same word twice is fine.
    pub async fn resolve(&self, command: ResolveCommand) -> Result<(Pool, Redemption), Error> {
        let (pool, mut redemption) =
            self.get(&command.pool_id, command.redemption_id, &command.by).await?;
        if let ResolvedOutcome::Succeeded { amount, .. } = &command.outcome {
            check_currencies(&pool, [("amount", Some(*amount))])?;
        }
        if let Some(number) = command.corrects {
            return Ok((pool, self.correct(&command, number, &redemption).await?));
        }
        for _ in 0..MAX_COMPARISONS {
            let settled_now;
            (settled_now, redemption) = self.resolve_as_seen(&command, &redemption).await?;
            if settled_now {
                tracing::warn!(
                    pool_id = %redemption.pool_id,
                    redemption_id = %redemption.redemption_id,
                    resolved_by = command.resolution.resolved_by,
                    state = redemption.state.as_str(),
                    "resolved by a person"
                );
                return Ok((pool, redemption));
            }
            if redemption.state.is_open() {
                // More is known of it by now: the word is compared with that.
                continue;
            }
            if says_the_same(&redemption, &command.outcome) {
                return Ok((pool, redemption));
            }
            return Err(Error::AlreadySettled {
                redemption_id: redemption.redemption_id,
                state: redemption.state,
                word: CountingWord::of(&redemption),
            });
        }
        Err(Error::Overloaded)
    }

    /// Records a word if the redemption still is as it was seen. The flag says whether it was recorded.
    async fn resolve_as_seen(
        &self,
        command: &ResolveCommand,
        seen: &Redemption,
    ) -> Result<(bool, Redemption), Error> {
        if seen.state == RedemptionState::Submitted {
            return Err(Error::RedemptionOpen(seen.redemption_id));
        }
        if seen.state.is_open() && !command.recorded_amount_is_wrong {
            all([self.check_words(command, seen).await, check_record(seen, &command.outcome)])?;
        } else {
            self.check_words(command, seen).await?;
        }
        let (resolution, by) = (command.resolution.clone(), command.by.clone());
        self.settler.resolve(seen, outcome(command), resolution, by).await
    }

    async fn check_words(&self, command: &ResolveCommand, seen: &Redemption) -> Result<(), Error> {
        check_words(&self.store, &self.secret, seen, &words(command)).await
    }
}

/// Refuses a word that contradicts what is recorded of a redemption whose outcome is open.
fn check_record(recorded: &Redemption, outcome: &ResolvedOutcome) -> Result<(), Error> {
    let rule = |field: &str, text: String| {
        let rule = format!(
            "{text}; if that is wrong, set recorded_amount_is_wrong (--recorded-amount-is-wrong)"
        );
        Violation::new(field, rule)
    };
    let recorded_as_spent = recorded.failure.as_ref().is_some_and(|failure| failure.code_spent);
    let credited = |amount| format!("the provider reported that it credited {amount}");
    let mut wrong = Vec::new();
    match (outcome, recorded.amount, recorded.expected_minor) {
        (ResolvedOutcome::Succeeded { amount, .. }, Some(told), _) if *amount != told => {
            wrong.push(rule("amount", format!("is {amount}, and {}", credited(told))));
        }
        (ResolvedOutcome::Succeeded { amount, .. }, None, Some(expected))
            if is_slip(amount.amount_minor, expected) =>
        {
            let currency = amount.currency;
            wrong.push(rule(
                "amount",
                format!("is {amount}, and {expected} {currency} was expected"),
            ));
        }
        (ResolvedOutcome::Failed { .. }, Some(told), _) => {
            wrong.push(rule("state", format!("is FAILED, and {}", credited(told))));
        }
        _ => {}
    }
    if matches!(outcome, ResolvedOutcome::Failed { code_spent: false }) && recorded_as_spent {
        let text = "is false, and the provider reported that the code is spent".to_owned();
        wrong.push(rule("code_spent", text));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
}

/// Whether an amount differs from the expected one so much that it looks mistyped.
fn is_slip(amount_minor: i64, expected_minor: i64) -> bool {
    amount_minor >= expected_minor.saturating_mul(SLIP)
        || expected_minor >= amount_minor.saturating_mul(SLIP)
}

/// Every text of a person's word that is kept, by its field.
fn words(command: &ResolveCommand) -> Vec<Word<'_>> {
    let mut words = words_of("resolved_by", &command.resolution);
    if let ResolvedOutcome::Succeeded { provider_ref: Some(name), .. } = &command.outcome {
        words.push(("provider_ref", name));
    }
    words
}

fn outcome(command: &ResolveCommand) -> Outcome {
    match &command.outcome {
        ResolvedOutcome::Succeeded { amount, provider_ref } => {
            Outcome::Succeeded { amount: *amount, provider_ref: provider_ref.clone() }
        }
        ResolvedOutcome::Failed { code_spent } => Outcome::Failed(Failure {
            reason: RESOLVED_AS_FAILED.to_owned(),
            message: command.resolution.reason.clone(),
            code_spent: *code_spent,
        }),
    }
}

/// Whether a settled redemption is what the person says that it is.
fn says_the_same(redemption: &Redemption, outcome: &ResolvedOutcome) -> bool {
    match outcome {
        ResolvedOutcome::Succeeded { amount, .. } => {
            redemption.state == RedemptionState::Succeeded && redemption.amount == Some(*amount)
        }
        ResolvedOutcome::Failed { code_spent } => {
            redemption.state == RedemptionState::Failed
                && redemption.failure.as_ref().is_some_and(|f| f.code_spent == *code_spent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::MAX_AMOUNT_MINOR;

    #[test]
    fn an_amount_with_a_digit_too_many_or_too_few_is_a_slip() {
        for (amount, expected) in [(10_000, 1000), (100_000, 1000), (100, 1000), (1, 1000)] {
            assert!(is_slip(amount, expected), "{amount} for {expected}");
        }
        for (amount, expected) in
            [(1000, 1000), (9999, 1000), (101, 1000), (1, 1), (MAX_AMOUNT_MINOR, MAX_AMOUNT_MINOR)]
        {
            assert!(!is_slip(amount, expected), "{amount} for {expected}");
        }
    }
}
