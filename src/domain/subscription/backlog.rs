//! What a server has of a subscription's outcomes that were not delivered yet: which may be sent, and what a failure means.
//!
//! A failure alone does not say whether the receiver does not work or only this outcome is not taken. That is seen from the
//! others. Where one is taken after it, it was the outcome: that is kept and tried again by itself, and the others go on.
//! Where none is taken any more, it is the receiver: all wait where they are, and one at a time is tried.

use std::collections::{HashSet, VecDeque};

use super::DeliveryId;
use crate::domain::id::AccountId;

/// How many outcomes wait in memory: the rest waits in the database.
const MOST: usize = 100;
/// How many are under way at once.
pub const MOST_UNDER_WAY: usize = 8;
/// After so many failures, and nothing taken in between, a receiver is taken for one that does not work.
const MOST_FAILURES: u32 = 3;

/// See the module. `T` is what the server needs to send it.
#[derive(Debug)]
pub struct Backlog<T> {
    items: VecDeque<Item<T>>,
    health: Health,
}

#[derive(Debug)]
struct Item<T> {
    delivery_id: DeliveryId,
    account_id: AccountId,
    content: T,
    tries: u32,
    /// It was not taken when the receiver did not work. When it is not taken again, it is its own fault.
    is_suspect: bool,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Waits,
    UnderWay,
    /// Whose fault it was is not known yet.
    Failed(String),
    /// It is to be kept, and tried again by itself.
    ToKeep(String, bool),
    Done,
}

/// How the receiver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// It takes what is sent. So many failed since it took something.
    Up(u32),
    /// It takes nothing. So many tries have failed.
    Down(u32),
}

/// A delivery to be kept.
#[derive(Debug, PartialEq, Eq)]
pub struct ToKeep<'a, T> {
    /// Its name.
    pub delivery_id: &'a DeliveryId,
    /// Its account.
    pub account_id: &'a AccountId,
    /// What it is.
    pub content: &'a T,
    /// How often it was tried.
    pub tries: u32,
    /// What was wrong.
    pub why: &'a str,
    /// It is given up.
    pub is_dead: bool,
}

impl<T> Backlog<T> {
    /// Nothing, for a receiver of which so many tries have failed.
    pub fn new(failures: u32) -> Self {
        let health = if failures == 0 { Health::Up(0) } else { Health::Down(failures) };
        Self { items: VecDeque::new(), health }
    }

    /// Whether more can be taken in.
    pub fn has_room(&self) -> bool {
        self.items.len() < MOST
    }

    /// Whether all that was taken in is done.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many tries of a receiver have failed that takes nothing; 0 of one that does.
    pub fn failures(&self) -> u32 {
        match self.health {
            Health::Up(_) => 0,
            Health::Down(failures) => failures,
        }
    }

    /// The oldest that is not done.
    pub fn oldest(&self) -> Option<&T> {
        self.items.front().map(|item| &item.content)
    }

    /// Takes in an outcome, after those before it. `is_wanted`: it is to be sent.
    pub fn push(
        &mut self,
        delivery_id: DeliveryId,
        account_id: AccountId,
        content: T,
        is_wanted: bool,
    ) {
        let state = if is_wanted { State::Waits } else { State::Done };
        self.items.push_back(Item {
            delivery_id,
            account_id,
            content,
            tries: 0,
            is_suspect: false,
            state,
        });
    }

    /// The next one to be sent to a receiver that works: it is under way then.
    pub fn start(&mut self) -> Option<(&DeliveryId, &AccountId, &T)> {
        if self.failures() > 0 {
            return None;
        }
        let place =
            self.heads().into_iter().find(|place| self.items[*place].state == State::Waits)?;
        Some(self.begin(place))
    }

    /// The one to try a receiver with that does not work: the one that was tried least.
    pub fn probe(&mut self) -> Option<(&DeliveryId, &AccountId, &T)> {
        let heads = self.heads().into_iter();
        let may = heads
            .filter(|place| matches!(self.items[*place].state, State::Waits | State::Failed(_)));
        let place = may.min_by_key(|place| (self.items[*place].tries, *place))?;
        Some(self.begin(place))
    }

    /// Whether something waits to be sent, or to be tried with.
    pub fn has_more(&self) -> bool {
        self.heads()
            .into_iter()
            .any(|place| matches!(self.items[place].state, State::Waits | State::Failed(_)))
    }

