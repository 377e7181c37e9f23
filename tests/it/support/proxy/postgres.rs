//! A proxy before a Postgres, which knows one statement from another.
//!
//! It reads Parse, Bind, Execute and Sync, as sqlx sends them, and Query. Statements are prepared once
//! and named from then on, so it remembers for each connection which name is which text. What a
//! client sends up to a Sync is passed on as a whole; the server answers it with one ReadyForQuery,
//! before which it has committed.

use std::{
    collections::{HashMap, VecDeque},
    str::FromStr as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::postgres::PgConnectOptions;
use tokio::time::sleep;

use super::{
    Ended, Fired, Link, Protocol, Proxy, Reader, Upstream, When, Writer,
    messages::{Message, Opening, refusal, take, take_opening},
    rules::Rules,
};

/// What happens to a statement.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The connection is cut, and the server never sees it.
    CutBefore,
    /// The server has run and committed it; then the connection is cut instead of its reply.
    CutReply,
    /// The server has run and committed it; no reply comes, and the connection stays.
    SwallowReply,
    /// It reaches the server later.
    DelayRequest(Duration),
    /// The server has run and committed it; the reply comes later.
    DelayReply(Duration),
    /// The server never sees it; it is refused with this code.
    Refuse(&'static str),
}

/// Part of a statement's text.
#[derive(Clone, Debug)]
pub(crate) struct Statement(String);

/// The statements whose text contains `text`.
pub(crate) fn statement(text: &str) -> When<Statement> {
    When::first(Statement(text.to_owned()))
}

/// See [the module](self).
#[derive(Debug, Default)]
pub(crate) struct Postgres {
    rules: Rules<Statement, Fault>,
    rewrites: Mutex<Vec<(Edit, Rewritten)>>,
}

#[derive(Clone, Debug)]
struct Edit {
    statement: String,
    piece: String,
    by: String,
}

/// A change of statements that was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rewritten(Arc<EditCounts>);

#[derive(Debug, Default)]
struct EditCounts {
    done: AtomicUsize,
    missed: Mutex<Vec<String>>,
}

impl Rewritten {
    /// How often a statement was changed while it was prepared. Panics when one that was meant did
    /// not hold the piece to change: then a test would test the statement as it is.
    pub(crate) fn times(&self) -> usize {
        let missed = self.missed();
        assert!(missed.is_empty(), "statements without the piece to change: {missed:#?}");
        self.0.done.load(Ordering::SeqCst)
    }

    /// The statements that were meant and did not hold the piece to change.
    pub(crate) fn missed(&self) -> Vec<String> {
        self.0.missed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where the Postgres of a URL listens.
pub(crate) fn upstream(url: &str) -> Upstream {
    let options = PgConnectOptions::from_str(url).unwrap();
    let port = options.get_port();
    match options.get_socket() {
        Some(dir) => Upstream::Unix(dir.join(format!(".s.PGSQL.{port}"))),
        None => Upstream::Tcp(format!("{}:{port}", options.get_host()).parse().unwrap()),
    }
}

impl Proxy<Postgres> {
    /// A proxy before the Postgres of a URL.
    pub(crate) fn before(url: &str) -> Self {
        Self::start(Postgres::default(), upstream(url))
    }

    /// The URL of the same user and database as `url` names, through the proxy.
    pub(crate) fn url(&self, url: &str) -> String {
        let options = PgConnectOptions::from_str(url).unwrap();
        let database = options.get_database().unwrap();
        format!("postgres://{}@{}/{database}?sslmode=disable", options.get_username(), self.addr)
    }

    /// Asks for a fault.
    pub(crate) fn fault(&self, when: When<Statement>, fault: Fault) -> Fired {
        self.protocol.rules.add(when, fault)
    }

    /// Replaces `piece` by `by` in the statements whose text contains `statement`, where they are
    /// prepared from now on. Connections that have prepared them go on as before.
    pub(crate) fn rewrite(&self, statement: &str, piece: &str, by: &str) -> Rewritten {
        let edit =
            Edit { statement: statement.to_owned(), piece: piece.to_owned(), by: by.to_owned() };
        let rewritten = Rewritten::default();
        let mut rewrites = self.protocol.rewrites.lock().unwrap_or_else(PoisonError::into_inner);
        rewrites.push((edit, rewritten.clone()));
        rewritten
    }
}

impl Protocol for Postgres {
    async fn serve(&self, link: Link) -> Result<(), Ended> {
        // The start of a connection ends with a ReadyForQuery too.
        let replies = Replies { due: Mutex::new([None].into()), silent: AtomicBool::new(false) };
        let to_client = tokio::sync::Mutex::new(link.to_client);
        let requests = Requests {
            rules: self,
            replies: &replies,
            to_client: &to_client,
            to_server: link.to_server,
            statements: HashMap::new(),
            portals: HashMap::new(),
            group: Vec::new(),
            fault: None,
        };
        tokio::try_join!(
            requests.pass(link.from_client),
            pass_replies(&replies, link.from_server, &to_client),
        )?;
        Ok(())
    }
}

impl Postgres {
    fn rewrite(&self, parse: Message) -> Message {
        let mut parse = parse;
        let rewrites = self.rewrites.lock().unwrap_or_else(PoisonError::into_inner);
        for (edit, rewritten) in rewrites.iter() {
            let [_, sql] = parse.texts();
            if !sql.contains(&edit.statement) {
                continue;
            }
            if sql.contains(&edit.piece) {
                parse = parse.with_statement(&sql.replace(&edit.piece, &edit.by));
                rewritten.0.done.fetch_add(1, Ordering::SeqCst);
            } else {
                let mut missed = rewritten.0.missed.lock().unwrap_or_else(PoisonError::into_inner);
                missed.push(sql);
            }
        }
        parse
    }
}

/// What is to become of the replies that are due, in the order in which they were asked for.
struct Replies {
    due: Mutex<VecDeque<Option<(Fault, Fired)>>>,
    /// Nothing passes any more.
    silent: AtomicBool,
}

/// One direction of a connection: what its client asks for.
struct Requests<'a> {
    rules: &'a Postgres,
    replies: &'a Replies,
    to_client: &'a tokio::sync::Mutex<Writer>,
    to_server: Writer,
    /// The texts of statements and of portals, by their names.
    statements: HashMap<String, String>,
    portals: HashMap<String, String>,
    /// What was sent since the last Sync.
    group: Vec<u8>,
    fault: Option<(Fault, Fired)>,
}

impl Requests<'_> {
    async fn pass(mut self, mut from: Reader) -> Result<(), Ended> {
        let mut bytes = Vec::new();
        self.open(&mut from, &mut bytes).await?;
        loop {
            while let Some(message) = take(&mut bytes) {
                self.take(message).await?;
            }
            if !from.read(&mut bytes).await? {
                break;
            }
        }
        if self.replies.silent.load(Ordering::SeqCst) {
            return Err(Ended);
        }
        self.to_server.finish().await
    }

    /// Passes the start of a connection on. Encryption is declined: the proxy could not read on.
    async fn open(&mut self, from: &mut Reader, bytes: &mut Vec<u8>) -> Result<(), Ended> {
        loop {
            match take_opening(bytes) {
                Some(Opening::Encryption) => self.to_client.lock().await.write(b"N").await?,
                Some(Opening::Other(opening)) => return self.to_server.write(&opening).await,
                None if from.read(bytes).await? => {}
                None => return Err(Ended),
            }
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), Ended> {
        let message = if message.kind == b'P' { self.rules.rewrite(message) } else { message };
        self.group.extend_from_slice(&message.bytes);
        match message.kind {
            b'P' => {
                let [name, sql] = message.texts();
                self.statements.insert(name, sql);
            }
            b'B' => {
                let [portal, statement] = message.texts();
                let sql = self.statements.get(&statement).cloned().unwrap_or_default();
                self.portals.insert(portal, sql);
            }
            b'E' => {
                let [portal] = message.texts();
                let sql = self.portals.get(&portal).cloned().unwrap_or_default();
                self.choose(&sql);
            }
            b'Q' => {
                let [sql] = message.texts();
                self.choose(&sql);
                return self.send().await;
            }
            b'S' => return self.send().await,
            // Describe and Close belong to what follows.
            b'D' | b'C' => {}
            _ => {
                let others = std::mem::take(&mut self.group);
                return self.to_server.write(&others).await;
            }
        }
        Ok(())
    }

    fn choose(&mut self, sql: &str) {
        let fault = self.rules.rules.pick(|Statement(text)| sql.contains(text));
        self.fault = self.fault.take().or(fault);
    }

    /// Sends what makes one answer.
    async fn send(&mut self) -> Result<(), Ended> {
        let group = std::mem::take(&mut self.group);
        let fault = self.fault.take();
        match &fault {
            Some((Fault::CutBefore, fired)) => {
                fired.count();
                return Err(Ended);
            }
            Some((Fault::Refuse(code), fired)) => {
                fired.count();
                return self.to_client.lock().await.write(&refusal(code)).await;
            }
            Some((Fault::DelayRequest(time), fired)) => {
                sleep(*time).await;
                fired.count();
            }
            _ => {}
        }
        self.replies.push(fault);
        self.to_server.write(&group).await
    }
}

impl Replies {
    fn push(&self, fault: Option<(Fault, Fired)>) {
        let late = |(fault, _): &(Fault, Fired)| !matches!(fault, Fault::DelayRequest(_));
        self.due.lock().unwrap_or_else(PoisonError::into_inner).push_back(fault.filter(late));
    }

    /// What is to become of the reply that is coming.
    fn front(&self) -> Option<(Fault, Fired)> {
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.front().cloned().flatten()
    }

    fn pop(&self) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    }
}

/// The other direction: what the server answers. Ends the connection with the server.
async fn pass_replies(
    replies: &Replies,
    mut from: Reader,
    to: &tokio::sync::Mutex<Writer>,
) -> Result<(), Ended> {
    let (mut bytes, mut passed) = (Vec::new(), Vec::new());
    loop {
        while let Some(message) = take(&mut bytes) {
            passed.extend_from_slice(&message.bytes);
            if message.kind != b'Z' {
                continue;
            }
            if let Some((fault, fired)) = replies.front() {
                match fault {
                    Fault::DelayReply(time) => sleep(time).await,
                    Fault::SwallowReply => {
                        replies.silent.store(true, Ordering::SeqCst);
                        fired.count();
                        return from.ignore().await;
                    }
                    _ => {
                        fired.count();
                        return Err(Ended);
                    }
                }
                fired.count();
            }
            replies.pop();
            to.lock().await.write(&std::mem::take(&mut passed)).await?;
        }
        // A reply that a fault waits for the end of is held back until then.
        if replies.front().is_none() && !passed.is_empty() {
            to.lock().await.write(&std::mem::take(&mut passed)).await?;
        }
        if !from.read(&mut bytes).await? {
            return Err(Ended);
        }
    }
}
