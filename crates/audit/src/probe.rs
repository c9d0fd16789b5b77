//! Questions put to the model itself: whether its answers can guide an attack at all.

use nocebo_core::{Error, Goal, GoalObjective, Knowledge, Loss, Norm, Objective, Outputs, Samples, Seed};
use rand::RngExt;
use rayon::prelude::*;

use crate::cell::{Cell, Clean};
use crate::evaluate::{Run, attack};

use crate::request::Checked;
use crate::{AuditError, AuditRequest};

/// Samples that the costlier questions are asked about.
const FEW: usize = 32;

/// Random directions in which the model is asked about each of them.
const DIRECTIONS: u64 = 8;

/// Change of the margin that a step along the gradient should bring, as a share of the margin: small enough for a
/// network of piecewise linear units to be linear over it.
const STEP: f64 = 0.02;

/// Length of a random step as a share of the way to the decision boundary that the gradient foretells. In Linf a random
/// step can then change the margin of a linear model by no more than the same share.
const RANDOM_STEP: f64 = 0.05;

/// What the model answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Probe {
    /// Samples asked about: those that will be attacked.
    pub(crate) probed: usize,
    /// Samples for which a second answer differed from the first.
    pub(crate) changing_answers: usize,
    /// Samples asked about alone.
    pub(crate) asked_alone: usize,
    /// Samples for which the answer alone differed from that among the others.
    pub(crate) changing_alone: usize,
    /// Whether every row of outputs is in [0, 1] and sums to 1.
    pub(crate) looks_like_softmax: bool,
    /// What the gradients showed; none where the model gives no gradients.
    pub(crate) gradients: Option<GradientProbe>,
    /// How far the gradients foretell what happens; none where there are none, or all are zero.
    pub(crate) steps: Option<StepProbe>,
    /// What attacks without a budget reached; none where no attack with gradients was run.
    pub(crate) unlimited: Option<UnlimitedProbe>,
}

/// Samples whose gradient cannot guide an attack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GradientProbe {
    /// The gradient of the margin is zero everywhere.
    pub(crate) zero_margin: usize,
    /// The gradient of the cross-entropy is zero everywhere, that of the margin is not.
    pub(crate) zero_cross_entropy: usize,
    /// The gradient is not finite.
    pub(crate) not_finite: usize,
}

/// Small steps around samples whose margin has a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StepProbe {
    /// Samples asked about.
    pub(crate) samples: usize,
    /// Samples whose margin changes by less than half or more than twice of what the gradient foretells.
    pub(crate) wrong: usize,
    /// Mean relative change of the margin over short random steps, each cut at 1.
    pub(crate) unsteadiness: f64,
}

/// What attacks reached when every change within the bounds was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnlimitedProbe {
    /// Norm that they worked in.
    pub(crate) norm: Norm,
    /// Samples asked about.
    pub(crate) samples: usize,
    /// Samples that fell, with a budget or without.
    pub(crate) fallen: usize,
}

/// Asks the model about the samples that will be attacked.
pub(crate) fn probe(checked: &Checked<'_>, outputs: &Outputs, clean: &Clean) -> Result<Probe, AuditError> {
    let positions = clean.attacked();
    let batches: Vec<Result<(usize, Option<GradientProbe>), Error>> = positions
        .par_chunks(checked.request.settings.batch_size)
        .map(|positions| probe_batch(checked, outputs, positions))
        .collect();
    let width = checked.request.model.spec().task.outputs();
    let mut found = Probe {
        probed: positions.len(),
        changing_answers: 0,
        looks_like_softmax: width > 1 && outputs.rows().all(is_distribution),
        gradients: (!positions.is_empty()).then(GradientProbe::default),
        ..Probe::default()
    };
    for batch in batches {
        let (changing, gradients) = batch?;
        found.changing_answers += changing;
        found.gradients = found.gradients.zip(gradients).map(|(sum, next)| GradientProbe {
            zero_margin: sum.zero_margin + next.zero_margin,
            zero_cross_entropy: sum.zero_cross_entropy + next.zero_cross_entropy,
            not_finite: sum.not_finite + next.not_finite,
        });
    }
    for &position in positions.iter().take(FEW) {
        let alone = checked.request.model.outputs(&checked.request.data.samples.select(&[position]))?;
        found.asked_alone += 1;
        found.changing_alone += usize::from(alone.row(0) != outputs.row(position));
    }
    if found.gradients.is_some_and(|gradients| gradients.not_finite == 0) {
        found.steps = steps(checked, &positions[..positions.len().min(FEW)])?;
    }
    Ok(found)
}

