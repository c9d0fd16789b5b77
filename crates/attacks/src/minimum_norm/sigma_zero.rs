//! σ-zero, L0.
//!
//! ```text
//! L = max(−m(x + δ), 0) + (1/n)·Σ δᵢ²/(δᵢ² + σ)          m the margin of the goal
//! δ ← clip(δ − η·Adam(∇L/‖∇L‖∞))                          η falls to a tenth as a cosine
//! τ ← τ + t·η where the goal is reached, τ − t·η elsewhere
//! δᵢ ← 0 where |δᵢ| < τ
//! ```
//!
//! Source: Cinà et al., ICLR 2025, arXiv:2402.01879, algorithm 1.
//!
//! Differs from the source: δ, σ, η and τ are in the range of the bounds; any goal, not only the untargeted one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::frame::{Frame, size};
use super::schedule::cosine;
use super::search::{Ask, Search, Seen, minimise};
use super::settings::{at_least_one, not_negative, positive};
use crate::adam::Adam;

/// Step size at the end, as a fraction of the first one.
const LAST_STEP: f64 = 0.1;
/// Keeps a zero gradient zero.
const NO_GRADIENT: f64 = 1e-12;

/// Settings of [`SigmaZero`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SigmaZeroConfig {
    /// Gradient steps; at least 1.
    pub steps: usize,
    /// First step size η, as a fraction of the range of the bounds; finite and above 0.
    pub initial_step_size: f64,
    /// Softness σ of the count of changed elements; finite and above 0. Smaller is nearer to the true count.
    pub softness: f64,
    /// First threshold τ below which a change is undone, as a fraction of the range; finite and at least 0.
    pub initial_threshold: f64,
    /// Change t of the threshold in a step, as a fraction of the step size; finite and at least 0.
    pub threshold_factor: f64,
}

impl Default for SigmaZeroConfig {
    /// Values of the paper.
    fn default() -> Self {
        Self { steps: 1000, initial_step_size: 1.0, softness: 1e-3, initial_threshold: 0.3, threshold_factor: 0.01 }
    }
}

/// σ-zero; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SigmaZeroConfig")]
pub struct SigmaZero(SigmaZeroConfig);

impl TryFrom<SigmaZeroConfig> for SigmaZero {
    type Error = Error;

    fn try_from(config: SigmaZeroConfig) -> Result<Self, Error> {
        at_least_one("steps", config.steps)?;
        positive("initial_step_size", config.initial_step_size)?;
        positive("softness", config.softness)?;
        not_negative("initial_threshold", config.initial_threshold)?;
        not_negative("threshold_factor", config.threshold_factor)?;
        Ok(Self(config))
    }
}

impl SigmaZero {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "sigma-zero",
        title: "Sigma-zero",
        source: "Cinà et al. 2025, arXiv:2402.01879",
        family: "minimum_norm",
        norms: &[Norm::L0],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients",
        minimum_norm: true,
    };
}

impl Attack for SigmaZero {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        minimise(problem, Loss::Margin, |row| {
            let frame = Frame::new(problem.threat.domain(), problem.inputs.row(row));
            Descent {
                config: self.0,
                frame,
                change: vec![0.0; frame.elements()],
                adam: Adam::new(frame.elements()),
                threshold: self.0.initial_threshold,
                step_size: self.0.initial_step_size,
                step: 0,
            }
        })
    }
}

/// The search of one sample.
struct Descent<'a> {
    config: SigmaZeroConfig,
    frame: Frame<'a>,
    change: Vec<f64>,
    adam: Adam,
    threshold: f64,
    step_size: f64,
    step: usize,
}

impl Search for Descent<'_> {
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        if self.step + 1 == self.config.steps {
            return None;
        }
        let (elements, softness) = (self.frame.elements() as f64, self.config.softness);
        let weight = if seen.value < 0.0 { 1.0 } else { 0.0 };
        let slopes = self.frame.slopes(seen.gradient);
        let mut descent: Vec<f64> = slopes
            .iter()
            .zip(&self.change)
            .map(|(slope, change)| {
                let count = 2.0 * change * softness / (change * change + softness).powi(2) / elements;
                count - weight * slope
            })
            .collect();
        let greatest = size(Norm::Linf, &descent).max(NO_GRADIENT);
        for slope in &mut descent {
            *slope /= greatest;
        }
        self.adam.descend(&descent, self.step_size, &mut self.change);
        self.frame.clip(&mut self.change);

        let first = self.config.initial_step_size;
        self.step_size = cosine(self.step, self.config.steps, first, LAST_STEP * first);
        self.step += 1;
        let shift = self.config.threshold_factor * self.step_size;
        self.threshold = (self.threshold + if seen.reached { shift } else { -shift }).clamp(0.0, 1.0);
        for change in &mut self.change {
            if change.abs() < self.threshold {
                *change = 0.0;
            }
        }
        Some(Ask::Gradient(self.frame.point(&self.change)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let config = SigmaZeroConfig { steps: 500, ..Default::default() };
        let attack = SigmaZero::try_from(config).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.25, goals: true }), Ok(()));
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["steps = 0", "softness = 0.0", "initial_threshold = -0.1", "sigma = 0.1"] {
            assert!(toml::from_str::<SigmaZero>(text).is_err(), "{text}");
        }
    }
}
