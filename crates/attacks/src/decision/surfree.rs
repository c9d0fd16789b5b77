//! `SurFree`: no gradient at all, only circles through random planes; L2, minimum norm.
//!
//! ```text
//! u      direction from x to the adversarial point at distance d;   v a random direction orthogonal to u
//! z(α)   = x + d·cos α·(cos α·u + sin α·v)       a circle through the point (α = 0), at distance d·cos α from x
//! try    α = ±α_max, ±(T−1)/T·α_max, …, ±α_max/T; at the first adversarial one go on to the greatest by bisection
//! α_max  × ρ after a direction in which none is adversarial, ÷ ρ after a success
//! v      Gaussian in the low frequencies of the cosine transform, orthogonal to the last directions tried
//! ```
//!
//! Source: Maho, Furon & Le Merrer, CVPR 2021, arXiv:2011.12807, section 4.
//!
//! Differs from the source: v is white in the low frequencies (the source weighs it by the spectrum of the image); when
//! the directions tried fill the space they are forgotten; `α_max` stays below 90°; a table has no frequencies, so v is
//! white there.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use super::walk::{Walk, bisect};
use crate::score::grid::Grid;
use crate::score::questions::{along, length, ranges};

/// Settings of [`SurFree`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SurFreeConfig {
    /// First `α_max`, degrees; above 0 and below 90.
    pub greatest_angle: f64,
    /// Pairs of angles T tried in a direction; at least 1.
    pub angles: usize,
    /// Factor ρ on `α_max`; above 0 and below 1.
    pub angle_factor: f64,
    /// Directions to which a new one is orthogonal; 0 for none.
    pub orthogonal_to: usize,
    /// Bisections of an angle; 0 for none.
    pub bisections: u32,
    /// A bisection ends when the distance it can still save is this fraction; at least 0.
    pub bisection_tolerance: f64,
    /// Fraction of the frequencies of each side in which directions lie; above 0, at most 1.
    pub frequency_ratio: f64,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
}

impl Default for SurFreeConfig {
    /// The values of the paper and its program.
    fn default() -> Self {
        Self {
            greatest_angle: 30.0,
            angles: 3,
            angle_factor: 0.98,
            orthogonal_to: 100,
            bisections: 10,
            bisection_tolerance: 0.01,
            frequency_ratio: 0.5,
            queries: 5000,
        }
    }
}

/// `SurFree`; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SurFreeConfig")]
pub struct SurFree(SurFreeConfig);

impl TryFrom<SurFreeConfig> for SurFree {
    type Error = Error;

    fn try_from(config: SurFreeConfig) -> Result<Self, Error> {
        if !(config.greatest_angle > 0.0 && config.greatest_angle < 90.0) {
            return Err(Error::invalid("greatest_angle", "above 0 and below 90", config.greatest_angle));
        }
        for (field, got) in [("angles", config.angles), ("queries", config.queries as usize)] {
            if got == 0 {
                return Err(Error::invalid(field, "at least 1", got));
            }
        }
        if !(config.angle_factor > 0.0 && config.angle_factor < 1.0) {
            return Err(Error::invalid("angle_factor", "above 0 and below 1", config.angle_factor));
        }
        if config.bisection_tolerance.is_nan() || config.bisection_tolerance < 0.0 {
            return Err(Error::invalid("bisection_tolerance", "at least 0", config.bisection_tolerance));
        }
        if !(config.frequency_ratio > 0.0 && config.frequency_ratio <= 1.0) {
            return Err(Error::invalid("frequency_ratio", "above 0 and at most 1", config.frequency_ratio));
        }
        Ok(Self(config))
    }
}

impl SurFree {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "surfree",
        title: "SurFree",
        source: "Maho et al. 2021, arXiv:2011.12807",
        family: "decision",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "at most queries queries",
        minimum_norm: true,
    };
}

/// The plane of one direction: z(α) for any angle.
struct Plane {
    row: usize,
    distance: f64,
    u: Vec<f64>,
    v: Vec<f64>,
}

impl Plane {
    fn at(&self, clean: &[f32], degrees: f64) -> Vec<f32> {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let direction: Vec<f64> = self.u.iter().zip(&self.v).map(|(u, v)| cos * u + sin * v).collect();
        along(clean, self.distance * cos, &direction)
    }
}

/// What is remembered of one sample.
struct Memory {
    greatest_angle: f64,
    tried: VecDeque<Vec<f64>>,
}

