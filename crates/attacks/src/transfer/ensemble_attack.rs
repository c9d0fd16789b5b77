//! Ensemble-based transferable attack by optimisation, Linf and L2.
//!
//! ```text
//! min over x′ in ball ∩ bounds   −log((Σₖ aₖ·Jₖ(x′))·1ₜ) + λ·d(x, x′),  d the root of the mean squared change
//! ```
//!
//! by Adam. The sum over models is an [`Ensemble`](super::ensemble::Ensemble) fused in probabilities, given as the
//! model; without a target the true class is left instead.
//!
//! Source: Liu, Chen, Liu & Song, ICLR 2017, arXiv:1611.02770, sections 2.4 and 2.5. Survey: \[79\].
//!
//! Differs from the source: a ball bounds the change, so λ is 0 unless it is set; the loss is log-odds, which is
//! ascended alike (see the objectives of the core); the learning rate and the number of steps are ours. The paper's
//! other two forms, fast gradient and fast gradient sign on an ensemble, are `fgsm` on the same model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::momentum::{Estimate, Momentum};
use crate::adam::Adam;

/// Settings of [`EnsembleAttack`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnsembleAttackConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Adam steps; at least 1.
    pub steps: usize,
    /// Learning rate as a fraction of epsilon (L2: of epsilon/√n for n elements, since Adam moves all of them alike);
    /// finite and above 0.
    pub relative_step_size: f32,
    /// λ, on the distance as a fraction of the range of the bounds; finite and at least 0.
    pub distance_weight: f32,
}

impl Default for EnsembleAttackConfig {
    /// Values chosen here.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, steps: 100, relative_step_size: 0.05, distance_weight: 0.0 }
    }
}

/// The ensemble attack; holds only settings that have been checked.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "EnsembleAttackConfig")]
pub struct EnsembleAttack {
    search: Momentum,
    distance_weight: f64,
}

impl TryFrom<EnsembleAttackConfig> for EnsembleAttack {
    type Error = Error;

    fn try_from(config: EnsembleAttackConfig) -> Result<Self, Error> {
        let EnsembleAttackConfig { loss, steps, relative_step_size, distance_weight } = config;
        if !(distance_weight.is_finite() && distance_weight >= 0.0) {
            return Err(Error::invalid("distance_weight", "finite and at least 0", distance_weight));
        }
        let search = Momentum { loss, steps, relative_step_size, decay: 0.0 }.check()?;
        Ok(Self { search, distance_weight: f64::from(distance_weight) })
    }
}

impl EnsembleAttack {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "ensemble-attack",
        title: "Ensemble-based transferable attack (Adam)",
        source: "Liu et al. 2017, arXiv:1611.02770",
        family: "transfer",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: false,
    };
}

impl Attack for EnsembleAttack {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let range = f64::from(problem.threat.domain().range());
        let elements = problem.inputs.elements();
        let mut adams: Vec<Adam> = (0..problem.inputs.len()).map(|_| Adam::new(elements)).collect();
        self.search.run(
            problem,
            1,
            |at| {
                let mut estimate = Estimate::from(problem.oracle.gradient(at.points, at.objective)?);
                for (row, adam) in adams.iter_mut().enumerate() {
                    let (clean, point) = (problem.inputs.row(row), at.points.row(row));
                    let distance = Norm::L2.distance(clean, point);
                    // λ·d/range, d = ‖x′ − x‖₂/√n, by x′; all slopes are by fractions of the range.
                    let pull =
                        if distance > 0.0 { self.distance_weight / (distance * (elements as f64).sqrt()) } else { 0.0 };
                    let changes = point.iter().zip(clean).map(|(point, clean)| f64::from(point - clean));
                    let slopes = estimate.gradient.row(row).iter().map(|slope| range * f64::from(*slope));
                    let total: Vec<f64> = slopes.zip(changes).map(|(slope, change)| slope - pull * change).collect();
                    for (slope, part) in estimate.gradient.row_mut(row).iter_mut().zip(adam.direction(&total)) {
                        *slope = part as f32;
                    }
                }
                Ok(estimate)
            },
            |size, direction, _, point| {
                let size = if problem.threat.norm() == Norm::L2 { size / (elements as f32).sqrt() } else { size };
                for (value, move_by) in point.iter_mut().zip(direction) {
                    *value += size * move_by;
                }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::ensemble::{Ensemble, Fusion};
    use nocebo_core::{DifferentiableModel, Goal, Seed, ThreatModel};
    use nocebo_testkit::suite::{self, Strength};
    use std::sync::Arc;

    #[test]
    fn passes_the_common_suite() {
        let attack = EnsembleAttack::try_from(EnsembleAttackConfig::default()).unwrap();
        // In L2 Adam heads for a corner instead of along the gradient, so it needs more than the least change.
        assert_eq!(suite::check(&attack, Strength { linear: 2.0, goals: true }), Ok(()));
    }

    #[test]
    fn fools_every_member_of_an_ensemble() {
        // Logits of a few units, as networks have them: a mean of saturated probabilities has no gradient.
        let member = |seed: usize| -> Arc<dyn DifferentiableModel> {
            let weight = |class: usize, at: usize| ((class * seed + at * 5) % 9) as f32 / 400.0 - 0.01;
            let weights = (0..4).map(|class| (0..12).map(|at| weight(class, at)).collect());
            let task = nocebo_core::Task::MultiClass { classes: 4 };
            Arc::new(nocebo_testkit::models::Linear::new(suite::ct_domain(), task, weights.collect(), vec![0.0; 4]))
        };
        let members = vec![member(7), member(2)];
        let samples = suite::ct_samples();
        let ensemble = Ensemble::new(members.clone(), &[1.0, 1.0], Fusion::Probabilities).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&ensemble, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 400.0, suite::ct_domain()).unwrap();
        let attack = EnsembleAttack::try_from(EnsembleAttackConfig::default()).unwrap();
        let outcome = attack.run(&ensemble, &samples, &goal, &threat, Seed(1)).unwrap();
        for member in members {
            let outputs = member.outputs(&outcome.perturbed_inputs).unwrap();
            assert!(goal.reached(&member.spec().task, &outputs).iter().all(|reached| *reached));
        }
    }

    #[test]
    fn the_distance_term_shortens_the_change() {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::L2, 500.0, suite::ct_domain()).unwrap();
        let length = |distance_weight| {
            let config = EnsembleAttackConfig { distance_weight, ..EnsembleAttackConfig::default() };
            let attack = EnsembleAttack::try_from(config).unwrap();
            let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
            Norm::L2.distance(samples.row(0), outcome.perturbed_inputs.row(0))
        };
        assert!(length(1e5) < 0.9 * length(0.0), "{} {}", length(1e5), length(0.0));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["lambda = 3", "steps = 0", "distance_weight = -1.0", "distance_weight = nan"] {
            assert!(toml::from_str::<EnsembleAttack>(text).is_err(), "{text}");
        }
    }
}
