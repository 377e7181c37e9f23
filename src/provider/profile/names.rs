//! What templates can name, and where.

use crate::domain::credentials::is_name;

/// A name in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Name {
    Key,
    Code,
    AccountId,
    AccountCountry,
    AccountLabel(String),
    AccountSecret(String),
    ExpectedMinor,
    ExpectedMajor,
    ExpectedCurrency,
    NotAfter,
    Task,
    Ref,
    AmountMinor,
    AmountMajor,
    Page,
    From,
    To,
    NowEpoch,
    NowEpochMs,
    NowRfc3339,
    Nonce,
    Secret(String),
    Token,
    Signature,
    RequestMethod,
    RequestPath,
    RequestQuery,
    RequestBody,
    RequestHeader(String),
}

impl Name {
    /// Reads a name; `None` when nothing has it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let named = |prefix: &str| {
            let name = text.strip_prefix(prefix)?;
            is_name(name).then(|| name.to_owned())
        };
        Some(match text {
            "key" => Self::Key,
            "code" => Self::Code,
            "account.id" => Self::AccountId,
            "account.country" => Self::AccountCountry,
            "expected.minor" => Self::ExpectedMinor,
            "expected.major" => Self::ExpectedMajor,
            "expected.currency" => Self::ExpectedCurrency,
            "not_after" => Self::NotAfter,
            "task" => Self::Task,
            "ref" => Self::Ref,
            "amount.minor" => Self::AmountMinor,
            "amount.major" => Self::AmountMajor,
            "page" => Self::Page,
            "from" => Self::From,
            "to" => Self::To,
            "now.epoch" => Self::NowEpoch,
            "now.epoch_ms" => Self::NowEpochMs,
            "now.rfc3339" => Self::NowRfc3339,
            "nonce" => Self::Nonce,
            "token" => Self::Token,
            "signature" => Self::Signature,
            "request.method" => Self::RequestMethod,
            "request.path" => Self::RequestPath,
            "request.query" => Self::RequestQuery,
            "request.body" => Self::RequestBody,
            _ => {
                return [
                    named("account.labels.").map(Self::AccountLabel),
                    named("account.secret.").map(Self::AccountSecret),
                    named("secret.").map(Self::Secret),
                    named("request.header.")
                        .map(|name| Self::RequestHeader(name.to_ascii_lowercase())),
                ]
                .into_iter()
                .flatten()
                .next();
            }
        })
    }

    /// Whether it is something of an account beside its id.
    pub(super) fn is_account_fact(&self) -> bool {
        matches!(self, Self::AccountCountry | Self::AccountLabel(_) | Self::AccountSecret(_))
    }

    /// As templates write it.
    pub(in crate::provider) fn text(&self) -> String {
        let fixed = match self {
            Self::AccountLabel(name) => return format!("account.labels.{name}"),
            Self::AccountSecret(name) => return format!("account.secret.{name}"),
            Self::Secret(name) => return format!("secret.{name}"),
            Self::RequestHeader(name) => return format!("request.header.{name}"),
            Self::Key => "key",
            Self::Code => "code",
            Self::AccountId => "account.id",
            Self::AccountCountry => "account.country",
            Self::ExpectedMinor => "expected.minor",
            Self::ExpectedMajor => "expected.major",
            Self::ExpectedCurrency => "expected.currency",
            Self::NotAfter => "not_after",
            Self::Task => "task",
            Self::Ref => "ref",
            Self::AmountMinor => "amount.minor",
            Self::AmountMajor => "amount.major",
            Self::Page => "page",
            Self::From => "from",
            Self::To => "to",
            Self::NowEpoch => "now.epoch",
            Self::NowEpochMs => "now.epoch_ms",
            Self::NowRfc3339 => "now.rfc3339",
            Self::Nonce => "nonce",
            Self::Token => "token",
            Self::Signature => "signature",
            Self::RequestMethod => "request.method",
            Self::RequestPath => "request.path",
            Self::RequestQuery => "request.query",
            Self::RequestBody => "request.body",
        };
        fixed.to_owned()
    }

    /// Whether only auth has it.
    pub(super) fn is_of_auth(&self) -> bool {
        matches!(self, Self::Token | Self::Signature) || self.is_of_request()
    }

    /// Whether it is a part of the request that is being made.
    pub(super) fn is_of_request(&self) -> bool {
        matches!(
            self,
            Self::RequestMethod
                | Self::RequestPath
                | Self::RequestQuery
                | Self::RequestBody
                | Self::RequestHeader(_)
        )
    }
}

