//! Adversarial transformation networks (ATN), as a perturbation (P-ATN) or as a whole image (AAE), L2 and Linf.
//!
//! ```text
//! min over g   β·‖g(x, t) − x‖² + L(f(g(x, t)), r(f(x), t))
//! r(y, t)ₖ = α·max y  where k = t,  yₖ  elsewhere;  then divided by their sum
//! L(p, r) = −Σ rₖ·log pₖ  until t is decided,  then Σ (pₖ − rₖ)²
//! P-ATN   g = Π(x + tanh …)        AAE   g = Π(tanh …)
//! ```
//!
//! The reranked target keeps the order of the other classes, so that only the first place changes.
//!
//! Source: Baluja & Fischer 2017, arXiv:1703.09387, and AAAI 2018, section 2. Survey: \[8\], \[9\].
//!
//! Differs from the source: one generator is told the class t, where the paper trains one for each; L is the squared
//! distance of the paper only where t is decided, since elsewhere a confident model underflows its gradient to 0 (the
//! minimum is the same); the sum of squares is in ranges of the bounds; each point is projected onto the threat model. A sample without a named
//! target is sent to the class, of those it is not in, that worked best on the set.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Objective, Task};

use super::change::Form;
use super::generator::{TargetedGenerator, negated};
use super::networks::NetworkConfig;
use crate::fit::FitAttack;

/// What the network gives.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// A change that is added (P-ATN).
    #[default]
    Perturbation,
    /// The whole sample (adversarial autoencoding, AAE).
    Image,
}

/// Settings of [`Atn`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AtnConfig {
    /// What the network gives.
    pub output: Output,
    /// Weight β on the squared change; finite and at least 0.
    pub change_weight: f32,
    /// Factor α by which the wanted class exceeds the greatest; finite and above 1.
    pub rerank: f32,
    /// The network and its training.
    pub network: NetworkConfig,
}

impl Default for AtnConfig {
    /// α is the paper's, and β the greatest of its three; the network is ours.
    fn default() -> Self {
        Self { output: Output::Perturbation, change_weight: 0.1, rerank: 1.5, network: NetworkConfig::default() }
    }
}

/// ATN before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "AtnConfig")]
pub struct Atn(AtnConfig);

impl TryFrom<AtnConfig> for Atn {
    type Error = Error;

    fn try_from(config: AtnConfig) -> Result<Self, Error> {
        if !(config.change_weight.is_finite() && config.change_weight >= 0.0) {
            return Err(Error::invalid("change_weight", "finite and at least 0", config.change_weight));
        }
        if !(config.rerank.is_finite() && config.rerank > 1.0) {
            return Err(Error::invalid("rerank", "finite and above 1", config.rerank));
        }
        config.network.check()?;
        Ok(Self(config))
    }
}

impl Atn {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "atn",
        title: "Adversarial transformation network",
        source: "Baluja & Fischer 2017, arXiv:1703.09387",
        family: "generative",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 query; learning: steps · batch gradients in all, 1 query a sample and class",
        minimum_norm: false,
    };
}

impl FitAttack for Atn {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one query a sample, one query and one gradient query for each of `steps · batch` samples, and one query a
    /// sample and class at the end.
    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        let task = &problem.oracle.spec().task;
        let clean = problem.oracle.outputs(problem.inputs)?;
        let form = match self.0.output {
            Output::Perturbation => Form::Perturbation,
            Output::Image => Form::Image,
        };
        let learned =
            TargetedGenerator::learn(problem, Self::INFO, &self.0.network, form, 0.0, |rows, targets, made| {
                let wanted = rows
                    .iter()
                    .zip(targets)
                    .map(|(&row, &target)| reranked(&probabilities(task, clean.row(row)), target, self.0.rerank))
                    .collect();
                let gradient = problem.oracle.gradient(&made.points, &Likeness { task, wanted })?;
                let mut slopes = negated(gradient.inputs);
                made.add_length(problem.threat, self.0.change_weight, &mut slopes);
                Ok(slopes)
            })?;
        Ok(Box::new(learned))
    }
}

/// r(y, t).
fn reranked(probabilities: &[f64], target: usize, factor: f32) -> Vec<f64> {
    let mut wanted = probabilities.to_vec();
    wanted[target] = f64::from(factor) * probabilities.iter().copied().fold(0.0, f64::max);
    let sum: f64 = wanted.iter().sum();
    wanted.iter().map(|part| part / sum).collect()
}

/// Probabilities of the exclusive classes of a task, or of each finding of a multi-label one; of no segmentation.
pub(super) fn probabilities(task: &Task, logits: &[f32]) -> Vec<f64> {
    let sigmoid = |logit: f32, threshold: f32| 1.0 / (1.0 + (f64::from(threshold) - f64::from(logit)).exp());
    match task {
        Task::Binary { threshold } => {
            let present = sigmoid(logits[0], *threshold);
            vec![1.0 - present, present]
        }
        Task::MultiLabel { thresholds } => {
            logits.iter().zip(thresholds).map(|(logit, threshold)| sigmoid(*logit, *threshold)).collect()
        }
        _ => {
            let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - greatest).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.iter().map(|power| power / sum).collect()
        }
    }
}

/// How like the probabilities of exclusive classes are to wanted ones: −L.
struct Likeness<'a> {
    task: &'a Task,
    /// Wanted probabilities of each row.
    wanted: Vec<Vec<f64>>,
}

