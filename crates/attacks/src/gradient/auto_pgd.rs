//! Auto-PGD (APGD) in L1, L2 and Linf: PGD with momentum that sets its own step size.
//!
//! ```text
//! Linf, L2   z  = Π(xₜ + η·step(g))                       a = 1 in the first step, 0.75 later
//!            xₜ₊₁ = Π(xₜ + a·(z − xₜ) + (1 − a)·(xₜ − xₜ₋₁))
//!            at the checkpoints, when at most ρ of the steps since the last one raised the objective, or when the
//!            last one kept η and the best objective is the same: η ← η/2, x ← best point.  η₀ = 2ε
//! L1         xₜ₊₁ = Π(xₜ + η·s/‖s‖₁),  s = sign of the ⌈k·n⌉ greatest |g|; every 4 % of the steps
//!            k ← ‖best − x‖₀/(1.5·n), and η ← ε, x ← best point when ‖best − x‖₀ fell by over 5 %, else
//!            η ← max(η/1.5, ε/10).  η₀ = ε, k₀ = 0.2
//! checkpoints after 22 % of the steps, then in gaps that shrink by 3 % of the steps down to 6 %
//! Π = nearest point of ball ∩ bounds;  n elements
//! ```
//!
//! Source: Croce & Hein, ICML 2020, arXiv:2003.01690, section 3 and algorithm 1; L1: Croce & Hein, ICML 2021,
//! arXiv:2103.01208, section 3 (with its decreasing radii). Constants as in the authors' AutoAttack.
//!
//! Differs from the source: a sample stops at the first point that reaches the goal; where none does, the point with
//! the best objective is returned. L2 projects onto ball ∩ bounds at once. Elements outside the region of interest take
//! no part in norms, signs and the sparse choice, and changes within the rounding of floats do not count as such. The
//! first comparison of two objectives is that of the starting point with the first step (the paper's; AutoAttack compares
//! the first step with 0). The random start of L1 has the range of the bounds as standard deviation, which is the source's
//! 1 on data in [0, 1]. Of equal |g| the first are chosen (AutoAttack moves all, and stands still in L1 where most are
//! equal). An infinite epsilon counts as the size of the bounds.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    ActiveSet, Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Objective, Perturbation,
    Samples, Seed,
};

use super::step::{ascend, sign};
use crate::boundaries::ForRows;
use crate::gaussian::gaussian;

/// Settings of [`AutoPgd`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoPgdConfig {
    /// Objective to ascend; not the scaled cross-entropy, whose values do not rank points.
    pub loss: Loss,
    /// Gradient steps of each restart; at least 1.
    pub steps: usize,
    /// Independent searches, each on the samples that the earlier ones left; at least 1.
    pub restarts: usize,
    /// Greatest fraction ρ of raising steps at which the step is halved (L2, Linf); in [0, 1].
    pub rho: f32,
    /// L1 only: search at 3ε for 30 % of the steps, at 2ε for 30 %, then at ε.
    pub larger_radii: bool,
}

impl Default for AutoPgdConfig {
    /// Those of AutoAttack's `apgd-ce`.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, steps: 100, restarts: 1, rho: 0.75, larger_radii: false }
    }
}

impl AutoPgdConfig {
    pub(super) fn check(self) -> Result<Self, Error> {
        if self.steps == 0 {
            return Err(Error::invalid("steps", "at least 1", self.steps));
        }
        if self.restarts == 0 {
            return Err(Error::invalid("restarts", "at least 1", self.restarts));
        }
        if self.loss == Loss::ScaledCrossEntropy {
            return Err(Error::invalid("loss", "one whose values rank points", "scaled_cross_entropy"));
        }
        if !(0.0..=1.0).contains(&self.rho) {
            return Err(Error::invalid("rho", "in [0, 1]", self.rho));
        }
        Ok(self)
    }

