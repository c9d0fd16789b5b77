//! SuperDeepFool, SDF(∞, 1), L2: DeepFool that turns its perturbation towards the normal of the boundary.
//!
//! ```text
//! repeat until x reaches the goal:
//!     x̃ = DeepFool from x;  w = ∇ₓ(f_k̂ − f_y) at x̃
//!     x = clean + ((x̃ − clean)·w / ‖w‖₂²) · w
//! then bisection between clean and the nearest point found
//! ```
//!
//! The nearest boundary point is the foot of a normal, and there the perturbation is parallel to the gradient.
//!
//! Source: Abdolahpourrostam, Abroshan & Moosavi-Dezfooli, ICML 2024, arXiv:2303.12481, algorithm 3.
//!
//! Differs from the source: points are clipped to the bounds, elements outside the region of interest take no part, and
//! of all points on the way the nearest that reaches the goal is returned.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::deep_fool::{DeepFoolConfig, clip};
use crate::boundaries::{Boundaries, ForRows};
use crate::nearest::{Nearest, can_pay};

/// Settings of [`SuperDeepFool`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuperDeepFoolConfig {
    /// Greatest number of projections; at least 1.
    pub rounds: usize,
    /// DeepFool in each round.
    pub deep_fool: DeepFoolConfig,
    /// Halvings at the end, each of which gains one bit of the length of the change.
    pub bisections: usize,
}

impl Default for SuperDeepFoolConfig {
    /// Those of the implementation in adversarial-library, with the paper's DeepFool.
    fn default() -> Self {
        Self { rounds: 100, deep_fool: DeepFoolConfig { steps: 100, ..DeepFoolConfig::default() }, bisections: 10 }
    }
}

/// SDF; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SuperDeepFoolConfig")]
pub struct SuperDeepFool(SuperDeepFoolConfig);

impl TryFrom<SuperDeepFoolConfig> for SuperDeepFool {
    type Error = Error;

    fn try_from(config: SuperDeepFoolConfig) -> Result<Self, Error> {
        config.deep_fool.check()?;
        if config.rounds == 0 {
            return Err(Error::invalid("rounds", "at least 1", config.rounds));
        }
        Ok(Self(config))
    }
}

impl SuperDeepFool {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "superdeepfool",
        title: "SuperDeepFool",
        source: "Abdolahpourrostam et al. 2024, arXiv:2303.12481",
        family: "gradient",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "rounds · (DeepFool, 1 gradient), bisections queries",
        minimum_norm: true,
    };

    /// The point of the line through the clean sample along `slopes` that is nearest to `point`.
    fn foot(clean: &[f32], point: &mut [f32], slopes: &[f32], is_mutable: impl Fn(usize) -> bool) {
        let parts = || (0..clean.len()).filter(|&element| is_mutable(element));
        let square: f64 = parts().map(|element| f64::from(slopes[element]).powi(2)).sum();
        if square > 0.0 {
            let along: f64 = parts()
                .map(|element| (f64::from(point[element]) - f64::from(clean[element])) * f64::from(slopes[element]))
                .sum();
            for element in parts() {
                let moved = f64::from(clean[element]) + along / square * f64::from(slopes[element]);
                point[element] = moved as f32;
            }
        }
    }

    /// Pulls each nearest point towards its clean sample for as long as it reaches the goal.
    fn refine(self, problem: &AttackProblem<'_>, nearest: &mut Nearest<'_>) -> Result<(), Error> {
        let mut brackets: Vec<(usize, Vec<f32>, f64, f64)> = (0..problem.inputs.len())
            .filter_map(|row| nearest.found(row).map(|point| (row, point.to_vec(), 0.0, 1.0)))
            .collect();
        for _ in 0..self.0.bisections {
            brackets.retain(|(row, ..)| can_pay(problem, *row, 1));
            if brackets.is_empty() {
                break;
            }
            let rows: Vec<usize> = brackets.iter().map(|(row, ..)| *row).collect();
            let mut points = problem.inputs.select(&rows);
            for (position, (_, end, low, high)) in brackets.iter().enumerate() {
                for (value, end) in points.row_mut(position).iter_mut().zip(end) {
                    let clean = f64::from(*value);
                    *value = (clean + 0.5 * (low + high) * (f64::from(*end) - clean)) as f32;
                }
            }
            let missed = nearest.offer_reached(&rows, &points, &problem.oracle.outputs(&points)?);
            for (position, (_, _, low, high)) in brackets.iter_mut().enumerate() {
                let middle = 0.5 * (*low + *high);
                *(if missed.contains(&position) { low } else { high }) = middle;
            }
        }
        Ok(())
    }
}

