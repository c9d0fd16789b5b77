//! A generator that is being learned against a model, and the attack that it becomes.

use rand::RngExt;

use nocebo_core::{
    ActiveSet, Attack, AttackInfo, AttackProblem, Error, Goal, Label, Perturbation, Samples, Seed, Task, ThreatModel,
};
use nocebo_graph::Network;
use nocebo_graph::network::Pass;

use super::change::Form;
use super::networks::{NetworkConfig, scaled};
use crate::gradient::search::look;
use crate::universal::perturbation::{check_shape, labels_of};

/// A network behind the form of its output, and the threat model it is learned in.
pub(super) struct Generator {
    network: Network,
    form: Form,
    threat: ThreatModel,
    codes: usize,
}

/// Points that a generator made, with what their slopes need to come back.
pub(super) struct Made {
    pass: Pass,
    clean: Samples,
    pub(super) points: Samples,
}

impl Generator {
    /// An untrained generator that is told one of `codes` classes; of none where that is 0.
    pub(super) fn new(
        problem: &AttackProblem<'_>,
        config: &NetworkConfig,
        form: Form,
        codes: usize,
    ) -> Result<Self, Error> {
        let network = config.generator(problem.inputs.shape(), codes, problem.seed.named("weights"))?;
        Ok(Self { network, form, threat: problem.threat.clone(), codes })
    }

    /// The points for `inputs`, each sent to its class of `targets` where the generator is told one, within the threat
    /// model that it is learned in.
    pub(super) fn make(&self, inputs: &Samples, targets: &[usize]) -> Result<Made, Error> {
        self.make_within(&self.threat, inputs, targets)
    }

    fn make_within(&self, threat: &ThreatModel, inputs: &Samples, targets: &[usize]) -> Result<Made, Error> {
        let sample = scaled(self.threat.domain(), inputs);
        let pass = if self.codes > 0 {
            let one_hot = targets.iter().flat_map(|&target| (0..self.codes).map(move |class| class == target));
            let code = Samples::new(one_hot.map(|here| f32::from(u8::from(here))).collect(), &[self.codes])?;
            self.network.forward(&[&sample, &code])?
        } else {
            self.network.forward(&[&sample])?
        };
        let mut points = inputs.clone();
        for (row, unit) in pass.outputs()[0].rows().enumerate() {
            points.row_mut(row).copy_from_slice(&self.form.point(threat, inputs.row(row), unit));
        }
        Ok(Made { pass, clean: inputs.clone(), points })
    }

    /// One step down the mean over the rows of `slopes`, d loss / d point.
    pub(super) fn learn(&mut self, made: Made, slopes: &Samples) -> Result<(), Error> {
        let share = 1.0 / slopes.len() as f32;
        let mut cotangent = Vec::with_capacity(slopes.values().len());
        for (row, unit) in made.pass.outputs()[0].rows().enumerate() {
            let pulled = self.form.pull_back(&self.threat, made.clean.row(row), unit, slopes.row(row));
            cotangent.extend(pulled.iter().map(|slope| share * slope));
        }
        let gradients = made.pass.pull_back(&[&cotangent])?;
        self.network.step(&gradients);
        Ok(())
    }
}

impl Made {
    /// Adds to `slopes` the derivative of `weight · ‖x′ − x‖²`, in ranges of the bounds.
    pub(super) fn add_length(&self, threat: &ThreatModel, weight: f32, slopes: &mut Samples) {
        let domain = threat.domain();
        for (row, slopes) in slopes.rows_mut().enumerate() {
            let parts = self.points.row(row).iter().zip(self.clean.row(row));
            for (element, (slope, (point, clean))) in slopes.iter_mut().zip(parts).enumerate() {
                let range = domain.upper()[element] - domain.lower()[element];
                *slope += 2.0 * weight * (point - clean) / (range * range);
            }
        }
    }
}

/// The samples of one step: without repetition, by chance.
pub(super) fn batch(seed: Seed, samples: usize, batch: usize, step: usize) -> Vec<usize> {
    let mut generator = seed.named("batch").for_sample(step as u64);
    let mut rows: Vec<usize> = (0..samples).collect();
    for place in 0..batch.min(samples) {
        rows.swap(place, generator.random_range(place..samples));
    }
    rows.truncate(batch);
    rows
}

