//! Seeded, physically motivated phantoms with a finding, one module a modality.
//!
//! A phantom stands in for patients where there are no data: in a demo, a test, a first run. Each sample depends on
//! (seed, index) alone, so any part of a data set can be made anywhere. Nothing measured on phantoms says anything
//! about patients.
//!
//! [`MODALITIES`] lists them; a [`Phantom`] is one of them with a size and a difficulty, and draws samples or whole data
//! sets. `docs/phantoms.md` shows them.

mod brain_mri;
mod canvas;
pub mod chest_xray;
mod ct;
mod dermoscopy;
mod ecg;
mod eeg;
mod ehr;
mod field;
mod fundus;
mod histology;
mod mammogram;
mod oct;
mod ppg;
mod store;
mod ultrasound;

use std::ops::{Range, RangeInclusive};

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use nocebo_core::{Domain, Label, Samples, Seed};

use crate::{DataError, Dataset};

pub use chest_xray::{ChestXray, ChestXrayConfig, ChestXraySample};

/// Every modality, pictures first.
pub static MODALITIES: &[Modality] = &[
    chest_xray::MODALITY,
    ct::SLICE,
    ct::VOLUME,
    brain_mri::MODALITY,
    ultrasound::MODALITY,
    fundus::MODALITY,
    dermoscopy::MODALITY,
    oct::MODALITY,
    mammogram::MODALITY,
    histology::MODALITY,
    ecg::MODALITY,
    eeg::MODALITY,
    ppg::MODALITY,
    ehr::MODALITY,
];

/// A kind of examination that phantoms exist for.
pub struct Modality {
    /// Name on the command line.
    pub name: &'static str,
    /// What is drawn, in one line.
    pub about: &'static str,
    /// Names of the classes; the first has no finding.
    pub classes: &'static [&'static str],
    /// Default number of pixels a side, values of a signal, or time steps of a table.
    pub size: usize,
    /// Default difficulty, above 0 and at most 1.
    pub difficulty: f32,
    /// Format of the field.
    pub storage: Storage,
    /// Meaning of the values of a sample of a size.
    domain: fn(usize) -> Result<Domain, nocebo_core::Error>,
    draw: fn(&Order) -> Drawing,
}

/// Format that a modality is written in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Storage {
    /// PNG pictures.
    Pictures,
    /// DICOM images.
    Dicom {
        /// The standard's code.
        modality: &'static str,
        /// Centre and width of the window to look at it with.
        window: [f64; 2],
        /// Width of the picture in cm, where it has one.
        field: Option<f32>,
    },
    /// NIfTI volumes.
    Nifti {
        /// Width of the picture in cm.
        field: f32,
        /// Distance between slices in cm.
        slices: f32,
    },
    /// WFDB records, or EDF where the unit is microvolt.
    Records {
        /// Samples a second.
        frequency: f64,
    },
    /// A CSV table.
    Table,
}

/// What a modality is asked to draw.
pub(crate) struct Order {
    size: usize,
    difficulty: f32,
    class: usize,
    seed: Seed,
    index: u64,
}

impl Order {
    fn rng(&self) -> ChaCha8Rng {
        self.seed.for_sample(self.index)
    }
}

/// What it draws: values in the unit of the domain, still to be rounded to its steps, and the pixels of the finding (empty where it has no
/// outline).
pub(crate) struct Drawing {
    values: Vec<f32>,
    mask: Vec<bool>,
}

/// One sample of a phantom.
#[derive(Clone, Debug, PartialEq)]
pub struct PhantomSample {
    /// Number in the series.
    pub index: u64,
    /// Values in the unit of the domain.
    pub values: Vec<f32>,
    /// Number of the class.
    pub class: usize,
    /// Pixels of the finding, of the shape of a sample without its channels; empty where findings have no outline.
    pub mask: Vec<bool>,
}