    /// All restarts of one search on the samples that are still active, with one objective for the full batch; leaves
    /// the best points in `last`.
    pub(super) fn run(
        &self,
        problem: &AttackProblem<'_>,
        active: &mut ActiveSet<'_>,
        last: &mut Samples,
        objective: &dyn Objective,
        seed: Seed,
    ) -> Result<(), Error> {
        let norm = problem.threat.norm();
        if self.larger_radii && norm != Norm::L1 {
            return Err(Error::unsupported(format!("`larger_radii` in {norm}"), "it is a part of APGD for l1"));
        }
        let epsilon = usable_epsilon(problem);
        let first = (0.3 * self.steps as f64).ceil() as usize;
        let stages = if self.larger_radii {
            vec![(3.0 * epsilon, first), (2.0 * epsilon, first), (epsilon, self.steps.saturating_sub(2 * first))]
        } else {
            vec![(epsilon, self.steps)]
        };
        for restart in 0..self.restarts {
            let seed = seed.stream(restart as u64);
            for &row in active.rows() {
                let start = start(problem, row, stages[0].0, seed);
                last.row_mut(row).copy_from_slice(&start);
            }
            for (stage, &(epsilon, steps)) in stages.iter().enumerate() {
                let stage = Stage {
                    problem,
                    objective,
                    rho: self.rho,
                    epsilon,
                    steps,
                    all_steps: self.steps,
                    is_first: stage == 0,
                    is_last: stage + 1 == stages.len(),
                };
                stage.run(active, last)?;
            }
        }
        Ok(())
    }
}

/// APGD; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "AutoPgdConfig")]
pub struct AutoPgd(AutoPgdConfig);

impl TryFrom<AutoPgdConfig> for AutoPgd {
    type Error = Error;

    fn try_from(config: AutoPgdConfig) -> Result<Self, Error> {
        config.check().map(Self)
    }
}

impl AutoPgd {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "apgd",
        title: "Auto-PGD",
        source: "Croce & Hein 2020, arXiv:2003.01690",
        family: "gradient",
        norms: &[Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "restarts · (steps gradients, 1 query)",
        minimum_norm: false,
    };
}

impl Attack for AutoPgd {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample and restart (two gradient queries more with larger radii).
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let mut active = ActiveSet::new(problem);
        let mut last = problem.inputs.clone();
        let objective = problem.objective(problem.goal, self.0.loss)?;
        self.0.run(problem, &mut active, &mut last, &objective, problem.seed)?;
        Ok(active.finish(&last))
    }
}

/// Epsilon, or the size of the bounds where that is less: no allowed point is farther.
fn usable_epsilon(problem: &AttackProblem<'_>) -> f32 {
    let domain = problem.threat.domain();
    let reach = match problem.threat.norm() {
        Norm::L1 => domain.range() * domain.elements() as f32,
        Norm::L2 => domain.range() * (domain.elements() as f32).sqrt(),
        Norm::L0 | Norm::Linf => domain.range(),
    };
    problem.threat.epsilon().min(reach)
}

/// A random point on the surface of the ball (Linf: the greatest change is ε; L1: a projected Gaussian), inside the bounds.
fn start(problem: &AttackProblem<'_>, row: usize, epsilon: f32, seed: Seed) -> Vec<f32> {
    let (threat, clean) = (problem.threat, problem.inputs.row(row));
    let domain = threat.domain();
    let mut generator = seed.for_sample(problem.inputs.indices()[row]);
    let mut change: Vec<f64> = match threat.norm() {
        Norm::Linf => (0..clean.len()).map(|_| generator.random_range(-1.0..=1.0)).collect(),
        _ => (0..clean.len()).map(|_| gaussian(&mut generator)).collect(),
    };
    let scale = match threat.norm() {
        Norm::L1 => f64::from(domain.range()),
        Norm::L2 => f64::from(epsilon) / change.iter().map(|part| part * part).sum::<f64>().sqrt(),
        Norm::L0 | Norm::Linf => f64::from(epsilon) / change.iter().fold(0.0, |most: f64, part| most.max(part.abs())),
    };
    if !scale.is_finite() {
        change.fill(0.0);
    }
    let mut point: Vec<f32> =
        clean.iter().zip(&change).map(|(clean, part)| (f64::from(*clean) + scale * part) as f32).collect();
    threat.norm().project(epsilon, domain, clean, &mut point);
    point
}

