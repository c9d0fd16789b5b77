//! Sign-OPT: descent on the distance to the boundary along a direction, from the signs of its derivatives; L2, minimum
//! norm.
//!
//! ```text
//! g(θ)   least λ at which x + λ·θ/‖θ‖ is adversarial
//! sign   of g(θ + β·u) − g(θ): −1 where x + g(θ)·(θ + β·u)/‖θ + β·u‖ is adversarial        (one query)
//! ĝ      mean of sign·u over K random unit directions u
//! step   θ − α·ĝ, α doubled while g falls; if it did not fall at all, quartered until it does
//! α < 1e-4: α = 1, β/10; end when β < 1e-8
//! ```
//!
//! Source: Cheng et al., ICLR 2020, arXiv:1909.10773, algorithm 1.
//!
//! Differs from the source: a direction is refused by one query at the least λ so far, without looking for its g; g is
//! bracketed by shrinking steps of 1, 2, 4, … percent; the first direction is the noise of `walk::starting_points`, to
//! which random ones are compared.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use super::walk::{Walk, bisect, unit};
use crate::score::grid::gaussian;
use crate::score::questions::{Questions, along, length, ranges};

/// Settings of [`SignOpt`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignOptConfig {
    /// Random directions compared at the start; 0 for none.
    pub directions: usize,
    /// Descent steps; at least 1.
    pub steps: usize,
    /// Directions K of one estimate; at least 1.
    pub probes: usize,
    /// First α; finite and above 0.
    pub step_size: f64,
    /// First β: distance of a probe as a fraction of the unit direction; finite and above 0.
    pub smoothing: f64,
    /// Precision of g, as a fraction of it; above 0 and below 1.
    pub tolerance: f64,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
}

impl Default for SignOptConfig {
    /// The values of the authors' program; the tolerance is ours.
    fn default() -> Self {
        Self {
            directions: 100,
            steps: 1000,
            probes: 200,
            step_size: 0.2,
            smoothing: 0.001,
            tolerance: 1e-5,
            queries: 20_000,
        }
    }
}

/// Sign-OPT; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SignOptConfig")]
pub struct SignOpt(SignOptConfig);

impl TryFrom<SignOptConfig> for SignOpt {
    type Error = Error;

    fn try_from(config: SignOptConfig) -> Result<Self, Error> {
        let counts = [("steps", config.steps), ("probes", config.probes), ("queries", config.queries as usize)];
        if let Some((field, got)) = counts.into_iter().find(|(_, got)| *got == 0) {
            return Err(Error::invalid(field, "at least 1", got));
        }
        for (field, got) in [("step_size", config.step_size), ("smoothing", config.smoothing)] {
            if !(got.is_finite() && got > 0.0) {
                return Err(Error::invalid(field, "finite and above 0", got));
            }
        }
        if !(config.tolerance > 0.0 && config.tolerance < 1.0) {
            return Err(Error::invalid("tolerance", "above 0 and below 1", config.tolerance));
        }
        Ok(Self(config))
    }
}

impl SignOpt {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "sign-opt",
        title: "Sign-OPT",
        source: "Cheng et al. 2020, arXiv:1909.10773",
        family: "decision",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "at most queries queries",
        minimum_norm: true,
    };
}

/// The descent of one sample.
#[derive(Clone)]
struct Descent {
    /// θ, of length 1.
    direction: Vec<f64>,
    /// g(θ).
    distance: f64,
    step_size: f64,
    smoothing: f64,
}

