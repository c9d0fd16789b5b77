//! `GeoDA`: the boundary is taken as flat, its normal estimated from decisions; L2, Linf and L1; minimum norm.
//!
//! ```text
//! at a boundary point x_b:  w += Σ ±η_i,  η_i Gaussian in the low frequencies, + where x_b + σ·η_i is adversarial
//! new x_b   the boundary on the ray x + r·v(w), with the clean x:
//!           L2 v = w/‖w‖₂     Linf v = sign(w)     L1 the elements of greatest |w| go to their bounds one by one
//! probes    N_t ∝ μ^(−2t/3) over T rounds
//! ```
//!
//! Source: Rahmati et al., CVPR 2020, arXiv:2003.06468, sections 3 and 4; rounds as in the authors' program.
//!
//! Differs from the source: the start is the noise of `walk::starting_points`; a ray is followed from the present
//! distance in steps of a half, not in fixed steps from x; in L1 the path is that of a linear model with bounds (the
//! program searches over the number of elements); in a table, which has no frequencies, η is white.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Domain, Error, GoalKind, Knowledge, Norm, Perturbation};

use super::walk::{Walk, bisect};
use crate::score::grid::Grid;
use crate::score::questions::{along, length, ranges};

/// Settings of [`GeoDa`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeoDaConfig {
    /// Frequencies kept along each side; at least 1.
    pub frequencies: usize,
    /// σ: scale of a probe as a fraction of the range of the bounds; finite and above 0.
    pub probe_scale: f64,
    /// μ: how fast the probes of a round grow; above 0, at most 1.
    pub decay: f64,
    /// Greatest number of probes of the first round; at least 1. It sets the number of rounds.
    pub first_probes: usize,
    /// Precision of a bisection as a fraction of the distance; above 0 and below 1.
    pub tolerance: f64,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
}

impl Default for GeoDaConfig {
    /// The values of the authors' program.
    fn default() -> Self {
        Self { frequencies: 75, probe_scale: 2e-4, decay: 0.6, first_probes: 80, tolerance: 1e-4, queries: 4000 }
    }
}

/// `GeoDA`; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "GeoDaConfig")]
pub struct GeoDa(GeoDaConfig);

impl TryFrom<GeoDaConfig> for GeoDa {
    type Error = Error;

    fn try_from(config: GeoDaConfig) -> Result<Self, Error> {
        let counts = [
            ("frequencies", config.frequencies),
            ("first_probes", config.first_probes),
            ("queries", config.queries as usize),
        ];
        if let Some((field, got)) = counts.into_iter().find(|(_, got)| *got == 0) {
            return Err(Error::invalid(field, "at least 1", got));
        }
        if !(config.probe_scale.is_finite() && config.probe_scale > 0.0) {
            return Err(Error::invalid("probe_scale", "finite and above 0", config.probe_scale));
        }
        if !(config.decay > 0.0 && config.decay <= 1.0) {
            return Err(Error::invalid("decay", "above 0 and at most 1", config.decay));
        }
        if !(config.tolerance > 0.0 && config.tolerance < 1.0) {
            return Err(Error::invalid("tolerance", "above 0 and below 1", config.tolerance));
        }
        Ok(Self(config))
    }
}

impl GeoDa {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "geoda",
        title: "GeoDA",
        source: "Rahmati et al. 2020, arXiv:2003.06468",
        family: "decision",
        norms: &[Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "at most queries queries",
        minimum_norm: true,
    };

    /// Probes of each round: together with 25 queries a round for bisection they make the budget.
    fn rounds(&self) -> Vec<usize> {
        const BISECTION: f64 = 25.0;
        let growth = self.0.decay.powf(-2.0 / 3.0);
        let mut rounds = 1;
        loop {
            let probes = (f64::from(self.0.queries) - BISECTION * f64::from(rounds)).max(1.0);
            let shares: Vec<f64> = (0..rounds).map(|round| growth.powi(round)).collect();
            let first = probes / shares.iter().sum::<f64>();
            if first <= self.0.first_probes as f64 {
                return shares.iter().map(|share| ((first * share).round() as usize).max(1)).collect();
            }
            rounds += 1;
        }
    }
}

impl Attack for GeoDa {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `queries` queries a sample, most of them probes.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let domain = problem.threat.domain();
        let norm = problem.threat.norm();
        let grid = Grid::new(domain);
        let kept = grid.coarse(self.0.frequencies);
        let ranges = ranges(domain);
        let elements = ranges.len();
        let mut walk = Walk::start(problem, self.0.queries)?;
        let rows = walk.rows();
        walk.approach(&rows, self.0.tolerance)?;
        let scale = (self.0.probe_scale * f64::from(domain.range())).max(walk.least_scale() / (elements as f64).sqrt());
        // Nothing beyond the farthest corner of the bounds.
        let farthest = length(norm, &ranges);
        let mut normals = vec![vec![0.0; elements]; problem.inputs.len()];
        for probes in self.rounds() {
            let rows = walk.rows();
            if rows.is_empty() {
                break;
            }
            let answers = walk.probe(&rows, &vec![probes; rows.len()], &vec![scale; rows.len()], |generator| {
                grid.smooth_noise(&kept, elements, generator)
            })?;
            for (&row, answers) in rows.iter().zip(answers) {
                for ((normal, part), range) in normals[row].iter_mut().zip(answers.signed).zip(&ranges) {
                    *normal += if *range > 0.0 { part } else { 0.0 };
                }
            }
            let paths: Vec<Path<'_>> =
                rows.iter().map(|&row| Path::new(norm, domain, problem.inputs.row(row), &normals[row])).collect();
            // Out along each path until it is adversarial.
            let mut spans: Vec<(usize, f64, f64)> = rows.iter().map(|&row| (row, 0.0, walk.distance(row))).collect();
            let mut open: Vec<usize> = (0..rows.len()).collect();
            let mut crossed = Vec::new();
            while !open.is_empty() {
                let asked: Vec<_> = open.iter().map(|&job| (rows[job], paths[job].at(spans[job].2))).collect();
                let reached = walk.questions.decide(asked)?;
                let mut still = Vec::new();
                for (&job, reached) in open.iter().zip(reached) {
                    match reached {
                        Some(true) => crossed.push(job),
                        Some(false) if spans[job].2 < farthest => {
                            spans[job] = (rows[job], spans[job].2, 1.5 * spans[job].2);
                            still.push(job);
                        }
                        _ => {}
                    }
                }
                open = still;
            }
            crossed.sort_unstable();
            let jobs: Vec<_> = crossed.iter().map(|&job| spans[job]).collect();
            let distances = bisect(
                &mut walk.questions,
                &jobs,
                |_, high| self.0.tolerance * high,
                |at, distance| paths[crossed[at]].at(distance),
            )?;
            for (&job, distance) in crossed.iter().zip(distances) {
                let mut point = paths[job].at(distance);
                walk.questions.confine(rows[job], &mut point);
                walk.move_to(rows[job], point);
            }
        }
        Ok(walk.questions.finish_minimum())
    }
}

