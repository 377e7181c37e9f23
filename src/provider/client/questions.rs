//! Questions that change nothing: what a card is worth, what became of a redemption, and lists.

use time::OffsetDateTime;

use super::{MAX_BODY_BYTES, MAX_PAGE_BYTES, Provider};
use crate::{
    domain::{money::Currency, redemption::CardCode},
    provider::{
        Answer, HttpAnswer, Inquired,
        classify::{self, Secrets, Subject},
        http::Call as HttpCall,
        profile::{OpKind, Reading, Request, Unusable, Values},
        question::{About, CallError, Listed, Page},
    },
};

/// What look-ups are tried by, the surest first.
const LOOK_UPS: [OpKind; 2] = [OpKind::LookUp, OpKind::Find];

impl Provider {
    /// Asks what a card is worth. `currency` is that of a card for which the profile tells none.
    pub async fn inquire(&self, code: &CardCode, currency: Currency) -> Inquired {
        let (values, request) = match self.inquiry(code).await {
            Ok(prepared) => prepared,
            Err(why) => return Inquired::unanswered(&why, error_of(&why)),
        };
        // Nothing in the answer need say what it is to.
        let alone = self.0.profile.asks_alone(OpKind::Inquire);
        let call = HttpCall { request, max_bytes: MAX_BODY_BYTES, about: None, alone };
        let answer = self.0.http.call(call).await;
        match &answer {
            Answer::Http(http) => {
                classify::inquired(&self.0.profile, &values, code, currency, http)
            }
            _ => Inquired::unanswered(&answer, error_of(&answer)),
        }
    }

    /// The request of an inquiry, and what it was made of. The error: why nothing is sent.
    async fn inquiry(&self, code: &CardCode) -> Result<(Values, Request), Answer> {
        let means = self.means().await.map_err(Answer::NeverSent)?;
        let mut values = means.with(Values::at(OffsetDateTime::now_utc()));
        values.code = Some(code.expose().to_owned());
        let request = self.request(OpKind::Inquire, &values).map_err(Answer::Unsendable)?;
        Ok((values, request))
    }

    /// Reads a page of the redemptions that were completed from `from` until before `to`, both
    /// RFC 3339. `page` is what the page before told. `currency` is that of what tells none.
    pub async fn list(
        &self,
        (from, to): (&str, &str),
        page: Option<&str>,
        currency: Currency,
    ) -> Result<Page, CallError> {
        let mut values = self.question_values().await?;
        values.from = Some(from.to_owned());
        values.to = Some(to.to_owned());
        values.page = page.map(str::to_owned);
        let request = self.request(OpKind::List, &values).map_err(unsendable)?;
        // No answer to a list tells that it is one to this.
        let call = HttpCall { request, max_bytes: MAX_PAGE_BYTES, about: None, alone: true };
        let http = answered(self.0.http.call(call).await)?;
        let (redemptions, without_key) =
            classify::page(&self.0.profile, &values, currency, http.as_answered())?;
        let next = self.0.profile.next_page(OpKind::List, &http.body);
        let next = next.map_err(|why| CallError::Malformed(why.to_owned()))?;
        Ok(Page { redemptions, without_key, next })
    }

    /// The op that tells of a redemption without its code and without credentials of its account, where there is one.
    /// The error says what each that there is would need.
    pub fn looks_up_by(&self, about: &About) -> Result<OpKind, Vec<String>> {
        let mut values = self.values_about(about);
        values.token = Some(String::new());
        values.secrets = self.0.profile.secrets().into_iter().map(|it| (it, "1".into())).collect();
        let mut needed = Vec::new();
        for kind in LOOK_UPS.into_iter().filter(|kind| self.0.profile.has(*kind)) {
            match self.0.profile.lacks(Some(kind), &values) {
                none if none.is_empty() => return Ok(kind),
                some => needed.extend(some),
            }
        }
        needed.dedup();
        Err(needed)
    }

    /// Reads a redemption. `None`: the provider has never seen it.
    pub async fn ask_about(
        &self,
        kind: OpKind,
        about: &About,
        currency: Currency,
    ) -> Result<Option<Listed>, CallError> {
        let Some(op) = self.0.profile.op(kind) else {
            return Err(unsendable(Unusable::NoOp(kind.name())));
        };
        let asked = self.question_values().await?;
        let told = self.values_about(about);
        let values = Values { secrets: asked.secrets, token: asked.token, ..told };
        let request = self.request(kind, &values).map_err(unsendable)?;
        let alone = self.0.profile.asks_alone(kind);
        let key = values.key.clone().unwrap_or_default();
        let call = HttpCall { request, max_bytes: MAX_BODY_BYTES, about: Some(key.clone()), alone };
        let first = self.0.http.call(call).await;
        let answer = self.other_pages(kind, &key, Box::new(values.clone()), first).await;
        let (pages, is_whole) = match answer {
            Answer::Pages { pages, is_whole } => (pages, is_whole),
            other => (vec![answered(other)?], true),
        };
        let subject = Subject {
            key,
            task: about.task.clone(),
            account: about.account.clone(),
            currency,
            code: None,
            recorded_at: values.now,
            secrets: Secrets(values.secrets.values().cloned().collect()),
        };
        let is_alone = pages.iter().all(|page| page.first_on_connection);
        let answers: Vec<_> = pages.iter().map(HttpAnswer::as_answered).collect();
        let reading = Reading::of(op, &values, currency, &answers, is_whole);
        classify::looked_up(&self.0.profile, op, &reading, &subject, is_alone)
    }

    fn values_about(&self, about: &About) -> Values {
        let mut values = Values::at(OffsetDateTime::now_utc());
        values.key = Some(self.0.profile.identity.key.of(about.id));
        values.task.clone_from(&about.task);
        values.reference.clone_from(&about.reference);
        values.account.id = Some(about.account.clone());
        values.expected = about.expected;
        values
    }

    /// The secrets, the token and the time alone.
    async fn question_values(&self) -> Result<Values, CallError> {
        let means = self.means().await.map_err(CallError::NeverSent)?;
        Ok(means.with(Values::at(OffsetDateTime::now_utc())))
    }
}

fn unsendable(why: Unusable) -> CallError {
    error_of(&Answer::Unsendable(why))
}

/// The answer to a question that changes nothing, if there is one.
pub(super) fn answered(answer: Answer) -> Result<HttpAnswer, CallError> {
    match answer {
        Answer::Http(http) => Ok(http),
        none => Err(error_of(&none)),
    }
}

/// Why such a question has no single answer.
fn error_of(answer: &Answer) -> CallError {
    match answer {
        Answer::NeverSent(why) => CallError::NeverSent(why.clone()),
        Answer::Unsendable(why) => CallError::NeverSent(why.to_string()),
        Answer::Lost(why) => CallError::Lost(why.clone()),
        Answer::Http(_) | Answer::Pages { .. } => CallError::Lost("it came in pages".to_owned()),
    }
}
