//! Parts of a data set for training, validation and test, kept apart by patient.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use nocebo_core::{Label, Seed};

use crate::dataset::stratum;
use crate::{DataError, Dataset, Warning};

/// A part of a data set.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For fitting.
    Train,
    /// For choosing a checkpoint or a threshold.
    Validation,
    /// For the numbers that are reported.
    Test,
}

impl Split {
    /// All splits, in order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The split that a file or folder calls `name`: `train`, `training`, `val`, `valid`, `validation`, `test` or
    /// `testing`, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// Shares of the three splits, for data that come without a split of their own.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fractions {
    /// Share of the train split, 0 to 1.
    pub train: f64,
    /// Share of the validation split, 0 to 1.
    pub validation: f64,
    /// Share of the test split, 0 to 1.
    pub test: f64,
}

impl Default for Fractions {
    /// 70 % train, 10 % validation, 20 % test, as in MedMNIST.
    fn default() -> Self {
        Self { train: 0.7, validation: 0.1, test: 0.2 }
    }
}

impl Fractions {
    pub(crate) fn shares(self) -> Result<[f64; 3], DataError> {
        let shares = [self.train, self.validation, self.test];
        let usable = shares.iter().all(|share| (0.0..=1.0).contains(share));
        if usable && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-6 {
            return Ok(shares);
        }
        Err(DataError::InvalidOption {
            field: "fractions",
            must_be: "three shares from 0 to 1 with the sum 1",
            got: format!("{shares:?}"),
        })
    }
}

/// Draws a split for each sample: stratified by label (masks are all alike), whole patients only, the same for the same seed.
///
/// Samples of one patient stay together; a sample without a patient key is its own patient. A patient belongs to the
/// stratum of its rarest label. In each stratum the patients are shuffled with (seed, number of the stratum) and dealt one by one to
/// the split that lacks most samples; every split with a share above 0 first gets one patient while they last, largest
/// share first.
///
/// # Errors
///
/// When the fractions are unusable or there is not one patient key a label.
pub fn assign(
    labels: &[Label],
    patients: Option<&[String]>,
    fractions: Fractions,
    seed: Seed,
) -> Result<Vec<Split>, DataError> {
    let shares = fractions.shares()?;
    if let Some(patients) = patients
        && patients.len() != labels.len()
    {
        return Err(DataError::Length {
            file: "split".to_owned(),
            what: "patients",
            expected: labels.len(),
            got: patients.len(),
        });
    }
    let labels: Vec<Label> = labels.iter().map(stratum).collect();
    let mut frequency: BTreeMap<&Label, usize> = BTreeMap::new();
    for label in &labels {
        *frequency.entry(label).or_default() += 1;
    }
    let mut groups: BTreeMap<(&str, usize), Vec<usize>> = BTreeMap::new();
    for sample in 0..labels.len() {
        let key = patients.map_or(("", sample), |patients| (patients[sample].as_str(), 0));
        groups.entry(key).or_default().push(sample);
    }
    let mut strata: BTreeMap<&Label, Vec<Vec<usize>>> = BTreeMap::new();
    for group in groups.into_values() {
        let rarest = group.iter().map(|&sample| &labels[sample]).min_by_key(|label| (frequency[label], *label));
        if let Some(label) = rarest {
            strata.entry(label).or_default().push(group);
        }
    }

    let mut splits = vec![Split::Train; labels.len()];
    for (stratum, mut groups) in strata.into_values().enumerate() {
        groups.shuffle(&mut seed.named("split").for_sample(stratum as u64));
        let total: usize = groups.iter().map(Vec::len).sum();
        let mut lacking = shares.map(|share| share * total as f64);
        let mut unserved: Vec<usize> = (0..3).filter(|&split| shares[split] > 0.0).collect();
        unserved.sort_by(|&a, &b| shares[a].total_cmp(&shares[b]).then(b.cmp(&a)));
        for group in groups {
            let neediest = (0..3).rev().max_by(|&a, &b| lacking[a].total_cmp(&lacking[b])).unwrap_or(0);
            let chosen = unserved.pop().unwrap_or(neediest);
            lacking[chosen] -= group.len() as f64;
            for sample in group {
                splits[sample] = Split::ALL[chosen];
            }
        }
    }
    Ok(splits)
}

