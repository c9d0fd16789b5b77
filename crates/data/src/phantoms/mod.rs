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
mod field;
mod fundus;
mod histology;
mod mammogram;
mod oct;
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

/// What it draws: values in the unit of the domain and on its grid, and the pixels of the finding (empty where it has no
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

    /// Meaning of the values.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The sample number `index` of the endless series that belongs to `seed`.
    ///
    /// As many consecutive samples as there are classes, from a multiple of that number on, have one class each.
    pub fn sample(&self, seed: Seed, index: u64) -> PhantomSample {
        let count = self.modality.classes.len();
        let mut classes: Vec<usize> = (0..count).collect();
        let seed = seed.named(self.modality.name);
        classes.shuffle(&mut seed.named("classes").for_sample(index / count as u64));
        self.drawn(seed, index, classes[(index % count as u64) as usize])
    }

    fn drawn(&self, seed: Seed, index: u64, class: usize) -> PhantomSample {
        let order = Order { size: self.size, difficulty: self.difficulty, class, seed, index };
        let Drawing { values, mask } = (self.modality.draw)(&order);
        PhantomSample { index, values, class, mask }
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

/// How many times finer than `size` a picture is computed, to have at least `finest` pixels a side.
pub(crate) fn factor(size: usize, finest: usize) -> usize {
    finest.div_ceil(size)
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
