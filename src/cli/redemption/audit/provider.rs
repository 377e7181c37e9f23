//! The provider's records of the redemptions: its list, or its ledger in a file, and what it answers
//! about one of them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::Context as _;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{
    Window,
    compare::{Names, Record, State},
    progress::Progress,
};
use crate::{
    cli::shared::output::note,
    domain::{id::RedemptionId, money::Currency},
    provider::{
        CallError, Provider,
        profile::{KeyKind, OpKind},
        question::{About, Listed, Said},
    },
};

/// The most redemptions of the provider's that are held at once, at about 250 bytes each.
const MAX_HELD: usize = 4_000_000;
/// How often the provider is asked the same before the audit fails: asking changes nothing there.
const TRIES: u32 = 5;
/// How long to wait before the second try; twice as long before each one after it.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest that a busy provider is waited for before it is asked again.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// What the provider has, by our keys.
#[derive(Debug)]
pub(in crate::cli) struct Theirs {
    kind: KeyKind,
    held: HashMap<Box<str>, Held>,
    /// Further records of a key that the provider credited, where they differ from the first.
    twice: BTreeMap<Box<str>, Vec<Record>>,
    /// Redemptions under keys that are none of ours.
    foreign: BTreeMap<String, Record>,
}

#[derive(Debug)]
struct Held {
    record: Record,
    /// Completed in the time that the audit is about; otherwise it is there to be looked up.
    inside: bool,
}

impl Theirs {
    /// None, yet. The provider has our keys written so.
    pub(in crate::cli) fn new(kind: KeyKind) -> Self {
        Self { kind, held: HashMap::new(), twice: BTreeMap::new(), foreign: BTreeMap::new() }
    }

    /// Adds a record. A later one of the same key replaces an earlier one, unless both say that the
    /// card was credited, and differ.
    pub(in crate::cli) fn add(
        &mut self,
        key: &str,
        record: Record,
        inside: bool,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.held.len() + self.foreign.len() < MAX_HELD,
            "the provider has more than {MAX_HELD} redemptions of that time: audit a shorter one"
        );
        let Some(key) = self.kind.normal(key) else {
            if inside {
                self.foreign.insert(key.to_owned(), record);
            }
            return Ok(());
        };
        let key = key.into_boxed_str();
        let is_credit = |record: &Record| record.state == State::Succeeded;
        match self.held.get(&key) {
            Some(first) if is_credit(&first.record) && is_credit(&record) => {
                if first.record != record {
                    self.twice.entry(key).or_default().push(record);
                }
            }
            // A later refusal of the same key does not take a credit back, and a reversal does.
            Some(first) if is_credit(&first.record) && record.state != State::Cancelled => {}
            _ => {
                self.held.insert(key, Held { record, inside });
            }
        }
        Ok(())
    }

    /// How many redemptions there are.
    pub(in crate::cli) fn len(&self) -> usize {
        self.held.len() + self.foreign.len()
    }

    /// Takes what there is of a redemption of ours.
    pub(in crate::cli) fn take(&mut self, id: Uuid) -> Option<Record> {
        let key = self.key_of(id);
        self.take_key(&key)
    }

    /// Takes what there is of a key.
    pub(in crate::cli) fn take_key(&mut self, key: &str) -> Option<Record> {
        self.held.remove(key).map(|held| held.record)
    }

    /// Takes the further records of a redemption of ours.
    pub(in crate::cli) fn take_twice(&mut self, id: Uuid) -> Vec<Record> {
        let key = self.key_of(id);
        self.take_twice_of_key(&key)
    }

    /// Takes the further records of a key.
    pub(in crate::cli) fn take_twice_of_key(&mut self, key: &str) -> Vec<Record> {
        self.twice.remove(key).unwrap_or_default()
    }

    fn key_of(&self, id: Uuid) -> String {
        let key = self.kind.of(RedemptionId(id));
        self.kind.normal(&key).unwrap_or(key)
    }

    /// The keys that were completed in the audit's time and have not been taken, in order, each with the redemption
    /// of ours that it may be, where a key tells that.
    pub(in crate::cli) fn rest(&self) -> Vec<(Box<str>, Option<Uuid>)> {
        let inside = self.held.iter().filter(|(_, held)| held.inside);
        let mut keys: Vec<_> = inside
            .map(|(key, _)| (key.clone(), self.kind.id_of(key).map(|RedemptionId(id)| id)))
            .collect();
        keys.sort_unstable();
        keys
    }

    /// Whether a redemption of ours follows from each key.
    pub(in crate::cli) fn tells_ids(&self) -> bool {
        matches!(self.kind, KeyKind::Uuid | KeyKind::Hex(32..))
    }

    /// All of it by key, where nothing else is expected than one record of every key of ours.
    pub(in crate::cli) fn plain(self) -> anyhow::Result<BTreeMap<Uuid, Record>> {
        anyhow::ensure!(self.twice.is_empty(), "the provider credited a key twice");
        anyhow::ensure!(
            self.foreign.is_empty(),
            "the provider has a redemption under a key that this server did not make"
        );
        let kind = self.kind;
        let by_id = self.held.into_iter().map(|(key, held)| {
            let RedemptionId(id) = kind.id_of(&key).context("a key tells no redemption")?;
            Ok((id, held.record))
        });
        by_id.collect()
    }

    /// The redemptions under keys that are none of ours.
    pub(in crate::cli) fn foreign(&self) -> impl Iterator<Item = (&str, &Record)> {
        self.foreign.iter().map(|(key, record)| (key.as_str(), record))
    }
}

