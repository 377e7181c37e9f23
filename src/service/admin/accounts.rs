//! Accounts, as people keep them: created, imported, read, listed and changed.

use std::collections::{HashMap, HashSet};

use serde_json::json;

use crate::{
    admission::Permit,
    domain::{
        account::{
            Account, AccountChange, AccountFilter, AccountStatus, Correction, EventFilter,
            NewAccount, RecordedEvent, Refusal,
        },
        credentials::Credentials,
        id::{AccountId, PlanId, PoolId},
        money::Money,
        page::Page,
        pool::Pool,
        principal::Authority,
    },
    secret::SecretKeys,
    service::{
        Error,
        account_values::encrypted,
        error::Violation,
        keys,
        pools::{Pools, check_currencies},
        words::check_words_of_pool,
    },
    store::{
        Store, StoreError,
        account::{Creation, Inserted},
        apply::Applied,
        audit::NewAuditEvent,
    },
};

/// An account to create, with the currency that its balance was given in.
#[derive(Clone, Debug)]
pub struct CreateCommand {
    /// The account.
    pub new: NewAccount,
    /// Its balance as it was given.
    pub balance: Option<Money>,
    /// Its credentials.
    pub credentials: Credentials,
}

/// What a person changes of an account.
#[derive(Clone, Debug)]
pub struct UpdateCommand {
    /// Its row.
    pub change: AccountChange,
    /// Its credentials, in the place of those that are there; none of them: removes them.
    pub credentials: Option<Credentials>,
}

/// Another balance than the recorded one, by a person's word.
#[derive(Clone, Debug)]
pub struct CorrectCommand {
    /// The account's pool.
    pub pool_id: PoolId,
    /// The account.
    pub account_id: AccountId,
    /// What it has.
    pub balance: Money,
    /// What was recorded when the person compared.
    pub expected: Money,
    /// Who says so, by their own word.
    pub corrected_by: String,
    /// Why.
    pub reason: String,
    /// What was seen.
    pub evidence: Option<String>,
    /// Who calls.
    pub by: Authority,
}

/// The keeping of accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Accounts {
    store: Store,
    pools: Pools,
    secret: SecretKeys,
}

impl Accounts {
    /// The accounts of a store, whose credentials are encrypted with the key.
    pub fn new(store: Store, pools: Pools, secret: SecretKeys) -> Self {
        Self { store, pools, secret }
    }

    /// Creates an account.
    pub async fn create(
        &self,
        pool_id: &PoolId,
        command: CreateCommand,
        by: &Authority,
    ) -> Result<(Pool, Account), Error> {
        let pool = self.pools.settings(pool_id).await?;
        let created = self.insert(&pool, vec![command], by, false).await?;
        let account =
            created.into_iter().next().ok_or(Error::Internal("no answer to an insert"))?;
        Ok((pool, account?))
    }

    /// A pool, for an import into it.
    pub async fn pool(&self, pool_id: &PoolId) -> Result<Pool, Error> {
        self.pools.settings(pool_id).await
    }

    /// A permit for the work of one chunk of an import, as soon as there is one for the pool.
    pub async fn at_work(&self, pool_id: &PoolId) -> Permit {
        self.store.overload().admit_item(pool_id.as_str()).await
    }

    /// Creates accounts of an import, and says of each what became of it, in their order. See
    /// [`Accounts::record_import`].
    pub async fn import(
        &self,
        pool: &Pool,
        commands: Vec<CreateCommand>,
        by: &Authority,
    ) -> Result<Vec<Result<Account, Error>>, Error> {
        self.insert(pool, commands, by, true).await
    }

    /// Records an import in the audit trail: how many accounts were created, and how many were not.
    pub async fn record_import(
        &self,
        pool_id: &PoolId,
        (received, created, failed): (i64, i64, i64),
        by: &Authority,
    ) -> Result<(), Error> {
        let counts = json!({ "received": received, "created": created, "failed": failed });
        let event = NewAuditEvent {
            action: "ImportAccounts",
            pool_id: Some(pool_id),
            subject: pool_id.as_str(),
            before: None,
            after: Some(counts),
            reason: "",
        };
        Ok(self.store.record_audit_event(by, event).await?)
    }

