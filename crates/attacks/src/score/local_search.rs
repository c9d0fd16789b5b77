//! Local search: greedy changes of the pixels that matter most, looked for near those that mattered before; L0.
//!
//! ```text
//! round   each candidate pixel alone goes to the end of its bounds that is nearer to it; the objective is asked
//!         the t pixels of greatest objective change for good: value ← r·value, measured from the middle of the bounds,
//!         with wrap-around where that leaves them
//!         next candidates: the boxes of half-side d around those pixels
//! ```
//!
//! Source: Narodytska & Kasiviswanathan, CVPR workshops 2017, arXiv:1612.06299, algorithm `LocSearchAdv` (r = 1.5, d = t =
//! 5, 150 rounds, 10 % of the pixels at first); one of the noise battery of Survey: \[6\], as in Foolbox.
//!
//! Differs from the source: a probe stays inside the bounds, where the source may leave them; no more elements change than
//! epsilon allows, and then only pixels that have changed already go on changing; at most 128 candidates at first, as in
//! Foolbox; a pixel is a place in time or space, or a feature of a table.

use std::collections::BTreeSet;

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Domain, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::grid::{Grid, coordinates, flat};
use super::questions::{Questions, generators};

/// Settings of [`LocalSearch`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalSearchConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Rounds; at least 1.
    pub rounds: usize,
    /// Pixels t that change in a round; at least 1.
    pub pixels: usize,
    /// Half-side d of the box around a changed pixel in which the next candidates lie; at least 1.
    pub reach: usize,
    /// Factor r on a value that changes; finite and above 1.
    pub factor: f64,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
}

impl Default for LocalSearchConfig {
    /// The values of the source; 10,000 queries.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, rounds: 150, pixels: 5, reach: 5, factor: 1.5, queries: 10_000 }
    }
}

/// Local search; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "LocalSearchConfig")]
pub struct LocalSearch(LocalSearchConfig);

impl TryFrom<LocalSearchConfig> for LocalSearch {
    type Error = Error;

    fn try_from(config: LocalSearchConfig) -> Result<Self, Error> {
        for (field, value) in [
            ("rounds", config.rounds),
            ("pixels", config.pixels),
            ("reach", config.reach),
            ("queries", config.queries as usize),
        ] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        if !(config.factor.is_finite() && config.factor > 1.0) {
            return Err(Error::invalid("factor", "finite and above 1", config.factor));
        }
        Ok(Self(config))
    }
}

impl LocalSearch {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "local-search",
        title: "Local search for sensitive pixels",
        source: "Narodytska & Kasiviswanathan 2017, arXiv:1612.06299",
        family: "score",
        norms: &[Norm::L0],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Scores,
        cost: "at most queries queries, 1 a candidate pixel and 1 a round",
        minimum_norm: false,
    };
}

/// Candidates of the first round: a tenth of the pixels, at most so many.
const FIRST: usize = 128;

impl Attack for LocalSearch {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// A sample stops at the first point that reaches the goal.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let (threat, domain) = (problem.threat, problem.threat.domain());
        let grid = Grid::new(domain);
        let elements = |position: usize| {
            let all = (0..grid.channels()).map(|channel| grid.element(channel, position));
            all.filter(|&element| domain.is_mutable(element)).collect::<Vec<_>>()
        };
        let mut questions = Questions::scored(problem, self.0.queries, self.0.loss)?;
        let mut generators = generators(problem);
        let mut points = problem.inputs.clone();
        let mut candidates: Vec<BTreeSet<usize>> = generators
            .iter_mut()
            .map(|generator| {
                let count = grid.positions().div_ceil(10).clamp(1, FIRST);
                (0..count).map(|_| generator.random_range(0..grid.positions().max(1))).collect()
            })
            .collect();
        for _ in 0..self.0.rounds {
            let mut rows = questions.searching();
            rows.retain(|&row| !candidates[row].is_empty());
            if rows.is_empty() {
                break;
            }
            let probes = rows.iter().flat_map(|&row| candidates[row].iter().map(move |&position| (row, position)));
            let requests: Vec<_> = probes
                .map(|(row, position)| {
                    let mut point = points.row(row).to_vec();
                    elements(position)
                        .into_iter()
                        .for_each(|element| point[element] = near_end(domain, element, point[element]));
                    (row, point, position)
                })
                .collect();
            let mut scores: Vec<Vec<(f32, usize)>> = vec![Vec::new(); points.len()];
            questions.stream(requests, |row, position, reply| {
                if let Some(reply) = reply {
                    scores[row].push((reply.value, position));
                }
            })?;
            for &row in &rows {
                scores[row].sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                let mut chosen = Vec::new();
                for (_, position) in &scores[row] {
                    let mut point = points.row(row).to_vec();
                    for element in elements(*position) {
                        point[element] = cyclic(domain, element, point[element], self.0.factor);
                    }
                    if threat.allows(problem.inputs.row(row), &point) {
                        points.row_mut(row).copy_from_slice(&point);
                        chosen.push(*position);
                    }
                    if chosen.len() == self.0.pixels {
                        break;
                    }
                }
                candidates[row] = chosen.iter().flat_map(|&position| around(&grid, position, self.0.reach)).collect();
            }
            let looks: Vec<_> = rows.into_iter().map(|row| (row, points.row(row).to_vec(), ())).collect();
            questions.stream(looks, |_, (), _| {})?;
        }
        Ok(questions.finish(&points))
    }
}

