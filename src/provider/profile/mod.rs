//! Profiles: how one provider is asked, and how its answers are read, as a file says it.
//!
//! Pure: a profile renders requests and reads answers, without HTTP or SQL. What a read answer *proves* is for
//! `classify` to say, and no profile can weaken that. The format is described in `docs/providers.md`.

mod auth;
mod capabilities;
mod case;
mod checks;
mod hidden;
mod keys;
mod money;
mod names;
mod op;
mod pages;
mod pointer;
mod reading;
mod request;
mod rule;
mod settings;
mod source;
mod template;
mod tree;
mod values;
mod web;
mod webhook;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use toml::de::DeTable;

use self::{
    auth::{Auth, read_auth},
    case::read_currency,
    names::Name,
    op::read_ops,
    settings::fit_times,
    source::{Faults, Table},
};
use crate::domain::{id::ProviderId, money::Currency, provider::ProfileVersion, redemption::Dedup};

pub(in crate::provider) use self::{
    case::Case,
    op::Op,
    reading::Reading,
    rule::{Then, is_partial},
};
pub use self::{
    hidden::Shown,
    keys::{KeyKind, KeyOf},
    names::OpKind,
    pages::MAX_PAGES,
    reading::Answered,
    request::Request,
    settings::{Brake, HttpSettings, Identity, Limits, Quota, QuotaUnit, Times},
    source::Fault,
    template::Unusable,
    values::{AccountValues, Values},
    webhook::{Forged, Webhook},
};

/// The built-in profile: Holdfast's own contract.
pub const BUILT_IN: &str = include_str!("../../../profiles/holdfast.toml");

/// The longest file.
const MAX_BYTES: usize = 256 * 1024;

/// A profile, whole and checked.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What pools name.
    pub id: ProviderId,
    /// A changed profile is a new version.
    pub version: i32,
    /// Which currencies pools may have; empty is any.
    pub currencies: Vec<Currency>,
    /// Where and how requests are sent.
    pub http: HttpSettings,
    pub(in crate::provider) auth: Vec<Auth>,
    /// How a redemption is named.
    pub identity: Identity,
    /// How long things take.
    pub times: Times,
    /// What the provider bears.
    pub limits: Limits,
    pub(in crate::provider) ops: BTreeMap<OpKind, Op>,
    /// Calls of the provider.
    pub webhook: Option<Webhook>,
    pub(in crate::provider) cases: Vec<Case>,
}

