//! An import: accounts of a stream, created chunk by chunk.

use std::time::Duration;

use prost::Message as _;

use super::read_new_account;
use crate::{
    domain::{page::MAX_PAGE_BYTES, pool::Pool, principal::Authority},
    rpc::{convert::echo, pb, status::rich},
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
pub(super) const IMPORT_IDLE: Duration = Duration::from_secs(60);
/// The most failures that an import's reply names, and their bytes at most.
const MAX_FAILURES: usize = 1000;
const MAX_FAILURE_BYTES: usize = MAX_PAGE_BYTES;

/// An import under way.
pub(super) struct Import {
    accounts: Accounts,
    by: Authority,
    /// The pool of the first account.
    pool: Option<Pool>,
    chunk: Vec<(i64, CreateCommand)>,
    chunk_bytes: usize,
    failure_bytes: usize,
    reply: pb::ImportAccountsResponse,
    /// How many accounts were created by what the audit trail has of it.
    recorded: i64,
}

impl Import {
    pub(super) fn new(accounts: Accounts, by: Authority) -> Self {
        Self {
            accounts,
            by,
            pool: None,
            chunk: Vec::new(),
            chunk_bytes: 0,
            failure_bytes: 0,
            reply: Default::default(),
            recorded: 0,
        }
    }

    pub(super) async fn take(&mut self, account: Option<pb::Account>) -> Result<(), Error> {
        let index = self.reply.received;
        self.reply.received += 1;
        let name = account.as_ref().map(|account| echo(&account.account_id)).unwrap_or_default();
        let bytes = account.as_ref().map_or(0, prost::Message::encoded_len);
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

    pub(super) async fn flush(&mut self) -> Result<(), Error> {
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
        let outcomes = self.accounts.import(pool, commands, &self.by).await?;
        for ((index, name), outcome) in names.into_iter().zip(outcomes) {
            match outcome {
                Ok(_) => self.reply.created += 1,
                Err(error) => self.fail(index, name, &error),
            }
        }
        Ok(())
    }

    /// The error of a stream that ends before its client has sent all of it.
    pub(super) fn stopped(&self, error: Error) -> Error {
        error.of_stream(self.reply.received, self.reply.created)
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

    pub(super) async fn finish(mut self) -> Result<pb::ImportAccountsResponse, Error> {
        self.flush().await?;
        if let Some(pool) = &self.pool {
            let counts = (self.reply.received, self.reply.created, self.reply.failed);
            self.accounts.record_import(&pool.pool_id, counts, &self.by).await?;
            self.recorded = self.reply.created;
        }
        Ok(std::mem::take(&mut self.reply))
    }
}

/// One that ends early is recorded with what it has created.
impl Drop for Import {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take().filter(|_| self.reply.created > self.recorded) else {
            return;
        };
        let counts = (self.reply.received, self.reply.created, self.reply.failed);
        let (accounts, by) = (self.accounts.clone(), self.by.clone());
        tokio::spawn(async move {
            if let Err(error) = accounts.record_import(&pool.pool_id, counts, &by).await {
                tracing::error!(pool_id = %pool.pool_id, %error, "an import could not be recorded");
            }
        });
    }
}
