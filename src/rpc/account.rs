//! `AccountService`: accounts and their imports over gRPC.

use std::time::Duration;

use futures_util::StreamExt as _;
use prost::Message;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    convert::{self, Fields, echo, timestamp},
    layers::caller_of,
    mask::Mask,
    page::page,
    pb,
    status::{rich, shutting_down, status},
};
use crate::{
    domain::{
        account::{
            Account, AccountChange, AccountFilter, AccountStatus, Hold, HoldCause, Lease,
            LoginStatus, NewAccount, RecordedEvent,
        },
        id::{AccountId, PlanId, PoolId},
        money::Currency,
        page::MAX_PAGE_BYTES,
        pool::Pool,
    },
    service::{
        Error,
        admin::accounts::{Accounts, CreateCommand, of_another_pool},
    },
};

/// Accounts of an import that are created by one statement.
const IMPORT_CHUNK: usize = 500;
/// The same in bytes, beyond which a chunk takes no more: as many imports as may be open each keep one.
const IMPORT_CHUNK_BYTES: usize = 64 * 1024;
/// How long an import may bring nothing. What came before is created then, and the call ends.
const IMPORT_IDLE: Duration = Duration::from_secs(60);
/// The most failures that an import's reply names, and their bytes at most.
const MAX_FAILURES: usize = 1000;
const MAX_FAILURE_BYTES: usize = MAX_PAGE_BYTES;

/// Serves `AccountService`.
#[derive(Clone, Debug)]
pub struct AccountRpc {
    accounts: Accounts,
    closing: CancellationToken,
}

impl AccountRpc {
    /// Over the accounts. When `closing` is cancelled, imports stop reading.
    pub fn new(accounts: Accounts, closing: CancellationToken) -> Self {
        Self { accounts, closing }
    }
}

#[tonic::async_trait]
impl pb::account_service_server::AccountService for AccountRpc {
    async fn create_account(
        &self,
        request: Request<pb::CreateAccountRequest>,
    ) -> Result<Response<pb::CreateAccountResponse>, Status> {
        let (pool_id, command) =
            read_new_account(request.into_inner().account).map_err(|e| status(&e))?;
        let (pool, account) =
            self.accounts.create(&pool_id, command).await.map_err(|e| status(&e))?;
        let account = account_message(&account, pool.currency);
        Ok(Response::new(pb::CreateAccountResponse { account: Some(account) }))
    }

    async fn import_accounts(
        &self,
        request: Request<Streaming<pb::ImportAccountsRequest>>,
    ) -> Result<Response<pb::ImportAccountsResponse>, Status> {
        // A stream that waits for its client holds no call's permit. What it brings is at work chunk by chunk.
        caller_of(&request).leave();
        let mut stream = request.into_inner();
        let mut import = Import::new(self.accounts.clone());
        loop {
            let message = tokio::select! {
                message = timeout(IMPORT_IDLE, stream.next()) => match message {
                    Ok(message) => message,
                    Err(_) => {
                        import.flush().await.map_err(|e| status(&e))?;
                        return Err(status(&Error::StreamIdle(IMPORT_IDLE)));
                    }
                },
                // What was received is created; the rest is the client's to send elsewhere.
                () = self.closing.cancelled() => return Err(shutting_down()),
            };
            let Some(message) = message else { break };
            import.take(message?.account).await.map_err(|e| status(&e))?;
        }
        let reply = import.finish().await.map_err(|e| status(&e))?;
        Ok(Response::new(reply))
    }

    async fn get_account(
        &self,
        request: Request<pb::GetAccountRequest>,
    ) -> Result<Response<pb::GetAccountResponse>, Status> {
        let request = request.into_inner();
        let (pool_id, account_id) =
            read_names(&request.pool_id, &request.account_id).map_err(|e| status(&e))?;
        let (pool, account) =
            self.accounts.get(&pool_id, &account_id).await.map_err(|e| status(&e))?;
        let account = account_message(&account, pool.currency);
        Ok(Response::new(pb::GetAccountResponse { account: Some(account) }))
    }

