//! What the physical attacks share: mean gradients over views, and a search by Adam with penalties.

use nocebo_core::{AttackProblem, Domain, Error, Norm, Perturbation};

use crate::adam::Adam;
use crate::transfer::momentum::{Estimate, MeanGradient, Momentum, Standing, mask};
use crate::transformation::{Transformations, gradient_through};

/// The sample itself and random views of it.
#[derive(Clone, Debug)]
pub(super) struct Views {
    transformations: Transformations,
    draws: usize,
}

impl Views {
    /// Checks `draws`; without transformations every view would be the sample itself, so none is drawn.
    pub(super) fn new(transformations: Transformations, draws: usize) -> Result<Self, Error> {
        if draws == 0 {
            return Err(Error::invalid("draws", "at least 1", draws));
        }
        let draws = if transformations.is_identity() { 0 } else { draws };
        Ok(Self { transformations, draws })
    }

    /// Checks that the views can be drawn for samples of this shape.
    pub(super) fn check(&self, domain: &Domain) -> Result<(), Error> {
        self.transformations.check(domain)
    }

    /// Queries that one gradient costs.
    pub(super) fn cost(&self) -> usize {
        self.draws.saturating_add(1)
    }

    /// The mean gradient over the samples themselves and their views, and the outputs at the samples themselves.
    pub(super) fn gradient(&self, problem: &AttackProblem<'_>, at: &Standing<'_>) -> Result<Estimate, Error> {
        let domain = problem.threat.domain();
        let plain = problem.oracle.gradient(at.points, at.objective)?;
        let mut mean = MeanGradient::new();
        mean.add(&plain.inputs);
        let seed = problem.seed.named("views").stream(at.step);
        for draw in 0..self.draws as u64 {
            let through = self.transformations.draw_each(domain, at.points, seed.stream(draw));
            mean.add(&gradient_through(problem.oracle, at.points, at.objective, &through)?.inputs);
        }
        Ok(Estimate { gradient: mean.finish(at.points), seen: Some(plain.outputs) })
    }

    /// Ascends the mean objective less penalties by Adam.
    ///
    /// `penalise(row, values, slopes)` subtracts its derivative from the slopes. Values and slopes are in fractions of
    /// the range of the bounds, values counted from the lower bound. Where `movable(row, element)` is false a value stays.
    pub(super) fn ascend_by_adam(
        &self,
        problem: &AttackProblem<'_>,
        search: &Momentum,
        penalise: impl Fn(usize, &[f64], &mut [f64]),
        movable: impl Fn(usize, usize) -> bool,
    ) -> Result<Perturbation, Error> {
        let domain = problem.threat.domain();
        self.check(domain)?;
        let (elements, range) = (problem.inputs.elements(), f64::from(domain.range()));
        // Adam moves all elements alike, so that in L2 a step of the whole is longer than that of one element.
        let share = if problem.threat.norm() == Norm::L2 { (elements as f32).sqrt() } else { 1.0 };
        let mut adams: Vec<Adam> = (0..problem.inputs.len()).map(|_| Adam::new(elements)).collect();
        search.run(
            problem,
            self.cost(),
            |at| {
                let mut estimate = self.gradient(problem, at)?;
                for (row, adam) in adams.iter_mut().enumerate() {
                    let values = fractions(domain, at.points.row(row));
                    let mut slopes: Vec<f64> =
                        estimate.gradient.row(row).iter().map(|slope| range * f64::from(*slope)).collect();
                    penalise(row, &values, &mut slopes);
                    let mut direction: Vec<f32> = adam.direction(&slopes).into_iter().map(|part| part as f32).collect();
                    mask(domain, &mut direction);
                    for (element, part) in direction.iter_mut().enumerate() {
                        if !movable(row, element) {
                            *part = 0.0;
                        }
                    }
                    estimate.gradient.row_mut(row).copy_from_slice(&direction);
                }
                Ok(estimate)
            },
            |size, direction, _, point| {
                for (value, part) in point.iter_mut().zip(direction) {
                    *value += size / share * part;
                }
            },
        )
    }
}

/// Values as fractions of the greatest range of the bounds, from the lower bound of each element.
pub(super) fn fractions(domain: &Domain, values: &[f32]) -> Vec<f64> {
    let range = f64::from(domain.range());
    values.iter().zip(domain.lower()).map(|(value, lower)| f64::from(value - lower) / range).collect()
}
