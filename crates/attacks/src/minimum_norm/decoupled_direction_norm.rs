//! Decoupled direction and norm (DDN), L2.
//!
//! ```text
//! δ ← δ + αₜ·∇L/‖∇L‖₂                     α falls from 1 to 0.01 as a cosine
//! ε ← (1 − γ)·ε where the goal is reached, (1 + γ)·ε elsewhere
//! δ ← clip(ε·δ/‖δ‖₂), rounded to values that can be stored
//! ```
//!
//! Source: Rony et al., CVPR 2019, arXiv:1811.09600, algorithm 1.
//!
//! Differs from the source: lengths are in the range of the bounds; the storage step of each element takes the place
//! of 256 grey levels; where the gradient is zero a random direction of unit length is taken.

use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::frame::{Frame, size};
use super::schedule::cosine;
use super::search::{Ask, Search, Seen, minimise};
use super::settings::{at_least_one, fraction, positive};

/// Step size at the end, as a fraction of the range.
const LAST_STEP: f64 = 0.01;
/// A gradient shorter than this has no direction.
const NO_GRADIENT: f64 = 1e-12;

/// Settings of [`DecoupledDirectionNorm`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecoupledDirectionNormConfig {
    /// Gradient steps; at least 1.
    pub steps: usize,
    /// Factor γ by which the radius shrinks and grows; above 0 and below 1.
    pub radius_factor: f64,
    /// First radius ε, as a fraction of the range of the bounds; finite and above 0.
    pub initial_radius: f64,
    /// Round each iterate to values that can be stored (elements stored as floats stay as they are).
    pub quantise: bool,
}

impl Default for DecoupledDirectionNormConfig {
    /// Values of the paper, with the greatest number of steps that it reports.
    fn default() -> Self {
        Self { steps: 1000, radius_factor: 0.05, initial_radius: 1.0, quantise: true }
    }
}

/// DDN; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "DecoupledDirectionNormConfig")]
pub struct DecoupledDirectionNorm(DecoupledDirectionNormConfig);

impl TryFrom<DecoupledDirectionNormConfig> for DecoupledDirectionNorm {
    type Error = Error;

    fn try_from(config: DecoupledDirectionNormConfig) -> Result<Self, Error> {
        at_least_one("steps", config.steps)?;
        fraction("radius_factor", config.radius_factor)?;
        positive("initial_radius", config.initial_radius)?;
        Ok(Self(config))
    }
}

impl DecoupledDirectionNorm {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "ddn",
        title: "Decoupled direction and norm",
        source: "Rony et al. 2019, arXiv:1811.09600",
        family: "minimum_norm",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients",
        minimum_norm: true,
    };
}

impl Attack for DecoupledDirectionNorm {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        minimise(problem, Loss::CrossEntropy, |row| {
            let frame = Frame::new(problem.threat.domain(), problem.inputs.row(row));
            Walk {
                config: self.0,
                frame,
                change: vec![0.0; frame.elements()],
                radius: self.0.initial_radius,
                step: 0,
                generator: problem.seed.for_sample(problem.inputs.indices()[row]),
            }
        })
    }
}

/// The search of one sample.
struct Walk<'a> {
    config: DecoupledDirectionNormConfig,
    frame: Frame<'a>,
    change: Vec<f64>,
    radius: f64,
    step: usize,
    generator: ChaCha8Rng,
}

impl Search for Walk<'_> {
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        if self.step + 1 == self.config.steps {
            return None;
        }
        let step_size = cosine(self.step, self.config.steps, 1.0, LAST_STEP);
        self.step += 1;
        let mut direction = self.frame.slopes(seen.gradient);
        if size(Norm::L2, &direction) < NO_GRADIENT {
            direction = self.frame.random_direction(&mut self.generator);
        }
        let length = size(Norm::L2, &direction).max(NO_GRADIENT);
        for (change, part) in self.change.iter_mut().zip(direction) {
            *change += step_size * part / length;
        }
        self.radius *= if seen.reached { 1.0 - self.config.radius_factor } else { 1.0 + self.config.radius_factor };
        self.radius = self.radius.min(self.frame.farthest(Norm::L2));
        let scale = self.radius / size(Norm::L2, &self.change).max(NO_GRADIENT);
        self.change.iter_mut().for_each(|change| *change *= scale);
        let mut point = self.frame.point(&self.change);
        if self.config.quantise {
            self.frame.store(&mut point);
        }
        self.change = self.frame.change(&point);
        Some(Ask::Gradient(point))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        // Rounding to whole Hounsfield units alone moves a point by up to 1.7 HU in twelve elements.
        for (quantise, linear) in [(false, 1.01), (true, 1.25)] {
            let config = DecoupledDirectionNormConfig { steps: 300, quantise, ..Default::default() };
            let attack = DecoupledDirectionNorm::try_from(config).unwrap();
            assert_eq!(suite::check(&attack, Strength { linear, goals: true }), Ok(()), "{quantise}");
        }
    }

    #[test]
    fn quantised_points_can_be_stored() {
        let (model, samples) = (suite::linear_pair(), suite::ct_samples());
        let goal = nocebo_core::Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = nocebo_core::ThreatModel::new(Norm::L2, f32::INFINITY, suite::ct_domain()).unwrap();
        let attack = DecoupledDirectionNorm::try_from(DecoupledDirectionNormConfig::default()).unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, nocebo_core::Seed(1)).unwrap();
        assert!(outcome.perturbed_inputs != samples);
        assert!(outcome.perturbed_inputs.values().iter().all(|value| value.fract() == 0.0));
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["steps = 0", "radius_factor = 1.0", "initial_radius = -1.0", "levels = 256"] {
            assert!(toml::from_str::<DecoupledDirectionNorm>(text).is_err(), "{text}");
        }
    }
}
