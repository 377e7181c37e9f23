//! How far walks along the index of free accounts came, for each wish.

use std::collections::HashMap;

use super::turns::Wish;
use crate::store::walks::{Freed, Walks};

/// For how many wishes it is remembered.
const MAX_WISHES: usize = 64;

/// See [the module](self).
#[derive(Debug, Default)]
pub(super) struct WalksByWish(HashMap<Wish, Walks>);

impl WalksByWish {
    /// Those for one wish.
    pub(super) fn of(&mut self, wish: Wish) -> &mut Walks {
        if self.0.len() >= MAX_WISHES && !self.0.contains_key(&wish) {
            self.0.clear();
        }
        self.0.entry(wish).or_default()
    }

    /// An account came back.
    pub(super) fn note_freed(&mut self, freed: &Freed) {
        self.0.values_mut().for_each(|walks| walks.note_freed(freed));
    }

    /// There may be accounts anywhere.
    pub(super) fn forget(&mut self) {
        self.0.values_mut().for_each(Walks::forget);
    }
}
