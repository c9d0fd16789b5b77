//! Orthogonal and selective projected gradient descent: fool a model and stay unseen by a detector; L2 and Linf.
//!
//! ```text
//! f the objective of the goal, d minus the score of the detector, g_f and g_d their gradients
//! x ← Π(x + step along g),  and where f's goal is
//!              not reached yet              reached
//! selective    g = g_f                      g = g_d
//! orthogonal   g = g_f − (g_f·ĝ_d)·ĝ_d      g = g_d − (g_d·ĝ_f)·ĝ_f       with ĝ of length 1
//! ```
//!
//! Source: Bryniarski, Hingun, Pachuca, Wang & Carlini, ICLR 2022, arXiv:2106.15023, sections 4.1 and 4.2.
//!
//! Differs from the source: a sample is done at the first point that reaches the goal unseen; the source goes on to lower
//! the score further.
//!
//! A detector is a model of one binary decision over the same samples: class 1, a logit above its threshold, is "detected".
//! It cannot be named in a recipe, so this attack is not in the catalogue.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, DifferentiableModel, Error, Goal, GoalKind, GoalObjective, Knowledge, Loss,
    Norm, Oracle, Perturbation, Samples, Task,
};

use super::step::ascend;

/// Which gradient is followed where.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Each gradient without the part along the other, so that a step for the one does not undo the other.
    #[default]
    Orthogonal,
    /// The gradient of what is still missing.
    Selective,
}

/// Settings of [`OrthogonalPgd`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OrthogonalPgdConfig {
    /// Objective to ascend on the model.
    pub loss: Loss,
    /// Which gradient is followed where.
    pub strategy: Strategy,
    /// Step α as a fraction of epsilon; finite and above 0.
    pub relative_step_size: f32,
    /// Gradient steps; at least 1.
    pub steps: usize,
}

impl Default for OrthogonalPgdConfig {
    /// As many small steps as the source takes at most.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, strategy: Strategy::Orthogonal, relative_step_size: 0.02, steps: 1000 }
    }
}

impl OrthogonalPgdConfig {
    /// The attack on models that this detector watches.
    ///
    /// # Errors
    ///
    /// When a setting is out of range, or the detector decides more than one thing.
    pub fn against(self, detector: Arc<dyn DifferentiableModel>) -> Result<OrthogonalPgd, Error> {
        if self.steps == 0 {
            return Err(Error::invalid("steps", "at least 1", self.steps));
        }
        if !(self.relative_step_size.is_finite() && self.relative_step_size > 0.0) {
            return Err(Error::invalid("relative_step_size", "finite and above 0", self.relative_step_size));
        }
        match detector.spec().task {
            Task::Binary { .. } => Ok(OrthogonalPgd { config: self, detector }),
            ref task => Err(Error::mismatch("task of a detector", "one binary decision", format!("{task:?}"))),
        }
    }
}

/// Orthogonal PGD; holds only settings that have been checked.
pub struct OrthogonalPgd {
    config: OrthogonalPgdConfig,
    detector: Arc<dyn DifferentiableModel>,
}

impl OrthogonalPgd {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "orthogonal-pgd",
        title: "Orthogonal projected gradient descent",
        source: "Bryniarski et al. 2022, arXiv:2106.15023",
        family: "gradient",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query, and as many of the detector",
        minimum_norm: false,
    };

    /// What to ascend at a point.
    fn direction(&self, model: &[f32], detector: &[f32], reached: bool) -> Vec<f32> {
        let (own, other) = if reached { (detector, model) } else { (model, detector) };
        match self.config.strategy {
            Strategy::Selective => own.to_vec(),
            Strategy::Orthogonal => without(own, other),
        }
    }
}

/// `vector` less its part along `other`.
fn without(vector: &[f32], other: &[f32]) -> Vec<f32> {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let square = product(other, other);
    let share = if square > 0.0 { product(vector, other) / square } else { 0.0 };
    vector.iter().zip(other).map(|(part, other)| (f64::from(*part) - share * f64::from(*other)) as f32).collect()
}