/// Asks again once the attacks are over, and lets them loose without a budget on samples that held.
pub(crate) fn probe_afterwards(
    checked: &Checked<'_>,
    outputs: &Outputs,
    clean: &Clean,
    cells: &[Cell],
    probe: &mut Probe,
) -> Result<(), AuditError> {
    let AuditRequest { model, data, attacks, settings, .. } = checked.request;
    let few: Vec<usize> = clean.attacked().into_iter().take(FEW).collect();
    if few.is_empty() {
        return Ok(());
    }
    let again = model.outputs(&data.samples.select(&few))?;
    let changed = few.iter().enumerate().filter(|(row, position)| again.row(*row) != outputs.row(**position)).count();
    probe.changing_answers = probe.changing_answers.max(changed);

    let Some(norm) = checked.threats.first().map(|threat| threat.norm) else { return Ok(()) };
    let white_box: Vec<_> = attacks
        .iter()
        .filter(|entry| {
            let info = entry.info();
            let strong = info.knowledge == Knowledge::Gradients && entry.learned_from().is_none();
            strong && info.norms.contains(&norm) && entry.wanted_in(norm) && !entry.is_control()
        })
        .collect();
    if white_box.is_empty() {
        return Ok(());
    }
    let fell = |position: &usize| cells.iter().any(|cell| cell.norm == norm && !cell.control && cell.fell(*position));
    let mut holding: Vec<usize> = few.iter().copied().filter(|position| !fell(position)).collect();
    let epsilon = norm.greatest_distance(&data.domain);
    for entry in white_box {
        let run = Run::new(entry, norm, epsilon, vec![epsilon]);
        let batches: Vec<Result<Vec<bool>, Error>> = holding
            .par_chunks(settings.batch_size)
            .map(|positions| {
                let (rows, _) = attack(checked, &run, positions, &())?;
                Ok(rows.iter().map(|row| row.iter().any(crate::Attacked::fell)).collect())
            })
            .collect();
        let mut fallen = Vec::new();
        for batch in batches {
            fallen.extend(batch.map_err(|source| AuditError::Attack {
                attack: entry.name.clone(),
                norm,
                epsilon,
                source,
            })?);
        }
        let mut fallen = fallen.into_iter();
        holding.retain(|_| !fallen.next().unwrap_or(false));
    }
    probe.unlimited = Some(UnlimitedProbe { norm, samples: few.len(), fallen: few.len() - holding.len() });
    Ok(())
}

/// Compares what the margin does over small steps with what its gradient foretells.
fn steps(checked: &Checked<'_>, positions: &[usize]) -> Result<Option<StepProbe>, AuditError> {
    let AuditRequest { model, data, settings, .. } = checked.request;
    let task = &model.spec().task;
    let inputs = data.samples.select(positions);
    let goal = checked.goal.select(positions);
    let margin = GoalObjective::new(&goal, task, Loss::Margin)?;
    let gradient = model.gradient(&inputs, &margin)?;

    let mut points = inputs.clone();
    let mut foretold = vec![0.0; positions.len()];
    let mut reach = vec![0.0; positions.len()];
    for row in 0..positions.len() {
        let slopes = gradient.inputs.row(row);
        let steepness: f64 = slopes.iter().map(|slope| f64::from(slope.abs())).sum();
        let greatest = gradient.outputs.row(row).iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
        if steepness == 0.0 {
            continue;
        }
        let distance = f64::from(gradient.values[row].abs()) / steepness;
        reach[row] = distance.min(f64::from(data.domain.range()));
        // A thousandth of the logits can still be told from rounding.
        let step =
            (STEP * distance).max(1e-3 * f64::from(greatest) / steepness).min(f64::from(data.domain.range()) / 4.0);
        for (element, value) in points.row_mut(row).iter_mut().enumerate() {
            let (before, slope) = (*value, slopes[element]);
            let moved = (f64::from(before) + step * f64::from(sign(slope))) as f32;
            if (data.domain.lower()[element]..=data.domain.upper()[element]).contains(&moved) {
                *value = moved;
                foretold[row] += f64::from(slope) * (f64::from(moved) - f64::from(before));
            }
        }
    }
    let asked: Vec<usize> = (0..positions.len()).filter(|&row| foretold[row] > 0.0).collect();
    if asked.is_empty() {
        return Ok(None);
    }
    let mut found = StepProbe { samples: asked.len(), ..StepProbe::default() };
    let moved = margins(checked, &goal, &points)?;
    for &row in &asked {
        let change = f64::from(moved[row]) - f64::from(gradient.values[row]);
        found.wrong += usize::from(!(0.5..=2.0).contains(&(change / foretold[row])));
    }
    let mut changes = 0.0;
    for direction in 0..DIRECTIONS {
        let seed = settings.seed.named("steadiness").stream(direction);
        let moved = margins(checked, &goal, &shaken(&inputs, &reach, seed, checked))?;
        for &row in &asked {
            let margin = f64::from(gradient.values[row]);
            let change = (f64::from(moved[row]) - margin).abs() / margin.abs().max(f64::from(f32::MIN_POSITIVE));
            changes += if change.is_nan() { 1.0 } else { change.min(1.0) };
        }
    }
    found.unsteadiness = changes / (asked.len() as f64 * DIRECTIONS as f64);
    Ok(Some(found))
}

