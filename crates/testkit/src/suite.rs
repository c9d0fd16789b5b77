//! The common suite over all attacks.
//!
//! [`check`] returns the first property that an attack breaks, so that the suite itself can be tested: a no-op, a
//! wrong-sign and an out-of-ball attack must each fail it.

use std::fmt;

use nocebo_core::{
    Attack, AttackInfo, AttackOutcome, AttackProblem, BlackBox, DifferentiableModel, Domain, DomainConfig, Error,
    Field, Goal, Knowledge, Label, Model, Norm, Perturbation, Samples, Seed, Task, ThreatModel, Unit,
};

use crate::models::{Constant, Linear, Quadratic, SmallRelu};

/// How strong an attack claims to be on the toy models.
#[derive(Clone, Copy, Debug)]
pub struct Strength {
    /// The attack must succeed on every sample of a linear model with two classes at this multiple of the least change
    /// (at least 1), and of one with four classes at this multiple of the change that reaches the farthest class.
    pub linear: f32,
    /// Whether it must also succeed with a target, a false negative and a false positive.
    pub goals: bool,
}

impl Strength {
    /// For an attack whose last step uses the exact linear optimum: within 1 %.
    pub const EXACT: Self = Self { linear: 1.01, goals: true };
}

/// An attack in some of its norms, for attacks whose strength differs between them.
pub struct Only<'a>(pub &'a dyn Attack, pub &'static [Norm]);

impl Attack for Only<'_> {
    fn info(&self) -> AttackInfo {
        AttackInfo { norms: self.1, ..self.0.info() }
    }

    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        self.0.perturb(problem)
    }
}

/// A property that an attack breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Runs `attack` against every property of the suite, in each norm that it names.
///
/// # Errors
///
/// The first property that does not hold, in words.
pub fn check(attack: &dyn Attack, strength: Strength) -> Result<(), Broken> {
    let info = attack.info();
    require(!info.norms.is_empty(), || "names at least one norm".to_owned())?;
    for &norm in info.norms {
        stays_inside(attack, norm)?;
        changes_nothing_at_epsilon_zero(attack, norm)?;
        does_not_depend_on_the_batch(attack, norm)?;
        respects_the_query_limit(attack, norm)?;
        refuses_a_broken_model(attack, norm)?;
        survives_a_zero_gradient(attack, norm)?;
        leaves_already_wrong_samples_alone(attack, norm)?;
        if info.knowledge != Knowledge::Gradients {
            asks_for_no_gradient(attack, norm)?;
        }
        if info.knowledge != Knowledge::None {
            crosses_a_linear_boundary(attack, norm, strength)?;
            reaches_each_goal(attack, norm, strength)?;
        }
    }
    if info.knowledge != Knowledge::None && info.norms.contains(&Norm::L2) {
        crosses_a_curved_boundary(attack, strength)?;
    }
    Ok(())
}

/// Sizes in Hounsfield units, so that an attack that assumes [0, 1] or grey levels shows.
pub fn ct_domain() -> Domain {
    DomainConfig {
        shape: vec![1, 3, 4],
        unit: Unit::Hounsfield,
        lower: Field::Uniform(-1024.0),
        upper: Field::Uniform(3071.0),
        resolution: Field::Uniform(1.0),
        region: None,
    }
    .try_into()
    .expect("the domain is written out above")
}

/// Eight samples well inside the bounds of [`ct_domain`].
pub fn ct_samples() -> Samples {
    let values = (0..8 * 12).map(|at| ((at * 7919) % 401) as f32 - 200.0).collect();
    Samples::new(values, &[1, 3, 4]).expect("the values fill whole samples")
}

/// Four classes over [`ct_domain`], with weights of mixed sign and size.
pub fn linear_classifier() -> Linear {
    let weights =
        (0..4).map(|class| (0..12).map(|at| (((class * 12 + at) * 31 + 7) % 17) as f32 / 8.0 - 1.0).collect());
    Linear::new(ct_domain(), Task::MultiClass { classes: 4 }, weights.collect(), vec![0.1, -0.2, 0.3, 0.0])
}

/// Two classes over [`ct_domain`].
pub fn linear_pair() -> Linear {
    let weights =
        (0..2).map(|class| (0..12).map(|at| (((class * 12 + at) * 31 + 7) % 17) as f32 / 8.0 - 1.0).collect());
    Linear::new(ct_domain(), Task::MultiClass { classes: 2 }, weights.collect(), vec![0.1, -0.2])
}