/// A record as the provider tells it.
pub(super) fn read_listed(listed: &Listed, names: &mut Names) -> Record {
    let state = match listed.said {
        Said::Succeeded => State::Succeeded,
        Said::Failed => State::Failed,
        Said::Cancelled => State::Cancelled,
        Said::Processing => State::Processing,
        Said::Unknown => State::Unknown,
    };
    Record {
        state,
        account: names.share(listed.account_ref.as_deref().unwrap_or_default()),
        amount_minor: listed.amount_minor,
        currency_code: names.share(listed.currency_code.as_deref().unwrap_or_default()),
        provider_ref: listed.provider_ref.as_deref().map(Into::into),
    }
}

/// Reads all that the provider completed in the window. `currency` is that of what tells none.
pub(in crate::cli) async fn read_list(
    provider: &Provider,
    window: Window,
    currency: Currency,
    names: &mut Names,
    progress: &mut Progress,
) -> anyhow::Result<Theirs> {
    let (from, to) = (window.from.format(&Rfc3339)?, window.to.format(&Rfc3339)?);
    let mut theirs = Theirs::new(provider.profile().identity.key);
    let mut next: Option<String> = None;
    let mut without_key = 0;
    loop {
        let ask = async || provider.list((&from, &to), next.as_deref(), currency).await;
        let page = patiently(PAUSE, ask).await.context("the provider's list cannot be read")?;
        without_key += page.without_key;
        for listed in &page.redemptions {
            let record = read_listed(listed, names);
            // Where a time is told, a list may be longer than what was asked for.
            let in_time = listed.at.is_none_or(|at| window.from <= at && at < window.to);
            let inside = in_time && record.state != State::Processing;
            theirs.add(&listed.key, record, inside)?;
        }
        progress.show(format_args!("the provider's list: {} redemptions", theirs.len()));
        match page.next {
            None => break,
            Some(same) if Some(&same) == next.as_ref() => {
                anyhow::bail!("the provider's list does not end: a page is followed by itself")
            }
            some => next = some,
        }
    }
    if without_key > 0 {
        note(format_args!(
            "{without_key} redemptions of the provider's list tell no key, and are none of ours"
        ));
    }
    Ok(theirs)
}

/// Asks the provider about a redemption; `None`: it has never seen it.
pub(super) async fn look_up(
    provider: &Provider,
    kind: OpKind,
    about: &About,
    currency: Currency,
) -> anyhow::Result<Option<Listed>> {
    patiently(PAUSE, async || provider.ask_about(kind, about, currency).await)
        .await
        .with_context(|| format!("the provider cannot be asked about {}", about.id))
}

