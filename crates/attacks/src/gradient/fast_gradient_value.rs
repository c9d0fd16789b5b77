//! Fast gradient value (FGV), L2.
//!
//! ```text
//! x' = clip(x + s·∇ₓL(f(x), y)),  s the least that reaches the goal
//! ```
//!
//! The raw gradient, where FGSM takes its sign: large slopes move far, small ones hardly.
//!
//! Source: Rozsa, Rudd & Boult, CVPR workshops 2016, arXiv:1605.01775, section 3. Survey: \[110\].
//!
//! Differs from the source: the line search is ours, upwards by doublings and then by bisection.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use crate::line_search::LineSearch;
use crate::nearest::{Nearest, can_pay};

/// Settings of [`FastGradientValue`].
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FastGradientValueConfig {
    /// Objective whose gradient is followed; cross-entropy in the paper.
    pub loss: Loss,
    /// The search for s.
    pub line_search: LineSearch,
}

/// FGV; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "FastGradientValueConfig")]
pub struct FastGradientValue(FastGradientValueConfig);

impl TryFrom<FastGradientValueConfig> for FastGradientValue {
    type Error = Error;

    fn try_from(config: FastGradientValueConfig) -> Result<Self, Error> {
        config.line_search.check()?;
        Ok(Self(config))
    }
}

impl FastGradientValue {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "fgv",
        title: "Fast gradient value",
        source: "Rozsa et al. 2016, arXiv:1605.01775",
        family: "gradient",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 gradient, doublings + bisections queries",
        minimum_norm: true,
    };
}

impl Attack for FastGradientValue {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one gradient query and at most `doublings + bisections` queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let mut nearest = Nearest::new(problem);
        // With one query left the direction could not be tried.
        let rows: Vec<usize> = (0..problem.inputs.len()).filter(|&row| can_pay(problem, row, 2)).collect();
        if !rows.is_empty() {
            let goal = problem.goal.select(&rows);
            let objective = problem.objective(&goal, self.0.loss)?;
            let gradient = problem.oracle.gradient(&problem.inputs.select(&rows), &objective)?;
            self.0.line_search.run_along(problem, &mut nearest, &rows, &gradient.inputs)?;
        }
        Ok(nearest.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = FastGradientValue::try_from(FastGradientValueConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength::EXACT), Ok(()));
    }

    #[test]
    fn moves_along_the_raw_gradient_by_hand() {
        let domain = Domain::grey_levels(&[2], 255.0).unwrap();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 100.0 }, vec![vec![3.0, 1.0]], vec![0.0]);
        let inputs = Samples::new(vec![20.0, 10.0], &[2]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let attack = FastGradientValue::try_from(FastGradientValueConfig::default()).unwrap();
        let outcome = attack.run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
        // 3·20 + 10 = 70 lacks 30, and a step of s·(3, 1) adds 10·s.
        let [a, b] = outcome.perturbed_inputs.row(0) else { panic!("two elements") };
        assert!((a - 29.0).abs() < 0.02 && (b - 13.0).abs() < 0.01, "{a} {b}");
        assert!(outcome.success[0] && outcome.queries[0].backward == 1);
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in ["line_search = { doublings = 0 }", "line_search = { steps = 3 }", "step = 1"] {
            assert!(toml::from_str::<FastGradientValue>(text).is_err(), "{text}");
        }
    }
}
