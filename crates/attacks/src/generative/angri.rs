//! ANGRI: a network that makes each sample's own change towards any class it is told, L2 and Linf.
//!
//! ```text
//! min over A   L(f(x′), t) + w·‖x′ − x‖²,   x′ = Π(A(x + noise, t))
//! ```
//!
//! Source: Sarkar et al. 2017, arXiv:1707.01159, section 3.2. Survey: \[114\].
//!
//! Differs from the source: A gives a change within epsilon, not the whole image; L is log-odds, not −log p; the sum of
//! squares is in ranges of the bounds. Several models are an [`Ensemble`](crate::transfer::ensemble::Ensemble) fused in
//! loss. A sample without a named target is sent to the class, of those it is not in, that worked best on the set.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, Goal, GoalKind, GoalObjective, Knowledge, Label, Loss, Norm,
};

use super::change::Form;
use super::generator::{TargetedGenerator, negated};
use super::networks::NetworkConfig;
use crate::fit::FitAttack;

/// Settings of [`Angri`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AngriConfig {
    /// Objective to ascend; not DLR, which needs the true class besides the target.
    pub loss: Loss,
    /// Weight w on the squared change; finite and at least 0.
    pub change_weight: f32,
    /// Greatest uniform noise on the training samples, as a fraction of the range; 0 to 1.
    pub noise: f32,
    /// The network and its training.
    pub network: NetworkConfig,
}

impl Default for AngriConfig {
    /// Values chosen here; the ball bounds the change.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, change_weight: 0.0, noise: 0.02, network: NetworkConfig::default() }
    }
}

/// ANGRI before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "AngriConfig")]
pub struct Angri(AngriConfig);

impl TryFrom<AngriConfig> for Angri {
    type Error = Error;

    fn try_from(config: AngriConfig) -> Result<Self, Error> {
        if !(config.change_weight.is_finite() && config.change_weight >= 0.0) {
            return Err(Error::invalid("change_weight", "finite and at least 0", config.change_weight));
        }
        if config.loss == Loss::Dlr {
            return Err(Error::invalid("loss", "another than dlr", "dlr"));
        }
        if !(0.0..=1.0).contains(&config.noise) {
            return Err(Error::invalid("noise", "0 to 1", config.noise));
        }
        config.network.check()?;
        Ok(Self(config))
    }
}

impl Angri {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "angri",
        title: "ANGRI (a network that makes rogue images)",
        source: "Sarkar et al. 2017, arXiv:1707.01159",
        family: "generative",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 query; learning: steps · batch gradients in all, 1 query a sample and class",
        minimum_norm: false,
    };
}

impl FitAttack for Angri {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one query and one gradient query for each of `steps · batch` samples, and one query a sample and class at the
    /// end.
    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        let task = &problem.oracle.spec().task;
        let AngriConfig { loss, change_weight, noise, network } = &self.0;
        let slopes = |_: &[usize], targets: &[usize], made: &super::generator::Made| {
            let targets: Vec<Label> = targets.iter().map(|&target| Label::Class(target)).collect();
            // Nothing of the objective asks for the true class of a sample that has a target.
            let goal = Goal::Targeted { labels: targets.clone(), targets };
            let objective = GoalObjective::new(&goal, task, *loss)?;
            let mut slopes = negated(problem.oracle.gradient(&made.points, &objective)?.inputs);
            made.add_length(problem.threat, *change_weight, &mut slopes);
            Ok(slopes)
        };
        let form = Form::Perturbation;
        Ok(Box::new(TargetedGenerator::learn(problem, Self::INFO, network, form, *noise, slopes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::generator::testing;
    use super::super::networks;
    use super::*;

    fn angri() -> Angri {
        let network = NetworkConfig { steps: 120, ..networks::testing::tiny() };
        Angri::try_from(AngriConfig { network, ..AngriConfig::default() }).unwrap()
    }

    #[test]
    fn finds_the_best_direction_on_a_linear_model() {
        for norm in [Norm::Linf, Norm::L2] {
            testing::beats_noise(&angri(), norm, 1.2, 0.75);
        }
    }

    #[test]
    fn each_target_is_reached() {
        testing::reaches_each_target(&angri());
    }

    #[test]
    fn the_learned_attack_passes_the_mechanics_of_the_suite() {
        testing::mechanics(&angri());
    }

    #[test]
    fn a_weight_on_the_change_keeps_it_small() {
        let length = |change_weight| {
            let config = AngriConfig { change_weight, ..angri().0 };
            testing::mean_change(&Angri::try_from(config).unwrap())
        };
        assert!(length(1e7) < 0.5 * length(0.0));
    }

    #[test]
    fn unknown_and_invalid_settings_and_findings_are_refused() {
        testing::refuses_findings(&angri());
        for text in ["w = 0.1", "loss = \"dlr\"", "change_weight = nan", "noise = 1.5", "network = { batch = 0 }"] {
            assert!(toml::from_str::<Angri>(text).is_err(), "{text}");
        }
    }
}
