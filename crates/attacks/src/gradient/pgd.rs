//! Projected gradient descent (PGD), in all four norms.
//!
//! ```text
//! x₀   = a random point of ball ∩ bounds                (x₀ = x without a random start)
//! xₜ₊₁ = Π(xₜ + α·step(∇ₓL(f(xₜ), y)))
//! Π    = nearest point of ball ∩ bounds
//! step   Linf sign(g)   L2 g/‖g‖₂   L1 sparse sign (SLIDE)   L0 dense step, sparse projection (PGD₀)
//! ```
//!
//! With `loss = "scaled_cross_entropy"` it follows the loss of MIFPE, which keeps its gradient on confident models.
//!
//! Source: Madry et al., ICLR 2018, arXiv:1706.06083, section 2.1 (Linf, L2). L1: Tramèr & Boneh 2019,
//! arXiv:1904.13000. L0: Croce & Hein 2019, arXiv:1909.05040. Survey: \[85\].
//!
//! Differs from the source: a sample stops at the first point that reaches the goal and later restarts work on the
//! others; where no point reaches it, the last point is returned. L1 and L2 project onto ball ∩ bounds at once, not
//! first onto the one and then onto the other. For L0 the step is a fraction of the range of the bounds, not of epsilon
//! (a count).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    ActiveSet, Attack, AttackInfo, AttackProblem, DifferentiableModel, Error, Goal, GoalKind, GoalObjective, Knowledge,
    Loss, Norm, Oracle, Perturbation, Samples, Seed, ThreatModel,
};

use super::search::Search;
use super::step::ascend;

/// Settings of [`Pgd`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PgdConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Start at a random point of the ball instead of at the clean input.
    pub random_start: bool,
    /// Step α as a fraction of epsilon (L0: of the range of the bounds); finite and above 0.
    pub relative_step_size: f32,
    /// Gradient steps of each restart; at least 1.
    pub steps: usize,
    /// Independent searches, each on the samples that the earlier ones left; at least 1.
    pub restarts: usize,
}

impl Default for PgdConfig {
    /// Values chosen here: 40 steps of a tenth of epsilon can cross the ball four times.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, random_start: true, relative_step_size: 0.1, steps: 40, restarts: 1 }
    }
}

/// PGD; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "PgdConfig")]
pub struct Pgd(PgdConfig);

impl TryFrom<PgdConfig> for Pgd {
    type Error = Error;

    fn try_from(config: PgdConfig) -> Result<Self, Error> {
        if config.steps == 0 {
            return Err(Error::invalid("steps", "at least 1", config.steps));
        }
        if config.restarts == 0 {
            return Err(Error::invalid("restarts", "at least 1", config.restarts));
        }
        if !(config.relative_step_size.is_finite() && config.relative_step_size > 0.0) {
            return Err(Error::invalid("relative_step_size", "finite and above 0", config.relative_step_size));
        }
        Ok(Self(config))
    }
}

impl Pgd {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "pgd",
        title: "Projected gradient descent",
        source: "Madry et al. 2018, arXiv:1706.06083",
        family: "gradient",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "restarts · steps gradients, restarts queries",
        minimum_norm: false,
    };

    /// The inner maximisation of adversarial training: every sample takes every step of one restart, whether it reaches
    /// the goal or not. `inputs` must lie inside the bounds of `threat`.
    ///
    /// Costs `steps` gradient queries a sample.
    ///
    /// # Errors
    ///
    /// As [`Attack::run`].
    pub fn maximize(
        &self,
        model: &dyn DifferentiableModel,
        inputs: &Samples,
        goal: &Goal,
        threat: &ThreatModel,
        seed: Seed,
    ) -> Result<Samples, Error> {
        threat.domain().check(inputs)?;
        goal.check(&model.spec().task, inputs.len())?;
        let oracle = Oracle::new(model, None);
        let objective = GoalObjective::new(goal, &model.spec().task, self.0.loss)?;
        let size = self.step_size(threat);
        let mut current = inputs.clone();
        if self.0.random_start {
            for (row, &sample) in inputs.indices().iter().enumerate() {
                let start = threat.random_point(inputs.row(row), &mut seed.for_sample(sample));
                current.row_mut(row).copy_from_slice(&start);
            }
        }
        for _ in 0..self.0.steps {
            let gradient = oracle.gradient(&current, &objective)?.inputs;
            for (point, slope) in current.rows_mut().zip(gradient.rows()) {
                ascend(threat, slope, size, point);
            }
            threat.project(inputs, &mut current);
        }
        Ok(current)
    }

    /// Step α in the unit of the data.
    fn step_size(&self, threat: &ThreatModel) -> f32 {
        let length = match threat.norm() {
            Norm::L0 => threat.domain().range(),
            _ => threat.epsilon(),
        };
        self.0.relative_step_size * length
    }
}

impl Attack for Pgd {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample and restart.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let threat = problem.threat;
        let size = self.step_size(threat);
        let search = Search { steering: problem.goal, loss: self.0.loss, steps: self.0.steps };
        let mut active = ActiveSet::new(problem);
        let mut current = problem.inputs.clone();
        for restart in 0..self.0.restarts {
            if self.0.random_start {
                for &row in active.rows() {
                    let mut generator = problem.seed.stream(restart as u64).for_sample(problem.inputs.indices()[row]);
                    let start = threat.random_point(problem.inputs.row(row), &mut generator);
                    current.row_mut(row).copy_from_slice(&start);
                }
            }
            search.run(problem, &mut active, &mut current, |gradient, point| ascend(threat, gradient, size, point))?;
        }
        Ok(active.finish(&current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        for random_start in [true, false] {
            for loss in [Loss::CrossEntropy, Loss::Margin, Loss::ScaledCrossEntropy] {
                let config = PgdConfig { random_start, loss, restarts: 2, ..PgdConfig::default() };
                let attack = Pgd::try_from(config).unwrap();
                assert_eq!(suite::check(&attack, Strength { linear: 1.05, goals: true }), Ok(()), "{config:?}");
            }
        }
    }

    #[test]
    fn maximising_takes_every_step_past_the_goal() {
        let (model, samples) = (suite::linear_pair(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 200.0, suite::ct_domain()).unwrap();
        let config = PgdConfig { random_start: false, relative_step_size: 0.25, steps: 4, ..PgdConfig::default() };
        let attack = Pgd::try_from(config).unwrap();
        let farthest = attack.maximize(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        let first = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap().perturbed_inputs;
        for row in 0..samples.len() {
            assert_eq!(Norm::Linf.distance(samples.row(row), farthest.row(row)), 200.0);
            assert!(Norm::Linf.distance(samples.row(row), first.row(row)) <= 100.0, "stops at the goal");
        }
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        assert!(toml::from_str::<Pgd>("stepz = 3").is_err());
        assert!(toml::from_str::<Pgd>("restarts = 0").is_err());
        assert!(toml::from_str::<Pgd>("relative_step_size = nan").is_err());
        let error = toml::from_str::<Pgd>("steps = 0").unwrap_err();
        assert!(error.message().contains("`steps` must be at least 1, got 0"), "{error}");
    }
}
