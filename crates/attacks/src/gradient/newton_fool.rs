//! NewtonFool, L2: Newton steps on the probability of the present decision.
//!
//! ```text
//! p = softmax probability of the class to leave (with a target: of all others than it)
//! θ = min(η·‖x₀‖₂·‖∇p‖₂, p − p₀),   xₜ₊₁ = clip(xₜ − θ·∇p/‖∇p‖₂²)      p₀ = 1/K, or 1/2 with a target
//! ```
//!
//! Source: Jang, Wu & Jha, ACSAC 2017, doi:10.1145/3134600.3134635, section 3.
//!
//! Differs from the source: ∇p is taken as p·(1 − p) times the gradient of the log-odds, so a confident model does not
//! lose it to underflow. ‖x₀‖ is the distance to the lower bounds, so that it does not depend on where the unit has its
//! zero. With one logit a decision, p is the sigmoid of its distance to the threshold and p₀ = 1/2. A sample stops at
//! the first point that reaches the goal. Elements outside the region of interest take no part.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, Goal, GoalKind, Knowledge, Loss, Norm, Perturbation, Task,
};

use super::deep_fool::clip;
use crate::nearest::{Nearest, can_pay};

/// Settings of [`NewtonFool`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewtonFoolConfig {
    /// η: greatest length of a step as a fraction of ‖x₀‖; finite and above 0.
    pub eta: f32,
    /// Greatest number of steps; at least 1.
    pub steps: usize,
}

impl Default for NewtonFoolConfig {
    /// Those of the implementation in ART.
    fn default() -> Self {
        Self { eta: 0.01, steps: 100 }
    }
}

/// NewtonFool; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "NewtonFoolConfig")]
pub struct NewtonFool(NewtonFoolConfig);

impl TryFrom<NewtonFoolConfig> for NewtonFool {
    type Error = Error;

    fn try_from(config: NewtonFoolConfig) -> Result<Self, Error> {
        if !(config.eta.is_finite() && config.eta > 0.0) {
            return Err(Error::invalid("eta", "finite and above 0", config.eta));
        }
        if config.steps == 0 {
            return Err(Error::invalid("steps", "at least 1", config.steps));
        }
        Ok(Self(config))
    }
}

impl NewtonFool {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "newtonfool",
        title: "NewtonFool",
        source: "Jang et al. 2017, doi:10.1145/3134600.3134635",
        family: "gradient",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: true,
    };

    /// Moves `point` by one step, given the log-odds of the goal and their gradient.
    fn step(&self, problem: &AttackProblem<'_>, row: usize, log_odds: f32, slopes: &[f32], point: &mut [f32]) {
        let domain = problem.threat.domain();
        let slopes: Vec<f64> = (0..slopes.len())
            .map(|element| if domain.is_mutable(element) { f64::from(slopes[element]) } else { 0.0 })
            .collect();
        let slope = slopes.iter().map(|part| part * part).sum::<f64>().sqrt();
        if slope == 0.0 {
            return;
        }
        let p = 1.0 / (1.0 + f64::from(log_odds).exp());
        let not_p = 1.0 / (1.0 + (-f64::from(log_odds)).exp());
        let longest = f64::from(self.0.eta) * Norm::L2.distance(problem.inputs.row(row), domain.lower());
        let newton = (p - level(problem)) / (p * not_p * slope);
        // On the level itself a step of no length would never leave it.
        let length = longest.min(newton.max(f64::from(f32::EPSILON) * f64::from(domain.range())));
        for (value, part) in point.iter_mut().zip(slopes) {
            *value = (f64::from(*value) + length * part / slope) as f32;
        }
    }
}

/// p₀: below it the decision has changed.
fn level(problem: &AttackProblem<'_>) -> f64 {
    match (&problem.oracle.spec().task, problem.goal) {
        (Task::MultiClass { classes }, Goal::Untargeted { .. } | Goal::FalseNegative { .. }) => 1.0 / *classes as f64,
        _ => 0.5,
    }
}

impl Attack for NewtonFool {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one gradient query a step and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        // With one logit a decision the margin is its log-odds, counted from the threshold.
        let loss = match problem.oracle.spec().task {
            Task::MultiClass { .. } => Loss::CrossEntropy,
            _ => Loss::Margin,
        };
        let mut nearest = Nearest::new(problem);
        let mut current = problem.inputs.clone();
        let mut rows: Vec<usize> = (0..problem.inputs.len()).collect();
        for step in 0..=self.0.steps {
            rows.retain(|&row| can_pay(problem, row, 1));
            if rows.is_empty() {
                break;
            }
            let points = current.select(&rows);
            if step == self.0.steps || !rows.iter().all(|&row| can_pay(problem, row, 2)) {
                nearest.offer_reached(&rows, &points, &problem.oracle.outputs(&points)?);
                break;
            }
            let goal = problem.goal.select(&rows);
            let found = problem.oracle.gradient(&points, &problem.objective(&goal, loss)?)?;
            let missed = nearest.offer_reached(&rows, &points, &found.outputs);
            for &position in &missed {
                let row = rows[position];
                let slopes = found.inputs.row(position);
                self.step(problem, row, found.values[position], slopes, current.row_mut(row));
                clip(problem, row, &mut current);
            }
            rows = missed.iter().map(|&position| rows[position]).collect();
        }
        Ok(nearest.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Samples, Seed, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, Strength};

