//! A person, who settles the redemptions whose task was lost: by what the provider's own records have of the account,
//! which stays locked until then.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use holdfast::{
    rpc::pb::{self, RedemptionState},
    simulator::ledger::{self, Row, State},
};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    load::usd,
    support::{
        fleet::{self, Fleet},
        journal::Journal,
        real::Real,
        world::Clients,
    },
};

/// How often the list of reviews is read.
const PAUSE: Duration = Duration::from_millis(500);

/// A redemption that waits for a person.
struct Review {
    pool_id: String,
    redemption_id: String,
    account_id: String,
}

pub(crate) struct Person {
    at_work: JoinHandle<()>,
    gone: CancellationToken,
}

impl Person {
    /// Reads past the faults, and calls any server.
    pub(crate) fn start(fleet: &Fleet, db_url: &str) -> Self {
        let tasks = fleet.fakes.iter().find(|fake| fake.real == Real::Task).unwrap();
        let ledger = tasks.books().ledger;
        let servers: Vec<_> = fleet
            .servers
            .iter()
            .map(|server| Clients::over(fleet::channel(&server.addr), Journal::default()))
            .collect();
        let gone = CancellationToken::new();
        let work = work(servers, db_url.to_owned(), ledger, gone.clone());
        Self { at_work: tokio::spawn(work), gone }
    }

    /// Leaves what comes after this.
    pub(crate) async fn go_home(self) {
        self.gone.cancel();
        self.at_work.await.unwrap();
    }
}

async fn work(mut servers: Vec<Clients>, db_url: String, ledger: PathBuf, gone: CancellationToken) {
    let mut turn = 0;
    while gone.run_until_cancelled(sleep(PAUSE)).await.is_some() {
        // While Postgres restarts there is nothing to read.
        let Ok(mut db) = PgConnection::connect(&db_url).await else { continue };
        let (Ok(reviews), Ok(known)) = (reviews(&mut db).await, known_tasks(&mut db).await) else {
            continue;
        };
        let rows = ledger::read(&ledger).unwrap_or_default();
        for review in reviews {
            turn += 1;
            let place = turn % servers.len();
            let found = rows.iter().find(|row| {
                row.account_ref.as_ref() == Some(&review.account_id) && !known.contains(&row.key)
            });
            if found.is_some_and(|row| row.state == State::Processing) {
                continue;
            }
            // One whose answer is lost is read again, or settled.
            let _ = resolve(&mut servers[place], &review, found).await;
        }
    }
}

async fn reviews(db: &mut PgConnection) -> sqlx::Result<Vec<Review>> {
    // Longer than a server may stand still before it sends, and the provider be at work.
    let reviews = "SELECT * FROM redemptions
                   WHERE state = 'NEEDS_REVIEW' AND provider_task IS NULL AND provider_id = $1
                     AND created_at < now() - interval '10 seconds'";
    let reviews = sqlx::query(reviews).bind(Real::Task.provider_id()).fetch_all(db).await?;
    let read = |row: sqlx::postgres::PgRow| Review {
        pool_id: row.get("pool_id"),
        redemption_id: row.get::<uuid::Uuid, _>("redemption_id").to_string(),
        account_id: row.get("account_id"),
    };
    Ok(reviews.into_iter().map(read).collect())
}

/// The tasks of other redemptions: those that were told, and those that a person found.
async fn known_tasks(db: &mut PgConnection) -> sqlx::Result<HashSet<String>> {
    let known = "SELECT COALESCE(provider_task, resolution_evidence) FROM redemptions
                 WHERE COALESCE(provider_task, resolution_evidence) IS NOT NULL";
    Ok(sqlx::query_scalar(known).fetch_all(db).await?.into_iter().collect())
}

/// Says what became of it, and by which task.
async fn resolve(
    clients: &mut Clients,
    review: &Review,
    found: Option<&Row>,
) -> Result<(), tonic::Status> {
    let credit = found.filter(|row| row.state == State::Succeeded);
    let state = if credit.is_some() { RedemptionState::Succeeded } else { RedemptionState::Failed };
    let request = pb::ResolveRedemptionRequest {
        pool_id: review.pool_id.clone(),
        redemption_id: review.redemption_id.clone(),
        state: state.into(),
        amount: credit.map(|row| usd(row.amount_minor)),
        reason: "read in the provider's records".to_owned(),
        resolved_by: "a person".to_owned(),
        evidence: found.map(|row| row.key.clone()).unwrap_or_default(),
        ..Default::default()
    };
    clients.redemptions.resolve_redemption(request).await?;
    Ok(())
}
