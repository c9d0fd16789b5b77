//! `RayS`: a search over sign vectors for the shortest ray to the boundary; Linf, minimum norm.
//!
//! ```text
//! d ∈ {−1, 1}ⁿ, first all 1;  r(d) = least r at which clip(x + r·d) is adversarial
//! stage s: for each of the 2ˢ equal blocks of elements flip the block's signs in d;
//!          if clip(x + r·d') is adversarial at the best r so far, bisect for r(d') and keep d'
//! ```
//!
//! Source: Chen & Gu, KDD 2020, arXiv:2006.12792, algorithms 2 and 3.
//!
//! Differs from the source: blocks are of the mutable elements; the bisection is as fine as a fraction of the radius
//! itself, since an absolute 0.001 of the range is too coarse for the budgets of medical images; after the stage of single
//! elements the stages begin again, until a whole round improves nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use super::walk::bisect;
use crate::score::questions::{Questions, along, ranges};

/// Settings of [`RayS`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaySConfig {
    /// Precision of a bisection as a fraction of the radius; above 0 and below 1.
    pub tolerance: f64,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
}

impl Default for RaySConfig {
    /// The numbers of the authors' program.
    fn default() -> Self {
        Self { tolerance: 1e-3, queries: 10_000 }
    }
}

/// `RayS`; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "RaySConfig")]
pub struct RayS(RaySConfig);

impl TryFrom<RaySConfig> for RayS {
    type Error = Error;

    fn try_from(config: RaySConfig) -> Result<Self, Error> {
        if !(config.tolerance > 0.0 && config.tolerance < 1.0) {
            return Err(Error::invalid("tolerance", "above 0 and below 1", config.tolerance));
        }
        if config.queries == 0 {
            return Err(Error::invalid("queries", "at least 1", config.queries));
        }
        Ok(Self(config))
    }
}

impl RayS {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "rays",
        title: "RayS",
        source: "Chen & Gu 2020, arXiv:2006.12792",
        family: "decision",
        norms: &[Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "at most queries queries",
        minimum_norm: true,
    };
}

/// The search of one sample.
struct Ray {
    signs: Vec<f64>,
    radius: f64,
    stage: u32,
    block: usize,
    /// Whether this round of stages shortened the ray.
    improved: bool,
    finished: bool,
}

impl Attack for RayS {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `queries` queries a sample: one for each flip of a block, and about ten for each that helps.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let mut questions = Questions::new(problem, self.0.queries);
        let ranges = ranges(problem.threat.domain());
        let mutable: Vec<usize> = (0..ranges.len()).filter(|&element| ranges[element] > 0.0).collect();
        let whole = f64::from(problem.threat.domain().range());
        let first = || Ray {
            signs: vec![1.0; ranges.len()],
            radius: whole,
            stage: 0,
            block: 0,
            improved: false,
            finished: false,
        };
        let mut rays: Vec<Ray> = (0..problem.inputs.len()).map(|_| first()).collect();
        let place = |row: usize, radius: f64, signs: &[f64]| along(problem.inputs.row(row), radius, signs);

        // All signs 1, before any block is flipped.
        let rows = questions.askable();
        let asked: Vec<_> = rows.iter().map(|&row| (row, place(row, whole, &rays[row].signs))).collect();
        let reached = questions.decide(asked)?;
        let candidates = rows.into_iter().zip(reached).filter(|(_, reached)| *reached == Some(true));
        let mut better: Vec<(usize, Vec<f64>)> = candidates.map(|(row, _)| (row, rays[row].signs.clone())).collect();
        loop {
            let jobs: Vec<_> = better.iter().map(|(row, _)| (*row, 0.0, rays[*row].radius)).collect();
            let radii = bisect(
                &mut questions,
                &jobs,
                |_, high| self.0.tolerance * high,
                |job, radius| place(jobs[job].0, radius, &better[job].1),
            )?;
            for ((row, signs), radius) in better.drain(..).zip(radii) {
                let ray = &mut rays[row];
                (ray.signs, ray.radius, ray.improved) = (signs, radius, true);
            }
            let mut rows = questions.askable();
            rows.retain(|&row| !rays[row].finished);
            if rows.is_empty() {
                return Ok(questions.finish_minimum());
            }
            let flipped: Vec<(usize, Vec<f64>)> = rows.iter().map(|&row| (row, rays[row].flip(&mutable))).collect();
            let asked: Vec<_> =
                flipped.iter().map(|(row, signs)| (*row, place(*row, rays[*row].radius, signs))).collect();
            let reached = questions.decide(asked)?;
            better = flipped
                .into_iter()
                .zip(reached)
                .filter(|(_, reached)| *reached == Some(true))
                .map(|(b, _)| b)
                .collect();
        }
    }
}

impl Ray {
    /// The signs with the next block flipped; the search finishes after a round of stages without an improvement.
    fn flip(&mut self, mutable: &[usize]) -> Vec<f64> {
        let size = mutable.len().div_ceil(1 << self.stage);
        let from = self.block * size;
        let to = (from + size).min(mutable.len());
        let mut signs = self.signs.clone();
        for &element in &mutable[from..to] {
            signs[element] = -signs[element];
        }
        self.block += 1;
        if to == mutable.len() {
            (self.stage, self.block) = (self.stage + 1, 0);
            if size == 1 {
                self.finished = !self.improved;
                (self.stage, self.improved) = (0, false);
            }
        }
        signs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = RayS::try_from(RaySConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.002, goals: true }), Ok(()));
    }

    #[test]
    fn blocks_halve_from_stage_to_stage() {
        let mut ray = Ray { signs: vec![1.0; 6], radius: 1.0, stage: 0, block: 0, improved: true, finished: false };
        let mutable = [0, 1, 3, 4, 5];
        let flips: Vec<Vec<usize>> = (0..9)
            .map(|_| {
                let signs = ray.flip(&mutable);
                (0..6).filter(|&at| signs[at] < 0.0).collect()
            })
            .collect();
        let expected = [
            vec![0, 1, 3, 4, 5],
            vec![0, 1, 3],
            vec![4, 5],
            vec![0, 1],
            vec![3, 4],
            vec![5],
            vec![0],
            vec![1],
            vec![3],
        ];
        assert_eq!(flips, expected);
        assert!(!ray.finished);
        // Element by element to the end, then a round that improves nothing.
        for _ in 0..2 + 11 {
            ray.flip(&mutable);
        }
        assert!(ray.finished);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        assert!(toml::from_str::<RayS>("query = 3").is_err());
        assert!(toml::from_str::<RayS>("tolerance = nan").is_err());
        let error = toml::from_str::<RayS>("queries = 0").unwrap_err();
        assert!(error.message().contains("`queries` must be at least 1, got 0"), "{error}");
    }
}