/// The end of the bounds of an element on whose side its value lies; the value itself in the very middle.
fn near_end(domain: &Domain, element: usize, value: f32) -> f32 {
    let (lower, upper) = (domain.lower()[element], domain.upper()[element]);
    match value.total_cmp(&f32::midpoint(lower, upper)) {
        std::cmp::Ordering::Less => lower,
        std::cmp::Ordering::Equal => value,
        std::cmp::Ordering::Greater => upper,
    }
}

/// `factor` times the value, both measured from the middle of the bounds, with wrap-around.
fn cyclic(domain: &Domain, element: usize, value: f32, factor: f64) -> f32 {
    let (lower, upper) = (f64::from(domain.lower()[element]), f64::from(domain.upper()[element]));
    let middle = f64::midpoint(lower, upper);
    let moved = middle + factor * (f64::from(value) - middle);
    let wrapped = if moved < lower {
        moved + (upper - lower)
    } else if moved > upper {
        moved - (upper - lower)
    } else {
        moved
    };
    wrapped.clamp(lower, upper) as f32
}

/// Positions whose coordinates are each within `reach`; of a table, whose features have no neighbours, all.
fn around(grid: &Grid, position: usize, reach: usize) -> Vec<usize> {
    if grid.is_table() {
        return (0..grid.positions()).collect();
    }
    let at = coordinates(position, grid.sides());
    let corner: Vec<usize> = at.iter().map(|at| at.saturating_sub(reach)).collect();
    let sides: Vec<usize> = at
        .iter()
        .zip(&corner)
        .zip(grid.sides())
        .map(|((at, corner), side)| (at + reach + 1).min(*side) - corner)
        .collect();
    let inside = (0..sides.iter().product()).map(|index| coordinates(index, &sides));
    inside.map(|offset| flat(offset.iter().zip(&corner).map(|(a, b)| a + b), grid.sides())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack: LocalSearch = toml::from_str("queries = 2000\nrounds = 100").unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 6.0, goals: true }), Ok(()));
    }

    #[test]
    fn values_grow_from_the_middle_and_wrap_around() {
        let domain = Domain::grey_levels(&[3], 100.0).unwrap();
        for (value, end, next) in [(60.0, 100.0, 65.0), (90.0, 100.0, 10.0), (0.0, 0.0, 75.0), (50.0, 50.0, 50.0)] {
            assert_eq!((near_end(&domain, 0, value), cyclic(&domain, 0, value, 1.5)), (end, next), "{value}");
        }
    }

    #[test]
    fn neighbours_stay_in_the_box() {
        let grid = Grid::new(&Domain::grey_levels(&[1, 4, 6], 9.0).unwrap());
        assert_eq!(around(&grid, 0, 1), [0, 1, 6, 7]);
        assert_eq!(around(&grid, 15, 1), [8, 9, 10, 14, 15, 16, 20, 21, 22]);
        assert_eq!(around(&grid, 3, 9).len(), 24);
        assert_eq!(around(&Grid::new(&Domain::grey_levels(&[4], 9.0).unwrap()), 1, 1), [0, 1, 2, 3]);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["t = 1", "rounds = 0", "pixels = 0", "reach = 0", "factor = 1.0", "queries = 0"] {
            assert!(toml::from_str::<LocalSearch>(text).is_err(), "{text}");
        }
    }
}