/// One logit over [`ct_domain`].
pub fn linear_binary() -> Linear {
    let weights = vec![(0..12).map(|at| ((at * 5 + 3) % 11) as f32 / 5.0 - 1.1).collect()];
    Linear::new(ct_domain(), Task::Binary { threshold: 0.0 }, weights, vec![0.4])
}

/// A small network with one hidden layer over [`ct_domain`], three classes.
pub fn small_relu() -> SmallRelu {
    let unit = |seed: usize, at: usize| (((seed * 37 + at) * 29 + 11) % 23) as f32 / 11.0 - 1.0;
    let hidden = (0..10).map(|unit_at| (0..12).map(|at| unit(unit_at, at) / 100.0).collect()).collect();
    let head = (0..3).map(|class| (0..10).map(|at| unit(class + 20, at)).collect()).collect();
    let hidden_domain = Domain::grey_levels(&[10], 1e6).expect("a positive range");
    SmallRelu::new(
        Linear::new(ct_domain(), Task::MultiClass { classes: 10 }, hidden, vec![0.2; 10]),
        Linear::new(hidden_domain, Task::MultiClass { classes: 3 }, head, vec![0.0; 3]),
    )
}

/// What the model decides on each sample: the labels of a problem in which nothing is wrong yet.
///
/// # Panics
///
/// When the model fails on its own samples.
pub fn decided(model: &dyn Model, samples: &Samples) -> Vec<Label> {
    let outputs = model.outputs(samples).expect("a toy model answers");
    outputs.rows().map(|logits| model.spec().task.decide(logits)).collect()
}

/// A budget that is large for the toy models, in each norm.
fn wide(norm: Norm) -> f32 {
    match norm {
        Norm::L0 => 6.0,
        Norm::L1 => 1500.0,
        Norm::L2 => 600.0,
        Norm::Linf => 250.0,
    }
}

fn threat(norm: Norm, epsilon: f32) -> ThreatModel {
    ThreatModel::new(norm, epsilon, ct_domain()).expect("epsilon is not negative")
}

fn run(
    attack: &dyn Attack,
    model: &dyn DifferentiableModel,
    samples: &Samples,
    goal: &Goal,
    threat: &ThreatModel,
) -> Result<AttackOutcome, Broken> {
    attack
        .run(model, samples, goal, threat, Seed(11))
        .map_err(|error| Broken(format!("{} in {}: {error}", attack.info().name, threat.norm())))
}

fn require(holds: bool, property: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(property())) }
}

fn untargeted(model: &dyn Model, samples: &Samples) -> Goal {
    Goal::Untargeted { labels: decided(model, samples) }
}

fn stays_inside(attack: &dyn Attack, norm: Norm) -> Result<(), Broken> {
    let model = small_relu();
    let samples = ct_samples();
    let region: Vec<bool> = (0..12).map(|at| at % 5 != 0).collect();
    for domain in [ct_domain(), ct_domain().with_region(region).map_err(|error| Broken(error.to_string()))?] {
        let allowed = ThreatModel::new(norm, wide(norm), domain).map_err(|error| Broken(error.to_string()))?;
        let outcome = run(attack, &model, &samples, &untargeted(&model, &samples), &allowed)?;
        for (clean, point) in samples.rows().zip(outcome.perturbed_inputs.rows()) {
            require(allowed.allows(clean, point), || {
                format!("{norm}: stays in ball, bounds and region, but {point:?}")
            })?;
        }
        let outputs = model.outputs(&outcome.perturbed_inputs).map_err(|error| Broken(error.to_string()))?;
        let reached = untargeted(&model, &samples).reached(&model.spec().task, &outputs);
        require(reached == outcome.success, || format!("{norm}: claims success exactly where a fresh pass sees it"))?;
    }
    Ok(())
}

fn changes_nothing_at_epsilon_zero(attack: &dyn Attack, norm: Norm) -> Result<(), Broken> {
    let (model, samples) = (linear_classifier(), ct_samples());
    let outcome = run(attack, &model, &samples, &untargeted(&model, &samples), &threat(norm, 0.0))?;
    require(outcome.perturbed_inputs == samples, || format!("{norm}: returns the clean samples at epsilon 0"))?;
    require(!outcome.success.contains(&true), || format!("{norm}: claims nothing at epsilon 0"))
}

