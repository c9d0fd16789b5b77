//! DeepFool, L2 and Linf.
//!
//! ```text
//! fₖ = signed distance of the logits to boundary k (negative on this side), wₖ = ∇ₓfₖ
//! l  = argminₖ |fₖ| / ‖wₖ‖_*                          ‖·‖_* = L2 for L2, L1 for Linf
//! L2    r ← r + |f_l| / ‖w_l‖₂² · w_l                 Linf  r ← r + |f_l| / ‖w_l‖₁ · sign(w_l)
//! x' = clip(x + (1 + η)·r),  until the goal is reached
//! ```
//!
//! Source: Moosavi-Dezfooli, Fawzi & Frossard, CVPR 2016, arXiv:1511.04599, algorithm 2 and section 3.3. Survey: \[91\].
//!
//! Differs from the source: the steps are in the unit of the data, whatever its range; points are clipped to the
//! bounds at each step, and elements outside the region of interest take no part. Goals with a target head for the
//! strongest rival's boundary; an untargeted multi-label goal has one boundary a finding.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, GoalKind, Gradient, Knowledge, Norm, Objective, Perturbation, Samples,
};

use super::step::sign;
use crate::boundaries::{Boundaries, Crossing, ForRows};
use crate::nearest::{Nearest, can_pay};

/// Settings of [`DeepFool`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeepFoolConfig {
    /// η: how far beyond the linearised boundary to go, as a fraction of the change; finite and at least 0.
    pub overshoot: f32,
    /// Greatest number of steps; at least 1.
    pub steps: usize,
    /// Boundaries looked at, those of the strongest other classes; at least 1.
    pub candidates: usize,
    /// Length added to each step, as a fraction of the range of the bounds; finite and at least 0.
    pub extra_step: f32,
}

impl Default for DeepFoolConfig {
    /// The paper's. The authors' code adds 1e-4 to each step.
    fn default() -> Self {
        Self { overshoot: 0.02, steps: 50, candidates: 10, extra_step: 0.0 }
    }
}

impl DeepFoolConfig {
    pub(super) fn check(self) -> Result<Self, Error> {
        if !(self.overshoot.is_finite() && self.overshoot >= 0.0) {
            return Err(Error::invalid("overshoot", "finite and at least 0", self.overshoot));
        }
        if self.steps == 0 {
            return Err(Error::invalid("steps", "at least 1", self.steps));
        }
        if self.candidates == 0 {
            return Err(Error::invalid("candidates", "at least 1", self.candidates));
        }
        if !(self.extra_step.is_finite() && self.extra_step >= 0.0) {
            return Err(Error::invalid("extra_step", "finite and at least 0", self.extra_step));
        }
        Ok(self)
    }

    /// DeepFool from the points `current` (a full batch) of some rows, at most `steps` steps. Points that reach the
    /// goal are offered to `nearest`; returns their rows. `current` ends at the last points.
    pub(super) fn walk(
        &self,
        problem: &AttackProblem<'_>,
        boundaries: &Boundaries<'_>,
        nearest: &mut Nearest<'_>,
        rows: &[usize],
        current: &mut Samples,
    ) -> Result<Vec<usize>, Error> {
        let elements = problem.inputs.elements();
        let start = current.clone();
        let mut change = vec![0.0_f64; current.values().len()];
        let crossings: Vec<Crossing<'_>> = (0..boundaries.ways()).map(|rank| boundaries.crossing(rank)).collect();
        let mut reached = Vec::new();
        let mut active = rows.to_vec();
        for step in 0..=self.steps {
            active.retain(|&row| can_pay(problem, row, 1));
            if active.is_empty() {
                break;
            }
            let points = current.select(&active);
            let moves = step < self.steps && active.iter().all(|&row| can_pay(problem, row, 2));
            let missed = if moves {
                let parts: Vec<ForRows<'_>> =
                    crossings.iter().map(|objective| ForRows { objective, rows: &active }).collect();
                let parts: Vec<&dyn Objective> = parts.iter().map(|part| part as &dyn Objective).collect();
                let found = problem.oracle.gradients(&points, &parts)?;
                let missed = nearest.offer_reached(&active, &points, &found[0].outputs);
                for &position in &missed {
                    let row = active[position];
                    let change = &mut change[row * elements..(row + 1) * elements];
                    self.towards_nearest(problem, &found, position, change);
                    for ((value, start), change) in current.row_mut(row).iter_mut().zip(start.row(row)).zip(&*change) {
                        *value = (f64::from(*start) + (1.0 + f64::from(self.overshoot)) * change) as f32;
                    }
                    clip(problem, row, current);
                }
                missed
            } else {
                nearest.offer_reached(&active, &points, &problem.oracle.outputs(&points)?)
            };
            reached.extend((0..active.len()).filter(|position| !missed.contains(position)).map(|at| active[at]));
            active = missed.iter().map(|&position| active[position]).collect();
            if !moves {
                break;
            }
        }
        reached.sort_unstable();
        Ok(reached)
    }

