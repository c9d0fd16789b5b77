//! Admix: momentum FGSM through copies mixed with samples of other classes, Linf and L2.
//!
//! ```text
//! ḡₜ = 1/(m₁·m₂) Σⱼ Σᵢ ∇ₓL(f((xₜ + η·xⱼ)/2ⁱ), y),  i = 0 … m₁−1,  xⱼ one of m₂ random samples of another class
//! gₜ₊₁ = μ·gₜ + ḡₜ/‖ḡₜ‖₁      xₜ₊₁ = clip(xₜ + α·sign(gₜ₊₁))
//! ```
//!
//! Source: Wang et al., ICCV 2021, arXiv:2102.00436, algorithm 1.
//!
//! Differs from the source: the samples to mix in come from a set that the attack is fitted on, not from the batch, so
//! that a result does not depend on the batch; where the goal has no labels, they are of any class. Values are mixed
//! and shrunk from the value nearest to zero that the bounds allow ([`origin`]), zero itself for the paper's images.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, Goal, GoalKind, Knowledge, Label, Loss, Norm, Perturbation, Samples,
};

use super::momentum::{Estimate, MeanGradient, Momentum};
use super::si_ni_fgsm::add_scaled;
use crate::fit::FitAttack;
use crate::transformation::tone::origin;

/// Settings of [`Admix`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmixConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps T; at least 1.
    pub steps: usize,
    /// Step α as a fraction of epsilon, 1/T in the paper; finite and above 0.
    pub relative_step_size: f32,
    /// How much of the last direction is kept, μ; finite and at least 0.
    pub decay: f32,
    /// Copies m₁, each half as bright as the one before; 1 to 64.
    pub scales: u32,
    /// Samples mixed in, m₂, each by itself; 1 to 1000.
    pub mixed: u32,
    /// How much of each is mixed in, η; finite and at least 0.
    pub portion: f32,
}

impl Default for AdmixConfig {
    /// The paper's.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            steps: 10,
            relative_step_size: 0.1,
            decay: 1.0,
            scales: 5,
            mixed: 3,
            portion: 0.2,
        }
    }
}

/// Admix before it has a set to mix from; holds only settings that have been checked.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "AdmixConfig")]
pub struct Admix {
    momentum: Momentum,
    scales: u32,
    mixed: u32,
    portion: f32,
}

impl TryFrom<AdmixConfig> for Admix {
    type Error = Error;

    fn try_from(config: AdmixConfig) -> Result<Self, Error> {
        let AdmixConfig { loss, steps, relative_step_size, decay, scales, mixed, portion } = config;
        if !(1..=64).contains(&scales) {
            return Err(Error::invalid("scales", "1 to 64", scales));
        }
        if !(1..=1000).contains(&mixed) {
            return Err(Error::invalid("mixed", "1 to 1000", mixed));
        }
        if !(portion.is_finite() && portion >= 0.0) {
            return Err(Error::invalid("portion", "finite and at least 0", portion));
        }
        Ok(Self { momentum: Momentum { loss, steps, relative_step_size, decay }.check()?, scales, mixed, portion })
    }
}

impl Admix {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "admix",
        title: "Admix",
        source: "Wang et al. 2021, arXiv:2102.00436",
        family: "transfer",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps · scales · mixed gradients, 1 query",
        minimum_norm: false,
    };
}

impl FitAttack for Admix {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Keeps the samples as the set to mix from; asks the model nothing.
    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        let labels = match problem.goal {
            Goal::Untargeted { labels } | Goal::Targeted { labels, .. } => Some(labels.clone()),
            Goal::FalseNegative { .. } | Goal::FalsePositive { .. } => None,
        };
        Ok(Box::new(AdmixAttack { settings: *self, pool: problem.inputs.clone(), labels }))
    }
}

/// Admix with its set.
struct AdmixAttack {
    settings: Admix,
    pool: Samples,
    labels: Option<Vec<Label>>,
}

impl AdmixAttack {
    /// The rows of the pool that may be mixed into row `row` of the problem.
    fn others(&self, problem: &AttackProblem<'_>, row: usize) -> Result<Vec<usize>, Error> {
        let label = match problem.goal {
            Goal::Untargeted { labels } | Goal::Targeted { labels, .. } => Some(&labels[row]),
            Goal::FalseNegative { .. } | Goal::FalsePositive { .. } => None,
        };
        let others: Vec<usize> = match (label, &self.labels) {
            (Some(label), Some(labels)) => (0..self.pool.len()).filter(|&other| labels[other] != *label).collect(),
            _ => (0..self.pool.len()).collect(),
        };
        if others.is_empty() {
            return Err(Error::unsupported(
                format!("admix for label {label:?}"),
                "the set it was fitted on has no sample of another class; fit it on one that has",
            ));
        }
        Ok(others)
    }
}

