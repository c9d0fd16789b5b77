//! A change that is the same for all samples, and what the ways of learning it share.

use std::sync::Arc;

use rand::RngExt;

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Domain, Error, Field, Goal, Label, Norm, Perturbation, Samples, ThreatModel,
};

use crate::gradient::search::look;

/// One change, added to any sample and clipped to its bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct UniversalPerturbation {
    info: AttackInfo,
    shape: Vec<usize>,
    values: Arc<[f32]>,
    fooled: f64,
}

impl UniversalPerturbation {
    /// The change, in the unit of the data.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Share of the samples it was learned from that reach the goal with it.
    pub fn fooled(&self) -> f64 {
        self.fooled
    }
}

impl Attack for UniversalPerturbation {
    fn info(&self) -> AttackInfo {
        self.info
    }

    /// Costs one query a sample, to see whether the goal is reached. Where the threat model is narrower than the one it
    /// was learned in, the change is projected.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        apply(problem, &self.shape, |_| &self.values)
    }
}

/// Adds to each row its change, and looks.
pub(super) fn apply<'v>(
    problem: &AttackProblem<'_>,
    shape: &[usize],
    change: impl Fn(usize) -> &'v [f32],
) -> Result<Perturbation, Error> {
    check_shape(problem, shape)?;
    let mut points = problem.inputs.clone();
    for row in 0..points.len() {
        add(problem.threat, problem.inputs.row(row), change(row), points.row_mut(row));
    }
    let mut active = nocebo_core::ActiveSet::new(problem);
    look(problem, &mut active, &points)?;
    Ok(active.finish(&points))
}

/// Refuses samples of another shape than those that were learned from.
pub(crate) fn check_shape(problem: &AttackProblem<'_>, shape: &[usize]) -> Result<(), Error> {
    if problem.inputs.shape() == shape {
        Ok(())
    } else {
        let shapes = (format!("{shape:?}"), format!("{:?}", problem.inputs.shape()));
        Err(Error::mismatch("shape of the samples an attack was learned from", shapes.0, shapes.1))
    }
}

fn add(threat: &ThreatModel, clean: &[f32], change: &[f32], point: &mut [f32]) {
    for ((point, clean), change) in point.iter_mut().zip(clean).zip(change) {
        *point = clean + change;
    }
    threat.project_row(clean, point);
}

/// A change that is being learned, and the set that it is learned from.
pub(super) struct Learning<'a> {
    pub(super) problem: &'a AttackProblem<'a>,
    /// The change v, within epsilon and zero outside the region of interest.
    pub(super) values: Vec<f32>,
    /// The best change so far, and the share of samples that reach the goal with it.
    best: (Vec<f32>, f64),
    differences: Domain,
}

impl<'a> Learning<'a> {
    /// Starts from no change.
    pub(super) fn new(problem: &'a AttackProblem<'a>) -> Result<Self, Error> {
        let domain = problem.threat.domain();
        let widest: Vec<f32> = domain.lower().iter().zip(domain.upper()).map(|(low, high)| high - low).collect();
        let mut config = domain.config().clone();
        config.lower = Field::PerElement(widest.iter().map(|range| -range).collect());
        config.upper = Field::PerElement(widest);
        let nothing = vec![0.0; problem.inputs.elements()];
        Ok(Self { problem, values: nothing.clone(), best: (nothing, -1.0), differences: config.try_into()? })
    }

    /// The given samples with the change.
    pub(super) fn perturbed(&self, rows: &[usize]) -> Samples {
        let mut points = self.problem.inputs.select(rows);
        for (position, &row) in rows.iter().enumerate() {
            add(self.problem.threat, self.problem.inputs.row(row), &self.values, points.row_mut(position));
        }
        points
    }

    /// Adds a step to the change and projects it onto the ball.
    pub(super) fn step(&mut self, step: &[f32]) {
        for (value, step) in self.values.iter_mut().zip(step) {
            *value += step;
        }
        let threat = self.problem.threat;
        let nothing = vec![0.0; self.values.len()];
        threat.norm().project(threat.epsilon(), &self.differences, &nothing, &mut self.values);
    }

