//! Hot/Cold, L2: many different adversarial directions for one sample.
//!
//! ```text
//! w = +|h_hot(x)| on the hot class, −|h_cold(x)| on the cold (present) class, 0 elsewhere      h = logits
//! d = the gradient of w·h(x);  x' = clip(x + s·d),  s the least that reaches the goal
//! hot = the second most likely class, then the third, …
//! ```
//!
//! Source: Rozsa, Rudd & Boult, CVPR workshops 2016, arXiv:1605.01775, section 3. Survey: \[110\].
//!
//! Differs from the source: the weights of w are our reading. Of the set of perturbed inputs the nearest is returned.
//! The cold class is the one to leave; a goal that names its target has that hot class alone, and a single logit or
//! finding is its own hot and cold. The line search is ours, upwards by doublings and then by bisection.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Objective, Perturbation};

use crate::boundaries::{Boundaries, Crossing, ForRows};
use crate::line_search::LineSearch;
use crate::nearest::{Nearest, can_pay};

/// Settings of [`HotCold`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HotColdConfig {
    /// Hot classes that are tried, by falling logit; at least 1.
    pub hot_classes: usize,
    /// The search for s.
    pub line_search: LineSearch,
}

impl Default for HotColdConfig {
    /// Chosen here.
    fn default() -> Self {
        Self { hot_classes: 3, line_search: LineSearch::default() }
    }
}

/// Hot/Cold; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "HotColdConfig")]
pub struct HotCold(HotColdConfig);

impl TryFrom<HotColdConfig> for HotCold {
    type Error = Error;

    fn try_from(config: HotColdConfig) -> Result<Self, Error> {
        config.line_search.check()?;
        if config.hot_classes == 0 {
            return Err(Error::invalid("hot_classes", "at least 1", config.hot_classes));
        }
        Ok(Self(config))
    }
}

impl HotCold {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "hot-cold",
        title: "Hot/Cold",
        source: "Rozsa et al. 2016, arXiv:1605.01775",
        family: "gradient",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "hot_classes · (1 gradient, doublings + bisections queries), 2 queries",
        minimum_norm: true,
    };
}

impl Attack for HotCold {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs two queries a sample, and for each hot class one gradient query and at most `doublings + bisections`
    /// queries.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let boundaries = Boundaries::new(problem, self.0.hot_classes)?;
        let mut nearest = Nearest::new(problem);
        let rows: Vec<usize> = (0..problem.inputs.len()).filter(|&row| can_pay(problem, row, 2)).collect();
        if !rows.is_empty() {
            let directions: Vec<HotColdDirection<'_>> =
                (0..boundaries.ways()).map(|rank| HotColdDirection(boundaries.crossing(rank))).collect();
            let parts: Vec<ForRows<'_>> =
                directions.iter().map(|objective| ForRows { objective, rows: &rows }).collect();
            let parts: Vec<&dyn Objective> = parts.iter().map(|part| part as &dyn Objective).collect();
            for gradient in problem.oracle.gradients(&problem.inputs.select(&rows), &parts)? {
                self.0.line_search.run_along(problem, &mut nearest, &rows, &gradient.inputs)?;
            }
        }
        Ok(nearest.finish())
    }
}

/// w·h: the two logits of a boundary, each weighted with its own magnitude (held constant in the gradient).
struct HotColdDirection<'a>(Crossing<'a>);

impl Objective for HotColdDirection<'_> {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        self.0.evaluate(row, outputs, cotangent)?;
        if outputs.len() > 1 {
            for (slope, logit) in cotangent.iter_mut().zip(outputs) {
                *slope *= logit.abs();
            }
        }
        Ok(cotangent.iter().zip(outputs).map(|(weight, logit)| weight * logit).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Label, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = HotCold::try_from(HotColdConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.3, goals: false }), Ok(()));
    }

    #[test]
    fn weights_hot_and_cold_by_their_logits() {
        // Logits 30, 20, 10 at the clean sample; hot class 1 gives d = 20·(0, 1, 0) − 30·(1, 0, 0).
        let domain = Domain::grey_levels(&[3], 255.0).unwrap();
        let unit = |at: usize| (0..3).map(|element| f32::from(u8::from(element == at))).collect();
        let task = Task::MultiClass { classes: 3 };
        let model = Linear::new(domain.clone(), task, (0..3).map(unit).collect(), vec![0.0; 3]);
        let inputs = Samples::new(vec![30.0, 20.0, 10.0], &[3]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let attack = HotCold::try_from(HotColdConfig::default()).unwrap();
        let outcome = attack.run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
        // 30 − 30·s = 20 + 20·s at s = 0.2.
        let expected = [24.0, 24.0, 10.0];
        assert!(Norm::Linf.distance(outcome.perturbed_inputs.row(0), &expected) < 0.01);
        assert_eq!(outcome.queries[0].backward, 2);
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in ["hot_classes = 0", "line_search = { doublings = 99 }", "cold = 1"] {
            assert!(toml::from_str::<HotCold>(text).is_err(), "{text}");
        }
    }
}
