//! Primal-dual proximal gradient descent (PDPGD), in all four norms.
//!
//! ```text
//! Lagrangian   λ₀·‖r‖ + λ₁·softplus(−m(x + r))          m the margin of the goal, λ₀ + λ₁ = 1
//! primal       r ← r − η·Adam(∇ₓ softplus), clip                 η falls exponentially
//!              r ← proximal point of (λ₀/λ₁)·η·‖·‖ in Adam's metric, a few inner steps
//! dual         log-ratio of λ ± θ as the goal is missed or reached; λ follows as a running mean
//! ```
//!
//! Source: Matyasko & Chau, 2021, arXiv:2106.01538, algorithm 2. Proximal Adam: Melchior et al. 2019, arXiv:1910.10094.
//!
//! Differs from the source: r and η are in the range of the bounds. For L0 the proximal operator is that of the 2/3
//! quasi-norm, as the authors prefer, with the threshold below which 0 is better than the other stationary point.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::frame::{Frame, size};
use super::proximal::proximal;
use super::search::{Ask, Search, Seen, minimise};
use super::settings::{at_least_one, fraction, positive};
use crate::adam::Adam;

/// Settings of [`PrimalDual`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrimalDualConfig {
    /// Gradient steps; at least 2.
    pub steps: usize,
    /// First step size η of the change, as a fraction of the range of the bounds; finite and above 0.
    pub primal_step_size: f64,
    /// Last step size of the change, as a fraction of the first; finite and above 0.
    pub primal_decrease: f64,
    /// First ratio λ₀/λ₁ of the weight of the norm to that of the loss; finite and above 0.
    pub initial_ratio: f64,
    /// First step size θ of the log-ratio; finite and above 0.
    pub dual_step_size: f64,
    /// Last step size of the log-ratio, as a fraction of the first; finite and above 0.
    pub dual_decrease: f64,
    /// Weight of the past in the running mean of λ; above 0 and below 1.
    pub dual_average: f64,
    /// Least ratio of the two weights, either way; above 0 and below 1.
    pub least_ratio: f64,
    /// Greatest number of inner proximal steps; at least 1.
    pub proximal_steps: usize,
    /// Relative change at which the inner steps end; finite and above 0.
    pub proximal_tolerance: f64,
}

impl Default for PrimalDualConfig {
    /// Values of the adversarial-library package, which the authors' settings went into.
    fn default() -> Self {
        Self {
            steps: 500,
            primal_step_size: 0.1,
            primal_decrease: 0.01,
            initial_ratio: 0.01,
            dual_step_size: 0.1,
            dual_decrease: 0.1,
            dual_average: 0.9,
            least_ratio: 1e-6,
            proximal_steps: 5,
            proximal_tolerance: 0.01,
        }
    }
}

/// PDPGD; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "PrimalDualConfig")]
pub struct PrimalDual(PrimalDualConfig);

impl TryFrom<PrimalDualConfig> for PrimalDual {
    type Error = Error;

    fn try_from(config: PrimalDualConfig) -> Result<Self, Error> {
        if config.steps < 2 {
            return Err(Error::invalid("steps", "at least 2", config.steps));
        }
        positive("primal_step_size", config.primal_step_size)?;
        positive("primal_decrease", config.primal_decrease)?;
        positive("initial_ratio", config.initial_ratio)?;
        positive("dual_step_size", config.dual_step_size)?;
        positive("dual_decrease", config.dual_decrease)?;
        fraction("dual_average", config.dual_average)?;
        fraction("least_ratio", config.least_ratio)?;
        at_least_one("proximal_steps", config.proximal_steps)?;
        positive("proximal_tolerance", config.proximal_tolerance)?;
        Ok(Self(config))
    }
}

impl PrimalDual {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "pdpgd",
        title: "Primal-dual proximal gradient descent",
        source: "Matyasko & Chau 2021, arXiv:2106.01538",
        family: "minimum_norm",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients",
        minimum_norm: true,
    };
}

