//! Variance-tuned momentum FGSM (VMI-FGSM), Linf and L2.
//!
//! ```text
//! gₜ₊₁ = μ·gₜ + (∇ₜ + vₜ)/‖∇ₜ + vₜ‖₁,  ∇ₜ = ∇ₓL(f(xₜ), y)      xₜ₊₁ = clip(xₜ + α·sign(gₜ₊₁))
//! vₜ₊₁ = 1/N Σᵢ ∇ₓL(f(xₜ + rᵢ), y) − ∇ₜ,  rᵢ uniform in [−β·ε, β·ε] in every element
//! ```
//!
//! Source: Wang & He, CVPR 2021, arXiv:2103.15571, algorithm 1.
//!
//! Differs from the source: in L2, which the paper does not have, the cube has the half-side β·ε/√n for n elements, so
//! that its corners lie β·ε away.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation, Samples};

use super::momentum::{Estimate, MeanGradient, Momentum, reach};

/// Settings of [`VmiFgsm`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct VmiFgsmConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps T; at least 1.
    pub steps: usize,
    /// Step α as a fraction of epsilon, 1/T in the paper; finite and above 0.
    pub relative_step_size: f32,
    /// How much of the last direction is kept, μ; finite and at least 0.
    pub decay: f32,
    /// Neighbours N at every step; at least 1.
    pub neighbours: usize,
    /// Half-side β of the neighbourhood as a multiple of epsilon; finite and above 0.
    pub radius: f32,
}

impl Default for VmiFgsmConfig {
    /// The paper's.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, steps: 10, relative_step_size: 0.1, decay: 1.0, neighbours: 20, radius: 1.5 }
    }
}

/// VMI-FGSM; holds only settings that have been checked.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "VmiFgsmConfig")]
pub struct VmiFgsm {
    momentum: Momentum,
    neighbours: usize,
    radius: f32,
}

impl TryFrom<VmiFgsmConfig> for VmiFgsm {
    type Error = Error;

    fn try_from(config: VmiFgsmConfig) -> Result<Self, Error> {
        let VmiFgsmConfig { loss, steps, relative_step_size, decay, neighbours, radius } = config;
        if neighbours == 0 {
            return Err(Error::invalid("neighbours", "at least 1", neighbours));
        }
        if !(radius.is_finite() && radius > 0.0) {
            return Err(Error::invalid("radius", "finite and above 0", radius));
        }
        Ok(Self { momentum: Momentum { loss, steps, relative_step_size, decay }.check()?, neighbours, radius })
    }
}

impl VmiFgsm {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "vmi-fgsm",
        title: "Variance-tuned momentum FGSM",
        source: "Wang & He 2021, arXiv:2103.15571",
        family: "transfer",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps · (1 + neighbours) gradients, 1 query",
        minimum_norm: false,
    };
}

impl Attack for VmiFgsm {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps · (1 + neighbours)` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let mut variance = Samples::zeros(problem.inputs.len(), problem.inputs.shape())?;
        let half_side = self.radius
            * match problem.threat.norm() {
                Norm::L2 => reach(problem.threat) / (problem.inputs.elements() as f32).sqrt(),
                _ => reach(problem.threat),
            };
        self.momentum.run(
            problem,
            self.neighbours.saturating_add(1),
            |at| {
                let mut estimate = Estimate::from(problem.oracle.gradient(at.points, at.objective)?);
                let here = estimate.gradient.clone();
                for (slope, tuning) in estimate.gradient.values_mut().iter_mut().zip(variance.values()) {
                    *slope += tuning;
                }
                let mut mean = MeanGradient::new();
                let seed = problem.seed.stream(at.step);
                for neighbour in 0..self.neighbours as u64 {
                    let mut points = at.points.clone();
                    for (row, &sample) in problem.inputs.indices().iter().enumerate() {
                        let mut generator = seed.stream(neighbour).for_sample(sample);
                        for value in points.row_mut(row) {
                            *value += half_side * generator.random_range(-1.0_f32..=1.0);
                        }
                    }
                    mean.add(&problem.oracle.gradient(&points, at.objective)?.inputs);
                }
                variance = mean.finish(&here);
                for (around, here) in variance.values_mut().iter_mut().zip(here.values()) {
                    *around -= here;
                }
                Ok(estimate)
            },
            |size, gradient, direction, point| {
                self.momentum.accumulate_and_ascend(problem.threat, size, gradient, direction, point);
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::mi_fgsm::{MiFgsm, MiFgsmConfig};
    use nocebo_core::{Goal, Seed, ThreatModel};
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = VmiFgsm::try_from(VmiFgsmConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.1, goals: true }), Ok(()));
    }

    #[test]
    fn on_a_flat_gradient_field_it_is_mi_fgsm() {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let points = |attack: &dyn Attack, model: &dyn nocebo_core::DifferentiableModel| {
            let threat = ThreatModel::new(Norm::Linf, 40.0, suite::ct_domain()).unwrap();
            attack.run(model, &samples, &goal, &threat, Seed(1)).unwrap().perturbed_inputs
        };
        let tuned = VmiFgsm::try_from(VmiFgsmConfig::default()).unwrap();
        let momentum = MiFgsm::try_from(MiFgsmConfig::default()).unwrap();
        assert_eq!(points(&tuned, &model), points(&momentum, &model));
    }

    #[test]
    fn on_a_curved_field_the_second_step_sees_the_neighbours() {
        let model = suite::small_relu();
        let samples = suite::ct_samples();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 100.0, suite::ct_domain()).unwrap();
        let points = |steps, radius| {
            let config = VmiFgsmConfig { steps, radius, decay: 0.0, ..VmiFgsmConfig::default() };
            let attack = VmiFgsm::try_from(config).unwrap();
            attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap().perturbed_inputs
        };
        assert_eq!(points(1, 1.5), points(1, 1e-6));
        assert_ne!(points(2, 1.5), points(2, 1e-6));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["neighbors = 3", "neighbours = 0", "radius = 0.0", "radius = inf", "steps = 0"] {
            assert!(toml::from_str::<VmiFgsm>(text).is_err(), "{text}");
        }
    }
}
