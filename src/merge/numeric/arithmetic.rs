//! Sums, products and rounding.

use std::cmp::Ordering;

use super::{BASE, DIGIT_DIGITS, Decimal, Digits, Numeric, SCALE_MAX};
use crate::base::Refusal;

/// Scales beyond have meant different things in different versions of PostgreSQL, and nobody writes them.
const ROUND_SCALE_MAX: i32 = 2_000;

impl Decimal {
    pub(super) fn add(&self, other: &Decimal) -> Decimal {
        let scale = self.scale.max(other.scale);
        if self.negative == other.negative {
            return Decimal { negative: self.negative, ..self.add_abs(other, scale) };
        }
        match self.compare_abs(other) {
            Ordering::Equal => Decimal { scale, ..Decimal::default() },
            Ordering::Greater => Decimal { negative: self.negative, ..self.sub_abs(other, scale) },
            Ordering::Less => Decimal { negative: other.negative, ..other.sub_abs(self, scale) },
        }
    }

    pub(super) fn sub(&self, other: &Decimal) -> Decimal {
        self.add(&other.negated())
    }

    pub(super) fn negated(&self) -> Decimal {
        Decimal { negative: !self.negative && !self.is_zero(), ..self.clone() }
    }

    /// Weights of the first and the last digit that either has.
    fn span(&self, other: &Decimal) -> (i32, i32) {
        if self.is_zero() || other.is_zero() {
            let it = if self.is_zero() { other } else { self };
            return (it.weight, it.weight - it.digits.len() as i32 + 1);
        }
        let last = |it: &Decimal| it.weight - it.digits.len() as i32 + 1;
        (self.weight.max(other.weight), last(self).min(last(other)))
    }

    fn add_abs(&self, other: &Decimal, scale: i32) -> Decimal {
        let (first, last) = self.span(other);
        let (mut digits, mut carry) = (Digits::new(), 0);
        for weight in last..=first {
            let sum = self.digit(weight) + other.digit(weight) + carry;
            carry = u16::from(sum >= BASE);
            digits.push(sum - carry * BASE);
        }
        digits.push(carry);
        digits.reverse();
        Decimal::new(false, first + 1, scale, digits)
    }

    /// `other` is not the larger.
    fn sub_abs(&self, other: &Decimal, scale: i32) -> Decimal {
        let (first, last) = self.span(other);
        let (mut digits, mut borrow) = (Digits::new(), 0);
        for weight in last..=first {
            let (have, take) = (self.digit(weight), other.digit(weight) + borrow);
            borrow = u16::from(have < take);
            digits.push(have + borrow * BASE - take);
        }
        digits.reverse();
        Decimal::new(false, first, scale, digits)
    }

    /// The exact product.
    pub(super) fn mul(&self, other: &Decimal) -> Decimal {
        let scale = self.scale + other.scale;
        if self.is_zero() || other.is_zero() {
            return Decimal { scale, ..Decimal::default() };
        }
        let mut sums = vec![0u64; self.digits.len() + other.digits.len()];
        for (i, a) in self.digits.iter().enumerate() {
            for (j, b) in other.digits.iter().enumerate() {
                sums[i + j + 1] += u64::from(*a) * u64::from(*b);
            }
        }
        let mut carry = 0;
        let mut digits = Digits::from_elem(0, sums.len());
        for (digit, sum) in digits.iter_mut().zip(&sums).rev() {
            let sum = sum + carry;
            *digit = (sum % u64::from(BASE)) as u16;
            carry = sum / u64::from(BASE);
        }
        Decimal::new(self.negative != other.negative, self.weight + other.weight + 1, scale, digits)
    }

    /// As `round_var`: to `scale` decimals, which may be negative, ties away from zero.
    pub(super) fn rounded(&self, scale: i32) -> Decimal {
        self.cut(scale, true)
    }

    /// As `trunc_var`.
    pub(super) fn truncated(&self, scale: i32) -> Decimal {
        self.cut(scale, false)
    }