impl Objective for Likeness<'_> {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        let (wanted, have) = (&self.wanted[row], probabilities(self.task, outputs));
        let target = (0..wanted.len()).fold(0, |best, class| if wanted[class] > wanted[best] { class } else { best });
        let decided = (0..have.len()).all(|class| class == target || have[class] < have[target]);
        // By the logits of all classes; a single logit is that of class 1 less that of class 0.
        let (value, slopes): (f64, Vec<f64>) = if decided {
            let errors: Vec<f64> = have.iter().zip(wanted).map(|(have, wanted)| have - wanted).collect();
            let mean: f64 = errors.iter().zip(&have).map(|(error, have)| error * have).sum();
            let slopes = errors.iter().zip(&have).map(|(error, have)| -2.0 * have * (error - mean)).collect();
            (-errors.iter().map(|error| error * error).sum::<f64>(), slopes)
        } else {
            let value = wanted.iter().zip(log_probabilities(self.task, outputs)).map(|(wanted, log)| wanted * log);
            (value.sum(), wanted.iter().zip(&have).map(|(wanted, have)| wanted - have).collect())
        };
        let own = slopes.len() - cotangent.len();
        for (slot, slope) in cotangent.iter_mut().zip(&slopes[own..]) {
            *slot = *slope as f32;
        }
        Ok(value as f32)
    }
}

/// Logarithms of [`probabilities`] of exclusive classes, finite for any logits.
fn log_probabilities(task: &Task, logits: &[f32]) -> Vec<f64> {
    if let Task::Binary { threshold } = task {
        let logit = f64::from(logits[0]) - f64::from(*threshold);
        let present = logit.min(0.0) - (-logit.abs()).exp().ln_1p();
        return vec![present - logit, present];
    }
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - greatest).exp()).sum();
    logits.iter().map(|logit| f64::from(logit - greatest) - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::generator::testing;
    use super::super::networks;
    use super::*;

    fn atn(output: Output) -> Atn {
        let network = NetworkConfig { steps: 120, ..networks::testing::tiny() };
        Atn::try_from(AtnConfig { output, network, ..AtnConfig::default() }).unwrap()
    }

    #[test]
    fn finds_the_best_direction_on_a_linear_model() {
        for norm in [Norm::Linf, Norm::L2] {
            // The reranked target asks for no more than it takes.
            testing::beats_noise(&atn(Output::Perturbation), norm, 1.3, 0.0);
        }
        // The whole image has to be learned first.
        testing::beats_noise(&atn(Output::Image), Norm::Linf, 2.0, 0.0);
    }

    #[test]
    fn each_target_is_reached_and_the_order_of_the_others_stays() {
        testing::reaches_each_target(&atn(Output::Perturbation));
        let wanted = reranked(&[0.7, 0.1, 0.2], 1, 1.5);
        assert!((wanted[1] - 1.05 / 1.95).abs() < 1e-9 && wanted[0] > wanted[2]);
        assert!((wanted.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_learned_attack_passes_the_mechanics_of_the_suite() {
        testing::mechanics(&atn(Output::Perturbation));
        testing::mechanics(&atn(Output::Image));
    }

    #[test]
    fn the_likeness_agrees_with_differences_and_never_overflows() {
        let cases = [
            (Task::Binary { threshold: 0.5 }, vec![0.8], vec![0.3, 0.7], true),
            (Task::Binary { threshold: 0.5 }, vec![0.8], vec![0.7, 0.3], false),
            (Task::MultiClass { classes: 3 }, vec![0.2, -1.0, 0.7], vec![0.5, 0.2, 0.3], false),
            (Task::MultiClass { classes: 3 }, vec![0.2, -1.0, 0.7], vec![0.1, 0.3, 0.6], true),
        ];
        for (task, logits, wanted, decided) in cases {
            let likeness = Likeness { task: &task, wanted: vec![wanted] };
            let mut slopes = vec![0.0; logits.len()];
            likeness.evaluate(0, &logits, &mut slopes).unwrap();
            for element in 0..logits.len() {
                let at = |shift: f32| {
                    let mut moved = logits.clone();
                    moved[element] += shift;
                    likeness.evaluate(0, &moved, &mut vec![0.0; logits.len()]).unwrap()
                };
                assert!(((at(0.01) - at(-0.01)) / 0.02 - slopes[element]).abs() < 1e-3, "{task:?}");
            }
            let far: Vec<f32> = logits.iter().map(|logit| 1e4 * logit).collect();
            assert!(likeness.evaluate(0, &far, &mut slopes).unwrap().is_finite());
            // What is decided is left alone, what is not still has a slope.
            assert_eq!(slopes.iter().any(|slope| slope.abs() > 0.1), !decided, "{slopes:?}");
        }
    }

    #[test]
    fn findings_are_refused() {
        testing::refuses_findings(&atn(Output::Perturbation));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in [
            "beta = 0.1",
            "output = \"noise\"",
            "change_weight = -1.0",
            "rerank = 1.0",
            "network = { steps = 0 }",
            "network = { width = 0 }",
            "network = { learning_rate = nan }",
            "network = { momentum = 1.0 }",
        ] {
            assert!(toml::from_str::<Atn>(text).is_err(), "{text}");
        }
        assert!(toml::from_str::<Atn>("output = \"image\"\nnetwork = { steps = 3 }").is_ok());
    }
}
