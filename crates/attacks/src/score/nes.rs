//! NES: projected gradient ascent on a gradient estimated from scores by natural evolution strategies; L2 and Linf.
//!
//! ```text
//! gᵢ = (1/2nσ)·Σ over n pairs of (L(x + σu) − L(x − σu))·u,  u ~ N(0, I)
//! m  = μ·m + (1 − μ)·g
//! x  = Π(x + α·sign m)        (L2: x + α·m/‖m‖₂)
//! α falls by a factor where the objective has not risen over the last few steps
//! ```
//!
//! Source: Ilyas, Engstrom, Athalye & Lin, ICML 2018, arXiv:1804.08598, section 2.1 and algorithm 2; momentum, plateaus and
//! numbers are those of the authors' program (labsix/limited-blackbox-attacks, `main.py`).
//!
//! Differs from the source: every score is seen (its settings of partial information and of labels only are not here); a
//! displacement is cut at the bounds and counts as cut; α falls when the objective at the point itself has had no new
//! greatest value for some steps (the program compares the mean over the displaced points with that of the start of a
//! window, and stops at α/200); L2 is ours.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::grid::gaussian;
use super::questions::{Questions, generators, radius, ranges};
use super::slopes::Pairs;
use crate::gradient::step::ascend;

/// Settings of [`Nes`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NesConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Pairs n of questions for one estimate; at least 1.
    pub pairs: u32,
    /// Deviation σ of a displacement as a fraction of the range of the bounds; finite and above 0.
    pub probe_fraction: f64,
    /// Weight μ of the past in the direction; at least 0 and below 1.
    pub momentum: f64,
    /// First step α as a fraction of epsilon; finite and above 0.
    pub relative_step_size: f64,
    /// Steps without a rise of the objective after which α falls; at least 1.
    pub plateau: usize,
    /// Factor by which α falls; above 0 and below 1.
    pub plateau_factor: f64,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
}

impl Default for NesConfig {
    /// The numbers of the authors' program (its step is 0.01 at an epsilon of 0.05); 10,000 queries.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            pairs: 25,
            probe_fraction: 1e-3,
            momentum: 0.9,
            relative_step_size: 0.2,
            plateau: 5,
            plateau_factor: 0.5,
            queries: 10_000,
        }
    }
}

/// NES; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "NesConfig")]
pub struct Nes(NesConfig);

impl TryFrom<NesConfig> for Nes {
    type Error = Error;

    fn try_from(config: NesConfig) -> Result<Self, Error> {
        for (field, value) in [("pairs", config.pairs as usize), ("plateau", config.plateau)] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        if config.queries == 0 {
            return Err(Error::invalid("queries", "at least 1", config.queries));
        }
        for (field, value) in
            [("probe_fraction", config.probe_fraction), ("relative_step_size", config.relative_step_size)]
        {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::invalid(field, "finite and above 0", value));
            }
        }
        if !(0.0..1.0).contains(&config.momentum) {
            return Err(Error::invalid("momentum", "at least 0 and below 1", config.momentum));
        }
        if !(config.plateau_factor > 0.0 && config.plateau_factor < 1.0) {
            return Err(Error::invalid("plateau_factor", "above 0 and below 1", config.plateau_factor));
        }
        Ok(Self(config))
    }
}

impl Nes {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "nes",
        title: "Natural evolution strategies",
        source: "Ilyas et al. 2018, arXiv:1804.08598",
        family: "score",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Scores,
        cost: "at most queries queries, 2 · pairs + 1 a step",
        minimum_norm: false,
    };
}

/// The climb of one sample.
struct Climb {
    direction: Vec<f64>,
    step: f64,
    best: f32,
    /// Steps since the objective last rose.
    idle: usize,
}

impl Attack for Nes {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// A sample stops at the first point that reaches the goal.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let threat = problem.threat;
        let ranges = ranges(threat.domain());
        let mut questions = Questions::scored(problem, self.0.queries, self.0.loss)?;
        let mut generators = generators(problem);
        let mut points = problem.inputs.clone();
        let first = self.0.relative_step_size * radius(threat);
        let fresh = || Climb { direction: vec![0.0; ranges.len()], step: first, best: f32::NEG_INFINITY, idle: 0 };
        let mut climbs: Vec<Climb> = (0..points.len()).map(|_| fresh()).collect();
        loop {
            let rows = questions.searching();
            if rows.is_empty() {
                return Ok(questions.finish(&points));
            }
            let pairs =
                Pairs { points: &points, ranges: &ranges, count: self.0.pairs, distance: self.0.probe_fraction };
            let slopes = pairs
                .slopes(&mut questions, &rows, |row| ranges.iter().map(|_| gaussian(&mut generators[row])).collect())?;
            for (&row, slope) in rows.iter().zip(slopes) {
                let climb = &mut climbs[row];
                for (part, slope) in climb.direction.iter_mut().zip(slope) {
                    *part = self.0.momentum * *part + (1.0 - self.0.momentum) * slope;
                }
                let direction: Vec<f32> = climb.direction.iter().map(|part| *part as f32).collect();
                ascend(threat, &direction, climb.step as f32, points.row_mut(row));
                threat.project_row(problem.inputs.row(row), points.row_mut(row));
            }
            let looks: Vec<_> = rows.into_iter().map(|row| (row, points.row(row).to_vec(), ())).collect();
            questions.stream(looks, |row, (), reply| {
                let Some(reply) = reply else { return };
                let climb = &mut climbs[row];
                if reply.value > climb.best {
                    (climb.best, climb.idle) = (reply.value, 0);
                } else {
                    climb.idle += 1;
                    if climb.idle == self.0.plateau {
                        (climb.step, climb.idle) = (climb.step * self.0.plateau_factor, 0);
                    }
                }
            })?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = Nes::try_from(NesConfig { pairs: 40, queries: 4000, ..NesConfig::default() }).unwrap();
        let check = |norms, linear| suite::check(&InNorm(&attack, norms), Strength { linear, goals: true });
        assert_eq!(check(&[Norm::Linf], 1.05), Ok(()));
        assert_eq!(check(&[Norm::L2], 1.05), Ok(()));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in [
            "samples = 50",
            "pairs = 0",
            "plateau = 0",
            "queries = 0",
            "probe_fraction = nan",
            "relative_step_size = 0.0",
            "momentum = 1.0",
            "plateau_factor = 1.0",
        ] {
            assert!(toml::from_str::<Nes>(text).is_err(), "{text}");
        }
    }
}
