//! A model that an attack runs against while the audit looks on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use nocebo_core::{
    DifferentiableModel, Error, Goal, GoalObjective, Gradient, Loss, Model, ModelSpec, Objective, Outputs, Samples,
    ThreatModel,
};

use crate::cell::Trace;
use crate::evaluate::Observer;

/// Fewest gradient queries from which a late improvement can be told.
pub(crate) const LEAST_STEPS: u32 = 8;

/// Passes every question on, and keeps for each sample what the answers showed.
///
/// It looks at the margin of the *goal*, whatever objective the attack follows, so attacks can be compared.
pub(crate) struct Watched<'a> {
    model: &'a dyn DifferentiableModel,
    inputs: &'a Samples,
    goal: &'a Goal,
    margin: GoalObjective<'a>,
    threat: &'a ThreatModel,
    rows: BTreeMap<u64, usize>,
    seen: Mutex<Vec<Seen>>,
    observer: &'a dyn Observer,
}

/// The observer wants to stop: the answer that ends an attack in the middle of its work.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stop;

/// Whether an attack ended because the observer wanted to stop.
pub(crate) fn was_stopped(error: &Error) -> bool {
    matches!(error, Error::Model(source) if source.is::<Stop>())
}

#[derive(Clone, Default)]
struct Seen {
    trace: Trace,
    /// Best margin so far, after each gradient query.
    best: Vec<f32>,
}

impl<'a> Watched<'a> {
    pub(crate) fn new(
        model: &'a dyn DifferentiableModel,
        inputs: &'a Samples,
        goal: &'a Goal,
        threat: &'a ThreatModel,
        observer: &'a dyn Observer,
    ) -> Result<Self, Error> {
        let margin = GoalObjective::new(goal, &model.spec().task, Loss::Margin)?;
        let rows = inputs.indices().iter().enumerate().map(|(row, &index)| (index, row)).collect();
        let seen = Mutex::new(vec![Seen::default(); inputs.len()]);
        Ok(Self { model, inputs, goal, margin, threat, rows, seen, observer })
    }

    /// What was seen of each sample.
    pub(crate) fn finish(self) -> Vec<Trace> {
        let seen = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        seen.into_iter()
            .map(|Seen { mut trace, best }| {
                trace.late_improvement = late_improvement(&best);
                trace
            })
            .collect()
    }

    fn stop_if_wanted(&self) -> Result<(), Error> {
        if self.observer.stop() { Err(Error::Model(Box::new(Stop))) } else { Ok(()) }
    }

    fn look(&self, points: &Samples, outputs: &Outputs, gradient: Option<&Samples>) -> Result<(), Error> {
        let task = &self.model.spec().task;
        let domain = self.threat.domain();
        if points.shape() != domain.shape() || outputs.len() != points.len() {
            return Ok(()); // the attack is told by its oracle
        }
        let gradient = gradient.filter(|gradient| gradient.len() == points.len());
        let mut cotangent = vec![0.0; task.outputs()];
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (position, index) in points.indices().iter().enumerate() {
            let Some(&row) = self.rows.get(index) else { continue };
            let (point, logits) = (points.row(position), outputs.row(position));
            if logits.len() != cotangent.len() || logits.iter().any(|logit| !logit.is_finite()) {
                continue;
            }
            let seen = &mut all[row];
            let inside =
                |(element, value): (usize, &f32)| (domain.lower()[element]..=domain.upper()[element]).contains(value);
            seen.trace.left_bounds |= !point.iter().enumerate().all(inside);
            if !seen.trace.reached && self.goal.is_reached(task, row, logits) {
                seen.trace.reached = self.threat.allows(self.inputs.row(row), point);
            }
            if let Some(gradient) = gradient {
                let margin = self.margin.evaluate(row, logits, &mut cotangent)?;
                let best = seen.best.last().copied().unwrap_or(f32::NEG_INFINITY);
                seen.best.push(best.max(margin));
                seen.trace.zero_gradients += u32::from(gradient.row(position).iter().all(|slope| *slope == 0.0));
            }
        }
        Ok(())
    }
}

/// Share of the rise of `best` that fell in its last quarter, at most ten steps.
fn late_improvement(best: &[f32]) -> Option<f32> {
    if best.len() < LEAST_STEPS as usize {
        return None;
    }
    let late = (best.len() / 4).min(10);
    let (first, last) = (f64::from(best[0]), f64::from(best[best.len() - 1]));
    let before = f64::from(best[best.len() - 1 - late]);
    (last > first).then(|| ((last - before) / (last - first)) as f32)
}

impl Model for Watched<'_> {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        self.stop_if_wanted()?;
        let outputs = self.model.outputs(inputs)?;
        self.look(inputs, &outputs, None)?;
        Ok(outputs)
    }
}

impl DifferentiableModel for Watched<'_> {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        self.stop_if_wanted()?;
        let gradient = self.model.gradient(inputs, objective)?;
        self.look(inputs, &gradient.outputs, Some(&gradient.inputs))?;
        Ok(gradient)
    }

    fn gradients(&self, inputs: &Samples, objectives: &[&dyn Objective]) -> Result<Vec<Gradient>, Error> {
        self.stop_if_wanted()?;
        let gradients = self.model.gradients(inputs, objectives)?;
        if let Some(first) = gradients.first() {
            self.look(inputs, &first.outputs, Some(&first.inputs))?;
        }
        Ok(gradients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_improvement_is_the_share_of_the_last_quarter() {
        assert_eq!(late_improvement(&[0.0; 7]), None);
        assert_eq!(late_improvement(&[1.0; 20]), None);
        // Rises by 1 a step to 7; the last quarter of 8 steps is 2 steps.
        let steady: Vec<f32> = (0..8).map(|step| step as f32).collect();
        assert_eq!(late_improvement(&steady), Some((2.0 / 7.0_f64) as f32));
        // All of the rise is early.
        assert_eq!(late_improvement(&[0.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]), Some(0.0));
        // 100 steps: only the last ten count.
        let long: Vec<f32> = (0..101).map(|step| step as f32).collect();
        assert_eq!(late_improvement(&long), Some(0.1));
    }
}
