//! Card files: `item_id,code,amount_minor,currency_code`. Only `code` is required.

use super::{Row, Seen, damage, fields, fields::Fields};
use crate::domain::{
    id::{ItemId, PoolId},
    money::Currency,
    redemption::CardCode,
};

/// A card to redeem.
#[derive(Debug)]
pub(crate) struct CardRow {
    /// The pool that it is for; `None`: the command's.
    pub(crate) pool_id: Option<PoolId>,
    /// Its name in the batch: `line-17` when line 17 gives none.
    pub(crate) item_id: ItemId,
    /// The code.
    pub(crate) code: CardCode,
    /// What it should be worth, in minor units, more than 0.
    pub(crate) amount_minor: Option<i64>,
    /// The amount's currency; `None`: the pool's.
    pub(crate) currency: Option<Currency>,
}

impl Row for CardRow {
    const COLUMNS: &'static [&'static str] = &["item_id", "code", "amount_minor", "currency_code"];
    const REQUIRED: &'static str = "code";

    fn read(fields: &mut Fields<'_>, seen: &mut Seen) -> Option<Self> {
        let item_id = item_id(fields);
        if let Some(first) = item_id
            .as_ref()
            .and_then(|id| seen.before(fields.pool_id(), id.as_str(), fields.line()))
        {
            fields.complain(Some("item_id"), format!("is the same as on line {first}"));
        }
        let code = fields
            .required("code", |text| damage::check_code(text).and_then(|()| CardCode::parse(text)));
        let amount_minor = fields.optional("amount_minor", |text| fields::amount(text, 1));
        let currency = fields.optional("currency_code", |code| {
            Currency::parse(code).ok_or("must be three upper-case letters (ISO 4217)")
        });
        if fields.is_empty("amount_minor") && !fields.is_empty("currency_code") {
            fields.complain(Some("amount_minor"), "is required beside a currency_code");
        }
        Some(Self {
            pool_id: fields.pool_id().cloned(),
            item_id: item_id?,
            code: code?,
            amount_minor,
            currency,
        })
    }
}

fn item_id(fields: &mut Fields<'_>) -> Option<ItemId> {
    if fields.is_empty("item_id") {
        ItemId::parse(&format!("line-{}", fields.line())).ok()
    } else {
        fields
            .optional("item_id", |text| damage::check_name(text).and_then(|()| ItemId::parse(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::read_all, *};

    fn one(header: &str, row: &str) -> Result<CardRow, String> {
        read_all::<CardRow>(format!("{header}\n{row}\n")).remove(0)
    }

    #[test]
    fn only_the_code_is_required() {
        let card = one("code", " ABCD-1234 ").unwrap();
        assert_eq!((card.item_id.as_str(), card.code.expose()), ("line-2", "ABCD-1234"));
        assert_eq!((card.amount_minor, card.currency, card.pool_id), (None, None, None));
    }

    #[test]
    fn every_column_is_read() {
        let card =
            one("pool_id,item_id,code,amount_minor,currency_code", "p,a,ABCD,500,EUR").unwrap();
        assert_eq!((card.item_id.as_str(), card.amount_minor), ("a", Some(500)));
        assert_eq!(card.currency, Currency::parse("EUR"));
        assert_eq!(card.pool_id, PoolId::parse("p").ok());
    }

    #[test]
    fn amounts_are_whole_positive_and_bounded() {
        for bad in
            ["0", "-1", "+1", "1.5", "1e3", "ten", "99999999999999999999", "1000000000000001"]
        {
            let error = one("code,amount_minor", &format!("ABCD,{bad}")).unwrap_err();
            assert!(error.starts_with("line 2: amount_minor must be a whole number"), "{error}");
        }
        assert!(one("code,amount_minor", "ABCD,1000000000000000").is_ok());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_and_nothing_is_repeated() {
        let error =
            one("item_id,code,amount_minor,currency_code", "x\u{7f},S3C,-5,euro").unwrap_err();
        for part in [
            "item_id has a control",
            "code must be 4 to 128",
            "amount_minor must",
            "currency_code must",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("S3C") && !error.contains("euro"), "{error}");
    }

    #[test]
    fn a_currency_needs_an_amount_and_a_row_needs_a_code() {
        let error = one("code,amount_minor,currency_code", ",,EUR").unwrap_err();
        assert_eq!(
            error,
            "line 2: code is required; amount_minor is required beside a currency_code"
        );
    }

    #[test]
    fn an_item_id_is_there_once() {
        let rows =
            read_all::<CardRow>("item_id,code\na,ABCD1\nb,ABCD2\na,ABCD3\nline-6,ABCD4\n,ABCD5\n");
        assert_eq!(rows[2].as_ref().unwrap_err(), "line 4: item_id is the same as on line 2");
        assert_eq!(rows[4].as_ref().unwrap_err(), "line 6: item_id is the same as on line 5");
        assert!(rows[0].is_ok() && rows[1].is_ok() && rows[3].is_ok());
    }
}
