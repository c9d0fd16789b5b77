//! What is kept of each sample under each attack.

use nocebo_core::{Label, Norm, Overlap, Queries, Task};

/// The model on the clean samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Clean {
    /// Decision for each sample, a mask [in brief](in_brief).
    pub decisions: Vec<Label>,
    /// For a segmentation, how far each decision agrees with the truth, class by class.
    pub overlaps: Option<Vec<Vec<Overlap>>>,
    /// Margin objective of the goal: above 0 where the goal is reached without an attack.
    pub margins: Vec<f32>,
    /// Whether the goal is about the sample.
    pub in_scope: Vec<bool>,
    /// Whether the sample is attacked: in scope, and the goal is not reached by itself.
    pub standing: Vec<bool>,
}

impl Clean {
    /// Number of samples in scope.
    pub fn scope(&self) -> usize {
        self.in_scope.iter().filter(|in_scope| **in_scope).count()
    }

    /// The samples at these positions.
    pub(crate) fn select(&self, positions: &[usize]) -> Self {
        Self {
            decisions: positions.iter().map(|&at| self.decisions[at].clone()).collect(),
            overlaps: self.overlaps.as_ref().map(|all| positions.iter().map(|&at| all[at].clone()).collect()),
            margins: positions.iter().map(|&at| self.margins[at]).collect(),
            in_scope: positions.iter().map(|&at| self.in_scope[at]).collect(),
            standing: positions.iter().map(|&at| self.standing[at]).collect(),
        }
    }

    /// Positions of the samples that are attacked.
    pub fn attacked(&self) -> Vec<usize> {
        (0..self.standing.len()).filter(|&position| self.standing[position]).collect()
    }
}

/// One attack at one budget, on all samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Name of the attack in this audit.
    pub attack: String,
    /// Whether the attack is only the noise control.
    pub control: bool,
    /// Norm of the threat.
    pub norm: Norm,
    /// Budget at which the result is judged, in the unit of the data.
    pub epsilon: f32,
    /// One entry a sample, in the order of the data; none for a sample that was not attacked: because it is not in scope
    /// or wrong by itself, or, in a cascade, because an earlier attack had brought it down.
    pub rows: Vec<Option<Attacked>>,
}

impl Cell {
    /// Whether the attack got sample `position` where it wanted it, or broke the model there.
    pub fn fell(&self, position: usize) -> bool {
        self.rows[position].as_ref().is_some_and(Attacked::fell)
    }

    /// Whether an earlier attack of the cascade had brought the sample down.
    pub fn passed_over(&self, clean: &Clean, position: usize) -> bool {
        clean.standing[position] && self.rows[position].is_none()
    }

    /// The samples that were attacked.
    pub fn attacked(&self) -> impl Iterator<Item = &Attacked> {
        self.rows.iter().flatten()
    }
}

/// One sample after one attack, as the audit itself found it.
#[expect(clippy::struct_excessive_bools, reason = "each flag is a column of the records, and all combinations occur")]
#[derive(Clone, Debug, PartialEq)]
pub struct Attacked {
    /// Whether the attack says that it reached the goal within the budget.
    pub claimed: bool,
    /// Whether the returned point is allowed by the threat model.
    pub within_threat: bool,
    /// Whether model and attack computed with finite numbers throughout. A sample where they did not counts as fallen:
    /// a broken model must never look robust.
    pub finite: bool,
    /// Whether a fresh forward pass confirms the goal at the returned point, and the threat model allows it.
    pub success: bool,
    /// The same for the point as it would be stored.
    pub success_stored: bool,
    /// Decision at the returned point, a mask [in brief](in_brief); none where the output is not finite.
    pub decision: Option<Label>,
    /// For a segmentation, how far that decision agrees with the truth, class by class.
    pub overlaps: Option<Vec<Overlap>>,
    /// Margin objective of the goal at the returned point.
    pub margin: Option<f32>,
    /// L0, L1, L2 and Linf distance of the returned point from the clean sample.
    pub distances: Option<[f64; 4]>,
    /// Passes spent.
    pub queries: Queries,
    /// What was seen while the attack ran.
    pub trace: Trace,
}

impl Attacked {
    /// Whether the sample counts as fallen.
    pub fn fell(&self) -> bool {
        self.success || !self.finite
    }

    /// Whether the sample counts as fallen once the perturbed input has been stored.
    pub fn fell_stored(&self) -> bool {
        self.success_stored || !self.finite
    }

    /// Distance in one norm.
    pub fn distance(&self, norm: Norm) -> Option<f64> {
        let place = NORMS.iter().position(|known| *known == norm)?;
        self.distances.map(|distances| distances[place])
    }
}

/// A label or decision as it is kept: of a mask, whether each class is present.
pub fn in_brief(task: &Task, label: &Label) -> Label {
    match label {
        Label::Mask(_) => Label::Findings((0..task.classes()).map(|class| task.has_finding(label, class)).collect()),
        Label::Class(_) | Label::Findings(_) | Label::Number(_) => label.clone(),
    }
}

/// How far a mask agrees with the truth, class by class; none where they are no masks.
pub(crate) fn overlaps(task: &Task, truth: &Label, decision: &Label) -> Option<Vec<Overlap>> {
    match (task, truth, decision) {
        (Task::Segmentation(task), Label::Mask(truth), Label::Mask(decision)) => Some(task.overlaps(truth, decision)),
        _ => None,
    }
}

/// The norms in the order of [`Attacked::distances`].
pub const NORMS: [Norm; 4] = [Norm::L0, Norm::L1, Norm::L2, Norm::Linf];

/// What the audit sees of an attack while it runs, for one sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// The attack asked the model about an allowed point at which the goal is reached.
    pub reached: bool,
    /// The attack asked the model about a point outside the bounds of the data.
    pub left_bounds: bool,
    /// Gradient queries answered with a gradient of zeros only.
    pub zero_gradients: u32,
    /// Share of the improvement of the goal's margin that fell in the last quarter of the gradient queries (at most
    /// ten of them); none for fewer than 8 gradient queries or no improvement.
    pub late_improvement: Option<f32>,
}
