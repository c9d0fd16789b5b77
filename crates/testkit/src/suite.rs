//! The common suite over all attacks.
//!
//! [`check`] returns the first property that an attack breaks, so that the suite itself can be tested: a no-op, a
//! wrong-sign and an out-of-ball attack must each fail it, and so must a minimum-norm attack that returns its last point
//! or one far from the least change.

use std::fmt;

use nocebo_core::{
    Attack, AttackInfo, AttackOutcome, AttackProblem, BlackBox, DifferentiableModel, Domain, DomainConfig, Error,
    Field, Goal, Knowledge, Label, MaskTolerance, Model, Norm, Perturbation, Samples, Seed, Segmentation, Task,
    ThreatModel, Unit,
};

use crate::models::{Constant, Linear, Quadratic, Recorder, SmallRelu};

/// How much farther than on a linear model a minimum-norm attack may go on the small network, where a local minimum is not
/// always the least one.
const NETWORK_SLACK: f64 = 1.25;

/// How strong an attack claims to be on the toy models.
#[derive(Clone, Copy, Debug)]
pub struct Strength {
    /// The attack must succeed on every sample of a linear model with two classes at this multiple of the least change
    /// (at least 1), and of one with four classes at this multiple of the change that reaches the farthest class.
    /// Without a budget, a minimum-norm attack must find a change of at most this multiple of the least one.
    pub linear: f32,
    /// Whether it must also succeed with a target, a false negative and a false positive.
    pub goals: bool,
}

impl Strength {
    /// For an attack whose last step uses the exact linear optimum: within 1 %.
    pub const EXACT: Self = Self { linear: 1.01, goals: true };
}

/// An attack in one of its norms, to claim another strength in each.
pub struct InNorm<'a>(pub &'a dyn Attack, pub &'static [Norm]);

impl Attack for InNorm<'_> {
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
    check_common(attack, strength)?;
    if attack.info().minimum_norm { check_minimum_norm(attack, strength) } else { Ok(()) }
}

/// What a minimum-norm attack must do besides [`check_common`], in each norm that it names.
///
/// # Errors
///
/// The first property that does not hold, in words.
pub fn check_minimum_norm(attack: &dyn Attack, strength: Strength) -> Result<(), Broken> {
    let info = attack.info();
    for &norm in info.norms {
        finds_the_least_change(attack, norm, strength)?;
        does_not_depend_on_the_unit(attack, norm)?;
        comes_near_the_truth_on_a_network(attack, norm, strength)?;
        if info.knowledge == Knowledge::Gradients {
            returns_the_nearest_it_saw(attack, norm)?;
        }
    }
    Ok(())
}

/// The properties that every attack must have, in each norm that it names.
///
/// # Errors
///
/// The first property that does not hold, in words.
pub fn check_common(attack: &dyn Attack, strength: Strength) -> Result<(), Broken> {
    check_mechanics(attack)?;
    let info = attack.info();
    if info.knowledge == Knowledge::None {
        return Ok(());
    }
    for &norm in info.norms {
        crosses_a_linear_boundary(attack, norm, strength)?;
        reaches_each_goal(attack, norm, strength)?;
    }
    if info.norms.contains(&Norm::L2) {
        crosses_a_curved_boundary(attack, strength)?;
    }
    Ok(())
}

/// The part of [`check_common`] that asks for no success: for an attack whose strength on the toy models means nothing,
/// such as one that was fitted to another model, or one that moves content instead of values.
///
/// # Errors
///
/// As [`check`].
pub fn check_mechanics(attack: &dyn Attack) -> Result<(), Broken> {
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
    linear_pair_in(ct_domain(), 1.0, 0.1)
}

/// [`linear_pair`] for data in a unit that is so many times greater, and with another bias for class 0.
fn linear_pair_in(domain: Domain, unit: f32, bias: f32) -> Linear {
    let weight = |at: usize| unit * ((at * 31 + 7) % 17) as f32 / 8.0 - unit;
    let weights = (0..2).map(|class| (0..12).map(|at| weight(class * 12 + at)).collect()).collect();
    Linear::new(domain, Task::MultiClass { classes: 2 }, weights, vec![bias, -0.2])
}