    async fn insert(
        &self,
        pool: &Pool,
        commands: Vec<CreateCommand>,
        by: &Authority,
        is_import: bool,
    ) -> Result<Vec<Result<Account, Error>>, Error> {
        let pool_id = &pool.pool_id;
        let (mut seen, mut good) = (HashSet::new(), Vec::new());
        let checked: Vec<Result<NewAccount, Error>> = commands
            .into_iter()
            .map(|command| {
                check_currencies(pool, [("account.balance", command.balance)])?;
                if seen.insert(command.new.account_id.clone()) {
                    let new = command.new.clone();
                    good.push(command);
                    Ok(new)
                } else {
                    Err(Error::AccountExists(pool_id.clone(), command.new.account_id))
                }
            })
            .collect();
        let Inserted { accounts, mut refused } =
            self.insert_sealed(pool_id, &good, by, is_import).await?;
        if accounts.is_empty() && !good.is_empty() {
            // The settings that it was checked by may be those of a pool that is deleted.
            self.pools.get(pool_id).await?;
        }
        let mut inserted: HashMap<AccountId, Account> =
            accounts.into_iter().map(|account| (account.account_id.clone(), account)).collect();
        let mut missing_plans: HashMap<PlanId, bool> = HashMap::new();
        let mut answers = Vec::with_capacity(checked.len());
        for new in checked {
            answers.push(match new {
                Err(error) => Err(error),
                Ok(new) => match inserted.remove(&new.account_id) {
                    Some(account) => Ok(account),
                    None => Err(match refused.remove(&new.account_id) {
                        Some(error) => error.into(),
                        None => self.why_not(pool_id, new, &mut missing_plans).await?,
                    }),
                },
            });
        }
        Ok(answers)
    }

    /// Inserts accounts; once more where the secret key changed meanwhile.
    async fn insert_sealed(
        &self,
        pool_id: &PoolId,
        commands: &[CreateCommand],
        by: &Authority,
        is_import: bool,
    ) -> Result<Inserted, Error> {
        let creation = |command: &CreateCommand| Creation {
            account: command.new.clone(),
            credentials: self.encrypted(pool_id, command),
        };
        let creations: Vec<_> = commands.iter().map(creation).collect();
        match self.store.insert_accounts(pool_id, &creations, by, is_import).await {
            Err(StoreError::KeyChanged) => {
                keys::catch_up(&self.store, &self.secret).await?;
                let creations: Vec<_> = commands.iter().map(creation).collect();
                Ok(self.store.insert_accounts(pool_id, &creations, by, is_import).await?)
            }
            inserted => Ok(inserted?),
        }
    }

    fn encrypted(&self, pool_id: &PoolId, command: &CreateCommand) -> Option<Vec<u8>> {
        encrypted(&self.secret, pool_id, &command.new.account_id, &command.credentials)
    }

    async fn why_not(
        &self,
        pool_id: &PoolId,
        new: NewAccount,
        missing_plans: &mut HashMap<PlanId, bool>,
    ) -> Result<Error, Error> {
        if let Some(plan_id) = new.plan_id {
            let missing = match missing_plans.get(&plan_id) {
                Some(missing) => *missing,
                None => self.store.get_plan(pool_id, &plan_id).await?.is_none(),
            };
            missing_plans.insert(plan_id.clone(), missing);
            if missing {
                return Ok(Error::PlanNotFound(pool_id.clone(), plan_id));
            }
        }
        Ok(Error::AccountExists(pool_id.clone(), new.account_id))
    }

    /// Reads an account.
    pub async fn get(
        &self,
        pool_id: &PoolId,
        account_id: &AccountId,
    ) -> Result<(Pool, Account), Error> {
        let not_found = || Error::AccountNotFound(pool_id.clone(), account_id.clone());
        let account = self.store.get_account(pool_id, account_id).await?.ok_or_else(not_found)?;
        Ok((self.pools.settings(pool_id).await?, account))
    }

    /// Lists the accounts of a pool after `after`, at most `limit`.
    pub async fn list(
        &self,
        pool_id: &PoolId,
        filter: &AccountFilter,
        after: &str,
        limit: i64,
    ) -> Result<(Pool, Page<Account>), Error> {
        let pool = self.pools.settings(pool_id).await?;
        Ok((pool, self.store.list_accounts(pool_id, filter, after, limit).await?))
    }

    /// Changes an account.
    pub async fn update(
        &self,
        pool_id: &PoolId,
        account_id: &AccountId,
        command: UpdateCommand,
        by: &Authority,
    ) -> Result<(Pool, Account), Error> {
        let UpdateCommand { change, credentials } = command;
        let (pool, before) = self.get(pool_id, account_id).await?;
        if let Some(credentials) = credentials {
            self.set_credentials(&before, &change, &credentials, by).await?;
        }
        let plan_id = change.plan_id.clone().flatten();
        let account =
            match self.store.update_account(pool_id, account_id, change, by.clone()).await? {
                Applied::Done(done) => done.account,
                Applied::Refused(refusal, _) => {
                    return Err(match (refusal, plan_id) {
                        (Refusal::NoPlan, Some(plan_id)) => {
                            Error::PlanNotFound(pool_id.clone(), plan_id)
                        }
                        _ => Error::AccountLocked(pool_id.clone(), account_id.clone()),
                    });
                }
                Applied::NoPool => return Err(Error::PoolNotFound(pool_id.clone())),
                Applied::Unreadable(error) => return Err(error.into()),
                Applied::NoAccount | Applied::Missed | Applied::NotInState => {
                    return Err(Error::AccountNotFound(pool_id.clone(), account_id.clone()));
                }
            };
        tracing::info!(
            %pool_id, %account_id,
            login_status = account.login_status.as_str(),
            login_status_before = before.login_status.as_str(),
            "account updated"
        );
        Ok((pool, account))
    }