    async fn list_accounts(
        &self,
        request: Request<pb::ListAccountsRequest>,
    ) -> Result<Response<pb::ListAccountsResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::default();
        let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
        let limit = fields.page_size(request.page_size);
        let after = fields.page_token(&request.page_token, |key| AccountId::parse(key).ok());
        let filter = AccountFilter {
            status: fields.choice("status", request.status, read_status),
            login_status: fields.choice("login_status", request.login_status, read_login_status),
            plan_id: fields.optional_id("plan_id", &request.plan_id, PlanId::parse),
        };
        let pool_id = fields.finish(pool_id).map_err(|e| status(&e))?;
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let (pool, accounts) =
            self.accounts.list(&pool_id, &filter, &after, limit).await.map_err(|e| status(&e))?;
        let (accounts, next_page_token) = page(
            &accounts,
            |account| account.account_id.to_string(),
            |account| account_message(account, pool.currency),
        );
        Ok(Response::new(pb::ListAccountsResponse { accounts, next_page_token }))
    }

    async fn update_account(
        &self,
        request: Request<pb::UpdateAccountRequest>,
    ) -> Result<Response<pb::UpdateAccountResponse>, Status> {
        let (pool_id, account_id, change) =
            read_change(request.into_inner()).map_err(|e| status(&e))?;
        let (pool, account) =
            self.accounts.update(&pool_id, &account_id, change).await.map_err(|e| status(&e))?;
        let account = account_message(&account, pool.currency);
        Ok(Response::new(pb::UpdateAccountResponse { account: Some(account) }))
    }

    async fn list_account_events(
        &self,
        request: Request<pb::ListAccountEventsRequest>,
    ) -> Result<Response<pb::ListAccountEventsResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::default();
        let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
        let account_id = fields.id("account_id", &request.account_id, AccountId::parse);
        let limit = fields.page_size(request.page_size);
        let before = fields.page_token(&request.page_token, |key| key.parse::<i64>().ok());
        let (pool_id, account_id) =
            fields.finish(pool_id.zip(account_id)).map_err(|e| status(&e))?;
        let (pool, events) = self
            .accounts
            .events(&pool_id, &account_id, before.unwrap_or(i64::MAX), limit)
            .await
            .map_err(|e| status(&e))?;
        let (account_events, next_page_token) = page(
            &events,
            |event| event.version.to_string(),
            |event| event_message(event, &pool, &account_id),
        );
        Ok(Response::new(pb::ListAccountEventsResponse { account_events, next_page_token }))
    }
}

/// An import under way.
struct Import {
    accounts: Accounts,
    /// The pool of the first account.
    pool: Option<Pool>,
    chunk: Vec<(i64, CreateCommand)>,
    chunk_bytes: usize,
    failure_bytes: usize,
    reply: pb::ImportAccountsResponse,
}

impl Import {
    fn new(accounts: Accounts) -> Self {
        Self {
            accounts,
            pool: None,
            chunk: Vec::new(),
            chunk_bytes: 0,
            failure_bytes: 0,
            reply: Default::default(),
        }
    }

    async fn take(&mut self, account: Option<pb::Account>) -> Result<(), Error> {
        let index = self.reply.received;
        self.reply.received += 1;
        let name = account.as_ref().map(|account| echo(&account.account_id)).unwrap_or_default();
        let bytes = account.as_ref().map_or(0, Message::encoded_len);
        let (pool_id, command) = match read_new_account(account) {
            Ok(read) => read,
            Err(error) => {
                self.fail(index, name, &error);
                return Ok(());
            }
        };
        let pool = match &self.pool {
            Some(pool) => pool,
            None => self.pool.insert(self.accounts.pool(&pool_id).await?),
        };
        if pool.pool_id != pool_id {
            let error = of_another_pool(&pool.pool_id);
            self.fail(index, name, &error);
            return Ok(());
        }
        self.chunk.push((index, command));
        self.chunk_bytes += bytes;
        let is_full = self.chunk.len() >= IMPORT_CHUNK || self.chunk_bytes >= IMPORT_CHUNK_BYTES;
        if is_full { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let Some(pool) = &self.pool else { return Ok(()) };
        let _at_work = self.accounts.at_work(&pool.pool_id).await;
        self.chunk_bytes = 0;
        let (names, commands): (Vec<_>, Vec<_>) = std::mem::take(&mut self.chunk)
            .into_iter()
            .map(|(index, command)| {
                let name = command.new.account_id.to_string();
                ((index, name), command)
            })
            .unzip();
        let outcomes = self.accounts.import(pool, commands).await?;
        for ((index, name), outcome) in names.into_iter().zip(outcomes) {
            match outcome {
                Ok(_) => self.reply.created += 1,
                Err(error) => self.fail(index, name, &error),
            }
        }
        Ok(())
    }

    fn fail(&mut self, index: i64, account_id: String, error: &Error) {
        self.reply.failed += 1;
        // What the chunk holds comes later than what is refused before it, but keeps its order.
        let failures = &mut self.reply.failures;
        let position = failures.partition_point(|failure| failure.index < index);
        let failure = pb::ImportFailure { index, account_id, error: Some(rich(error)) };
        self.failure_bytes += failure.encoded_len();
        failures.insert(position, failure);
        while failures.len() > MAX_FAILURES || self.failure_bytes > MAX_FAILURE_BYTES {
            let Some(last) = failures.pop() else { break };
            self.failure_bytes -= last.encoded_len();
        }
    }

    async fn finish(mut self) -> Result<pb::ImportAccountsResponse, Error> {
        self.flush().await?;
        Ok(self.reply)
    }
}

fn read_names(pool_id: &str, account_id: &str) -> Result<(PoolId, AccountId), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", pool_id, PoolId::parse);
    let account_id = fields.id("account_id", account_id, AccountId::parse);
    fields.finish(pool_id.zip(account_id))
}

