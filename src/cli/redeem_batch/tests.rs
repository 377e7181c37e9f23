//! A whole batch against a server that loses its connection.

use std::{
    io::Write as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures_util::Stream;
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};

use super::*;
use crate::{
    cli::client::Server,
    rpc::pb::{
        batch_item_result, batch_redeem_request,
        batch_redeem_response::Message,
        pool_service_server::{PoolService, PoolServiceServer},
        redemption_service_server::{RedemptionService, RedemptionServiceServer},
    },
};

/// Answers every item with a success; loses the first connections after two items each.
#[derive(Clone, Default)]
struct Fake {
    opened: Arc<AtomicU32>,
    lose: u32,
}

type Replies = Pin<Box<dyn Stream<Item = Result<pb::BatchRedeemResponse, Status>> + Send>>;

fn said(message: Message) -> Result<pb::BatchRedeemResponse, Status> {
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
    }
}

#[tonic::async_trait]
impl RedemptionService for Fake {
    type BatchRedeemStream = Replies;

    async fn batch_redeem(
        &self,
        request: Request<Streaming<pb::BatchRedeemRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let loses = self.opened.fetch_add(1, Ordering::Relaxed) < self.lose;
        let mut requests = request.into_inner();
        let (send, receive) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut answered = 0;
            while let Ok(Some(request)) = requests.message().await {
                let Some(batch_redeem_request::Message::Item(item)) = request.message else {
                    continue;
                };
                if loses && answered == 2 {
                    let _ = send.send(Err(Status::unavailable("going away"))).await;
                    return;
                }
                answered += 1;
                let _ = send.send(said(credited(item))).await;
            }
            let _ = send.send(said(Message::Summary(pb::BatchSummary::default()))).await;
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive))))
    }

    not_here! {
        acquire_account(AcquireAccountRequest) -> AcquireAccountResponse,
        renew_lease(RenewLeaseRequest) -> RenewLeaseResponse,
        redeem(RedeemRequest) -> RedeemResponse,
        release_account(ReleaseAccountRequest) -> ReleaseAccountResponse,
        get_redemption(GetRedemptionRequest) -> GetRedemptionResponse,
        list_redemptions(ListRedemptionsRequest) -> ListRedemptionsResponse,
        resolve_redemption(ResolveRedemptionRequest) -> ResolveRedemptionResponse,
    }
}

async fn serve(fake: Fake) -> Server {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(PoolServiceServer::new(fake.clone()))
        .add_service(RedemptionServiceServer::new(fake))
        .serve_with_incoming(incoming);
    tokio::spawn(server);
    Server::connect(&format!("http://{address}")).await.unwrap()
}

/// Ten good cards, a bad one, and one of another pool.
fn file() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "code,pool_id\nx,p\nOTHER-POOL,q").unwrap();
    for n in 0..10 {
        writeln!(file, "CODE-{n:04},").unwrap();
    }
    file
}

fn batch(file: &tempfile::NamedTempFile) -> Batch {
    Batch {
        file: file.path().to_owned(),
        pool_id: PoolId::parse("p").unwrap(),
        batch_id: BatchId::parse("b").unwrap(),
        holder: Holder::parse("h").unwrap(),
        plan: None,
        max_in_flight: 1,
        item_timeout: Duration::from_secs(1),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_after_a_lost_connection_and_tells_every_outcome_once() {
    let fake = Fake { lose: 2, ..Fake::default() };
    let server = serve(fake.clone()).await;
    let file = file();
    let mut told = Vec::new();
    let done = redeem(&server, &batch(&file), &Progress::new("p".into()), |outcome| {
        told.push(outcome.row()[0].as_str().unwrap().to_owned());
        Ok(())
    })
    .await
    .unwrap();

    assert_eq!(fake.opened.load(Ordering::Relaxed), 3);
    told.sort();
    told.dedup();
    assert_eq!((told.len(), done.tally.succeeded), (10, 10));
    assert_eq!((done.file.items, done.file.bad_rows, done.file.skipped), (10, 1, 1));
    assert!(done.wants_a_look());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_gets_further_is_given_up() {
    let fake = Fake { lose: u32::MAX, ..Fake::default() };
    let server = serve(fake.clone()).await;
    let file = file();
    let mut told = 0;
    let error = redeem(&server, &batch(&file), &Progress::new("p".into()), |_| {
        told += 1;
        Ok(())
    })
    .await
    .unwrap_err();

    assert!(error.to_string().contains("run the same command again"), "{error}");
    assert_eq!(told, 2);
    assert_eq!(fake.opened.load(Ordering::Relaxed), 6);
}
