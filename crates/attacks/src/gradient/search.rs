//! The loop that the iterative gradient attacks share.

use nocebo_core::{ActiveSet, AttackProblem, Error, Goal, Loss, Samples};

/// What steers a search, and for how long.
pub(crate) struct Search<'a> {
    /// Whose objective is followed, for all rows of the problem; the search ends at the problem's own goal.
    pub(crate) steering: &'a Goal,
    /// The objective.
    pub(crate) loss: Loss,
    /// Gradient steps.
    pub(crate) steps: usize,
}

impl Search<'_> {
    /// Steps from `current` (a full batch inside the threat model), projects, and drops samples as they reach the
    /// goal; at the end `current` holds the last points of the samples that did not.
    ///
    /// `step` moves one point by its gradient. Costs one gradient query a step and one query for the last points.
    /// With a query limit the search ends when one query is left, which looks at the last points.
    pub(crate) fn run(
        &self,
        problem: &AttackProblem<'_>,
        active: &mut ActiveSet<'_>,
        current: &mut Samples,
        step: impl Fn(&[f32], &mut [f32]),
    ) -> Result<(), Error> {
        for _ in 0..self.steps {
            let affordable =
                active.rows().iter().all(|&row| problem.oracle.remaining(problem.inputs.indices()[row]) > 1);
            if active.is_empty() || !affordable {
                break;
            }
            let points = active.gather(current);
            let steering = self.steering.select(active.rows());
            let gradient = problem.oracle.gradient(&points, &problem.objective(&steering, self.loss)?)?;
            let staying = active.keep_reached(&points, &gradient.outputs);
            for (&row, position) in active.rows().iter().zip(staying) {
                step(gradient.inputs.row(position), current.row_mut(row));
                problem.threat.project_row(problem.inputs.row(row), current.row_mut(row));
            }
        }
        look(problem, active, current)
    }
}

/// Asks once where the active samples stand now.
pub(crate) fn look(problem: &AttackProblem<'_>, active: &mut ActiveSet<'_>, current: &Samples) -> Result<(), Error> {
    let affordable = active.rows().iter().all(|&row| problem.oracle.remaining(problem.inputs.indices()[row]) > 0);
    if !active.is_empty() && affordable {
        let points = active.gather(current);
        active.keep_reached(&points, &problem.oracle.outputs(&points)?);
    }
    Ok(())
}
