//! The loop that the attacks with few parameters share.

use nocebo_core::{ActiveSet, AttackProblem, Error, Loss, Perturbation, Samples};

use crate::gradient::search::look;
use crate::transfer::momentum::mask;
use crate::transformation::Transformation;
use crate::transformation::warp::Warp;

/// A warp that depends on parameters `P`.
pub(super) struct Search<P, S, W, M> {
    pub(super) loss: Loss,
    pub(super) steps: usize,
    pub(super) restarts: usize,
    /// Parameters to start from, for a sample index in a restart.
    pub(super) start: S,
    /// The warp of parameters.
    pub(super) warp: W,
    /// Moves parameters along the gradient by the positions of their warp (`[axis][element]`).
    pub(super) step: M,
    pub(super) parameters: std::marker::PhantomData<P>,
}

impl<P, S, W, M> Search<P, S, W, M>
where
    S: Fn(u64, u64) -> P,
    W: Fn(&P) -> Warp,
    M: Fn(&mut P, &[Vec<f32>]),
{
    /// Searches until a sample reaches its goal or its restarts are used up. Costs `steps` gradient queries and one
    /// query a sample and restart.
    pub(super) fn run(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let clean = problem.inputs;
        let mut active = ActiveSet::new(problem);
        let mut points = clean.clone();
        for restart in 0..self.restarts as u64 {
            let mut parameters: Vec<P> = clean.indices().iter().map(|&sample| (self.start)(restart, sample)).collect();
            for &row in active.rows() {
                draw(problem, &(self.warp)(&parameters[row]), row, &mut points);
            }
            for _ in 0..self.steps {
                let left = active.rows().iter().map(|&row| problem.oracle.remaining(clean.indices()[row]));
                if active.is_empty() || left.min().is_none_or(|left| left < 2) {
                    break;
                }
                let goal = active.goal();
                let looked_at = active.gather(&points);
                let gradient = problem.oracle.gradient(&looked_at, &problem.objective(&goal, self.loss)?)?;
                let staying = active.keep_reached(&looked_at, &gradient.outputs);
                for (&row, position) in active.rows().iter().zip(staying) {
                    let mut slopes = gradient.inputs.row(position).to_vec();
                    mask(problem.threat.domain(), &mut slopes);
                    let warp = (self.warp)(&parameters[row]);
                    (self.step)(&mut parameters[row], &warp.pull_back_positions(clean.row(row), &slopes));
                    draw(problem, &(self.warp)(&parameters[row]), row, &mut points);
                }
            }
            look(problem, &mut active, &points)?;
        }
        Ok(active.finish(&points))
    }
}

/// Puts the moved sample, within the threat model, into its row.
pub(super) fn draw(problem: &AttackProblem<'_>, warp: &Warp, row: usize, points: &mut Samples) {
    let clean = problem.inputs.row(row);
    points.row_mut(row).copy_from_slice(&warp.apply(clean));
    problem.threat.project_row(clean, points.row_mut(row));
}
