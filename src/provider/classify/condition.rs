//! What a call shows of the provider as a whole, whatever became of the redemption.

use std::time::Duration;

use super::{super::Answer, Proof};
use crate::domain::provider::{Condition, Health};

/// What an answer shows. `proof`: what it proves, where there is an answer.
pub(in crate::provider) fn condition(answer: &Answer, proof: Option<&Proof>) -> Condition {
    Condition { health: health(answer, proof), hold: hold(answer, proof) }
}

fn health(answer: &Answer, proof: Option<&Proof>) -> Health {
    let status = match answer {
        Answer::NeverSent(_) | Answer::Lost(_) => return Health::Failing,
        Answer::Unsendable(_) => return Health::Unknown,
        Answer::Http(http) => Some(http.status),
        Answer::Pages { pages, .. } => pages.last().map(|page| page.status),
    };
    match proof {
        // Everybody's calls are refused like this one.
        Some(
            Proof::NotExecuted { unauthorized: true, .. } | Proof::Busy { unauthorized: true, .. },
        ) => Health::Failing,
        // It asks for fewer calls, which is not to fail: the calls are held back instead.
        Some(Proof::NotExecuted { .. } | Proof::Busy { .. }) => Health::Unknown,
        Some(Proof::InDoubt { .. }) if status.is_none_or(|status| status >= 500) => Health::Failing,
        _ => Health::Working,
    }
}

fn hold(answer: &Answer, proof: Option<&Proof>) -> Option<Duration> {
    let asked = match proof {
        Some(Proof::NotExecuted { after, .. } | Proof::Busy { after, .. }) => *after,
        _ => None,
    };
    let used_up = match answer {
        Answer::Http(http) => http.quota_used_up,
        Answer::Pages { pages, .. } => pages.iter().filter_map(|page| page.quota_used_up).max(),
        _ => None,
    };
    asked.max(used_up)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::provider::HttpAnswer;

    fn http(status: u16) -> Answer {
        Answer::Http(HttpAnswer {
            status,
            retry_after: None,
            quota_used_up: None,
            first_on_connection: true,
            body: Bytes::new(),
        })
    }

    fn busy(unauthorized: bool, after: Option<Duration>) -> Proof {
        Proof::Busy { after, answer: String::new(), unauthorized }
    }

    #[test]
    fn what_would_meet_every_call_is_a_failure_of_the_provider() {
        let doubt = Proof::InDoubt { answer: String::new() };
        let health = |answer: &Answer, proof: &Proof| condition(answer, Some(proof)).health;
        assert_eq!(condition(&Answer::Lost(String::new()), None).health, Health::Failing);
        assert_eq!(condition(&Answer::NeverSent(String::new()), None).health, Health::Failing);
        assert_eq!(health(&http(500), &doubt), Health::Failing);
        assert_eq!(health(&http(503), &busy(false, None)), Health::Unknown);
        assert_eq!(health(&http(401), &busy(true, None)), Health::Failing);
        assert_eq!(health(&http(429), &busy(false, None)), Health::Unknown);
        assert_eq!(health(&http(200), &doubt), Health::Working, "odd, and it answers");
        let found = Proof::NotFound { answer: String::new() };
        assert_eq!(health(&http(500), &found), Health::Working, "the profile knows it");
    }

    #[test]
    fn the_longer_of_what_is_asked_for_holds_back_the_calls() {
        let second = Duration::from_secs(1);
        let Answer::Http(answer) = http(429) else { return };
        let used_up = Answer::Http(HttpAnswer { quota_used_up: Some(second * 9), ..answer });
        let hold = |answer: &Answer, proof: &Proof| condition(answer, Some(proof)).hold;
        assert_eq!(hold(&http(429), &busy(false, Some(second))), Some(second));
        assert_eq!(hold(&used_up, &busy(false, Some(second))), Some(second * 9));
        assert_eq!(hold(&http(429), &busy(false, None)), None);
    }
}
