//! Additive Gaussian or uniform noise, at the least standard deviation that reaches the goal: a control.
//!
//! ```text
//! x' = clip(x + t·range·u),  u ~ N(0, 1) or U[−1, 1] for each element;  t the least in (0, 1] that reaches the goal
//! ```
//!
//! Source: the noise battery of Survey: \[6\], as in Foolbox.
//!
//! Differs from the source: one draw of u is scaled, so that t has a least value; several draws are tried and the nearest
//! point is returned.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation, Samples};

use crate::gaussian::gaussian;
use crate::line_search::LineSearch;
use crate::nearest::Nearest;

/// Distribution of the noise of one element.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Standard normal.
    #[default]
    Gaussian,
    /// Uniform in [−1, 1].
    Uniform,
}

/// Settings of [`AdditiveNoise`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdditiveNoiseConfig {
    /// Distribution of the noise.
    pub distribution: Distribution,
    /// Independent draws; at least 1.
    pub draws: usize,
    /// The search for t.
    pub line_search: LineSearch,
}

impl Default for AdditiveNoiseConfig {
    /// Chosen here.
    fn default() -> Self {
        Self { distribution: Distribution::Gaussian, draws: 1, line_search: LineSearch::default() }
    }
}

/// Additive noise; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "AdditiveNoiseConfig")]
pub struct AdditiveNoise(AdditiveNoiseConfig);

impl TryFrom<AdditiveNoiseConfig> for AdditiveNoise {
    type Error = Error;

    fn try_from(config: AdditiveNoiseConfig) -> Result<Self, Error> {
        config.line_search.check()?;
        if config.draws == 0 {
            return Err(Error::invalid("draws", "at least 1", config.draws));
        }
        Ok(Self(config))
    }
}

impl AdditiveNoise {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "additive-noise",
        title: "Least additive noise (control)",
        source: "control",
        family: "control",
        norms: &[Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "draws · (doublings + bisections) queries",
        minimum_norm: true,
    };

    fn draw(&self, problem: &AttackProblem<'_>, draw: usize) -> Samples {
        let mut noise = problem.inputs.clone();
        for (row, &sample) in problem.inputs.indices().iter().enumerate() {
            let mut generator = problem.seed.stream(draw as u64).for_sample(sample);
            for value in noise.row_mut(row) {
                *value = match self.0.distribution {
                    Distribution::Gaussian => gaussian(&mut generator) as f32,
                    Distribution::Uniform => generator.random_range(-1.0..=1.0),
                };
            }
        }
        noise
    }
}

impl Attack for AdditiveNoise {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `doublings + bisections` queries a sample and draw.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let mut nearest = Nearest::new(problem);
        let rows: Vec<usize> = (0..problem.inputs.len()).collect();
        let (domain, inputs) = (problem.threat.domain(), problem.inputs);
        for draw in 0..self.0.draws {
            let noise = self.draw(problem, draw);
            self.0.line_search.run(problem, &mut nearest, &rows, |row, magnitude| {
                let size = magnitude * f64::from(domain.range());
                let mut point: Vec<f32> = inputs
                    .row(row)
                    .iter()
                    .zip(noise.row(row))
                    .map(|(clean, noise)| (f64::from(*clean) + size * f64::from(*noise)) as f32)
                    .collect();
                Norm::Linf.project(f32::INFINITY, domain, inputs.row(row), &mut point);
                point
            })?;
        }
        Ok(nearest.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    fn attack(distribution: Distribution, draws: usize) -> AdditiveNoise {
        AdditiveNoise::try_from(AdditiveNoiseConfig { distribution, draws, ..Default::default() }).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        for distribution in [Distribution::Gaussian, Distribution::Uniform] {
            assert_eq!(suite::check_mechanics(&attack(distribution, 2)), Ok(()));
        }
    }

    #[test]
    fn finds_the_least_magnitude_and_the_best_draw() {
        // One value: the least change is 20 whatever the draw, if its sign is right.
        let domain = Domain::grey_levels(&[1], 255.0).unwrap();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 120.0 }, vec![vec![1.0]], vec![0.0]);
        let inputs = Samples::new(vec![100.0; 20], &[1]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        for distribution in [Distribution::Gaussian, Distribution::Uniform] {
            let successes = |draws: usize| {
                let outcome = attack(distribution, draws).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
                for (row, _) in outcome.success.iter().enumerate().filter(|(_, success)| **success) {
                    assert!((outcome.perturbed_inputs.row(row)[0] - 120.0).abs() < 0.1);
                }
                outcome.success.iter().filter(|success| **success).count()
            };
            assert!((4..=16).contains(&successes(1)), "{}", successes(1));
            assert!(successes(12) >= 18);
        }
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in ["draws = 0", "distribution = \"poisson\"", "line_search = { doublings = 0 }", "epsilons = 9"] {
            assert!(toml::from_str::<AdditiveNoise>(text).is_err(), "{text}");
        }
    }
}