/// Patients and pictures that occur in more than one of the given splits: what a model has seen must not be tested.
///
/// Two samples are the same picture when all their values are equal.
pub fn leaks(parts: &[(Split, &Dataset)]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (position, &(first, one)) in parts.iter().enumerate() {
        for &(second, other) in &parts[position + 1..] {
            let splits = (first, second);
            if let (Some(left), Some(right)) = (one.patients(), other.patients()) {
                warnings.extend(shared_patients(splits, left, right));
            }
            let samples = shared_samples(one, other);
            if samples > 0 {
                warnings.push(Warning::SameSample { splits, samples });
            }
        }
    }
    warnings
}

/// A warning when patients occur on both sides.
pub(crate) fn shared_patients<T: Ord>(splits: (Split, Split), left: &[T], right: &[T]) -> Option<Warning> {
    let known: std::collections::BTreeSet<&T> = left.iter().collect();
    let both: std::collections::BTreeSet<&T> = right.iter().filter(|patient| known.contains(patient)).collect();
    (!both.is_empty()).then_some(Warning::SamePatient { splits, patients: both.len() })
}

/// Number of samples of `other` that are also in `one`.
fn shared_samples(one: &Dataset, other: &Dataset) -> usize {
    let hash = |row: &[f32]| {
        let mut hasher = DefaultHasher::new();
        for value in row {
            value.to_bits().hash(&mut hasher);
        }
        hasher.finish()
    };
    let mut known: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (row, values) in one.samples().rows().enumerate() {
        known.entry(hash(values)).or_default().push(row);
    }
    let is_known = |row: &[f32]| {
        known.get(&hash(row)).is_some_and(|candidates| candidates.iter().any(|&at| one.samples().row(at) == row))
    };
    other.samples().rows().filter(|row| is_known(row)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::tests::grey;

    fn count(splits: &[Split]) -> [usize; 3] {
        Split::ALL.map(|split| splits.iter().filter(|&&other| other == split).count())
    }

    #[test]
    fn fractions_hold_in_each_class() {
        let labels: Vec<Label> = (0..130).map(|sample| Label::Class(usize::from(sample >= 100))).collect();
        let splits = assign(&labels, None, Fractions::default(), Seed(1)).unwrap();
        assert_eq!(count(&splits[..100]), [70, 10, 20]);
        assert_eq!(count(&splits[100..]), [21, 3, 6]);
        assert_eq!(splits, assign(&labels, None, Fractions::default(), Seed(1)).unwrap());
        assert_ne!(splits, assign(&labels, None, Fractions::default(), Seed(2)).unwrap());
    }

    #[test]
    fn three_patients_reach_every_split_and_a_share_of_zero_none() {
        let labels = vec![Label::Class(0); 3];
        assert_eq!(count(&assign(&labels, None, Fractions::default(), Seed(5)).unwrap()), [1, 1, 1]);
        let no_test = Fractions { train: 0.5, validation: 0.5, test: 0.0 };
        assert_eq!(count(&assign(&vec![Label::Class(0); 10], None, no_test, Seed(5)).unwrap()), [5, 5, 0]);
    }

    #[test]
    fn a_patient_is_never_divided() {
        let labels: Vec<Label> = (0..200).map(|sample| Label::Class(sample % 2)).collect();
        let patients: Vec<String> = (0..200).map(|sample| format!("p{}", sample / 3)).collect();
        let splits = assign(&labels, Some(&patients), Fractions::default(), Seed(3)).unwrap();
        for (a, b) in (0..200).zip(1..200) {
            assert!(patients[a] != patients[b] || splits[a] == splits[b], "sample {a}");
        }
        let [train, validation, test] = count(&splits);
        assert!((130..=150).contains(&train) && (14..=26).contains(&validation) && (34..=46).contains(&test));
    }

    #[test]
    fn unusable_fractions_are_refused() {
        for (train, test) in [(0.7, 0.4), (-0.1, 1.1), (f64::NAN, 0.5)] {
            let fractions = Fractions { train, validation: 0.0, test };
            assert!(assign(&[Label::Class(0)], None, fractions, Seed(0)).is_err());
        }
    }

    #[test]
    fn patients_and_pictures_on_both_sides_are_found() {
        let train = grey(&[&[1, 2], &[3, 4]], &[0, 1]).with_patients(vec!["a".into(), "b".into()]).unwrap();
        let test = grey(&[&[3, 4], &[4, 3]], &[0, 1]).with_patients(vec!["b".into(), "b".into()]).unwrap();
        let warnings = leaks(&[(Split::Train, &train), (Split::Test, &test)]);
        let splits = (Split::Train, Split::Test);
        assert_eq!(
            warnings,
            [Warning::SamePatient { splits, patients: 1 }, Warning::SameSample { splits, samples: 1 }]
        );
        assert_eq!(leaks(&[(Split::Train, &train)]), []);
    }
}
