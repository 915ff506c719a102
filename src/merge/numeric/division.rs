//! Quotients, remainders and square roots.

use super::{BASE, DIGIT_DIGITS, DISPLAY_SCALE_MAX, Decimal, Digits, Numeric, SIGNIFICANT_DIGITS_MIN};
use crate::base::Refusal;
use crate::merge::error;

impl Decimal {
    /// As `select_div_scale`: decimals enough for 16 significant digits, and no fewer than either side shows.
    fn quotient_scale(&self, divisor: &Decimal) -> i32 {
        let first = |it: &Decimal| it.digits.first().copied().unwrap_or(0);
        let weight = self.weight - divisor.weight - i32::from(first(self) <= first(divisor));
        (SIGNIFICANT_DIGITS_MIN - weight * DIGIT_DIGITS)
            .max(self.scale)
            .max(divisor.scale)
            .clamp(0, DISPLAY_SCALE_MAX)
    }

    /// As `div_var`: to `scale` decimals, rounded half away from zero or cut. The divisor is not zero.
    fn quotient(&self, divisor: &Decimal, scale: i32, round: bool) -> Decimal {
        let weight = self.weight - divisor.weight;
        // Decimals up to the scale, and one digit more, which decides the rounding.
        let wanted = weight + 2 + (scale + DIGIT_DIGITS - 1) / DIGIT_DIGITS;
        if self.is_zero() || wanted <= 0 {
            return Decimal { scale, ..Decimal::default() };
        }
        let digits = long_division(&self.digits, &divisor.digits, wanted as usize);
        let exact = Decimal::new(self.negative != divisor.negative, weight, scale, digits);
        if round { exact.rounded(scale) } else { exact.truncated(scale) }
    }

    /// As `sqrt_var`: to `scale` decimals, rounded half up. Not negative.
    fn square_root(&self, scale: i32) -> Decimal {
        if self.is_zero() {
            return Decimal { scale, ..Decimal::default() };
        }
        // The root of the value times 10000^2s is the root wanted, times 10000^s.
        let shift = scale / DIGIT_DIGITS + 1;
        let radicand = Decimal { weight: self.weight + 2 * shift, scale: 0, ..self.clone() }.truncated(0);
        let mut root = radicand.integer_root();
        root.weight -= shift;
        root.rounded(scale)
    }

    /// The floor of the root of an integer, by Newton's method from above.
    fn integer_root(&self) -> Decimal {
        if self.is_zero() {
            return Decimal::default();
        }
        let half = Decimal::new(false, -1, 1, Digits::from_elem(BASE / 2, 1));
        let mut root = self.root_from_above();
        loop {
            let next = root.add(&self.quotient(&root, 0, false)).mul(&half).truncated(0);
            if next >= root {
                return root;
            }
            root = next;
        }
    }

    /// An integer that is not below the root: from the first digits, in floating point, rounded up.
    fn root_from_above(&self) -> Decimal {
        let used = if self.weight % 2 == 0 { 3 } else { 4 };
        let head: f64 = (0..used).fold(0.0, |sum, it| sum * 1e4 + f64::from(self.digit(self.weight - it)));
        let above = (head + 1.0).sqrt().ceil() as i64 + 1;
        let Numeric::Finite(mut root) = Numeric::from(above) else { return self.clone() };
        // The digits behind `head` are an even count: half of them are the root's.
        root.weight += (self.weight - used + 1) / 2;
        root.add(&Decimal::new(false, 0, 0, Digits::from_elem(1, 1))).truncated(0)
    }
}

