//! `HopSkipJump`: gradient direction from decisions at the boundary, in L2 and Linf; minimum norm.
//!
//! ```text
//! repeat  t = 1, 2, …   from a boundary point x_b at distance d of x
//!   probe   δ = γ·d/n  (first step: a tenth of the range);  b_i = ±1 whether x_b + δ·u_i is adversarial
//!   v       Σ (b_i − mean b)·u_i        L2 v/‖v‖₂    Linf sign(v)          B_t = min(B₀·√t, B_max) probes
//!   step    x_b + ξ·v, ξ = d/√t halved until adversarial
//!   bisect  back towards x:  L2 on the line to x    Linf on the radius to which the change is clipped
//! ```
//!
//! Source: Chen, Jordan & Wainwright, IEEE S&P 2020, arXiv:1904.02144, algorithm 2. Survey: \[93\] uses it.
//!
//! Differs from the source: the start is the noise of `walk::starting_points`; the nearest of all adversarial points seen
//! is returned, not the last; a step that needs more than 60 halvings leaves the point where it is (the source loops for
//! ever).

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use super::walk::{HALVINGS, Probes, Walk, unit};
use crate::score::grid::gaussian;
use crate::score::questions::{along, length, ranges};

/// Settings of [`HopSkipJump`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HopSkipJumpConfig {
    /// Rounds of probing, stepping and bisecting; at least 1.
    pub steps: usize,
    /// Probes `B₀` of the first round; at least 1.
    pub initial_probes: usize,
    /// Greatest number of probes `B_max` of a round; at least 1.
    pub greatest_probes: usize,
    /// γ: scales the probe distance and the precision of the bisection; finite and above 0.
    pub gamma: f64,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
}

impl Default for HopSkipJumpConfig {
    /// Steps, probes and γ of the source (64 steps as in its experiments); 25,000 queries, its greatest budget.
    fn default() -> Self {
        Self { steps: 64, initial_probes: 100, greatest_probes: 10_000, gamma: 1.0, queries: 25_000 }
    }
}

/// `HopSkipJump`; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "HopSkipJumpConfig")]
pub struct HopSkipJump(HopSkipJumpConfig);

impl TryFrom<HopSkipJumpConfig> for HopSkipJump {
    type Error = Error;

    fn try_from(config: HopSkipJumpConfig) -> Result<Self, Error> {
        let at_least_1 = [
            ("steps", config.steps),
            ("initial_probes", config.initial_probes),
            ("greatest_probes", config.greatest_probes),
            ("queries", config.queries as usize),
        ];
        if let Some((field, got)) = at_least_1.into_iter().find(|(_, got)| *got == 0) {
            return Err(Error::invalid(field, "at least 1", got));
        }
        if !(config.gamma.is_finite() && config.gamma > 0.0) {
            return Err(Error::invalid("gamma", "finite and above 0", config.gamma));
        }
        Ok(Self(config))
    }
}

impl HopSkipJump {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "hop-skip-jump",
        title: "HopSkipJump",
        source: "Chen et al. 2020, arXiv:1904.02144",
        family: "decision",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "at most queries queries",
        minimum_norm: true,
    };
}

impl Attack for HopSkipJump {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `queries` queries a sample: up to 100 for the start, then `B_t` probes and about 20 to 40 queries a
    /// round.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let norm = problem.threat.norm();
        let ranges = ranges(problem.threat.domain());
        let dimensions = ranges.iter().filter(|range| **range > 0.0).count() as f64;
        // The precision of a bisection, as a fraction of the distance; not below what an f32 can tell apart.
        let fine = match norm {
            Norm::L2 => self.0.gamma / (dimensions * dimensions.sqrt()),
            _ => self.0.gamma / (dimensions * dimensions),
        };
        let fine = fine.max(f64::from(f32::EPSILON));
        let mut walk = Walk::start(problem, self.0.queries)?;
        let rows = walk.rows();
        walk.approach(&rows, fine)?;
        for step in 1..=self.0.steps {
            let rows = walk.rows();
            if rows.is_empty() {
                break;
            }
            let root = (step as f64).sqrt();
            let count = ((self.0.initial_probes as f64 * root) as usize).min(self.0.greatest_probes);
            let scale = |row: usize| match step {
                1 => 0.1 * f64::from(problem.threat.domain().range()),
                _ => (self.0.gamma * walk.distance(row) / dimensions).max(walk.least_scale()),
            };
            let scales: Vec<f64> = rows.iter().map(|&row| scale(row)).collect();
            let probes = walk.probe(&rows, &vec![count; rows.len()], &scales, |generator| match norm {
                Norm::L2 => unit(&ranges, generator, gaussian),
                _ => unit(&ranges, generator, |generator| generator.random_range(-1.0..=1.0)),
            })?;
            let directions: Vec<Vec<f64>> = probes.iter().map(|probes| ascent(norm, probes)).collect();
            let sizes: Vec<f64> = rows.iter().map(|&row| walk.distance(row) / root).collect();
            let stepped = step_out(&mut walk, &rows, &directions, sizes)?;
            walk.approach(&stepped, fine)?;
        }
        Ok(walk.questions.finish_minimum())
    }
}

