//! A wrong resolution is corrected: by another word, which takes its place. What was said before is kept.

use super::{Redemptions, ResolveCommand, ResolvedOutcome, check_record, outcome, says_the_same};
use crate::{
    domain::{
        money::Money,
        redemption::{Redemption, ReversalRefusal, ReversalState, SupersededResolution},
    },
    service::{
        Error,
        error::{CountingWord, Violation, all},
        redeem::code_in_use,
    },
    store::redemption::correction::Corrected,
};

/// How often a correction is tried anew where its account has changed meanwhile: at each step of a lease it does.
const MAX_TRIES: u32 = 50;

impl Redemptions {
    /// What was said of a redemption before, in its order.
    pub async fn superseded(
        &self,
        redemption: &Redemption,
    ) -> Result<Vec<SupersededResolution>, Error> {
        if redemption.superseded == 0 {
            return Ok(Vec::new());
        }
        let (pool_id, id) = (&redemption.pool_id, redemption.redemption_id);
        Ok(self.store.superseded_resolutions(pool_id, id).await?)
    }

    /// Records a word in the place of the one of this number. The same word twice is fine.
    pub(super) async fn correct(
        &self,
        command: &ResolveCommand,
        number: i32,
        seen: &Redemption,
    ) -> Result<Redemption, Error> {
        self.check_words(command, seen).await?;
        for _ in 0..MAX_TRIES {
            // The account first: what changes the redemption after it changes the account, too.
            let (pool_id, account_id) = (&seen.pool_id, &seen.account_id);
            let account = self.store.get_account(pool_id, account_id).await?;
            let account = account
                .ok_or_else(|| Error::AccountNotFound(pool_id.clone(), account_id.clone()))?;
            let (_, now) = self.get(pool_id, seen.redemption_id, &command.by).await?;
            if !self.is_to_be_recorded(command, number, &now).await? {
                return Ok(now);
            }
            let (version, word) = (account.version.number, outcome(command));
            let (resolution, by) = (&command.resolution, &command.by);
            let corrected =
                self.store.correct_resolution(&now, version, &word, resolution, by).await?;
            match corrected {
                Corrected::Recorded => {
                    log_corrected(&now, command, number);
                    return Ok(self.get(pool_id, seen.redemption_id, &command.by).await?.1);
                }
                Corrected::Changed => {}
                Corrected::BalanceTooLow(balance_minor) => {
                    return Err(too_low(&now, command, balance_minor));
                }
                Corrected::CodeInUse => {
                    if let Some(living) = self.store.code_holder(&now).await? {
                        return Err(code_in_use(living, &command.by));
                    }
                }
            }
        }
        Err(Error::Overloaded)
    }

    /// Refuses what cannot take the place of what is recorded. False: it is recorded already, by a first try.
    async fn is_to_be_recorded(
        &self,
        command: &ResolveCommand,
        number: i32,
        now: &Redemption,
    ) -> Result<bool, Error> {
        let redemption_id = now.redemption_id;
        if now.state.is_open() {
            let rule = "must not be set: the redemption has no outcome yet".to_owned();
            return Err(Error::Invalid(vec![Violation::new("corrects_resolution", rule)]));
        }
        let Some(word) = CountingWord::of(now) else {
            return Err(Error::AlreadySettled { redemption_id, state: now.state, word: None });
        };
        let is_said = says_the_same(now, &command.outcome);
        if is_said && word.number == number.saturating_add(1) {
            return Ok(false);
        }
        if word.number != number {
            return Err(Error::ResolutionChanged { redemption_id, word });
        }
        let refused =
            |why| Error::ReversalRefused { redemption_id, why, profile: now.profile.clone() };
        if now.reversed_at.is_some() {
            return Err(refused(ReversalRefusal::AlreadyReversed));
        }
        let newest = self.store.newest_reversal(&now.pool_id, redemption_id).await?;
        if let Some(newest) = newest.filter(|newest| newest.state != ReversalState::Failed) {
            return Err(refused(ReversalRefusal::Open(newest.state)));
        }
        let is_so = "is what the resolution says already".to_owned();
        let same = is_said.then(|| Violation::new("state", is_so));
        let same = same.map_or(Ok(()), |violation| Err(Error::Invalid(vec![violation])));
        // Of what is recorded the expected amount alone is no person's word.
        let expected = Redemption { amount: None, failure: None, ..now.clone() };
        let slip = match command.recorded_amount_is_wrong {
            true => Ok(()),
            false => check_record(&expected, &command.outcome),
        };
        all([same, slip])?;
        Ok(true)
    }
}

fn too_low(now: &Redemption, command: &ResolveCommand, balance_minor: i64) -> Error {
    let credited = match &command.outcome {
        ResolvedOutcome::Succeeded { amount, .. } => amount.amount_minor,
        ResolvedOutcome::Failed { .. } => 0,
    };
    match now.amount {
        Some(amount) => Error::BalanceTooLow {
            redemption_id: now.redemption_id,
            account_id: now.account_id.clone(),
            balance_minor,
            amount: Money { amount_minor: amount.amount_minor - credited, ..amount },
        },
        None => Error::Internal("less was credited than nothing"),
    }
}

fn log_corrected(was: &Redemption, command: &ResolveCommand, number: i32) {
    tracing::warn!(
        pool_id = %was.pool_id,
        redemption_id = %was.redemption_id,
        account_id = %was.account_id,
        resolved_by = command.resolution.resolved_by,
        number,
        state_before = was.state.as_str(),
        state = outcome(command).state().as_str(),
        "a resolution was corrected by a person"
    );
}