/// A search at one radius.
struct Stage<'a> {
    problem: &'a AttackProblem<'a>,
    objective: &'a dyn Objective,
    rho: f32,
    epsilon: f32,
    steps: usize,
    /// Steps of all stages, which set the distance of the checkpoints.
    all_steps: usize,
    is_first: bool,
    /// Points of earlier stages lie outside the ball and are never kept.
    is_last: bool,
}

/// Where one sample stands.
struct Walker {
    row: usize,
    previous: Vec<f32>,
    current: Vec<f32>,
    gradient: Vec<f32>,
    best: Vec<f32>,
    best_gradient: Vec<f32>,
    best_value: f32,
    control: Control,
}

impl Stage<'_> {
    /// From the points of the active rows of `last` to their best points.
    fn run(&self, active: &mut ActiveSet<'_>, last: &mut Samples) -> Result<(), Error> {
        let problem = self.problem;
        let norm = problem.threat.norm();
        let checkpoints =
            if norm == Norm::L1 { l1_checkpoints(self.steps) } else { checkpoints(self.steps, self.all_steps) };
        let mut walkers: Vec<Walker> = active.rows().iter().map(|&row| self.walker(row, last.row(row))).collect();
        for step in 0..=self.steps {
            let affordable = walkers
                .iter()
                .map(|walker| problem.oracle.remaining(problem.inputs.indices()[walker.row]))
                .min()
                .unwrap_or(0);
            if affordable == 0 {
                break;
            }
            let rows: Vec<usize> = walkers.iter().map(|walker| walker.row).collect();
            let mut points = problem.inputs.select(&rows);
            for (position, walker) in walkers.iter().enumerate() {
                points.row_mut(position).copy_from_slice(&walker.current);
            }
            if self.is_last && (step == self.steps || affordable == 1) {
                active.keep_reached(&points, &problem.oracle.outputs(&points)?);
                break;
            }
            let objective = ForRows { objective: self.objective, rows: &rows };
            let found = problem.oracle.gradient(&points, &objective)?;
            for (position, walker) in walkers.iter_mut().enumerate() {
                walker.see(found.values[position], found.inputs.row(position), problem, step == 0);
            }
            if self.is_last {
                active.keep_reached(&points, &found.outputs);
                walkers.retain(|walker| active.rows().binary_search(&walker.row).is_ok());
            }
            let gap = checkpoints.iter().position(|&at| at == step);
            for walker in &mut walkers {
                if let Some(gap) = gap {
                    let since = if gap == 0 { 0 } else { checkpoints[gap - 1] };
                    self.review(walker, step - since);
                }
                if step < self.steps {
                    self.advance(walker, step == 0);
                }
            }
        }
        for walker in walkers {
            last.row_mut(walker.row).copy_from_slice(&walker.best);
        }
        Ok(())
    }

    fn walker(&self, row: usize, from: &[f32]) -> Walker {
        let (problem, elements) = (self.problem, from.len());
        let mut start = from.to_vec();
        problem.threat.norm().project(self.epsilon, problem.threat.domain(), problem.inputs.row(row), &mut start);
        let control = if problem.threat.norm() == Norm::L1 {
            let mutable = (0..elements).filter(|&element| problem.threat.domain().is_mutable(element)).count();
            let changed = self.changed(row, &start);
            Control::L1(if self.is_first && self.is_last {
                SparseControl { size: self.epsilon, kept: 0.2 * mutable as f64, changed: mutable }
            } else {
                SparseControl { size: self.epsilon, kept: changed as f64 / SHRINK, changed }
            })
        } else {
            Control::Smooth(SmoothControl {
                size: 2.0 * self.epsilon,
                raised: 0,
                value: f32::NEG_INFINITY,
                checked_best: f32::NEG_INFINITY,
                reduced: true,
            })
        };
        Walker {
            row,
            previous: start.clone(),
            gradient: vec![0.0; elements],
            best: start.clone(),
            best_gradient: vec![0.0; elements],
            best_value: f32::NEG_INFINITY,
            current: start,
            control,
        }
    }

    /// Elements of a point that differ from the clean sample by more than the rounding of a projection.
    fn changed(&self, row: usize, point: &[f32]) -> usize {
        let rounding = f32::EPSILON * self.problem.threat.domain().range();
        self.problem
            .inputs
            .row(row)
            .iter()
            .zip(point)
            .filter(|(clean, value)| (*clean - *value).abs() > rounding)
            .count()
    }

    fn review(&self, walker: &mut Walker, gap: usize) {
        let restart = match &mut walker.control {
            Control::Smooth(control) => control.review(gap, walker.best_value, self.rho),
            Control::L1(control) => {
                let changed = self.changed(walker.row, &walker.best);
                control.review(changed, self.epsilon)
            }
        };
        if restart {
            walker.current.copy_from_slice(&walker.best);
            walker.gradient.copy_from_slice(&walker.best_gradient);
        }
    }

    /// One step from `current`, which becomes `previous`.
    fn advance(&self, walker: &mut Walker, is_first_step: bool) {
        let (threat, clean) = (self.problem.threat, self.problem.inputs.row(walker.row));
        let project = |point: &mut [f32]| threat.norm().project(self.epsilon, threat.domain(), clean, point);
        let mut stepped = walker.current.clone();
        match &walker.control {
            Control::L1(control) => {
                sparse_step(&walker.gradient, control.kept, control.size, &mut stepped);
                project(&mut stepped);
            }
            Control::Smooth(control) => {
                ascend(threat, &walker.gradient, control.size, &mut stepped);
                project(&mut stepped);
                let weight = if is_first_step { 1.0 } else { MOMENTUM };
                for ((stepped, current), previous) in stepped.iter_mut().zip(&walker.current).zip(&walker.previous) {
                    *stepped = current + (*stepped - current) * weight + (current - previous) * (1.0 - weight);
                }
                project(&mut stepped);
            }
        }
        walker.previous = std::mem::replace(&mut walker.current, stepped);
    }
}