fn does_not_depend_on_the_batch(attack: &dyn Attack, norm: Norm) -> Result<(), Broken> {
    let (model, samples) = (small_relu(), ct_samples());
    let goal = untargeted(&model, &samples);
    let allowed = threat(norm, wide(norm) / 4.0);
    let whole = run(attack, &model, &samples, &goal, &allowed)?;
    let orders: [&[usize]; 4] = [&[0, 1, 2], &[7, 3, 5, 1], &[6], &[7, 6, 5, 4, 3, 2, 1, 0]];
    for rows in orders {
        let part = run(attack, &model, &samples.select(rows), &goal.select(rows), &allowed)?;
        for (position, &row) in rows.iter().enumerate() {
            let same = part.perturbed_inputs.row(position) == whole.perturbed_inputs.row(row)
                && part.success[position] == whole.success[row]
                && part.queries[position] == whole.queries[row];
            require(same, || format!("{norm}: sample {row} does not depend on the rest of its batch {rows:?}"))?;
        }
    }
    Ok(())
}

fn respects_the_query_limit(attack: &dyn Attack, norm: Norm) -> Result<(), Broken> {
    let (model, samples) = (linear_classifier(), ct_samples());
    let goal = untargeted(&model, &samples);
    for limit in [0, 1, 2, 3, 7, 20] {
        let outcome = run(attack, &model, &samples, &goal, &threat(norm, wide(norm) / 100.0).with_query_limit(limit))?;
        let most = outcome.queries.iter().map(|spent| spent.forward).max().unwrap_or(0);
        require(most <= limit, || format!("{norm}: spends at most {limit} queries, but {most}"))?;
    }
    Ok(())
}

fn refuses_a_broken_model(attack: &dyn Attack, norm: Norm) -> Result<(), Broken> {
    let samples = ct_samples();
    let broken = Constant::new(ct_domain(), vec![0.0, f32::NAN, 1.0]);
    let goal = Goal::Untargeted { labels: vec![Label::Class(0); samples.len()] };
    let answer = attack.run(&broken, &samples, &goal, &threat(norm, wide(norm)), Seed(1));
    require(matches!(answer, Err(Error::NonFinite { .. })), || format!("{norm}: a model that answers NaN is an error"))
}

/// An attack that says it needs no gradient finds the same against a model that has none.
fn asks_for_no_gradient(attack: &dyn Attack, norm: Norm) -> Result<(), Broken> {
    let samples = ct_samples();
    let goal = untargeted(&linear_classifier(), &samples);
    let allowed = threat(norm, wide(norm) / 4.0);
    let open = run(attack, &linear_classifier(), &samples, &goal, &allowed)?;
    let closed = run(attack, &BlackBox(linear_classifier()), &samples, &goal, &allowed)?;
    let gradients = open.queries.iter().any(|spent| spent.backward > 0);
    require(!gradients && open == closed, || format!("{norm}: asks for no gradient, as its knowledge says"))
}

fn survives_a_zero_gradient(attack: &dyn Attack, norm: Norm) -> Result<(), Broken> {
    let samples = ct_samples();
    let flat = Constant::new(ct_domain(), vec![0.0, 2.0, 1.0, -1.0]);
    let outcome = run(attack, &flat, &samples, &untargeted(&flat, &samples), &threat(norm, wide(norm)))?;
    require(!outcome.success.contains(&true), || format!("{norm}: claims nothing against a constant model"))
}

fn leaves_already_wrong_samples_alone(attack: &dyn Attack, norm: Norm) -> Result<(), Broken> {
    let (model, samples) = (linear_classifier(), ct_samples());
    let labels = decided(&model, &samples)
        .into_iter()
        .map(|label| Label::Class(usize::from(label == Label::Class(0))))
        .collect();
    let outcome = run(attack, &model, &samples, &Goal::Untargeted { labels }, &threat(norm, wide(norm)))?;
    require(outcome.perturbed_inputs == samples && !outcome.success.contains(&false), || {
        format!("{norm}: returns samples that are wrong already unchanged, as a success")
    })
}

/// Above the least change times the strength the attack succeeds on every sample, below the least change on none.
///
/// Which of several classes is nearest cannot be seen from one gradient, so with four classes the budget suffices for
/// each of them.
fn crosses_a_linear_boundary(attack: &dyn Attack, norm: Norm, strength: Strength) -> Result<(), Broken> {
    for model in [linear_pair(), linear_binary(), linear_classifier()] {
        let samples = ct_samples();
        for row in 0..samples.len() {
            let sample = samples.select(&[row]);
            let goal = untargeted(&model, &sample);
            let (below, above) = if norm == Norm::L0 {
                (None, (least_l0(&model, sample.row(0)) * strength.linear).floor())
            } else {
                let least = model.least_change(norm, sample.row(0)) as f32;
                let most = match model.spec().task {
                    Task::MultiClass { classes } => (0..classes)
                        .filter(|class| goal != Goal::Untargeted { labels: vec![Label::Class(*class)] })
                        .map(|class| model.least_change_to(norm, sample.row(0), class) as f32)
                        .fold(least, f32::max),
                    _ => least,
                };
                (Some(least * 0.99), most * strength.linear)
            };
            if let Some(below) = below {
                let outcome = run(attack, &model, &sample, &goal, &threat(norm, below))?;
                require(!outcome.success[0], || format!("{norm}: no success below the least change (sample {row})"))?;
            }
            let outcome = run(attack, &model, &sample, &goal, &threat(norm, above))?;
            require(outcome.success[0], || {
                format!(
                    "{norm}: success at {above} on a linear model with {} logits (sample {row})",
                    model.spec().task.outputs()
                )
            })?;
        }
    }
    Ok(())
}

