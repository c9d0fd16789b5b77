//! One-class generator: a network that sends every sample to one class by a change that is hard to see, L2 and Linf.
//!
//! ```text
//! min over g   mean over all samples of   L(f(x′), c) + w·‖x′ − x‖²,   x′ = Π(x + r·tanh …)
//! ```
//!
//! The medical case sends every skin lesion to the benign class "melanocytic nevus". The class is the goal's: a false
//! positive of it, or one target for all.
//!
//! Source: the study of skin-lesion classifiers that the survey counts as \[4\]. Survey: \[4\].
//!
//! Differs from the source: the study names its aim (all to one class, undetected by observers) but not its network and
//! loss, which are our reading; its observers are the epsilon of the threat model here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, GoalObjective, Knowledge, Loss, Norm};

use super::change::Form;
use super::generator::{Generator, PlainGenerator, batch, negated, one_aim};
use super::networks::NetworkConfig;
use crate::fit::FitAttack;

/// Settings of [`OneClass`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneClassConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Logit margin or log-odds beyond which a sample no longer steers, so that the change grows no more; infinity for none.
    pub enough: f32,
    /// Weight w on the squared change; finite and at least 0.
    pub change_weight: f32,
    /// The network and its training.
    pub network: NetworkConfig,
}

impl Default for OneClassConfig {
    /// Values chosen here.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, enough: 5.0, change_weight: 0.1, network: NetworkConfig::default() }
    }
}

/// The one-class generator before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "OneClassConfig")]
pub struct OneClass(OneClassConfig);

impl TryFrom<OneClassConfig> for OneClass {
    type Error = Error;

    fn try_from(config: OneClassConfig) -> Result<Self, Error> {
        if config.enough.is_nan() {
            return Err(Error::invalid("enough", "a number", config.enough));
        }
        if !(config.change_weight.is_finite() && config.change_weight >= 0.0) {
            return Err(Error::invalid("change_weight", "finite and at least 0", config.change_weight));
        }
        config.network.check()?;
        Ok(Self(config))
    }
}

impl OneClass {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "one-class",
        title: "One-class generator (every sample to one class)",
        source: "the dermoscopy study [4] of Puttagunta et al. 2023; our reading",
        family: "generative",
        norms: &[Norm::L2, Norm::Linf],
        goals: &[GoalKind::Targeted, GoalKind::FalseNegative, GoalKind::FalsePositive],
        knowledge: Knowledge::Gradients,
        cost: "1 query; learning: steps · batch gradients in all",
        minimum_norm: false,
    };
}

impl FitAttack for OneClass {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one query and one gradient query for each of `steps · batch` samples.
    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        let (task, network) = (&problem.oracle.spec().task, &self.0.network);
        let target = one_aim("one-class", problem)?;
        if target.is_none() {
            return Err(Error::unsupported(
                "one-class for a goal that names no class",
                "say which class all samples go to: a false positive of it, or one target for all",
            ));
        }
        let mut generator = Generator::new(problem, network, Form::Perturbation, 0)?;
        for step in 0..network.steps {
            let rows = batch(problem.seed, problem.inputs.len(), network.batch, step);
            let made = generator.make(&problem.inputs.select(&rows), &[])?;
            let goal = problem.goal.select(&rows);
            let gradient = problem.oracle.gradient(&made.points, &GoalObjective::new(&goal, task, self.0.loss)?)?;
            let mut slopes = negated(gradient.inputs);
            for (slopes, value) in slopes.rows_mut().zip(&gradient.values) {
                if *value >= self.0.enough {
                    slopes.fill(0.0);
                }
            }
            made.add_length(problem.threat, self.0.change_weight, &mut slopes);
            generator.learn(made, &slopes)?;
        }
        // What was learned may be used for any goal that its one class serves; only learning needs the class named.
        let info = AttackInfo { goals: GoalKind::ALL, ..Self::INFO };
        Ok(Box::new(PlainGenerator { info, generator, target }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::generator::testing;
    use super::super::networks;
    use super::*;
    use nocebo_core::{Goal, Seed, ThreatModel};
    use nocebo_testkit::suite;

    fn one_class() -> OneClass {
        let network = NetworkConfig { steps: 120, ..networks::testing::tiny() };
        OneClass::try_from(OneClassConfig { network, enough: f32::INFINITY, ..OneClassConfig::default() }).unwrap()
    }

    #[test]
    fn finds_the_best_direction_on_a_linear_model() {
        for norm in [Norm::Linf, Norm::L2] {
            testing::beats_noise(&one_class(), norm, 1.2, 0.75);
        }
    }

    #[test]
    fn sends_all_to_each_class_of_four() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let threat = ThreatModel::new(Norm::Linf, 600.0, suite::ct_domain()).unwrap();
        for finding in 0..4 {
            let goal = Goal::FalsePositive { finding };
            let fitted = one_class().fit(&model, &samples, &goal, &threat, Seed(1)).unwrap();
            let outcome = fitted.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
            assert!(outcome.success.iter().all(|done| *done), "class {finding}: {:?}", outcome.success);
        }
        let nothing = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let message = one_class().fit(&model, &samples, &nothing, &threat, Seed(1)).err().unwrap().to_string();
        assert!(message.contains("which class"), "{message}");
    }

    #[test]
    fn the_change_stays_smaller_when_a_margin_is_enough() {
        let small = OneClass(OneClassConfig { enough: 5.0, change_weight: 100.0, ..one_class().0 });
        assert!(testing::mean_change(&small) < 0.7 * testing::mean_change(&one_class()));
    }

    #[test]
    fn the_learned_attack_passes_the_mechanics_of_the_suite() {
        testing::mechanics_after(&one_class(), &Goal::FalsePositive { finding: 0 });
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["class = 3", "enough = nan", "change_weight = inf", "network = { hidden = 0 }"] {
            assert!(toml::from_str::<OneClass>(text).is_err(), "{text}");
        }
    }
}
