//! Fast adaptive boundary attack (FAB), L1, L2 and Linf.
//!
//! ```text
//! k   = argmin |fₖ(x')|/‖∇fₖ(x')‖ (dual norm)       fₖ the pieces of the goal's boundary, each linearised at x'
//! d'  = the least change from x', d from x, onto fₖ = 0 inside the bounds
//! x'  ← clip((1 − a)·(x' + η·d') + a·(x + η·d))     a = min(‖d'‖/(‖d'‖ + ‖d‖), a_max)
//! x'  ← (1 − β)·x + β·x'                            where the goal is reached
//! ```
//!
//! Source: Croce & Hein, ICML 2020, arXiv:1907.02044, algorithm 1; constants of the version in AutoAttack.
//!
//! Differs from the source: bounds are those of the data, with immutable elements; the points at which gradients are
//! taken count as well as those after a step; a restart begins at a random point of the ball of half the least change
//! found, or of half of epsilon (of 0.3 for Linf, 1 for L2, 5 for L1, in ranges of the bounds, without one); there is no
//! final search between the best point and the clean one, as in AutoAttack. Goals that need several logits at once (a
//! target among more than two classes) are ours: the margin is the boundary, and its projections are in L2 in every
//! norm, because L1 and Linf projections onto one of its pieces and then another undo each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, Goal, GoalKind, Gradient, Knowledge, Norm, Objective, Perturbation,
    Samples, Task, ThreatModel,
};

use super::frame::{Frame, dual, size};
use super::hyperplane::towards_hyperplane;
use super::settings::{at_least_one, fraction, positive};
use crate::boundaries::{Boundaries, Crossing, ForRows};
use crate::nearest::{Nearest, can_pay};

/// Settings of [`Fab`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FabConfig {
    /// Steps of each restart; at least 1.
    pub steps: usize,
    /// Independent searches; at least 1. With a finite epsilon only samples that are not inside it yet restart.
    pub restarts: usize,
    /// Greatest weight of the projection of the clean sample; above 0 and below 1.
    pub greatest_bias: f64,
    /// Overshoot η of a step; finite and above 0.
    pub overshoot: f64,
    /// Share β of the change that is kept after a success; above 0 and below 1.
    pub backward: f64,
}

impl Default for FabConfig {
    /// Values of AutoAttack.
    fn default() -> Self {
        Self { steps: 100, restarts: 1, greatest_bias: 0.1, overshoot: 1.05, backward: 0.9 }
    }
}

impl FabConfig {
    /// Checks every setting.
    pub(crate) fn check(&self) -> Result<(), Error> {
        at_least_one("steps", self.steps)?;
        at_least_one("restarts", self.restarts)?;
        fraction("greatest_bias", self.greatest_bias)?;
        positive("overshoot", self.overshoot)?;
        fraction("backward", self.backward)
    }
}

/// FAB; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "FabConfig")]
pub struct Fab(FabConfig);

impl TryFrom<FabConfig> for Fab {
    type Error = Error;

    fn try_from(config: FabConfig) -> Result<Self, Error> {
        config.check()?;
        Ok(Self(config))
    }
}

impl Fab {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "fab",
        title: "Fast adaptive boundary",
        source: "Croce & Hein 2020, arXiv:1907.02044",
        family: "minimum_norm",
        norms: &[Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "restarts · steps · (2 queries, 1 gradient a boundary), 1 query",
        minimum_norm: true,
    };
}

impl Attack for Fab {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one query a sample where there are several boundaries, two queries a step and restart, and in each step one
    /// gradient query for each boundary.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let boundaries = Boundaries::new(problem, usize::MAX)?;
        let crossings: Vec<Crossing<'_>> = (0..boundaries.ways()).map(|rank| boundaries.crossing(rank)).collect();
        let mut nearest = Nearest::new(problem);
        for restart in 0..self.0.restarts {
            walk(problem, self.0, &crossings, restart, &mut nearest)?;
        }
        Ok(nearest.finish())
    }
}

/// One restart towards the nearest of some boundaries, of all samples that have not been found inside epsilon; restart 0
/// begins at the clean samples.
pub(crate) fn walk(
    problem: &AttackProblem<'_>,
    config: FabConfig,
    crossings: &[Crossing<'_>],
    restart: usize,
    nearest: &mut Nearest<'_>,
) -> Result<(), Error> {
    let epsilon = f64::from(problem.threat.epsilon());
    let mut walkers = Vec::new();
    for row in 0..problem.inputs.len() {
        if epsilon.is_infinite() || nearest.distance(row) > epsilon {
            let frame = Frame::new(problem.threat.domain(), problem.inputs.row(row));
            let change = if restart == 0 {
                vec![0.0; frame.elements()]
            } else {
                frame.change(&random_start(problem, row, restart, nearest.distance(row))?)
            };
            walkers.push(Walker { row, frame, change });
        }
    }
    for _ in 0..config.steps {
        walkers.retain(|walker| can_pay(problem, walker.row, 2));
        if walkers.is_empty() {
            break;
        }
        step(problem, config, crossings, &mut walkers, nearest)?;
    }
    Ok(())
}

/// One sample on its way.
struct Walker<'a> {
    row: usize,
    frame: Frame<'a>,
    change: Vec<f64>,
}

