//! `AccountService`: accounts and their imports over gRPC.

mod import;
pub(super) mod message;

use futures_util::StreamExt as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use self::{
    import::{IMPORT_IDLE, Import},
    message::{account_message, event_message, read_login_status, read_status},
};
use super::{
    convert::Fields,
    layers::{access_of, authority_of, caller_of, check_pool},
    mask::Mask,
    page::page,
    pb,
    status::status,
};
use crate::{
    domain::{
        account::{AccountChange, AccountFilter, EventFilter, LoginStatus, NewAccount},
        id::{AccountId, Holder, PlanId, PoolId, RedemptionId},
        principal::Authority,
    },
    service::{
        Error,
        admin::accounts::{Accounts, CorrectCommand, CreateCommand, UpdateCommand},
    },
};

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
        let by = authority_of(&request);
        let (pool_id, command) =
            read_new_account(request.into_inner().account).map_err(|e| status(&e))?;
        let (pool, account) =
            self.accounts.create(&pool_id, command, &by).await.map_err(|e| status(&e))?;
        let account = account_message(&account, pool.currency);
        Ok(Response::new(pb::CreateAccountResponse { account: Some(account) }))
    }

    async fn import_accounts(
        &self,
        request: Request<Streaming<pb::ImportAccountsRequest>>,
    ) -> Result<Response<pb::ImportAccountsResponse>, Status> {
        // A stream that waits for its client holds no call's permit. What it brings is at work chunk by chunk.
        caller_of(&request).leave();
        let access = access_of(&request).clone();
        let by = authority_of(&request);
        let mut stream = request.into_inner();
        let mut import = Import::new(self.accounts.clone(), by);
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
                () = self.closing.cancelled() => {
                    import.flush().await.map_err(|e| status(&e))?;
                    return Err(status(&import.stopped(Error::ShuttingDown)));
                }
            };
            let Some(message) = message else { break };
            let account = message?.account;
            // Admission has seen the pool of the first alone.
            let pool_id = account.as_ref().map_or("", |account| &account.pool_id);
            check_pool("ImportAccounts", &access, pool_id)?;
            import.take(account).await.map_err(|e| status(&e))?;
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
        let (pool_id, filter, after, limit) =
            read_list(request.into_inner()).map_err(|e| status(&e))?;
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
        let by = authority_of(&request);
        let (pool_id, account_id, command) =
            read_change(request.into_inner()).map_err(|e| status(&e))?;
        let (pool, account) = self
            .accounts
            .update(&pool_id, &account_id, command, &by)
            .await
            .map_err(|e| status(&e))?;
        let account = account_message(&account, pool.currency);
        Ok(Response::new(pb::UpdateAccountResponse { account: Some(account) }))
    }

    async fn correct_balance(
        &self,
        request: Request<pb::CorrectBalanceRequest>,
    ) -> Result<Response<pb::CorrectBalanceResponse>, Status> {
        let by = authority_of(&request);
        let command = read_correction(request.into_inner(), by).map_err(|e| status(&e))?;
        let (pool, account) = self.accounts.correct(command).await.map_err(|e| status(&e))?;
        let account = account_message(&account, pool.currency);
        Ok(Response::new(pb::CorrectBalanceResponse { account: Some(account) }))
    }

    async fn list_account_events(
        &self,
        request: Request<pb::ListAccountEventsRequest>,
    ) -> Result<Response<pb::ListAccountEventsResponse>, Status> {
        let (pool_id, account_id, filter, before, limit) =
            read_events(request.into_inner()).map_err(|e| status(&e))?;
        let (pool, events) = self
            .accounts
            .events(&pool_id, &account_id, &filter, before.unwrap_or(i64::MAX), limit)
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

pub(super) fn read_correction(
    request: pb::CorrectBalanceRequest,
    by: Authority,
) -> Result<CorrectCommand, Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let account_id = fields.id("account_id", &request.account_id, AccountId::stored);
    let balance = fields.required("balance", request.balance);
    let balance = fields.money("balance", balance, 0);
    let expected = fields.required("expected_balance", request.expected_balance);
    let expected = fields.money("expected_balance", expected, 0);
    if balance.is_some() && balance == expected {
        fields.refuse("balance", "must be another amount than expected_balance");
    }
    let reason = fields.text("reason", &request.reason, 1000);
    let corrected_by = fields.person("corrected_by", &request.corrected_by);
    let evidence = fields.optional_text("evidence", &request.evidence, 1000);
    let read =
        pool_id.zip(account_id).zip(balance.zip(expected)).zip(reason.zip(corrected_by)).map(
            |(((pool_id, account_id), (balance, expected)), (reason, corrected_by))| {
                CorrectCommand {
                    pool_id,
                    account_id,
                    balance,
                    expected,
                    corrected_by,
                    reason,
                    evidence,
                    by,
                }
            },
        );
    fields.finish(read)
}