    fn cut(&self, scale: i32, round: bool) -> Decimal {
        let shown = scale.max(0);
        // Decimal places that stay, counted from the first digit's highest place.
        let kept = (self.weight + 1) * DIGIT_DIGITS + scale;
        if self.is_zero() || kept < 0 {
            return Decimal { scale: shown, ..Decimal::default() };
        }
        let (whole, part) = ((kept / DIGIT_DIGITS) as usize, kept % DIGIT_DIGITS);
        if whole >= self.digits.len() {
            return Decimal { scale: shown, ..self.clone() };
        }
        // A zero in front takes the carry.
        let mut digits = Digits::from_elem(0, 1);
        digits.extend_from_slice(&self.digits[..=whole]);
        let unit = 10u16.pow((DIGIT_DIGITS - part) as u32);
        let last = digits[whole + 1];
        let mut carry = 0;
        let below = last % unit;
        digits[whole + 1] = last - below;
        if round && below >= unit / 2 {
            carry = unit;
        }
        for digit in digits.iter_mut().rev() {
            let sum = *digit + carry;
            *digit = sum % BASE;
            carry = sum / BASE;
            if carry == 0 {
                break;
            }
        }
        Decimal::new(self.negative, self.weight + 1, shown, digits)
    }
}

impl Numeric {
    pub fn add(&self, other: &Numeric) -> Result<Numeric, Refusal> {
        match (self, other) {
            (Numeric::Finite(a), Numeric::Finite(b)) => Numeric::checked(a.add(b)),
            (Numeric::NaN, _) | (_, Numeric::NaN) => Ok(Numeric::NaN),
            (Numeric::Finite(_), it) | (it, Numeric::Finite(_)) => Ok(it.clone()),
            (a, b) => Ok(if a == b { a.clone() } else { Numeric::NaN }),
        }
    }

    pub fn sub(&self, other: &Numeric) -> Result<Numeric, Refusal> {
        self.add(&other.negated())
    }

    #[must_use]
    pub fn negated(&self) -> Numeric {
        match self {
            Numeric::NaN => Numeric::NaN,
            Numeric::Finite(it) => Numeric::Finite(it.negated()),
            Numeric::PositiveInfinity => Numeric::NegativeInfinity,
            Numeric::NegativeInfinity => Numeric::PositiveInfinity,
        }
    }

    #[must_use]
    pub fn abs(&self) -> Numeric {
        if self.sign() < 0 { self.negated() } else { self.clone() }
    }

    pub fn mul(&self, other: &Numeric) -> Result<Numeric, Refusal> {
        match (self, other) {
            (Numeric::Finite(a), Numeric::Finite(b)) => {
                let product = a.mul(b);
                Numeric::checked(if product.scale > SCALE_MAX { product.rounded(SCALE_MAX) } else { product })
            }
            (Numeric::NaN, _) | (_, Numeric::NaN) => Ok(Numeric::NaN),
            (a, b) => Ok(match a.sign() * b.sign() {
                0 => Numeric::NaN,
                sign => Numeric::infinity(sign),
            }),
        }
    }

    /// `round(numeric, integer)`.
    pub fn round(&self, scale: i32) -> Result<Numeric, Refusal> {
        let Numeric::Finite(it) = self else { return Ok(self.clone()) };
        Numeric::checked(it.rounded(scale.clamp(-ROUND_SCALE_MAX, ROUND_SCALE_MAX)))
    }

    /// `trunc(numeric, integer)`.
    #[must_use]
    pub fn trunc(&self, scale: i32) -> Numeric {
        let Numeric::Finite(it) = self else { return self.clone() };
        Numeric::Finite(it.truncated(scale.clamp(-ROUND_SCALE_MAX, ROUND_SCALE_MAX)))
    }

    pub fn floor(&self) -> Result<Numeric, Refusal> {
        let Numeric::Finite(it) = self else { return Ok(self.clone()) };
        let whole = it.truncated(0);
        if it.negative && whole != *it {
            return Numeric::Finite(whole).sub(&Numeric::from(1i64));
        }
        Ok(Numeric::Finite(whole))
    }

    pub fn ceil(&self) -> Result<Numeric, Refusal> {
        self.negated().floor().map(|it| it.negated())
    }
}
