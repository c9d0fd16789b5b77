//! Bandits-TD: a gradient prior that is learned while attacking, shared between neighbouring elements and steps; L2 and
//! Linf.
//!
//! ```text
//! v a coarse image of the gradient, 0 at first;  U enlarges it
//! each step   u ~ N(0, I/m) over the m cells;  q± = U(v ± ρ·u)
//!             Δ = (L(x + d·q₊/‖q₊‖₂) − L(x + d·q₋/‖q₋‖₂)) / (d·ρ)
//!             Linf  v ← exponentiated gradient step by η·Δ·u:  w = (v + 1)/2,
//!                   w ← w·e^{η·Δ·u} / (w·e^{η·Δ·u} + (1 − w)·e^{−η·Δ·u}),  v = 2w − 1;   x ← Π(x + α·sign U(v))
//!             L2    v ← v + η·Δ·u;                                                        x ← Π(x + α·U(v)/‖U(v)‖₂)
//! ```
//!
//! Source: Ilyas, Engstrom & Madry, ICLR 2019, arXiv:1807.07978, algorithms 2 and 3; numbers of the authors' settings for
//! `ImageNet` (MadryLab/blackbox-bandits, `src/configs`).
//!
//! Differs from the source: u is the whole of the exploration (ρ scales it once); every step also looks at its new point,
//! which the source does not count; any sample shape, and the cells of a table are its features.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::enlarge::Enlarge;
use super::grid::gaussian;
use super::questions::{Questions, along, generators, radius};
use crate::gradient::step::ascend;

/// Settings of [`Bandits`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BanditsConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Greatest number of cells of the prior along each side; at least 1. A sample with fewer elements has one cell each.
    pub cells: usize,
    /// Step α as a fraction of epsilon in Linf; finite and above 0.
    pub step_linf: f64,
    /// Step α as a fraction of epsilon in L2; finite and above 0.
    pub step_l2: f64,
    /// Step η of the prior in Linf; finite and above 0.
    pub prior_step_linf: f64,
    /// Step η of the prior in L2; finite and above 0.
    pub prior_step_l2: f64,
    /// Exploration ρ in Linf; finite and above 0.
    pub exploration_linf: f64,
    /// Exploration ρ in L2; finite and above 0.
    pub exploration_l2: f64,
    /// Length d of a displacement in Linf, in ranges of the bounds; finite and above 0.
    pub probe_linf: f64,
    /// Length d of a displacement in L2, in ranges of the bounds; finite and above 0.
    pub probe_l2: f64,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
}

impl Default for BanditsConfig {
    /// The authors' settings for `ImageNet`, steps as fractions of their epsilons (0.05 in Linf, 5 in L2).
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            cells: 50,
            step_linf: 0.2,
            step_l2: 0.1,
            prior_step_linf: 100.0,
            prior_step_l2: 0.1,
            exploration_linf: 1.0,
            exploration_l2: 0.01,
            probe_linf: 0.1,
            probe_l2: 0.01,
            queries: 10_000,
        }
    }
}

/// Bandits-TD; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "BanditsConfig")]
pub struct Bandits(BanditsConfig);

impl TryFrom<BanditsConfig> for Bandits {
    type Error = Error;

    fn try_from(config: BanditsConfig) -> Result<Self, Error> {
        if config.cells == 0 {
            return Err(Error::invalid("cells", "at least 1", config.cells));
        }
        if config.queries == 0 {
            return Err(Error::invalid("queries", "at least 1", config.queries));
        }
        for (field, value) in [
            ("step_linf", config.step_linf),
            ("step_l2", config.step_l2),
            ("prior_step_linf", config.prior_step_linf),
            ("prior_step_l2", config.prior_step_l2),
            ("exploration_linf", config.exploration_linf),
            ("exploration_l2", config.exploration_l2),
            ("probe_linf", config.probe_linf),
            ("probe_l2", config.probe_l2),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::invalid(field, "finite and above 0", value));
            }
        }
        Ok(Self(config))
    }
}

impl Bandits {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "bandits",
        title: "Bandits with time- and data-dependent priors (Bandits-TD)",
        source: "Ilyas et al. 2019, arXiv:1807.07978",
        family: "score",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Scores,
        cost: "at most queries queries, 3 a step",
        minimum_norm: false,
    };
}