impl Attack for SurFree {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `queries` queries a sample: up to 100 and a bisection for the start, then at most `2·angles` for a
    /// direction and about `bisections` more for one that helps.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let grid = Grid::new(problem.threat.domain());
        let kept = grid.low_frequencies(self.0.frequency_ratio);
        let ranges = ranges(problem.threat.domain());
        let mut walk = Walk::start(problem, self.0.queries)?;
        let rows = walk.rows();
        walk.approach(&rows, 1e-3)?;
        let memory = || Memory { greatest_angle: self.0.greatest_angle, tried: VecDeque::new() };
        let mut memories: Vec<Memory> = (0..problem.inputs.len()).map(|_| memory()).collect();
        loop {
            let rows = walk.rows();
            if rows.is_empty() {
                return Ok(walk.questions.finish_minimum());
            }
            let planes: Vec<Plane> = rows
                .iter()
                .map(|&row| {
                    let (change, distance) = (walk.change(row), walk.distance(row));
                    let u: Vec<f64> = change.iter().map(|part| part / distance.max(f64::MIN_POSITIVE)).collect();
                    let mut noise = grid.smooth_noise(&kept, ranges.len(), &mut walk.generators[row]);
                    noise.iter_mut().zip(&ranges).filter(|(_, range)| **range == 0.0).for_each(|(part, _)| *part = 0.0);
                    let v = self.orthogonal(noise, &u, &mut memories[row].tried);
                    Plane { row, distance, u, v }
                })
                .collect();
            let greatest: Vec<f64> = rows.iter().map(|&row| memories[row].greatest_angle).collect();
            let found = self.first_angle(problem, &mut walk, &planes, &greatest)?;
            for (job, &row) in rows.iter().enumerate() {
                let success = found.iter().any(|(found, _)| *found == job);
                let factor = if success { 1.0 / self.0.angle_factor } else { self.0.angle_factor };
                memories[row].greatest_angle = (memories[row].greatest_angle * factor).min(89.0);
            }
            self.widen(problem, &mut walk, &planes, &greatest, found)?;
        }
    }
}

impl SurFree {
    /// `noise` made orthogonal to the directions tried and to `u`, of length 1; it joins the directions tried. Where
    /// nothing is left of it these are forgotten first.
    fn orthogonal(&self, noise: Vec<f64>, u: &[f64], tried: &mut VecDeque<Vec<f64>>) -> Vec<f64> {
        const NOTHING: f64 = 1e-3;
        let remove = |from: &mut [f64], direction: &[f64]| {
            let share: f64 = from.iter().zip(direction).map(|(a, b)| a * b).sum();
            from.iter_mut().zip(direction).for_each(|(part, direction)| *part -= share * direction);
        };
        let whole = length(Norm::L2, &noise);
        let mut v = noise.clone();
        for direction in tried.iter() {
            remove(&mut v, direction);
        }
        remove(&mut v, u);
        if length(Norm::L2, &v) < NOTHING * whole {
            tried.clear();
            v = noise;
            remove(&mut v, u);
        }
        let size = length(Norm::L2, &v).max(f64::MIN_POSITIVE);
        for part in &mut v {
            *part /= size;
        }
        tried.push_back(v.clone());
        if tried.len() > self.0.orthogonal_to {
            tried.pop_front();
        }
        v
    }

    /// The first adversarial angle of each plane (job, degrees), where there is one.
    fn first_angle(
        &self,
        problem: &AttackProblem<'_>,
        walk: &mut Walk<'_>,
        planes: &[Plane],
        greatest: &[f64],
    ) -> Result<Vec<(usize, f64)>, Error> {
        let mut open: Vec<usize> = (0..planes.len()).collect();
        let mut found = Vec::new();
        for part in (1..=self.0.angles).rev() {
            for sign in [1.0, -1.0] {
                let angle = |job: usize| sign * greatest[job] * part as f64 / self.0.angles as f64;
                let points: Vec<_> = open
                    .iter()
                    .map(|&job| (planes[job].row, planes[job].at(problem.inputs.row(planes[job].row), angle(job))))
                    .collect();
                let reached = walk.questions.decide(points)?;
                let mut still = Vec::new();
                for (&job, reached) in open.iter().zip(reached) {
                    if reached == Some(true) {
                        found.push((job, angle(job)));
                    } else {
                        still.push(job);
                    }
                }
                open = still;
            }
        }
        found.sort_unstable_by_key(|(job, _)| *job);
        Ok(found)
    }

