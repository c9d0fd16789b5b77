//! The pieces of the boundary of a goal, each with its own gradient.

use nocebo_core::{Error, Goal, GoalObjective, Label, Loss, Objective, Task};

/// A goal as pieces: it is reached where any piece is positive.
///
/// An untargeted goal (or a false negative) has one piece for each other class, or for each finding of a multi-label
/// task; any other goal has one, its margin.
pub(crate) struct Boundaries<'a> {
    goal: &'a Goal,
    task: &'a Task,
}

impl<'a> Boundaries<'a> {
    pub(crate) fn new(goal: &'a Goal, task: &'a Task) -> Self {
        Self { goal, task }
    }

    /// Pieces of each sample.
    pub(crate) fn count(&self) -> usize {
        match (self.task, self.goal) {
            (Task::MultiClass { classes }, Goal::Untargeted { .. } | Goal::FalseNegative { .. }) => classes - 1,
            (Task::MultiLabel { thresholds }, Goal::Untargeted { .. }) => thresholds.len(),
            _ => 1,
        }
    }

    /// Whether a piece is the least of several differences of logits, so that its gradient jumps between them.
    pub(crate) fn has_kinks(&self) -> bool {
        match (self.task, self.goal) {
            (Task::MultiClass { classes }, Goal::Targeted { .. } | Goal::FalsePositive { .. }) => *classes > 2,
            (Task::MultiLabel { thresholds }, Goal::Targeted { .. }) => thresholds.len() > 1,
            _ => false,
        }
    }

    /// The objective that is piece `pieces[row]` of each row.
    pub(crate) fn objective(&self, pieces: Vec<usize>) -> Result<Boundary<'a>, Error> {
        let margin = GoalObjective::new(self.goal, self.task, Loss::Margin)?;
        Ok(Boundary { goal: self.goal, task: self.task, pieces, margin })
    }
}

/// One piece of the boundary for each row of a batch.
pub(crate) struct Boundary<'a> {
    goal: &'a Goal,
    task: &'a Task,
    pieces: Vec<usize>,
    margin: GoalObjective<'a>,
}

impl Objective for Boundary<'_> {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        let piece = self.pieces[row];
        let class_to_leave = match (self.task, self.goal) {
            (Task::MultiClass { .. }, Goal::FalseNegative { finding }) => *finding,
            (Task::MultiClass { .. }, Goal::Untargeted { labels }) => match &labels[row] {
                Label::Class(class) => *class,
                Label::Findings(_) => return Err(Error::mismatch("label", "a class", "findings")),
            },
            (Task::MultiLabel { thresholds }, Goal::Untargeted { labels }) => {
                let Label::Findings(found) = &labels[row] else {
                    return Err(Error::mismatch("label", "findings", "a class"));
                };
                let sign = if found[piece] { -1.0 } else { 1.0 };
                cotangent.fill(0.0);
                cotangent[piece] = sign;
                return Ok(sign * (outputs[piece] - thresholds[piece]));
            }
            _ => return self.margin.evaluate(row, outputs, cotangent),
        };
        let rival = if piece < class_to_leave { piece } else { piece + 1 };
        cotangent.fill(0.0);
        cotangent[rival] = 1.0;
        cotangent[class_to_leave] = -1.0;
        Ok(outputs[rival] - outputs[class_to_leave])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(goal: &Goal, task: &Task, logits: &[f32]) -> Vec<(f32, Vec<f32>)> {
        let boundaries = Boundaries::new(goal, task);
        (0..boundaries.count())
            .map(|piece| {
                let mut cotangent = vec![f32::NAN; logits.len()];
                let objective = boundaries.objective(vec![piece]).unwrap();
                (objective.evaluate(0, logits, &mut cotangent).unwrap(), cotangent)
            })
            .collect()
    }

    #[test]
    fn every_other_class_or_finding_is_a_piece() {
        let task = Task::MultiClass { classes: 3 };
        let expected = vec![(-1.0, vec![1.0, -1.0, 0.0]), (0.5, vec![0.0, -1.0, 1.0])];
        let untargeted = Goal::Untargeted { labels: vec![Label::Class(1)] };
        assert_eq!(pieces(&untargeted, &task, &[1.0, 2.0, 2.5]), expected);
        assert_eq!(pieces(&Goal::FalseNegative { finding: 1 }, &task, &[1.0, 2.0, 2.5]), expected);

        let task = Task::MultiLabel { thresholds: vec![0.0, 1.0] };
        let untargeted = Goal::Untargeted { labels: vec![Label::Findings(vec![true, false])] };
        assert_eq!(pieces(&untargeted, &task, &[2.0, -1.0]), [(-2.0, vec![-1.0, 0.0]), (-2.0, vec![0.0, 1.0])]);
    }

    #[test]
    fn other_goals_have_one_piece() {
        let task = Task::MultiClass { classes: 3 };
        let targeted = Goal::Targeted { labels: vec![Label::Class(1)], targets: vec![Label::Class(0)] };
        assert_eq!(pieces(&targeted, &task, &[1.0, 2.0, 2.5]), [(-1.5, vec![1.0, 0.0, -1.0])]);
        assert!(Boundaries::new(&targeted, &task).has_kinks());
        assert!(!Boundaries::new(&Goal::FalseNegative { finding: 0 }, &task).has_kinks());
        let binary = Goal::Untargeted { labels: vec![Label::Class(1)] };
        assert_eq!(pieces(&binary, &Task::Binary { threshold: 0.5 }, &[2.0]), [(-1.5, vec![-1.0])]);
    }
}