impl Attack for Bandits {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// A sample stops at the first point that reaches the goal.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let threat = problem.threat;
        let config = &self.0;
        let linf = threat.norm() == Norm::Linf;
        let (step, prior_step, exploration, probe) = if linf {
            (config.step_linf, config.prior_step_linf, config.exploration_linf, config.probe_linf)
        } else {
            (config.step_l2, config.prior_step_l2, config.exploration_l2, config.probe_l2)
        };
        let step = (step * radius(threat)) as f32;
        let enlarge = Enlarge::new(threat.domain(), config.cells);
        let variables = enlarge.variables();
        let mut questions = Questions::scored(problem, config.queries, config.loss)?;
        let mut generators = generators(problem);
        let mut points = problem.inputs.clone();
        let mut priors = vec![vec![0.0; variables]; points.len()];
        loop {
            let rows = questions.searching();
            if rows.is_empty() {
                return Ok(questions.finish(&points));
            }
            let mut explored = vec![Vec::new(); points.len()];
            let mut requests = Vec::with_capacity(2 * rows.len());
            for &row in &rows {
                let spread = (variables as f64).sqrt();
                explored[row] = (0..variables).map(|_| gaussian(&mut generators[row]) / spread).collect();
                for side in [1.0, -1.0] {
                    let shifted: Vec<f64> =
                        priors[row].iter().zip(&explored[row]).map(|(v, u)| v + side * exploration * u).collect();
                    let image = enlarge.image(&shifted);
                    let scale = probe / enlarge.length(&shifted).max(f64::MIN_POSITIVE);
                    requests.push((row, along(points.row(row), scale, &image), side));
                }
            }
            let mut slopes = vec![(0.0, 0); points.len()];
            questions.stream(requests, |row, side, reply| {
                if let Some(reply) = reply {
                    slopes[row].0 += side * f64::from(reply.value) / (probe * exploration);
                    slopes[row].1 += 1;
                }
            })?;
            for &row in rows.iter().filter(|&&row| slopes[row].1 == 2) {
                for (v, u) in priors[row].iter_mut().zip(&explored[row]) {
                    let rise = prior_step * slopes[row].0 * u;
                    *v = if linf { exponentiated(*v, rise) } else { *v + rise };
                }
                let direction: Vec<f32> = enlarge.image(&priors[row]).iter().map(|part| *part as f32).collect();
                ascend(threat, &direction, step, points.row_mut(row));
                threat.project_row(problem.inputs.row(row), points.row_mut(row));
            }
            let looks: Vec<_> = rows.into_iter().map(|row| (row, points.row(row).to_vec(), ())).collect();
            questions.stream(looks, |_, (), _| {})?;
        }
    }
}

/// The exponentiated gradient step of v in [−1, 1], written so that no power overflows.
fn exponentiated(v: f64, rise: f64) -> f64 {
    let w = f64::midpoint(v, 1.0);
    // The odds w : 1 − w times e^{2·rise}.
    let (high, low) = if rise > 0.0 { (w, (1.0 - w) * (-2.0 * rise).exp()) } else { (w * (2.0 * rise).exp(), 1.0 - w) };
    // A prior that has left for one end of the interval could never come back from it.
    (2.0 * high / (high + low).max(f64::MIN_POSITIVE) - 1.0).clamp(-1.0 + 1e-9, 1.0 - 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    #[test]
    fn passes_the_common_suite() {
        // The slopes of the toy models are thousands of times those of networks over values in [0, 1].
        let config =
            BanditsConfig { queries: 6000, prior_step_linf: 5e-4, prior_step_l2: 1e-6, ..BanditsConfig::default() };
        let attack = Bandits::try_from(config).unwrap();
        let check = |norms, linear| suite::check(&InNorm(&attack, norms), Strength { linear, goals: true });
        assert_eq!(check(&[Norm::Linf], 1.2), Ok(()));
        assert_eq!(check(&[Norm::L2], 1.3), Ok(()));
    }

    #[test]
    fn the_step_of_the_prior_is_the_exponentiated_gradient() {
        for (v, rise) in [(0.0_f64, 0.3_f64), (0.5, -1.2), (-0.9, 2.0)] {
            let w = f64::midpoint(v, 1.0);
            let (up, down) = (w * rise.exp(), (1.0 - w) * (-rise).exp());
            assert!((exponentiated(v, rise) - (2.0 * up / (up + down) - 1.0)).abs() < 1e-12);
        }
        for rise in [1e6, -1e6] {
            let end = exponentiated(0.2, rise);
            assert!(end.is_finite() && end.abs() < 1.0 && end.abs() > 0.99);
            assert!(exponentiated(end, -rise) * end < 0.0);
        }
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in
            ["tile = 50", "cells = 0", "queries = 0", "step_l2 = nan", "probe_linf = 0.0", "exploration_l2 = -1"]
        {
            assert!(toml::from_str::<Bandits>(text).is_err(), "{text}");
        }
    }
}