/// The direction away from the clean decision: the probes' displacements weighed by ±1 less its mean, or all alike where
/// all answers agree.
fn ascent(norm: Norm, probes: &Probes) -> Vec<f64> {
    let mean = 2.0 * probes.reached as f64 / probes.answered.max(1) as f64 - 1.0;
    let agree = probes.reached == 0 || probes.reached == probes.answered;
    let weigh = |(signed, plain): (&f64, &f64)| if agree { *signed } else { signed - mean * plain };
    let direction: Vec<f64> = probes.signed.iter().zip(&probes.plain).map(weigh).collect();
    let size = length(Norm::L2, &direction);
    let scale = |part: f64| match norm {
        _ if part == 0.0 => 0.0,
        Norm::L2 => part / size,
        _ => part.signum(),
    };
    direction.into_iter().map(scale).collect()
}

/// Moves each row from its point by `sizes` along its direction, halved until the goal is reached; returns the rows that
/// moved.
fn step_out(
    walk: &mut Walk<'_>,
    rows: &[usize],
    directions: &[Vec<f64>],
    mut sizes: Vec<f64>,
) -> Result<Vec<usize>, Error> {
    let mut open: Vec<usize> = (0..rows.len()).collect();
    let mut moved = Vec::new();
    for _ in 0..HALVINGS {
        open.retain(|&job| walk.questions.left(rows[job]) > 0);
        if open.is_empty() {
            break;
        }
        let asked: Vec<_> = open
            .iter()
            .map(|&job| (rows[job], along(walk.point(rows[job]), sizes[job], &directions[job]), job))
            .collect();
        let mut reached = Vec::new();
        walk.questions.stream(asked, |row, job, reply| {
            if let Some(reply) = reply
                && reply.reached
            {
                reached.push((row, job, reply.point.to_vec()));
            }
        })?;
        for (row, job, point) in reached {
            walk.move_to(row, point);
            moved.push(row);
            open.retain(|&other| other != job);
        }
        for &job in &open {
            sizes[job] *= 0.5;
        }
    }
    moved.sort_unstable();
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    #[test]
    fn passes_the_common_suite() {
        let config = HopSkipJumpConfig { queries: 2000, ..HopSkipJumpConfig::default() };
        let attack = HopSkipJump::try_from(config).unwrap();
        assert_eq!(suite::check(&InNorm(&attack, &[Norm::L2]), Strength { linear: 1.3, goals: true }), Ok(()));
        assert_eq!(suite::check(&InNorm(&attack, &[Norm::Linf]), Strength { linear: 1.1, goals: true }), Ok(()));
    }

    #[test]
    fn the_mean_answer_is_taken_off() {
        let probes = |reached| Probes { signed: vec![3.0, 0.0, 1.0], plain: vec![1.0, 4.0, 1.0], answered: 4, reached };
        // Mean 0.5: (3 − 0.5, −2, 0.5).
        let size = (6.25_f64 + 4.0 + 0.25).sqrt();
        assert_eq!(ascent(Norm::L2, &probes(3)), [2.5 / size, -2.0 / size, 0.5 / size]);
        assert_eq!(ascent(Norm::Linf, &probes(3)), [1.0, -1.0, 1.0]);
        assert_eq!(ascent(Norm::Linf, &probes(4)), [1.0, 0.0, 1.0]);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        assert!(toml::from_str::<HopSkipJump>("stepz = 3").is_err());
        assert!(toml::from_str::<HopSkipJump>("gamma = inf").is_err());
        let error = toml::from_str::<HopSkipJump>("steps = 0").unwrap_err();
        assert!(error.message().contains("`steps` must be at least 1, got 0"), "{error}");
    }
}
