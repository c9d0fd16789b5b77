//! Contrast reduction, by the least amount that reaches the goal: a control.
//!
//! ```text
//! x' = (1 − t)·x + t·grey,  grey = lower + g·(upper − lower);  t the least in (0, 1] that reaches the goal
//! ```
//!
//! Source: the noise battery of Survey: \[6\], as in Foolbox.
//!
//! Differs from the source: the search is by doublings and bisection.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use crate::line_search::LineSearch;
use crate::nearest::Nearest;

/// Settings of [`ContrastReduction`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastReductionConfig {
    /// g: the value that everything approaches, as a fraction of the way from the lower to the upper bound; in [0, 1].
    pub grey: f32,
    /// The search for t.
    pub line_search: LineSearch,
}

impl Default for ContrastReductionConfig {
    /// The middle of the bounds, as in Foolbox.
    fn default() -> Self {
        Self { grey: 0.5, line_search: LineSearch::default() }
    }
}

/// Contrast reduction; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "ContrastReductionConfig")]
pub struct ContrastReduction(ContrastReductionConfig);

impl TryFrom<ContrastReductionConfig> for ContrastReduction {
    type Error = Error;

    fn try_from(config: ContrastReductionConfig) -> Result<Self, Error> {
        config.line_search.check()?;
        if !(0.0..=1.0).contains(&config.grey) {
            return Err(Error::invalid("grey", "in [0, 1]", config.grey));
        }
        Ok(Self(config))
    }
}

impl ContrastReduction {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "contrast-reduction",
        title: "Least contrast reduction (control)",
        source: "control",
        family: "control",
        norms: &[Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "doublings + bisections queries",
        minimum_norm: true,
    };
}

impl Attack for ContrastReduction {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `doublings + bisections` queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let (domain, inputs) = (problem.threat.domain(), problem.inputs);
        let mut nearest = Nearest::new(problem);
        let rows: Vec<usize> = (0..inputs.len()).collect();
        self.0.line_search.run(problem, &mut nearest, &rows, |row, magnitude| {
            let clean = inputs.row(row);
            let mut point: Vec<f32> = clean
                .iter()
                .enumerate()
                .map(|(element, clean)| {
                    let (lower, upper) = (f64::from(domain.lower()[element]), f64::from(domain.upper()[element]));
                    let grey = lower + f64::from(self.0.grey) * (upper - lower);
                    ((1.0 - magnitude) * f64::from(*clean) + magnitude * grey) as f32
                })
                .collect();
            Norm::Linf.project(f32::INFINITY, domain, clean, &mut point);
            point
        })?;
        Ok(nearest.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    fn attack(grey: f32) -> ContrastReduction {
        ContrastReduction::try_from(ContrastReductionConfig { grey, ..Default::default() }).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        assert_eq!(suite::check_mechanics(&attack(0.5)), Ok(()));
    }

    #[test]
    fn moves_everything_towards_the_grey_value() {
        // The difference of two values must fall from 100 to 60: t = 0.4.
        let domain = Domain::grey_levels(&[2], 200.0).unwrap();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 60.0 }, vec![vec![1.0, -1.0]], vec![0.0]);
        let inputs = Samples::new(vec![150.0, 50.0], &[2]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::Linf, f32::INFINITY, domain).unwrap();
        for (grey, expected) in [(0.5, [130.0, 70.0]), (0.0, [90.0, 30.0]), (1.0, [170.0, 110.0])] {
            let outcome = attack(grey).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
            assert!(outcome.success[0] && Norm::Linf.distance(outcome.perturbed_inputs.row(0), &expected) < 0.1);
        }
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in ["grey = 1.5", "grey = nan", "target = 0.5"] {
            assert!(toml::from_str::<ContrastReduction>(text).is_err(), "{text}");
        }
    }
}