    /// Of each account the first that is not done: its later ones wait for it.
    fn heads(&self) -> Vec<usize> {
        let mut accounts = HashSet::new();
        let open = self.items.iter().enumerate().filter(|(_, item)| item.state != State::Done);
        open.filter(|(_, item)| accounts.insert(&item.account_id)).map(|(place, _)| place).collect()
    }

    fn begin(&mut self, place: usize) -> (&DeliveryId, &AccountId, &T) {
        let item = &mut self.items[place];
        item.state = State::UnderWay;
        (&item.delivery_id, &item.account_id, &item.content)
    }

    fn item(&mut self, delivery_id: &DeliveryId) -> Option<&mut Item<T>> {
        self.items.iter_mut().find(|item| item.delivery_id == *delivery_id)
    }

    /// It was delivered, or is kept.
    pub fn done(&mut self, delivery_id: &DeliveryId) {
        if let Some(item) = self.item(delivery_id) {
            item.state = State::Done;
        }
    }

    /// It was not sent, and is to be sent later.
    pub fn put_back(&mut self, delivery_id: &DeliveryId) {
        if let Some(item) = self.item(delivery_id) {
            item.state = State::Waits;
        }
    }

    /// The receiver took something: it works. Those that were not taken meanwhile are at fault themselves; of those that were
    /// not taken while it did not work that is seen when they are sent again.
    pub fn receiver_took(&mut self) {
        let was_up = matches!(self.health, Health::Up(_));
        self.health = Health::Up(0);
        for item in &mut self.items {
            if let State::Failed(why) = &item.state {
                item.state = if was_up { State::ToKeep(why.clone(), false) } else { State::Waits };
                item.is_suspect = true;
            }
        }
    }

    /// It was not taken. `is_busy`: the receiver says that it takes nothing. Answers whether that was a try of a receiver that
    /// does not work.
    pub fn failed(&mut self, delivery_id: &DeliveryId, why: &str, is_busy: bool) -> bool {
        let is_up = self.failures() == 0;
        let Some(item) = self.item(delivery_id) else { return false };
        item.tries += 1;
        if is_up && item.is_suspect && !is_busy {
            item.state = State::ToKeep(why.to_owned(), false);
            return false;
        }
        item.state = State::Failed(why.to_owned());
        self.receiver_failed(is_busy)
    }

    /// The receiver did not take something. Answers whether it is taken for one that does not work.
    pub fn receiver_failed(&mut self, is_busy: bool) -> bool {
        self.health = match self.health {
            Health::Up(failures) if is_busy || failures + 1 >= MOST_FAILURES => Health::Down(1),
            Health::Up(failures) => Health::Up(failures + 1),
            // Of those that were under way when the first ones failed.
            Health::Down(failures) if self.items.iter().any(|it| it.state == State::UnderWay) => {
                Health::Down(failures)
            }
            Health::Down(failures) => Health::Down(failures + 1),
        };
        self.failures() > 0
    }

    /// When nothing is under way and nothing else can be sent, what failed is the receiver's fault until something is taken.
    /// Answers whether that is so.
    pub fn doubt(&mut self) -> bool {
        let is_up = self.failures() == 0;
        let has_failed = self.items.iter().any(|item| matches!(item.state, State::Failed(_)));
        let goes_on = self.items.iter().any(|it| it.state == State::UnderWay)
            || self.heads().into_iter().any(|place| self.items[place].state == State::Waits);
        let doubts = is_up && has_failed && !goes_on;
        if doubts {
            self.health = Health::Down(1);
        }
        doubts
    }

    /// Gives up what a receiver was tried with the last time.
    pub fn give_up(&mut self, delivery_id: &DeliveryId) {
        if let Some(item) = self.item(delivery_id)
            && let State::Failed(why) = &item.state
        {
            item.state = State::ToKeep(why.clone(), true);
        }
    }

    /// What is to be kept; until it is, it is told again.
    pub fn to_keep(&self) -> Option<ToKeep<'_, T>> {
        self.items.iter().find_map(|item| {
            let State::ToKeep(why, is_dead) = &item.state else { return None };
            Some(ToKeep {
                delivery_id: &item.delivery_id,
                account_id: &item.account_id,
                content: &item.content,
                tries: item.tries,
                why,
                is_dead: *is_dead,
            })
        })
    }

    /// Takes out the oldest when it is done.
    pub fn pop_done(&mut self) -> Option<T> {
        let done = self.items.pop_front_if(|item| item.state == State::Done);
        done.map(|item| item.content)
    }
}

#[cfg(test)]
mod tests;
