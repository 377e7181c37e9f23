//! What a batch that did not go through leaves: items that were begun, and others that were not.

use std::{collections::HashMap, fmt};

use super::{
    Batch, Outcome, compare,
    compare::{Principals, Rank},
    index::Kept,
    outcome::Standing,
    session::Ready,
    sheet::Sheet,
};
use crate::{
    cli::shared::{client::Server, output::Rows},
    rpc::pb,
};

/// What is known of the items without an outcome, of a batch that did not go through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    /// How many are under way.
    under_way: u64,
    /// How many have an outcome that was not told yet.
    settled: u64,
    /// How many failed before, and were not begun again.
    again: u64,
    /// Whether the server could be asked.
    is_known: bool,
    /// How many are left.
    pub(super) left: u64,
}

impl Rest {
    /// Asks the server which items were begun without an outcome.
    pub(super) async fn ask(
        server: &Server,
        batch: &Batch,
        ready: &Ready,
        sheet: &mut Sheet,
    ) -> Self {
        let mut begun: HashMap<usize, (Rank, Standing, Kept)> = HashMap::new();
        let mut principals = Principals::default();
        let listed = compare::each_soon(server, batch, |name, redemption| {
            principals.note(redemption);
            let (rank, number) = (Rank::of(redemption), sheet.waits_for(name));
            let is_better =
                |number: &usize| begun.get(number).is_none_or(|(held, ..)| rank > *held);
            if let Some(number) = number.filter(is_better) {
                let outcome = Some(pb::batch_item_result::Outcome::Redemption(redemption.clone()));
                let result =
                    pb::BatchItemResult { item_id: name.to_owned(), outcome, replayed: true };
                let outcome = Outcome::of(result).at(ready.index.of(name));
                begun.insert(number, (rank, outcome.standing(), sheet.keep(&outcome)?));
            }
            Ok(())
        })
        .await;
        let mut rest = Self::default();
        if principals.are_several() {
            return rest;
        }
        rest.is_known = listed.is_ok();
        for (number, (_, standing, row)) in begun {
            sheet.set(number, row);
            rest.count(standing);
        }
        rest
    }

    fn count(&mut self, standing: Standing) {
        let count = match standing {
            Standing::InDoubt => &mut self.under_way,
            Standing::Unspent => &mut self.again,
            _ => &mut self.settled,
        };
        *count += 1;
    }

    /// Writes the rows that are left.
    pub(super) fn write(
        mut self,
        ready: &Ready,
        batch: &Batch,
        sheet: Sheet,
        rows: &mut Rows,
    ) -> anyhow::Result<Self> {
        let without = match self.is_known {
            true => ("NOT_BEGUN", "the command was ended before; the same command goes on with it"),
            false => ("UNKNOWN", "whether it was begun is not known; the same command finds out"),
        };
        let file = (&ready.cards, &batch.pool_id, &*ready.names);
        let finish = || sheet.finish(file, without, |row| rows.push(row));
        self.left = tokio::task::block_in_place(finish)?;
        Ok(self)
    }
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { under_way, settled, again, left, .. } = self;
        if self.is_known {
            write!(f, "{under_way} more are under way, and the server finishes them; ")?;
            if *settled > 0 {
                write!(f, "{settled} more have their outcome already; ")?;
            }
            if *again > 0 {
                write!(f, "{again} more failed before and are to redeem again; ")?;
            }
            write!(f, "{left} were not begun")
        } else {
            write!(
                f,
                "of {left} more it is not known whether they were begun; the same command finds out"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_settled_before_or_failed_is_not_said_to_be_under_way() {
        let mut rest = Rest { is_known: true, left: 7, ..Rest::default() };
        for standing in [
            Standing::InDoubt,
            Standing::Credited,
            Standing::Refused,
            Standing::NeedsReview,
            Standing::Unspent,
        ] {
            rest.count(standing);
        }
        assert_eq!((rest.under_way, rest.settled, rest.again), (1, 3, 1));
        assert_eq!(
            rest.to_string(),
            "1 more are under way, and the server finishes them; 3 more have their outcome already; 1 more failed \
             before and are to redeem again; 7 were not begun"
        );
    }
}