impl Attack for AdmixAttack {
    fn info(&self) -> AttackInfo {
        Admix::INFO
    }

    /// Costs `steps · scales · mixed` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let Admix { momentum, scales, mixed, portion } = self.settings;
        let zero = origin(problem.threat.domain());
        let others = (0..problem.inputs.len()).map(|row| self.others(problem, row)).collect::<Result<Vec<_>, _>>()?;
        momentum.run(
            problem,
            scales as usize * mixed as usize,
            |at| {
                let mut mean = MeanGradient::new();
                let seed = problem.seed.stream(at.step);
                for copy in 0..u64::from(mixed) {
                    let mut points = at.points.clone();
                    for (row, &sample) in problem.inputs.indices().iter().enumerate() {
                        let mut generator = seed.stream(copy).for_sample(sample);
                        let other = others[row][generator.random_range(0..others[row].len())];
                        let added = self.pool.row(other).iter().zip(&zero);
                        for (value, (other, zero)) in points.row_mut(row).iter_mut().zip(added) {
                            *value += portion * (other - zero);
                        }
                    }
                    add_scaled(problem, &points, at.objective, scales, &mut mean)?;
                }
                Ok(Estimate { gradient: mean.finish(at.points), seen: None })
            },
            |size, gradient, direction, point| {
                momentum.accumulate_and_ascend(problem.threat, size, gradient, direction, point);
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Seed, ThreatModel};
    use nocebo_testkit::models::Quadratic;
    use nocebo_testkit::suite::{self, Strength};

    fn fitted(config: AdmixConfig) -> Box<dyn Attack> {
        let model = suite::linear_classifier();
        let pool = suite::ct_samples();
        let goal = Goal::FalseNegative { finding: 0 };
        let threat = ThreatModel::new(Norm::Linf, 1.0, suite::ct_domain()).unwrap();
        Admix::try_from(config).unwrap().fit(&model, &pool, &goal, &threat, Seed(1)).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        let attack = fitted(AdmixConfig::default());
        assert_eq!(suite::check(&*attack, Strength { linear: 4.0, goals: true }), Ok(()));
        let alone = fitted(AdmixConfig { scales: 1, portion: 0.0, ..AdmixConfig::default() });
        assert_eq!(suite::check(&*alone, Strength::EXACT), Ok(()));
    }

    #[test]
    fn mixes_in_samples_of_another_class_alone() {
        // ∇ = 2·(x + η·x' − c): the only pool sample of another class is (20, 0), so the slope is (2·(4 + 10), 4).
        let domain = Domain::grey_levels(&[2], 255.0).unwrap();
        let model = Quadratic::new(domain.clone(), vec![60.0, 0.0], 50.0);
        let pool = Samples::new(vec![0.0, 200.0, 20.0, 0.0], &[2]).unwrap();
        let threat = ThreatModel::new(Norm::L2, 4.0, domain).unwrap();
        let goal = |labels: &[usize]| Goal::Untargeted { labels: labels.iter().map(|&at| Label::Class(at)).collect() };
        let config = AdmixConfig {
            loss: Loss::Margin,
            steps: 1,
            relative_step_size: 1.0,
            scales: 1,
            portion: 0.5,
            ..AdmixConfig::default()
        };
        let admix = Admix::try_from(config).unwrap();
        let sample = Samples::new(vec![64.0, 2.0], &[2]).unwrap();
        let attack = admix.fit(&model, &pool, &goal(&[0, 1]), &threat, Seed(1)).unwrap();
        let outcome = attack.run(&model, &sample, &goal(&[0]), &threat, Seed(1)).unwrap();
        let length = 28.0_f32.hypot(4.0);
        let expected = [64.0 + 4.0 * 28.0 / length, 2.0 + 4.0 * 4.0 / length];
        for (value, expected) in outcome.perturbed_inputs.row(0).iter().zip(expected) {
            assert!((value - expected).abs() < 1e-4, "{value} {expected}");
        }
        let same = admix.fit(&model, &pool, &goal(&[0, 0]), &threat, Seed(1)).unwrap();
        let error = same.run(&model, &sample, &goal(&[0]), &threat, Seed(1)).unwrap_err();
        assert!(error.to_string().contains("no sample of another class"), "{error}");
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["mix = 3", "mixed = 0", "scales = 0", "portion = -0.1", "portion = nan", "steps = 0"] {
            assert!(toml::from_str::<Admix>(text).is_err(), "{text}");
        }
    }
}