/// What a profile can ask a provider to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpKind {
    /// Redeem a card.
    Send,
    /// Tell what became of a redemption, by the provider's id of its work or by our key.
    LookUp,
    /// The same, by our key, by the code or by a search.
    Find,
    /// Refuse the key, now and later.
    Cancel,
    /// Take a success back.
    Reverse,
    /// Tell what a card is worth.
    Inquire,
    /// List what was redeemed in a time.
    List,
}

impl OpKind {
    /// Each, by its name in a file.
    pub(in crate::provider) const ALL: [(&'static str, Self); 7] = [
        ("send", Self::Send),
        ("look_up", Self::LookUp),
        ("find", Self::Find),
        ("cancel", Self::Cancel),
        ("reverse", Self::Reverse),
        ("inquire", Self::Inquire),
        ("list", Self::List),
    ];

    /// Its name in a file.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// Where a template stands, which decides what it can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Headers of every request.
    Every,
    /// A request, or what its answer is compared with.
    Op(OpKind),
    /// What proves who asks.
    Auth,
    /// The request for a token.
    TokenRequest,
    /// How a token is written.
    TokenFormat,
    /// What is signed.
    Signed,
    /// How a signature is written.
    SignatureFormat,
    /// A webhook's signature.
    Webhook,
    /// How a webhook writes its signature.
    WebhookFormat,
    /// A recorded answer.
    Case,
}

impl Scope {
    /// Whether the name has a value there, at times.
    pub(super) fn has(self, name: &Name) -> bool {
        let is_time =
            matches!(name, Name::NowEpoch | Name::NowEpochMs | Name::NowRfc3339 | Name::Nonce);
        let is_common = is_time || matches!(name, Name::Secret(_));
        match self {
            Self::Every => !name.is_of_auth(),
            Self::Auth => !matches!(name, Name::Token | Name::Signature),
            Self::Op(kind) => is_common || kind.has(name),
            Self::TokenRequest => is_common,
            Self::TokenFormat => is_common || *name == Name::Token,
            Self::Signed => *name != Name::Signature,
            Self::SignatureFormat => true,
            Self::Webhook => name.is_of_request() || matches!(name, Name::Secret(_)),
            Self::WebhookFormat => *name == Name::Signature || Self::Webhook.has(name),
            Self::Case => !name.is_of_auth() && !matches!(name, Name::Secret(_)),
        }
    }
}

impl OpKind {
    fn has(self, name: &Name) -> bool {
        match name {
            Name::Key => self != Self::List,
            Name::Code => self != Self::List,
            Name::AccountId
            | Name::AccountCountry
            | Name::AccountLabel(_)
            | Name::AccountSecret(_)
            | Name::ExpectedMinor
            | Name::ExpectedMajor
            | Name::ExpectedCurrency
            | Name::NotAfter => !matches!(self, Self::List | Self::Inquire),
            Name::Task | Name::Ref => {
                matches!(self, Self::LookUp | Self::Find | Self::Cancel | Self::Reverse)
            }
            Name::AmountMinor | Name::AmountMajor => self == Self::Reverse,
            Name::Page => matches!(self, Self::LookUp | Self::Find | Self::Inquire | Self::List),
            Name::From | Name::To => self == Self::List,
            _ => false,
        }
    }
}
