//! What is done when the statement for several requests fails as a whole: the accounts that would be picked are tried
//! one by one, and those that cannot be written are left out from then on.

use std::collections::{BTreeMap, HashMap};

use super::{
    super::{
        Store, StoreError,
        account::read_account_id,
        error::{is_blocked, is_of_a_row},
        quarantine::{MAX_BAD, Statement},
    },
    Acquired, Selector, Wanted,
};
use crate::domain::{
    choice::Choice,
    id::{AccountId, PoolId, RequestId},
};

/// What accounts that were tried one by one came to.
#[derive(Default)]
struct OneByOne {
    leased: HashMap<RequestId, Acquired>,
    bad: Vec<(AccountId, sqlx::Error)>,
}

impl OneByOne {
    /// So many failed that it is no use to try more now.
    fn is_over(&self) -> bool {
        let blocked = self.bad.iter().filter(|(_, error)| is_blocked(error)).count();
        self.bad.len() >= MAX_BAD || blocked > 1 && self.leased.is_empty()
    }
}

impl Store {
    /// Serves requests whose statement failed as a whole, one account after the other, in the order of the choice.
    /// Accounts that cannot be written are left out from then on. Answers the leases, and whether any was left out.
    pub(super) async fn acquire_one_by_one(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        wanted: &[Wanted],
    ) -> Result<(HashMap<RequestId, Acquired>, bool), StoreError> {
        let mut by_amount: BTreeMap<Option<i64>, Vec<&Wanted>> = BTreeMap::new();
        for one in wanted {
            by_amount.entry(one.expected_minor).or_default().push(one);
        }
        let mut tried = OneByOne::default();
        for (expected_minor, wanted) in by_amount {
            let most = wanted.len() + MAX_BAD;
            let candidates = self.candidates(pool_id, selector, expected_minor, most).await?;
            let mut wanted = wanted.into_iter();
            let mut next = wanted.next();
            for account_id in candidates {
                let Some(one) = next else { break };
                let only = Selector { account_id: Some(account_id.clone()), ..selector.clone() };
                match self.search(pool_id, &only, std::slice::from_ref(one), 0).await {
                    // Somebody else has it now.
                    Ok(together) if together.leased.is_empty() => {}
                    Ok(together) => {
                        tried.leased.extend(together.leased);
                        next = wanted.next();
                    }
                    Err(error) if is_of_a_row(&error) => {
                        tried.bad.push((account_id, error));
                        if tried.is_over() {
                            return self.leave_out(pool_id, tried);
                        }
                    }
                    Err(error) if tried.leased.is_empty() => return Err(error.into()),
                    Err(_) => return self.leave_out(pool_id, tried),
                }
            }
        }
        self.leave_out(pool_id, tried)
    }

    fn leave_out(
        &self,
        pool_id: &PoolId,
        tried: OneByOne,
    ) -> Result<(HashMap<RequestId, Acquired>, bool), StoreError> {
        if let [(_, error), _, ..] = tried.bad.as_slice()
            && tried.leased.is_empty()
            && tried.bad.iter().all(|(_, error)| is_blocked(error))
        {
            // Somebody holds more than a row.
            return Err(StoreError::Unavailable(error.to_string()));
        }
        let mut is_any_left_out = false;
        for (account_id, error) in &tried.bad {
            is_any_left_out |=
                self.quarantine.leave_out(Statement::Acquire, pool_id, account_id.as_str(), error);
        }
        Ok((tried.leased, is_any_left_out))
    }

    /// The accounts that would be picked now, in the order of the choice.
    async fn candidates(
        &self,
        pool_id: &PoolId,
        selector: &Selector,
        expected_minor: Option<i64>,
        most: usize,
    ) -> Result<Vec<AccountId>, StoreError> {
        if let Some(account_id) = &selector.account_id {
            return Ok(vec![account_id.clone()]);
        }
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = self.explain_rows(pool_id, selector, expected_minor, limit, None).await?;
        let fit = rows.iter().filter(|row| row.verdict == Choice::Fits.as_str());
        let ids = fit.filter_map(|row| row.account_id.as_deref());
        Ok(ids.filter_map(|id| read_account_id(id).ok()).collect())
    }
}