/// The least number of elements that reach the farthest class inside the bounds: the greatest gains first.
fn least_l0(model: &Linear, x: &[f32]) -> f32 {
    let domain = &model.spec().domain;
    let task = &model.spec().task;
    let logits = model.logits(x);
    let rivals: Vec<usize> = match task {
        Task::MultiClass { classes } => (0..*classes).filter(|&class| class != nocebo_core::argmax(&logits)).collect(),
        _ => vec![0],
    };
    let mut worst: f32 = 0.0;
    for rival in rivals {
        // The gain of an element is how far it can move the difference of the two logits, found by trying both ends.
        let difference = |x: &[f32]| {
            let logits_at = model.logits(x);
            match task {
                Task::MultiClass { .. } => logits_at[rival] - logits_at[nocebo_core::argmax(&logits)],
                _ => logits_at[0] * if logits[0] > 0.0 { -1.0 } else { 1.0 },
            }
        };
        let start = difference(x);
        let mut gains: Vec<f32> = (0..x.len())
            .map(|element| {
                [domain.lower()[element], domain.upper()[element]]
                    .map(|end| {
                        let mut moved = x.to_vec();
                        moved[element] = end;
                        difference(&moved) - start
                    })
                    .into_iter()
                    .fold(0.0, f32::max)
            })
            .collect();
        gains.sort_by(|a, b| b.total_cmp(a));
        let sums = gains.iter().scan(start, |sum, gain| {
            *sum += gain;
            Some(*sum)
        });
        worst = worst.max(sums.take_while(|sum| *sum <= 0.0).count() as f32 + 1.0);
    }
    worst
}

fn reaches_each_goal(attack: &dyn Attack, norm: Norm, strength: Strength) -> Result<(), Broken> {
    if !strength.goals {
        return Ok(());
    }
    let (model, samples) = (linear_classifier(), ct_samples());
    let labels = decided(&model, &samples);
    for (row, label) in labels.into_iter().enumerate() {
        let sample = samples.select(&[row]);
        let Label::Class(label) = label else { continue };
        let target = (label + 1) % 4;
        let goals = [
            Goal::Targeted { labels: vec![Label::Class(label)], targets: vec![Label::Class(target)] },
            Goal::FalseNegative { finding: label },
            Goal::FalsePositive { finding: target },
        ];
        // Wide enough for every pair of classes: the whole range of the bounds for L0, ten times the pair's distance else.
        let epsilon = if norm == Norm::L0 {
            12.0
        } else {
            10.0 * model.least_change_to(norm, sample.row(0), target).max(model.least_change(norm, sample.row(0)))
                as f32
        };
        for goal in goals {
            let outcome = run(attack, &model, &sample, &goal, &threat(norm, epsilon))?;
            let outputs = model.outputs(&outcome.perturbed_inputs).map_err(|error| Broken(error.to_string()))?;
            let reached = goal.is_reached(&model.spec().task, 0, outputs.row(0));
            require(outcome.success[0] && reached, || format!("{norm}: reaches {goal:?} on sample {row}"))?;
        }
    }
    Ok(())
}

