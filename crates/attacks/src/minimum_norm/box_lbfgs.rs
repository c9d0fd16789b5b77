//! Box-constrained L-BFGS attack, L2.
//!
//! ```text
//! minimise ‖x' − x‖₂² + c·J(x')  inside the bounds        J = −log p(goal)
//! ```
//!
//! A projected limited-memory BFGS solves each problem; the least c that still succeeds is found by a binary search.
//!
//! Source: Szegedy et al., ICLR 2014, arXiv:1312.6199, section 4.1; the binary search is that of `CleverHans`.
//! Survey: \[122\].
//!
//! Differs from the source: distances are in the range of the bounds; the solver is a projected L-BFGS with
//! backtracking, not L-BFGS-B; goals other than a target have J = −log of the probability that the goal is reached
//! (multi-label: of its margin).

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation, Task};

use super::constant_search::ConstantSearch;
use super::frame::{Frame, size};
use super::search::{Ask, Search, Seen, minimise};
use super::settings::{at_least_one, positive};

/// Share of the predicted decrease that a step must achieve (Armijo).
const SUFFICIENT: f64 = 1e-4;
/// Halvings of a step before the direction is given up.
const HALVINGS: usize = 20;
/// Relative decrease, and length of the projected gradient, below which a minimum counts as found.
const TOLERANCE: f64 = 1e-9;

/// Settings of [`BoxLbfgs`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoxLbfgsConfig {
    /// Values of c that are tried; at least 1.
    pub search_steps: usize,
    /// Greatest number of gradients for each c; at least 1.
    pub steps: usize,
    /// First value of c; finite and above 0.
    pub initial_constant: f64,
    /// Pairs of steps and gradients that the approximation of the curvature keeps; at least 1.
    pub memory: usize,
}

impl Default for BoxLbfgsConfig {
    /// Values of `CleverHans`, and the memory of the usual L-BFGS-B.
    fn default() -> Self {
        Self { search_steps: 5, steps: 1000, initial_constant: 0.01, memory: 10 }
    }
}

/// Box-constrained L-BFGS; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "BoxLbfgsConfig")]
pub struct BoxLbfgs(BoxLbfgsConfig);

impl TryFrom<BoxLbfgsConfig> for BoxLbfgs {
    type Error = Error;

    fn try_from(config: BoxLbfgsConfig) -> Result<Self, Error> {
        at_least_one("search_steps", config.search_steps)?;
        at_least_one("steps", config.steps)?;
        positive("initial_constant", config.initial_constant)?;
        at_least_one("memory", config.memory)?;
        Ok(Self(config))
    }
}

impl BoxLbfgs {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "box-lbfgs",
        title: "Box-constrained L-BFGS",
        source: "Szegedy et al. 2014, arXiv:1312.6199",
        family: "minimum_norm",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "search_steps · steps gradients",
        minimum_norm: true,
    };
}

impl Attack for BoxLbfgs {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `search_steps · steps` gradient queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let loss = match problem.oracle.spec().task {
            Task::MultiLabel { .. } => Loss::Margin,
            _ => Loss::CrossEntropy,
        };
        minimise(problem, loss, |row| {
            let frame = Frame::new(problem.threat.domain(), problem.inputs.row(row));
            Minimisation {
                config: self.0,
                frame,
                constant: ConstantSearch::new(self.0.initial_constant, self.0.search_steps),
                solver: ProjectedLbfgs::new(frame, self.0.memory),
                step: 0,
                found: false,
            }
        })
    }
}

/// The search of one sample.
struct Minimisation<'a> {
    config: BoxLbfgsConfig,
    frame: Frame<'a>,
    constant: ConstantSearch,
    solver: ProjectedLbfgs<'a>,
    step: usize,
    found: bool,
}

impl Search for Minimisation<'_> {
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        self.found |= seen.reached;
        self.step += 1;
        // J = log(1 + e^−v) for log-odds v of the goal.
        let change = &self.solver.trial;
        let loss = (-seen.value).max(0.0) + (-seen.value.abs()).exp().ln_1p();
        let weight = self.constant.value() / (1.0 + seen.value.exp());
        let value = size(Norm::L2, change).powi(2) + self.constant.value() * loss;
        let slopes = self.frame.slopes(seen.gradient);
        let gradient = change.iter().zip(slopes).map(|(change, slope)| 2.0 * change - weight * slope).collect();
        if self.step < self.config.steps && self.solver.advance(value, gradient) {
            return Some(Ask::Gradient(self.frame.point(&self.solver.trial)));
        }
        if !self.constant.advance(self.found) {
            return None;
        }
        self.solver = ProjectedLbfgs::new(self.frame, self.config.memory);
        (self.step, self.found) = (0, false);
        Some(Ask::Gradient(self.frame.clean().to_vec()))
    }
}

/// A point that the solver accepted.
struct Iterate {
    change: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
}

/// Limited-memory BFGS on the elements that the bounds leave free, with backtracking along the projected direction.
struct ProjectedLbfgs<'a> {
    frame: Frame<'a>,
    memory: usize,
    /// (step, change of gradient), the newest last.
    pairs: VecDeque<(Vec<f64>, Vec<f64>)>,
    iterate: Option<Iterate>,
    direction: Vec<f64>,
    step_size: f64,
    halvings: usize,
    /// Where value and gradient are wanted.
    trial: Vec<f64>,
}

impl<'a> ProjectedLbfgs<'a> {
    fn new(frame: Frame<'a>, memory: usize) -> Self {
        let zero = vec![0.0; frame.elements()];
        Self {
            frame,
            memory,
            pairs: VecDeque::new(),
            iterate: None,
            direction: zero.clone(),
            step_size: 1.0,
            halvings: 0,
            trial: zero,
        }
    }