impl Attack for SignOpt {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `queries` queries a sample: up to 100 for the start, `directions` and a bisection for each better
    /// one, then `probes` and about 20 to 60 a step.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let ranges = ranges(problem.threat.domain());
        let mut walk = Walk::start(problem, self.0.queries)?;
        let rows = walk.rows();
        walk.approach(&rows, self.0.tolerance)?;
        let mut descents: Vec<Descent> = (0..problem.inputs.len())
            .map(|row| {
                let (change, distance) = (walk.change(row), walk.distance(row));
                let direction = change.iter().map(|part| part / distance.max(f64::MIN_POSITIVE)).collect();
                let (step_size, smoothing) = (self.0.step_size, self.0.smoothing);
                Descent { direction, distance, step_size, smoothing }
            })
            .collect();
        for _ in 0..self.0.directions {
            let rows = walk.rows();
            let tried: Vec<_> =
                rows.iter().map(|&row| (row, unit(&ranges, &mut walk.generators[row], gaussian))).collect();
            self.take_better(problem, &mut walk.questions, &mut descents, tried)?;
        }
        for _ in 0..self.0.steps {
            let mut rows = walk.rows();
            rows.retain(|&row| descents[row].smoothing >= 1e-8);
            if rows.is_empty() {
                break;
            }
            let slopes = self.slopes(problem, &mut walk, &descents, &ranges, &rows)?;
            self.descend(problem, &mut walk.questions, &mut descents, &rows, &slopes)?;
            for &row in &rows {
                let descent = &mut descents[row];
                if descent.step_size < 1e-4 {
                    (descent.step_size, descent.smoothing) = (1.0, descent.smoothing * 0.1);
                }
            }
        }
        Ok(walk.questions.finish_minimum())
    }
}

impl SignOpt {
    /// ĝ of each row.
    fn slopes(
        &self,
        problem: &AttackProblem<'_>,
        walk: &mut Walk<'_>,
        descents: &[Descent],
        ranges: &[f64],
        rows: &[usize],
    ) -> Result<Vec<Vec<f64>>, Error> {
        let mut slopes = vec![vec![0.0; ranges.len()]; rows.len()];
        let generators = &mut walk.generators;
        let jobs = (0..rows.len()).flat_map(|job| std::iter::repeat_n(job, self.0.probes));
        let requests = jobs.map(|job| {
            let row = rows[job];
            let descent = &descents[row];
            let probe = unit(ranges, &mut generators[row], gaussian);
            let moved = shifted(&descent.direction, descent.smoothing, &probe);
            (row, along(problem.inputs.row(row), descent.distance, &moved), (job, probe))
        });
        walk.questions.stream(requests, |_, (job, probe), reply| {
            if let Some(reply) = reply {
                let sign = if reply.reached { -1.0 } else { 1.0 };
                for (slope, part) in slopes[job].iter_mut().zip(probe) {
                    *slope += sign * part / self.0.probes as f64;
                }
            }
        })?;
        Ok(slopes)
    }

    /// Steps against the slopes: ever longer while the distance falls, and ever shorter where it did not.
    fn descend(
        &self,
        problem: &AttackProblem<'_>,
        questions: &mut Questions<'_>,
        descents: &mut [Descent],
        rows: &[usize],
        slopes: &[Vec<f64>],
    ) -> Result<(), Error> {
        const TRIES: usize = 15;
        let starts: Vec<Vec<f64>> = rows.iter().map(|&row| descents[row].direction.clone()).collect();
        let mut failed: Vec<usize> = (0..rows.len()).collect();
        let mut open = failed.clone();
        for growing in [true, false] {
            for _ in 0..TRIES {
                if !growing {
                    scale_steps(descents, rows, &open, 0.25);
                }
                let tried: Vec<_> = open
                    .iter()
                    .map(|&job| (rows[job], shifted(&starts[job], -descents[rows[job]].step_size, &slopes[job])))
                    .collect();
                let better = self.take_better(problem, questions, descents, tried)?;
                if growing {
                    scale_steps(descents, rows, &open, 2.0);
                }
                failed.retain(|&job| !better.contains(&rows[job]));
                open.retain(|&job| better.contains(&rows[job]) == growing && questions.left(rows[job]) > 0);
                if open.is_empty() {
                    break;
                }
            }
            open.clone_from(&failed);
        }
        Ok(())
    }

