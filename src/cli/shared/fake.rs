//! A server for tests of the commands: every card is good, every account but the third is new, and
//! batches lose their connection as often as they are told to.

#![expect(clippy::disallowed_methods, reason = "it is a server that makes its own errors")]

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use futures_util::Stream;
use tonic::{Code, Request, Response, Status, Streaming, transport::server::TcpIncoming};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::client::Server;
use crate::rpc::pb::{
    self,
    account_service_server::{AccountService, AccountServiceServer},
    batch_item_result, batch_redeem_request,
    batch_redeem_response::Message,
    pool_service_server::{PoolService, PoolServiceServer},
    redemption_service_server::{RedemptionService, RedemptionServiceServer},
};

/// See the module.
#[derive(Clone, Default)]
pub(in crate::cli) struct Fake {
    /// How often a batch was opened.
    pub(in crate::cli) opened: Arc<AtomicU32>,
    /// How many of these openings are lost, each after two items.
    pub(in crate::cli) lose: u32,
    /// After how many openings those that are lost are lost before anything was answered.
    pub(in crate::cli) silent_after: Option<u32>,
    /// The accounts that came.
    pub(in crate::cli) imported: Arc<Mutex<Vec<pb::Account>>>,
}

type Replies = Pin<Box<dyn Stream<Item = Result<pb::BatchRedeemResponse, Status>> + Send>>;

fn event(message: Message) -> Result<pb::BatchRedeemResponse, Status> {
    Ok(pb::BatchRedeemResponse { message: Some(message) })
}

fn credited(item: pb::BatchItem) -> Message {
    let redemption = pb::Redemption {
        state: pb::RedemptionState::Succeeded.into(),
        expected: item.expected,
        ..Default::default()
    };
    let outcome = Some(batch_item_result::Outcome::Redemption(redemption));
    Message::Result(pb::BatchItemResult { item_id: item.item_id, outcome, replayed: false })
}

/// The RPCs that this test does not need, as `async_trait` would write them.
macro_rules! not_here {
    ($($name:ident($request:ident) -> $reply:ident),* $(,)?) => {
        $(
            fn $name<'a, 'f>(
                &'a self,
                _: Request<pb::$request>,
            ) -> Pin<Box<dyn Future<Output = Result<Response<pb::$reply>, Status>> + Send + 'f>>
            where
                'a: 'f,
                Self: 'f,
            {
                Box::pin(async { Err(Status::unimplemented("not part of this test")) })
            }
        )*
    };
}

type Told = Pin<Box<dyn Stream<Item = Result<pb::WatchRedemptionsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl PoolService for Fake {
    async fn get_pool(
        &self,
        _: Request<pb::GetPoolRequest>,
    ) -> Result<Response<pb::GetPoolResponse>, Status> {
        let pool = pb::Pool { currency_code: "EUR".into(), ..Default::default() };
        Ok(Response::new(pb::GetPoolResponse { pool: Some(pool) }))
    }

    not_here! {
        create_pool(CreatePoolRequest) -> CreatePoolResponse,
        list_pools(ListPoolsRequest) -> ListPoolsResponse,
        update_pool(UpdatePoolRequest) -> UpdatePoolResponse,
        create_plan(CreatePlanRequest) -> CreatePlanResponse,
        get_plan(GetPlanRequest) -> GetPlanResponse,
        list_plans(ListPlansRequest) -> ListPlansResponse,
        update_plan(UpdatePlanRequest) -> UpdatePlanResponse,
        delete_plan(DeletePlanRequest) -> DeletePlanResponse,
        delete_pool(DeletePoolRequest) -> DeletePoolResponse,
    }
}

#[tonic::async_trait]
impl RedemptionService for Fake {
    type BatchRedeemStream = Replies;
    type WatchRedemptionsStream = Told;