    /// All rows in an order of its own for every pass.
    pub(super) fn shuffled(&self, pass: usize) -> Vec<usize> {
        let mut generator = self.problem.seed.named("order").for_sample(pass as u64);
        let mut rows: Vec<usize> = (0..self.problem.inputs.len()).collect();
        for place in (1..rows.len()).rev() {
            rows.swap(place, generator.random_range(0..=place));
        }
        rows
    }

    /// Asks the model about the given samples with the change; the positions of those that do not reach the goal.
    pub(super) fn unfooled(&self, rows: &[usize]) -> Result<(Samples, Vec<usize>), Error> {
        let points = self.perturbed(rows);
        let outputs = self.problem.oracle.outputs(&points)?;
        let reached = self.problem.goal.select(rows).reached(&self.problem.oracle.spec().task, &outputs);
        Ok((points, (0..rows.len()).filter(|&position| !reached[position]).collect()))
    }

    /// Share of all samples that reach the goal; keeps the change if it is the best so far.
    pub(super) fn measure(&mut self) -> Result<f64, Error> {
        let rows: Vec<usize> = (0..self.problem.inputs.len()).collect();
        let missed: usize = rows
            .chunks(MEASURED_TOGETHER)
            .map(|rows| Ok(self.unfooled(rows)?.1.len()))
            .sum::<Result<usize, Error>>()?;
        let fooled = 1.0 - missed as f64 / rows.len() as f64;
        if fooled > self.best.1 {
            self.best = (self.values.clone(), fooled);
        }
        Ok(fooled)
    }

    /// The best change that was measured.
    pub(super) fn finish(self, info: AttackInfo) -> UniversalPerturbation {
        UniversalPerturbation {
            info,
            shape: self.problem.inputs.shape().to_vec(),
            values: self.best.0.into(),
            fooled: self.best.1.max(0.0),
        }
    }
}

/// Rows that go through the model at once; bounds memory.
const MEASURED_TOGETHER: usize = 256;

/// How the passes of Moosavi-Dezfooli et al. go over the set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passes {
    pub(super) greatest: usize,
    pub(super) wanted: f64,
    pub(super) batch: usize,
}

impl Passes {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.greatest == 0 {
            return Err(Error::invalid("passes", "at least 1", self.greatest));
        }
        if !(0.0..=1.0).contains(&self.wanted) {
            return Err(Error::invalid("wanted", "0 to 1", self.wanted));
        }
        if self.batch == 0 {
            return Err(Error::invalid("batch", "at least 1", self.batch));
        }
        Ok(())
    }

    /// For each batch of samples that the change does not fool yet, steps by the mean of what `inner` finds for each
    /// of them (rows of the problem and their points), until enough samples are fooled.
    pub(super) fn run<'a>(
        &self,
        problem: &'a AttackProblem<'a>,
        info: AttackInfo,
        inner: impl Fn(&[usize], &Samples) -> Result<Samples, Error>,
    ) -> Result<UniversalPerturbation, Error> {
        let mut learning = Learning::new(problem)?;
        if learning.measure()? < self.wanted {
            for pass in 0..self.greatest {
                for rows in learning.shuffled(pass).chunks(self.batch) {
                    let (points, unfooled) = learning.unfooled(rows)?;
                    if unfooled.is_empty() {
                        continue;
                    }
                    let rows: Vec<usize> = unfooled.iter().map(|&position| rows[position]).collect();
                    let found = inner(&rows, &points.select(&unfooled))?;
                    let mut mean = vec![0.0; learning.values.len()];
                    for row in found.rows() {
                        for (mean, part) in mean.iter_mut().zip(row) {
                            *mean += part / rows.len() as f32;
                        }
                    }
                    learning.step(&mean);
                }
                if learning.measure()? >= self.wanted {
                    break;
                }
            }
        }
        Ok(learning.finish(info))
    }
}

/// A budget as a fraction of the mean norm of the samples, as the medical studies of universal changes state it.
pub fn fraction_of_mean_norm(samples: &Samples, norm: Norm, fraction: f32) -> f32 {
    let nothing = vec![0.0; samples.elements()];
    let sum: f64 = samples.rows().map(|row| norm.distance(row, &nothing)).sum();
    (f64::from(fraction) * sum / samples.len().max(1) as f64) as f32
}