/// Asks until there is an answer, a few times.
async fn patiently<T>(
    mut pause: Duration,
    ask: impl AsyncFn() -> Result<T, CallError>,
) -> Result<T, CallError> {
    for _ in 1..TRIES {
        match ask().await {
            Err(CallError::Status(status)) if status < 500 && status != 429 => {
                return Err(CallError::Status(status));
            }
            // What the provider asks for is the least, as far as somebody who watches is patient.
            Err(CallError::Busy { after, .. }) => {
                tokio::time::sleep(pause.max(after.unwrap_or_default().min(MAX_PAUSE))).await;
            }
            Err(_) => tokio::time::sleep(pause).await,
            answered => return answered,
        }
        pause *= 2;
    }
    ask().await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn record(state: State, provider_ref: &str) -> Record {
        Record {
            state,
            account: "a".into(),
            amount_minor: Some(5),
            currency_code: "EUR".into(),
            provider_ref: Some(provider_ref.into()),
        }
    }

    #[test]
    fn the_last_word_about_a_key_counts() {
        let mut theirs = Theirs::new(KeyKind::Uuid);
        let key = Uuid::now_v7();
        theirs.add(&key.to_string(), record(State::Processing, "1"), false).unwrap();
        assert!(theirs.rest().is_empty());
        theirs.add(&key.to_string().to_uppercase(), record(State::Succeeded, "1"), true).unwrap();
        let rest = vec![(key.to_string().into_boxed_str(), Some(key))];
        assert_eq!((theirs.rest(), theirs.len()), (rest, 1));
        assert_eq!(theirs.take_twice(key), []);
        assert_eq!(theirs.take(key), Some(record(State::Succeeded, "1")));
        assert!(theirs.rest().is_empty() && theirs.take(key).is_none());
    }

    #[test]
    fn a_key_that_was_credited_twice_is_found_and_one_that_is_listed_twice_is_not() {
        let mut theirs = Theirs::new(KeyKind::Uuid);
        let key = Uuid::now_v7();
        for provider_ref in ["1", "1", "2"] {
            theirs.add(&key.to_string(), record(State::Succeeded, provider_ref), true).unwrap();
        }
        assert_eq!(theirs.take_twice(key), [record(State::Succeeded, "2")]);
        assert_eq!(theirs.take(key), Some(record(State::Succeeded, "1")));
    }

    #[test]
    fn a_credit_that_was_taken_back_is_none_and_one_that_was_refused_again_is() {
        for (later, kept) in
            [(State::Cancelled, State::Cancelled), (State::Failed, State::Succeeded)]
        {
            let mut theirs = Theirs::new(KeyKind::Uuid);
            let key = Uuid::now_v7();
            theirs.add(&key.to_string(), record(State::Succeeded, "1"), true).unwrap();
            theirs.add(&key.to_string(), record(later, "1"), true).unwrap();
            assert_eq!(theirs.take(key).map(|record| record.state), Some(kept));
        }
    }

    #[test]
    fn a_key_that_is_none_of_ours_is_kept_apart() {
        let mut theirs = Theirs::new(KeyKind::Uuid);
        theirs.add("not ours", record(State::Failed, "1"), true).unwrap();
        theirs.add("of another day", record(State::Failed, "1"), false).unwrap();
        let found: Vec<_> = theirs.foreign().map(|(key, _)| key).collect();
        assert_eq!((found, theirs.rest()), (vec!["not ours"], vec![]));
        assert!(theirs.plain().is_err());
    }

    #[tokio::test]
    async fn a_provider_that_stumbles_is_asked_again_and_one_that_refuses_is_not() {
        let asked = Cell::new(0);
        let lost = || CallError::Lost("reset".into());
        let answer = patiently(Duration::ZERO, async || {
            asked.set(asked.get() + 1);
            if asked.get() < TRIES { Err(lost()) } else { Ok(7) }
        });
        assert_eq!((answer.await, asked.get()), (Ok(7), TRIES));
        asked.set(0);
        let answer = patiently(Duration::ZERO, async || {
            asked.set(asked.get() + 1);
            Err::<(), _>(CallError::Status(401))
        });
        assert_eq!((answer.await, asked.get()), (Err(CallError::Status(401)), 1));
        asked.set(0);
        let answer = patiently(Duration::ZERO, async || {
            asked.set(asked.get() + 1);
            Err::<(), _>(lost())
        });
        assert_eq!((answer.await, asked.get()), (Err(lost()), TRIES));
    }
}
