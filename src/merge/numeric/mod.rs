//! PostgreSQL's `numeric`: digits of base 10,000, a weight and a display scale (numeric.c). Every operation
//! gives PostgreSQL's digits *and* its display scale, because `1.50` and `1.5` are not the same reply.

mod arithmetic;
mod division;
mod text;

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::error;
use crate::base::Refusal;

pub(super) use text::float_text;

/// `NBASE`.
const BASE: u16 = 10_000;
/// Decimal digits in one digit (`DEC_DIGITS`).
const DIGIT_DIGITS: i32 = 4;
/// `NUMERIC_MAX_DISPLAY_SCALE`.
const DISPLAY_SCALE_MAX: i32 = 1_000;
/// `NUMERIC_MIN_SIG_DIGITS`: what a quotient has at least.
const SIGNIFICANT_DIGITS_MIN: i32 = 16;
/// `NUMERIC_DSCALE_MAX`, what the stored form has bits for.
const SCALE_MAX: i32 = 0x3FFF;
/// The stored weight is an int16.
const WEIGHT_MAX: i32 = 0x7FFF;

type Digits = SmallVec<[u16; 8]>;

/// A value of type numeric. Equality and order are by value: `1.0 = 1.00`, NaN equals NaN and is the largest.
#[derive(Clone, Debug)]
pub enum Numeric {
    NegativeInfinity,
    Finite(Decimal),
    PositiveInfinity,
    NaN,
}

/// A finite value: the sum of `digits[i] * 10000 ^ (weight - i)`. Without zero digits at either end; zero has
/// no digits, weight 0 and is not negative. `scale` is how many decimals are shown, never fewer than there
/// are.
#[derive(Clone, Debug, Default)]
pub struct Decimal {
    negative: bool,
    weight: i32,
    scale: i32,
    digits: Digits,
}

fn overflow() -> Refusal {
    error::out_of_range("value overflows numeric format")
}

impl Decimal {
    fn new(negative: bool, weight: i32, scale: i32, digits: Digits) -> Decimal {
        let mut it = Decimal { negative, weight, scale, digits };
        it.strip();
        it
    }

