//! Seeded, physically motivated phantoms with a finding, one module a modality.
//!
//! A phantom stands in for patients where there are no data: in a demo, a test, a first run. Each sample depends on
//! (seed, index) alone, so any part of a data set can be made anywhere. Nothing measured on phantoms says anything
//! about patients.

mod canvas;
pub mod chest_xray;

use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

pub use chest_xray::{ChestXray, ChestXrayConfig, ChestXraySample};

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