    /// Takes each tried direction (row, θ) that is adversarial at the row's distance; returns the rows that took theirs.
    fn take_better(
        &self,
        problem: &AttackProblem<'_>,
        questions: &mut Questions<'_>,
        descents: &mut [Descent],
        tried: Vec<(usize, Vec<f64>)>,
    ) -> Result<Vec<usize>, Error> {
        let place = |row: usize, distance: f64, direction: &[f64]| along(problem.inputs.row(row), distance, direction);
        let asked: Vec<_> =
            tried.iter().map(|(row, direction)| (*row, place(*row, descents[*row].distance, direction))).collect();
        let reached = questions.decide(asked)?;
        let better: Vec<(usize, Vec<f64>)> = tried
            .into_iter()
            .zip(reached)
            .filter(|(_, reached)| *reached == Some(true))
            .map(|(tried, _)| tried)
            .collect();
        // The bracket: (row, not adversarial, adversarial).
        let mut brackets: Vec<(usize, f64, f64)> =
            better.iter().map(|(row, _)| (*row, 0.0, descents[*row].distance)).collect();
        let mut open: Vec<usize> = (0..better.len()).collect();
        let mut part = 0.01;
        while part < 1.0 && !open.is_empty() {
            let low = |job: usize| descents[better[job].0].distance * (1.0 - part);
            let asked: Vec<_> =
                open.iter().map(|&job| (better[job].0, place(better[job].0, low(job), &better[job].1))).collect();
            let reached = questions.decide(asked)?;
            let mut still = Vec::new();
            for (&job, reached) in open.iter().zip(reached) {
                match reached {
                    Some(true) => {
                        brackets[job].2 = low(job);
                        still.push(job);
                    }
                    Some(false) => brackets[job].1 = low(job),
                    None => brackets[job].1 = brackets[job].2,
                }
            }
            open = still;
            part *= 2.0;
        }
        let distances = bisect(
            questions,
            &brackets,
            |_, high| self.0.tolerance * high,
            |job, distance| place(better[job].0, distance, &better[job].1),
        )?;
        let mut rows = Vec::with_capacity(better.len());
        for ((row, direction), distance) in better.into_iter().zip(distances) {
            if distance < descents[row].distance {
                (descents[row].direction, descents[row].distance) = (direction, distance);
                rows.push(row);
            }
        }
        Ok(rows)
    }
}

/// Multiplies α of the given jobs.
fn scale_steps(descents: &mut [Descent], rows: &[usize], jobs: &[usize], by: f64) {
    for &job in jobs {
        descents[rows[job]].step_size *= by;
    }
}

/// `direction + scale·shift`, of length 1.
fn shifted(direction: &[f64], scale: f64, shift: &[f64]) -> Vec<f64> {
    let moved: Vec<f64> = direction.iter().zip(shift).map(|(part, shift)| part + scale * shift).collect();
    let size = length(Norm::L2, &moved).max(f64::MIN_POSITIVE);
    moved.into_iter().map(|part| part / size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let config = SignOptConfig { directions: 20, probes: 50, queries: 2000, ..SignOptConfig::default() };
        let attack = SignOpt::try_from(config).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.002, goals: true }), Ok(()));
    }

    #[test]
    fn shifted_directions_have_length_1() {
        assert_eq!(shifted(&[1.0, 0.0], -0.5, &[-4.0, -8.0]), [0.6, 0.8]);
        assert_eq!(shifted(&[0.0, 0.0], 1.0, &[0.0, 0.0]), [0.0, 0.0]);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        assert!(toml::from_str::<SignOpt>("stepz = 3").is_err());
        assert!(toml::from_str::<SignOpt>("smoothing = -1.0").is_err());
        assert!(toml::from_str::<SignOpt>("tolerance = 1.0").is_err());
        let error = toml::from_str::<SignOpt>("probes = 0").unwrap_err();
        assert!(error.message().contains("`probes` must be at least 1, got 0"), "{error}");
    }
}
