//! The nearest point that reaches the goal, for attacks that search for the least change.

use nocebo_core::{AttackProblem, Outputs, Perturbation, Samples};

/// Keeps, for each sample of a problem, the point of least norm that was seen to reach the goal.
pub(crate) struct Nearest<'a> {
    problem: &'a AttackProblem<'a>,
    points: Samples,
    distances: Vec<f64>,
}

impl<'a> Nearest<'a> {
    /// Nothing found yet.
    pub(crate) fn new(problem: &'a AttackProblem<'a>) -> Self {
        Self { problem, points: problem.inputs.clone(), distances: vec![f64::INFINITY; problem.inputs.len()] }
    }

    /// Keeps `point`, which reaches the goal of sample `row`, if it is nearer than all before.
    pub(crate) fn offer(&mut self, row: usize, point: &[f32]) {
        let distance = self.problem.threat.norm().distance(self.problem.inputs.row(row), point);
        if distance < self.distances[row] {
            self.distances[row] = distance;
            self.points.row_mut(row).copy_from_slice(point);
        }
    }

    /// Looks at `points` of the given rows: those whose outputs reach the goal are offered. Returns the positions of
    /// the others.
    pub(crate) fn offer_reached(&mut self, rows: &[usize], points: &Samples, outputs: &Outputs) -> Vec<usize> {
        let task = &self.problem.oracle.spec().task;
        let mut missed = Vec::with_capacity(rows.len());
        for (position, &row) in rows.iter().enumerate() {
            if self.problem.goal.is_reached(task, row, outputs.row(position)) {
                self.offer(row, points.row(position));
            } else {
                missed.push(position);
            }
        }
        missed
    }

    /// The nearest point of a sample, if any was found.
    pub(crate) fn found(&self, row: usize) -> Option<&[f32]> {
        self.distances[row].is_finite().then(|| self.points.row(row))
    }

    /// The nearest points where the threat model allows them; the clean sample elsewhere.
    pub(crate) fn finish(mut self) -> Perturbation {
        let clean = self.problem.inputs;
        let mut success = vec![false; clean.len()];
        for (row, success) in success.iter_mut().enumerate() {
            *success =
                self.distances[row].is_finite() && self.problem.threat.allows(clean.row(row), self.points.row(row));
            if !*success {
                self.points.copy_row(row, clean, row);
            }
        }
        Perturbation { inputs: self.points, success }
    }
}

/// Whether the sample of this row may still be asked `queries` times.
pub(crate) fn can_pay(problem: &AttackProblem<'_>, row: usize, queries: u32) -> bool {
    problem.oracle.remaining(problem.inputs.indices()[row]) >= queries
}