fn crosses_a_curved_boundary(attack: &dyn Attack, strength: Strength) -> Result<(), Broken> {
    let samples = ct_samples().select(&[1, 2]);
    let centre: Vec<f32> = samples.row(0).iter().map(|value| value + 10.0).collect();
    let radius =
        1.5 * Norm::L2.distance(samples.row(0), &centre).max(Norm::L2.distance(samples.row(1), &centre)) as f32;
    let model = Quadratic::new(ct_domain(), centre, radius);
    for row in 0..samples.len() {
        let sample = samples.select(&[row]);
        let least = model.least_change(sample.row(0)) as f32;
        let goal = untargeted(&model, &sample);
        let held = run(attack, &model, &sample, &goal, &threat(Norm::L2, least * 0.99))?;
        require(!held.success[0], || format!("no success below the least L2 change out of a ball (sample {row})"))?;
        let crossed = run(attack, &model, &sample, &goal, &threat(Norm::L2, least * 1.02 * strength.linear))?;
        require(crossed.success[0], || format!("success out of a ball at {least} times the strength (sample {row})"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::Loss;

    /// A gradient step with a fault that can be switched on.
    struct Step(Fault);

    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        None,
        NoOp,
        WrongSign,
        OutOfBall,
        BatchSize,
        Liar,
        Greedy,
        Peeks,
    }

    impl Attack for Step {
        fn info(&self) -> AttackInfo {
            AttackInfo {
                name: "step",
                title: "One exact Linf step",
                source: "this test",
                family: "test",
                norms: &[Norm::Linf],
                knowledge: if self.0 == Fault::Peeks { Knowledge::Scores } else { Knowledge::Gradients },
                minimum_norm: false,
            }
        }

        fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
            let objective = problem.objective(problem.goal, Loss::Margin)?;
            let mut points = problem.inputs.clone();
            let rounds = if self.0 == Fault::Greedy { 40 } else { 3 };
            for round in 0..rounds {
                let limited = problem.inputs.indices().iter().any(|&sample| problem.oracle.remaining(sample) < 2);
                if self.0 != Fault::Greedy && (limited || round > 0 && self.0 != Fault::None) {
                    break;
                }
                let gradient = problem.oracle.gradient(&points, &objective)?;
                let step = problem.threat.epsilon()
                    * match self.0 {
                        Fault::NoOp => 0.0,
                        Fault::WrongSign => -1.0,
                        Fault::OutOfBall => 1.5,
                        Fault::BatchSize if points.len() > 3 => 0.9,
                        _ => 1.0,
                    };
                for (value, slope) in points.values_mut().iter_mut().zip(gradient.inputs.values()) {
                    *value += if *slope == 0.0 { 0.0 } else { step * slope.signum() };
                }
                if self.0 != Fault::OutOfBall {
                    problem.threat.project(problem.inputs, &mut points);
                }
            }
            let can_look = problem.inputs.indices().iter().all(|&sample| problem.oracle.remaining(sample) > 0);
            let success = if self.0 == Fault::Liar {
                vec![true; points.len()]
            } else if can_look {
                problem.goal.reached(&problem.oracle.spec().task, &problem.oracle.outputs(&points)?)
            } else {
                vec![false; points.len()]
            };
            Ok(Perturbation { inputs: points, success })
        }
    }

    /// One step of full size overshoots a target between other classes.
    const ONE_STEP: Strength = Strength { goals: false, ..Strength::EXACT };

    #[test]
    fn an_exact_step_passes() {
        assert_eq!(check(&Step(Fault::None), ONE_STEP), Ok(()));
    }

    #[test]
    fn each_fault_fails() {
        let faults = [
            Fault::NoOp,
            Fault::WrongSign,
            Fault::OutOfBall,
            Fault::BatchSize,
            Fault::Liar,
            Fault::Greedy,
            Fault::Peeks,
        ];
        let broken = faults.map(|fault| check(&Step(fault), ONE_STEP).unwrap_err().0);
        let expected = ["success at", "success at", "within", "does not depend", "claims", "limit", "gradient"];
        for (broken, expected) in broken.iter().zip(expected) {
            assert!(broken.contains(expected), "{broken}");
        }
    }

    #[test]
    fn the_gradients_of_the_toy_models_agree_with_central_differences() {
        let samples = ct_samples();
        let centre = vec![7.0; 12];
        let models: [&dyn DifferentiableModel; 4] =
            [&linear_classifier(), &linear_binary(), &small_relu(), &Quadratic::new(ct_domain(), centre, 500.0)];
        for model in models {
            let goal = untargeted(model, &samples);
            let objective = nocebo_core::GoalObjective::new(&goal, &model.spec().task, Loss::Margin).unwrap();
            let slopes = model.gradient(&samples, &objective).unwrap().inputs;
            for element in 0..12 {
                let at = |shift: f32| {
                    let mut moved = samples.clone();
                    moved.rows_mut().for_each(|row| row[element] += shift);
                    model.gradient(&moved, &objective).unwrap().values
                };
                for (row, (up, down)) in at(0.25).into_iter().zip(at(-0.25)).enumerate() {
                    let slope = (up - down) / 0.5;
                    assert!((slope - slopes.row(row)[element]).abs() < 2e-2 * slope.abs().max(1.0), "{row} {element}");
                }
            }
        }
    }
}