impl Walker {
    /// Takes note of the objective and the gradient at `current`.
    fn see(&mut self, value: f32, gradient: &[f32], problem: &AttackProblem<'_>, is_start: bool) {
        for (element, (slot, slope)) in self.gradient.iter_mut().zip(gradient).enumerate() {
            *slot = if problem.threat.domain().is_mutable(element) { *slope } else { 0.0 };
        }
        if value > self.best_value || is_start {
            self.best_value = value;
            self.best.copy_from_slice(&self.current);
            self.best_gradient.copy_from_slice(&self.gradient);
        }
        if let Control::Smooth(control) = &mut self.control {
            control.see(value, is_start);
        }
    }
}

/// The step size of a sample, and what it depends on.
enum Control {
    Smooth(SmoothControl),
    L1(SparseControl),
}

/// Weight a of the new step against the last one.
const MOMENTUM: f32 = 0.75;

/// L2 and Linf.
struct SmoothControl {
    size: f32,
    /// Steps since the last checkpoint that raised the objective.
    raised: usize,
    /// Objective after the last step.
    value: f32,
    /// Best objective at the last checkpoint.
    checked_best: f32,
    /// Whether the last checkpoint halved the step; true before the first.
    reduced: bool,
}

impl SmoothControl {
    fn see(&mut self, value: f32, is_start: bool) {
        if is_start {
            self.checked_best = value;
        } else if value > self.value {
            self.raised += 1;
        }
        self.value = value;
    }

    /// A checkpoint `gap` steps after the last: whether the step was halved and the search goes back to the best point.
    fn review(&mut self, gap: usize, best: f32, rho: f32) -> bool {
        let oscillates = self.raised as f64 <= f64::from(rho) * gap as f64;
        let stands_still = !self.reduced && self.checked_best >= best;
        self.reduced = oscillates || stands_still;
        self.checked_best = best;
        self.raised = 0;
        if self.reduced {
            self.size /= 2.0;
        }
        self.reduced
    }
}