    /// Keeps an account's credentials, before its row is changed: an account that is let in again, or resumed, must not be
    /// used with the old ones, also where this server ends in between. The caller has no answer then, and asks again.
    async fn set_credentials(
        &self,
        account: &Account,
        change: &AccountChange,
        credentials: &Credentials,
        by: &Authority,
    ) -> Result<(), Error> {
        let (pool_id, account_id) = (&account.pool_id, &account.account_id);
        // What the row's change would be refused for, so that the credentials are not changed then either. They are where
        // the account is leased, or the plan deleted, at this very moment.
        if let Some(plan_id) = &change.plan_id {
            if account.status == AccountStatus::Locking {
                return Err(Error::AccountLocked(pool_id.clone(), account_id.clone()));
            }
            if let Some(plan_id) = plan_id
                && self.store.get_plan(pool_id, plan_id).await?.is_none()
            {
                return Err(Error::PlanNotFound(pool_id.clone(), plan_id.clone()));
            }
        }
        let stored = encrypted(&self.secret, pool_id, account_id, credentials);
        match self.store.set_credentials(pool_id, account_id, stored.as_deref(), by).await {
            Err(StoreError::KeyChanged) => {
                keys::catch_up(&self.store, &self.secret).await?;
                let stored = encrypted(&self.secret, pool_id, account_id, credentials);
                Ok(self.store.set_credentials(pool_id, account_id, stored.as_deref(), by).await?)
            }
            set => Ok(set?),
        }
    }

    /// Gives an account the balance that a person saw at the provider. An account that has it already, as after a first
    /// try whose reply was lost, is answered as it is.
    pub async fn correct(&self, command: CorrectCommand) -> Result<(Pool, Account), Error> {
        let CorrectCommand { pool_id, account_id, balance, expected, .. } = command;
        let pool = self.pools.settings(&pool_id).await?;
        check_currencies(
            &pool,
            [("balance", Some(balance)), ("expected_balance", Some(expected))],
        )?;
        let mut words = vec![("reason", &*command.reason), ("corrected_by", &command.corrected_by)];
        words.extend(command.evidence.as_deref().map(|evidence| ("evidence", evidence)));
        check_words_of_pool(&self.store, &self.secret, &pool, &words).await?;
        let correction = Correction {
            balance_minor: balance.amount_minor,
            expected_minor: expected.amount_minor,
            corrected_by: command.corrected_by,
            reason: command.reason,
            evidence: command.evidence,
        };
        let by = command.by;
        let account =
            match self.store.correct_balance(&pool_id, &account_id, correction, by).await? {
                Applied::Done(done) => done.account,
                Applied::Refused(_, account) if account.balance_minor == balance.amount_minor => {
                    return Ok((pool, *account));
                }
                Applied::Refused(Refusal::RedemptionOpen(id), _) => {
                    return Err(Error::RedemptionOpen(id));
                }
                Applied::Refused(_, account) => {
                    return Err(Error::BalanceChanged {
                        account_id,
                        balance_minor: account.balance_minor,
                        expected_minor: expected.amount_minor,
                    });
                }
                Applied::NoPool => return Err(Error::PoolNotFound(pool_id)),
                Applied::Unreadable(error) => return Err(error.into()),
                Applied::NoAccount | Applied::Missed | Applied::NotInState => {
                    return Err(Error::AccountNotFound(pool_id, account_id));
                }
            };
        tracing::warn!(
            %pool_id, %account_id,
            balance_minor = account.balance_minor,
            balance_minor_before = expected.amount_minor,
            status = account.status.as_str(),
            "a balance was corrected by a person"
        );
        Ok((pool, account))
    }

    /// Lists an account's events before the version `before`, newest first, at most `limit`.
    pub async fn events(
        &self,
        pool_id: &PoolId,
        account_id: &AccountId,
        filter: &EventFilter,
        before: i64,
        limit: i64,
    ) -> Result<(Pool, Page<RecordedEvent>), Error> {
        let (pool, _) = self.get(pool_id, account_id).await?;
        let events =
            self.store.list_account_events(pool_id, account_id, filter, before, limit).await?;
        Ok((pool, events))
    }
}

/// An import's account is of another pool than the stream's first.
pub fn of_another_pool(pool_id: &PoolId) -> Error {
    Error::Invalid(vec![Violation::new(
        "account.pool_id",
        format!("must be {pool_id}, as in the first account of the stream"),
    )])
}