    /// Adds to `change` the least step to the nearest linearised boundary; nothing where all gradients are zero.
    fn towards_nearest(&self, problem: &AttackProblem<'_>, found: &[Gradient], position: usize, change: &mut [f64]) {
        let (norm, domain) = (problem.threat.norm(), problem.threat.domain());
        let slope = |gradient: &Gradient, element: usize| {
            if domain.is_mutable(element) { gradient.inputs.row(position)[element] } else { 0.0 }
        };
        let nearest = found
            .iter()
            .map(|gradient| {
                let slopes: Vec<f32> = (0..change.len()).map(|element| slope(gradient, element)).collect();
                let length = norm.dual(&slopes);
                (f64::from(gradient.values[position]).abs() / length, length, slopes)
            })
            .filter(|(_, length, _)| *length > 0.0)
            .min_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((distance, length, slopes)) = nearest {
            // On the boundary itself a step of no length would never leave it.
            let range = f64::from(domain.range());
            let distance = (distance + f64::from(self.extra_step) * range).max(f64::from(f32::EPSILON) * range);
            for (change, slope) in change.iter_mut().zip(slopes) {
                *change +=
                    distance * if norm == Norm::Linf { f64::from(sign(slope)) } else { f64::from(slope) / length };
            }
        }
    }
}

/// Brings one row of a full batch back into the bounds and the region of interest.
pub(super) fn clip(problem: &AttackProblem<'_>, row: usize, points: &mut Samples) {
    problem.threat.norm().project(f32::INFINITY, problem.threat.domain(), problem.inputs.row(row), points.row_mut(row));
}

/// DeepFool; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "DeepFoolConfig")]
pub struct DeepFool(DeepFoolConfig);

impl TryFrom<DeepFoolConfig> for DeepFool {
    type Error = Error;

    fn try_from(config: DeepFoolConfig) -> Result<Self, Error> {
        config.check().map(Self)
    }
}

impl DeepFool {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "deepfool",
        title: "DeepFool",
        source: "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599",
        family: "gradient",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps · candidates gradients, steps + 2 queries",
        minimum_norm: true,
    };
}

