//! Pages: answers that come in parts.

use url::Url;

use super::{
    super::json::{Contradiction, Json},
    Profile,
    names::OpKind,
};

/// The most pages of one answer.
pub const MAX_PAGES: usize = 100;

impl Profile {
    /// Whether the answers of an op come in pages.
    pub fn has_pages(&self, kind: OpKind) -> bool {
        self.op(kind).is_some_and(|op| op.pages.is_some())
    }

    /// Whether a body may be a page.
    pub fn is_page(body: &[u8]) -> bool {
        Json::read(body).is_ok()
    }

    /// What the page after this one is asked with; `None` where it is the last. The error says why that
    /// cannot be told.
    pub fn next_page(&self, kind: OpKind, body: &[u8]) -> Result<Option<String>, &'static str> {
        let Some(pages) = self.op(kind).and_then(|op| op.pages.as_ref()) else { return Ok(None) };
        let body = Json::read(body)?;
        let next = match pages.next.get(&body, None) {
            Err(Contradiction) => return Err("the next page is told twice"),
            Ok(None) => return Ok(None),
            Ok(Some(Json::Text(text))) => text.clone(),
            Ok(Some(Json::Number(number))) => number.as_str().to_owned(),
            Ok(Some(Json::Bool(false))) => return Ok(None),
            Ok(Some(_)) => return Err("the next page is not told by a text"),
        };
        if next.is_empty() {
            return Ok(None);
        }
        let Some(param) = &pages.param else { return Ok(Some(next)) };
        // Only to read a parameter: it is never followed.
        let base = Url::parse("http://localhost/").map_err(|_| "there is no base")?;
        let url = base.join(&next).map_err(|_| "the next page is not told by a URL")?;
        let value =
            url.query_pairs().find(|(name, _)| name == param).map(|(_, value)| value.into_owned());
        value
            .filter(|value| !value.is_empty())
            .map(Some)
            .ok_or("the next page's URL lacks its parameter")
    }
}
