//! What every attack is.

use serde::Serialize;

use crate::{
    DifferentiableModel, Error, Goal, GoalKind, GoalObjective, Loss, Norm, Oracle, Queries, Samples, Seed, Task,
    ThreatModel,
};

/// What an attacker must know about the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Knowledge {
    /// Nothing: the change ignores the model (a control).
    None,
    /// Decisions only.
    Decisions,
    /// Logits.
    Scores,
    /// Gradients.
    Gradients,
}

/// What an attack is, for catalogues and reports.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AttackInfo {
    /// Name in commands, recipes and files.
    pub name: &'static str,
    /// Name in full.
    pub title: &'static str,
    /// Paper.
    pub source: &'static str,
    /// Folder of its file: gradient, score, ...
    pub family: &'static str,
    /// Norms it can work in.
    pub norms: &'static [Norm],
    /// Goals it can head for.
    pub goals: &'static [GoalKind],
    /// What it must know.
    pub knowledge: Knowledge,
    /// Greatest number of passes it spends on a sample besides the query that looks at the clean one, in terms of its
    /// settings. A gradient is one forward and one backward pass, a query one forward pass.
    pub cost: &'static str,
    /// Whether it searches for the least change instead of using the whole budget.
    pub minimum_norm: bool,
}

/// One attack to be carried out: the model behind its counter, the clean samples, what is wanted and what is allowed.
pub struct AttackProblem<'a> {
    /// The model.
    pub oracle: &'a Oracle<'a>,
    /// Clean samples, inside the bounds of the threat model.
    pub inputs: &'a Samples,
    /// What is wanted of each sample.
    pub goal: &'a Goal,
    /// What is allowed.
    pub threat: &'a ThreatModel,
    /// Source of randomness.
    pub seed: Seed,
}

impl<'a> AttackProblem<'a> {
    /// The objective of `goal` (a part of the problem's) for the model's task.
    ///
    /// # Errors
    ///
    /// As [`GoalObjective::new`].
    pub fn objective(&self, goal: &'a Goal, loss: Loss) -> Result<GoalObjective<'a>, Error> {
        GoalObjective::new(goal, &self.oracle.spec().task, loss)
    }
}

/// What an attack found.
#[derive(Clone, Debug, PartialEq)]
pub struct Perturbation {
    /// Perturbed inputs, in the order and shape of the clean ones. Where the goal was not reached, the last point.
    pub inputs: Samples,
    /// Whether the attack saw the goal reached at the returned point.
    pub success: Vec<bool>,
}

/// What [`Attack::run`] returns.
#[derive(Clone, Debug, PartialEq)]
pub struct AttackOutcome {
    /// Perturbed inputs, all allowed by the threat model.
    pub perturbed_inputs: Samples,
    /// Whether the attack claims to have reached the goal. An audit checks it again by itself.
    pub success: Vec<bool>,
    /// Passes spent on each sample.
    pub queries: Vec<Queries>,
}

/// An attack with checked settings.
pub trait Attack: Send + Sync {
    /// What this attack is.
    fn info(&self) -> AttackInfo;

    /// Searches for perturbed inputs. Called by [`Attack::run`], which has checked the problem and left out the samples
    /// that reach the goal unchanged; there is at least one sample.
    ///
    /// The result of a sample may depend only on that sample, the model, and (seed, sample index).
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a norm, goal or task the attack cannot bear, and whatever the model returns.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error>;

    /// Perturbs `inputs` (`[batch, elements]`, in the unit of the threat model's domain) to reach `goal`.
    ///
    /// The clean samples are queried once; those that reach the goal already are returned unchanged, as a success. An
    /// infinite epsilon reaches an attack that uses its whole budget as the least finite one that allows as much
    /// ([`ThreatModel::finite`]).
    ///
    /// # Errors
    ///
    /// When shapes, bounds or labels do not fit, when the returned points would break the threat model
    /// (a defect of the attack), and whatever the attack or the model returns.
    fn run(
        &self,
        model: &dyn DifferentiableModel,
        inputs: &Samples,
        goal: &Goal,
        threat: &ThreatModel,
        seed: Seed,
    ) -> Result<AttackOutcome, Error> {
        let info = self.info();
        if !info.norms.contains(&threat.norm()) {
            return Err(Error::unsupported(
                format!("{} in {}", info.name, threat.norm()),
                format!("it works in {}", names(info.norms)),
            ));
        }
        if !info.goals.contains(&goal.kind()) {
            return Err(Error::unsupported(
                format!("{} with a goal that is {}", info.name, goal.kind()),
                format!("it can be {}", names(info.goals)),
            ));
        }
        if info.minimum_norm
            && info.knowledge == Knowledge::Gradients
            && matches!(model.spec().task, Task::Segmentation(_))
        {
            return Err(Error::unsupported(
                format!("{} for a segmentation", info.name),
                "it steps to the boundary of one decision a sample; use an attack that spends a budget, such as pgd",
            ));
        }
        if model.spec().domain.shape() != threat.domain().shape() {
            let shape = |domain: &crate::Domain| format!("{:?}", domain.shape());
            return Err(Error::mismatch(
                "shape of a sample",
                format!("{} (the model's)", shape(&model.spec().domain)),
                shape(threat.domain()),
            ));
        }
        threat.domain().check(inputs)?;
        goal.check(&model.spec().task, inputs.len())?;
        let oracle = Oracle::new(model, threat.query_limit());
        let mut perturbed_inputs = inputs.clone();
        let mut success = vec![false; inputs.len()];
        if !inputs.is_empty() && threat.query_limit() != Some(0) {
            success = goal.reached(&model.spec().task, &oracle.outputs(inputs)?);
        }
        let rows: Vec<usize> = (0..inputs.len()).filter(|&row| !success[row]).collect();
        if !rows.is_empty() && threat.query_limit().is_none_or(|limit| limit > 1) {
            let threat = if info.minimum_norm { threat.clone() } else { threat.clone().finite() };
            let problem = AttackProblem {
                oracle: &oracle,
                inputs: &inputs.select(&rows),
                goal: &goal.select(&rows),
                threat: &threat,
                seed: seed.named(info.name),
            };
            let found = self.perturb(&problem)?;
            for (position, &row) in rows.iter().enumerate() {
                if !threat.allows(inputs.row(row), found.inputs.row(position)) {
                    let distance = threat.norm().distance(inputs.row(row), found.inputs.row(position));
                    return Err(Error::mismatch(
                        "perturbed input",
                        format!("within {} {} of the clean one and inside the bounds", threat.norm(), threat.epsilon()),
                        format!("{} {distance} for sample {} from {}", threat.norm(), inputs.indices()[row], info.name),
                    ));
                }
                perturbed_inputs.copy_row(row, &found.inputs, position);
                success[row] = found.success[position];
            }
        }
        let queries = inputs.indices().iter().map(|&sample| oracle.queries(sample)).collect();
        Ok(AttackOutcome { perturbed_inputs, success, queries })
    }
}

fn names(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
