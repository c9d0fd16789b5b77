//! SPSA: Adam on a gradient estimated from simultaneous random signs; L2 and Linf.
//!
//! ```text
//! g = (1/n)·Σ over n pairs of (L(x + δv) − L(x − δv))/2δ · v,  v uniform in {−1, 1}ⁿ
//! x = Π(x + Adam(g))
//! ```
//!
//! Source: Uesato et al., ICML 2018, arXiv:1802.05666, algorithm 1.
//!
//! Differs from the source: a displacement is cut at the bounds and counts as cut; Adam's step is a fraction of epsilon,
//! since one of the whole range leaves the budgets of medical images at once; L2 is ours.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::questions::{Questions, along, generators, radius, ranges};
use super::slopes::Pairs;
use crate::adam::Adam;

/// Settings of [`Spsa`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpsaConfig {
    /// Objective to ascend; the margin in the source.
    pub loss: Loss,
    /// Steps of Adam; at least 1.
    pub steps: usize,
    /// Pairs n of questions for one estimate; at least 1.
    pub pairs: u32,
    /// Displacement δ as a fraction of the range of the bounds; finite and above 0.
    pub probe_fraction: f64,
    /// Step of Adam as a fraction of epsilon (L2: of epsilon/√n for n elements); finite and above 0.
    pub relative_step_size: f64,
}

impl Default for SpsaConfig {
    /// δ of the source; 100 steps of 128 pairs as in `CleverHans`, and a step of 0.01 at its epsilon of 8/255.
    fn default() -> Self {
        Self { loss: Loss::Margin, steps: 100, pairs: 128, probe_fraction: 0.01, relative_step_size: 0.3 }
    }
}

/// SPSA; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SpsaConfig")]
pub struct Spsa(SpsaConfig);

impl TryFrom<SpsaConfig> for Spsa {
    type Error = Error;

    fn try_from(config: SpsaConfig) -> Result<Self, Error> {
        for (field, value) in [("steps", config.steps), ("pairs", config.pairs as usize)] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        for (field, value) in
            [("probe_fraction", config.probe_fraction), ("relative_step_size", config.relative_step_size)]
        {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::invalid(field, "finite and above 0", value));
            }
        }
        Ok(Self(config))
    }
}

impl Spsa {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "spsa",
        title: "Simultaneous perturbation stochastic approximation",
        source: "Uesato et al. 2018, arXiv:1802.05666",
        family: "score",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Scores,
        cost: "steps · (2 · pairs + 1) queries",
        minimum_norm: false,
    };
}

impl Attack for Spsa {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// A sample stops at the first point that reaches the goal.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let threat = problem.threat;
        let ranges = ranges(threat.domain());
        let mutable = ranges.iter().filter(|range| **range > 0.0).count() as f64;
        let scale = if threat.norm() == Norm::L2 { mutable.max(1.0).sqrt() } else { 1.0 };
        let step = self.0.relative_step_size * radius(threat) / scale;
        let mut questions = Questions::scored(problem, u32::MAX, self.0.loss)?;
        let mut generators = generators(problem);
        let mut points = problem.inputs.clone();
        let mut adams: Vec<Adam> = (0..points.len()).map(|_| Adam::new(ranges.len())).collect();
        for _ in 0..self.0.steps {
            let rows = questions.searching();
            if rows.is_empty() {
                break;
            }
            let pairs =
                Pairs { points: &points, ranges: &ranges, count: self.0.pairs, distance: self.0.probe_fraction };
            let slopes = pairs.slopes(&mut questions, &rows, |row| {
                ranges.iter().map(|_| if generators[row].random::<bool>() { 1.0 } else { -1.0 }).collect()
            })?;
            for (&row, slope) in rows.iter().zip(slopes) {
                let mut moved = along(points.row(row), step, &adams[row].direction(&slope));
                threat.project_row(problem.inputs.row(row), &mut moved);
                points.row_mut(row).copy_from_slice(&moved);
            }
            let looks: Vec<_> = rows.into_iter().map(|row| (row, points.row(row).to_vec(), ())).collect();
            questions.stream(looks, |_, (), _| {})?;
        }
        Ok(questions.finish(&points))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Goal, Seed, ThreatModel};
    use nocebo_testkit::models::Constant;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = Spsa::try_from(SpsaConfig { steps: 60, pairs: 32, ..SpsaConfig::default() }).unwrap();
        let check = |norms, linear| suite::check(&InNorm(&attack, norms), Strength { linear, goals: true });
        assert_eq!(check(&[Norm::Linf], 1.05), Ok(()));
        // Adam moves all elements alike, which is not the steepest direction in L2.
        assert_eq!(check(&[Norm::L2], 1.35), Ok(()));
    }

    #[test]
    fn costs_what_it_says() {
        let (model, samples) = (Constant::new(suite::ct_domain(), vec![1.0, 0.0]), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 4.0, suite::ct_domain()).unwrap();
        let attack: Spsa = toml::from_str("steps = 3\npairs = 5").unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.queries.iter().all(|spent| (spent.forward, spent.backward) == (1 + 3 * 11, 0)));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["delta = 1", "steps = 0", "pairs = 0", "probe_fraction = nan", "relative_step_size = 0.0"] {
            assert!(toml::from_str::<Spsa>(text).is_err(), "{text}");
        }
    }
}