/// The ray along which a flat boundary with this normal is nearest.
struct Path<'p> {
    norm: Norm,
    domain: &'p Domain,
    clean: &'p [f32],
    /// L2 and Linf: the direction. L1: the normal.
    direction: Vec<f64>,
    /// L1: elements by falling |normal|.
    order: Vec<usize>,
}

impl<'p> Path<'p> {
    fn new(norm: Norm, domain: &'p Domain, clean: &'p [f32], normal: &[f64]) -> Self {
        let size = length(Norm::L2, normal);
        let part = |part: f64| match norm {
            _ if part == 0.0 => 0.0,
            Norm::Linf => part.signum(),
            _ => part / size,
        };
        let direction: Vec<f64> = normal.iter().map(|&slope| part(slope)).collect();
        let mut order: Vec<usize> = (0..normal.len()).filter(|&element| direction[element] != 0.0).collect();
        order.sort_by(|&a, &b| direction[b].abs().total_cmp(&direction[a].abs()).then(a.cmp(&b)));
        Self { norm, domain, clean, direction, order }
    }

    /// The point at this distance, before clipping.
    fn at(&self, distance: f64) -> Vec<f32> {
        if self.norm != Norm::L1 {
            return along(self.clean, distance, &self.direction);
        }
        let mut point = self.clean.to_vec();
        let mut left = distance;
        for &element in &self.order {
            let up = self.direction[element] > 0.0;
            let end = if up { self.domain.upper()[element] } else { self.domain.lower()[element] };
            let move_by = (f64::from(end) - f64::from(self.clean[element])).abs().min(left);
            point[element] = (f64::from(self.clean[element]) + if up { move_by } else { -move_by }) as f32;
            left -= move_by;
            if left <= 0.0 {
                break;
            }
        }
        point
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = GeoDa::try_from(GeoDaConfig { queries: 1000, ..GeoDaConfig::default() }).unwrap();
        assert_eq!(suite::check(&InNorm(&attack, &[Norm::L1]), Strength { linear: 1.002, goals: true }), Ok(()));
        // One plane for a whole sphere.
        assert_eq!(suite::check(&InNorm(&attack, &[Norm::L2]), Strength { linear: 1.5, goals: true }), Ok(()));
        // The ray along the signs may miss a target that lies between other classes.
        assert_eq!(suite::check(&InNorm(&attack, &[Norm::Linf]), Strength { linear: 1.05, goals: false }), Ok(()));
    }

    #[test]
    fn rounds_grow_and_fit_the_budget() {
        let attack = GeoDa::try_from(GeoDaConfig::default()).unwrap();
        let rounds = attack.rounds();
        assert!(rounds[0] <= 80 && rounds.windows(2).all(|pair| pair[1] > pair[0]), "{rounds:?}");
        let total = rounds.iter().sum::<usize>() + 25 * rounds.len();
        assert!(total.abs_diff(4000) <= rounds.len(), "{total}");
        // 0.6^(−2/3)
        assert!((rounds[5] as f64 / rounds[4] as f64 - 1.405_72).abs() < 0.01);
        let small = GeoDa::try_from(GeoDaConfig { queries: 10, ..GeoDaConfig::default() }).unwrap();
        assert_eq!(small.rounds(), [1]);
    }

    #[test]
    fn each_norm_has_its_path() {
        let domain = Domain::grey_levels(&[4], 255.0).unwrap();
        let clean = [100.0, 250.0, 100.0, 100.0];
        let at = |norm, distance| Path::new(norm, &domain, &clean, &[3.0, 4.0, 0.0, 0.0]).at(distance);
        assert_eq!(at(Norm::L2, 10.0), [106.0, 258.0, 100.0, 100.0]);
        assert_eq!(at(Norm::Linf, 10.0), [110.0, 260.0, 100.0, 100.0]);
        // The steepest element has room for 5.
        assert_eq!(at(Norm::L1, 12.0), [107.0, 255.0, 100.0, 100.0]);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        assert!(toml::from_str::<GeoDa>("query = 3").is_err());
        assert!(toml::from_str::<GeoDa>("decay = 0.0").is_err());
        assert!(toml::from_str::<GeoDa>("probe_scale = nan").is_err());
        let error = toml::from_str::<GeoDa>("frequencies = 0").unwrap_err();
        assert!(error.message().contains("`frequencies` must be at least 1, got 0"), "{error}");
    }
}
