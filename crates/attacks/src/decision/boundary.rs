//! Boundary attack: a random walk along the decision boundary; L2, minimum norm.
//!
//! ```text
//! η   Gaussian, orthogonal to x − x̃, of length δ·‖x − x̃‖
//! s   the point x̃ + η, moved back to the sphere around x:   x + ((x̃ − x) + η)/√(1 + δ²)
//! c   s moved towards x until its distance is (1 − ε)·‖x̃ − x‖;   accepted when adversarial
//! δ   every 10th step s is asked about too: of 100 answers more than half adversarial: δ, ε × 1.5; less than a
//!     fifth: ÷ 1.5
//! ε   of 30 answers about c more than a quarter adversarial: ε × 1.5; less than a tenth: ÷ 1.5
//! end when ε < 1e-7
//! ```
//!
//! Source: Brendel, Rauber & Bethge, ICLR 2018, arXiv:1712.04248, section 2; step rules of Foolbox 3. Survey: \[12\].
//!
//! Differs from the source: the start is the noise of `walk::starting_points`, moved to the boundary by bisection.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use super::walk::{Walk, unit};
use crate::score::grid::gaussian;
use crate::score::questions::{along, length, ranges};

/// Settings of [`Boundary`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoundaryConfig {
    /// Proposals a sample; at least 1.
    pub steps: usize,
    /// First δ: length of the orthogonal part as a fraction of the distance; finite and above 0.
    pub spherical_step: f64,
    /// First ε: fraction of the distance that a proposal saves; above 0 and below 1.
    pub source_step: f64,
    /// The walk ends when ε falls below this; at least 0.
    pub source_step_convergence: f64,
    /// Factor by which δ and ε change; finite and above 1.
    pub step_adaptation: f64,
    /// The sphere is asked about in every such step; at least 1.
    pub update_every: usize,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
}

impl Default for BoundaryConfig {
    /// The values of Foolbox; its 25,000 steps and their sphere queries fit the budget.
    fn default() -> Self {
        Self {
            steps: 25_000,
            spherical_step: 0.01,
            source_step: 0.01,
            source_step_convergence: 1e-7,
            step_adaptation: 1.5,
            update_every: 10,
            queries: 28_000,
        }
    }
}

/// Boundary attack; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "BoundaryConfig")]
pub struct Boundary(BoundaryConfig);

impl TryFrom<BoundaryConfig> for Boundary {
    type Error = Error;

    fn try_from(config: BoundaryConfig) -> Result<Self, Error> {
        let counts =
            [("steps", config.steps), ("update_every", config.update_every), ("queries", config.queries as usize)];
        if let Some((field, got)) = counts.into_iter().find(|(_, got)| *got == 0) {
            return Err(Error::invalid(field, "at least 1", got));
        }
        if !(config.spherical_step.is_finite() && config.spherical_step > 0.0) {
            return Err(Error::invalid("spherical_step", "finite and above 0", config.spherical_step));
        }
        if !(config.source_step > 0.0 && config.source_step < 1.0) {
            return Err(Error::invalid("source_step", "above 0 and below 1", config.source_step));
        }
        if config.source_step_convergence.is_nan() || config.source_step_convergence < 0.0 {
            return Err(Error::invalid("source_step_convergence", "at least 0", config.source_step_convergence));
        }
        if !(config.step_adaptation.is_finite() && config.step_adaptation > 1.0) {
            return Err(Error::invalid("step_adaptation", "finite and above 1", config.step_adaptation));
        }
        Ok(Self(config))
    }
}

impl Boundary {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "boundary",
        title: "Boundary attack",
        source: "Brendel et al. 2018, arXiv:1712.04248",
        family: "decision",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "at most queries queries",
        minimum_norm: true,
    };
}

/// The step sizes of one sample and the answers that tune them.
struct Steps {
    spherical: f64,
    source: f64,
    on_sphere: VecDeque<bool>,
    accepted: VecDeque<bool>,
}

impl Steps {
    const ON_SPHERE: usize = 100;
    const ACCEPTED: usize = 30;

    fn new(config: &BoundaryConfig) -> Self {
        Self {
            spherical: config.spherical_step,
            source: config.source_step,
            on_sphere: VecDeque::new(),
            accepted: VecDeque::new(),
        }
    }

    /// Tunes the steps where enough answers have come in; the answers are then forgotten.
    fn tune(&mut self, factor: f64) {
        if let Some(scale) = tuned(&mut self.on_sphere, Self::ON_SPHERE, 0.2, 0.5, factor) {
            self.spherical *= scale;
            self.source *= scale;
        }
        if let Some(scale) = tuned(&mut self.accepted, Self::ACCEPTED, 0.1, 0.25, factor) {
            self.source *= scale;
        }
        // A proposal never reaches the clean sample itself.
        self.source = self.source.min(0.9);
    }
}

/// The scale of a step: `factor` where more than `high` of the answers are yes, its inverse where fewer than `low` are.
fn tuned(answers: &mut VecDeque<bool>, full: usize, low: f64, high: f64, factor: f64) -> Option<f64> {
    while answers.len() > full {
        answers.pop_front();
    }
    let share = answers.iter().filter(|answer| **answer).count() as f64 / full as f64;
    let scale = match share {
        _ if answers.len() < full => return None,
        share if share > high => factor,
        share if share < low => 1.0 / factor,
        _ => return None,
    };
    answers.clear();
    Some(scale)
}