    fn attack(eta: f32, steps: usize) -> NewtonFool {
        NewtonFool::try_from(NewtonFoolConfig { eta, steps }).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        // The least change of the suite is one and a half steps of this length.
        assert_eq!(suite::check(&attack(0.0005, 2000), Strength { linear: 1.3, goals: true }), Ok(()));
    }

    #[test]
    fn steps_by_hand() {
        // One logit (x − 60)/10 − 0; at 100 grey levels it is 4, and a step may be 100·η long.
        let domain = Domain::grey_levels(&[1], 255.0).unwrap();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![vec![0.1]], vec![-6.0]);
        let inputs = Samples::new(vec![100.0], &[1]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let found = |eta: f32, steps: usize| {
            let outcome = attack(eta, steps).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
            outcome.success[0].then(|| outcome.perturbed_inputs.row(0)[0])
        };
        assert_eq!(found(0.01, 39), None);
        // 40 steps of at most 1 end within the last step.
        let last = found(0.01, 45).unwrap();
        assert!((59.9..60.0).contains(&last), "{last}");
        // The Newton step itself: (p − 1/2) / (p·(1 − p)·0.1) = 272.9, cut to 100·η.
        assert_eq!(found(0.5, 1), Some(50.0));
        // At a logit of 1: (0.731059 − 0.5) / (0.196612·0.1) = 11.7520.
        let near = Samples::new(vec![70.0], &[1]).unwrap();
        let outcome = attack(0.5, 1).run(&model, &near, &goal, &threat, Seed(1)).unwrap();
        assert!((outcome.perturbed_inputs.row(0)[0] - 58.2480).abs() < 1e-3);
    }

    #[test]
    fn heads_for_one_in_three_with_three_classes_and_for_one_half_with_a_target() {
        // Logits (x/10, 8, 8): p = 0.787 at 100, and the other two share the rest, so log p/(1 − p) = 10 − 8.6931.
        let domain = Domain::grey_levels(&[1], 255.0).unwrap();
        let task = Task::MultiClass { classes: 3 };
        let weights = vec![vec![0.1], vec![0.0], vec![0.0]];
        let model = Linear::new(domain.clone(), task, weights, vec![0.0, 8.0, 8.0]);
        let inputs = Samples::new(vec![100.0], &[1]).unwrap();
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let label = nocebo_core::Label::Class(0);
        let untargeted = Goal::Untargeted { labels: vec![label.clone()] };
        let outcome = attack(9.0, 1).run(&model, &inputs, &untargeted, &threat, Seed(1)).unwrap();
        let p = 1.0 / (1.0 + (-(10.0 - (8.0 + 2.0_f64.ln()))).exp());
        let expected = 100.0 - (p - 1.0 / 3.0) / (p * (1.0 - p) * 0.1);
        assert!(outcome.success[0] && (f64::from(outcome.perturbed_inputs.row(0)[0]) - expected).abs() < 1e-3);

        // Of class 1 the log-odds are 8 − log(e⁸ + e¹⁰).
        let targeted = Goal::Targeted { labels: vec![label], targets: vec![nocebo_core::Label::Class(1)] };
        let outcome = attack(9.0, 1).run(&model, &inputs, &targeted, &threat, Seed(1)).unwrap();
        let others = (8.0_f64.exp() + 10.0_f64.exp()).ln();
        let p = 1.0 / (1.0 + (8.0 - others).exp());
        let slope = 0.1 * 10.0_f64.exp() / (8.0_f64.exp() + 10.0_f64.exp());
        let expected = 100.0 - (p - 0.5) / (p * (1.0 - p) * slope);
        assert!(outcome.success[0] && (f64::from(outcome.perturbed_inputs.row(0)[0]) - expected).abs() < 1e-3);
    }

    #[test]
    fn a_confident_model_keeps_its_gradient() {
        // A margin of 400: in f32, p is 1 and its gradient 0.
        let domain = Domain::grey_levels(&[1], 255.0).unwrap();
        let task = Task::MultiClass { classes: 2 };
        let model = Linear::new(domain.clone(), task, vec![vec![10.0], vec![0.0]], vec![-600.0, 0.0]);
        let inputs = Samples::new(vec![100.0], &[1]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let outcome = attack(0.01, 100).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.success[0] && outcome.perturbed_inputs.row(0)[0] >= 59.0);
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in ["eta = 0.0", "eta = nan", "steps = 0", "max_iter = 3"] {
            assert!(toml::from_str::<NewtonFool>(text).is_err(), "{text}");
        }
    }
}