impl Profile {
    /// Reads a new file, or says all that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        Self::parse_file(text, true)
    }

    /// Reads a file that was applied. What can be read is taken, although a new file with it would be refused:
    /// redemptions are pinned to it.
    pub fn parse_applied(text: &str) -> Result<Self, Vec<Fault>> {
        Self::parse_file(text, false)
    }

    fn parse_file(text: &str, is_new: bool) -> Result<Self, Vec<Fault>> {
        let fault = |line, message: &str| Err(vec![Fault { line, message: message.to_owned() }]);
        if text.len() > MAX_BYTES {
            return fault(1, "the file is longer than 256 KiB");
        }
        // Editors write carriage returns on some systems; TOML takes them.
        let faults = Faults::new(text);
        let (map, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().unwrap_or(0..0);
            faults.add(&at, format!("not TOML: {}", error.message()));
        }
        if !errors.is_empty() {
            return Err(faults.into_vec(is_new));
        }
        let profile = Self::read(&Table::root(&faults, map.get_ref()));
        let found = faults.into_vec(is_new);
        match profile {
            Some(profile) if found.is_empty() => Ok(profile),
            _ if found.is_empty() => fault(1, "it cannot be read"),
            _ => Err(found),
        }
    }

    /// The built-in profile.
    pub fn built_in() -> &'static Self {
        static BUILT_IN_PROFILE: LazyLock<Profile> =
            LazyLock::new(|| match Profile::parse(BUILT_IN) {
                Ok(profile) => profile,
                // A test reads it.
                Err(faults) => unreachable!("the built-in profile: {faults:?}"),
            });
        &BUILT_IN_PROFILE
    }

    /// Proves who asks by a bearer token, which is the secret of this name.
    pub(in crate::provider) fn prove_by_bearer(&mut self, secret: &str) {
        self.auth = vec![Auth::bearer(secret)];
    }

    /// Leaves an op out: the provider does not have it.
    pub(in crate::provider) fn remove(&mut self, kind: OpKind) {
        self.ops.remove(&kind);
    }

    fn read(root: &Table<'_>) -> Option<Self> {
        let id = root.need("id").and_then(|id| {
            let parsed = ProviderId::parse(id.text()?);
            if let Err(rule) = &parsed {
                id.fault(rule.0);
            }
            parsed.ok()
        });
        let version =
            root.need("version").and_then(|version| version.whole(1, i64::from(i32::MAX)));
        let version = version.and_then(|version| i32::try_from(version).ok());
        let currencies = root.get("currencies").map_or(Some(Vec::new()), |currencies| {
            let currencies: Vec<_> = currencies.list()?.iter().map(read_currency).collect();
            currencies.into_iter().collect()
        });
        let http_table = root.need("http").and_then(|http| http.table());
        let mut http = http_table.as_ref().and_then(HttpSettings::read);
        let auth = read_auth(root, http.as_ref().is_some_and(|http| http.allow_plain));
        let identity = root.need("identity").and_then(|table| Identity::read(&table.table()?));
        let times_table = root.need("times").and_then(|times| times.table());
        let mut times = times_table.as_ref().and_then(Times::read);
        if let (Some(http_table), Some(http)) = (&http_table, &mut http)
            && let (Some(times_table), Some(times)) = (&times_table, &mut times)
        {
            fit_times((http_table, http), (times_table, times));
        }
        let limits = root.get("limits").and_then(|limits| limits.table());
        let limits = limits.map(|table| Limits::read(&table)).unwrap_or_default();
        let ops = root.need("op").and_then(|ops| ops.table()).map(|ops| read_ops(&ops));
        let webhook = root.get("webhook").and_then(|webhook| Webhook::read(&webhook.table()?));
        let cases = root.get("case").and_then(|cases| cases.list()).unwrap_or_default();
        let cases: Vec<_> = cases.iter().filter_map(Case::read).collect();
        root.finish();
        if let Some(ops) = &ops {
            checks::check_ops(ops, root.faults);
            checks::check_cases(&cases, ops, root.faults);
        }
        let profile = Self {
            id: id?,
            version: version?,
            currencies: currencies?,
            http: http?,
            auth,
            identity: identity?,
            times: times?,
            limits,
            ops: ops?,
            webhook,
            cases,
        };
        checks::check_send(&profile, root.faults);
        Some(profile)
    }

    /// Whether the provider's pools may have this currency.
    pub fn takes(&self, currency: Currency) -> bool {
        self.currencies.is_empty() || self.currencies.contains(&currency)
    }

    /// What redemptions are pinned to.
    pub fn pinned(&self) -> ProfileVersion {
        ProfileVersion { provider_id: self.id.clone(), version: self.version }
    }

    pub(in crate::provider) fn op(&self, kind: OpKind) -> Option<&Op> {
        self.ops.get(&kind)
    }

    /// The labels and credentials of accounts that it names, as templates write them.
    pub fn account_names(&self) -> BTreeSet<String> {
        let ops = self.ops.values().flat_map(Op::all_names);
        let cases = self.cases.iter().flat_map(|case| case.body.names());
        let auth = self.auth.iter().flat_map(Auth::names);
        let names = ops.chain(cases).chain(auth);
        let named =
            names.filter(|name| matches!(name, Name::AccountLabel(_) | Name::AccountSecret(_)));
        named.map(Name::text).collect()
    }

    /// Whether its requests or rules name anything of an account beside its id.
    pub fn names_account_facts(&self) -> bool {
        let ops = self.ops.values().flat_map(Op::all_names);
        let auth = self.auth.iter().flat_map(Auth::names);
        ops.chain(auth).any(Name::is_account_fact)
    }

    /// How many recorded answers it has.
    pub fn case_count(&self) -> usize {
        self.cases.len()
    }

    /// What it can ask the provider for, by its name in the file.
    pub fn operations(&self) -> Vec<&'static str> {
        self.ops.keys().map(|kind| kind.name()).collect()
    }

    /// Whether its list tells what was credited, also where pools of several currencies share it.
    pub fn lists_amounts(&self, in_several_currencies: bool) -> bool {
        self.op(OpKind::List).is_some_and(|op| {
            let is_told = !matches!(op.take.amount, Some(op::Amount::Expected));
            is_told && (!in_several_currencies || op.take.has("currency"))
        })
    }

    /// The op of this name in a file, where the profile has it.
    pub fn op_named(&self, name: &str) -> Option<OpKind> {
        self.ops.keys().find(|kind| kind.name() == name).copied()
    }

    /// Whether it can ask the provider for this.
    pub fn has(&self, kind: OpKind) -> bool {
        self.ops.contains_key(&kind)
    }

    /// The secrets that it names, which are files beside the server.
    pub fn secrets(&self) -> BTreeSet<String> {
        let ops = self.ops.values().flat_map(Op::all_names);
        let auth = self.auth.iter().flat_map(Auth::names);
        let every = self.http.headers.iter().flat_map(|(_, leaf)| leaf.names());
        let hook = self.webhook.iter().flat_map(Webhook::secrets);
        let names = ops.chain(auth).chain(every).filter_map(|name| match name {
            Name::Secret(name) => Some(name.clone()),
            _ => None,
        });
        names.chain(hook).collect()
    }

    /// Whether a person can ask for an op: without the card's code, which is wiped by then.
    pub fn works_without_code(&self, kind: OpKind) -> bool {
        self.op(kind).is_some_and(|op| !op.needs_code())
    }

    /// Whether an op is asked on a connection of its own. An answer that may be to another request proves nothing, and
    /// few providers tell a question why they refused a send. Where one does, a refusal without the key is looked up at
    /// once, and sends share connections.
    pub fn asks_alone(&self, kind: OpKind) -> bool {
        let Some(op) = self.op(kind) else { return false };
        if kind != OpKind::Send || self.identity.dedup != Dedup::Replay {
            return kind == OpKind::Send || op.needs_own_connection();
        }
        let mut questions = [OpKind::LookUp, OpKind::Find].into_iter().filter_map(|it| self.op(it));
        let is_recovered = self.has(OpKind::LookUp) || self.has(OpKind::Find);
        let tells_refusals = questions.any(|question| question.tells_refusals);
        !tells_refusals && (op.needs_own_connection() || !is_recovered)
    }
}

#[cfg(test)]
mod tests;