fn read_new_account(account: Option<pb::Account>) -> Result<(PoolId, CreateCommand), Error> {
    let mut fields = Fields::default();
    let account = fields.required("account", account);
    let read = account.and_then(|account| {
        let pool_id = fields.id("account.pool_id", &account.pool_id, PoolId::parse);
        let account_id = fields.id("account.account_id", &account.account_id, AccountId::parse);
        let plan_id = fields.optional_id("account.plan_id", &account.plan_id, PlanId::parse);
        let field = "account.login_status";
        let login = fields.choice(field, account.login_status, read_login_status);
        let country_code = fields.country("account.country_code", &account.country_code);
        let balance = fields.money("account.balance", account.balance, 0);
        let labels = fields.labels("account.labels", account.labels);
        if account.status != 0 {
            fields.refuse("account.status", "must not be set: leases and redemptions keep it");
        }
        if account.lease.is_some() {
            fields.refuse("account.lease", "must not be set: acquire the account instead");
        }
        if !account.open_redemption_id.is_empty() {
            fields.refuse("account.open_redemption_id", "must not be set");
        }
        let kept = [
            ("account.plan_day", account.plan_day != 0),
            ("account.day_credited", account.day_credited.is_some()),
            ("account.reserved", account.reserved.is_some()),
            ("account.available_time", account.available_time.is_some()),
            ("account.hold", account.hold.is_some()),
        ];
        for (field, _) in kept.into_iter().filter(|(_, set)| *set) {
            fields.refuse(field, "must not be set: redemptions keep it");
        }
        for (field, flag) in
            [("account.paused", account.paused), ("account.draining", account.draining)]
        {
            if flag == Some(true) {
                fields.refuse(field, "must not be set on creation: use UpdateAccount");
            }
        }
        let new = NewAccount {
            account_id: account_id?,
            login_status: login.unwrap_or(LoginStatus::Active),
            plan_id,
            country_code,
            balance_minor: balance.map_or(0, |balance| balance.amount_minor),
            labels,
        };
        Some((pool_id?, CreateCommand { new, balance }))
    });
    fields.finish(read)
}

fn read_change(
    request: pb::UpdateAccountRequest,
) -> Result<(PoolId, AccountId, AccountChange), Error> {
    const CHANGEABLE: [&str; 7] =
        ["login_status", "plan_id", "country_code", "labels", "paused", "draining", "hold"];
    let mut fields = Fields::default();
    let mask = Mask::read(&mut fields, request.update_mask, &CHANGEABLE);
    let account = fields.required("account", request.account);
    let read = account.and_then(|account| {
        let pool_id = fields.id("account.pool_id", &account.pool_id, PoolId::parse);
        let account_id = fields.id("account.account_id", &account.account_id, AccountId::parse);
        let plan_id = fields.optional_id("account.plan_id", &account.plan_id, PlanId::parse);
        let field = "account.login_status";
        let login_status = fields.choice(field, account.login_status, read_login_status);
        if mask.names("login_status") && account.login_status == 0 {
            fields.refuse(field, "must be set, because update_mask names it");
        }
        let country_code = fields.country("account.country_code", &account.country_code);
        let labels = fields.labels("account.labels", account.labels);
        if account.hold.is_some() {
            let rule = "must not be set: to lift it, leave it out and name it in update_mask";
            fields.refuse("account.hold", rule);
        }
        let login_status = login_status.filter(|_| mask.allows("login_status"));
        let set = |name: &str, given: bool| mask.names(name) || given && mask.allows(name);
        let change = AccountChange {
            login_status,
            plan_id: set("plan_id", plan_id.is_some()).then_some(plan_id),
            country_code: set("country_code", country_code.is_some()).then_some(country_code),
            labels: set("labels", !labels.is_empty()).then_some(labels),
            paused: mask.flag("paused", account.paused),
            draining: mask.flag("draining", account.draining),
            // An account that is let in again is to be tried at once.
            lift_hold: mask.names("hold") || login_status == Some(LoginStatus::Active),
        };
        Some((pool_id?, account_id?, change))
    });
    fields.finish(read)
}