/// Turns what an attack ascends into what training descends.
pub(super) fn negated(mut slopes: Samples) -> Samples {
    for slope in slopes.values_mut() {
        *slope = -*slope;
    }
    slopes
}

/// Rows that go through the model at once; bounds memory.
const MEASURED_TOGETHER: usize = 256;

/// The share of `rows` that reach `goal` (of all rows of the problem) at the points that are made for them.
pub(super) fn share_reached(
    problem: &AttackProblem<'_>,
    goal: &Goal,
    rows: &[usize],
    points: impl Fn(&Samples) -> Result<Samples, Error>,
) -> Result<f64, Error> {
    let mut reached = 0;
    for rows in rows.chunks(MEASURED_TOGETHER) {
        let outputs = problem.oracle.outputs(&points(&problem.inputs.select(rows))?)?;
        let goal = goal.select(rows);
        reached += goal.reached(&problem.oracle.spec().task, &outputs).iter().filter(|reached| **reached).count();
    }
    Ok(reached as f64 / rows.len().max(1) as f64)
}

/// The number of exclusive classes, which a target names one of.
pub(super) fn exclusive_classes(attack: &str, task: &Task) -> Result<usize, Error> {
    match task {
        Task::MultiClass { .. } | Task::Binary { .. } => Ok(task.classes()),
        _ => Err(Error::unsupported(format!("{attack} for this task"), "it is about exclusive classes")),
    }
}

/// The class that a goal names for one row; `None` where any other than the true one will do.
pub(super) fn named(goal: &Goal, row: usize) -> Option<usize> {
    match goal {
        Goal::Targeted { targets, .. } => match targets[row] {
            Label::Class(class) => Some(class),
            Label::Findings(_) | Label::Mask(_) | Label::Number(_) => None,
        },
        Goal::FalsePositive { finding } => Some(*finding),
        Goal::Untargeted { .. } | Goal::FalseNegative { .. } => None,
    }
}

/// The class that a row must not be sent to.
pub(super) fn own(goal: &Goal, row: usize) -> Option<usize> {
    match (labels_of(goal).map(|labels| &labels[row]), goal) {
        (Some(Label::Class(class)), _) => Some(*class),
        (_, Goal::FalseNegative { finding }) => Some(*finding),
        _ => None,
    }
}

/// A generator that is told a class: which classes it has learned, and how well.
pub(super) struct TargetedGenerator {
    info: AttackInfo,
    generator: Generator,
    /// Classes it was told, with the share of the set that it sends there.
    learned: Vec<(usize, f64)>,
}

impl TargetedGenerator {
    /// Learns to send each sample to the class that the goal names, to any other in turn where it names none.
    ///
    /// `slopes` gives d loss / d point for rows of the problem that were sent to their targets.
    pub(super) fn learn(
        problem: &AttackProblem<'_>,
        info: AttackInfo,
        config: &NetworkConfig,
        form: Form,
        noise: f32,
        slopes: impl Fn(&[usize], &[usize], &Made) -> Result<Samples, Error>,
    ) -> Result<Self, Error> {
        let classes = exclusive_classes(info.name, &problem.oracle.spec().task)?;
        let choices = |row: usize| -> Vec<usize> {
            named(problem.goal, row).map_or_else(
                || (0..classes).filter(|class| own(problem.goal, row) != Some(*class)).collect(),
                |class| vec![class],
            )
        };
        let mut generator = Generator::new(problem, config, form, classes)?;
        for step in 0..config.steps {
            let rows = batch(problem.seed, problem.inputs.len(), config.batch, step);
            let mut draws = problem.seed.named("targets").for_sample(step as u64);
            let targets: Vec<usize> = rows
                .iter()
                .map(|&row| {
                    let choices = choices(row);
                    choices[draws.random_range(0..choices.len())]
                })
                .collect();
            let mut inputs = problem.inputs.select(&rows);
            add_noise(problem, noise, step, &mut inputs);
            let made = generator.make(&inputs, &targets)?;
            let slopes = slopes(&rows, &targets, &made)?;
            generator.learn(made, &slopes)?;
        }
        let mut learned = Vec::new();
        for class in 0..classes {
            let rows: Vec<usize> = (0..problem.inputs.len()).filter(|&row| choices(row).contains(&class)).collect();
            if !rows.is_empty() {
                let goal = Goal::FalsePositive { finding: class };
                let points = |inputs: &Samples| Ok(generator.make(inputs, &vec![class; inputs.len()])?.points);
                learned.push((class, share_reached(problem, &goal, &rows, points)?));
            }
        }
        Ok(Self { info, generator, learned })
    }

