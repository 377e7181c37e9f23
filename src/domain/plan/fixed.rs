//! Fixed amounts: the denominations of a plan that takes nothing else, and what they add up to.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Deref, sync::OnceLock};

/// Amounts in minor units, each once and ascending.
#[derive(Clone, Debug)]
pub struct FixedAmounts {
    amounts: Vec<i64>,
    /// What they add up to. Computed when it is first asked for: the amounts may break the rules until then.
    sums: OnceLock<Sums>,
}

#[derive(Clone, Debug)]
struct Sums {
    /// The greatest common divisor of the amounts.
    step: i64,
    /// The least sum, in steps, for each remainder that a sum can leave when it is divided by the number of these.
    /// Every further multiple can be reached from it with the smallest amount.
    least: Vec<i64>,
}

impl From<Vec<i64>> for FixedAmounts {
    fn from(amounts: Vec<i64>) -> Self {
        Self { amounts, sums: OnceLock::new() }
    }
}

impl Deref for FixedAmounts {
    type Target = Vec<i64>;

    fn deref(&self) -> &Vec<i64> {
        &self.amounts
    }
}

impl PartialEq for FixedAmounts {
    fn eq(&self, other: &Self) -> bool {
        self.amounts == other.amounts
    }
}

impl Eq for FixedAmounts {}

impl FixedAmounts {
    /// Their greatest common divisor; `None` where there are none.
    pub fn step_minor(&self) -> Option<i64> {
        self.amounts.iter().copied().reduce(greatest_common_divisor)
    }

    /// Whether some of them, each as often as need be, add up to this amount.
    pub(super) fn add_up_to(&self, amount: i64) -> bool {
        let Some(step) = self.step_minor().filter(|step| *step > 0) else { return false };
        let Sums { step, least } = self.sums.get_or_init(|| {
            let steps: Vec<_> = self.amounts.iter().map(|amount| amount / step).collect();
            Sums { step, least: least_sums(&steps) }
        });
        let steps = amount / step;
        let class = usize::try_from(steps % i64::try_from(least.len()).unwrap_or(1)).unwrap_or(0);
        amount % step == 0 && least.get(class).is_some_and(|least| *least <= steps)
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The least sum of `amounts` in each class of remainders by the first of them. It is a shortest path from
/// class to class, where each amount is an edge. Their greatest common divisor is 1, so every class
/// has one.
fn least_sums(amounts: &[i64]) -> Vec<i64> {
    let classes = amounts.first().copied().unwrap_or(1);
    let mut least = vec![i64::MAX; usize::try_from(classes).unwrap_or(1)];
    let mut queue = BinaryHeap::from([Reverse(0_i64)]);
    if let Some(first) = least.first_mut() {
        *first = 0;
    }
    while let Some(Reverse(sum)) = queue.pop() {
        for amount in amounts {
            let next = sum + amount;
            let class = usize::try_from(next % classes).unwrap_or(0);
            if let Some(before) = least.get_mut(class)
                && next < *before
            {
                *before = next;
                queue.push(Reverse(next));
            }
        }
    }
    least
}
