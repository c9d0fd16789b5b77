//! Gaussian blur, with the least width that reaches the goal: a control.
//!
//! ```text
//! x' = blur of x with standard deviation σ along every axis of time or space;  σ the least that reaches the goal
//! ```
//!
//! Source: the noise battery of Survey: \[6\], as in Foolbox.
//!
//! Differs from the source: the search is by doublings and bisection. Elements outside the region of interest keep their
//! values, but take part in those of their neighbours.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use crate::line_search::LineSearch;
use crate::nearest::Nearest;
use crate::transformation::Transformation;
use crate::transformation::filter::Blur;

/// Settings of [`GaussianBlur`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GaussianBlurConfig {
    /// Greatest σ as a fraction of the longest side of a sample; finite and above 0.
    pub greatest_fraction: f32,
    /// The search for σ.
    pub line_search: LineSearch,
}

impl Default for GaussianBlurConfig {
    /// Chosen here: a quarter of the side leaves hardly more than the mean.
    fn default() -> Self {
        Self { greatest_fraction: 0.25, line_search: LineSearch { doublings: 10, bisections: 8 } }
    }
}

/// Gaussian blur; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "GaussianBlurConfig")]
pub struct GaussianBlur(GaussianBlurConfig);

impl TryFrom<GaussianBlurConfig> for GaussianBlur {
    type Error = Error;

    fn try_from(config: GaussianBlurConfig) -> Result<Self, Error> {
        config.line_search.check()?;
        if !(config.greatest_fraction.is_finite() && config.greatest_fraction > 0.0) {
            return Err(Error::invalid("greatest_fraction", "finite and above 0", config.greatest_fraction));
        }
        Ok(Self(config))
    }
}

impl GaussianBlur {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "gaussian-blur",
        title: "Least Gaussian blur (control)",
        source: "control",
        family: "control",
        norms: &[Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "doublings + bisections queries",
        minimum_norm: true,
    };
}

impl Attack for GaussianBlur {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `doublings + bisections` queries a sample.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for tables, which have no neighbours.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let (domain, inputs) = (problem.threat.domain(), problem.inputs);
        let sides = &inputs.shape()[1..];
        let Some(&longest) = sides.iter().max() else {
            return Err(Error::unsupported("a blur of a table", "it needs samples in time or space, [channels, ...]"));
        };
        let greatest = f64::from(self.0.greatest_fraction) * longest as f64;
        let mut nearest = Nearest::new(problem);
        let rows: Vec<usize> = (0..inputs.len()).collect();
        self.0.line_search.run(problem, &mut nearest, &rows, |row, magnitude| {
            let clean = inputs.row(row);
            let mut point = Blur::new(sides, magnitude * greatest).apply(clean);
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

    fn attack() -> GaussianBlur {
        GaussianBlur::try_from(GaussianBlurConfig::default()).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        assert_eq!(suite::check_mechanics(&attack()), Ok(()));
    }

    #[test]
    fn blurs_a_spike_until_it_falls_below_the_threshold() {
        // The decision is whether the middle of a line is above 100; the spike is 200.
        let domain = Domain::grey_levels(&[1, 21], 255.0).unwrap();
        let weights = (0..21).map(|at| f32::from(u8::from(at == 10))).collect();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 100.0 }, vec![weights], vec![0.0]);
        let spike = (0..21).map(|at| if at == 10 { 200.0 } else { 0.0 }).collect();
        let inputs = Samples::new(spike, &[1, 21]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let outcome = attack().run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
        let point = outcome.perturbed_inputs.row(0);
        assert!(outcome.success[0] && (99.0..=100.0).contains(&point[10]), "{point:?}");
        assert!(point[9] == point[11] && point[9] > 40.0 && (point.iter().sum::<f32>() - 200.0).abs() < 1e-3);
    }

    #[test]
    fn refuses_tables_and_unusable_settings() {
        let domain = Domain::grey_levels(&[3], 255.0).unwrap();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.5 }, vec![vec![1.0; 3]], vec![0.0]);
        let inputs = Samples::new(vec![0.0; 3], &[3]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, 1.0, domain).unwrap();
        assert!(matches!(attack().run(&model, &inputs, &goal, &threat, Seed(1)), Err(Error::Unsupported { .. })));
        for text in ["greatest_fraction = 0.0", "greatest_fraction = inf", "sigma = 9"] {
            assert!(toml::from_str::<GaussianBlur>(text).is_err(), "{text}");
        }
    }
}
