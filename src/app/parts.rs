//! The parts of a server: its services, wired, and its background tasks.

use tokio::{sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::ServeArgs,
    domain::subscription::Pauses,
    provider::{Provider, receiver::Receivers},
    rpc::{
        MAX_ANSWER_BYTES, MAX_REQUEST_BYTES,
        access::AccessRpc,
        account::AccountRpc,
        pb::{
            access_service_server::AccessServiceServer,
            account_service_server::AccountServiceServer, pool_service_server::PoolServiceServer,
            provider_service_server::ProviderServiceServer,
            redemption_service_server::RedemptionServiceServer,
            subscription_service_server::SubscriptionServiceServer,
        },
        pool::PoolRpc,
        provider::ProviderRpc,
        redemption::RedemptionRpc,
        subscription::SubscriptionRpc,
    },
    secret::SecretKeys,
    service::{
        acquire::Acquire,
        admin::{
            self, accounts::Accounts, audit_events::AuditTrail, plans::Plans,
            redemptions::Redemptions, tokens::Tokens,
        },
        awaiting::Awaiting,
        background::{
            connections, heartbeat,
            reconcile::{Reconciler, takeover::Takeover},
            reversals, statistics,
        },
        batch::{
            Batch, Services,
            inquiry::{Inquiry, InquiryLimits},
        },
        card::Cards,
        keys,
        pools::Pools,
        providers::Providers,
        redeem::{Redeem, Stopping, settle::Settler},
        release::Leases,
        reverse::Reversals,
        subscriptions::{
            Subscriptions,
            deliver::{Deliveries, Tools},
        },
        sweep,
        watching::Watching,
        webhooks::Webhooks,
    },
    shutdown::Shutdown,
    store::Store,
};

/// The services, wired.
pub(super) struct Parts {
    store: Store,
    pools: Pools,
    plans: Plans,
    providers: Providers,
    profiles: admin::providers::Providers,
    accounts: Accounts,
    reconciler: Reconciler,
    reversals: Reversals,
    redemption: RedemptionRpc,
    secret: SecretKeys,
    closing: CancellationToken,
}

impl Parts {
    pub(super) fn new(
        args: &ServeArgs,
        store: Store,
        provider: Provider,
        secret: SecretKeys,
        shutdown: &Shutdown,
        tasks: &TaskTracker,
    ) -> Self {
        let closing = shutdown.closing.clone();
        let pools = Pools::new(store.clone());
        let secrets_dir = args.secrets_dir.clone();
        let providers =
            Providers::new(store.clone(), provider, secrets_dir.clone(), closing.clone());
        let profiles = admin::providers::Providers::new(store.clone(), secrets_dir);
        let acquire =
            Acquire::new(store.clone(), pools.clone(), providers.clone(), closing.clone());
        let plans = Plans::new(store.clone(), pools.clone());
        let leases = Leases::new(store.clone(), pools.clone());
        let settler = Settler::new(store.clone(), pools.clone());
        let redeem = Redeem::new(
            store.clone(),
            pools.clone(),
            providers.clone(),
            secret.clone(),
            settler.clone(),
            Stopping { tasks: tasks.clone(), closing: closing.clone() },
        );
        let inquiry_limits = InquiryLimits {
            concurrency: usize::from(args.inquiry_concurrency),
            remember: args.inquiry_cache,
        };
        let inquiry = Inquiry::new(secret.clone(), inquiry_limits, closing.clone());
        let services = Services {
            store: store.clone(),
            pools: pools.clone(),
            providers: providers.clone(),
            inquiry,
            acquire: acquire.clone(),
            redeem: redeem.clone(),
            leases: leases.clone(),
        };
        let cards = Cards::new(
            pools.clone(),
            acquire.clone(),
            redeem.clone(),
            leases.clone(),
            Stopping { tasks: tasks.clone(), closing: closing.clone() },
        );
        let batch = Batch::new(services, args.stream_heartbeat, tasks.clone(), closing.clone());
        let reversals = Reversals::new(
            store.clone(),
            pools.clone(),
            providers.clone(),
            secret.clone(),
            tasks.clone(),
        );
        let reconciler = Reconciler::new(
            store.clone(),
            pools.clone(),
            providers.clone(),
            secret.clone(),
            settler.clone(),
        );
        let accounts = Accounts::new(store.clone(), pools.clone(), secret.clone());
        let redemptions = Redemptions::new(store.clone(), pools.clone(), secret.clone(), settler);
        let redemption = RedemptionRpc {
            pools: pools.clone(),
            acquire: acquire.clone(),
            leases,
            redeem,
            batch,
            redemptions,
            cards,
            awaiting: Awaiting::new(store.clone(), closing.clone()),
            reversals: reversals.clone(),
            watching: Watching::new(
                store.clone(),
                pools.clone(),
                args.stream_heartbeat,
                closing.clone(),
            ),
            max_wait: args.max_wait,
        };
        Self {
            store,
            pools,
            plans,
            providers,
            profiles,
            accounts,
            reconciler,
            reversals,
            redemption,
            secret,
            closing,
        }
    }

