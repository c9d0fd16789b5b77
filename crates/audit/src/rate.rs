//! Proportions with their interval.

use serde::{Deserialize, Serialize};

/// Standard normal quantile of a two-sided 95 % interval, as commonly rounded.
const Z: f64 = 1.96;

/// A proportion `hits / trials` with its 95 % Wilson score interval.
///
/// ```text
/// centre = (p + z²/2n) / (1 + z²/n)      half = z / (1 + z²/n) · √(p(1−p)/n + z²/4n²)      z = 1.96
/// ```
///
/// Without trials nothing is known: no value, and the interval is [0, 1].
///
/// Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209–212.
///
/// ```
/// # use nocebo_audit::Rate;
/// let rate = Rate::new(8, 10);
/// assert_eq!(rate.value, Some(0.8));
/// assert!((rate.lower - 0.4902).abs() < 1e-4 && (rate.upper - 0.9433).abs() < 1e-4);
/// ```
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Rate {
    /// Cases counted.
    pub hits: u64,
    /// Cases looked at.
    pub trials: u64,
    /// `hits / trials`; none without trials.
    pub value: Option<f64>,
    /// Lower end of the interval.
    pub lower: f64,
    /// Upper end of the interval.
    pub upper: f64,
    /// Ends of a 95 % bootstrap interval over patients, where some patient has several samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_patient: Option<(f64, f64)>,
}

impl Rate {
    /// The proportion of `hits` in `trials`, of which there are at least as many.
    pub fn new(hits: usize, trials: usize) -> Self {
        let (hits, trials) = (hits as u64, trials as u64);
        if trials == 0 {
            return Self { hits, trials, value: None, lower: 0.0, upper: 1.0, by_patient: None };
        }
        let n = trials as f64;
        let p = hits as f64 / n;
        let scale = 1.0 + Z * Z / n;
        let centre = (p + Z * Z / (2.0 * n)) / scale;
        let half = Z / scale * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        // The ends are exact where every case or none is a hit; rounding would put them a hair inside.
        let lower = if hits == 0 { 0.0 } else { centre - half };
        let upper = if hits == trials { 1.0 } else { centre + half };
        Self { hits, trials, value: Some(p), lower, upper, by_patient: None }
    }

    /// The proportion of `true`.
    pub fn of(flags: impl IntoIterator<Item = bool>) -> Self {
        let (mut hits, mut trials) = (0, 0);
        for flag in flags {
            hits += usize::from(flag);
            trials += 1;
        }
        Self::new(hits, trials)
    }

    /// The proportion of the cases that are no hits.
    pub fn complement(self) -> Self {
        let mirrored = self.by_patient.map(|(lower, upper)| (1.0 - upper, 1.0 - lower));
        Self { by_patient: mirrored, ..Self::new((self.trials - self.hits) as usize, self.trials as usize) }
    }

    /// The lower end of the wider interval: what a claim of "at least" is held against.
    pub fn lowest(self) -> f64 {
        self.by_patient.map_or(self.lower, |(lower, _)| lower.min(self.lower))
    }

    /// The upper end of the wider interval.
    pub fn highest(self) -> f64 {
        self.by_patient.map_or(self.upper, |(_, upper)| upper.max(self.upper))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn intervals_computed_by_hand() {
        // z² = 3.8416. For 0 of 10: upper = (z²/10) / (1 + z²/10) = 0.38416 / 1.38416.
        let none = Rate::new(0, 10);
        assert_eq!((none.value, none.lower), (Some(0.0), 0.0));
        assert!((none.upper - 0.277_540_2).abs() < 1e-6, "{none:?}");
        // For 50 of 100: centre 0.5; half = 1.96 / 1.038416 · √(0.0025 + 0.0000960400) = 0.096168.
        let half = Rate::new(50, 100);
        assert!((half.lower - 0.403_832).abs() < 1e-5 && (half.upper - 0.596_168).abs() < 1e-5, "{half:?}");
        let all = Rate::new(10, 10);
        assert_eq!(all.upper, 1.0);
        assert!((all.lower - 0.722_459_8).abs() < 1e-6, "{all:?}");
    }

    #[test]
    fn without_trials_nothing_is_known() {
        let empty = Rate::of([]);
        assert_eq!((empty.value, empty.lower, empty.upper), (None, 0.0, 1.0));
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_value_and_mirrors(trials in 1_usize..2000, share in 0.0_f64..=1.0) {
            let hits = (share * trials as f64) as usize;
            let rate = Rate::new(hits, trials);
            let value = rate.value.unwrap();
            prop_assert!(0.0 <= rate.lower && rate.lower <= value && value <= rate.upper && rate.upper <= 1.0, "{rate:?}");
            let mirrored = rate.complement();
            prop_assert!((mirrored.lower - (1.0 - rate.upper)).abs() < 1e-12);
        }
    }
}