impl Attack for OrthogonalPgd {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Success means that the goal is reached and the detector does not see it. A query limit counts passes of the model
    /// alone. A clean sample that reaches the goal is left as it is, whatever the detector says.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let (inputs, threat, task) = (problem.inputs, problem.threat, &problem.oracle.spec().task);
        let hidden = Goal::FalseNegative { finding: 1 };
        let detector = Oracle::new(&*self.detector, None);
        let watching = &detector.spec().task;
        let unseen = GoalObjective::new(&hidden, watching, Loss::Margin)?;
        let size = self.config.relative_step_size * threat.epsilon();
        let mut points = inputs.clone();
        let mut success = vec![false; inputs.len()];
        let mut rows: Vec<usize> = (0..inputs.len()).collect();
        let affordable = |rows: &[usize], queries: u32| {
            rows.iter().all(|&row| problem.oracle.remaining(inputs.indices()[row]) >= queries)
        };
        for _ in 0..self.config.steps {
            if rows.is_empty() || !affordable(&rows, 2) {
                break;
            }
            let here: Samples = points.select(&rows);
            let goal = problem.goal.select(&rows);
            let fooling = problem.oracle.gradient(&here, &problem.objective(&goal, self.config.loss)?)?;
            let hiding = detector.gradient(&here, &unseen)?;
            let mut staying = Vec::with_capacity(rows.len());
            for (position, &row) in rows.iter().enumerate() {
                let reached = goal.is_reached(task, position, fooling.outputs.row(position));
                if reached && hidden.is_reached(watching, position, hiding.outputs.row(position)) {
                    success[row] = true;
                    continue;
                }
                let direction = self.direction(fooling.inputs.row(position), hiding.inputs.row(position), reached);
                ascend(threat, &direction, size, points.row_mut(row));
                threat.project_row(inputs.row(row), points.row_mut(row));
                staying.push(row);
            }
            rows = staying;
        }
        if !rows.is_empty() && affordable(&rows, 1) {
            let here = points.select(&rows);
            let reached = problem.goal.select(&rows).reached(task, &problem.oracle.outputs(&here)?);
            let unseen = hidden.reached(watching, &detector.outputs(&here)?);
            for (position, &row) in rows.iter().enumerate() {
                success[row] = reached[position] && unseen[position];
            }
        }
        Ok(Perturbation { inputs: points, success })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Label, Model, Seed, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    fn blind(domain: Domain) -> Arc<dyn DifferentiableModel> {
        let weights = vec![vec![0.0; domain.elements()]];
        Arc::new(Linear::new(domain, Task::Binary { threshold: 0.0 }, weights, vec![-1.0]))
    }

    fn config(strategy: Strategy) -> OrthogonalPgdConfig {
        OrthogonalPgdConfig { strategy, steps: 60, relative_step_size: 0.1, ..OrthogonalPgdConfig::default() }
    }

    #[test]
    fn passes_the_common_suite_where_nothing_is_detected() {
        for strategy in [Strategy::Orthogonal, Strategy::Selective] {
            let attack = config(strategy).against(blind(suite::ct_domain())).unwrap();
            let check = |norms, linear| suite::check(&InNorm(&attack, norms), Strength { linear, goals: true });
            assert_eq!((check(&[Norm::Linf], 1.02), check(&[Norm::L2], 1.05)), (Ok(()), Ok(())));
        }
    }

    /// Present where x₀ + x₁ is above 100; detected where x₀ is above 55.
    fn watched() -> (Linear, Arc<dyn DifferentiableModel>) {
        let domain = Domain::grey_levels(&[3], 255.0).unwrap();
        let logit = |weights: [f32; 3], bias| {
            Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![weights.to_vec()], vec![bias])
        };
        (logit([1.0, 1.0, 0.0], -100.0), Arc::new(logit([1.0, 0.0, 0.0], -55.0)))
    }

    fn attacked(attack: &dyn Attack, epsilon: f32) -> (bool, f32, f32) {
        let (model, detector) = watched();
        let samples = Samples::new(vec![50.0, 30.0, 9.0], &[3]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::Linf, epsilon, model.spec().domain.clone()).unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        let point = outcome.perturbed_inputs.row(0);
        let score = Model::outputs(&*detector, &outcome.perturbed_inputs).unwrap().row(0)[0];
        (outcome.success[0], model.logits(point)[0], score)
    }

    #[test]
    fn stays_unseen_where_plain_pgd_is_detected() {
        // Along the gradient of the model both move by 10 and x₀ is seen at 60; with x₁ alone 20 are needed, and with what
        // the detector leaves of x₀ 15 and more.
        let pgd = crate::build("pgd", toml::toml! { random_start = false }).unwrap();
        let (reached, logit, score) = attacked(&*pgd, 18.0);
        assert!(reached && logit > 0.0 && score > 0.0, "{logit} {score}");
        for strategy in [Strategy::Orthogonal, Strategy::Selective] {
            let attack = config(strategy).against(watched().1).unwrap();
            let (reached, logit, score) = attacked(&attack, 25.0);
            assert!(reached && logit > 0.0 && score <= 0.0, "{strategy:?}: {logit} {score}");
            let (reached, logit, score) = attacked(&attack, 14.5);
            assert!(!reached && (logit <= 0.0 || score > 0.0), "{strategy:?}: {logit} {score}");
        }
    }

    #[test]
    fn a_projected_gradient_is_orthogonal() {
        let part = without(&[3.0, 4.0, 1.0], &[2.0, 0.0, 0.0]);
        assert_eq!(part, [0.0, 4.0, 1.0]);
        assert_eq!(without(&[3.0, 4.0], &[0.0, 0.0]), [3.0, 4.0]);
        assert_eq!(without(&[3.0, 4.0], &[-6.0, -8.0]), [0.0, 0.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let never = || blind(suite::ct_domain());
        assert!(OrthogonalPgdConfig { steps: 0, ..config(Strategy::Selective) }.against(never()).is_err());
        let endless = OrthogonalPgdConfig { relative_step_size: f32::NAN, ..config(Strategy::Selective) };
        assert!(endless.against(never()).is_err());
        let classes: Arc<dyn DifferentiableModel> = Arc::new(suite::linear_classifier());
        assert!(matches!(config(Strategy::Selective).against(classes), Err(Error::Mismatch { .. })));
    }
}
