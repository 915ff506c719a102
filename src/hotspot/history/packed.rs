//! Numbers of one span of time in two bytes each: heat maps are looked at, not added up for an invoice.

/// 6 bits of exponent, 10 of mantissa: exact below 2048, from there on within 1/2048.
pub fn pack(value: u64) -> u16 {
    if value < 2048 {
        return value as u16;
    }
    let shift = value.ilog2() - 10;
    let rounded = value.saturating_add(1 << (shift - 1)) >> shift;
    // A mantissa that was rounded up to 2048 carries into the exponent.
    (((shift as u64 + 1) << 10) + (rounded - 1024)) as u16
}

pub fn unpack(packed: u16) -> u64 {
    let (exponent, mantissa) = (u32::from(packed >> 10), u64::from(packed & 1023));
    match exponent {
        0 => mantissa,
        1..=54 => (1024 + mantissa) << (exponent - 1),
        _ => u64::MAX,
    }
}

/// One number for each row, most often all zero (errors), mostly zero (few keys), or none zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Plane {
    #[default]
    Zero,
    /// Rows with their numbers, in order; of less than half of the rows.
    Sparse(Box<[(u16, u16)]>),
    Dense(Box<[u16]>),
}

impl Plane {
    /// Of at most 65,536 rows.
    pub fn of(values: &[u64]) -> Plane {
        let set = values.iter().filter(|it| **it != 0).count();
        if set == 0 {
            return Plane::Zero;
        }
        if set * 2 < values.len() {
            let rows = (0..=u16::MAX).zip(values).filter(|(_, it)| **it != 0);
            return Plane::Sparse(rows.map(|(row, it)| (row, pack(*it))).collect());
        }
        Plane::Dense(values.iter().map(|it| pack(*it)).collect())
    }

    pub fn add_to(&self, sums: &mut [u64]) {
        self.each(|row, value| {
            if let Some(sum) = sums.get_mut(row) {
                *sum = sum.saturating_add(value);
            }
        });
    }

    /// Rows and their numbers, those that are 0 left out.
    pub fn each(&self, mut row: impl FnMut(usize, u64)) {
        match self {
            Plane::Zero => {}
            Plane::Sparse(rows) => rows.iter().for_each(|(at, it)| row(usize::from(*at), unpack(*it))),
            Plane::Dense(rows) => {
                rows.iter().enumerate().filter(|(_, it)| **it != 0).for_each(|(at, it)| row(at, unpack(*it)));
            }
        }
    }

    /// On the heap.
    pub fn bytes(&self) -> usize {
        match self {
            Plane::Zero => 0,
            Plane::Sparse(rows) => size_of_val::<[_]>(rows),
            Plane::Dense(rows) => size_of_val::<[_]>(rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_numbers_are_within_one_of_2048() {
        let edges = (0..64).map(|it| 1u64 << it);
        let values = edges.flat_map(|it| [it - 1, it, it + 1, it + it / 3, it + (it - 1)]);
        for value in values.chain(0..5_000).chain([u64::MAX]) {
            let got = unpack(pack(value));
            assert!(got.abs_diff(value) <= value / 2048, "{value}: {got}");
            assert_eq!(pack(got), pack(value));
        }
        assert!((0..5_000_000u64).step_by(7).all(|it| pack(it) <= pack(it + 7)));
    }

    #[test]
    fn planes_take_the_smaller_form_and_give_back_what_they_hold() {
        for set in [0usize, 1, 10, 49, 50, 100] {
            let values: Vec<u64> = (0..100).map(|it| if it < set { it as u64 + 1 } else { 0 }).collect();
            let plane = Plane::of(&values);
            let mut back = vec![0; 100];
            plane.add_to(&mut back);
            assert_eq!(back, values);
            assert!(plane.bytes() <= 200 && plane.bytes() <= set * 4, "{set}: {}", plane.bytes());
        }
    }
}
