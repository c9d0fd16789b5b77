//! The loop that the momentum attacks share.

use nocebo_core::{
    AttackProblem, Domain, Error, Goal, GoalObjective, Gradient, Loss, Norm, Outputs, Perturbation, Samples,
    ThreatModel,
};

use crate::gradient::step::ascend;

/// What all momentum attacks set.
#[derive(Clone, Copy)]
pub(crate) struct Momentum {
    pub(crate) loss: Loss,
    pub(crate) steps: usize,
    /// Step α as a fraction of epsilon.
    pub(crate) relative_step_size: f32,
    /// How much of the last direction is kept: μ.
    pub(crate) decay: f32,
}

/// Where the search stands before a step.
pub(crate) struct Standing<'a> {
    pub(crate) objective: &'a GoalObjective<'a>,
    /// Number of the step, from 0.
    pub(crate) step: u64,
    /// Points xₜ, one a row of the problem.
    pub(crate) points: &'a Samples,
    /// Accumulated directions gₜ.
    pub(crate) directions: &'a Samples,
    /// Length α of a step in the unit of the data.
    pub(crate) size: f32,
}

/// The direction to ascend, and what the model answered at the points themselves, where it was asked.
pub(crate) struct Estimate {
    pub(crate) gradient: Samples,
    pub(crate) seen: Option<Outputs>,
}

impl From<Gradient> for Estimate {
    fn from(gradient: Gradient) -> Self {
        Self { gradient: gradient.inputs, seen: Some(gradient.outputs) }
    }
}

impl Momentum {
    pub(crate) fn check(self) -> Result<Self, Error> {
        if self.steps == 0 {
            return Err(Error::invalid("steps", "at least 1", self.steps));
        }
        if !(self.relative_step_size.is_finite() && self.relative_step_size > 0.0) {
            return Err(Error::invalid("relative_step_size", "finite and above 0", self.relative_step_size));
        }
        if !(self.decay.is_finite() && self.decay >= 0.0) {
            return Err(Error::invalid("decay", "finite and at least 0", self.decay));
        }
        Ok(self)
    }

    /// `g ← μ·g + ∇/|∇|`, then the steepest step of length α along g.
    pub(crate) fn accumulate_and_ascend(
        &self,
        threat: &ThreatModel,
        size: f32,
        gradient: &[f32],
        direction: &mut [f32],
        point: &mut [f32],
    ) {
        for (kept, new) in direction.iter_mut().zip(normalised(threat, gradient)) {
            *kept = self.decay * *kept + new;
        }
        ascend(threat, direction, size, point);
    }

