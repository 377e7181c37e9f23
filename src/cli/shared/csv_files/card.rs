//! Card files: `item_id,code,amount_minor,currency_code`. Only `code` is required.

use secrecy::{ExposeSecret as _, zeroize::Zeroizing};

use super::{Row, Seen, damage, fields::Fields};
use crate::domain::{
    id::{ItemId, PoolId},
    money::Currency,
    redemption::CardCode,
};

/// A card to redeem.
#[derive(Debug)]
pub(crate) struct CardRow {
    /// The row's line.
    pub(crate) line: u64,
    /// The pool that it is for; `None`: the command's.
    pub(crate) pool_id: Option<PoolId>,
    /// Its name in the batch, when the row gives one.
    pub(crate) item_id: Option<ItemId>,
    /// The code.
    pub(crate) code: CardCode,
    /// What it should be worth, in minor units, more than 0.
    pub(crate) amount_minor: Option<i64>,
    /// The amount's currency; `None`: the pool's.
    pub(crate) currency: Option<Currency>,
}

/// Codes of so many characters are not in another text by chance.
const TELLING: usize = 8;

impl Row for CardRow {
    const COLUMNS: &'static [&'static str] = &["item_id", "code", "amount_minor", "currency_code"];
    const AMOUNT: (&'static str, &'static str) = ("amount", "amount_minor");
    const REQUIRED: &'static str = "code";

    fn read(fields: &mut Fields<'_>, seen: &mut Seen) -> Option<Self> {
        let item_id = fields.optional("item_id", |text| damage::name(text).and_then(ItemId::parse));
        if let Some(first) = item_id
            .as_ref()
            .and_then(|id| seen.before(fields.pool_id(), id.as_str(), fields.line()))
        {
            fields.complain(Some("item_id"), format!("is the same as on line {first}"));
        }
        let code = fields
            .required("code", |text| damage::check_code(text).and_then(|()| CardCode::parse(text)));
        if let (Some(id), Some(code)) = (&item_id, &code)
            && holds(&bare(id.as_str()), &bare(code.expose()))
        {
            let rule = "holds the card's code, which would be told in results and logs: name the item otherwise";
            fields.complain(Some("item_id"), rule);
        }
        // The same card twice is one card: two rows of it are a mistake, whatever their names.
        let unique = code.as_ref().filter(|_| !fields.may_repeat_cards());
        if let Some(first) = unique.and_then(|code: &CardCode| {
            let name = format!("code\0{}", code.normalised().expose_secret());
            seen.before(fields.pool_id(), &name, fields.line())
        }) {
            fields.complain(Some("code"), format!("is the same card as on line {first}"));
        }
        let currency = fields.optional("currency_code", |code| {
            Currency::parse(code).ok_or("must be three upper-case letters (ISO 4217)")
        });
        let amount_minor = fields.amount("amount_minor", currency, 1);
        if fields.is_empty("amount_minor") && !fields.is_empty("currency_code") {
            fields.complain(Some("amount_minor"), "is required beside a currency_code");
        }
        Some(Self {
            line: fields.line(),
            pool_id: fields.pool_id().cloned(),
            item_id,
            code: code?,
            amount_minor,
            currency,
        })
    }
}

/// Whether a text holds a code. One of a few characters is in many texts by chance, and counts only as a whole.
fn holds(text: &str, code: &str) -> bool {
    text == code || code.len() >= TELLING && text.contains(code)
}

/// A code as it is found in another text: without spaces and hyphens, in one case.
fn bare(text: &str) -> Zeroizing<String> {
    let text = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
    Zeroizing::new(text.flat_map(char::to_lowercase).collect())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Options, read_all, read_with},
        *,
    };

    fn one(header: &str, row: &str) -> Result<CardRow, String> {
        read_all::<CardRow>(format!("{header}\n{row}\n")).remove(0)
    }

    #[test]
    fn only_the_code_is_required() {
        let card = one("code", " ABCD-1234 ").unwrap();
        assert_eq!((card.line, card.item_id, card.code.expose()), (2, None, "ABCD-1234"));
        assert_eq!((card.amount_minor, card.currency, card.pool_id), (None, None, None));
    }

    #[test]
    fn every_column_is_read() {
        let card =
            one("pool_id,item_id,code,amount_minor,currency_code", "p,a,ABCD,500,EUR").unwrap();
        assert_eq!((card.item_id, card.amount_minor), (ItemId::parse("a").ok(), Some(500)));
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
        let rows = read_all::<CardRow>("item_id,code\na,ABCD1\nb,ABCD2\na,ABCD3\n,ABCD4\n,ABCD5\n");
        assert_eq!(rows[2].as_ref().unwrap_err(), "line 4: item_id is the same as on line 2");
        assert!(rows[0].is_ok() && rows[1].is_ok() && rows[3].is_ok() && rows[4].is_ok());
    }

    #[test]
    fn an_item_id_does_not_hold_the_code_of_its_card() {
        for id in ["ABCD-1234", "abcd1234", "row 7: ABCD 1234", "x-aBcD-12-34-x"] {
            let error = one("item_id,code", &format!("{id},ABCD-1234")).unwrap_err();
            assert!(error.starts_with("line 2: item_id holds the card's code"), "{error}");
            assert!(!error.to_lowercase().contains("abcd"), "{error}");
        }
        for id in ["ABCD-123", "1234", "x"] {
            assert!(one("item_id,code", &format!("{id},ABCD-1234")).is_ok(), "{id}");
        }
        assert!(one("item_id,code", "item-1234,1234").is_ok(), "by chance");
        assert!(one("item_id,code", "1234,1234").is_err());
    }

    #[test]
    fn a_card_is_there_once_however_it_is_written() {
        let rows =
            read_all::<CardRow>("item_id,code\na,ABCD-1234\nb,abcd 1234\n,ABCD1234\nc,ABCD1235\n");
        for (row, line) in rows[1..3].iter().zip([3, 4]) {
            let expected = format!("line {line}: code is the same card as on line 2");
            assert_eq!(*row.as_ref().unwrap_err(), expected);
        }
        assert!(rows[0].is_ok() && rows[3].is_ok());
        let options = Options { pool: PoolId::parse("p").ok(), ..Options::default() };
        let rows = read_with::<CardRow>("pool_id,code\np,ABCD1\n,ABCD1\nq,ABCD1\n", &options);
        assert!(rows[0].is_ok() && rows[1].is_err() && rows[2].is_ok(), "of its own pool");
    }
}
