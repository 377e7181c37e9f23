//! Money: amounts in the minor unit of one currency.

use std::fmt;

use iso_currency::Currency as Iso;

/// The largest amount that a request may name, in minor units. Far above any card, and far enough
/// below `i64::MAX` that a sum of many cannot overflow.
pub const MAX_AMOUNT_MINOR: i64 = 1_000_000_000_000_000;

/// An ISO 4217 currency code: three upper-case ASCII letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

impl Currency {
    /// No currency, by ISO 4217.
    pub const NONE: Self = Self(*b"XXX");

    /// Reads a code; `None` unless it is three upper-case ASCII letters.
    pub fn parse(code: &str) -> Option<Self> {
        let bytes: [u8; 3] = code.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_uppercase).then_some(Self(bytes))
    }

    /// How many decimals its minor unit has; 2 where ISO 4217 has none or does not know it.
    pub fn decimals(self) -> u32 {
        let exponent = Iso::from_code(self.as_str()).and_then(|iso| iso.exponent());
        exponent.map_or(2, u32::from)
    }

    /// Its symbol, such as `€`, where ISO 4217 knows the currency.
    pub fn symbol(self) -> Option<String> {
        Some(Iso::from_code(self.as_str())?.symbol().symbol)
    }

    /// The code's three letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// The amount in the currency's minor unit.
    pub amount_minor: i64,
    /// The currency.
    pub currency: Currency,
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount_minor, self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_currency_is_three_upper_case_letters() {
        assert_eq!(Currency::parse("EUR").map(|c| c.to_string()), Some("EUR".to_owned()));
        for bad in ["", "EU", "EURO", "eur", "E1R", "ÄU"] {
            assert_eq!(Currency::parse(bad), None, "{bad}");
        }
    }
}
