//! Medians, and how far they can be trusted.

/// The middle; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let (Some(upper), at) = (sorted.get(sorted.len() / 2), sorted.len() / 2) else { return 0.0 };
    if sorted.len() % 2 == 1 { *upper } else { f64::midpoint(sorted[at - 1], *upper) }
}

/// Smallest and largest.
pub fn span(values: &[f64]) -> (f64, f64) {
    let sorted = sorted(values);
    (sorted.first().copied().unwrap_or(0.0), sorted.last().copied().unwrap_or(0.0))
}

/// The true median is at most this, with 90 % confidence and whatever the distribution: each value
/// is below it with one half. None of too few values.
pub fn upper_bound(values: &[f64]) -> Option<f64> {
    let place = place_of_bound(values.len())?;
    sorted(values).get(place - 1).copied()
}

/// The true median is at least this.
pub fn lower_bound(values: &[f64]) -> Option<f64> {
    let place = place_of_bound(values.len())?;
    sorted(values).get(values.len() - place).copied()
}

/// The first `k` for which fewer than `k` of `n` fair coins show heads with 90 % at least.
fn place_of_bound(n: usize) -> Option<usize> {
    let (mut binomial, mut below) = (0.5_f64.powi(n as i32), 0.0);
    for k in 1..=n {
        below += binomial;
        if 0.9 <= below {
            return Some(k);
        }
        binomial *= (n + 1 - k) as f64 / k as f64;
    }
    None
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_come_from_the_binomial_distribution() {
        let places: Vec<_> = (3..=9).map(place_of_bound).collect();
        assert_eq!(places, [None, Some(4), Some(5), Some(6), Some(6), Some(7), Some(7)]);
        let nine: Vec<_> = (1..=9).rev().map(f64::from).collect();
        assert_eq!((upper_bound(&nine), lower_bound(&nine)), (Some(7.0), Some(3.0)));
        assert!((median(&nine) - 5.0).abs() < 1e-9 && (median(&nine[1..]) - 4.5).abs() < 1e-9);
        assert_eq!(span(&nine), (1.0, 9.0));
    }
}
