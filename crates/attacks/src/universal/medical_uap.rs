//! Universal perturbation of medical images by fast gradient steps, targeted or not, L2 and Linf.
//!
//! ```text
//! v = 0;  for each x of the set, in random order, that x + v does not fool:
//!     v ← Π(v + α·step(∇ₓL(f(x + v))))      step Linf sign(g), L2 g/‖g‖₂
//! for at most 15 passes, or until a share 1 − δ is fooled
//! ```
//!
//! The studies give the budget as a fraction of the mean norm of the images
//! ([`fraction_of_mean_norm`](super::perturbation::fraction_of_mean_norm)): 4 % without a target, 2 % with one.
//!
//! Source: Hirano, Minagi & Takemoto, BMC Medical Imaging 21:9, 2021 (with the authors' code); targeted: Hirano &
//! Takemoto, Algorithms 13:268, 2020. Survey: \[53\].
//!
//! Differs from the source: as for [`uap`](super::uap); α = 0.0024 is in the units of images scaled to a range of 2, so
//! it is given as 0.0012 of the range.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, GoalObjective, Knowledge, Loss, Norm, Samples};

use super::perturbation::{Passes, UniversalPerturbation};
use crate::fit::FitAttack;
use crate::gradient::step::ascend;

/// Settings of [`MedicalUap`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MedicalUapConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Greatest number of passes over the set; at least 1.
    pub passes: usize,
    /// Share of the set that must be fooled, 1 − δ; 0 to 1.
    pub wanted: f64,
    /// Samples whose steps are taken at once, by their mean; at least 1, 1 in the source.
    pub batch: usize,
    /// Length α of a step as a fraction of the range of the bounds; finite and above 0.
    pub step_fraction: f32,
}

impl Default for MedicalUapConfig {
    /// Those of the authors' code.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, passes: 15, wanted: 1.0 - 1e-6, batch: 1, step_fraction: 0.0012 }
    }
}

/// The medical universal perturbation before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "MedicalUapConfig")]
pub struct MedicalUap(MedicalUapConfig);

impl TryFrom<MedicalUapConfig> for MedicalUap {
    type Error = Error;

    fn try_from(config: MedicalUapConfig) -> Result<Self, Error> {
        let MedicalUapConfig { passes, wanted, batch, step_fraction, .. } = config;
        Passes { greatest: passes, wanted, batch }.check()?;
        if !(step_fraction.is_finite() && step_fraction > 0.0) {
            return Err(Error::invalid("step_fraction", "finite and above 0", step_fraction));
        }
        Ok(Self(config))
    }
}

impl MedicalUap {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "medical-uap",
        title: "Universal perturbation by fast gradient steps",
        source: "Hirano et al. 2021, BMC Medical Imaging 21:9",
        family: "universal",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 query; learning: passes · (2 queries, 1 gradient) a sample",
        minimum_norm: false,
    };

    /// Learns the change; see [`FitAttack::fit`] for the checks that come before.
    ///
    /// A pass costs two queries a sample and one gradient query for each that is not fooled.
    ///
    /// # Errors
    ///
    /// Whatever the model returns.
    pub fn perturbation(&self, problem: &AttackProblem<'_>) -> Result<UniversalPerturbation, Error> {
        let MedicalUapConfig { loss, passes, wanted, batch, step_fraction } = self.0;
        let size = step_fraction * problem.threat.domain().range();
        Passes { greatest: passes, wanted, batch }.run(problem, Self::INFO, |rows, points| {
            let goal = problem.goal.select(rows);
            let objective = GoalObjective::new(&goal, &problem.oracle.spec().task, loss)?;
            let gradient = problem.oracle.gradient(points, &objective)?.inputs;
            let mut steps = Samples::zeros(points.len(), points.shape())?;
            for (step, slopes) in steps.rows_mut().zip(gradient.rows()) {
                ascend(problem.threat, slopes, size, step);
            }
            Ok(steps)
        })
    }
}

impl FitAttack for MedicalUap {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        Ok(Box::new(self.perturbation(problem)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::perturbation::testing;
    use super::*;
    use nocebo_core::{Goal, Label, Oracle, Seed, ThreatModel};
    use nocebo_testkit::suite;

    #[test]
    fn flips_a_linear_model_just_above_the_greatest_least_change() {
        let attack = MedicalUap::try_from(MedicalUapConfig::default()).unwrap();
        for norm in [Norm::L2, Norm::Linf] {
            // 15 passes of steps of 4.9 HU along the weights reach any of these budgets.
            assert_eq!(testing::flipped(&attack, norm, 1.02), 1.0, "{norm}");
            assert!(testing::flipped(&attack, norm, 0.98) < 1.0, "{norm}");
        }
        testing::mechanics(&attack);
    }

    #[test]
    fn steps_are_of_the_given_length_and_stop_when_enough_are_fooled() {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples().select(&[0]));
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 4000.0, suite::ct_domain()).unwrap();
        let oracle = Oracle::new(&model, None);
        let problem = AttackProblem { oracle: &oracle, inputs: &samples, goal: &goal, threat: &threat, seed: Seed(1) };
        let config = MedicalUapConfig { step_fraction: 10.0 / 4095.0, passes: 1000, ..MedicalUapConfig::default() };
        let change = MedicalUap::try_from(config).unwrap().perturbation(&problem).unwrap();
        let least = model.least_change(Norm::Linf, samples.row(0));
        let steps = (least / 10.0).ceil();
        for value in change.values() {
            assert!((f64::from(value.abs()) - 10.0 * steps).abs() < 1e-2, "{value} {least}");
        }
        assert_eq!(change.fooled(), 1.0);
    }

    #[test]
    fn heads_for_one_class() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let labels = suite::decided(&model, &samples);
        let rows: Vec<usize> = (0..samples.len()).filter(|&row| labels[row] != Label::Class(3)).collect();
        let labels: Vec<Label> = rows.iter().map(|&row| labels[row].clone()).collect();
        let goal = Goal::Targeted { targets: vec![Label::Class(3); labels.len()], labels };
        let threat = ThreatModel::new(Norm::L2, 2000.0, suite::ct_domain()).unwrap();
        let config = MedicalUapConfig { step_fraction: 0.02, ..MedicalUapConfig::default() };
        let attack = MedicalUap::try_from(config).unwrap();
        let fitted = attack.fit(&model, &samples.select(&rows), &goal, &threat, Seed(1)).unwrap();
        let outcome = fitted.run(&model, &samples.select(&rows), &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.success.iter().all(|done| *done), "{:?}", outcome.success);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["eps = 0.2", "passes = 0", "step_fraction = 0.0", "step_fraction = nan", "batch = 0"] {
            assert!(toml::from_str::<MedicalUap>(text).is_err(), "{text}");
        }
    }
}
