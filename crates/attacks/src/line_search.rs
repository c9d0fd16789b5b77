//! The least magnitude at which a one-parameter change reaches the goal.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{AttackProblem, Error, Norm, Samples};

use crate::nearest::{Nearest, can_pay};

/// Settings of a search along a path from the clean sample (magnitude 0) to the strongest change (magnitude 1).
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LineSearch {
    /// Magnitudes that are tried upwards, each twice the one before and the last 1; in [1, 60].
    pub doublings: usize,
    /// Halvings of the interval between the last failure and the first success; each gains one bit.
    pub bisections: usize,
}

impl Default for LineSearch {
    /// From 1/32768 of the strongest change, to within 0.1 % of the least.
    fn default() -> Self {
        Self { doublings: 16, bisections: 10 }
    }
}

/// Where the search of one sample stands.
struct Bracket {
    row: usize,
    /// Doublings done.
    tried: usize,
    low: f64,
    /// The least magnitude that reached the goal; `None` before the first.
    high: Option<f64>,
    bisected: usize,
}

impl LineSearch {
    pub(crate) fn check(self) -> Result<Self, Error> {
        if (1..=60).contains(&self.doublings) {
            Ok(self)
        } else {
            Err(Error::invalid("doublings", "in [1, 60]", self.doublings))
        }
    }

    /// Offers to `nearest` what it finds for `rows`; `path` gives the point of a row at a magnitude in (0, 1].
    ///
    /// The goal may be reached and lost again between two magnitudes: the search finds one crossing, not always the
    /// first. A magnitude that changes nothing is not asked for. Costs at most `doublings + bisections` queries a
    /// sample; a sample whose query limit is spent keeps what it has.
    pub(crate) fn run(
        self,
        problem: &AttackProblem<'_>,
        nearest: &mut Nearest<'_>,
        rows: &[usize],
        path: impl Fn(usize, f64) -> Vec<f32>,
    ) -> Result<(), Error> {
        let mut brackets: Vec<Bracket> =
            rows.iter().map(|&row| Bracket { row, tried: 0, low: 0.0, high: None, bisected: 0 }).collect();
        loop {
            brackets.retain(|bracket| !self.is_done(bracket) && can_pay(problem, bracket.row, 1));
            if brackets.is_empty() {
                return Ok(());
            }
            let rows: Vec<usize> = brackets.iter().map(|bracket| bracket.row).collect();
            let mut points = problem.inputs.select(&rows);
            for (position, bracket) in brackets.iter().enumerate() {
                points.row_mut(position).copy_from_slice(&path(bracket.row, self.magnitude(bracket)));
            }
            let missed = missed(problem, nearest, &rows, &points)?;
            for (bracket, missed) in brackets.iter_mut().zip(missed) {
                let magnitude = self.magnitude(bracket);
                if bracket.high.is_some() {
                    bracket.bisected += 1;
                } else {
                    bracket.tried += 1;
                }
                if missed {
                    bracket.low = magnitude;
                } else {
                    bracket.high = Some(magnitude);
                }
            }
        }
    }

    /// [`LineSearch::run`] along a straight line from each clean sample, cut off at the bounds and the region; rows with a
    /// direction of zero are left out.
    ///
    /// The line ends at the Euclidean size of the bounds. `directions` has one row for each of `rows`.
    pub(crate) fn run_along(
        self,
        problem: &AttackProblem<'_>,
        nearest: &mut Nearest<'_>,
        rows: &[usize],
        directions: &Samples,
    ) -> Result<(), Error> {
        let domain = problem.threat.domain();
        let end = f64::from(domain.range()) * (domain.elements() as f64).sqrt();
        let mut moving = Vec::new();
        let mut units: Vec<Vec<f64>> = vec![Vec::new(); problem.inputs.len()];
        for (position, &row) in rows.iter().enumerate() {
            let direction: Vec<f64> = directions.row(position).iter().map(|part| f64::from(*part)).collect();
            let length = (0..direction.len())
                .filter(|&element| domain.is_mutable(element))
                .map(|element| direction[element].powi(2))
                .sum::<f64>()
                .sqrt();
            if length > 0.0 {
                units[row] = direction.into_iter().map(|part| part / length).collect();
                moving.push(row);
            }
        }
        self.run(problem, nearest, &moving, |row, magnitude| {
            let clean = problem.inputs.row(row);
            let mut point: Vec<f32> = clean
                .iter()
                .zip(&units[row])
                .map(|(clean, part)| (f64::from(*clean) + magnitude * end * part) as f32)
                .collect();
            Norm::Linf.project(f32::INFINITY, domain, clean, &mut point);
            point
        })
    }

