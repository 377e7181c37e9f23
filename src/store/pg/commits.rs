//! Whether the database commits. One that answers and takes writes may still commit nothing: with no synchronous
//! standby left, each commit waits until there is one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use uuid::Uuid;

use super::{
    error::unusable,
    target::{Purpose, Target},
};

/// A commit that takes longer is none: a caller would not wait for it.
const LIMIT: Duration = Duration::from_secs(3);
/// A commit that never ends is given up, with its connection, and another one is tried.
const GIVE_UP: Duration = Duration::from_secs(20);

/// The commit that is under way, and how the last one ended. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Commits(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Of the database's connections, when this was begun.
    generation: u64,
    running: Option<Running>,
    kept: Option<PgConnection>,
    /// Why the last one failed.
    failed: Option<String>,
}

#[derive(Debug)]
struct Running {
    since: Instant,
    task: JoinHandle<Result<(PgConnection, Duration), String>>,
}

impl Commits {
    /// Whether the last commit was made, in time. Begins another one, if none is under way, and does not wait for it. In
    /// another generation of connections, what was under way is at a server that is gone.
    pub(super) async fn check(
        &self,
        target: &Arc<Target>,
        generation: u64,
        server_id: Uuid,
    ) -> Result<(), sqlx::Error> {
        let ended = {
            let mut state = self.state();
            if state.generation != generation {
                if let Some(old) = state.running.take() {
                    old.task.abort();
                }
                *state = State { generation, ..State::default() };
            }
            let is_finished = |running: &mut Running| running.task.is_finished();
            state.running.take_if(is_finished)
        };
        if let Some(running) = ended {
            let ended = running.task.await.unwrap_or_else(|error| Err(error.to_string()));
            let mut state = self.state();
            match ended {
                Ok((connection, took)) => {
                    state.failed = (took > LIMIT).then(|| slow(took));
                    state.kept = Some(connection);
                }
                Err(why) => state.failed = Some(why),
            }
        }
        let mut state = self.state();
        if state.running.is_none() {
            let kept = state.kept.take();
            let task = tokio::spawn(commit(kept, Arc::clone(target), server_id));
            state.running = Some(Running { since: Instant::now(), task });
        }
        let so_far = state.running.as_ref().map_or(Duration::ZERO, |it| it.since.elapsed());
        let failed = if so_far > LIMIT { Some(slow(so_far)) } else { state.failed.clone() };
        failed.map_or(Ok(()), |why| Err(unusable(why)))
    }

    /// Closes its connection. A commit that is under way is not waited for.
    pub(super) async fn close(&self) {
        let (kept, running) = {
            let mut state = self.state();
            (state.kept.take(), state.running.take())
        };
        if let Some(running) = running {
            running.task.abort();
        }
        if let Some(connection) = kept {
            let _ = connection.close().await;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slow(took: Duration) -> String {
    format!(
        "the database answers, and does not commit: a row took {} s so far. Is a synchronous standby missing \
         (synchronous_standby_names), or does its disk stand still?",
        took.as_secs()
    )
}

/// Writes one row, and answers how long it took. The connection is used again.
async fn commit(
    kept: Option<PgConnection>,
    target: Arc<Target>,
    server_id: Uuid,
) -> Result<(PgConnection, Duration), String> {
    let write = async {
        let began = Instant::now();
        // It may have been cut since it was used.
        if let Some(mut connection) = kept
            && write(&mut connection, server_id).await.is_ok()
        {
            return Ok((connection, began.elapsed()));
        }
        let mut connection = target.connect(Purpose::Statements).await?.connection;
        write(&mut connection, server_id).await?;
        Ok::<_, sqlx::Error>((connection, began.elapsed()))
    };
    match timeout(GIVE_UP, write).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(format!("the database does not commit: {error}")),
        Err(_) => Err(slow(GIVE_UP)),
    }
}

async fn write(connection: &mut PgConnection, server_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query_file!("src/store/sql/server/commit.sql", server_id).execute(connection).await?;
    Ok(())
}