/// Every element moved by a short step up or down, inside the bounds.
fn shaken(inputs: &Samples, reach: &[f64], seed: Seed, checked: &Checked<'_>) -> Samples {
    let domain = &checked.request.data.domain;
    let mut points = inputs.clone();
    for (row, reach) in reach.iter().enumerate() {
        let mut generator = seed.for_sample(inputs.indices()[row]);
        for (element, value) in points.row_mut(row).iter_mut().enumerate() {
            let length = (RANDOM_STEP * reach) as f32;
            let moved = if generator.random::<bool>() { *value + length } else { *value - length };
            *value = moved.clamp(domain.lower()[element], domain.upper()[element]);
        }
    }
    points
}

fn margins(checked: &Checked<'_>, goal: &Goal, points: &Samples) -> Result<Vec<f32>, AuditError> {
    let model = checked.request.model;
    let task = &model.spec().task;
    let margin = GoalObjective::new(goal, task, Loss::Margin)?;
    let mut cotangent = vec![0.0; task.outputs()];
    let outputs = model.outputs(points)?;
    let values = outputs.rows().enumerate().map(|(row, logits)| {
        // A logit that is not finite makes the comparison fail, as it should.
        margin.evaluate(row, logits, &mut cotangent)
    });
    Ok(values.collect::<Result<_, _>>()?)
}

fn sign(slope: f32) -> f32 {
    if slope == 0.0 { 0.0 } else { slope.signum() }
}

fn probe_batch(
    checked: &Checked<'_>,
    outputs: &Outputs,
    positions: &[usize],
) -> Result<(usize, Option<GradientProbe>), Error> {
    let AuditRequest { model, data, .. } = checked.request;
    let task = &model.spec().task;
    let inputs = data.samples.select(positions);
    let again = model.outputs(&inputs)?;
    let changed = positions.iter().enumerate().filter(|(row, position)| again.row(*row) != outputs.row(**position));
    let changing = changed.count();
    let goal = checked.goal.select(positions);
    let margin = GoalObjective::new(&goal, task, Loss::Margin)?;
    let cross_entropy = GoalObjective::new(&goal, task, Loss::CrossEntropy)?;
    let gradients = match model.gradients(&inputs, &[&margin, &cross_entropy]) {
        Err(Error::Unsupported { .. }) => return Ok((changing, None)),
        Err(Error::NonFinite { .. }) => {
            let not_finite = positions.len();
            return Ok((changing, Some(GradientProbe { not_finite, ..GradientProbe::default() })));
        }
        gradients => gradients?,
    };
    let [margin, cross_entropy]: [&Samples; 2] = match gradients.as_slice() {
        [margin, cross_entropy] => [&margin.inputs, &cross_entropy.inputs],
        other => return Err(Error::mismatch("gradients of two objectives", 2, other.len())),
    };
    let mut found = GradientProbe::default();
    for (margin, cross_entropy) in margin.rows().zip(cross_entropy.rows()) {
        let zero = |row: &[f32]| row.iter().all(|slope| *slope == 0.0);
        if margin.iter().chain(cross_entropy).any(|slope| !slope.is_finite()) {
            found.not_finite += 1;
        } else if zero(margin) {
            found.zero_margin += 1;
        } else if zero(cross_entropy) {
            found.zero_cross_entropy += 1;
        }
    }
    Ok((changing, Some(found)))
}

/// Whether a row of outputs looks like probabilities, not like logits.
fn is_distribution(row: &[f32]) -> bool {
    let sum: f64 = row.iter().map(|value| f64::from(*value)).sum();
    row.iter().all(|value| (0.0..=1.0).contains(value)) && (sum - 1.0).abs() < 1e-4
}
