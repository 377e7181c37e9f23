use proptest::prelude::*;

use super::*;

/// Whether some cards add up to `amount`, by trying.
fn adds_up(denominations: &Denominations, amount: i64) -> bool {
    let size = usize::try_from(amount).unwrap();
    let mut reached = vec![false; size + 1];
    reached[0] = true;
    for sum in 1..=amount {
        let one_less = (1..=sum).any(|card| {
            takes(denominations, card) && reached[usize::try_from(sum - card).unwrap()]
        });
        reached[usize::try_from(sum).unwrap()] = one_less;
    }
    reached[size]
}

fn takes(denominations: &Denominations, card: i64) -> bool {
    match denominations {
        Denominations::Any { smallest_minor, largest_minor } => {
            *smallest_minor <= card && largest_minor.is_none_or(|largest| card <= largest)
        }
        Denominations::MultiplesOf(base) => card % base == 0,
        Denominations::Fixed(amounts) => amounts.contains(&card),
    }
}

fn denominations() -> impl Strategy<Value = Denominations> {
    prop_oneof![
        (1..12i64, proptest::option::of(0..12i64)).prop_map(|(smallest_minor, more)| {
            let largest_minor = more.map(|more| smallest_minor + more);
            Denominations::Any { smallest_minor, largest_minor }
        }),
        (1..12i64).prop_map(Denominations::MultiplesOf),
        proptest::collection::btree_set(1..20i64, 1..5).prop_map(|amounts| Denominations::Fixed(
            amounts.into_iter().collect::<Vec<_>>().into()
        )),
    ]
}

proptest! {
    #[test]
    fn what_cards_add_up_to_is_what_trying_finds(
        denominations in denominations(),
        amount in 0..80i64,
    ) {
        prop_assert_eq!(denominations.fills(amount), adds_up(&denominations, amount));
    }

    #[test]
    fn a_card_fits_exactly_when_the_rules_say_so_one_by_one(
        denominations in denominations(),
        target_minor in 1..80i64,
        days in proptest::collection::vec(1..40i64, 0..4),
        day_tolerance_minor in 0..10i64,
        balance_minor in 0..90i64,
        day in 1..5i32,
        day_credited_minor in 0..40i64,
        card in 1..60i64,
    ) {
        let terms = Terms {
            day_amounts_minor: days.clone(),
            day_tolerance_minor,
            denominations: denominations.clone(),
            ..Terms::up_to(target_minor)
        };
        let progress = Progress { balance_minor, day, day_credited_minor };
        let fits = |card: i64| {
            let left = target_minor - balance_minor - card;
            let is_last = usize::try_from(day).unwrap() >= days.len();
            let within_day = is_last
                || day_credited_minor + card
                    <= days[usize::try_from(day - 1).unwrap()] + day_tolerance_minor;
            takes(&denominations, card) && left >= 0 && within_day && adds_up(&denominations, left)
        };
        prop_assert_eq!(terms.misfit(&progress, Some(card)).is_none(), fits(card));
        let some_fits = (1..=80).any(fits);
        prop_assert_eq!(terms.misfit(&progress, None).is_none(), some_fits);
    }

    /// Cards that fit, one after the other, always end at the target. No account is ever left with
    /// what nothing can fill, and no day is passed over.
    #[test]
    fn cards_that_fit_lead_to_the_target(
        denominations in denominations(),
        target_minor in 1..80i64,
        days in proptest::collection::vec(1..20i64, 0..4),
        choices in proptest::collection::vec(0..1000usize, 100),
    ) {
        let terms = Terms {
            day_amounts_minor: days,
            denominations,
            ..Terms::up_to(target_minor)
        };
        prop_assume!(terms.violations().is_empty());
        let mut progress = Progress { balance_minor: 0, day: 1, day_credited_minor: 0 };
        for choice in choices {
            let fitting: Vec<_> =
                (1..=80).filter(|card| terms.misfit(&progress, Some(*card)).is_none()).collect();
            if fitting.is_empty() {
                // Not even one card fits the first day's amount: that is the plan's own doing.
                prop_assert_eq!(progress.day_credited_minor, 0);
                prop_assert!(i64::from(progress.day) <= 4);
                let days = i32::try_from(terms.day_amounts_minor.len()).unwrap();
                prop_assert!(progress.day < days);
                return Ok(());
            }
            let (after, filled) = terms.credit(&progress, fitting[choice % fitting.len()]);
            if filled == Filled::Target {
                prop_assert_eq!(after.balance_minor, target_minor);
                return Ok(());
            }
            prop_assert_eq!(after.day > progress.day, filled == Filled::Day);
            progress = after;
        }
        prop_assert!(false, "never full");
    }
}

