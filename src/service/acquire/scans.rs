//! The scan cursors of a pool, for each criteria.

use std::collections::HashMap;

use super::wait_queue::Criteria;
use crate::store::scan::{Freed, ScanCursors};

/// The most criteria with cursors.
const MAX_CRITERIA: usize = 64;

/// See [the module](self).
#[derive(Debug, Default)]
pub(super) struct CursorsByCriteria(HashMap<Criteria, ScanCursors>);

impl CursorsByCriteria {
    /// The cursors for some criteria.
    pub(super) fn of(&mut self, criteria: Criteria) -> &mut ScanCursors {
        if self.0.len() >= MAX_CRITERIA && !self.0.contains_key(&criteria) {
            self.0.clear();
        }
        self.0.entry(criteria).or_default()
    }

    /// An account returned.
    pub(super) fn note_freed(&mut self, freed: &Freed) {
        self.0.values_mut().for_each(|cursors| cursors.note_freed(freed));
    }

    /// There may be accounts anywhere.
    pub(super) fn forget(&mut self) {
        self.0.values_mut().for_each(ScanCursors::forget);
    }
}