    async fn batch_redeem(
        &self,
        request: Request<Streaming<pb::BatchRedeemRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let opened = self.opened.fetch_add(1, Ordering::Relaxed);
        let loses = opened < self.lose;
        let is_silent = self.silent_after.is_some_and(|after| opened >= after);
        let loses_after = if is_silent { 0 } else { 2 };
        let mut requests = request.into_inner();
        let (send, receive) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut answered = 0;
            while let Ok(Some(request)) = requests.message().await {
                let Some(batch_redeem_request::Message::Item(item)) = request.message else {
                    continue;
                };
                if loses && answered == loses_after {
                    let _ = send.send(Err(Status::unavailable("going away"))).await;
                    return;
                }
                answered += 1;
                let _ = send.send(event(credited(item))).await;
            }
            let _ = send.send(event(Message::Summary(pb::BatchSummary::default()))).await;
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive))))
    }

    async fn watch_redemptions(
        &self,
        _: Request<pb::WatchRedemptionsRequest>,
    ) -> Result<Response<Told>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    not_here! {
        acquire_account(AcquireAccountRequest) -> AcquireAccountResponse,
        explain_acquire(ExplainAcquireRequest) -> ExplainAcquireResponse,
        renew_lease(RenewLeaseRequest) -> RenewLeaseResponse,
        redeem(RedeemRequest) -> RedeemResponse,
        redeem_card(RedeemCardRequest) -> RedeemCardResponse,
        release_account(ReleaseAccountRequest) -> ReleaseAccountResponse,
        get_redemption(GetRedemptionRequest) -> GetRedemptionResponse,
        await_redemption(AwaitRedemptionRequest) -> AwaitRedemptionResponse,
        list_redemptions(ListRedemptionsRequest) -> ListRedemptionsResponse,
        resolve_redemption(ResolveRedemptionRequest) -> ResolveRedemptionResponse,
        reverse_redemption(ReverseRedemptionRequest) -> ReverseRedemptionResponse,
    }
}

#[tonic::async_trait]
impl AccountService for Fake {
    async fn import_accounts(
        &self,
        request: Request<Streaming<pb::ImportAccountsRequest>>,
    ) -> Result<Response<pb::ImportAccountsResponse>, Status> {
        let mut requests = request.into_inner();
        let mut reply = pb::ImportAccountsResponse::default();
        while let Some(request) = requests.message().await? {
            self.imported.lock().unwrap().extend(request.account);
            let failure = pb::ImportFailure {
                index: reply.received,
                error: (reply.received == 2).then(already_there),
                ..Default::default()
            };
            reply.received += 1;
            match failure.error {
                Some(_) => reply.failures.push(failure),
                None => reply.created += 1,
            }
        }
        reply.failed = reply.received - reply.created;
        Ok(Response::new(reply))
    }

    not_here! {
        create_account(CreateAccountRequest) -> CreateAccountResponse,
        get_account(GetAccountRequest) -> GetAccountResponse,
        list_accounts(ListAccountsRequest) -> ListAccountsResponse,
        update_account(UpdateAccountRequest) -> UpdateAccountResponse,
        correct_balance(CorrectBalanceRequest) -> CorrectBalanceResponse,
        list_account_events(ListAccountEventsRequest) -> ListAccountEventsResponse,
    }
}

fn already_there() -> tonic_types::Status {
    let details = ErrorDetails::with_error_info("ACCOUNT_ALREADY_EXISTS", "holdfast", []);
    let status = Status::with_error_details(Code::AlreadyExists, "it is there", details);
    prost::Message::decode(status.details()).unwrap()
}

/// Serves, and connects to it.
pub(in crate::cli) async fn serve(fake: Fake) -> Server {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(AccountServiceServer::new(fake.clone()))
        .add_service(PoolServiceServer::new(fake.clone()))
        .add_service(RedemptionServiceServer::new(fake))
        .serve_with_incoming(incoming);
    tokio::spawn(server);
    Server::connect(&format!("http://{address}"), Default::default()).await.unwrap()
}