fn step(
    problem: &AttackProblem<'_>,
    config: FabConfig,
    crossings: &[Crossing<'_>],
    walkers: &mut [Walker<'_>],
    nearest: &mut Nearest<'_>,
) -> Result<(), Error> {
    let rows: Vec<usize> = walkers.iter().map(|walker| walker.row).collect();
    let objectives: Vec<ForRows<'_>> = crossings.iter().map(|objective| ForRows { objective, rows: &rows }).collect();
    let objectives: Vec<&dyn Objective> = objectives.iter().map(|objective| objective as &dyn Objective).collect();
    let points = points(problem, walkers)?;
    let gradients = problem.oracle.gradients(&points, &objectives)?;
    let Some(first) = gradients.first() else { return Ok(()) };
    nearest.offer_reached(&rows, &points, &first.outputs);
    let norm = if has_kinks(problem) { Norm::L2 } else { problem.threat.norm() };
    for (position, walker) in walkers.iter_mut().enumerate() {
        walker.step_towards_boundary(norm, config, position, &gradients);
    }

    let points = self::points(problem, walkers)?;
    let missed = nearest.offer_reached(&rows, &points, &problem.oracle.outputs(&points)?);
    for (position, walker) in walkers.iter_mut().enumerate() {
        if missed.binary_search(&position).is_err() {
            for part in &mut walker.change {
                *part *= config.backward;
            }
        }
    }
    Ok(())
}

/// Whether the boundary of the goal is the least of several differences of logits, so that its gradient jumps.
fn has_kinks(problem: &AttackProblem<'_>) -> bool {
    match (&problem.oracle.spec().task, problem.goal) {
        (Task::MultiClass { classes }, Goal::Targeted { .. } | Goal::FalsePositive { .. }) => *classes > 2,
        (Task::MultiLabel { thresholds }, Goal::Targeted { .. }) => thresholds.len() > 1,
        _ => false,
    }
}

impl Walker<'_> {
    fn step_towards_boundary(&mut self, norm: Norm, config: FabConfig, position: usize, gradients: &[Gradient]) {
        let pieces = gradients.iter().map(|gradient| {
            let slopes = self.frame.slopes(gradient.inputs.row(position));
            let value = f64::from(gradient.values[position]);
            (value.abs() / dual(norm, &slopes).max(1e-12), value, slopes)
        });
        let Some((_, value, slopes)) = pieces.reduce(|best, next| if next.0 < best.0 { next } else { best }) else {
            return;
        };
        let rooms: Vec<(f64, f64)> = (0..self.frame.elements()).map(|element| self.frame.room(element)).collect();
        let rooms_here: Vec<(f64, f64)> =
            rooms.iter().zip(&self.change).map(|((low, high), change)| (low - change, high - change)).collect();
        let travelled: f64 = slopes.iter().zip(&self.change).map(|(slope, change)| slope * change).sum();
        let from_here = towards_hyperplane(norm, &slopes, -value, &rooms_here);
        let from_clean = towards_hyperplane(norm, &slopes, travelled - value, &rooms);
        let (here, clean) = (size(norm, &from_here).max(1e-8), size(norm, &from_clean).max(1e-8));
        let bias = (here / (here + clean)).min(config.greatest_bias);
        for ((change, here), clean) in self.change.iter_mut().zip(from_here).zip(from_clean) {
            *change = (1.0 - bias) * (*change + config.overshoot * here) + bias * config.overshoot * clean;
        }
        self.frame.clip(&mut self.change);
    }
}

fn points(problem: &AttackProblem<'_>, walkers: &[Walker<'_>]) -> Result<Samples, Error> {
    let values = walkers.iter().flat_map(|walker| walker.frame.point(&walker.change)).collect();
    let indices = walkers.iter().map(|walker| problem.inputs.indices()[walker.row]).collect();
    Samples::new(values, problem.inputs.shape())?.with_indices(indices)
}

fn random_start(problem: &AttackProblem<'_>, row: usize, restart: usize, found: f64) -> Result<Vec<f32>, Error> {
    let threat = problem.threat;
    let range = f64::from(threat.domain().range());
    let usual = match threat.norm() {
        Norm::Linf => 0.3 * range,
        Norm::L2 => range,
        Norm::L0 | Norm::L1 => 5.0 * range,
    };
    let radius = if threat.epsilon().is_finite() { f64::from(threat.epsilon()) } else { usual };
    let ball = ThreatModel::new(threat.norm(), (0.5 * radius.min(found)) as f32, threat.domain().clone())?;
    let mut generator = problem.seed.stream(restart as u64).for_sample(problem.inputs.indices()[row]);
    Ok(ball.random_point(problem.inputs.row(row), &mut generator))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        for restarts in [1, 3] {
            let attack = Fab::try_from(FabConfig { steps: 30, restarts, ..Default::default() }).unwrap();
            assert_eq!(suite::check(&attack, Strength { linear: 1.01, goals: true }), Ok(()), "{restarts}");
        }
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["steps = 0", "restarts = 0", "greatest_bias = 1.0", "overshoot = 0.0", "eta = 1.05"] {
            assert!(toml::from_str::<Fab>(text).is_err(), "{text}");
        }
    }
}