impl Attack for PrimalDual {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        minimise(problem, Loss::Margin, |row| {
            let frame = Frame::new(problem.threat.domain(), problem.inputs.row(row));
            let log_ratio = -self.0.initial_ratio.ln();
            Descent {
                config: self.0,
                norm: problem.threat.norm(),
                frame,
                change: vec![0.0; frame.elements()],
                adam: Adam::new(frame.elements()),
                log_ratio,
                loss_weight: sigmoid(log_ratio),
                step: 0,
            }
        })
    }
}

/// The search of one sample.
struct Descent<'a> {
    config: PrimalDualConfig,
    norm: Norm,
    frame: Frame<'a>,
    change: Vec<f64>,
    adam: Adam,
    /// log λ₁/λ₀ before averaging.
    log_ratio: f64,
    /// λ₁, averaged.
    loss_weight: f64,
    step: usize,
}

impl Descent<'_> {
    fn descend(&mut self, seen: &Seen<'_>) {
        let config = self.config;
        let weight = sigmoid(-seen.value);
        let descent: Vec<f64> = self.frame.slopes(seen.gradient).iter().map(|slope| -weight * slope).collect();
        let step_size = config.primal_step_size * config.primal_decrease.powf(self.step as f64 / config.steps as f64);
        self.adam.descend(&descent, step_size, &mut self.change);
        self.frame.clip(&mut self.change);

        let scales = self.adam.scales();
        let greatest = size(Norm::Linf, &scales);
        let norm_weight = (1.0 - self.loss_weight) / self.loss_weight * step_size / greatest;
        let mut near = self.change.clone();
        for _ in 0..config.proximal_steps {
            let pulled: Vec<f64> = near
                .iter()
                .zip(&self.change)
                .zip(&scales)
                .map(|((near, change), scale)| near + (change - near) * scale / greatest)
                .collect();
            let mut nearer = proximal(self.norm, norm_weight, &pulled);
            self.frame.clip(&mut nearer);
            let moved: Vec<f64> = nearer.iter().zip(&near).map(|(a, b)| a - b).collect();
            near = nearer;
            if size(Norm::L2, &moved) <= config.proximal_tolerance * size(Norm::L2, &near) {
                break;
            }
        }
        self.change = near;
    }

    fn reweigh(&mut self, seen: &Seen<'_>) {
        let config = self.config;
        let left = (config.steps - 1 - self.step) as f64 / (config.steps - 1) as f64;
        let step_size = config.dual_step_size * (left * (1.0 - config.dual_decrease) + config.dual_decrease);
        let most = -config.least_ratio.ln();
        let towards_loss = if seen.value == 0.0 { 0.0 } else { -seen.value.signum() };
        self.log_ratio = (self.log_ratio + step_size * towards_loss).clamp(-most, most);
        self.loss_weight =
            config.dual_average * self.loss_weight + (1.0 - config.dual_average) * sigmoid(self.log_ratio);
    }
}

impl Search for Descent<'_> {
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        if self.step + 1 == self.config.steps {
            return None;
        }
        self.descend(seen);
        self.reweigh(seen);
        self.step += 1;
        Some(Ask::Gradient(self.frame.point(&self.change)))
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = PrimalDual::try_from(PrimalDualConfig::default()).unwrap();
        for (norm, linear) in [(&[Norm::L0], 2.0), (&[Norm::L1], 1.02), (&[Norm::L2], 1.05), (&[Norm::Linf], 1.02)] {
            assert_eq!(suite::check(&InNorm(&attack, norm), Strength { linear, goals: true }), Ok(()));
        }
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["steps = 1", "primal_step_size = 0.0", "dual_average = 1.0", "proximal_steps = 0", "norm = 1"] {
            assert!(toml::from_str::<PrimalDual>(text).is_err(), "{text}");
        }
    }
}
