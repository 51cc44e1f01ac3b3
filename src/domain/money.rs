//! Money as whole nano-dollars.
//!
//! A nano-dollar is the smallest unit in which a token's price is still exact ($0.00875 per million tokens is 8.75
//! nano-dollars a thousand). No floating-point number is ever involved.

use std::fmt;

/// Nano-dollars in one US dollar.
pub const NANO_PER_USD: i64 = 1_000_000_000;

/// An amount of money in billionths of a US dollar. `i64` reaches to about nine billion dollars.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Parses a decimal such as `2.5` or `0.00875` exactly.
    ///
    /// # Errors
    /// Says what is wrong: not a decimal, negative, more than nine decimals, or too large.
    pub fn parse_usd(text: &str) -> Result<Self, MoneyError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || (text.contains('.') && fraction.is_empty()) {
            return Err(MoneyError::NotADecimal);
        }
        if fraction.len() > 9 {
            return Err(MoneyError::TooFine);
        }
        let whole: i64 = whole.parse().map_err(|_| MoneyError::TooLarge)?;
        let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| MoneyError::NotADecimal)?;
        let nano = whole.checked_mul(NANO_PER_USD).and_then(|n| n.checked_add(fraction));
        nano.map(Self).ok_or(MoneyError::TooLarge)
    }
}

/// Dollars with as many decimals as the amount needs: `0.0000125`, `3`, `-0.5`.
impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nano = self.0.unsigned_abs();
        let (whole, fraction) = (nano / NANO_PER_USD.unsigned_abs(), nano % NANO_PER_USD.unsigned_abs());
        if self.0 < 0 {
            f.write_str("-")?;
        }
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{fraction:09}");
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

/// Why a text is not an amount of money.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MoneyError {
    /// Something other than digits and one point.
    #[error("must be a decimal number of dollars such as \"2.5\"")]
    NotADecimal,
    /// A tenth decimal would be less than a nano-dollar.
    #[error("must have at most nine decimals")]
    TooFine,
    /// Beyond what an `i64` of nano-dollars holds.
    #[error("is too large")]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_exact() {
        assert_eq!(NanoUsd::parse_usd("0.00875"), Ok(NanoUsd(8_750_000)));
        assert_eq!(NanoUsd::parse_usd("2.5"), Ok(NanoUsd(2_500_000_000)));
        assert_eq!(NanoUsd::parse_usd("10"), Ok(NanoUsd(10_000_000_000)));
    }

    #[test]
    fn what_is_not_money_is_refused_with_its_reason() {
        for text in ["", ".", "1.", ".5", "-1", "1e3", "1,5", " 1", "NaN"] {
            assert_eq!(NanoUsd::parse_usd(text), Err(MoneyError::NotADecimal), "{text:?}");
        }
        assert_eq!(NanoUsd::parse_usd("0.0000000001"), Err(MoneyError::TooFine));
        assert_eq!(NanoUsd::parse_usd("99999999999"), Err(MoneyError::TooLarge));
    }

    proptest! {
        #[test]
        fn every_amount_survives_being_printed_and_read(nano in 0..i64::MAX) {
            prop_assert_eq!(NanoUsd::parse_usd(&NanoUsd(nano).to_string()), Ok(NanoUsd(nano)));
        }
    }
}
