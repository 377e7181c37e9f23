//! The token that a provider gives for a client's credentials: fetched once, by one caller at a time, and used until it
//! expires or is refused.

use std::time::Duration;

use tokio::{sync::Mutex, time::Instant};

/// How long before its end a token is fetched anew at the latest, so that none ends on its way.
const EARLY: Duration = Duration::from_secs(30);

/// The token of one provider. No `Debug`: it is a secret.
#[derive(Default)]
pub(super) struct Tokens(Mutex<Option<Token>>);

struct Token {
    text: String,
    /// `None`: the provider did not say how long it lasts.
    good_until: Option<Instant>,
}

impl Token {
    fn new(text: String, lasts: Option<Duration>) -> Self {
        let good_until = lasts.map(|lasts| Instant::now() + lasts - EARLY.min(lasts / 10));
        Self { text, good_until }
    }

    fn is_good(&self) -> bool {
        self.good_until.is_none_or(|until| Instant::now() < until)
    }
}

impl Tokens {
    /// The token, or a new one by `fetch`, which answers with its text and how long it lasts. `refused` is one that is
    /// not to be used any more. Whoever asks meanwhile waits for the same fetch.
    pub(super) async fn get<F>(
        &self,
        refused: Option<&str>,
        fetch: impl FnOnce() -> F,
    ) -> Result<String, String>
    where
        F: Future<Output = Result<(String, Option<Duration>), String>>,
    {
        let mut kept = self.0.lock().await;
        let good = kept.as_ref().filter(|token| token.is_good());
        if let Some(token) = good.filter(|token| Some(token.text.as_str()) != refused) {
            return Ok(token.text.clone());
        }
        let (text, lasts) = fetch().await?;
        *kept = Some(Token::new(text.clone(), lasts));
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_token_is_fetched_once_until_it_is_refused() {
        let tokens = Tokens::default();
        let fetched = AtomicU32::new(0);
        let fetch = || async {
            // So that two who ask at once would both fetch.
            tokio::task::yield_now().await;
            let number = fetched.fetch_add(1, Ordering::SeqCst);
            Ok((format!("token {number}"), Some(Duration::from_secs(600))))
        };
        let (one, other) = tokio::join!(tokens.get(None, fetch), tokens.get(None, fetch));
        assert_eq!((one.as_deref(), other.as_deref()), (Ok("token 0"), Ok("token 0")));
        let refused = Some("token 0");
        let both = tokio::join!(tokens.get(refused, fetch), tokens.get(refused, fetch));
        assert_eq!(both, (Ok("token 1".to_owned()), Ok("token 1".to_owned())));
    }

    #[tokio::test]
    async fn a_token_that_has_ended_is_fetched_anew() {
        let tokens = Tokens::default();
        let ended = || async { Ok(("first".to_owned(), Some(Duration::ZERO))) };
        assert_eq!(tokens.get(None, ended).await.as_deref(), Ok("first"));
        let next = || async { Ok(("second".to_owned(), None)) };
        assert_eq!(tokens.get(None, next).await.as_deref(), Ok("second"));
        let unused = || async { Ok(("third".to_owned(), None)) };
        assert_eq!(tokens.get(None, unused).await.as_deref(), Ok("second"));
        let long = Token::new("long".to_owned(), Some(Duration::from_secs(600)));
        let left = long.good_until.unwrap().duration_since(Instant::now());
        assert!(left <= Duration::from_secs(570), "{left:?}");
    }

    #[tokio::test]
    async fn a_fetch_that_fails_is_tried_anew_by_the_next() {
        let tokens = Tokens::default();
        let fails = || async { Err("HTTP 500".to_owned()) };
        assert!(tokens.get(None, fails).await.is_err());
        let succeeds = || async { Ok(("token".to_owned(), None)) };
        assert_eq!(tokens.get(None, succeeds).await.as_deref(), Ok("token"));
    }
}
