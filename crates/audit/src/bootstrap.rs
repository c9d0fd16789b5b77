//! Intervals that respect patients: whole patients are drawn again, not single samples.
//!
//! ```text
//! replicate r: as many patients as there are, drawn with replacement; the figure of all samples of the patients drawn
//! interval:    the 2.5 % and 97.5 % quantiles over 1,000 replicates (percentile method)
//! ```
//!
//! Several samples of one patient resemble each other, so an interval that counts them as independent (Wilson) is too
//! narrow. Where no patient has two samples, samples are what is drawn.
//!
//! Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentiles) and 8 (drawing the
//! units that are independent). The draws come from the seed of the audit.

use std::collections::BTreeMap;

use nocebo_core::Seed;
use rand::RngExt;

use crate::Rate;

const REPLICATES: u64 = 1000;

/// The patients of an audit, drawn again many times: the same draws for every figure.
#[derive(Debug)]
pub(crate) struct Bootstrap {
    /// Which patient each sample is of.
    patient: Vec<usize>,
    /// How often each patient was drawn, in each replicate.
    drawn: Vec<Vec<u16>>,
    /// Whether some patient has several samples.
    clustered: bool,
}

impl Bootstrap {
    /// `patients` has one key a sample, where they are known.
    pub(crate) fn new(samples: usize, patients: Option<&[String]>, seed: Seed) -> Self {
        let patient: Vec<usize> = match patients {
            None => (0..samples).collect(),
            Some(keys) => {
                let mut numbers = BTreeMap::new();
                keys.iter()
                    .map(|key| {
                        let next = numbers.len();
                        *numbers.entry(key).or_insert(next)
                    })
                    .collect()
            }
        };
        let count = patient.iter().max().map_or(0, |last| last + 1);
        let drawn = (0..REPLICATES)
            .map(|replicate| {
                let mut generator = seed.named("bootstrap").for_sample(replicate);
                let mut times = vec![0_u16; count];
                for _ in 0..count {
                    let lot = &mut times[generator.random_range(0..count)];
                    *lot = lot.saturating_add(1);
                }
                times
            })
            .collect();
        Self { clustered: count < samples, patient, drawn }
    }

    /// The proportion of `true` among (position, flag), with both intervals where patients have several samples.
    pub(crate) fn rate(&self, flags: impl IntoIterator<Item = (usize, bool)>) -> Rate {
        let flags: Vec<(usize, bool)> = flags.into_iter().collect();
        let rate = Rate::of(flags.iter().map(|(_, flag)| *flag));
        if !self.clustered || flags.is_empty() {
            return rate;
        }
        let mut counts = vec![(0_u32, 0_u32); self.drawn.first().map_or(0, Vec::len)];
        for (position, flag) in flags {
            let (hits, trials) = &mut counts[self.patient[position]];
            *hits += u32::from(flag);
            *trials += 1;
        }
        let of = |drawn: &Vec<u16>| {
            let (mut hits, mut trials) = (0_u64, 0_u64);
            for (times, (hit, trial)) in drawn.iter().zip(&counts) {
                hits += u64::from(*times) * u64::from(*hit);
                trials += u64::from(*times) * u64::from(*trial);
            }
            (trials > 0).then(|| hits as f64 / trials as f64)
        };
        Rate { by_patient: percentiles(self.drawn.iter().filter_map(of).collect()), ..rate }
    }

    /// 2.5 % and 97.5 % quantile of a figure over the replicates; it gets how often each sample was drawn.
    pub(crate) fn interval(&self, mut figure: impl FnMut(&dyn Fn(usize) -> f64) -> Option<f64>) -> Option<(f64, f64)> {
        let values = self.drawn.iter().filter_map(|drawn| figure(&|sample| f64::from(drawn[self.patient[sample]])));
        percentiles(values.collect())
    }
}

fn percentiles(mut values: Vec<f64>) -> Option<(f64, f64)> {
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((share * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1];
    Some((at(0.025), at(0.975)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(patients: &[usize]) -> Vec<String> {
        patients.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn samples_of_one_patient_count_as_one() {
        // 20 patients with 10 equal samples each, 10 of them right: as uncertain as 10 of 20, not as 100 of 200.
        let patients: Vec<usize> = (0..200).map(|sample| sample / 10).collect();
        let bootstrap = Bootstrap::new(200, Some(&keys(&patients)), Seed(1));
        let rate = bootstrap.rate((0..200).map(|sample| (sample, sample / 10 < 10)));
        let (lower, upper) = rate.by_patient.unwrap();
        // Binomial(20, ½)/20: the 2.5 % quantile is 6/20, the 97.5 % quantile 14/20; a draw may miss by one.
        assert!((0.25..=0.35).contains(&lower) && (0.65..=0.75).contains(&upper), "{rate:?}");
        assert!(rate.lower > 0.42 && rate.lowest() == lower && rate.highest() == upper, "{rate:?}");
        let again = Bootstrap::new(200, Some(&keys(&patients)), Seed(1));
        assert_eq!(again.rate((0..200).map(|sample| (sample, sample / 10 < 10))), rate);
    }

    #[test]
    fn without_repeated_patients_wilson_is_enough() {
        let bootstrap = Bootstrap::new(3, Some(&keys(&[5, 6, 7])), Seed(1));
        assert_eq!(bootstrap.rate([(0, true), (1, false), (2, true)]).by_patient, None);
        let unknown = Bootstrap::new(100, None, Seed(1));
        let mean = |times: &dyn Fn(usize) -> f64| Some((0..50).map(times).sum::<f64>() / 100.0);
        let (lower, upper) = unknown.interval(mean).unwrap();
        // Standard error √(¼/100) = 0.05.
        assert!((lower - 0.4).abs() < 0.03 && (upper - 0.6).abs() < 0.03, "{lower} {upper}");
    }
}
