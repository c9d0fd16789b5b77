//! Momentum iterative fast gradient sign method (MI-FGSM), Linf and L2.
//!
//! ```text
//! gₜ₊₁ = μ·gₜ + ∇ₓL(f(xₜ), y)/‖∇ₓL‖₁      xₜ₊₁ = clip(xₜ + α·sign(gₜ₊₁))      L2: xₜ + α·gₜ₊₁/‖gₜ₊₁‖₂
//! ```
//!
//! Against an [`Ensemble`](super::ensemble::Ensemble) fused in logits it is the attack that won the NIPS 2017
//! competition.
//!
//! Source: Dong et al., CVPR 2018, arXiv:1710.06081, algorithms 1 and 2. Survey: \[30\].
//!
//! Differs from the source: the gradient is divided by its mean magnitude instead of the sum (as in the authors' code;
//! the same direction), in L2 by its length; elements outside the region of interest count neither here nor there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::momentum::Momentum;

/// Settings of [`MiFgsm`] and [`NiFgsm`](super::ni_fgsm::NiFgsm).
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MiFgsmConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps T; at least 1.
    pub steps: usize,
    /// Step α as a fraction of epsilon, 1/T in the paper; finite and above 0.
    pub relative_step_size: f32,
    /// How much of the last direction is kept, μ; finite and at least 0.
    pub decay: f32,
}

impl Default for MiFgsmConfig {
    /// The paper's.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, steps: 10, relative_step_size: 0.1, decay: 1.0 }
    }
}

impl TryFrom<MiFgsmConfig> for Momentum {
    type Error = Error;

    fn try_from(config: MiFgsmConfig) -> Result<Self, Error> {
        let MiFgsmConfig { loss, steps, relative_step_size, decay } = config;
        Self { loss, steps, relative_step_size, decay }.check()
    }
}

/// MI-FGSM; holds only settings that have been checked.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "MiFgsmConfig")]
pub struct MiFgsm(Momentum);

impl TryFrom<MiFgsmConfig> for MiFgsm {
    type Error = Error;

    fn try_from(config: MiFgsmConfig) -> Result<Self, Error> {
        config.try_into().map(Self)
    }
}

impl MiFgsm {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "mi-fgsm",
        title: "Momentum iterative FGSM",
        source: "Dong et al. 2018, arXiv:1710.06081",
        family: "transfer",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: false,
    };
}

impl Attack for MiFgsm {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        self.0.run(
            problem,
            1,
            |at| Ok(problem.oracle.gradient(at.points, at.objective)?.into()),
            |size, gradient, direction, point| {
                self.0.accumulate_and_ascend(problem.threat, size, gradient, direction, point);
            },
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use nocebo_core::{AttackOutcome, Domain, Goal, Label, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, Strength};

    pub(in super::super) const TWO_STEPS: MiFgsmConfig =
        MiFgsmConfig { loss: Loss::Margin, steps: 2, relative_step_size: 0.5, decay: 0.5 };

    /// Runs an attack with an L2 budget of 10 towards a class that the greater of two elements keeps out of reach.
    pub(in super::super) fn run(attack: &dyn Attack, start: [f32; 2]) -> AttackOutcome {
        let domain = Domain::grey_levels(&[2], 255.0).unwrap();
        let weights = vec![vec![0.0, 0.0], vec![1.0, 0.0], vec![0.0, 1.0]];
        let model = Linear::new(domain.clone(), Task::MultiClass { classes: 3 }, weights, vec![-200.0, -100.0, -100.0]);
        let samples = Samples::new(start.to_vec(), &[2]).unwrap();
        let goal = Goal::Targeted { labels: vec![Label::Class(1)], targets: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::L2, 10.0, domain).unwrap();
        attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        let attack = MiFgsm::try_from(MiFgsmConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength::EXACT), Ok(()));
    }

    #[test]
    fn two_steps_by_hand() {
        // z₁ = x − 100 and z₂ = y − 100 against a hopeless target: the greater of the two is pushed down. From (104, 102)
        // that is x at first; at (99, 102) it is y, and half of the first direction is kept.
        let outcome = run(&MiFgsm::try_from(TWO_STEPS).unwrap(), [104.0, 102.0]);
        let length = 0.5_f32.hypot(1.0);
        let expected = [99.0 - 5.0 * 0.5 / length, 102.0 - 5.0 / length];
        for (value, expected) in outcome.perturbed_inputs.row(0).iter().zip(expected) {
            assert!((value - expected).abs() < 1e-4, "{value} {expected}");
        }
        assert_eq!((outcome.queries[0].forward, outcome.queries[0].backward), (4, 2));
    }

    #[test]
    fn momentum_carries_on_past_the_boundary() {
        // A point that reaches the goal early is pushed on to the corner of the ball.
        let (model, samples) = (suite::linear_binary(), suite::ct_samples().select(&[0]));
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let least = model.least_change(Norm::Linf, samples.row(0)) as f32;
        let threat = ThreatModel::new(Norm::Linf, 3.0 * least, suite::ct_domain()).unwrap();
        let attack = MiFgsm::try_from(MiFgsmConfig::default()).unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        let moved = Norm::Linf.distance(samples.row(0), outcome.perturbed_inputs.row(0));
        assert!(outcome.success[0] && (moved / f64::from(3.0 * least) - 1.0).abs() < 1e-4, "{moved}");
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["step = 3", "steps = 0", "decay = -1.0", "decay = inf", "relative_step_size = nan"] {
            assert!(toml::from_str::<MiFgsm>(text).is_err(), "{text}");
        }
        assert!(toml::from_str::<MiFgsm>("steps = 3\ndecay = 0.0").is_ok());
    }
}