/// The true classes that a goal knows, one a sample.
pub(crate) fn labels_of(goal: &Goal) -> Option<&[Label]> {
    match goal {
        Goal::Untargeted { labels } | Goal::Targeted { labels, .. } => Some(labels),
        Goal::FalseNegative { .. } | Goal::FalsePositive { .. } => None,
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::fit::FitAttack;
    use nocebo_core::{DifferentiableModel, Seed};
    use nocebo_testkit::suite;

    /// Learns on the toy samples that one class holds, all of which one change can flip.
    pub(crate) fn fit_binary(
        fit: &dyn FitAttack,
        norm: Norm,
        factor: f64,
    ) -> (Box<dyn Attack>, Samples, Goal, ThreatModel) {
        let model = suite::linear_binary();
        let samples = positive();
        let most = (0..samples.len()).map(|row| model.least_change(norm, samples.row(row))).fold(0.0, f64::max);
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(norm, (factor * most) as f32, suite::ct_domain()).unwrap();
        (fit.fit(&model, &samples, &goal, &threat, Seed(1)).unwrap(), samples, goal, threat)
    }

    /// The toy samples with a positive logit.
    fn positive() -> Samples {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let rows: Vec<usize> = (0..samples.len()).filter(|&row| model.logits(samples.row(row))[0] > 0.0).collect();
        assert!(rows.len() > 2);
        samples.select(&rows)
    }

    /// Share of the samples that the learned change flips within this factor of the greatest least change.
    pub(crate) fn flipped(fit: &dyn FitAttack, norm: Norm, factor: f64) -> f64 {
        let (attack, samples, goal, threat) = fit_binary(fit, norm, factor);
        let model: &dyn DifferentiableModel = &suite::linear_binary();
        let outcome = attack.run(model, &samples, &goal, &threat, Seed(2)).unwrap();
        outcome.success.iter().filter(|done| **done).count() as f64 / samples.len() as f64
    }

    /// The properties of the common suite that do not ask for success, on a change learned with a wide budget.
    pub(crate) fn mechanics(fit: &dyn FitAttack) {
        let (attack, ..) = fit_binary(fit, fit.info().norms[0], 2.0);
        assert_eq!(suite::check_mechanics(&*attack), Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Knowledge, Seed};
    use nocebo_testkit::suite;

    const INFO: AttackInfo = AttackInfo {
        name: "fixed",
        title: "A fixed change",
        source: "this test",
        family: "universal",
        norms: &[Norm::L2, Norm::Linf],
        knowledge: Knowledge::None,
        minimum_norm: false,
    };

    #[test]
    fn a_fixed_change_passes_the_mechanics_of_the_suite() {
        let values = (0..12).map(|at| (at as f32 - 6.0) * 100.0).collect();
        let change = UniversalPerturbation { info: INFO, shape: vec![1, 3, 4], values, fooled: 1.0 };
        assert_eq!(suite::check_mechanics(&change), Ok(()));
    }

    #[test]
    fn a_change_that_is_learned_stays_in_ball_and_region() {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let domain = suite::ct_domain().with_region((0..12).map(|at| at != 3).collect()).unwrap();
        let oracle = nocebo_core::Oracle::new(&model, None);
        for norm in [Norm::L2, Norm::Linf] {
            let threat = ThreatModel::new(norm, 7.0, domain.clone()).unwrap();
            let problem =
                AttackProblem { oracle: &oracle, inputs: &samples, goal: &goal, threat: &threat, seed: Seed(1) };
            let mut learning = Learning::new(&problem).unwrap();
            learning.step(&[-50.0; 12]);
            assert!((norm.distance(&learning.values, &[0.0; 12]) - 7.0).abs() < 1e-4 && learning.values[3] == 0.0);
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let change = UniversalPerturbation { info: INFO, shape: vec![12], values: vec![0.0; 12].into(), fooled: 1.0 };
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 1.0, suite::ct_domain()).unwrap();
        assert!(change.run(&model, &samples, &goal, &threat, Seed(1)).is_err());
    }

    #[test]
    fn the_budget_of_the_medical_studies_is_a_fraction_of_the_mean_norm() {
        let samples = Samples::new(vec![3.0, 4.0, 0.0, 15.0], &[2]).unwrap();
        assert_eq!(fraction_of_mean_norm(&samples, Norm::L2, 0.0625), 0.625);
        assert_eq!(fraction_of_mean_norm(&samples, Norm::Linf, 0.125), 1.1875);
    }
}
