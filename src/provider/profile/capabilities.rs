//! What a provider can do for a redemption in doubt, as its profile says.

use std::time::Duration;

use super::{
    Profile,
    auth::Auth,
    names::{Name, OpKind},
    op::Op,
    rule::Then,
};
use crate::domain::redemption::{CannotReverse, Capabilities, LookUp, RedeemLimits, ReversalMeans};

/// Calls that one step may make where a token is fetched: for it, the call, and both once more when the token is
/// refused.
const CALLS_WITH_A_TOKEN: u32 = 4;
/// How many times as long as one call an answer in pages may take.
const CALLS_OF_PAGES: u32 = 3;

impl Profile {
    /// What the provider can do. `not_after`: until how long after it was recorded it takes a request.
    pub fn capabilities(&self, not_after: Option<Duration>) -> Capabilities {
        let questions = [OpKind::LookUp, OpKind::Find].into_iter().filter_map(|kind| self.op(kind));
        Capabilities {
            dedup: self.identity.dedup,
            looks_up: self.op(OpKind::LookUp).map(|op| {
                let needs_task = op.asks_by_task() && !op.asks_by_key();
                if needs_task { LookUp::ByTask } else { LookUp::ByKey }
            }),
            finds: self.has(OpKind::Find),
            not_found_ends_doubt: questions.into_iter().any(|op| op.ends_doubt),
            cancels: self.has(OpKind::Cancel),
            reverses: self.op(OpKind::Reverse).is_some_and(Op::reverses_by_itself),
            refuses_late: self.op(OpKind::Send).is_some_and(|op| op.sends(&Name::NotAfter)),
            window: self.identity.window,
            latest_effect: self
                .times
                .max_processing
                .max(not_after.unwrap_or(self.times.send_window)),
            visibility: self.times.visibility,
            max_processing: self.times.max_processing,
        }
    }

    /// How it takes a success back whose code is wiped, and is asked what became of that. `has_task`: its id of the
    /// work is known.
    pub fn reversal_means(&self, has_task: bool) -> ReversalMeans {
        let reverse = self.op(OpKind::Reverse);
        let cannot = match reverse {
            None => Some(CannotReverse::NoOp),
            Some(op) if self.names(op, &Name::Code) => Some(CannotReverse::NeedsCode),
            Some(_) => None,
        };
        ReversalMeans {
            cannot,
            counts_once: reverse.is_some_and(|op| op.ends_doubt),
            sends_key: reverse.is_some_and(|op| op.sends(&Name::Key)),
            dedup: self.identity.dedup,
            window: self.identity.window,
            asks: self.question_of_past(has_task).is_some(),
            max_processing: self.times.max_processing,
        }
    }

    /// The op that asks what became of a redemption whose code is wiped, if one can be asked.
    pub(in crate::provider) fn question_of_past(&self, has_task: bool) -> Option<OpKind> {
        [OpKind::LookUp, OpKind::Find].into_iter().find(|kind| {
            self.op(*kind).is_some_and(|op| {
                let needs_task = self.names(op, &Name::Task) && !has_task;
                !needs_task && !self.names(op, &Name::Code)
            })
        })
    }

    /// Whether a value is named anywhere in an op, in the headers of every request or by what proves who asks.
    fn names(&self, op: &Op, name: &Name) -> bool {
        let every = self.http.headers.iter().flat_map(|(_, leaf)| leaf.names());
        let auth = self.auth.iter().flat_map(Auth::names);
        op.all_names().chain(every).chain(auth).any(|other| other == name)
    }

    /// How long its redemptions may be sent, and what it can do for those in doubt. Without `not_after`, the provider
    /// may begin for as long as it may be at work.
    pub fn limits(&self, not_after: Option<Duration>) -> RedeemLimits {
        let longest = self.times.max_processing.max(self.times.send_window);
        RedeemLimits {
            send_window: self.times.send_window,
            not_after: not_after.unwrap_or(longest),
            call_timeout: self.longest_call(),
            provider: self.capabilities(not_after),
        }
    }

    /// The longest that one step may take, however many calls it makes.
    pub fn longest_call(&self) -> Duration {
        let has_pages = self.ops.values().any(|op| op.kind != OpKind::List && op.pages.is_some());
        let of_pages = if has_pages { CALLS_OF_PAGES } else { 1 };
        let of_token = if self.fetches_token() { CALLS_WITH_A_TOKEN } else { 1 };
        self.http.timeout * of_pages.max(of_token)
    }
}

impl Op {
    fn sends(&self, name: &Name) -> bool {
        self.request_names().any(|other| other == name)
    }

    /// Whether it ends doubt without a person. The provider's name for what it did is not known then.
    fn reverses_by_itself(&self) -> bool {
        self.ends_doubt && self.says(|then| *then == Then::Undone) && !self.sends(&Name::Ref)
    }
}