/// Which of the two points of a step an answer is about.
#[derive(Clone, Copy, PartialEq)]
enum Point {
    OnSphere,
    Nearer,
}

impl Attack for Boundary {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `queries` queries a sample: up to 100 and a bisection for the start, then one a step and one more
    /// in every `update_every`th.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let ranges = ranges(problem.threat.domain());
        let mut walk = Walk::start(problem, self.0.queries)?;
        let rows = walk.rows();
        walk.approach(&rows, 1e-3)?;
        let mut steps: Vec<Steps> = (0..problem.inputs.len()).map(|_| Steps::new(&self.0)).collect();
        for step in 0..self.0.steps {
            let mut rows = walk.rows();
            rows.retain(|&row| steps[row].source >= self.0.source_step_convergence);
            if rows.is_empty() {
                break;
            }
            let mut asked = Vec::new();
            for row in rows {
                let direction = unit(&ranges, &mut walk.generators[row], gaussian);
                let (on_sphere, nearer) = propose(&walk.change(row), &direction, &steps[row]);
                let clean = problem.inputs.row(row);
                asked.push((row, along(clean, 1.0, &nearer), Point::Nearer));
                if step.is_multiple_of(self.0.update_every) {
                    asked.push((row, along(clean, 1.0, &on_sphere), Point::OnSphere));
                }
            }
            let mut accepted = Vec::new();
            walk.questions.stream(asked, |row, which, reply| {
                let Some(reply) = reply else { return };
                match which {
                    Point::OnSphere => steps[row].on_sphere.push_back(reply.reached),
                    Point::Nearer => {
                        steps[row].accepted.push_back(reply.reached);
                        if reply.reached {
                            accepted.push((row, reply.point.to_vec()));
                        }
                    }
                }
            })?;
            for (row, point) in accepted {
                walk.move_to(row, point);
            }
            for steps in &mut steps {
                steps.tune(self.0.step_adaptation);
            }
        }
        Ok(walk.questions.finish_minimum())
    }
}

/// The two changes of one step: a random one of the present length, and the same shortened by ε.
fn propose(change: &[f64], direction: &[f64], steps: &Steps) -> (Vec<f64>, Vec<f64>) {
    let distance = length(Norm::L2, change).max(f64::MIN_POSITIVE);
    let outward: f64 = direction.iter().zip(change).map(|(part, change)| part * change / distance).sum();
    let orthogonal: Vec<f64> =
        direction.iter().zip(change).map(|(part, change)| part - outward * change / distance).collect();
    let size = length(Norm::L2, &orthogonal).max(f64::MIN_POSITIVE);
    let stretch = (1.0 + steps.spherical * steps.spherical).sqrt();
    let on_sphere: Vec<f64> = change
        .iter()
        .zip(&orthogonal)
        .map(|(change, part)| (change + steps.spherical * distance * part / size) / stretch)
        .collect();
    let nearer = on_sphere.iter().map(|change| (1.0 - steps.source) * change).collect();
    (on_sphere, nearer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        // Larger first steps than in the source, for fewer queries.
        let config = BoundaryConfig { steps: 800, spherical_step: 0.1, source_step: 0.1, ..BoundaryConfig::default() };
        let attack = Boundary::try_from(config).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.01, goals: true }), Ok(()));
    }

    #[test]
    fn a_proposal_keeps_the_sphere_and_then_comes_nearer() {
        let config = BoundaryConfig { spherical_step: 0.75, source_step: 0.2, ..BoundaryConfig::default() };
        let (on_sphere, nearer) = propose(&[4.0, 0.0], &[0.6, 0.8], &Steps::new(&config));
        // η = (0, 3); (4, 3)/1.25.
        assert!(on_sphere.iter().zip([3.2, 2.4]).all(|(a, b)| (a - b).abs() < 1e-12), "{on_sphere:?}");
        assert!((length(Norm::L2, &on_sphere) - 4.0).abs() < 1e-12);
        assert!((length(Norm::L2, &nearer) - 3.2).abs() < 1e-12);
    }

    #[test]
    fn steps_follow_the_share_of_adversarial_answers() {
        let tune = |answers: usize, yes: usize| {
            let mut steps = Steps::new(&BoundaryConfig::default());
            steps.accepted = (0..answers).map(|answer| answer < yes).collect();
            steps.tune(1.5);
            steps.source / 0.01
        };
        assert!((tune(30, 8) - 1.5).abs() < 1e-12 && (tune(30, 2) - 1.0 / 1.5).abs() < 1e-12);
        assert_eq!([tune(29, 29), tune(30, 7), tune(30, 3)], [1.0; 3]);
        let mut steps = Steps::new(&BoundaryConfig::default());
        steps.on_sphere = std::iter::repeat_n(true, 100).collect();
        steps.tune(1.5);
        assert!((steps.spherical - 0.015).abs() < 1e-12 && (steps.source - 0.015).abs() < 1e-12);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        assert!(toml::from_str::<Boundary>("stepz = 3").is_err());
        assert!(toml::from_str::<Boundary>("source_step = 1.0").is_err());
        assert!(toml::from_str::<Boundary>("step_adaptation = 1.0").is_err());
        let error = toml::from_str::<Boundary>("update_every = 0").unwrap_err();
        assert!(error.message().contains("`update_every` must be at least 1, got 0"), "{error}");
    }
}