/// The pool, which of its accounts, after which of them, and how many.
pub(super) fn read_list(
    request: pb::ListAccountsRequest,
) -> Result<(PoolId, AccountFilter, Option<AccountId>, i64), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let limit = fields.page_size(request.page_size);
    let after = fields.page_token(&request.page_token, |key| AccountId::stored(key).ok());
    let filter = AccountFilter {
        status: fields.choice("status", request.status, read_status),
        login_status: fields.choice("login_status", request.login_status, read_login_status),
        plan_id: fields.optional_id("plan_id", &request.plan_id, PlanId::parse),
        holder: fields.optional_id("holder", &request.holder, Holder::stored),
        updated_from: fields.time("update_time_from", request.update_time_from),
        updated_to: fields.time("update_time_to", request.update_time_to),
    };
    if let (Some(from), Some(to)) = (filter.updated_from, filter.updated_to)
        && from >= to
    {
        fields.refuse("update_time_to", "must be after update_time_from");
    }
    fields.finish(pool_id.map(|pool_id| (pool_id, filter, after, limit)))
}

/// The account, which of its events, before which of them, and how many.
pub(super) fn read_events(
    request: pb::ListAccountEventsRequest,
) -> Result<(PoolId, AccountId, EventFilter, Option<i64>, i64), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let account_id = fields.id("account_id", &request.account_id, AccountId::stored);
    let limit = fields.page_size(request.page_size);
    let before = fields.page_token(&request.page_token, |key| key.parse::<i64>().ok());
    let filter = EventFilter {
        from: fields.time("event_time_from", request.event_time_from),
        to: fields.time("event_time_to", request.event_time_to),
        reason: fields.optional_text("reason", &request.reason, 64),
        redemption_id: fields.optional_id(
            "redemption_id",
            &request.redemption_id,
            RedemptionId::parse,
        ),
        actor: fields.optional_text("actor", &request.actor, 256),
    };
    if let (Some(from), Some(to)) = (filter.from, filter.to)
        && from >= to
    {
        fields.refuse("event_time_to", "must be after event_time_from");
    }
    let names = pool_id.zip(account_id);
    fields.finish(names.map(|(pool_id, account_id)| (pool_id, account_id, filter, before, limit)))
}

pub(super) fn read_names(pool_id: &str, account_id: &str) -> Result<(PoolId, AccountId), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", pool_id, PoolId::parse);
    let account_id = fields.id("account_id", account_id, AccountId::stored);
    fields.finish(pool_id.zip(account_id))
}

pub(super) fn read_new_account(
    account: Option<pb::Account>,
) -> Result<(PoolId, CreateCommand), Error> {
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
        let credentials = fields.credentials("account.credentials", account.credentials);
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
        Some((pool_id?, CreateCommand { new, balance, credentials: credentials? }))
    });
    fields.finish(read)
}

pub(super) fn read_change(
    request: pb::UpdateAccountRequest,
) -> Result<(PoolId, AccountId, UpdateCommand), Error> {
    const CHANGEABLE: [&str; 8] = [
        "login_status",
        "plan_id",
        "country_code",
        "labels",
        "paused",
        "draining",
        "hold",
        "credentials",
    ];
    let mut fields = Fields::default();
    let mask = Mask::read(&mut fields, request.update_mask, &CHANGEABLE);
    let account = fields.required("account", request.account);
    let read = account.and_then(|account| {
        let pool_id = fields.id("account.pool_id", &account.pool_id, PoolId::parse);
        let account_id = fields.id("account.account_id", &account.account_id, AccountId::stored);
        let plan_id = fields.optional_id("account.plan_id", &account.plan_id, PlanId::parse);
        let field = "account.login_status";
        let login_status = fields.choice(field, account.login_status, read_login_status);
        if mask.names("login_status") && account.login_status == 0 {
            fields.refuse(field, "must be set, because update_mask names it");
        }
        let country_code = fields.country("account.country_code", &account.country_code);
        let labels = fields.labels("account.labels", account.labels);
        let credentials = fields.credentials("account.credentials", account.credentials);
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
        let credentials = credentials?;
        let credentials = set("credentials", !credentials.is_empty()).then_some(credentials);
        Some((pool_id?, account_id?, UpdateCommand { change, credentials }))
    });
    fields.finish(read)
}