    fn magnitude(self, bracket: &Bracket) -> f64 {
        match bracket.high {
            Some(high) => 0.5 * (bracket.low + high),
            None => 0.5_f64.powi((self.doublings - 1 - bracket.tried) as i32),
        }
    }

    fn is_done(self, bracket: &Bracket) -> bool {
        match bracket.high {
            Some(_) => bracket.bisected >= self.bisections,
            None => bracket.tried >= self.doublings,
        }
    }
}

/// Whether each point misses the goal. Only points that differ from the clean sample are asked for.
fn missed(
    problem: &AttackProblem<'_>,
    nearest: &mut Nearest<'_>,
    rows: &[usize],
    points: &Samples,
) -> Result<Vec<bool>, Error> {
    let mut missed = vec![true; rows.len()];
    let moved: Vec<usize> =
        (0..rows.len()).filter(|&position| points.row(position) != problem.inputs.row(rows[position])).collect();
    if !moved.is_empty() {
        let asked = points.select(&moved);
        let asked_rows: Vec<usize> = moved.iter().map(|&position| rows[position]).collect();
        let still = nearest.offer_reached(&asked_rows, &asked, &problem.oracle.outputs(&asked)?);
        for (at, &position) in moved.iter().enumerate() {
            missed[position] = still.contains(&at);
        }
    }
    Ok(missed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Goal, Label, Oracle, Seed, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    #[test]
    fn finds_the_least_magnitude_and_stops_at_the_limit() {
        // Class 1 from 40 grey levels on; the path goes from 0 to 100 grey levels.
        let domain = nocebo_core::Domain::grey_levels(&[1], 255.0).unwrap();
        let task = nocebo_core::Task::Binary { threshold: 40.0 };
        let model = Linear::new(domain.clone(), task, vec![vec![1.0]], vec![0.0]);
        let inputs = Samples::new(vec![0.0], &[1]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        assert_eq!(goal, Goal::Untargeted { labels: vec![Label::Class(0)] });
        let threat = ThreatModel::new(Norm::Linf, 255.0, domain).unwrap();
        // 100/4, 100/2 with one doubling each; then halvings of [25, 50].
        for (limit, expected) in [(1, None), (2, Some(50.0)), (4, Some(43.75)), (5, Some(40.625)), (40, Some(40.0))] {
            let oracle = Oracle::new(&model, Some(limit));
            let problem =
                AttackProblem { oracle: &oracle, inputs: &inputs, goal: &goal, threat: &threat, seed: Seed(1) };
            let mut nearest = Nearest::new(&problem);
            let search = LineSearch { doublings: 3, bisections: 30 };
            search.run(&problem, &mut nearest, &[0], |_, magnitude| vec![100.0 * magnitude as f32]).unwrap();
            let found = nearest.finish();
            assert_eq!(found.success[0], expected.is_some(), "limit {limit}");
            let distance = found.inputs.row(0)[0];
            assert!((distance - expected.unwrap_or(0.0)).abs() < 1e-4, "limit {limit}: {distance}");
            assert!(oracle.queries(0).forward <= limit);
        }
        assert!(LineSearch { doublings: 0, bisections: 1 }.check().is_err());
    }
}