/// Factor by which the L1 step, and the count of elements it moves, shrink.
const SHRINK: f64 = 1.5;

/// L1.
struct SparseControl {
    size: f32,
    /// Elements that a step moves.
    kept: f64,
    /// Elements in which the best point of the last checkpoint differs from the clean sample.
    changed: usize,
}

impl SparseControl {
    /// A checkpoint: whether the search goes back to the best point with the full step.
    fn review(&mut self, changed: usize, epsilon: f32) -> bool {
        let sparser = (changed as f64) < 0.95 * self.changed as f64;
        self.kept = changed as f64 / SHRINK;
        self.changed = changed;
        self.size = if sparser { epsilon } else { (self.size / SHRINK as f32).clamp(epsilon / 10.0, epsilon) };
        sparser
    }
}

/// Moves the ⌈`kept`⌉ elements of greatest |gradient|, at least one, by equal amounts that add up to `size`; never those
/// without a gradient.
fn sparse_step(gradient: &[f32], kept: f64, size: f32, point: &mut [f32]) {
    let mut steepest: Vec<usize> = (0..gradient.len()).filter(|&element| gradient[element] != 0.0).collect();
    steepest.sort_by(|&a, &b| gradient[b].abs().total_cmp(&gradient[a].abs()).then(a.cmp(&b)));
    steepest.truncate((kept.ceil() as usize).max(1));
    for &element in &steepest {
        point[element] += size / steepest.len() as f32 * sign(gradient[element]);
    }
}

/// Steps after which the step size is reviewed: gaps of 22 % of `all_steps`, shrinking by 3 % down to 6 %.
fn checkpoints(steps: usize, all_steps: usize) -> Vec<usize> {
    let part = |percent: usize| (percent * all_steps / 100).max(1);
    let (mut gap, mut at, mut found) = (part(22), 0, Vec::new());
    while at + gap <= steps {
        at += gap;
        found.push(at);
        gap = gap.saturating_sub(part(3)).max(part(6));
    }
    found
}