/// The first `count` digits of `dividend / divisor`, both read as fractions below the base with their first
/// digit before the point (Knuth, The Art of Computer Programming, 4.3.1, algorithm D).
fn long_division(dividend: &[u16], divisor: &[u16], count: usize) -> Digits {
    let base = i64::from(BASE);
    let scale = base / (i64::from(divisor[0]) + 1);
    let scaled = |digits: &[u16], length: usize| {
        let mut out = vec![0i64; length + 1];
        let mut carry = 0;
        for at in (0..length).rev() {
            let value = i64::from(digits.get(at).copied().unwrap_or(0)) * scale + carry;
            out[at + 1] = value % base;
            carry = value / base;
        }
        out[0] = carry;
        out
    };
    let length = divisor.len();
    let divisor = &scaled(divisor, length)[1..];
    let mut rest = scaled(dividend, (count + length).max(dividend.len()));
    let second = divisor.get(1).copied().unwrap_or(0);
    let mut digits = Digits::with_capacity(count);
    for at in 0..count {
        let head = rest[at] * base + rest[at + 1];
        let mut guess = (head / divisor[0]).min(base - 1);
        while guess * second > (head - guess * divisor[0]) * base + rest.get(at + 2).copied().unwrap_or(0) {
            guess -= 1;
        }
        let mut borrow = 0;
        for it in (0..length).rev() {
            let value = rest[at + 1 + it] - guess * divisor[it] - borrow;
            rest[at + 1 + it] = value.rem_euclid(base);
            borrow = -value.div_euclid(base);
        }
        rest[at] -= borrow;
        if rest[at] < 0 {
            // One too many: the divisor goes back.
            guess -= 1;
            let mut carry = 0;
            for it in (0..length).rev() {
                let value = rest[at + 1 + it] + divisor[it] + carry;
                rest[at + 1 + it] = value % base;
                carry = value / base;
            }
            rest[at] += carry;
        }
        digits.push(guess as u16);
    }
    digits
}

impl Numeric {
    /// `/`, to the scale that PostgreSQL selects.
    pub fn div(&self, other: &Numeric) -> Result<Numeric, Refusal> {
        match (self, other) {
            (Numeric::NaN, _) | (_, Numeric::NaN) => Ok(Numeric::NaN),
            (Numeric::Finite(a), Numeric::Finite(b)) => {
                if b.is_zero() {
                    return Err(error::division_by_zero());
                }
                Numeric::checked(a.quotient(b, a.quotient_scale(b), true))
            }
            (Numeric::Finite(_), _) => Ok(Numeric::zero()),
            (a, Numeric::Finite(b)) => match b.sign() {
                0 => Err(error::division_by_zero()),
                sign => Ok(Numeric::infinity(a.sign() * sign)),
            },
            _ => Ok(Numeric::NaN),
        }
    }

    /// `%`: what is left of `self` after the whole quotient, with the sign of `self`.
    pub fn rem(&self, other: &Numeric) -> Result<Numeric, Refusal> {
        match (self, other) {
            (Numeric::NaN, _) | (_, Numeric::NaN) => Ok(Numeric::NaN),
            (_, Numeric::Finite(b)) if b.is_zero() => Err(error::division_by_zero()),
            (Numeric::Finite(a), Numeric::Finite(b)) => {
                Numeric::checked(a.sub(&a.quotient(b, 0, false).mul(b)))
            }
            (Numeric::Finite(_), _) => Ok(self.clone()),
            _ => Ok(Numeric::NaN),
        }
    }

    /// As `numeric_stddev_internal`, from how many values, their sum and the sum of their squares: the
    /// variance or its root; `None` is NULL.
    pub fn deviation(
        count: i64,
        sum: &Numeric,
        squares: &Numeric,
        sample: bool,
        root: bool,
    ) -> Result<Option<Numeric>, Refusal> {
        if count == 0 || sample && count == 1 {
            return Ok(None);
        }
        let (Numeric::Finite(sum), Numeric::Finite(squares)) = (sum, squares) else {
            return Ok(Some(Numeric::NaN));
        };
        let integer = |it: i128| match Numeric::from(it) {
            Numeric::Finite(it) => it,
            _ => Decimal::default(),
        };
        let count = i128::from(count);
        let numerator = integer(count).mul(squares).sub(&sum.mul(sum));
        if numerator.sign() <= 0 {
            return Ok(Some(Numeric::zero()));
        }
        let divisor = integer(if sample { count * (count - 1) } else { count * count });
        let scale = numerator.quotient_scale(&divisor);
        let variance = numerator.quotient(&divisor, scale, true);
        Numeric::checked(if root { variance.square_root(scale) } else { variance }).map(Some)
    }
}

#[cfg(test)]
impl Decimal {
    pub(super) fn quotient_for_test(&self, divisor: &Decimal) -> Decimal {
        self.quotient(divisor, 0, false)
    }
}
