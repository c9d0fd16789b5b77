//! Area under the receiver operating characteristic.

use serde::{Deserialize, Serialize};

use crate::bootstrap::Bootstrap;

/// How well a score tells samples with a finding from those without: the share of pairs that it orders rightly, ties
/// counting half, with a 95 % bootstrap interval over patients (samples, where no patient has two).
///
/// Source: Mann & Whitney, Ann. Math. Stat. 18 (1947) 50–60.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Auc {
    /// The area; 0.5 is chance.
    pub value: f64,
    /// Lower end of the interval.
    pub lower: f64,
    /// Upper end of the interval.
    pub upper: f64,
    /// Samples with the finding.
    pub positives: usize,
    /// Samples without it.
    pub negatives: usize,
}

impl Auc {
    /// The area for (score, has the finding), one pair a sample; none where all samples have it or none has.
    pub(crate) fn of(scores: &[(f32, bool)], bootstrap: &Bootstrap) -> Option<Self> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].0.total_cmp(&scores[b].0));
        // −0 and 0 are one score.
        let ties: Vec<&[usize]> = order.chunk_by(|&a, &b| scores[a].0 == scores[b].0).collect();
        let value = area(&ties, scores, &|_| 1.0)?;
        let (lower, upper) = bootstrap.interval(|times| area(&ties, scores, times)).unwrap_or((0.0, 1.0));
        let positives = scores.iter().filter(|(_, has)| *has).count();
        Some(Self { value, lower, upper, positives, negatives: scores.len() - positives })
    }
}

/// The area when sample `i` occurs `times(i)` times; `ties` are the samples of equal score, ascending.
fn area(ties: &[&[usize]], scores: &[(f32, bool)], times: &dyn Fn(usize) -> f64) -> Option<f64> {
    let (mut positives, mut negatives, mut ordered) = (0.0, 0.0, 0.0);
    for tied in ties {
        let (mut with, mut without) = (0.0, 0.0);
        for &sample in *tied {
            *if scores[sample].1 { &mut with } else { &mut without } += times(sample);
        }
        ordered += with * (negatives + without / 2.0);
        positives += with;
        negatives += without;
    }
    let pairs = positives * negatives;
    (pairs > 0.0).then(|| ordered / pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::Seed;

    fn auc(scores: &[(f32, bool)]) -> Option<Auc> {
        Auc::of(scores, &Bootstrap::new(scores.len(), None, Seed(1)))
    }

    #[test]
    fn pairs_are_counted_and_ties_are_half() {
        // Pairs: 3 > 1, 3 > 2, 2 > 1, 2 = 2: 3.5 of 4.
        let found = auc(&[(1.0, false), (2.0, false), (2.0, true), (3.0, true)]).unwrap();
        assert_eq!((found.value, found.positives, found.negatives), (0.875, 2, 2));
        assert_eq!(auc(&[(0.0, true), (-0.0, false)]).unwrap().value, 0.5);
        assert_eq!(auc(&[(1.0, true), (2.0, true)]), None);
    }

    #[test]
    fn the_interval_holds_the_area_and_narrows() {
        let scores = |n: usize| (0..n).map(|i| (((i * 7919) % n) as f32, (i * 7919) % n + i % 13 > n / 2)).collect();
        let (few, many): (Vec<_>, Vec<_>) = (scores(20), scores(400));
        let (few, many) = (auc(&few).unwrap(), auc(&many).unwrap());
        assert!(few.lower <= few.value && few.value <= few.upper, "{few:?}");
        assert!(many.upper - many.lower < few.upper - few.lower + 1e-9, "{few:?} {many:?}");
    }
}