#[test]
fn a_day_ends_when_its_amount_is_reached_or_nothing_more_fits_it() {
    let terms = Terms {
        day_amounts_minor: vec![100, 100],
        day_tolerance_minor: 5,
        denominations: Denominations::Any { smallest_minor: 10, largest_minor: None },
        ..Terms::up_to(200)
    };
    let at = |day_credited_minor| Progress {
        balance_minor: day_credited_minor,
        day: 1,
        day_credited_minor,
    };
    assert_eq!(terms.credit(&at(0), 100).1, Filled::Day, "the amount is reached");
    assert_eq!(terms.credit(&at(0), 96).1, Filled::Day, "9 are left, and no card is so small");
    assert_eq!(terms.credit(&at(0), 95).1, Filled::Nothing, "10 would still fit");
    assert_eq!(terms.credit(&at(95), 10).1, Filled::Day, "beyond, within the tolerance");
    assert_eq!(terms.misfit(&at(95), Some(11)), Some(Misfit::DayFull));
    let last = Progress { balance_minor: 100, day: 2, day_credited_minor: 0 };
    assert_eq!(
        terms.credit(&last, 90),
        (Progress { balance_minor: 190, day_credited_minor: 90, ..last }, Filled::Nothing)
    );
    assert_eq!(terms.credit(&last, 100).1, Filled::Target);
}

#[test]
fn every_reason_against_a_card_is_told() {
    let terms = Terms {
        denominations: Denominations::Fixed(vec![30, 50].into()),
        day_amounts_minor: vec![60, 60],
        ..Terms::up_to(140)
    };
    let misfit = |balance_minor, amount| {
        let progress = Progress { balance_minor, day: 1, day_credited_minor: 20 };
        terms.misfit(&progress, amount)
    };
    assert_eq!(misfit(140, None), Some(Misfit::TooFull));
    assert_eq!(misfit(0, Some(40)), Some(Misfit::Denomination));
    assert_eq!(misfit(110, Some(50)), Some(Misfit::TooFull));
    assert_eq!(misfit(20, Some(30)), None, "90 are left: three of 30");
    assert_eq!(misfit(20, Some(50)), Some(Misfit::Remainder), "70 are no sum of 30 and 50");
    assert_eq!(misfit(0, Some(50)), Some(Misfit::DayFull), "90 are left, but today only 40");
    assert_eq!(misfit(100, None), Some(Misfit::Remainder), "no cards bring 40");
    for misfit in Misfit::ALL {
        assert_eq!(Misfit::parse(misfit.as_str()), Some(misfit));
    }
}

#[test]
fn terms_that_make_no_sense_are_refused_with_all_that_is_wrong() {
    let fields = |terms: &Terms| -> Vec<_> {
        terms.violations().into_iter().map(|(field, _)| field).collect()
    };
    assert_eq!(fields(&Terms::up_to(100)), [""; 0]);
    let bad = Terms {
        day_amounts_minor: vec![60, 60, 0],
        day_interval: MAX_INTERVAL * 2,
        denominations: Denominations::Fixed(vec![5, 5].into()),
        ..Terms::up_to(100)
    };
    assert_eq!(fields(&bad), ["day_amounts", "day_amounts", "day_interval", "denominations"]);
    let with = |denominations| Terms { denominations, ..Terms::up_to(100) };
    for bad in [
        Denominations::Any { smallest_minor: 0, largest_minor: None },
        Denominations::Any { smallest_minor: 5, largest_minor: Some(4) },
        Denominations::MultiplesOf(0),
        Denominations::Fixed(vec![].into()),
        Denominations::Fixed(vec![-5, 5].into()),
        Denominations::MultiplesOf(30),
        Denominations::Fixed(vec![30, 60].into()),
        Denominations::Fixed(vec![1001, 1002].into()),
        Denominations::Any { smallest_minor: 60, largest_minor: Some(90) },
    ] {
        assert_eq!(fields(&with(bad.clone())), ["denominations"], "{bad:?}");
    }
    assert_eq!(fields(&with(Denominations::Fixed(vec![25, 50].into()))), [""; 0]);
}
