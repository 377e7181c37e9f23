//! What tests ask a server for.

use super::*;

impl Clients {
    /// The clients of a server that is not the world's.
    pub(crate) async fn connect(url: &str) -> Self {
        let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        Self::over(channel, Journal::default())
    }

    /// Clients over a connection, who write down what they are told.
    pub(crate) fn over(channel: Channel, journal: Journal) -> Self {
        Self::showing(channel, None, journal)
    }

    /// The same, of somebody who shows a token.
    pub(crate) fn showing(channel: Channel, secret: Option<&str>, journal: Journal) -> Self {
        let connection = caller::connection(channel, secret);
        Self {
            redemptions: RedemptionServiceClient::new(connection.clone()),
            accounts: AccountServiceClient::new(connection.clone()),
            pools: PoolServiceClient::new(connection.clone()),
            providers: ProviderServiceClient::new(connection.clone()),
            access: AccessServiceClient::new(connection.clone()),
            subscriptions: SubscriptionServiceClient::new(connection),
            journal,
        }
    }

    /// What they were told.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) async fn create_pool(&mut self, pool_id: &str) {
        let pool = pb::Pool {
            pool_id: pool_id.to_owned(),
            currency_code: "EUR".to_owned(),
            ..Default::default()
        };
        self.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.unwrap();
    }

    pub(crate) async fn create_plan(&mut self, plan_id: &str, target_minor: i64) {
        let plan = pb::Plan {
            pool_id: POOL.to_owned(),
            plan_id: plan_id.to_owned(),
            target: Some(eur(target_minor)),
            ..Default::default()
        };
        self.pools.create_plan(pb::CreatePlanRequest { plan: Some(plan) }).await.unwrap();
    }

    /// Creates an account in [`POOL`], as changed.
    pub(crate) async fn create_account(
        &mut self,
        account_id: &str,
        change: impl FnOnce(&mut pb::Account),
    ) -> pb::Account {
        let mut account = pb::Account {
            pool_id: POOL.to_owned(),
            account_id: account_id.to_owned(),
            ..Default::default()
        };
        change(&mut account);
        let request = pb::CreateAccountRequest { account: Some(account) };
        self.accounts.create_account(request).await.unwrap().into_inner().account.unwrap()
    }

    /// Creates the accounts `a-000`, `a-001` and so on.
    pub(crate) async fn create_accounts(&mut self, count: usize) {
        let accounts: Vec<_> = (0..count)
            .map(|n| pb::ImportAccountsRequest {
                account: Some(pb::Account {
                    pool_id: POOL.to_owned(),
                    account_id: format!("a-{n:03}"),
                    ..Default::default()
                }),
            })
            .collect();
        let stream = tokio_stream::iter(accounts);
        let reply = self.accounts.import_accounts(stream).await.unwrap().into_inner();
        assert_eq!(reply.created, i64::try_from(count).unwrap(), "{reply:?}");
    }

    pub(crate) async fn account(&mut self, account_id: &str) -> pb::Account {
        let request =
            pb::GetAccountRequest { pool_id: POOL.to_owned(), account_id: account_id.to_owned() };
        self.accounts.get_account(request).await.unwrap().into_inner().account.unwrap()
    }

    pub(crate) async fn status_of(&mut self, account_id: &str) -> pb::AccountStatus {
        self.account(account_id).await.status()
    }

    /// Acquires any account of [`POOL`], as changed.
    pub(crate) async fn acquire(
        &mut self,
        change: impl FnOnce(&mut pb::AcquireAccountRequest),
    ) -> Result<pb::AcquireAccountResponse, Status> {
        let mut request = pb::AcquireAccountRequest {
            request_id: String::new(),
            pool_id: POOL.to_owned(),
            holder: "tester".to_owned(),
            ..Default::default()
        };
        change(&mut request);
        let acquired = self.redemptions.acquire_account(request).await?.into_inner();
        self.journal.leased(&lease(&acquired));
        Ok(acquired)
    }

    pub(crate) async fn release(&mut self, lease: &pb::LeaseRef) -> Result<pb::Account, Status> {
        let request = pb::ReleaseAccountRequest { lease: Some(lease.clone()) };
        let reply = self.redemptions.release_account(request).await?.into_inner();
        let account = reply.account.unwrap();
        self.journal.released(lease, &account);
        Ok(account)
    }

    pub(crate) async fn renew(
        &mut self,
        lease: &pb::LeaseRef,
        ttl: Duration,
    ) -> Result<pb::Lease, Status> {
        let request = pb::RenewLeaseRequest {
            lease: Some(lease.clone()),
            lease_duration: Some(ttl.try_into().unwrap()),
        };
        Ok(self.redemptions.renew_lease(request).await?.into_inner().lease.unwrap())
    }

    /// Redeems a code under a lease, for the request named like the code.
    pub(crate) async fn redeem(
        &mut self,
        lease: &pb::LeaseRef,
        code: &str,
        change: impl FnOnce(&mut pb::RedeemRequest),
    ) -> Result<pb::RedeemResponse, Status> {
        let mut request = pb::RedeemRequest {
            request_id: format!("redeem {}", code.trim_start_matches(CODE_PREFIX)),
            lease: Some(lease.clone()),
            code: code.to_owned(),
            expected: None,
            release_on_completion: false,
        };
        change(&mut request);
        let redeemed = self.redemptions.redeem(request).await?.into_inner();
        self.journal.redemption(redeemed.redemption.as_ref().unwrap());
        Ok(redeemed)
    }

    pub(crate) async fn redemption(&mut self, redemption_id: &str) -> pb::Redemption {
        let request = pb::GetRedemptionRequest {
            pool_id: POOL.to_owned(),
            redemption_id: redemption_id.to_owned(),
            request_id: String::new(),
        };
        self.redemptions.get_redemption(request).await.unwrap().into_inner().redemption.unwrap()
    }

    pub(crate) async fn events(&mut self, account_id: &str) -> Vec<pb::AccountEvent> {
        let request = pb::ListAccountEventsRequest {
            pool_id: POOL.to_owned(),
            account_id: account_id.to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        let reply = self.accounts.list_account_events(request).await.unwrap();
        reply.into_inner().account_events
    }
}
