//! Generative adversarial perturbations (GAP): a network whose change always has the size of epsilon, L2 and Linf.
//!
//! ```text
//! δ = ε·g(x)/‖g(x)‖,  x′ = clip(x + δ)
//! min over g   L(f(x′), t)    with a target;    L(f(x′), class least likely at x)    without
//! ```
//!
//! Source: Poursaeed et al., CVPR 2018, arXiv:1712.02328, section 3; as used on medical images by \[136\]. Survey: \[136\].
//!
//! Differs from the source: a small network of this crate in place of a U-Net or `ResNet` generator; one factor for all
//! channels; L is log-odds, not −log p. The universal form, which feeds the generator a fixed pattern, is left to the
//! universal family.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, GoalObjective, Knowledge, Loss, Norm};

use super::change::Form;
use super::generator::{Generator, PlainGenerator, batch, negated, one_aim};
use super::networks::NetworkConfig;
use crate::fit::FitAttack;
use crate::gradient::target_class::TargetClass;

/// Settings of [`Gap`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GapConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// The network and its training.
    pub network: NetworkConfig,
}

impl Default for GapConfig {
    /// β₁ = 0.5 is that of the authors' code, whose learning rate of 2e-4 fits a greater network; the rest is ours.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, network: NetworkConfig { momentum: 0.5, ..NetworkConfig::default() } }
    }
}

/// GAP before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "GapConfig")]
pub struct Gap(GapConfig);

impl TryFrom<GapConfig> for Gap {
    type Error = Error;

    fn try_from(config: GapConfig) -> Result<Self, Error> {
        config.network.check()?;
        Ok(Self(config))
    }
}

impl Gap {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "gap",
        title: "Generative adversarial perturbations",
        source: "Poursaeed et al. 2018, arXiv:1712.02328",
        family: "generative",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 query; learning: steps · batch gradients in all, 1 query a sample",
        minimum_norm: false,
    };
}

impl FitAttack for Gap {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one query and one gradient query for each of `steps · batch` samples, and one query a sample for the least
    /// likely classes.
    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        let (task, network) = (&problem.oracle.spec().task, &self.0.network);
        let target = one_aim("gap", problem)?;
        let steering = TargetClass::LeastLikely.steering(problem)?;
        let mut generator = Generator::new(problem, network, Form::Full, 0)?;
        for step in 0..network.steps {
            let rows = batch(problem.seed, problem.inputs.len(), network.batch, step);
            let made = generator.make(&problem.inputs.select(&rows), &[])?;
            let goal = steering.select(&rows);
            let gradient = problem.oracle.gradient(&made.points, &GoalObjective::new(&goal, task, self.0.loss)?)?;
            generator.learn(made, &negated(gradient.inputs))?;
        }
        Ok(Box::new(PlainGenerator { info: Self::INFO, generator, target }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::generator::testing;
    use super::super::networks;
    use super::*;
    use nocebo_core::{Domain, Goal, Label, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    fn gap() -> Gap {
        let network = NetworkConfig { steps: 120, ..networks::testing::tiny() };
        Gap::try_from(GapConfig { network, ..GapConfig::default() }).unwrap()
    }

    #[test]
    fn finds_the_best_direction_on_a_linear_model() {
        for norm in [Norm::Linf, Norm::L2] {
            testing::beats_noise(&gap(), norm, 1.2, 0.75);
        }
    }

    #[test]
    fn the_change_has_the_size_of_the_epsilon_that_is_given() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = |norm, epsilon| ThreatModel::new(norm, epsilon, suite::ct_domain()).unwrap();
        let short = Gap(GapConfig { network: networks::testing::tiny(), ..gap().0 });
        let fitted = short.fit(&model, &samples, &goal, &threat(Norm::Linf, 5.0), Seed(1)).unwrap();
        for (norm, epsilon) in [(Norm::Linf, 5.0), (Norm::Linf, 40.0), (Norm::L2, 7.0)] {
            let outcome = fitted.run(&model, &samples, &goal, &threat(norm, epsilon), Seed(1)).unwrap();
            for (clean, point) in samples.rows().zip(outcome.perturbed_inputs.rows()) {
                let size = norm.distance(clean, point);
                assert!((size - f64::from(epsilon)).abs() < 1e-3, "{norm} {epsilon}: {size}");
            }
        }
    }

    #[test]
    fn without_a_target_it_heads_for_the_least_likely_class() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 400.0, suite::ct_domain()).unwrap();
        let fitted = gap().fit(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        let outcome = fitted.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        let least = |logits: &[f32]| (0..4).min_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        let headed = samples
            .rows()
            .zip(outcome.perturbed_inputs.rows())
            .filter(|(clean, point)| Label::Class(least(&model.logits(clean))) == model_decides(&model.logits(point)));
        assert!(headed.count() >= 6 && outcome.success.iter().all(|done| *done));
    }

    fn model_decides(logits: &[f32]) -> Label {
        Label::Class(nocebo_core::argmax(logits))
    }

    #[test]
    fn other_targets_than_the_one_learned_are_refused() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let threat = ThreatModel::new(Norm::Linf, 10.0, suite::ct_domain()).unwrap();
        let short = Gap(GapConfig { network: NetworkConfig { steps: 1, ..networks::testing::tiny() }, ..gap().0 });
        let towards = |finding| Goal::FalsePositive { finding };
        let fitted = short.fit(&model, &samples, &towards(2), &threat, Seed(1)).unwrap();
        let run = |goal: &Goal| fitted.run(&model, &samples, goal, &threat, Seed(1));
        assert!(run(&towards(2)).is_ok() && run(&Goal::FalseNegative { finding: 1 }).is_ok());
        assert!(run(&towards(3)).unwrap_err().to_string().contains("another target"));
        let labels = suite::decided(&model, &samples);
        let other = |row: usize| (0..4).map(Label::Class).filter(|class| *class != labels[row]).nth(row % 3).unwrap();
        let targets = (0..8).map(other).collect();
        let several = Goal::Targeted { labels, targets };
        assert!(short.fit(&model, &samples, &several, &threat, Seed(1)).is_err());
    }

    #[test]
    fn serves_tables_signals_and_volumes() {
        for shape in [&[7][..], &[2, 20], &[1, 4, 5, 6]] {
            let domain = Domain::grey_levels(shape, 255.0).unwrap();
            let count = domain.elements();
            // The mean of the values against 100.
            let weights = vec![1.0 / count as f32; count];
            let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![weights], vec![-100.0]);
            let samples = Samples::new((0..4 * count).map(|at| 80.0 + (at % 13) as f32).collect(), shape).unwrap();
            let goal = Goal::Untargeted { labels: vec![Label::Class(0); 4] };
            let threat = ThreatModel::new(Norm::Linf, 20.0, domain).unwrap();
            let fitted = gap().fit(&model, &samples, &goal, &threat, Seed(1)).unwrap();
            let outcome = fitted.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
            assert!(outcome.success.iter().all(|done| *done), "{shape:?}: {:?}", outcome.success);
        }
    }

    #[test]
    fn the_learned_attack_passes_the_mechanics_of_the_suite() {
        testing::mechanics(&gap());
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["magnitude = 10", "network = { steps = 0 }", "network = { depth = 3 }"] {
            assert!(toml::from_str::<Gap>(text).is_err(), "{text}");
        }
    }
}