    /// The class for one row: the one that is named, else the one that was learned best.
    fn target(&self, goal: &Goal, row: usize) -> Result<usize, Error> {
        let (named, own) = (named(goal, row), own(goal, row));
        let fitting =
            self.learned.iter().filter(|(class, _)| named.map_or(own != Some(*class), |named| named == *class));
        // The first of equals.
        let best = fitting.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map(|(class, _)| *class).ok_or_else(|| {
            Error::unsupported(
                format!("{} for this goal", self.info.name),
                "its target was not learned; fit it on such a goal",
            )
        })
    }
}

/// Adds uniform noise to the free elements, as fractions of their ranges.
fn add_noise(problem: &AttackProblem<'_>, noise: f32, step: usize, inputs: &mut Samples) {
    let domain = problem.threat.domain();
    let indices = inputs.indices().to_vec();
    for (row, index) in inputs.rows_mut().zip(indices) {
        let mut generator = problem.seed.named("noise").stream(step as u64).for_sample(index);
        for (element, value) in row.iter_mut().enumerate() {
            let (lower, upper) = (domain.lower()[element], domain.upper()[element]);
            let drawn = noise * (upper - lower) * generator.random_range(-1.0_f32..=1.0);
            if domain.is_mutable(element) {
                *value = (*value + drawn).clamp(lower, upper);
            }
        }
    }
}

impl Attack for TargetedGenerator {
    fn info(&self) -> AttackInfo {
        self.info
    }

    /// Costs one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        check_shape(problem, self.generator.threat.domain().shape())?;
        let targets: Vec<usize> =
            (0..problem.inputs.len()).map(|row| self.target(problem.goal, row)).collect::<Result<_, _>>()?;
        show(problem, self.generator.make(problem.inputs, &targets)?.points)
    }
}

/// A generator that is told nothing, learned for one aim.
pub(super) struct PlainGenerator {
    pub(super) info: AttackInfo,
    pub(super) generator: Generator,
    /// The one class it sends to; `None` for away from the true one.
    pub(super) target: Option<Label>,
}

impl Attack for PlainGenerator {
    fn info(&self) -> AttackInfo {
        self.info
    }

    /// Costs one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        check_shape(problem, self.generator.threat.domain().shape())?;
        for row in 0..problem.inputs.len() {
            let wanted = aim(problem.goal, row);
            if wanted.is_some() && wanted != self.target {
                return Err(Error::unsupported(
                    format!("{} for this goal", self.info.name),
                    "it was learned for another target; fit it on such a goal",
                ));
            }
        }
        let Generator { form, threat, .. } = &self.generator;
        let threat = if *form == Form::Full { problem.threat } else { threat };
        show(problem, self.generator.make_within(threat, problem.inputs, &[])?.points)
    }
}

/// What a goal names for one row, if anything; findings stand for classes.
fn aim(goal: &Goal, row: usize) -> Option<Label> {
    match goal {
        Goal::Targeted { targets, .. } => Some(targets[row].clone()),
        Goal::FalsePositive { finding } => Some(Label::Class(*finding)),
        Goal::Untargeted { .. } | Goal::FalseNegative { .. } => None,
    }
}

/// The one target of all rows; `None` where the goal names none.
pub(super) fn one_aim(attack: &str, problem: &AttackProblem<'_>) -> Result<Option<Label>, Error> {
    let first = aim(problem.goal, 0);
    if (1..problem.inputs.len()).any(|row| aim(problem.goal, row) != first) {
        return Err(Error::unsupported(
            format!("{attack} with several targets"),
            "it learns one; fit one for each, or use angri or atn, which are told the target",
        ));
    }
    Ok(first)
}

