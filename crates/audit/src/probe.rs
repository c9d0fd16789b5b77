//! Questions put to the model itself before it is attacked: whether its answers can guide an attack at all.

use nocebo_core::{Error, GoalObjective, Loss, Outputs, Samples};
use rayon::prelude::*;

use crate::request::Checked;
use crate::{AuditError, AuditRequest};

/// What the model answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Probe {
    /// Samples asked about: those that will be attacked.
    pub(crate) probed: usize,
    /// Samples for which a second answer differed from the first.
    pub(crate) changing_answers: usize,
    /// Whether every row of outputs is in [0, 1] and sums to 1.
    pub(crate) looks_like_softmax: bool,
    /// What the gradients showed; none where the model gives no gradients.
    pub(crate) gradients: Option<GradientProbe>,
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

/// Asks the model about the samples that will be attacked.
pub(crate) fn probe(checked: &Checked<'_>, outputs: &Outputs, standing: &[bool]) -> Result<Probe, AuditError> {
    let positions: Vec<usize> = (0..standing.len()).filter(|&position| standing[position]).collect();
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
    Ok(found)
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
