//! How uneven load is over shards. All are 0 where there is no load.

/// 1 where all are equal, the number of them where one has all.
pub fn max_over_mean(loads: &[u64]) -> f64 {
    let sum = sum(loads);
    if sum == 0.0 {
        return 0.0;
    }
    loads.iter().max().map_or(0.0, |it| *it as f64 * loads.len() as f64 / sum)
}

/// Standard deviation over mean.
pub fn coefficient_of_variation(loads: &[u64]) -> f64 {
    let (sum, count) = (sum(loads), loads.len() as f64);
    if sum == 0.0 {
        return 0.0;
    }
    let mean = sum / count;
    let variance = loads.iter().map(|it| (*it as f64 / mean - 1.0).powi(2)).sum::<f64>() / count;
    variance.sqrt()
}

/// From 0 where all are equal to `1 - 1 / count` where one has all.
pub fn gini(loads: &[u64]) -> f64 {
    let (sum, count) = (sum(loads), loads.len() as f64);
    if sum == 0.0 {
        return 0.0;
    }
    let mut ordered = loads.to_vec();
    ordered.sort_unstable();
    let ranked: f64 = ordered.iter().enumerate().map(|(at, it)| (at + 1) as f64 * *it as f64).sum();
    (2.0 * ranked / (count * sum) - (count + 1.0) / count).max(0.0)
}

fn sum(loads: &[u64]) -> f64 {
    loads.iter().map(|it| *it as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(loads: &[u64], expect: (f64, f64, f64)) {
        let got = (max_over_mean(loads), coefficient_of_variation(loads), gini(loads));
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(
            close(got.0, expect.0) && close(got.1, expect.1) && close(got.2, expect.2),
            "{loads:?}: {got:?}, not {expect:?}"
        );
    }

    #[test]
    fn known_loads_have_the_skew_that_the_formulas_give() {
        check(&[], (0.0, 0.0, 0.0));
        check(&[0, 0, 0], (0.0, 0.0, 0.0));
        check(&[7], (1.0, 0.0, 0.0));
        check(&[5, 5, 5, 5], (1.0, 0.0, 0.0));
        check(&[0, 0, 0, 12], (4.0, 3f64.sqrt(), 0.75));
        check(&[1, 3], (1.5, 0.5, 0.25));
        // Sums beyond u64.
        check(&[u64::MAX, u64::MAX], (1.0, 0.0, 0.0));
    }

    #[test]
    fn gini_is_half_the_mean_difference_of_all_pairs_over_the_mean() {
        let loads = [3u64, 0, 9, 27, 1, 1, 40];
        let count = loads.len() as f64;
        let pairs: f64 =
            loads.iter().flat_map(|a| loads.iter().map(move |b| (*a as f64 - *b as f64).abs())).sum();
        let mean = loads.iter().sum::<u64>() as f64 / count;
        assert!((gini(&loads) - pairs / (2.0 * count * count * mean)).abs() < 1e-12);
    }
}