    fn strip(&mut self) {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        let zeros = self.digits.iter().take_while(|it| **it == 0).count();
        if zeros > 0 {
            self.digits.drain(..zeros);
            self.weight -= zeros as i32;
        }
        if self.digits.is_empty() {
            (self.weight, self.negative) = (0, false);
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// The digit that is multiplied by `10000 ^ weight`.
    fn digit(&self, weight: i32) -> u16 {
        usize::try_from(self.weight - weight).ok().and_then(|it| self.digits.get(it).copied()).unwrap_or(0)
    }

    /// -1, 0 or 1.
    fn sign(&self) -> i32 {
        match (self.is_zero(), self.negative) {
            (true, _) => 0,
            (_, true) => -1,
            _ => 1,
        }
    }

    fn compare_abs(&self, other: &Decimal) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            // Without zero digits at the end, the longer one is the larger where all else is equal.
            (false, false) => self.weight.cmp(&other.weight).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Decimal) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.compare_abs(other),
            (true, true) => other.compare_abs(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialEq for Numeric {
    fn eq(&self, other: &Numeric) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Numeric {}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Numeric) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Numeric {
    fn cmp(&self, other: &Numeric) -> Ordering {
        let rank = |it: &Numeric| match it {
            Numeric::NegativeInfinity => 0,
            Numeric::Finite(_) => 1,
            Numeric::PositiveInfinity => 2,
            Numeric::NaN => 3,
        };
        match (self, other) {
            (Numeric::Finite(a), Numeric::Finite(b)) => a.cmp(b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl From<i128> for Numeric {
    fn from(value: i128) -> Numeric {
        let (mut rest, mut digits) = (value.unsigned_abs(), Digits::new());
        while rest > 0 {
            digits.push((rest % u128::from(BASE)) as u16);
            rest /= u128::from(BASE);
        }
        digits.reverse();
        let weight = digits.len() as i32 - 1;
        Numeric::Finite(Decimal::new(value < 0, weight, 0, digits))
    }
}

impl From<i64> for Numeric {
    fn from(value: i64) -> Numeric {
        Numeric::from(i128::from(value))
    }
}

impl Numeric {
    pub fn zero() -> Numeric {
        Numeric::Finite(Decimal::default())
    }

    fn infinity(sign: i32) -> Numeric {
        if sign < 0 { Numeric::NegativeInfinity } else { Numeric::PositiveInfinity }
    }

    fn sign(&self) -> i32 {
        match self {
            Numeric::NaN => 0,
            Numeric::NegativeInfinity => -1,
            Numeric::PositiveInfinity => 1,
            Numeric::Finite(it) => it.sign(),
        }
    }

    /// Decimals that are shown; 0 for what is not finite.
    pub fn scale(&self) -> i32 {
        if let Numeric::Finite(it) = self { it.scale } else { 0 }
    }

    /// As `make_result`: an error where the stored form has no room.
    fn checked(value: Decimal) -> Result<Numeric, Refusal> {
        if value.weight > WEIGHT_MAX || value.scale > SCALE_MAX {
            return Err(overflow());
        }
        Ok(Numeric::Finite(value))
    }

    /// The nearest integer, ties away from zero, as the casts to integer types take it; `None` beyond `i128`,
    /// for NaN and for infinity.
    pub(super) fn to_integer(&self) -> Option<i128> {
        let Numeric::Finite(it) = self else { return None };
        let it = it.rounded(0);
        let mut value: i128 = 0;
        for weight in (0..=it.weight).rev() {
            value = value.checked_mul(BASE.into())?.checked_add(it.digit(weight).into())?;
        }
        Some(if it.negative { -value } else { value })
    }

    /// Reads the external form of `numeric_send`: counts and digits as 16-bit numbers.
    pub fn from_binary(bytes: &[u8]) -> Option<Numeric> {
        let (words, rest) = bytes.as_chunks::<2>();
        let [count, weight, sign, scale, digits @ ..] = words else { return None };
        let word = |it: &[u8; 2]| u16::from_be_bytes(*it);
        if !rest.is_empty() || digits.len() != usize::from(word(count)) {
            return None;
        }
        let negative = match word(sign) {
            0x0000 => false,
            0x4000 => true,
            0xC000 => return Some(Numeric::NaN),
            0xD000 => return Some(Numeric::PositiveInfinity),
            0xF000 => return Some(Numeric::NegativeInfinity),
            _ => return None,
        };
        let digits: Digits = digits.iter().map(word).collect();
        let (weight, scale) = (i32::from(word(weight) as i16), i32::from(word(scale)));
        if scale > SCALE_MAX || digits.iter().any(|it| *it >= BASE) {
            return None;
        }
        Some(Numeric::Finite(Decimal::new(negative, weight, scale, digits)))
    }

    /// Appends the form of `numeric_send`.
    pub fn put_binary(&self, out: &mut Vec<u8>) {
        let mut put = |words: [u16; 4]| words.iter().for_each(|it| out.extend_from_slice(&it.to_be_bytes()));
        match self {
            Numeric::NaN => put([0, 0, 0xC000, 0]),
            // The scale that `numeric_send` finds in the header of an infinity; nobody reads it.
            Numeric::PositiveInfinity => put([0, 0, 0xD000, 32]),
            Numeric::NegativeInfinity => put([0, 0, 0xF000, 32]),
            Numeric::Finite(it) => {
                let sign = if it.negative { 0x4000 } else { 0 };
                put([it.digits.len() as u16, it.weight as i16 as u16, sign, it.scale as u16]);
                it.digits.iter().for_each(|it| out.extend_from_slice(&it.to_be_bytes()));
            }
        }
    }

    /// Bytes that are equal where the values are: the display scale is left out.
    pub(super) fn put_canonical(&self, out: &mut Vec<u8>) {
        match self {
            Numeric::Finite(it) => {
                let bare = Decimal { scale: 0, ..it.clone() };
                Numeric::Finite(bare).put_binary(out);
            }
            _ => self.put_binary(out),
        }
    }
}

#[cfg(test)]
mod tests;