/// One logit over [`ct_domain`].
pub fn linear_binary() -> Linear {
    let weights = vec![(0..12).map(|at| ((at * 5 + 3) % 11) as f32 / 5.0 - 1.1).collect()];
    Linear::new(ct_domain(), Task::Binary { threshold: 0.0 }, weights, vec![0.4])
}

/// Two classes at each position of [`ct_domain`]: class 1 where the value is above 0.
pub fn linear_segmentation() -> Linear {
    let slope = |output: usize| if output < 12 { -0.01 } else { 0.01 };
    let weight = |output: usize, at: usize| if at == output % 12 { slope(output) } else { 0.0 };
    let weights = (0..24).map(|output| (0..12).map(|at| weight(output, at)).collect());
    let tolerance = MaskTolerance { right: 0.6, ..MaskTolerance::default() };
    let task = Segmentation { classes: 2, shape: vec![3, 4], threshold: None, tolerance };
    Linear::new(ct_domain(), Task::Segmentation(task), weights.collect(), vec![0.0; 24])
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

/// The least change that alters the decision of [`small_relu`] on a row of [`ct_samples`], for L1 and Linf, as the exact
/// verifier of the attacks proves it.
pub fn small_relu_least_change(norm: Norm, row: usize) -> Option<f64> {
    const L1: [f64; 8] = [36.424249, 36.820316, 42.820317, 48.820317, 54.820318, 60.820318, 66.820319, 72.820319];
    const LINF: [f64; 8] = [8.536934, 11.571318, 13.456905, 15.342492, 17.228079, 19.113666, 20.999253, 22.884841];
    match norm {
        Norm::L1 => Some(L1[row]),
        Norm::Linf => Some(LINF[row]),
        Norm::L0 | Norm::L2 => None,
    }
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

/// Two classes, where the least change is known: without a budget it is found up to the strength, and below it the
/// clean samples come back. For L0 the bounds are narrow and class 0 is far ahead, so that several elements are needed.
fn finds_the_least_change(attack: &dyn Attack, norm: Norm, strength: Strength) -> Result<(), Broken> {
    let domain = if norm == Norm::L0 { ct_domain_between(-220.0, 220.0, 1.0)? } else { ct_domain() };
    let threat = |epsilon| ThreatModel::new(norm, epsilon, domain.clone()).map_err(|error| Broken(error.to_string()));
    let models = if norm == Norm::L0 {
        vec![linear_pair_in(domain.clone(), 1.0, 400.0), linear_pair_in(domain.clone(), 1.0, 1000.0)]
    } else {
        vec![linear_pair(), linear_binary()]
    };
    for model in models {
        let samples = ct_samples();
        let goal = untargeted(&model, &samples);
        let outcome = run(attack, &model, &samples, &goal, &threat(f32::INFINITY)?)?;
        for (row, clean) in samples.rows().enumerate() {
            let (least, most) = if norm == Norm::L0 {
                let least = least_l0(&model, clean);
                (least, (least * strength.linear).floor())
            } else {
                let least = model.least_change(norm, clean) as f32;
                (least * 0.999, least * strength.linear)
            };
            let found = norm.distance(clean, outcome.perturbed_inputs.row(row)) as f32;
            require(outcome.success[row] && (least..=most).contains(&found), || {
                format!("{norm}: finds a change of {least} to {most} without a budget (sample {row}), but {found}")
            })?;
            let sample = samples.select(&[row]);
            let too_small = if norm == Norm::L0 { least - 1.0 } else { least * 0.9 };
            let held = run(attack, &model, &sample, &goal.select(&[row]), &threat(too_small)?)?;
            require(!held.success[0] && held.perturbed_inputs == sample, || {
                format!("{norm}: returns the clean sample where the least change is too large (sample {row})")
            })?;
        }
    }
    Ok(())
}

/// On a network with a hidden layer no change is smaller than the proven least one, and with gradients none is far above
/// it.
fn comes_near_the_truth_on_a_network(attack: &dyn Attack, norm: Norm, strength: Strength) -> Result<(), Broken> {
    let (model, samples) = (small_relu(), ct_samples());
    let goal = untargeted(&model, &samples);
    let outcome = run(attack, &model, &samples, &goal, &threat(norm, f32::INFINITY))?;
    for (row, clean) in samples.rows().enumerate() {
        let Some(least) = small_relu_least_change(norm, row) else { return Ok(()) };
        let sees = attack.info().knowledge == Knowledge::Gradients;
        let most = if sees { least * f64::from(strength.linear) * NETWORK_SLACK } else { f64::INFINITY };
        let found = norm.distance(clean, outcome.perturbed_inputs.row(row));
        require(outcome.success[row] && (least * 0.9999..=most).contains(&found), || {
            format!("{norm}: finds a change of {least} to {most} on a small network (sample {row}), but {found}")
        })?;
    }
    Ok(())
}

/// [`ct_domain`] with other bounds and another storage step.
fn ct_domain_between(lower: f32, upper: f32, resolution: f32) -> Result<Domain, Broken> {
    let (lower, upper, resolution) = (Field::Uniform(lower), Field::Uniform(upper), Field::Uniform(resolution));
    DomainConfig { lower, upper, resolution, ..ct_domain().config().clone() }
        .try_into()
        .map_err(|error: Error| Broken(error.to_string()))
}

/// The same data in a unit 4096 times greater: the change found is that many times smaller.
fn does_not_depend_on_the_unit(attack: &dyn Attack, norm: Norm) -> Result<(), Broken> {
    const UNIT: f32 = 4096.0;
    let distances = |unit: f32| -> Result<Vec<f64>, Broken> {
        let domain = ct_domain_between(-1024.0 / unit, 3071.0 / unit, 1.0 / unit)?;
        let model = linear_pair_in(domain, unit, 0.1);
        let mut samples = ct_samples();
        samples.values_mut().iter_mut().for_each(|value| *value /= unit);
        let allowed = ThreatModel::new(norm, f32::INFINITY, model.spec().domain.clone())
            .map_err(|error| Broken(error.to_string()))?;
        let outcome = run(attack, &model, &samples, &untargeted(&model, &samples), &allowed)?;
        let unit = if norm == Norm::L0 { 1.0 } else { f64::from(unit) };
        let pairs = samples.rows().zip(outcome.perturbed_inputs.rows());
        Ok(pairs.map(|(clean, point)| norm.distance(clean, point) * unit).collect())
    };
    for (row, (small, great)) in distances(1.0)?.into_iter().zip(distances(UNIT)?).enumerate() {
        require((small - great).abs() <= 0.01 * small, || {
            format!("{norm}: does not depend on the unit (sample {row}), but finds {small} and {great}")
        })?;
    }
    Ok(())
}

/// Of all points that the attack asked about and that reach the goal, it returns the nearest: the best, not the last.
fn returns_the_nearest_it_saw(attack: &dyn Attack, norm: Norm) -> Result<(), Broken> {
    let (linear, relu, samples) = (linear_classifier(), small_relu(), ct_samples());
    let models: [&dyn DifferentiableModel; 2] = [&linear, &relu];
    for model in models {
        let goal = untargeted(model, &samples);
        let allowed = threat(norm, f32::INFINITY);
        let recorder = Recorder::new(model);
        let outcome = run(attack, &recorder, &samples, &goal, &allowed)?;
        let asked = recorder.into_asked();
        for (row, (clean, &sample)) in samples.rows().zip(samples.indices()).enumerate() {
            let nearest = asked
                .iter()
                .filter(|asked| asked.sample == sample && allowed.allows(clean, &asked.point))
                .filter(|asked| goal.is_reached(&model.spec().task, row, &asked.logits))
                .map(|asked| norm.distance(clean, &asked.point))
                .fold(f64::INFINITY, f64::min);
            let found = norm.distance(clean, outcome.perturbed_inputs.row(row));
            require(outcome.success[row] == nearest.is_finite(), || {
                format!("{norm}: claims success where it saw one (sample {row})")
            })?;
            require(!outcome.success[row] || found <= nearest, || {
                format!("{norm}: returns the nearest point it saw succeed (sample {row}), at {nearest}, but {found}")
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{GoalKind, Loss};

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
                goals: GoalKind::ALL,
                knowledge: if self.0 == Fault::Peeks { Knowledge::Scores } else { Knowledge::Gradients },
                cost: "3 gradients, 1 query",
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
        assert_eq!(check_mechanics(&Step(Fault::NoOp)), Ok(()));
        assert!(check_mechanics(&Step(Fault::OutOfBall)).is_err() && check_mechanics(&Step(Fault::Liar)).is_err());
    }

    /// Looks at two multiples of the linear least change and keeps the nearer, with a fault that can be switched on.
    struct Multiples(MinimumNormFault);

    #[derive(Clone, Copy, PartialEq)]
    enum MinimumNormFault {
        None,
        Far,
        Last,
        Projected,
        GreyLevels,
    }

    impl Attack for Multiples {
        fn info(&self) -> AttackInfo {
            AttackInfo { name: "multiples", title: "Two exact steps", minimum_norm: true, ..Step(Fault::None).info() }
        }

        fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
            let (inputs, threat) = (problem.inputs, problem.threat);
            let mut found = inputs.clone();
            let mut success = vec![false; inputs.len()];
            if problem.oracle.remaining(inputs.indices()[0]) < 4 {
                return Ok(Perturbation { inputs: found, success });
            }
            let objective = problem.objective(problem.goal, Loss::Margin)?;
            let gradient = problem.oracle.gradient(inputs, &objective)?;
            for multiple in if self.0 == MinimumNormFault::Far { [1.3, 1.4] } else { [1.002, 1.005] } {
                let mut points = inputs.clone();
                for (row, point) in points.rows_mut().enumerate() {
                    let slopes = gradient.inputs.row(row);
                    let mut size = multiple * f64::from(-gradient.values[row]) / Norm::Linf.dual(slopes).max(1e-12);
                    if self.0 == MinimumNormFault::GreyLevels {
                        size += 1e-3;
                    }
                    for (value, slope) in point.iter_mut().zip(slopes) {
                        *value += if *slope == 0.0 { 0.0 } else { size as f32 * slope.signum() };
                    }
                    Norm::Linf.project(f32::INFINITY, threat.domain(), inputs.row(row), point);
                }
                let reached = problem.goal.reached(&problem.oracle.spec().task, &problem.oracle.outputs(&points)?);
                for row in 0..inputs.len() {
                    let near = threat.allows(inputs.row(row), points.row(row));
                    if reached[row] && near && (!success[row] || self.0 == MinimumNormFault::Last) {
                        found.copy_row(row, &points, row);
                        success[row] = true;
                    } else if !success[row] && self.0 == MinimumNormFault::Projected {
                        threat.project_row(inputs.row(row), points.row_mut(row));
                        found.copy_row(row, &points, row);
                    }
                }
            }
            Ok(Perturbation { inputs: found, success })
        }
    }

    #[test]
    fn a_minimum_norm_attack_that_returns_the_best_passes() {
        assert_eq!(check_minimum_norm(&Multiples(MinimumNormFault::None), ONE_STEP), Ok(()));
    }

    #[test]
    fn each_minimum_norm_fault_fails() {
        let faults =
            [MinimumNormFault::Far, MinimumNormFault::Last, MinimumNormFault::Projected, MinimumNormFault::GreyLevels];
        let broken = faults.map(|fault| check_minimum_norm(&Multiples(fault), ONE_STEP).unwrap_err().0);
        let expected = ["finds a change", "nearest point it saw", "returns the clean sample", "on the unit"];
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
