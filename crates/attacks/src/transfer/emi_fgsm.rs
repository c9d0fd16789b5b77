//! Enhanced momentum iterative FGSM (EMI-FGSM), Linf and L2.
//!
//! ```text
//! x̄ᵢ = xₜ + cᵢ·α·ḡₜ,  cᵢ evenly spaced in [−η, η],  i = 1 … N
//! ḡₜ₊₁ = 1/N Σᵢ ∇L(f(x̄ᵢ), y)      gₜ₊₁ = μ·gₜ + ḡₜ₊₁/‖ḡₜ₊₁‖₁      xₜ₊₁ = clip(xₜ + α·sign(gₜ₊₁))
//! ```
//!
//! Source: Wang et al., BMVC 2021, arXiv:2103.10609, algorithm 1. Survey: \[127\].
//!
//! Differs from the source: ḡₜ is scaled to mean magnitude 1 (L2: length 1) before it is sampled along, so that the
//! samples lie up to η steps away whatever the scale of the gradient; the public implementations do the same.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation, Samples};

use super::momentum::{Estimate, MeanGradient, Momentum, mask, normalised};

/// Settings of [`EmiFgsm`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmiFgsmConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps T; at least 1.
    pub steps: usize,
    /// Step α as a fraction of epsilon, 1/T in the paper; finite and above 0.
    pub relative_step_size: f32,
    /// How much of the last direction is kept, μ; finite and at least 0.
    pub decay: f32,
    /// Points N along the last mean gradient; at least 1. An odd number has the current point among them.
    pub points: usize,
    /// How many steps away the farthest of them lies, η; finite and at least 0.
    pub radius: f32,
}

impl Default for EmiFgsmConfig {
    /// The paper's.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, steps: 10, relative_step_size: 0.1, decay: 1.0, points: 11, radius: 7.0 }
    }
}

/// EMI-FGSM; holds only settings that have been checked.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "EmiFgsmConfig")]
pub struct EmiFgsm {
    momentum: Momentum,
    points: usize,
    radius: f32,
}

impl TryFrom<EmiFgsmConfig> for EmiFgsm {
    type Error = Error;

    fn try_from(config: EmiFgsmConfig) -> Result<Self, Error> {
        let EmiFgsmConfig { loss, steps, relative_step_size, decay, points, radius } = config;
        if points == 0 {
            return Err(Error::invalid("points", "at least 1", points));
        }
        if !(radius.is_finite() && radius >= 0.0) {
            return Err(Error::invalid("radius", "finite and at least 0", radius));
        }
        Ok(Self { momentum: Momentum { loss, steps, relative_step_size, decay }.check()?, points, radius })
    }
}

impl EmiFgsm {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "emi-fgsm",
        title: "Enhanced momentum iterative FGSM",
        source: "Wang et al. 2021, arXiv:2103.10609",
        family: "transfer",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps · points gradients, 1 query",
        minimum_norm: false,
    };

    /// The coefficients cᵢ.
    fn coefficients(self) -> impl Iterator<Item = f32> {
        let (last, radius) = (self.points - 1, self.radius);
        (0..self.points).map(move |at| if last == 0 { 0.0 } else { radius * (2.0 * at as f32 / last as f32 - 1.0) })
    }
}

impl Attack for EmiFgsm {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps · points` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let mut along = Samples::zeros(problem.inputs.len(), problem.inputs.shape())?;
        self.momentum.run(
            problem,
            self.points,
            |at| {
                let mut mean = MeanGradient::new();
                let mut seen = None;
                for coefficient in self.coefficients() {
                    let mut points = at.points.clone();
                    for (value, direction) in points.values_mut().iter_mut().zip(along.values()) {
                        *value += coefficient * at.size * direction;
                    }
                    let gradient = problem.oracle.gradient(&points, at.objective)?;
                    mean.add(&gradient.inputs);
                    if coefficient == 0.0 {
                        seen = Some(gradient.outputs);
                    }
                }
                let gradient = mean.finish(at.points);
                for row in 0..gradient.len() {
                    let mut slopes = gradient.row(row).to_vec();
                    mask(problem.threat.domain(), &mut slopes);
                    along.row_mut(row).copy_from_slice(&normalised(problem.threat, &slopes));
                }
                Ok(Estimate { gradient, seen })
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
    use nocebo_core::{Goal, Seed, ThreatModel};
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = EmiFgsm::try_from(EmiFgsmConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength::EXACT), Ok(()));
    }

    #[test]
    fn samples_evenly_from_minus_to_plus_the_radius() {
        let coefficients = |points, radius| {
            let attack = EmiFgsm::try_from(EmiFgsmConfig { points, radius, ..EmiFgsmConfig::default() }).unwrap();
            attack.coefficients().collect::<Vec<_>>()
        };
        assert_eq!(coefficients(5, 7.0), [-7.0, -3.5, 0.0, 3.5, 7.0]);
        assert_eq!(coefficients(1, 7.0), [0.0]);
        assert_eq!(coefficients(11, 7.0)[5], 0.0);
    }

    #[test]
    fn without_a_radius_it_is_mi_fgsm() {
        use crate::transfer::mi_fgsm::{MiFgsm, MiFgsmConfig};
        let (model, samples) = (suite::small_relu(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 40.0, suite::ct_domain()).unwrap();
        let points =
            |attack: &dyn Attack| attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap().perturbed_inputs;
        let still = EmiFgsm::try_from(EmiFgsmConfig { radius: 0.0, ..EmiFgsmConfig::default() }).unwrap();
        let momentum = MiFgsm::try_from(MiFgsmConfig::default()).unwrap();
        assert_eq!(points(&still), points(&momentum));
        let wide = EmiFgsm::try_from(EmiFgsmConfig::default()).unwrap();
        assert_ne!(points(&wide), points(&momentum));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["point = 3", "points = 0", "radius = -1.0", "radius = nan", "decay = -1.0"] {
            assert!(toml::from_str::<EmiFgsm>(text).is_err(), "{text}");
        }
    }
}
