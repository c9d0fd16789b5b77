//! The samples of a batch that an attack still works on.

use crate::{AttackProblem, Goal, Outputs, Perturbation, Samples};

/// Keeps the first point of each sample that reaches the goal and drops the sample from the batch.
///
/// ```text
/// while active.is_not_empty():  points = active.gather(current); outputs = …; active.keep_reached(points, outputs)
/// ```
pub struct ActiveSet<'a> {
    problem: &'a AttackProblem<'a>,
    found: Samples,
    success: Vec<bool>,
    rows: Vec<usize>,
}

impl<'a> ActiveSet<'a> {
    /// All samples of the problem.
    pub fn new(problem: &'a AttackProblem<'a>) -> Self {
        let batch = problem.inputs.len();
        Self { problem, found: problem.inputs.clone(), success: vec![false; batch], rows: (0..batch).collect() }
    }

    /// Rows of the batch that have not reached the goal, in order.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Whether every sample has reached the goal.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The active rows of a full batch.
    pub fn gather(&self, batch: &Samples) -> Samples {
        batch.select(&self.rows)
    }

    /// The goal of the active rows.
    pub fn goal(&self) -> Goal {
        self.problem.goal.select(&self.rows)
    }

    /// Looks at `points`, one for each active row in order: those whose `outputs` reach the goal are kept and leave
    /// the set. Returns the positions in `points` that stay.
    ///
    /// # Panics
    ///
    /// When there is not one point and one output for each active row.
    pub fn keep_reached(&mut self, points: &Samples, outputs: &Outputs) -> Vec<usize> {
        assert!(points.len() == self.rows.len() && outputs.len() == self.rows.len());
        let task = &self.problem.oracle.spec().task;
        let mut staying = Vec::with_capacity(self.rows.len());
        for (position, &row) in self.rows.iter().enumerate() {
            if self.problem.goal.is_reached(task, row, outputs.row(position)) {
                self.found.copy_row(row, points, position);
                self.success[row] = true;
            } else {
                staying.push(position);
            }
        }
        self.rows = staying.iter().map(|&position| self.rows[position]).collect();
        staying
    }

    /// The kept points; for samples that never reached the goal the rows of `last` (a full batch).
    pub fn finish(mut self, last: &Samples) -> Perturbation {
        for &row in &self.rows {
            self.found.copy_row(row, last, row);
        }
        Perturbation { inputs: self.found, success: self.success }
    }
}