/// Projects the points onto the threat model of the problem and looks at them.
fn show(problem: &AttackProblem<'_>, mut points: Samples) -> Result<Perturbation, Error> {
    problem.threat.project(problem.inputs, &mut points);
    let mut active = ActiveSet::new(problem);
    look(problem, &mut active, &points)?;
    Ok(active.finish(&points))
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::fit::FitAttack;
    use nocebo_core::{DifferentiableModel, Domain, Norm};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    /// The toy samples with a positive logit, all of which one change can flip.
    fn positive() -> Samples {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let rows: Vec<usize> = (0..samples.len()).filter(|&row| model.logits(samples.row(row))[0] > 0.0).collect();
        assert!(rows.len() > 2);
        samples.select(&rows)
    }

    /// What `fit` learns against a linear model flips every sample at `factor` times the greatest least change; its change
    /// points where the optimum does and gains `share` of what that gains; noise of the same size flips few.
    pub(crate) fn beats_noise(fit: &dyn FitAttack, norm: Norm, factor: f64, share: f64) {
        let (model, samples) = (suite::linear_binary(), positive());
        let most = (0..samples.len()).map(|row| model.least_change(norm, samples.row(row))).fold(0.0, f64::max);
        let labels = suite::decided(&model, &samples);
        let goal = Goal::Targeted { targets: vec![Label::Class(0); labels.len()], labels };
        let threat = ThreatModel::new(norm, (factor * most) as f32, suite::ct_domain()).unwrap();
        let attack = fit.fit(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(2)).unwrap();
        assert!(outcome.success.iter().all(|done| *done), "{norm}: {:?}", outcome.success);
        let weights = &model.layer().0[0];
        for (clean, point) in samples.rows().zip(outcome.perturbed_inputs.rows()) {
            let gained: f64 =
                clean.iter().zip(point).zip(weights).map(|((x, y), w)| f64::from(x - y) * f64::from(*w)).sum();
            let best = norm.dual(weights) * f64::from(threat.epsilon());
            assert!(gained > share * best, "{norm}: {gained} of {best}");
            let cosine = gained / Norm::L2.distance(clean, point) / Norm::L2.dual(weights);
            assert!(cosine > 0.6, "{norm}: {cosine}");
        }
        let noise = crate::catalogue::build("noise", toml::Table::new()).unwrap();
        let control = noise.run(&model, &samples, &goal, &threat, Seed(2)).unwrap();
        let flipped = control.success.iter().filter(|done| **done).count();
        assert!(2 * flipped < samples.len(), "{norm}: noise flips {flipped} of {}", samples.len());
    }

    /// The properties of the common suite that do not ask for success, on an attack learned with a wide budget.
    pub(crate) fn mechanics(fit: &dyn FitAttack) {
        mechanics_after(
            fit,
            &Goal::Untargeted { labels: suite::decided(&suite::linear_binary(), &suite::ct_samples()) },
        );
    }

    /// [`mechanics`] after learning this goal.
    pub(crate) fn mechanics_after(fit: &dyn FitAttack, goal: &Goal) {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let threat = ThreatModel::new(fit.info().norms[0], 300.0, suite::ct_domain()).unwrap();
        let attack = fit.fit(&model, &samples, goal, &threat, Seed(1)).unwrap();
        assert_eq!(suite::check_mechanics(&*attack), Ok(()));
        let other = Samples::zeros(2, &[12]).unwrap();
        let domain = Domain::grey_levels(&[12], 9.0).unwrap();
        let flat = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![vec![1.0; 12]], vec![-1.0]);
        let goal = Goal::Untargeted { labels: vec![Label::Class(0); 2] };
        let threat = ThreatModel::new(fit.info().norms[0], 1.0, domain).unwrap();
        assert!(attack.run(&flat, &other, &goal, &threat, Seed(1)).is_err(), "another shape");
    }

    /// Mean L2 length of the change that `fit` learns within a wide budget.
    pub(crate) fn mean_change(fit: &dyn FitAttack) -> f64 {
        let (model, samples) = (suite::linear_binary(), positive());
        let (learned, asked) = (Goal::FalsePositive { finding: 0 }, Goal::FalseNegative { finding: 1 });
        let threat = ThreatModel::new(Norm::Linf, 300.0, suite::ct_domain()).unwrap();
        let attack = fit.fit(&model, &samples, &learned, &threat, Seed(1)).unwrap();
        let outcome = attack.run(&model, &samples, &asked, &threat, Seed(2)).unwrap();
        let lengths = samples.rows().zip(outcome.perturbed_inputs.rows()).map(|(x, y)| Norm::L2.distance(x, y));
        lengths.sum::<f64>() / samples.len() as f64
    }

    /// What `fit` learns without a named target sends samples to any class.
    pub(crate) fn reaches_each_target(fit: &dyn FitAttack) {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let labels = suite::decided(&model, &samples);
        let threat = ThreatModel::new(Norm::Linf, 600.0, suite::ct_domain()).unwrap();
        let goal = Goal::Untargeted { labels: labels.clone() };
        let fitted = fit.fit(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        let run = |rows: &[usize], goal: &Goal| {
            let outcome = fitted.run(&model, &samples.select(rows), goal, &threat, Seed(1)).unwrap();
            outcome.success.iter().all(|done| *done)
        };
        assert!(run(&(0..8).collect::<Vec<_>>(), &goal));
        for class in 0..4 {
            let rows: Vec<usize> = (0..samples.len()).filter(|&row| labels[row] != Label::Class(class)).collect();
            let own: Vec<Label> = rows.iter().map(|&row| labels[row].clone()).collect();
            let goal = Goal::Targeted { targets: vec![Label::Class(class); own.len()], labels: own };
            assert!(run(&rows, &goal), "class {class}");
        }
        let one = Goal::FalsePositive { finding: 2 };
        let fitted = fit.fit(&model, &samples, &one, &threat, Seed(1)).unwrap();
        assert!(fitted.run(&model, &samples, &one, &threat, Seed(1)).is_ok());
        let other = fitted.run(&model, &samples, &Goal::FalsePositive { finding: 3 }, &threat, Seed(1));
        assert!(other.unwrap_err().to_string().contains("was not learned"));
    }

    /// Targets of a multi-label task are no classes.
    pub(crate) fn refuses_findings(fit: &dyn FitAttack) {
        let task = Task::MultiLabel { thresholds: vec![0.0, 0.0] };
        let model = Linear::new(suite::ct_domain(), task, vec![vec![1.0; 12], vec![-1.0; 12]], vec![0.0; 2]);
        let samples = suite::ct_samples();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 10.0, suite::ct_domain()).unwrap();
        let model: &dyn DifferentiableModel = &model;
        assert!(matches!(fit.fit(model, &samples, &goal, &threat, Seed(1)), Err(Error::Unsupported { .. })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generative::{angri::Angri, networks};
    use nocebo_core::{Norm, Oracle};
    use nocebo_testkit::suite;

    #[test]
    fn the_class_that_was_learned_best_is_taken_where_none_is_named() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let (oracle, goal) = (Oracle::new(&model, None), Goal::FalsePositive { finding: 0 });
        let threat = ThreatModel::new(Norm::Linf, 10.0, suite::ct_domain()).unwrap();
        let problem = AttackProblem { oracle: &oracle, inputs: &samples, goal: &goal, threat: &threat, seed: Seed(1) };
        let generator = Generator::new(&problem, &networks::testing::tiny(), Form::Perturbation, 4).unwrap();
        let attack = TargetedGenerator { info: Angri::INFO, generator, learned: vec![(0, 0.2), (1, 0.9), (2, 0.9)] };
        let away = |class| Goal::Untargeted { labels: vec![Label::Class(class)] };
        assert_eq!([attack.target(&away(3), 0), attack.target(&away(1), 0)].map(Result::unwrap), [1, 2]);
        assert_eq!(attack.target(&Goal::FalseNegative { finding: 1 }, 0).unwrap(), 2);
        assert_eq!(attack.target(&goal, 0).unwrap(), 0);
        assert!(attack.target(&Goal::FalsePositive { finding: 3 }, 0).is_err());
    }

    #[test]
    fn a_batch_has_no_sample_twice_and_all_have_their_turn() {
        let mut seen = [0; 10];
        for step in 0..50 {
            let mut rows = batch(Seed(1), 10, 4, step);
            rows.iter().for_each(|&row| seen[row] += 1);
            rows.sort_unstable();
            rows.dedup();
            assert_eq!(rows.len(), 4);
        }
        assert!(seen.iter().all(|count| (8..35).contains(count)), "{seen:?}");
        assert_eq!(batch(Seed(1), 3, 4, 0).len(), 3);
    }
}