impl Attack for SuperDeepFool {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs what [`super::deep_fool::DeepFool`] costs and one gradient query a round, and `bisections` queries a
    /// sample. On most networks one or two rounds are enough.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let boundaries = Boundaries::new(problem, self.0.deep_fool.candidates)?;
        let margin = problem.objective(problem.goal, Loss::Margin)?;
        let mut nearest = Nearest::new(problem);
        let mut current = problem.inputs.clone();
        let mut rows: Vec<usize> = (0..problem.inputs.len()).collect();
        for _ in 0..self.0.rounds {
            // Rows that DeepFool cannot bring across are given up.
            rows = self.0.deep_fool.walk(problem, &boundaries, &mut nearest, &rows, &mut current)?;
            rows.retain(|&row| can_pay(problem, row, 2));
            if rows.is_empty() {
                break;
            }
            let objective = ForRows { objective: &margin, rows: &rows };
            let gradient = problem.oracle.gradient(&current.select(&rows), &objective)?;
            for (position, &row) in rows.iter().enumerate() {
                let slopes = gradient.inputs.row(position);
                Self::foot(problem.inputs.row(row), current.row_mut(row), slopes, |element| {
                    problem.threat.domain().is_mutable(element)
                });
                clip(problem, row, &mut current);
            }
            let feet = current.select(&rows);
            let missed = nearest.offer_reached(&rows, &feet, &problem.oracle.outputs(&feet)?);
            rows = missed.iter().map(|&position| rows[position]).collect();
        }
        self.refine(problem, &mut nearest)?;
        Ok(nearest.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, DomainConfig, Field, Goal, Samples, Seed, Task, ThreatModel, Unit};
    use nocebo_testkit::models::{Linear, SmallRelu};
    use nocebo_testkit::suite::{self, Strength};

    fn attack(config: SuperDeepFoolConfig) -> SuperDeepFool {
        SuperDeepFool::try_from(config).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        assert_eq!(suite::check(&attack(SuperDeepFoolConfig::default()), Strength::EXACT), Ok(()));
    }

    #[test]
    fn turns_towards_the_normal_by_hand() {
        // z₁ − z₀ = a − relu(a − 10) + 2·relu(a + b − 10) − 20. From (0, 0) DeepFool goes to a = 20.4, where the gradient is
        // (2, 2): the foot is (10.2, 10.2). Along (1, 1) the boundary lies at (8, 8).
        let domain: Domain = DomainConfig {
            shape: vec![2],
            unit: Unit::Millivolt,
            lower: Field::Uniform(-100.0),
            upper: Field::Uniform(100.0),
            resolution: Field::Uniform(0.0),
            region: None,
        }
        .try_into()
        .unwrap();
        let task = |classes| Task::MultiClass { classes };
        let hidden_weights = vec![vec![1.0, 0.0], vec![1.0, 0.0], vec![1.0, 1.0]];
        let hidden = Linear::new(domain.clone(), task(3), hidden_weights, vec![100.0, -10.0, -10.0]);
        let between = Domain::grey_levels(&[3], 1e6).unwrap();
        let head = Linear::new(between, task(2), vec![vec![0.0; 3], vec![1.0, -1.0, 2.0]], vec![0.0, -120.0]);
        let model = SmallRelu::new(hidden, head);
        let inputs = Samples::new(vec![0.0, 0.0], &[2]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        for (bisections, expected) in [(0, 10.2), (20, 8.0)] {
            let attack = attack(SuperDeepFoolConfig { bisections, ..SuperDeepFoolConfig::default() });
            let outcome = attack.run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
            let found = outcome.perturbed_inputs.row(0);
            assert!(Norm::Linf.distance(found, &[expected, expected]) < 1e-3, "{found:?}");
        }
    }

    #[test]
    fn a_foot_by_hand() {
        let mut point = [4.0, 2.0, 9.0];
        SuperDeepFool::foot(&[1.0, 1.0, 9.0], &mut point, &[1.0, 1.0, 5.0], |element| element < 2);
        // (3, 1)·(1, 1) / 2 = 2.
        assert_eq!(point, [3.0, 3.0, 9.0]);
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in ["rounds = 0", "deep_fool = { steps = 0 }", "search = 3"] {
            assert!(toml::from_str::<SuperDeepFool>(text).is_err(), "{text}");
        }
    }
}