/// A modality with a size and a difficulty.
///
/// ```
/// # use nocebo_core::Seed;
/// # use nocebo_data::phantoms::Phantom;
/// let phantom = Phantom::new("ct-slice", Some(32), None)?;
/// let data = phantom.dataset(Seed(1), 0..4)?;
/// assert_eq!((data.len(), data.samples().shape()), (4, [1, 32, 32].as_slice()));
/// # Ok::<(), nocebo_data::DataError>(())
/// ```
pub struct Phantom {
    modality: &'static Modality,
    size: usize,
    difficulty: f32,
    domain: Domain,
}

/// Sizes that can be asked for.
const SIZES: RangeInclusive<usize> = 16..=1024;

impl Phantom {
    /// The phantom of this name, with the modality's own size and difficulty where none is given.
    ///
    /// # Errors
    ///
    /// When there is no modality of this name, the size is not from 16 to 1024, or the difficulty is not above 0 and at
    /// most 1.
    pub fn new(name: &str, size: Option<usize>, difficulty: Option<f32>) -> Result<Self, DataError> {
        let Some(modality) = MODALITIES.iter().find(|modality| modality.name == name) else {
            let names: Vec<&str> = MODALITIES.iter().map(|modality| modality.name).collect();
            let got = format!("`{name}`; there are {}", names.join(", "));
            return Err(DataError::InvalidOption { field: "modality", must_be: "the name of a phantom", got });
        };
        let size = size.unwrap_or(modality.size);
        if !SIZES.contains(&size) {
            return Err(DataError::InvalidOption { field: "size", must_be: "16 to 1024", got: size.to_string() });
        }
        let difficulty = difficulty.unwrap_or(modality.difficulty);
        if !(difficulty > 0.0 && difficulty <= 1.0) {
            let got = difficulty.to_string();
            return Err(DataError::InvalidOption { field: "difficulty", must_be: "above 0 and at most 1", got });
        }
        Ok(Self { modality, size, difficulty, domain: (modality.domain)(size)? })
    }

    /// What is drawn.
    pub fn modality(&self) -> &'static Modality {
        self.modality
    }

    /// Pixels a side, values of a signal, or time steps.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Meaning of the values.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The sample number `index` of the endless series that belongs to `seed`.
    ///
    /// As many consecutive samples as there are classes, from a multiple of that number on, have one class each.
    pub fn sample(&self, seed: Seed, index: u64) -> PhantomSample {
        self.drawn(&self.order(seed, index))
    }

    fn order(&self, seed: Seed, index: u64) -> Order {
        let count = self.modality.classes.len();
        let mut classes: Vec<usize> = (0..count).collect();
        let seed = seed.named(self.modality.name);
        classes.shuffle(&mut seed.named("classes").for_sample(index / count as u64));
        let class = classes[(index % count as u64) as usize];
        Order { size: self.size, difficulty: self.difficulty, class, seed, index }
    }

    fn drawn(&self, order: &Order) -> PhantomSample {
        let Drawing { mut values, mask } = (self.modality.draw)(order);
        self.domain.store(&mut values);
        PhantomSample { index: order.index, values, class: order.class, mask }
    }

    /// What the scanner measured for [`Phantom::sample`]: real, then imaginary parts `[2, size, size]`, the middle of k-space in
    /// the middle. The magnitude of the inverse transform (with a factor of 1 / size², and the middle of the picture in the
    /// middle) is the picture before it is rounded.
    ///
    /// # Errors
    ///
    /// When the phantom is not `brain-mri`.
    pub fn k_space(&self, seed: Seed, index: u64) -> Result<Vec<f32>, DataError> {
        if self.modality.name != brain_mri::MODALITY.name {
            let got = self.modality.name.to_owned();
            return Err(DataError::InvalidOption { field: "modality", must_be: "brain-mri, to have a k-space", got });
        }
        Ok(brain_mri::k_space(&self.order(seed, index)))
    }

    /// The samples of a range of indices.
    pub fn samples(&self, seed: Seed, indices: Range<u64>) -> Vec<PhantomSample> {
        let numbers: Vec<u64> = indices.collect();
        numbers.par_iter().map(|&index| self.sample(seed, index)).collect()
    }

    /// The samples of a range of indices as a data set; every sample is a patient of its own.
    ///
    /// # Errors
    ///
    /// When the range is empty.
    pub fn dataset(&self, seed: Seed, indices: Range<u64>) -> Result<Dataset, DataError> {
        let source = format!("{} phantoms {} to {}, seed {}", self.modality.name, indices.start, indices.end, seed.0);
        self.collect(source, self.samples(seed, indices))
    }

    fn collect(&self, source: String, samples: Vec<PhantomSample>) -> Result<Dataset, DataError> {
        let labels = samples.iter().map(|sample| Label::Class(sample.class)).collect();
        let numbers: Vec<u64> = samples.iter().map(|sample| sample.index).collect();
        let patients = numbers.iter().map(|number| format!("phantom-{number}")).collect();
        let values = samples.into_iter().flat_map(|sample| sample.values).collect();
        let names = self.modality.classes.iter().map(|&name| name.to_owned()).collect();
        let samples = Samples::new(values, self.domain.shape())?.with_indices(numbers)?;
        Dataset::new(source, samples, labels, names, self.domain.clone())?.with_patients(patients)
    }
}

