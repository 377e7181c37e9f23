//! Heard: what providers called about just now. However often a call is repeated, it is acted upon once in a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::id::{ProviderId, RedemptionId};

/// The most that calls may be about at once.
const MOST: usize = 10_000;

/// What a call is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct About {
    pub(super) provider_id: ProviderId,
    pub(super) by: By,
}

/// How a call names a redemption.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum By {
    Id(RedemptionId),
    /// A key that is shorter than the id.
    Key(String),
    /// The provider's id of its work.
    Task(String),
}

/// What calls were about, each with whether one more came since it was acted upon.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<HashMap<About, bool>>>);

/// What is to be done about a call.
pub(super) enum Noted {
    /// To act upon it: nobody else does.
    First(Round),
    /// Nothing: who acts upon an earlier one will act once more.
    Again,
    /// Nothing can be: there are too many.
    Full,
}

/// The right to act upon the calls about one thing, until it ends or is dropped.
pub(super) struct Round {
    heard: Heard,
    about: About,
    has_ended: bool,
}

impl Heard {
    pub(super) fn note(&self, about: &About) -> Noted {
        let mut heard = self.lock();
        if let Some(again) = heard.get_mut(about) {
            *again = true;
            return Noted::Again;
        }
        if heard.len() >= MOST {
            return Noted::Full;
        }
        heard.insert(about.clone(), false);
        Noted::First(Round { heard: self.clone(), about: about.clone(), has_ended: false })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<About, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    pub(super) fn about(&self) -> &About {
        &self.about
    }

    /// Acts once more, as if another call had come.
    pub(super) fn repeat(&self) {
        if let Some(again) = self.heard.lock().get_mut(&self.about) {
            *again = true;
        }
    }

    /// Whether to act once more, because a call came meanwhile. If not, the round has ended.
    pub(super) fn goes_on(&mut self) -> bool {
        let mut heard = self.heard.lock();
        if let Some(again @ true) = heard.get_mut(&self.about) {
            *again = false;
            return true;
        }
        heard.remove(&self.about);
        self.has_ended = true;
        false
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        if !self.has_ended {
            self.heard.lock().remove(&self.about);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(task: &str) -> About {
        let provider_id = ProviderId::parse("shop").unwrap();
        About { provider_id, by: By::Task(task.to_owned()) }
    }

    #[test]
    fn repeated_calls_are_acted_upon_once_more_and_no_further() {
        let heard = Heard::default();
        let Noted::First(mut round) = heard.note(&about("t")) else { panic!() };
        for _ in 0..1000 {
            assert!(matches!(heard.note(&about("t")), Noted::Again));
        }
        assert!(round.goes_on());
        round.repeat();
        assert!(round.goes_on());
        assert!(!round.goes_on());
        let Noted::First(other) = heard.note(&about("t")) else { panic!() };
        drop(round);
        assert!(matches!(heard.note(&about("t")), Noted::Again), "the other one's");
        drop(other);
        assert!(heard.lock().is_empty());
    }

    #[test]
    fn there_are_not_endlessly_many() {
        let heard = Heard::default();
        let rounds: Vec<_> = (0..MOST).map(|n| heard.note(&about(&n.to_string()))).collect();
        assert!(matches!(heard.note(&about("one more")), Noted::Full));
        drop(rounds);
        assert!(matches!(heard.note(&about("one more")), Noted::First(_)));
    }
}