fn read_status(status: pb::AccountStatus) -> Option<AccountStatus> {
    match status {
        pb::AccountStatus::Unspecified => None,
        pb::AccountStatus::Waiting => Some(AccountStatus::Waiting),
        pb::AccountStatus::Processing => Some(AccountStatus::Processing),
        pb::AccountStatus::Locking => Some(AccountStatus::Locking),
        pb::AccountStatus::Completed => Some(AccountStatus::Completed),
    }
}

fn read_login_status(status: pb::LoginStatus) -> Option<LoginStatus> {
    match status {
        pb::LoginStatus::Unspecified => None,
        pb::LoginStatus::Active => Some(LoginStatus::Active),
        pb::LoginStatus::Inactive => Some(LoginStatus::Inactive),
        pb::LoginStatus::Invalid => Some(LoginStatus::Invalid),
    }
}

fn status_message(status: AccountStatus) -> i32 {
    match status {
        AccountStatus::Waiting => pb::AccountStatus::Waiting,
        AccountStatus::Processing => pb::AccountStatus::Processing,
        AccountStatus::Locking => pb::AccountStatus::Locking,
        AccountStatus::Completed => pb::AccountStatus::Completed,
    }
    .into()
}

fn login_status_message(status: LoginStatus) -> i32 {
    match status {
        LoginStatus::Active => pb::LoginStatus::Active,
        LoginStatus::Inactive => pb::LoginStatus::Inactive,
        LoginStatus::Invalid => pb::LoginStatus::Invalid,
    }
    .into()
}

pub(super) fn account_message(account: &Account, currency: Currency) -> pb::Account {
    pb::Account {
        pool_id: account.pool_id.to_string(),
        account_id: account.account_id.to_string(),
        status: status_message(account.status),
        login_status: login_status_message(account.login_status),
        plan_id: account.plan_id.as_ref().map(PlanId::to_string).unwrap_or_default(),
        country_code: account.country_code.clone().unwrap_or_default(),
        balance: Some(convert::money(account.balance_minor, currency)),
        labels: account.labels.clone().into_iter().collect(),
        lease: account.lease.as_ref().map(|lease| lease_message(account, lease)),
        open_redemption_id: account.open_redemption_id.map(|id| id.to_string()).unwrap_or_default(),
        create_time: Some(timestamp(account.created_at)),
        update_time: Some(timestamp(account.updated_at)),
        plan_day: account.plan_day,
        day_credited: Some(convert::money(account.day_credited_minor, currency)),
        reserved: account.reserved_minor.map(|amount| convert::money(amount, currency)),
        available_time: account.available_at().map(timestamp),
        hold: account.hold.as_ref().map(hold_message),
        paused: Some(account.paused),
        draining: Some(account.draining),
    }
}

fn hold_message(hold: &Hold) -> pb::AccountHold {
    pb::AccountHold {
        cause: match hold.cause {
            HoldCause::LoginInvalid => pb::HoldCause::LoginInvalid,
            HoldCause::LimitReached => pb::HoldCause::LimitReached,
            HoldCause::Throttled => pb::HoldCause::Throttled,
        }
        .into(),
        expire_time: Some(timestamp(hold.until)),
        count: hold.count,
    }
}

pub(super) fn lease_message(account: &Account, lease: &Lease) -> pb::Lease {
    pb::Lease {
        r#ref: Some(pb::LeaseRef {
            pool_id: account.pool_id.to_string(),
            account_id: account.account_id.to_string(),
            fencing_token: account.token.0,
        }),
        holder: lease.holder.to_string(),
        acquire_time: Some(timestamp(lease.acquired_at)),
        expire_time: Some(timestamp(lease.expires_at)),
        remaining: Some(convert::duration(account.lease_remaining())),
    }
}

fn event_message(event: &RecordedEvent, pool: &Pool, account_id: &AccountId) -> pb::AccountEvent {
    pb::AccountEvent {
        pool_id: pool.pool_id.to_string(),
        account_id: account_id.to_string(),
        version: event.version,
        event_time: Some(timestamp(event.happened_at)),
        actor: event.actor.clone(),
        reason: event.reason.clone(),
        from_status: event.from_status.map_or(0, status_message),
        to_status: status_message(event.to_status),
        fencing_token: event.token.0,
        redemption_id: event.redemption_id.map(|id| id.to_string()).unwrap_or_default(),
        balance: Some(convert::money(event.balance_minor, pool.currency)),
        lease_expire_time: event.lease_expires_at.map(timestamp),
    }
}
