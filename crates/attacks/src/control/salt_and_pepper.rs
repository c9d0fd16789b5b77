//! Salt-and-pepper noise, on the least fraction of elements that reaches the goal: a control.
//!
//! ```text
//! element i goes to its upper or lower bound, by a coin, where vᵢ < t;  vᵢ ~ U[0, 1)
//! ```
//!
//! Source: the noise battery of Survey: \[6\], as in Foolbox.
//!
//! Differs from the source: one draw of v and the coins is used for all t, so that t has a least value; several draws are
//! tried and the nearest point is returned.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use crate::line_search::LineSearch;
use crate::nearest::Nearest;

/// Settings of [`SaltAndPepper`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaltAndPepperConfig {
    /// Independent draws; at least 1.
    pub draws: usize,
    /// The search for t.
    pub line_search: LineSearch,
}

impl Default for SaltAndPepperConfig {
    /// Chosen here.
    fn default() -> Self {
        Self { draws: 1, line_search: LineSearch::default() }
    }
}

/// Salt-and-pepper noise; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SaltAndPepperConfig")]
pub struct SaltAndPepper(SaltAndPepperConfig);

impl TryFrom<SaltAndPepperConfig> for SaltAndPepper {
    type Error = Error;

    fn try_from(config: SaltAndPepperConfig) -> Result<Self, Error> {
        config.line_search.check()?;
        if config.draws == 0 {
            return Err(Error::invalid("draws", "at least 1", config.draws));
        }
        Ok(Self(config))
    }
}

impl SaltAndPepper {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "salt-and-pepper",
        title: "Least salt-and-pepper noise (control)",
        source: "control",
        family: "control",
        norms: &[Norm::L0, Norm::L1, Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "draws · (doublings + bisections) queries",
        minimum_norm: true,
    };
}

impl Attack for SaltAndPepper {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `doublings + bisections` queries a sample and draw.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let mut nearest = Nearest::new(problem);
        let (domain, inputs) = (problem.threat.domain(), problem.inputs);
        let rows: Vec<usize> = (0..inputs.len()).collect();
        for draw in 0..self.0.draws {
            // (v, whether it is salt) of each element of each row.
            let drawn: Vec<Vec<(f64, bool)>> = inputs
                .indices()
                .iter()
                .map(|&sample| {
                    let mut generator = problem.seed.stream(draw as u64).for_sample(sample);
                    (0..inputs.elements()).map(|_| (generator.random(), generator.random())).collect()
                })
                .collect();
            self.0.line_search.run(problem, &mut nearest, &rows, |row, magnitude| {
                let mut point = inputs.row(row).to_vec();
                for (element, &(v, salt)) in drawn[row].iter().enumerate() {
                    if v < magnitude && domain.is_mutable(element) {
                        point[element] = if salt { domain.upper()[element] } else { domain.lower()[element] };
                    }
                }
                point
            })?;
        }
        Ok(nearest.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    #[test]
    fn passes_the_common_suite() {
        let attack = SaltAndPepper::try_from(SaltAndPepperConfig { draws: 2, ..Default::default() }).unwrap();
        assert_eq!(suite::check_mechanics(&attack), Ok(()));
    }

    #[test]
    fn changes_as_few_elements_as_its_draw_allows() {
        let domain = Domain::grey_levels(&[400], 255.0).unwrap();
        let task = Task::Binary { threshold: 50.0 * 400.0 + 10.0 };
        let model = Linear::new(domain.clone(), task, vec![vec![1.0; 400]], vec![0.0]);
        let inputs = Samples::new(vec![50.0; 400], &[400]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L0, f32::INFINITY, domain).unwrap();
        let attack = SaltAndPepper::try_from(SaltAndPepperConfig::default()).unwrap();
        let outcome = attack.run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
        let point = outcome.perturbed_inputs.row(0);
        assert!(outcome.success[0] && point.iter().all(|value| [0.0, 50.0, 255.0].contains(value)));
        // Salt adds 205 and pepper takes 50: a few elements are enough, and one fewer of salt would not be.
        let excess = model.logits(point)[0] - (50.0 * 400.0 + 10.0);
        assert!((0.0..205.0).contains(&excess), "{excess}");
        assert!(Norm::L0.distance(inputs.row(0), point) <= 10.0);
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in ["draws = 0", "line_search = { doublings = 0 }", "steps = 9"] {
            assert!(toml::from_str::<SaltAndPepper>(text).is_err(), "{text}");
        }
    }
}
