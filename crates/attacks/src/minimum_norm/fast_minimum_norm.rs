//! Fast minimum-norm attack (FMN), in all four norms.
//!
//! ```text
//! ε ← min((1 − γ)·ε, least found)        where the goal is reached       L0: at least one element fewer
//!     (1 + γ)·ε                          where it was reached before     L0: at least one element more
//!     ‖δ‖ + |m|/‖∇m‖ (dual norm)         where it was not: to the linearised boundary
//! δ ← Π_ε(δ + α·∇m/‖∇m‖₂)                α and γ fall as a cosine, m the margin of the goal
//! ```
//!
//! Source: Pintor et al., `NeurIPS` 2021, arXiv:2102.12827, algorithm 1.
//!
//! Differs from the source: step sizes are in the range of the bounds; the projection is onto ball ∩ bounds at once; it
//! starts at the clean sample only, not at a sample of another class. Before a first success the radius grows by 1e-4 at least:
//! where the model is linear, the source lands on the boundary itself and may never cross it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::frame::{Frame, dual, size};
use super::schedule::cosine;
use super::search::{Ask, Search, Seen, minimise};
use super::settings::{at_least_one, fraction, positive};

/// A gradient shorter than this has no direction.
const NO_GRADIENT: f64 = 1e-12;
/// Growth of the radius of a sample that stands just before its boundary.
const LEAST_GROWTH: f64 = 1e-4;

/// Settings of [`FastMinimumNorm`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FastMinimumNormConfig {
    /// Gradient steps; at least 1.
    pub steps: usize,
    /// First step size α, as a fraction of the range of the bounds; finite and above 0.
    pub initial_step_size: f64,
    /// Last step size, as a fraction of the range; finite and above 0.
    pub final_step_size: f64,
    /// First factor γ by which the radius shrinks and grows; above 0 and below 1.
    pub initial_radius_factor: f64,
    /// Last factor; above 0 and below 1.
    pub final_radius_factor: f64,
}

impl Default for FastMinimumNormConfig {
    /// Values of the authors' code, with the 1000 steps of the paper.
    fn default() -> Self {
        Self {
            steps: 1000,
            initial_step_size: 1.0,
            final_step_size: 0.01,
            initial_radius_factor: 0.05,
            final_radius_factor: 0.001,
        }
    }
}

/// FMN; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "FastMinimumNormConfig")]
pub struct FastMinimumNorm(FastMinimumNormConfig);

impl TryFrom<FastMinimumNormConfig> for FastMinimumNorm {
    type Error = Error;

    fn try_from(config: FastMinimumNormConfig) -> Result<Self, Error> {
        at_least_one("steps", config.steps)?;
        positive("initial_step_size", config.initial_step_size)?;
        positive("final_step_size", config.final_step_size)?;
        fraction("initial_radius_factor", config.initial_radius_factor)?;
        fraction("final_radius_factor", config.final_radius_factor)?;
        Ok(Self(config))
    }
}

impl FastMinimumNorm {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "fmn",
        title: "Fast minimum norm",
        source: "Pintor et al. 2021, arXiv:2102.12827",
        family: "minimum_norm",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients",
        minimum_norm: true,
    };
}

impl Attack for FastMinimumNorm {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let norm = problem.threat.norm();
        minimise(problem, Loss::Margin, |row| {
            let frame = Frame::new(problem.threat.domain(), problem.inputs.row(row));
            Walk {
                config: self.0,
                norm,
                frame,
                change: vec![0.0; frame.elements()],
                radius: if norm == Norm::L0 { 1.0 } else { f64::INFINITY },
                best: frame.farthest(norm),
                found: false,
                step: 0,
            }
        })
    }
}

/// The search of one sample.
struct Walk<'a> {
    config: FastMinimumNormConfig,
    norm: Norm,
    frame: Frame<'a>,
    change: Vec<f64>,
    radius: f64,
    best: f64,
    found: bool,
    step: usize,
}

impl Walk<'_> {
    fn resize(&mut self, seen: &Seen<'_>, slopes: &[f64], factor: f64) {
        let (radius, length) = (self.radius, size(self.norm, &self.change));
        if seen.reached {
            self.best = self.best.min(length);
            self.found = true;
        }
        self.radius = match (self.norm, seen.reached) {
            (Norm::L0, true) => (radius - 1.0).min((radius * (1.0 - factor)).floor()).min(self.best).max(0.0),
            (Norm::L0, false) => (radius + 1.0).max((radius * (1.0 + factor)).floor()),
            (_, true) => (radius * (1.0 - factor)).min(self.best),
            (_, false) if self.found => radius * (1.0 + factor),
            (_, false) => {
                let distance = seen.value.abs() / dual(self.norm, slopes).max(NO_GRADIENT);
                (length + distance).max(length * (1.0 + LEAST_GROWTH))
            }
        };
        self.radius = self.radius.min(self.frame.farthest(self.norm));
    }
}

impl Search for Walk<'_> {
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        if self.step + 1 == self.config.steps {
            return None;
        }
        let config = self.config;
        let fall = |first, last| cosine(self.step, config.steps, first, last);
        let step_size = fall(config.initial_step_size, config.final_step_size);
        let factor = fall(config.initial_radius_factor, config.final_radius_factor);
        self.step += 1;
        let slopes = self.frame.slopes(seen.gradient);
        self.resize(seen, &slopes, factor);
        let length = size(Norm::L2, &slopes).max(NO_GRADIENT);
        for (change, slope) in self.change.iter_mut().zip(&slopes) {
            *change += step_size * slope / length;
        }
        let point = self.frame.project(self.norm, self.radius, &self.change);
        self.change = self.frame.change(&point);
        Some(Ask::Gradient(point))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    #[test]
    fn passes_the_common_suite() {
        let config = FastMinimumNormConfig { steps: 150, ..Default::default() };
        let attack = FastMinimumNorm::try_from(config).unwrap();
        for (norms, linear) in [(&[Norm::L0] as &[Norm], 1.25), (&[Norm::L1, Norm::L2, Norm::Linf], 1.01)] {
            assert_eq!(suite::check(&InNorm(&attack, norms), Strength { linear, goals: true }), Ok(()));
        }
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["steps = 0", "initial_step_size = 0.0", "final_radius_factor = 1.0", "gamma = 0.1"] {
            assert!(toml::from_str::<FastMinimumNorm>(text).is_err(), "{text}");
        }
    }
}