    /// Takes value and gradient at the trial point and sets the next one. Returns false when there is nothing to gain.
    fn advance(&mut self, value: f64, gradient: Vec<f64>) -> bool {
        let new = Iterate { change: self.trial.clone(), value, gradient };
        let Some(old) = self.iterate.take() else {
            self.iterate = Some(new);
            return self.set_direction();
        };
        let step: Vec<f64> = difference(&new.change, &old.change);
        if new.value > old.value + SUFFICIENT * dot(&old.gradient, &step) || !new.value.is_finite() {
            self.iterate = Some(old);
            return self.retry();
        }
        let bend = difference(&new.gradient, &old.gradient);
        let gained = old.value - new.value;
        let small = gained <= TOLERANCE * old.value.abs().max(new.value.abs());
        if dot(&step, &bend) > f64::EPSILON * dot(&bend, &bend) {
            self.pairs.push_back((step, bend));
            if self.pairs.len() > self.memory {
                self.pairs.pop_front();
            }
        }
        self.iterate = Some(new);
        !small && self.set_direction()
    }

    fn retry(&mut self) -> bool {
        self.halvings += 1;
        if self.halvings > HALVINGS {
            if self.pairs.is_empty() {
                return false;
            }
            self.pairs.clear();
            return self.set_direction();
        }
        self.step_size *= 0.5;
        self.set_trial();
        true
    }

    fn set_trial(&mut self) {
        if let Some(iterate) = &self.iterate {
            self.trial = iterate.change.iter().zip(&self.direction).map(|(at, d)| at + self.step_size * d).collect();
            self.frame.clip(&mut self.trial);
        }
    }

    /// Whether there is a direction of descent.
    fn set_direction(&mut self) -> bool {
        let Some(iterate) = &self.iterate else { return false };
        let free: Vec<f64> = iterate
            .gradient
            .iter()
            .zip(&iterate.change)
            .enumerate()
            .map(|(element, (slope, change))| {
                let (low, high) = self.frame.room(element);
                let held = *slope > 0.0 && *change <= low || *slope < 0.0 && *change >= high;
                if held { 0.0 } else { *slope }
            })
            .collect();
        if size(Norm::Linf, &free) <= TOLERANCE {
            return false;
        }
        let mut direction = two_loop(&free, &self.pairs);
        for (part, slope) in direction.iter_mut().zip(&free) {
            *part = if *slope == 0.0 { 0.0 } else { -*part };
        }
        if dot(&direction, &free) >= 0.0 {
            direction = free.iter().map(|slope| -slope).collect();
            self.pairs.clear();
        }
        self.step_size = if self.pairs.is_empty() { (1.0 / size(Norm::L2, &free)).min(1.0) } else { 1.0 };
        self.halvings = 0;
        self.direction = direction;
        self.set_trial();
        true
    }
}

/// The inverse curvature of the pairs times a gradient (Nocedal & Wright, algorithm 7.4).
fn two_loop(gradient: &[f64], pairs: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let mut result = gradient.to_vec();
    let mut weights = Vec::with_capacity(pairs.len());
    for (step, bend) in pairs.iter().rev() {
        let weight = dot(step, &result) / dot(step, bend);
        result.iter_mut().zip(bend).for_each(|(part, bend)| *part -= weight * bend);
        weights.push(weight);
    }
    if let Some((step, bend)) = pairs.back() {
        let scale = dot(step, bend) / dot(bend, bend);
        for part in &mut result {
            *part *= scale;
        }
    }
    for ((step, bend), weight) in pairs.iter().zip(weights.into_iter().rev()) {
        let correction = weight - dot(bend, &result) / dot(step, bend);
        result.iter_mut().zip(step).for_each(|(part, step)| *part += correction * step);
    }
    result
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::Domain;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let config = BoxLbfgsConfig { search_steps: 20, steps: 40, ..Default::default() };
        let attack = BoxLbfgs::try_from(config).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.1, goals: true }), Ok(()));
    }

    #[test]
    fn the_solver_finds_the_minimum_of_a_valley_inside_the_bounds() {
        // Rosenbrock's function of (a, b): least at (1, 1), and at (0.5, 0.25) where a ≤ 0.5.
        let valley = |x: &[f64]| {
            let (a, b) = (x[0], x[1]);
            let value = (1.0 - a).powi(2) + 100.0 * (b - a * a).powi(2);
            (value, vec![-2.0 * (1.0 - a) - 400.0 * a * (b - a * a), 200.0 * (b - a * a)])
        };
        let domain = Domain::grey_levels(&[2], 100.0).unwrap();
        for (clean, expected) in [([0.0, 0.0], [1.0, 1.0]), ([50.0, 50.0], [0.5, 0.25])] {
            let mut solver = ProjectedLbfgs::new(Frame::new(&domain, &clean), 10);
            let mut gradients = 0;
            loop {
                gradients += 1;
                let (value, gradient) = valley(&solver.trial);
                if !solver.advance(value, gradient) || gradients > 500 {
                    break;
                }
            }
            let found = &solver.iterate.as_ref().unwrap().change;
            assert!(gradients < 200, "{gradients}");
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?}");
        }
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["steps = 0", "search_steps = 0", "initial_constant = 0.0", "memory = 0", "c = 1.0"] {
            assert!(toml::from_str::<BoxLbfgs>(text).is_err(), "{text}");
        }
    }
}
