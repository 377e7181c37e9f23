//! What became of one POST, and what it means.

use std::time::Duration;

/// What a receiver did with a POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answered with this status, and perhaps the time after which it wants to be asked again.
    Status(u16, Option<Duration>),
    /// There was no answer. Says why; never what the receiver has sent.
    None(String),
}

/// What it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Taken,
    /// The receiver wants nothing more, ever.
    Gone,
    /// It was not taken.
    Failed(Failed),
}

/// Why a delivery was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// In plain words.
    pub why: String,
    /// The receiver says that it takes nothing now.
    pub is_busy: bool,
    /// The receiver was not there: it says nothing about this outcome.
    pub is_away: bool,
    /// After which time it wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// Only 2xx is taken.
    pub fn verdict(self) -> Verdict {
        let (status, retry_after) = match self {
            Self::Status(200..=299, _) => return Verdict::Taken,
            Self::Status(410, _) => return Verdict::Gone,
            Self::Status(status, retry_after) => (status, retry_after),
            Self::None(why) => {
                let (is_busy, is_away) = (false, true);
                return Verdict::Failed(Failed { why, is_busy, is_away, retry_after: None });
            }
        };
        let is_away = matches!(status, 429 | 502 | 503 | 504);
        let is_busy = status == 429 || (status == 503 && retry_after.is_some());
        let why = match status {
            300..=399 => format!(
                "HTTP {status}: redirects are not followed, so give the subscription that URL"
            ),
            401 | 403 => format!(
                "HTTP {status}: it does not accept who sends; is its secret the subscription's?"
            ),
            404 => format!("HTTP {status}: it has nothing at this URL"),
            429 => format!("HTTP {status}: it takes no more for now"),
            502..=504 => format!("HTTP {status}: it is not there now"),
            500..=599 => format!("HTTP {status}: it has failed"),
            _ => format!("HTTP {status}: it does not take this"),
        };
        Verdict::Failed(Failed { why, is_busy, is_away, retry_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_is_taken_and_410_is_the_end() {
        for status in 100..=599 {
            let verdict = Answer::Status(status, None).verdict();
            match status {
                200..=299 => assert_eq!(verdict, Verdict::Taken),
                410 => assert_eq!(verdict, Verdict::Gone),
                _ => assert!(matches!(verdict, Verdict::Failed(_)), "{status}"),
            }
        }
    }

    #[test]
    fn a_receiver_that_is_busy_or_away_is_told_from_one_that_refuses() {
        let failed = |answer: Answer| match answer.verdict() {
            Verdict::Failed(failed) => (failed.is_busy, failed.is_away),
            other => panic!("{other:?}"),
        };
        let soon = Some(Duration::from_secs(7));
        assert_eq!(failed(Answer::Status(429, None)), (true, true));
        assert_eq!(failed(Answer::Status(503, soon)), (true, true));
        assert_eq!(failed(Answer::Status(503, None)), (false, true));
        assert_eq!(failed(Answer::Status(500, None)), (false, false));
        assert_eq!(failed(Answer::Status(302, None)), (false, false));
        assert_eq!(failed(Answer::None("x".into())), (false, true));
    }
}