    /// Looks for the greatest adversarial angle beyond each found one (job, degrees) and moves there.
    fn widen(
        &self,
        problem: &AttackProblem<'_>,
        walk: &mut Walk<'_>,
        planes: &[Plane],
        greatest: &[f64],
        mut found: Vec<(usize, f64)>,
    ) -> Result<(), Error> {
        let clean = |job: usize| problem.inputs.row(planes[job].row);
        let stride = |job: usize, angle: f64| angle.signum() * greatest[job] / self.0.angles as f64;
        // The greatest angle tried may not be the last adversarial one.
        let mut open: Vec<usize> = (0..found.len()).filter(|&at| found[at].1.abs() >= greatest[found[at].0]).collect();
        while !open.is_empty() {
            open.retain(|&at| (found[at].1 + stride(found[at].0, found[at].1)).abs() < 90.0);
            let next = |at: usize| found[at].1 + stride(found[at].0, found[at].1);
            let asked: Vec<_> = open
                .iter()
                .map(|&at| (planes[found[at].0].row, planes[found[at].0].at(clean(found[at].0), next(at))))
                .collect();
            let reached = walk.questions.decide(asked)?;
            let further: Vec<(usize, f64)> =
                open.iter().zip(reached).filter(|(_, r)| *r == Some(true)).map(|(&at, _)| (at, next(at))).collect();
            open = further.iter().map(|(at, _)| *at).collect();
            for (at, angle) in further {
                found[at].1 = angle;
            }
        }
        // Bisection counts down from an angle that is too wide.
        let wide: Vec<f64> = found.iter().map(|(job, angle)| angle + stride(*job, *angle)).collect();
        let angle = |at: usize, back: f64| wide[at] - back * found[at].1.signum();
        let jobs: Vec<_> =
            found.iter().map(|(job, angle)| (planes[*job].row, 0.0, stride(*job, *angle).abs())).collect();
        let backs = bisect(
            &mut walk.questions,
            &jobs,
            |at, _| {
                let saving = wide[at].to_radians().sin().abs().max(f64::MIN_POSITIVE);
                let coarse = (self.0.bisection_tolerance / saving).to_degrees();
                coarse.max(jobs[at].2 / f64::from(self.0.bisections).exp2())
            },
            |at, back| planes[found[at].0].at(clean(found[at].0), angle(at, back)),
        )?;
        for (at, back) in backs.into_iter().enumerate() {
            let (job, row) = (found[at].0, planes[found[at].0].row);
            let mut point = planes[job].at(clean(job), angle(at, back));
            walk.questions.confine(row, &mut point);
            if Norm::L2.distance(clean(job), &point) < walk.distance(row) {
                walk.move_to(row, point);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let config = SurFreeConfig { frequency_ratio: 1.0, queries: 800, ..SurFreeConfig::default() };
        let attack = SurFree::try_from(config).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.002, goals: true }), Ok(()));
    }

    #[test]
    fn the_circle_runs_from_the_point_to_the_clean_sample() {
        let plane = Plane { row: 0, distance: 10.0, u: vec![1.0, 0.0], v: vec![0.0, 1.0] };
        assert_eq!(plane.at(&[5.0, 5.0], 0.0), [15.0, 5.0]);
        assert_eq!(plane.at(&[5.0, 5.0], 45.0), [10.0, 10.0]);
        for degrees in [-60.0, -20.0, 75.0] {
            let distance = Norm::L2.distance(&[5.0, 5.0], &plane.at(&[5.0, 5.0], degrees));
            assert!((distance - 10.0 * degrees.to_radians().cos()).abs() < 1e-5);
        }
    }

    #[test]
    fn directions_are_orthogonal_until_the_space_is_full() {
        let attack = SurFree::try_from(SurFreeConfig::default()).unwrap();
        let mut tried = VecDeque::new();
        let u = [1.0, 0.0, 0.0];
        let first = attack.orthogonal(vec![3.0, 4.0, 0.0], &u, &mut tried);
        let second = attack.orthogonal(vec![1.0, 5.0, -2.0], &u, &mut tried);
        assert_eq!((first, second), (vec![0.0, 1.0, 0.0], vec![0.0, 0.0, -1.0]));
        let third = attack.orthogonal(vec![1.0, 3.0, 4.0], &u, &mut tried);
        assert_eq!((third, tried.len()), (vec![0.0, 0.6, 0.8], 1));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        assert!(toml::from_str::<SurFree>("query = 3").is_err());
        assert!(toml::from_str::<SurFree>("greatest_angle = 90.0").is_err());
        assert!(toml::from_str::<SurFree>("frequency_ratio = 0.0").is_err());
        let error = toml::from_str::<SurFree>("angles = 0").unwrap_err();
        assert!(error.message().contains("`angles` must be at least 1, got 0"), "{error}");
    }
}