    /// All steps on all samples, since a point that just crosses the boundary of one model seldom crosses that of
    /// another. Returns the last point; where it does not reach the goal but an earlier one was seen to, the latest of
    /// those.
    ///
    /// `estimate` spends `cost` queries a step. Every step needs as many and one more, which looks at the last point;
    /// with a query limit the search ends before the step that it cannot afford.
    pub(crate) fn run(
        &self,
        problem: &AttackProblem<'_>,
        cost: usize,
        mut estimate: impl FnMut(&Standing<'_>) -> Result<Estimate, Error>,
        update: impl Fn(f32, &[f32], &mut [f32], &mut [f32]),
    ) -> Result<Perturbation, Error> {
        let (threat, task) = (problem.threat, &problem.oracle.spec().task);
        let objective = problem.objective(problem.goal, self.loss)?;
        let size = self.relative_step_size * reach(threat);
        let affordable = |queries: usize| {
            let left = problem.inputs.indices().iter().map(|&sample| problem.oracle.remaining(sample));
            left.min().is_some_and(|left| left as usize >= queries)
        };
        let mut points = problem.inputs.clone();
        let mut directions = Samples::zeros(points.len(), points.shape())?;
        let mut found = Perturbation { inputs: points.clone(), success: vec![false; points.len()] };
        for step in 0..self.steps as u64 {
            if !affordable(cost.saturating_add(1)) {
                break;
            }
            let standing = Standing { objective: &objective, step, points: &points, directions: &directions, size };
            let Estimate { mut gradient, seen } = estimate(&standing)?;
            if let Some(outputs) = seen {
                keep_reached(problem.goal, task, &points, &outputs, &mut found);
            }
            for row in 0..points.len() {
                mask(threat.domain(), gradient.row_mut(row));
                update(size, gradient.row(row), directions.row_mut(row), points.row_mut(row));
                threat.project_row(problem.inputs.row(row), points.row_mut(row));
            }
        }
        if affordable(1) {
            let outputs = problem.oracle.outputs(&points)?;
            keep_reached(problem.goal, task, &points, &outputs, &mut found);
        }
        for row in (0..points.len()).filter(|&row| !found.success[row]) {
            found.inputs.copy_row(row, &points, row);
        }
        Ok(found)
    }
}

fn keep_reached(goal: &Goal, task: &nocebo_core::Task, points: &Samples, outputs: &Outputs, found: &mut Perturbation) {
    for (row, reached) in goal.reached(task, outputs).into_iter().enumerate() {
        if reached {
            found.inputs.copy_row(row, points, row);
            found.success[row] = true;
        }
    }
}

/// Epsilon, or where that is infinite the greatest distance within the bounds.
pub(crate) fn reach(threat: &ThreatModel) -> f32 {
    let domain = threat.domain();
    threat.epsilon().min(threat.norm().distance(domain.lower(), domain.upper()) as f32)
}

/// No slope where nothing may change.
pub(crate) fn mask(domain: &Domain, gradient: &mut [f32]) {
    for (element, slope) in gradient.iter_mut().enumerate() {
        if !domain.is_mutable(element) {
            *slope = 0.0;
        }
    }
}

/// A gradient of unit size, so that steps count alike whatever the confidence: mean magnitude 1 over the elements that
/// may change (Linf), length 1 (L2). A zero gradient stays.
pub(crate) fn normalised(threat: &ThreatModel, gradient: &[f32]) -> Vec<f32> {
    let size = if threat.norm() == Norm::L2 {
        Norm::L2.dual(gradient)
    } else {
        let elements = (0..gradient.len()).filter(|&element| threat.domain().is_mutable(element)).count();
        Norm::Linf.dual(gradient) / elements.max(1) as f64
    };
    if size > 0.0 {
        gradient.iter().map(|slope| (f64::from(*slope) / size) as f32).collect()
    } else {
        vec![0.0; gradient.len()]
    }
}

/// The mean of gradients that are added one after another.
pub(crate) struct MeanGradient {
    sum: Vec<f64>,
    count: usize,
}

impl MeanGradient {
    pub(crate) fn new() -> Self {
        Self { sum: Vec::new(), count: 0 }
    }

    pub(crate) fn add(&mut self, gradient: &Samples) {
        self.sum.resize(gradient.values().len(), 0.0);
        for (sum, slope) in self.sum.iter_mut().zip(gradient.values()) {
            *sum += f64::from(*slope);
        }
        self.count += 1;
    }

    /// The mean, with the shape and indices of `like`.
    pub(crate) fn finish(self, like: &Samples) -> Samples {
        let mut mean = like.clone();
        for (value, sum) in mean.values_mut().iter_mut().zip(self.sum) {
            *value = (sum / self.count as f64) as f32;
        }
        mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_normalised_over_what_may_change() {
        let domain = Domain::grey_levels(&[3], 255.0).unwrap().with_region(vec![true, true, false]).unwrap();
        let threat = |norm| ThreatModel::new(norm, 8.0, domain.clone()).unwrap();
        let mut gradient = [3.0, -4.0, 9.0];
        mask(&domain, &mut gradient);
        assert_eq!(normalised(&threat(Norm::L2), &gradient), [0.6, -0.8, 0.0]);
        assert_eq!(normalised(&threat(Norm::Linf), &gradient), [3.0 / 3.5, -4.0 / 3.5, 0.0]);
        assert_eq!(normalised(&threat(Norm::Linf), &[0.0; 3]), [0.0; 3]);
    }

    #[test]
    fn an_infinite_budget_reaches_across_the_bounds() {
        let domain = Domain::grey_levels(&[4], 255.0).unwrap();
        let reach = |norm, epsilon| super::reach(&ThreatModel::new(norm, epsilon, domain.clone()).unwrap());
        assert_eq!(reach(Norm::Linf, f32::INFINITY), 255.0);
        assert_eq!(reach(Norm::L2, f32::INFINITY), 510.0);
        assert_eq!(reach(Norm::L2, 3.0), 3.0);
    }
}