    /// The background tasks. They end at `stop`, but for the beats: while a server finishes what it has, it lives.
    pub(super) fn spawn_loops(
        &self,
        args: &ServeArgs,
        stop: &CancellationToken,
        at_the_end: &CancellationToken,
    ) -> JoinSet<()> {
        let mut loops = JoinSet::new();
        loops.spawn(sweep::run(
            self.store.clone(),
            self.pools.clone(),
            args.sweep_interval,
            stop.clone(),
        ));
        loops.spawn(self.providers.clone().follow(stop.clone()));
        loops.spawn(keys::run(self.store.clone(), self.secret.clone(), stop.clone()));
        loops.spawn(statistics::run(self.store.clone(), stop.clone()));
        loops.spawn(connections::run(self.store.clone(), stop.clone()));
        loops.spawn(self.reconciler.clone().run(args.reconcile_interval, stop.clone()));
        let check_reversals =
            reversals::run(self.reversals.clone(), args.reconcile_interval, stop.clone());
        loops.spawn(check_reversals);
        loops.spawn(self.deliveries(args).run(stop.clone()));
        let (dead, told_dead) = watch::channel(Vec::new());
        loops.spawn(heartbeat::run(self.store.clone(), dead, at_the_end.clone()));
        loops.spawn(Takeover::new(self.reconciler.clone(), told_dead).run(stop.clone()));
        loops
    }

    fn deliveries(&self, args: &ServeArgs) -> Deliveries {
        let pauses = Pauses {
            first: args.delivery.first_pause,
            longest: args.delivery.longest_pause,
            give_up: args.delivery.give_up,
        };
        let watching = self.redemption.watching.clone();
        let tools = Tools { store: self.store.clone(), watching, pauses };
        let receivers = Receivers::new(args.delivery.timeout);
        Deliveries::new(tools, self.pools.clone(), self.secret.clone(), receivers)
    }

    /// The webhooks of this server.
    pub(super) fn webhooks(&self) -> Webhooks {
        let (redeem, reconciler) = (self.redemption.redeem.clone(), self.reconciler.clone());
        Webhooks::new(self.store.clone(), redeem, reconciler, self.closing.clone())
    }

    pub(super) fn access_service(&self, tokens: Tokens) -> AccessServiceServer<AccessRpc> {
        AccessServiceServer::new(AccessRpc::new(tokens, AuditTrail::new(self.store.clone())))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn subscription_service(&self) -> SubscriptionServiceServer<SubscriptionRpc> {
        let subscriptions = Subscriptions::new(
            self.store.clone(),
            self.pools.clone(),
            self.secret.clone(),
            self.redemption.watching.clone(),
        );
        SubscriptionServiceServer::new(SubscriptionRpc::new(subscriptions))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn redemption_service(&self) -> RedemptionServiceServer<RedemptionRpc> {
        RedemptionServiceServer::new(self.redemption.clone())
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn account_service(&self) -> AccountServiceServer<AccountRpc> {
        AccountServiceServer::new(AccountRpc::new(self.accounts.clone(), self.closing.clone()))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn provider_service(&self) -> ProviderServiceServer<ProviderRpc> {
        ProviderServiceServer::new(ProviderRpc::new(self.profiles.clone()))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn pool_service(&self) -> PoolServiceServer<PoolRpc> {
        PoolServiceServer::new(PoolRpc::new(self.pools.clone(), self.plans.clone()))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES)
    }
}