/// L1: every 4 % of the steps.
fn l1_checkpoints(steps: usize) -> Vec<usize> {
    let gap = (4 * steps / 100).max(1);
    (1..=steps / gap).map(|count| count * gap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Label, Task, ThreatModel};
    use nocebo_testkit::models::{Constant, Linear, Recorder};
    use nocebo_testkit::suite::{self, InNorm, Strength};

    fn apgd(config: AutoPgdConfig) -> AutoPgd {
        AutoPgd::try_from(config).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        for loss in [Loss::CrossEntropy, Loss::Margin] {
            let attack = apgd(AutoPgdConfig { loss, ..AutoPgdConfig::default() });
            let exact = suite::check(&InNorm(&attack, &[Norm::L2, Norm::Linf]), Strength::EXACT);
            assert_eq!(exact, Ok(()), "{loss:?}");
            let sparse = suite::check(&InNorm(&attack, &[Norm::L1]), Strength { linear: 1.1, goals: true });
            assert_eq!(sparse, Ok(()), "{loss:?}");
        }
    }

    #[test]
    fn checkpoints_are_those_of_the_reference() {
        assert_eq!(checkpoints(100, 100), [22, 41, 57, 70, 80, 87, 93, 99]);
        // 22, 3 and 6 % of 20 steps are 4, 0 (so 1) and 1 steps.
        assert_eq!(checkpoints(20, 20), [4, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        assert_eq!(checkpoints(1, 1), [1]);
        assert_eq!(l1_checkpoints(100), (1..=25).map(|count| 4 * count).collect::<Vec<_>>());
        assert_eq!(l1_checkpoints(3), [1, 2, 3]);
    }

    #[test]
    fn the_step_is_halved_when_too_few_steps_raised_the_objective() {
        let control = |raised: usize| {
            let mut control = SmoothControl { size: 8.0, raised: 0, value: 0.0, checked_best: 0.0, reduced: true };
            control.see(0.0, true);
            (1..=22).for_each(|step| control.see(if step <= raised { step as f32 } else { 0.0 }, false));
            control
        };
        // 0.75·22 = 16.5.
        let mut few = control(16);
        assert!(few.review(22, 16.0, 0.75) && few.size == 4.0 && few.reduced);
        let mut enough = control(17);
        assert!(!enough.review(22, 17.0, 0.75) && enough.size == 8.0);

        // The best objective stays: halved, because the last checkpoint kept the step; then not again by this rule.
        let rise = |control: &mut SmoothControl| (0..19).for_each(|step| control.see(100.0 + step as f32, false));
        rise(&mut enough);
        assert!(enough.review(19, 17.0, 0.75) && enough.size == 4.0);
        rise(&mut enough);
        assert!(!enough.review(16, 17.0, 0.75) && enough.size == 4.0);
    }

    #[test]
    fn the_l1_step_follows_the_sparsity_of_the_best_point() {
        let mut control = SparseControl { size: 6.0, kept: 20.0, changed: 100 };
        assert!(!control.review(95, 6.0) && control.size == 4.0 && control.kept == 95.0 / 1.5);
        assert!(control.review(90, 6.0) && control.size == 6.0 && control.kept == 60.0);
        (0..20).for_each(|_| assert!(!control.review(90, 6.0)));
        assert_eq!(control.size, 0.6);
        // A fifth of 12 elements.
        let gradient: Vec<f32> = (0..12).map(|at| at as f32 * if at % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let mut point = vec![0.0; 12];
        sparse_step(&gradient, 2.4, 6.0, &mut point);
        assert_eq!(point, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -2.0, 2.0, -2.0]);
        let mut still = vec![0.0; 12];
        sparse_step(&[0.0; 12], 2.4, 6.0, &mut still);
        assert_eq!(still, [0.0; 12]);
    }

    /// A logit that grows by 1 a grey level.
    fn ramp(threshold: f32) -> Linear {
        Linear::new(Domain::grey_levels(&[1], 255.0).unwrap(), Task::Binary { threshold }, vec![vec![1.0]], vec![0.0])
    }

    /// Gives `act` a stage of `steps` steps at radius `epsilon`, and a walker at 100.
    fn in_a_stage<T>(norm: Norm, epsilon: f32, steps: usize, act: impl FnOnce(&Stage<'_>, Walker) -> T) -> T {
        let (model, inputs) = (ramp(200.0), Samples::new(vec![100.0], &[1]).unwrap());
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(norm, epsilon, Domain::grey_levels(&[1], 255.0).unwrap()).unwrap();
        let oracle = nocebo_core::Oracle::new(&model, None);
        let problem = AttackProblem { oracle: &oracle, inputs: &inputs, goal: &goal, threat: &threat, seed: Seed(1) };
        let objective = problem.objective(&goal, Loss::Margin).unwrap();
        let stage = Stage {
            problem: &problem,
            objective: &objective,
            rho: 0.75,
            epsilon,
            steps,
            all_steps: steps,
            is_first: true,
            is_last: true,
        };
        let walker = stage.walker(0, &[100.0]);
        act(&stage, walker)
    }

    /// Where the sample goes when the gradient points up or down.
    fn stage_points(norm: Norm, epsilon: f32, moves: &[bool]) -> Vec<f32> {
        in_a_stage(norm, epsilon, moves.len(), |stage, mut walker| {
            moves
                .iter()
                .enumerate()
                .map(|(step, &up)| {
                    walker.gradient[0] = if up { 1.0 } else { -1.0 };
                    stage.advance(&mut walker, step == 0);
                    walker.current[0]
                })
                .collect()
        })
    }

    #[test]
    fn goes_back_to_the_best_point_when_the_step_is_halved() {
        for norm in [Norm::L1, Norm::L2, Norm::Linf] {
            in_a_stage(norm, 10.0, 100, |stage, mut walker| {
                for (step, (point, value, slope)) in
                    [(100.0, 0.0, 1.0), (107.0, 9.0, 2.0), (103.0, 4.0, 3.0)].into_iter().enumerate()
                {
                    walker.current[0] = point;
                    walker.see(value, &[slope], stage.problem, step == 0);
                }
                if let Control::L1(control) = &mut walker.control {
                    control.changed = 2;
                }
                stage.review(&mut walker, 22);
                assert_eq!((walker.current[0], walker.gradient[0], walker.best_value), (107.0, 2.0, 9.0), "{norm}");
            });
        }
    }

    #[test]
    fn steps_and_momentum_by_hand() {
        // The first step of 2ε reaches the end of the ball; then 0.75·(90 − 110) + 0.25·(110 − 100) = −12.5.
        assert_eq!(stage_points(Norm::Linf, 10.0, &[true, false, false]), [110.0, 97.5, 90.0]);
        assert_eq!(stage_points(Norm::L2, 10.0, &[true, false, false]), [110.0, 97.5, 90.0]);
        // No momentum in L1, and a first step of ε.
        assert_eq!(stage_points(Norm::L1, 10.0, &[true, false, false]), [110.0, 100.0, 90.0]);
    }

    #[test]
    fn every_point_is_that_of_the_peer() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let golden = nocebo_testkit::golden::Golden::open(&folder, "apgd");
        let steps = golden.parameters["steps"].as_integer().unwrap() as usize;
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            let (points, epsilons) =
                (golden.floats(&format!("{norm}.points")), golden.floats(&format!("{norm}.epsilons")));
            let clean = golden.floats(&format!("{norm}.clean"));
            let elements = clean.len() / epsilons.len();
            let domain = nocebo_testkit::golden::domain(&[elements], 0.0, 1.0);
            let network = golden.network(domain.clone());
            for (row, label) in golden.labels(&format!("{norm}.labels")).into_iter().enumerate() {
                let inputs = Samples::new(clean[row * elements..][..elements].to_vec(), &[elements]).unwrap();
                let theirs = &points[row * (steps + 1) * elements..][..(steps + 1) * elements];
                let (goal, recorder) = (Goal::Untargeted { labels: vec![label] }, Recorder::new(&network));
                let threat = ThreatModel::new(norm, epsilons[row], domain.clone()).unwrap();
                let oracle = nocebo_core::Oracle::new(&recorder, None);
                let problem =
                    AttackProblem { oracle: &oracle, inputs: &inputs, goal: &goal, threat: &threat, seed: Seed(1) };
                let objective = problem.objective(&goal, Loss::CrossEntropy).unwrap();
                // The peer takes a given start for the end of an earlier stage, which sets the sparsity of L1.
                let stage = Stage {
                    problem: &problem,
                    objective: &objective,
                    rho: golden.parameter("rho"),
                    epsilon: epsilons[row],
                    steps,
                    all_steps: steps,
                    is_first: false,
                    is_last: true,
                };
                let mut last = Samples::new(theirs[..elements].to_vec(), &[elements]).unwrap();
                stage.run(&mut ActiveSet::new(&problem), &mut last).unwrap();
                let ours = recorder.into_asked();
                assert_eq!(ours.len(), steps + 1);
                for (step, (ours, theirs)) in ours.iter().zip(theirs.chunks_exact(elements)).enumerate() {
                    let apart = ours.point.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(apart < 1e-4, "{norm}, sample {row}, step {step}: {apart}");
                }
            }
        }
    }

    #[test]
    fn starts_on_the_surface_of_the_ball() {
        let (model, inputs) = (suite::linear_classifier(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let oracle = nocebo_core::Oracle::new(&model, None);
        for norm in [Norm::L1, Norm::L2, Norm::Linf] {
            let threat = ThreatModel::new(norm, 5.0, suite::ct_domain()).unwrap();
            let problem =
                AttackProblem { oracle: &oracle, inputs: &inputs, goal: &goal, threat: &threat, seed: Seed(1) };
            let distance = norm.distance(inputs.row(3), &start(&problem, 3, 5.0, Seed(2)));
            assert!((distance - 5.0).abs() < 1e-3, "{norm}: {distance}");
        }
    }

    #[test]
    fn costs_what_it_says_and_needs_no_epsilon() {
        let (model, inputs) = (Constant::new(suite::ct_domain(), vec![1.0, 0.0, 0.5]), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let attack = apgd(AutoPgdConfig { steps: 7, restarts: 3, ..AutoPgdConfig::default() });
        for (norm, larger_radii, expected) in
            [(Norm::Linf, false, (25, 21)), (Norm::L2, false, (25, 21)), (Norm::L1, true, (31, 27))]
        {
            let attack = apgd(AutoPgdConfig { larger_radii, ..attack.0 });
            let threat = ThreatModel::new(norm, f32::INFINITY, suite::ct_domain()).unwrap();
            let outcome = attack.run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
            // One query of the 25 is the first look at the clean sample.
            assert_eq!((outcome.queries[0].forward, outcome.queries[0].backward), expected, "{norm}");
        }
    }

    #[test]
    fn larger_radii_end_inside_the_ball_and_belong_to_l1() {
        let (model, inputs) = (suite::linear_pair(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let attack = apgd(AutoPgdConfig { larger_radii: true, ..AutoPgdConfig::default() });
        for row in 0..inputs.len() {
            let (sample, goal) = (inputs.select(&[row]), goal.select(&[row]));
            let least = model.least_change(Norm::L1, sample.row(0)) as f32;
            for (factor, reached) in [(0.99, false), (1.01, true)] {
                let threat = ThreatModel::new(Norm::L1, factor * least, suite::ct_domain()).unwrap();
                let outcome = attack.run(&model, &sample, &goal, &threat, Seed(1)).unwrap();
                assert_eq!(outcome.success[0], reached, "{row} at {factor}");
            }
        }
        // A radius out of reach: a third of the points are looked for at three times it, a third at twice.
        let recorder = Recorder::new(&model);
        let (sample, part) = (inputs.select(&[0]), goal.select(&[0]));
        let threat = ThreatModel::new(Norm::L1, 10.0, suite::ct_domain()).unwrap();
        attack.run(&recorder, &sample, &part, &threat, Seed(1)).unwrap();
        let distances: Vec<f64> =
            recorder.into_asked().iter().map(|asked| Norm::L1.distance(sample.row(0), &asked.point)).collect();
        let within =
            |least: f64, most: f64| distances.iter().filter(|distance| (least..most).contains(*distance)).count();
        assert!(within(29.0, 30.1) >= 20 && within(19.0, 20.1) >= 20 && within(9.0, 10.1) >= 30, "{distances:?}");
        let threat = ThreatModel::new(Norm::L2, 1.0, suite::ct_domain()).unwrap();
        let message = attack.run(&model, &inputs, &goal, &threat, Seed(1)).unwrap_err().to_string();
        assert!(message.contains("`larger_radii` in l2"), "{message}");
    }

    #[test]
    fn dlr_needs_three_classes_and_margin_serves_one_logit() {
        let inputs = suite::ct_samples();
        let threat = ThreatModel::new(Norm::Linf, 1000.0, suite::ct_domain()).unwrap();
        let run = |loss, model: &dyn nocebo_core::DifferentiableModel| {
            let goal = Goal::Untargeted { labels: suite::decided(model, &inputs) };
            apgd(AutoPgdConfig { loss, ..AutoPgdConfig::default() }).run(model, &inputs, &goal, &threat, Seed(1))
        };
        for model in [suite::linear_pair(), suite::linear_binary()] {
            let message = run(Loss::Dlr, &model).unwrap_err().to_string();
            assert!(message.contains("DLR loss with 2 classes") && message.contains("margin"), "{message}");
            assert!(run(Loss::Margin, &model).unwrap().success.iter().all(|reached| *reached));
        }
        assert!(run(Loss::Dlr, &suite::small_relu()).is_ok());
        assert!(run(Loss::Dlr, &suite::linear_classifier()).unwrap().success.iter().all(|reached| *reached));
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in [
            "steps = 0",
            "restarts = 0",
            "rho = 1.5",
            "rho = nan",
            "step = 3",
            "loss = \"mse\"",
            "loss = \"scaled_cross_entropy\"",
        ] {
            assert!(toml::from_str::<AutoPgd>(text).is_err(), "{text}");
        }
    }
}