/// How many times finer than `size` a picture is computed: until it has `finest` pixels a side, and at most four times.
pub(crate) fn factor(size: usize, finest: usize) -> usize {
    finest.div_ceil(size).min(4)
}

/// A number from the uniform distribution on `[low, high)`.
pub(crate) fn uniform(rng: &mut impl Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.random::<f32>()
}

/// A number from the normal distribution, at most 2.5 standard deviations from the mean: anatomy has limits.
pub(crate) fn normal(rng: &mut impl Rng, mean: f32, standard_deviation: f32) -> f32 {
    let deviation: f32 = StandardNormal.sample(rng);
    mean + standard_deviation * deviation.clamp(-2.5, 2.5)
}

/// `true` with the given probability.
pub(crate) fn chance(rng: &mut impl Rng, probability: f32) -> bool {
    rng.random::<f32>() < probability
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpenOptions;

    /// Small enough for a debug build.
    fn small(modality: &Modality, difficulty: f32) -> Phantom {
        let size = match modality.name {
            "ecg" | "ppg" => 400,
            "eeg" => 64,
            "ehr" => 24,
            _ => 16,
        };
        Phantom::new(modality.name, Some(size), Some(difficulty)).unwrap()
    }

    #[test]
    fn a_sample_depends_on_seed_and_index_only_and_lies_on_the_grid_of_the_domain() {
        for modality in MODALITIES {
            let phantom = small(modality, 0.5);
            let data = phantom.dataset(Seed(3), 5..7).unwrap();
            for (row, index) in (5..7).enumerate() {
                let sample = phantom.sample(Seed(3), index);
                assert_eq!(data.samples().row(row), sample.values, "{} {index}", modality.name);
                assert_eq!(data.labels()[row], Label::Class(sample.class));
                let mut stored = sample.values.clone();
                phantom.domain().store(&mut stored);
                assert_eq!(stored, sample.values, "{}", modality.name);
                let (low, high) =
                    sample.values.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
                assert!(high > low, "{}", modality.name);
            }
            assert_ne!(phantom.sample(Seed(4), 5).values, data.samples().row(0), "{}", modality.name);
        }
    }

    #[test]
    fn consecutive_samples_have_one_class_each() {
        for modality in
            MODALITIES.iter().filter(|modality| matches!(modality.storage, Storage::Table | Storage::Records { .. }))
        {
            let count = modality.classes.len() as u64;
            let data = small(modality, 0.5).dataset(Seed(1), 2 * count..6 * count).unwrap();
            assert!(data.class_counts().iter().all(|&seen| seen == 4), "{}", modality.name);
        }
    }

    /// A sample of a class of one's choice.
    fn drawn(phantom: &Phantom, seed: Seed, index: u64, class: usize) -> PhantomSample {
        phantom.drawn(&Order { class, ..phantom.order(seed, index) })
    }

    /// Mean change of a value (in units of its range of values) that the finding brings inside its outline and outside; the same
    /// sample with and without it differs in nothing else.
    fn change(modality: &Modality, difficulty: f32) -> (f32, f32) {
        // As large as by default: the hardest nodule has no pixel of its own at half of that.
        let phantom = Phantom::new(modality.name, Some(64), Some(difficulty)).unwrap();
        let (mut inside, mut outside) = ((0.0, 0usize), (0.0, 0usize));
        for index in 0..3 {
            let (without, with) = (drawn(&phantom, Seed(7), index, 0), drawn(&phantom, Seed(7), index, 1));
            assert!(without.mask.iter().all(|&inside| !inside), "{}", modality.name);
            let area = with.mask.len();
            for at in 0..with.values.len() {
                let difference = (with.values[at] - without.values[at]).abs();
                let sum = if with.mask[at % area] { &mut inside } else { &mut outside };
                *sum = (sum.0 + difference, sum.1 + 1);
            }
        }
        assert!(inside.1 > 0, "{}: an outline without pixels", modality.name);
        (inside.0 / inside.1 as f32, outside.0 / outside.1.max(1) as f32)
    }

    #[test]
    fn the_finding_is_where_its_mask_is_and_fades_with_the_difficulty() {
        for name in ["ct-slice", "brain-mri", "ultrasound"] {
            let modality = MODALITIES.iter().find(|modality| modality.name == name).unwrap();
            let (easy, hard) = (change(modality, 0.05), change(modality, 1.0));
            assert!(easy.0 > 2.0 * easy.1, "{name}: inside {} outside {}", easy.0, easy.1);
            assert!(easy.0 > 1.15 * hard.0, "{name}: easy {} hard {}", easy.0, hard.0);
        }
    }

    /// The smallest findings in the smallest pictures have pixels, and healthy pictures have none.
    #[test]
    fn every_finding_with_an_outline_has_pixels() {
        for modality in MODALITIES {
            let phantom = small(modality, 1.0);
            // The echoes of ultrasound take their time.
            for index in 0..if modality.name == "ultrasound" { 1 } else { 4 } {
                let sample = drawn(&phantom, Seed(9), index, 1);
                assert!(sample.mask.is_empty() || sample.mask.contains(&true), "{} {index}", modality.name);
            }
            let healthy = drawn(&phantom, Seed(9), 0, 0);
            assert!(modality.classes[0] == "naevus" || !healthy.mask.contains(&true), "{}", modality.name);
        }
    }

    /// By hand, the picture of what the scanner measured.
    #[test]
    fn a_picture_is_the_transform_of_its_k_space() {
        let phantom = Phantom::new("brain-mri", Some(16), None).unwrap();
        let (picture, lines) = (phantom.sample(Seed(1), 3).values, phantom.k_space(Seed(1), 3).unwrap());
        let place = |at: usize| at as f32 - 8.0;
        for (x, y) in [(0, 0), (8, 8), (5, 11), (10, 4)] {
            let mut sum = [0.0f32; 2];
            for at in 0..256 {
                let turn = (place(at % 16) * place(x) + place(at / 16) * place(y)) / 16.0 * std::f32::consts::TAU;
                let (re, im) = (lines[at], lines[256 + at]);
                sum[0] += re * turn.cos() - im * turn.sin();
                sum[1] += re * turn.sin() + im * turn.cos();
            }
            let value = sum[0].hypot(sum[1]) / 256.0;
            assert!((value - picture[y * 16 + x]).abs() < 1.0, "{value} {}", picture[y * 16 + x]);
        }
        assert!(Phantom::new("oct", None, None).unwrap().k_space(Seed(1), 3).is_err());
    }

    #[test]
    fn signals_and_tables_separate_the_better_the_easier() {
        // Mean distance of the classes' means of a telling number, in standard deviations.
        let apart = |name: &str, difficulty: f32, tell: fn(&[f32]) -> f32, class: usize| {
            let modality = MODALITIES.iter().find(|modality| modality.name == name).unwrap();
            let phantom = small(modality, difficulty);
            let of = |class: usize| -> Vec<f32> {
                (0..24).map(|index| tell(&drawn(&phantom, Seed(5), index, class).values)).collect()
            };
            let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
            let (first, second) = (of(0), of(class));
            let spread =
                |values: &[f32]| values.iter().map(|v| (v - mean(values)).powi(2)).sum::<f32>() / values.len() as f32;
            (mean(&second) - mean(&first)).abs() / (0.5 * (spread(&first) + spread(&second))).sqrt()
        };
        // Last lactate (column 5 of 8, 24 hours); least value of a pulse.
        let lactate = |values: &[f32]| values[5 * 24 + 23];
        let (easy, hard) = (apart("ehr", 0.05, lactate, 1), apart("ehr", 1.0, lactate, 1));
        assert!(easy > 2.0 && easy > 1.3 * hard, "ehr {easy} {hard}");
        // Steepest rise of the pulse.
        let rise = |values: &[f32]| values.windows(4).map(|pair| pair[3] - pair[0]).fold(0.0, f32::max);
        let (easy, hard) = (apart("ppg", 0.05, rise, 2), apart("ppg", 1.0, rise, 2));
        assert!(easy > 1.5 && easy > hard, "ppg {easy} {hard}");
    }

    #[test]
    fn every_modality_is_written_and_read_back_where_a_reader_exists() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["oct", "ecg", "eeg", "ehr", "ct-volume", "brain-mri"] {
            let modality = MODALITIES.iter().find(|modality| modality.name == name).unwrap();
            let phantom =
                if name == "ecg" { small(modality, 0.5) } else { Phantom::new(name, Some(16), None).unwrap() };
            let path = folder.path().join(name);
            phantom.write(&path, Seed(2), 24).unwrap();
            assert!(phantom.write(&path, Seed(2), 24).is_err(), "{name}: written over");
            if let Storage::Dicom { .. } = modality.storage {
                // Read in a child process, which a unit test has not: `crates/cli/tests` does it.
                assert!(path.join("000023.dcm").is_file() && path.join("masks/000023.png").is_file());
                continue;
            }
            let options = OpenOptions { seed: Seed(1), ..OpenOptions::default() };
            let test = crate::open_with(&path, crate::Split::Test, &options).unwrap();
            assert_eq!(test.class_names().len(), modality.classes.len(), "{name}");
            if modality.storage == Storage::Table {
                // In standard deviations, as its schema says.
                let (drawn, columns) = (phantom.sample(Seed(2), test.samples().indices()[0]), test.domain().columns());
                assert_eq!((test.class_names()[1].as_str(), columns.len()), ("sepsis", drawn.values.len()));
                for ((read, drawn), column) in test.samples().row(0).iter().zip(&drawn.values).zip(columns) {
                    assert!((f64::from(*read) * column.scale - f64::from(*drawn)).abs() < 1e-3, "{}", column.name);
                }
            } else {
                assert_eq!(test.samples().shape(), phantom.domain().shape());
                // NIfTI does not say what its numbers mean.
                let nifti = matches!(modality.storage, Storage::Nifti { .. });
                assert!(nifti || test.domain().unit() == phantom.domain().unit(), "{name}");
                for (row, &index) in test.samples().indices().iter().enumerate() {
                    let drawn = phantom.sample(Seed(2), index).values;
                    let steps = phantom.domain().resolution();
                    let same = test
                        .samples()
                        .row(row)
                        .iter()
                        .zip(&drawn)
                        .zip(steps)
                        .all(|((a, b), step)| (a - b).abs() < 0.01 * step);
                    assert!(same, "{name} {index}");
                }
            }
        }
        assert!(Phantom::new("oct", None, None).unwrap().write(&folder.path().join("few"), Seed(1), 3).is_err());
    }

    #[test]
    fn unusable_settings_are_refused() {
        assert!(Phantom::new("x-ray", None, None).is_err());
        for (size, difficulty) in [(15, 0.5), (1025, 0.5), (32, 0.0), (32, f32::NAN), (32, 1.1)] {
            assert!(Phantom::new("oct", Some(size), Some(difficulty)).is_err(), "{size} {difficulty}");
        }
    }
}