impl Attack for DeepFool {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one query and, for each boundary looked at, one gradient query a step, and two queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let boundaries = Boundaries::new(problem, self.0.candidates)?;
        let mut nearest = Nearest::new(problem);
        let rows: Vec<usize> = (0..problem.inputs.len()).collect();
        self.0.walk(problem, &boundaries, &mut nearest, &rows, &mut problem.inputs.clone())?;
        Ok(nearest.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    fn deep_fool(config: DeepFoolConfig) -> DeepFool {
        DeepFool::try_from(config).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        let attack = deep_fool(DeepFoolConfig::default());
        assert_eq!(suite::check(&InNorm(&attack, &[Norm::Linf]), Strength { linear: 1.021, goals: true }), Ok(()));
        // Deep inside the ball of the suite one linearised step goes nearly twice as far as needed.
        assert_eq!(suite::check(&InNorm(&attack, &[Norm::L2]), Strength { linear: 1.95, goals: true }), Ok(()));
    }

    /// Distance found over least distance for each sample of a linear model.
    fn ratios(model: &Linear, norm: Norm, domain: Domain, config: DeepFoolConfig) -> Vec<f64> {
        let inputs = suite::ct_samples();
        let goal = Goal::Untargeted { labels: suite::decided(model, &inputs) };
        let threat = ThreatModel::new(norm, f32::INFINITY, domain).unwrap();
        let outcome = deep_fool(config).run(model, &inputs, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.success.iter().all(|reached| *reached));
        (0..inputs.len())
            .map(|row| {
                let found = norm.distance(inputs.row(row), outcome.perturbed_inputs.row(row));
                found / model.least_change(norm, inputs.row(row))
            })
            .collect()
    }

    #[test]
    fn is_exact_on_linear_models_in_hounsfield_units() {
        for model in [suite::linear_classifier(), suite::linear_pair(), suite::linear_binary()] {
            for norm in [Norm::L2, Norm::Linf] {
                for (overshoot, expected) in [(0.02, 1.02), (0.001, 1.001)] {
                    let config = DeepFoolConfig { overshoot, ..DeepFoolConfig::default() };
                    for ratio in ratios(&model, norm, suite::ct_domain(), config) {
                        assert!((ratio - expected).abs() < 2e-4, "{norm} {overshoot}: {ratio}");
                    }
                }
                // The addition of the authors' code: 1e-4 of 4095 HU, next to least changes of some tens of HU.
                let config = DeepFoolConfig { extra_step: 1e-4, ..DeepFoolConfig::default() };
                assert!(ratios(&model, norm, suite::ct_domain(), config).iter().all(|ratio| *ratio > 1.0202));
            }
        }
    }

    #[test]
    fn looks_only_at_the_strongest_rivals() {
        // Class 1 is nearer in logits (1 against 2), class 2 in distance (2 against 10).
        let (domain, task) = (Domain::grey_levels(&[1], 255.0).unwrap(), Task::MultiClass { classes: 3 });
        let model = Linear::new(domain.clone(), task, vec![vec![0.0], vec![0.1], vec![1.0]], vec![0.0, -6.0, -52.0]);
        let inputs = Samples::new(vec![50.0], &[1]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        for (candidates, expected) in [(1, 60.2), (2, 52.04), (10, 52.04)] {
            let attack = deep_fool(DeepFoolConfig { candidates, ..DeepFoolConfig::default() });
            let outcome = attack.run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
            let found = outcome.perturbed_inputs.row(0)[0];
            assert!((found - expected).abs() < 1e-3, "{candidates}: {found}");
            // The clean sample, the ranking, one step and the last look.
            let backward = candidates.min(2) as u32;
            assert_eq!((outcome.queries[0].forward, outcome.queries[0].backward), (4, 2 * backward), "{candidates}");
        }
    }

    #[test]
    fn leaves_the_region_alone_and_is_exact_within_it() {
        let (model, inputs) = (suite::linear_binary(), suite::ct_samples().select(&[0]));
        let region: Vec<bool> = (0..12).map(|at| at % 3 != 0).collect();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let domain = suite::ct_domain().with_region(region.clone()).unwrap();
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let outcome = deep_fool(DeepFoolConfig::default()).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
        let weight = |at: usize| ((at * 5 + 3) % 11) as f64 / 5.0 - 1.1;
        let squares: f64 = (0..12).filter(|at| region[*at]).map(|at| weight(at).powi(2)).sum();
        let least = f64::from(model.logits(inputs.row(0))[0]).abs() / squares.sqrt();
        let ratio = Norm::L2.distance(inputs.row(0), outcome.perturbed_inputs.row(0)) / least;
        assert!((ratio - 1.02).abs() < 2e-4, "{ratio}");
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in
            ["overshoot = -0.1", "overshoot = inf", "steps = 0", "candidates = 0", "extra_step = nan", "eta = 1"]
        {
            assert!(toml::from_str::<DeepFool>(text).is_err(), "{text}");
        }
    }
}
