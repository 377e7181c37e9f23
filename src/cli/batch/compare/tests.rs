//! What a row is to a batch, and which attempt of an item counts.

use super::*;
use crate::{
    cli::shared::csv_files::{CardRow, CsvFile, Options},
    domain::id::ItemId,
};

fn redemption(state: RedemptionState, attempt: i32) -> pb::Redemption {
    let failure = (state == RedemptionState::Failed)
        .then(|| pb::Failure { retryable: true, ..Default::default() });
    let expected = pb::Money { amount_minor: 1000, currency_code: "EUR".into() };
    pb::Redemption {
        state: state.into(),
        attempt,
        failure,
        expected: Some(expected),
        code_last4: "abcd".into(),
        ..Default::default()
    }
}

fn index_of(names: &[&str]) -> Index {
    let mut index = Index::new().unwrap();
    for name in names {
        let text = format!("item_id,code\n{name},CODE-{name}-ABCD\n");
        let card = card(&text);
        index.add(&ItemId::parse(name).unwrap(), &card);
    }
    index
}

fn card(text: &str) -> CardRow {
    let rows = CsvFile::<_, CardRow>::new(text.as_bytes(), &Options::default());
    rows.unwrap().next().unwrap().unwrap().unwrap()
}

/// The judgement of one row.
fn judged(text: &str, redemption: &pb::Redemption) -> (Kind, String) {
    let card = card(text);
    let item_id = card.item_id.clone().unwrap_or(ItemId::parse("made").unwrap());
    let mut index = Index::new().unwrap();
    index.add(&item_id, &card);
    let file_row = index.file_row(0).unwrap();
    let row = Indexed { number: 0, file_row, item_id: Some(item_id), card: Some(card) };
    judge(&row, Some(&Item::of(redemption)), &index).unwrap()
}

#[test]
fn an_item_that_failed_and_is_not_spent_is_redeemed_again() {
    let text = "item_id,code,amount_minor\na,CODE-ABCD,1000\n";
    let mut failed = redemption(RedemptionState::Failed, 1);
    assert_eq!(judged(text, &failed).0, Kind::Again);
    failed.failure.as_mut().unwrap().retryable = false;
    assert_eq!(judged(text, &failed).0, Kind::Same);
    let mut counts = Counts::default();
    counts.add(Kind::Again);
    let batch = crate::cli::batch::tests::batch();
    assert!(summary(&batch, &counts).contains(", 1 are redeemed again, 0 are changed"));
}

#[test]
fn an_amount_that_is_added_taken_away_or_other_is_a_change() {
    let with = "item_id,code,amount_minor\na,CODE-ABCD,1000\n";
    let without = "item_id,code\na,CODE-ABCD\n";
    let asked = redemption(RedemptionState::Succeeded, 1);
    let learned = pb::Redemption { expected_learned: true, ..asked.clone() };
    assert_eq!(judged(with, &asked).0, Kind::Same);
    assert_eq!(judged(without, &learned).0, Kind::Same);
    let (kind, message) = judged(with, &learned);
    assert_eq!(kind, Kind::Differs);
    assert!(message.contains("the batch has it without an amount"), "{message}");
    let (kind, message) = judged(without, &asked);
    assert_eq!(kind, Kind::Differs);
    assert!(message.contains("the batch has it with 1000"), "{message}");
}

#[test]
fn ends_of_codes_are_compared_for_items_that_the_file_names() {
    let ends_in = |last4: &str| pb::Redemption {
        code_last4: last4.into(),
        ..redemption(RedemptionState::Succeeded, 1)
    };
    let named = "item_id,code,amount_minor\na,CODE-ABCD,1000\n";
    let made = "code,amount_minor\nCODE-ABCD,1000\n";
    for (text, last4, kind) in [
        (named, "abcd", Kind::Same),
        (named, "abce", Kind::Differs),
        (named, "bce", Kind::Same),
        (made, "abce", Kind::Same),
    ] {
        assert_eq!(judged(text, &ends_in(last4)).0, kind, "{last4}");
    }
}

#[test]
fn of_an_item_s_attempts_the_one_that_is_answered_counts_and_it_is_gone_once() {
    let index = index_of(&["a"]);
    let mut recorded = Recorded::default();
    for name in ["a", "b"] {
        for (state, attempt) in [
            (RedemptionState::Failed, 2),
            (RedemptionState::Succeeded, 1),
            (RedemptionState::Failed, 3),
        ] {
            recorded.note(&index, name, &redemption(state, attempt));
        }
    }
    assert_eq!((recorded.items.len(), recorded.gone.len()), (1, 1));
    assert_eq!(recorded.items[&digest("a")].state, RedemptionState::Succeeded);
    assert_eq!(recorded.gone["b"].state, RedemptionState::Succeeded);
    recorded.note(&index, "a", &redemption(RedemptionState::InDoubt, 4));
    assert_eq!(recorded.items[&digest("a")].state, RedemptionState::InDoubt);
}

#[test]
fn redemptions_of_several_principals_are_not_compared() {
    let index = index_of(&["a"]);
    let mut recorded = Recorded::default();
    let of = |principal: &str| pb::Redemption {
        principal: principal.into(),
        ..redemption(RedemptionState::Succeeded, 1)
    };
    recorded.note(&index, "a", &of("token:ann"));
    recorded.note(&index, "b", &of("token:ann"));
    assert!(!recorded.principals.are_several());
    recorded.note(&index, "a", &of("token:ben"));
    assert!(recorded.principals.are_several());
    let told = NotCompared::Several(2).to_string();
    assert!(told.contains("is not compared with the batch: 2 principals"), "{told}");
}
