//! Per-sample objectives: one number that grows as a goal comes nearer, with its derivative by the logits.
//!
//! Objectives are plain functions of one row of logits. Whoever computes the network pulls the derivative back to the
//! inputs, so the same objectives serve every executor. There is no reduction over the batch: the gradient of a
//! sample never depends on its neighbours.
//!
//! ```text
//! z logits, y true class, t wanted class, π the classes by falling logit, p = softmax(z)
//! cross-entropy   untargeted log (1 − p_y)/p_y           targeted  log p_t/(1 − p_t)
//! margin          untargeted max_{j≠y} z_j − z_y         targeted  z_t − max_{j≠t} z_j
//! scaled          cross-entropy of 10·z / (z_π1 − z_π2), the divisor held constant in the derivative
//! DLR             untargeted −(z_y − max_{j≠y} z_j) / (z_π1 − z_π3)
//!                 targeted   −(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2)
//! ```
//!
//! Cross-entropy is −log p(y) in the papers. The log-odds order all points alike and have the same gradient up to a
//! positive factor, so every step by sign or normalised gradient is the same; but −log p(y) loses its gradient to
//! underflow when a model is confident (a margin of about 100 in f32), which would look like robustness. The same
//! holds for a single finding. Only the sum over several findings of an untargeted multi-label goal is the plain
//! binary cross-entropy.
//!
//! A segmentation has one such number a position; the objective is their mean over the positions that are not ignored,
//! of −log p(y) (untargeted) or log p(t) (targeted) in place of the log-odds, so that positions already won count little:
//!
//! ```text
//! s = ±log-odds of the class at hand (+ to reach it, − to leave it)
//! any position helps (untargeted, false positive)  log(1 + eˢ)      all are needed (targeted, false negative)  −log(1 + e⁻ˢ)
//! Dice   untargeted 1 − mean_c 2Σp_c·y_c / (Σp_c + Σy_c)        targeted  the same mean, by the target
//! ```
//!
//! Grades in order, of which those at least `serious` from y are to be reached (o) and the others to be left (i): the margin is
//! `max z_o − max z_i`, cross-entropy the log-odds of all o; with one wanted grade as above. A regression f with tolerance T:
//!
//! ```text
//! margin   untargeted |f − y| − T      targeted  T − |f − t|      cross-entropy  that of a Gaussian: (f − y)²/2 or −(f − t)²/2
//! above    f, or the expected grade Σ k·p_k      below  the negative of that
//! ```
//!
//! Sources: cross-entropy as in Goodfellow et al. 2015; margin: Carlini & Wagner 2017 (f6 without the cut at −κ);
//! DLR: Croce & Hein 2020, arXiv:2003.01690, section 4. DLR needs 3 classes, and 4 when targeted. Scaled: MIFPE, Yu & Xu,
//! CVPR 2023 (factor as in the authors' code); for several findings the divisor is the least |z|.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::segmentation::IGNORED;
use crate::{Error, Goal, Label, Segmentation, Task};

/// One number for each sample, to be *increased* by an attack, and its derivative by the outputs.
pub trait Objective: Sync {
    /// Value for sample `row` of the batch; writes d value / d outputs into `cotangent`, which has the same length.
    ///
    /// # Errors
    ///
    /// When the objective has no meaning for these outputs.
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error>;
}

/// Which function of the logits an attack increases.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Cross-entropy; binary cross-entropy summed over the findings where the model has one logit a finding.
    #[default]
    CrossEntropy,
    /// Cross-entropy of logits scaled to a fixed confidence, which float underflow cannot silence: for a step by sign or
    /// normalised gradient. Its values do not rank points. The same as cross-entropy where there is a single logit.
    ScaledCrossEntropy,
    /// Distance of the logits to the decision.
    Margin,
    /// Difference of logits ratio: the margin, scaled so that multiplying the logits changes nothing.
    Dlr,
    /// Dice of the probabilities, for a segmentation with a true or a target mask.
    Dice,
    /// The number of a regression, or the expected grade of an ordinal task: upwards, for an untargeted goal.
    Above,
    /// The same downwards.
    Below,
}

/// The objective that a goal and a loss make for the samples of a batch.
#[derive(Clone, Debug)]
pub struct GoalObjective<'a> {
    goal: &'a Goal,
    task: &'a Task,
    loss: Loss,
}

impl<'a> GoalObjective<'a> {
    /// The objective of `goal` under `loss`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for DLR without 3 exclusive classes, or 4 with a target, for Dice without masks, and for above and
    /// below without an order.
    pub fn new(goal: &'a Goal, task: &'a Task, loss: Loss) -> Result<Self, Error> {
        if loss == Loss::Dlr {
            let least = match goal {
                Goal::Untargeted { .. } | Goal::FalseNegative { .. } => 3,
                Goal::Targeted { .. } => 4,
                Goal::FalsePositive { .. } => {
                    return Err(Error::unsupported(
                        "DLR loss for a false-positive goal",
                        "it needs a true class; use the margin loss",
                    ));
                }
            };
            match task {
                Task::MultiClass { classes } if *classes >= least => {}
                Task::Ordinal { .. } | Task::Regression { .. } => {
                    return Err(Error::unsupported(
                        "DLR loss for grades in order or a number",
                        "it is about classes; use the margin loss, or above and below",
                    ));
                }
                Task::Segmentation(_) => {
                    return Err(Error::unsupported(
                        "DLR loss for a segmentation",
                        "it needs one decision a sample; use the margin loss",
                    ));
                }
                _ => {
                    return Err(Error::unsupported(
                        format!("DLR loss with {} classes", task.classes()),
                        format!("it needs at least {least} exclusive classes for this goal; use the margin loss"),
                    ));
                }
            }
        }
        if loss == Loss::Dice
            && !matches!((task, goal), (Task::Segmentation(_), Goal::Untargeted { .. } | Goal::Targeted { .. }))
        {
            return Err(Error::unsupported(
                "Dice loss for this task or goal",
                "it compares a segmentation with a whole mask; use cross-entropy",
            ));
        }
        if matches!(loss, Loss::Above | Loss::Below)
            && !matches!((task, goal), (Task::Ordinal { .. } | Task::Regression { .. }, Goal::Untargeted { .. }))
        {
            return Err(Error::unsupported(
                "the loss above or below for this task or goal",
                "it needs an untargeted goal on grades or a number; use cross-entropy",
            ));
        }
        Ok(Self { goal, task, loss })
    }
}

impl Objective for GoalObjective<'_> {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        cotangent.fill(0.0);
        match self.task {
            Task::MultiClass { .. } => Ok(self.multi_class(row, outputs, cotangent)),
            Task::Ordinal { serious, .. } => Ok(self.ordinal(*serious, row, outputs, cotangent)),
            Task::Regression { tolerance } => Ok(self.regression(*tolerance, row, outputs, cotangent)),
            Task::Binary { threshold } => {
                let wanted = match self.goal {
                    Goal::Untargeted { labels } => labels[row] == Label::Class(0),
                    Goal::Targeted { targets, .. } => targets[row] == Label::Class(1),
                    // Finding 1 is the disease, finding 0 its absence.
                    Goal::FalseNegative { finding } => *finding == 0,
                    Goal::FalsePositive { finding } => *finding == 1,
                };
                Ok(self.flags(&[(0, wanted)], Reach::All, outputs, &[*threshold], cotangent))
            }
            Task::MultiLabel { thresholds } => self.multi_label(row, outputs, thresholds, cotangent),
            Task::Segmentation(task) if self.loss == Loss::Dice => Ok(self.dice(task, row, outputs, cotangent)),
            Task::Segmentation(task) => Ok(self.segmentation(task, row, outputs, cotangent)),
        }
    }
}

/// Whether one wanted flag is enough, or all are needed.
#[derive(Clone, Copy, PartialEq)]
enum Reach {
    Any,
    All,
}

impl GoalObjective<'_> {
    fn multi_class(&self, row: usize, logits: &[f32], cotangent: &mut [f32]) -> f32 {
        let class = |label: &Label| match label {
            Label::Class(class) => *class,
            Label::Findings(_) | Label::Mask(_) | Label::Number(_) => 0, // refused by `Goal::check`
        };
        // (class to leave, class to reach)
        let (from, to) = match self.goal {
            Goal::Untargeted { labels } => (Some(class(&labels[row])), None),
            Goal::Targeted { labels, targets } => (Some(class(&labels[row])), Some(class(&targets[row]))),
            Goal::FalseNegative { finding } => (Some(*finding), None),
            Goal::FalsePositive { finding } => (None, Some(*finding)),
        };
        if self.loss == Loss::Dlr {
            return dlr(logits, from.unwrap_or(0), to, cotangent);
        }
        let pivot = to.or(from).unwrap_or(0);
        self.exclusive(logits, pivot, if to.is_some() { 1.0 } else { -1.0 }, cotangent)
    }

    fn ordinal(&self, serious: usize, row: usize, logits: &[f32], cotangent: &mut [f32]) -> f32 {
        let truth = match self.goal {
            Goal::Untargeted { labels } => match labels[row] {
                Label::Class(grade) => grade,
                _ => 0, // refused by `Goal::check`
            },
            // One grade is to be reached or to be left.
            _ => return self.multi_class(row, logits, cotangent),
        };
        let scale = if self.loss == Loss::ScaledCrossEntropy {
            let top = crate::argmax(logits);
            scale(logits[top] - logits[greatest_other(logits, top)])
        } else {
            1.0
        };
        let far = |grade: usize| grade.abs_diff(truth) >= serious;
        let (outside, inside): (Vec<usize>, Vec<usize>) = (0..logits.len()).partition(|&grade| far(grade));
        match self.loss {
            Loss::Above | Loss::Below => {
                let sign = if self.loss == Loss::Above { 1.0 } else { -1.0 };
                let all: Vec<usize> = (0..logits.len()).collect();
                let (_, shares) = log_sum(logits, &all, 1.0);
                let expected: f64 = shares.iter().enumerate().map(|(grade, share)| grade as f64 * share).sum();
                for (grade, (slot, share)) in cotangent.iter_mut().zip(shares).enumerate() {
                    *slot = (sign * share * (grade as f64 - expected)) as f32;
                }
                (sign * expected) as f32
            }
            Loss::Margin => {
                let best =
                    |grades: &[usize]| grades.iter().copied().reduce(|a, b| if logits[b] > logits[a] { b } else { a });
                let (Some(to), Some(from)) = (best(&outside), best(&inside)) else { return 0.0 };
                cotangent[to] = 1.0;
                cotangent[from] = -1.0;
                logits[to] - logits[from]
            }
            Loss::CrossEntropy | Loss::ScaledCrossEntropy | Loss::Dlr | Loss::Dice => {
                let mut value = 0.0;
                for (grades, sign) in [(&outside, 1.0), (&inside, -1.0)] {
                    let (sum, shares) = log_sum(logits, grades, f64::from(scale));
                    value += sign * sum;
                    for (&grade, share) in grades.iter().zip(shares) {
                        cotangent[grade] = (sign * f64::from(scale) * share) as f32;
                    }
                }
                value as f32
            }
        }
    }

    fn regression(&self, tolerance: f32, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> f32 {
        // (number to leave or to reach, +1 or −1); no other goal has a number.
        let (number, sign) = match self.goal {
            Goal::Targeted { targets, .. } => (targets.get(row), -1.0),
            Goal::Untargeted { labels } => (labels.get(row), 1.0),
            Goal::FalseNegative { .. } | Goal::FalsePositive { .. } => (None, 1.0),
        };
        let Some(Label::Number(number)) = number else { return 0.0 };
        let error = outputs[0] - **number;
        // Both ways lead off the number itself; upwards, as without a slope an attack would never start.
        let side = if error < 0.0 { -1.0 } else { 1.0 };
        let (value, slope) = match self.loss {
            Loss::Above => (outputs[0], 1.0),
            Loss::Below => (-outputs[0], -1.0),
            Loss::Margin => (sign * (error.abs() - tolerance), sign * side),
            _ if error == 0.0 => (0.0, sign * f32::EPSILON * tolerance),
            _ => (sign * 0.5 * error * error, sign * error),
        };
        cotangent[0] = slope;
        value
    }

    /// `sign` times the log-odds or margin of one of several exclusive classes.
    fn exclusive(&self, logits: &[f32], pivot: usize, sign: f32, cotangent: &mut [f32]) -> f32 {
        match self.loss {
            Loss::ScaledCrossEntropy => {
                let top = crate::argmax(logits);
                let scale = scale(logits[top] - logits[greatest_other(logits, top)]);
                let scaled: Vec<f32> = logits.iter().map(|logit| (logit - logits[top]) * scale).collect();
                sign * log_odds(&scaled, pivot, sign * scale, cotangent)
            }
            Loss::Margin => {
                let other = greatest_other(logits, pivot);
                cotangent.fill(0.0);
                cotangent[pivot] = sign;
                cotangent[other] = -sign;
                sign * (logits[pivot] - logits[other])
            }
            // The others do not come here.
            Loss::CrossEntropy | Loss::Dlr | Loss::Dice | Loss::Above | Loss::Below => {
                sign * log_odds(logits, pivot, sign, cotangent)
            }
        }
    }

    /// Class of each position that the goal is about, whether to reach it (+1) or to leave it (−1), and whether any
    /// position helps or all are needed.
    fn positions(&self, row: usize, position: usize) -> (usize, f32, Reach) {
        let class = |label: &Label| match label {
            Label::Mask(mask) => usize::from(mask[position]),
            Label::Class(_) | Label::Findings(_) | Label::Number(_) => usize::from(IGNORED), // refused by `Goal::check`
        };
        match self.goal {
            Goal::Untargeted { labels } => (class(&labels[row]), -1.0, Reach::Any),
            Goal::Targeted { targets, .. } => (class(&targets[row]), 1.0, Reach::All),
            Goal::FalseNegative { finding } => (*finding, -1.0, Reach::All),
            Goal::FalsePositive { finding } => (*finding, 1.0, Reach::Any),
        }
    }

    fn segmentation(&self, task: &Segmentation, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> f32 {
        let counted = |position: &usize| self.positions(row, *position).0 != usize::from(IGNORED);
        let share = 1.0 / (0..task.positions()).filter(counted).count().max(1) as f64;
        let (mut logits, mut slopes) = (vec![0.0; task.classes], vec![0.0; task.classes]);
        let mut sum = 0.0;
        for position in (0..task.positions()).filter(counted) {
            let (class, sign, reach) = self.positions(row, position);
            task.gather(outputs, position, &mut logits);
            let value = f64::from(self.exclusive(&logits, class, sign, &mut slopes));
            let (term, slope) = match (self.loss, reach) {
                (Loss::Margin, _) => (value, 1.0),
                (_, Reach::Any) => (softplus(value), sigmoid(value)),
                (_, Reach::All) => (-softplus(-value), sigmoid(-value)),
            };
            sum += share * term;
            task.scatter(&slopes, share * slope, position, cotangent);
        }
        sum as f32
    }

    fn dice(&self, task: &Segmentation, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> f32 {
        let classes = task.classes;
        let mut logits = vec![0.0; classes];
        let mut probabilities = |position: usize| -> Vec<f64> {
            task.gather(outputs, position, &mut logits);
            let greatest = f64::from(logits[crate::argmax(&logits)]);
            let powers: Vec<f64> = logits.iter().map(|logit| (f64::from(*logit) - greatest).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.into_iter().map(|power| power / sum).collect()
        };
        let class = |position: &usize| self.positions(row, *position).0;
        let counted: Vec<usize> =
            (0..task.positions()).filter(|position| class(position) != usize::from(IGNORED)).collect();
        // Σ p·y and Σ p + Σ y of each class, the classes that the mask lacks included as far as they are answered.
        let (mut both, mut sums) = (vec![0.0; classes], vec![0.0; classes]);
        for position in &counted {
            let wanted = class(position);
            for (class, p) in probabilities(*position).into_iter().enumerate() {
                sums[class] += p;
                if class == wanted {
                    both[class] += p;
                    sums[class] += 1.0;
                }
            }
        }
        let sign = if matches!(self.goal, Goal::Targeted { .. }) { 1.0 } else { -1.0 };
        let share = 2.0 * sign / classes as f64;
        for position in &counted {
            let (wanted, p) = (class(position), probabilities(*position));
            let by_p: Vec<f64> = (0..classes)
                .map(|class| {
                    let own = if class == wanted { sums[class] } else { 0.0 };
                    share * (own - both[class]) / (sums[class] * sums[class]).max(f64::MIN_POSITIVE)
                })
                .collect();
            let mean: f64 = by_p.iter().zip(&p).map(|(slope, p)| slope * p).sum();
            let slopes: Vec<f32> = by_p.iter().zip(&p).map(|(slope, p)| (p * (slope - mean)) as f32).collect();
            task.scatter(&slopes, 1.0, *position, cotangent);
        }
        let dice: f64 = (0..classes).map(|class| share * both[class] / sums[class].max(f64::MIN_POSITIVE)).sum();
        (if sign > 0.0 { dice } else { 1.0 + dice }) as f32
    }

    fn multi_label(&self, row: usize, logits: &[f32], thresholds: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        let flags = |label: &Label, invert: bool| match label {
            Label::Findings(found) => Ok(found.iter().map(|found| *found != invert).enumerate().collect::<Vec<_>>()),
            Label::Class(_) | Label::Mask(_) | Label::Number(_) => {
                Err(Error::mismatch("label", "findings", "another kind"))
            }
        };
        let (wanted, reach) = match self.goal {
            Goal::Untargeted { labels } => (flags(&labels[row], true)?, Reach::Any),
            Goal::Targeted { targets, .. } => (flags(&targets[row], false)?, Reach::All),
            Goal::FalseNegative { finding } => (vec![(*finding, false)], Reach::All),
            Goal::FalsePositive { finding } => (vec![(*finding, true)], Reach::All),
        };
        Ok(self.flags(&wanted, reach, logits, thresholds, cotangent))
    }

    /// One logit a flag. A single flag has log-odds `±z`. Where several are needed, cross-entropy is the sum of their
    /// log-likelihoods; where any is enough, minus the sum of those of the true flags. The margin is that of the hardest
    /// flag where all are needed, of the easiest where any is enough.
    fn flags(
        &self,
        wanted: &[(usize, bool)],
        reach: Reach,
        logits: &[f32],
        thresholds: &[f32],
        cotangent: &mut [f32],
    ) -> f32 {
        let signed = |&(index, present): &(usize, bool)| {
            let sign = if present { 1.0 } else { -1.0 };
            (index, sign, sign * (logits[index] - thresholds[index]))
        };
        if self.loss == Loss::Margin {
            let margins = wanted.iter().map(signed);
            let extreme = match reach {
                Reach::Any => margins.reduce(|best, next| if next.2 > best.2 { next } else { best }),
                Reach::All => margins.reduce(|worst, next| if next.2 < worst.2 { next } else { worst }),
            };
            return extreme.map_or(0.0, |(index, sign, margin)| {
                cotangent[index] = sign;
                margin
            });
        }
        if let [(index, present)] = wanted {
            let sign = if *present { 1.0 } else { -1.0 };
            cotangent[*index] = sign;
            return sign * logits[*index];
        }
        let scale = if self.loss == Loss::ScaledCrossEntropy {
            let least = wanted.iter().map(|(index, _)| logits[*index].abs()).fold(f32::INFINITY, f32::min);
            scale(least)
        } else {
            1.0
        };
        let mut value = 0.0;
        for &(index, present) in wanted {
            let sign = if present { scale } else { -scale };
            let logit = f64::from(sign) * f64::from(logits[index]);
            let (term, slope) = match reach {
                Reach::Any => (softplus(logit), sigmoid(logit)),
                Reach::All => (-softplus(-logit), sigmoid(-logit)),
            };
            value += term;
            cotangent[index] = sign * slope as f32;
        }
        value as f32
    }
}

/// What makes `confidence`, a difference of logits, equal to 10; finite where it is zero.
fn scale(confidence: f32) -> f32 {
    10.0 / confidence.max(1e-12)
}

/// log p/(1 − p) of one class, that is its logit less the log-sum-exp of the others; writes `scale` times its derivative.
fn log_odds(logits: &[f32], class: usize, scale: f32, cotangent: &mut [f32]) -> f32 {
    let greatest = f64::from(logits[greatest_other(logits, class)]);
    let mut sum = 0.0;
    for (_, &logit) in logits.iter().enumerate().filter(|(other, _)| *other != class) {
        sum += (f64::from(logit) - greatest).exp();
    }
    for (index, (slot, &logit)) in cotangent.iter_mut().zip(logits).enumerate() {
        *slot = if index == class { scale } else { -scale * ((f64::from(logit) - greatest).exp() / sum) as f32 };
    }
    (f64::from(logits[class]) - greatest - sum.ln()) as f32
}

/// log Σ exp(scale · z) over some logits, and the share of each in the sum.
fn log_sum(logits: &[f32], of: &[usize], scale: f64) -> (f64, Vec<f64>) {
    let scaled: Vec<f64> = of.iter().map(|&index| scale * f64::from(logits[index])).collect();
    let greatest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scaled.iter().map(|logit| (logit - greatest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    (greatest + sum.ln(), powers.into_iter().map(|power| power / sum).collect())
}

fn dlr(logits: &[f32], from: usize, to: Option<usize>, cotangent: &mut [f32]) -> f32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let other = to.unwrap_or_else(|| greatest_other(logits, from));
    let lower: &[(usize, f32)] =
        &if to.is_some() { vec![(order[2], 0.5), (order[3], 0.5)] } else { vec![(order[2], 1.0)] };
    let numerator = logits[from] - logits[other];
    // As in the source, 1e-12 keeps the ratio finite when the logits are equal.
    let denominator =
        logits[order[0]] - lower.iter().map(|&(index, weight)| weight * logits[index]).sum::<f32>() + 1e-12;
    cotangent[from] -= 1.0 / denominator;
    cotangent[other] += 1.0 / denominator;
    let slope = numerator / (denominator * denominator);
    cotangent[order[0]] += slope;
    for &(index, weight) in lower {
        cotangent[index] -= weight * slope;
    }
    -numerator / denominator
}

/// The class with the greatest logit but `class`; the first of equals.
fn greatest_other(logits: &[f32], class: usize) -> usize {
    let mut best = usize::from(class == 0);
    for (index, logit) in logits.iter().enumerate() {
        if index != class && *logit > logits[best] {
            best = index;
        }
    }
    best
}

/// log(1 + eˣ) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(class: usize) -> Vec<Label> {
        vec![Label::Class(class)]
    }

    fn evaluate(goal: &Goal, task: &Task, loss: Loss, logits: &[f32]) -> (f32, Vec<f32>) {
        let mut cotangent = vec![f32::NAN; logits.len()];
        let value = GoalObjective::new(goal, task, loss).unwrap().evaluate(0, logits, &mut cotangent).unwrap();
        (value, cotangent)
    }

    fn every_case() -> Vec<(Goal, Task, Loss, Vec<f32>)> {
        let multi_class = Task::MultiClass { classes: 5 };
        let binary = Task::Binary { threshold: 0.3 };
        let multi_label = Task::MultiLabel { thresholds: vec![0.1, -0.2, 0.0] };
        let found = vec![Label::Findings(vec![true, false, true])];
        let wanted = vec![Label::Findings(vec![true, true, false])];
        let mut cases = Vec::new();
        for loss in [Loss::CrossEntropy, Loss::Margin, Loss::Dlr] {
            let logits = vec![0.3, -1.2, 2.0, 0.9, 1.4];
            for goal in [
                Goal::Untargeted { labels: labels(2) },
                Goal::Untargeted { labels: labels(1) },
                Goal::Targeted { labels: labels(2), targets: labels(0) },
                Goal::FalseNegative { finding: 2 },
            ] {
                cases.push((goal, multi_class.clone(), loss, logits.clone()));
            }
            if loss == Loss::Dlr {
                continue;
            }
            cases.push((Goal::FalsePositive { finding: 1 }, multi_class.clone(), loss, logits));
            for goal in [
                Goal::Untargeted { labels: labels(1) },
                Goal::Untargeted { labels: labels(0) },
                Goal::FalsePositive { finding: 1 },
            ] {
                cases.push((goal, binary.clone(), loss, vec![0.7]));
            }
            for goal in [
                Goal::Untargeted { labels: found.clone() },
                Goal::Targeted { labels: found.clone(), targets: wanted.clone() },
                Goal::FalseNegative { finding: 2 },
                Goal::FalsePositive { finding: 1 },
            ] {
                cases.push((goal, multi_label.clone(), loss, vec![0.4, -0.9, 1.7]));
            }
        }
        cases
    }

    fn ordered() -> Vec<(Goal, Task, Loss, Vec<f32>)> {
        let grades = |serious| Task::Ordinal { grades: 5, serious };
        let months = Task::Regression { tolerance: 6.0 };
        let number = |value: f32| vec![Label::Number(ordered_float::NotNan::new(value).unwrap())];
        let logits = vec![0.3, -1.2, 2.0, 0.9, 1.4];
        let mut cases = Vec::new();
        for loss in [Loss::CrossEntropy, Loss::Margin, Loss::Above, Loss::Below] {
            for (label, serious) in [(2, 1), (2, 2), (0, 2), (4, 2)] {
                cases.push((Goal::Untargeted { labels: labels(label) }, grades(serious), loss, logits.clone()));
            }
            for output in [4.0, 1.5] {
                cases.push((Goal::Untargeted { labels: number(3.0) }, months.clone(), loss, vec![output]));
            }
        }
        for loss in [Loss::CrossEntropy, Loss::Margin] {
            cases.push((Goal::Targeted { labels: labels(2), targets: labels(0) }, grades(2), loss, logits.clone()));
            cases.push((Goal::FalsePositive { finding: 1 }, grades(2), loss, logits.clone()));
            let targeted = Goal::Targeted { labels: number(3.0), targets: number(20.0) };
            cases.push((targeted, months.clone(), loss, vec![4.0]));
        }
        cases
    }

    #[test]
    fn a_step_along_the_derivative_brings_grades_and_numbers_nearer_to_the_goal() {
        for (goal, task, loss, logits) in ordered() {
            let (mut moved, mut reached) = (logits.clone(), false);
            for _ in 0..500 {
                let slopes = evaluate(&goal, &task, loss, &moved).1;
                moved.iter_mut().zip(slopes).for_each(|(logit, slope)| *logit += 0.1 * slope);
                reached |= goal.is_reached(&task, 0, &moved);
            }
            // The expected grade never rises from the highest or falls from the lowest.
            let stuck = matches!((&goal, &task, loss), (Goal::Untargeted { labels }, Task::Ordinal { serious: 2, .. }, loss)
                if (labels[0] == Label::Class(4) && loss == Loss::Above) || (labels[0] == Label::Class(0) && loss == Loss::Below));
            assert!(reached || stuck, "{goal:?} {loss:?} {moved:?}");
        }
    }

    #[test]
    fn the_margin_of_grades_and_numbers_is_positive_exactly_where_the_error_counts() {
        let task = Task::Ordinal { grades: 5, serious: 2 };
        let goal = Goal::Untargeted { labels: labels(1) };
        for grade in 0..5 {
            let mut logits = vec![0.0, 0.1, 0.2, 0.3, 0.4];
            logits[grade] = 3.0;
            let value = evaluate(&goal, &task, Loss::Margin, &logits).0;
            assert_eq!(value > 0.0, grade >= 3, "{grade}: {value}");
            assert_eq!(goal.is_reached(&task, 0, &logits), grade >= 3);
        }
        let months = Task::Regression { tolerance: 6.0 };
        let number = Label::Number(ordered_float::NotNan::new(100.0).unwrap());
        let goal = Goal::Untargeted { labels: vec![number] };
        assert_eq!(evaluate(&goal, &months, Loss::Margin, &[107.0]), (1.0, vec![1.0]));
        assert_eq!(evaluate(&goal, &months, Loss::Margin, &[95.0]), (-1.0, vec![-1.0]));
        // A perfect answer has a way to leave by.
        assert_eq!(evaluate(&goal, &months, Loss::Margin, &[100.0]), (-6.0, vec![1.0]));
        assert!(evaluate(&goal, &months, Loss::CrossEntropy, &[100.0]).1[0] > 0.0);
        assert!(GoalObjective::new(&goal, &Task::MultiClass { classes: 3 }, Loss::Above).is_err());
    }

    fn segmentations() -> Vec<(Goal, Task, Loss, Vec<f32>)> {
        let classes = crate::segmentation::tests::three_classes();
        let single = Segmentation { classes: 2, threshold: Some(0.2), ..classes.clone() };
        let logits: Vec<f32> = (0..12).map(|index| ((index * 7 % 11) as f32 - 5.0) * 0.3).collect();
        let mask = |positions: [u8; 4]| vec![Label::Mask(positions.to_vec())];
        let (labels, targets) = (mask([0, 1, 1, IGNORED]), mask([1, 1, 0, 0]));
        let mut cases = Vec::new();
        for loss in [Loss::CrossEntropy, Loss::Margin, Loss::Dice] {
            for task in [classes.clone(), single.clone()] {
                let logits = logits[..task.logits() * 4].to_vec();
                let task = Task::Segmentation(task);
                let mut add = |goal| cases.push((goal, task.clone(), loss, logits.clone()));
                add(Goal::Untargeted { labels: labels.clone() });
                add(Goal::Targeted { labels: labels.clone(), targets: targets.clone() });
                if loss != Loss::Dice {
                    add(Goal::FalseNegative { finding: 1 });
                    add(Goal::FalsePositive { finding: 1 });
                }
            }
        }
        cases
    }

    #[test]
    fn a_segmentation_is_the_mean_over_its_positions() {
        let task = Task::Segmentation(Segmentation { classes: 2, ..crate::segmentation::tests::three_classes() });
        let goal = Goal::Untargeted { labels: vec![Label::Mask(vec![0, 0, 1, IGNORED])] };
        let logits = [2.0, 0.0, 1.0, 9.0, 0.0, 1.0, 0.0, 0.0];
        let (value, cotangent) = evaluate(&goal, &task, Loss::Margin, &logits);
        assert!((value - (-2.0 + 1.0 + 1.0) / 3.0).abs() < 1e-6);
        assert_eq!((cotangent[3], cotangent[7], cotangent[0]), (0.0, 0.0, -1.0 / 3.0));
        // −log p_y: log(1+e⁻²), log(1+e), log(1+e).
        let expected = (0.126_928 + 1.313_262 + 1.313_262) / 3.0;
        assert!((evaluate(&goal, &task, Loss::CrossEntropy, &logits).0 - expected).abs() < 1e-5);
        // Confident logits: probabilities are 0 and 1, so Dice is that of the masks [0, 1, 0] and [0, 0, 1].
        let logits = [900.0, 0.0, 900.0, 0.0, 0.0, 900.0, 0.0, 0.0];
        assert!((evaluate(&goal, &task, Loss::Dice, &logits).0 - (1.0 - 0.5 * (0.5 + 0.0))).abs() < 1e-6);
        let refused = |goal: &Goal, loss| GoalObjective::new(goal, &task, loss).unwrap_err().to_string();
        assert!(refused(&goal, Loss::Dlr).contains("DLR loss for a segmentation"));
        assert!(refused(&Goal::FalseNegative { finding: 1 }, Loss::Dice).contains("Dice loss"));
        assert!(GoalObjective::new(&goal, &Task::MultiClass { classes: 3 }, Loss::Dice).is_err());
    }

    #[test]
    fn a_step_along_the_derivative_brings_every_goal_of_a_segmentation_nearer() {
        for (goal, task, loss, logits) in segmentations() {
            let (mut moved, mut reached) = (logits, false);
            for _ in 0..2000 {
                let slopes = evaluate(&goal, &task, loss, &moved).1;
                moved.iter_mut().zip(slopes).for_each(|(logit, slope)| *logit += slope);
                reached |= goal.is_reached(&task, 0, &moved);
            }
            assert!(reached, "{goal:?} {loss:?}");
        }
    }

    #[test]
    fn every_derivative_agrees_with_central_differences() {
        for (goal, task, loss, logits) in every_case().into_iter().chain(segmentations()).chain(ordered()) {
            let (_, cotangent) = evaluate(&goal, &task, loss, &logits);
            for index in 0..logits.len() {
                let at = |shift: f32| {
                    let mut moved = logits.clone();
                    moved[index] += shift;
                    f64::from(evaluate(&goal, &task, loss, &moved).0)
                };
                let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!(
                    (slope - f64::from(cotangent[index])).abs() < 2e-3,
                    "{goal:?} {loss:?} [{index}]: {slope} {cotangent:?}"
                );
            }
        }
    }

    #[test]
    fn the_objective_is_greater_where_the_goal_is_reached() {
        let task = Task::MultiClass { classes: 5 };
        let goal = Goal::Untargeted { labels: labels(2) };
        for loss in [Loss::CrossEntropy, Loss::Margin, Loss::Dlr] {
            let held = evaluate(&goal, &task, loss, &[0.3, -1.2, 2.0, 0.9, 1.4]).0;
            let reached = evaluate(&goal, &task, loss, &[0.3, -1.2, 1.0, 0.9, 2.4]).0;
            assert!(reached > held, "{loss:?}");
        }
        // The margin is positive exactly where the decision is wrong.
        assert!(evaluate(&goal, &task, Loss::Margin, &[0.0, 0.0, 2.0, 0.0, 1.5]).0 < 0.0);
        assert!(evaluate(&goal, &task, Loss::Margin, &[0.0, 0.0, 1.5, 0.0, 2.0]).0 > 0.0);
    }

    #[test]
    fn hand_computed_values() {
        let task = Task::MultiClass { classes: 4 };
        let goal = Goal::Untargeted { labels: labels(0) };
        let logits = [3.0, 1.0, 2.0, 0.0];
        assert_eq!(evaluate(&goal, &task, Loss::Margin, &logits).0, -1.0);
        assert_eq!(evaluate(&goal, &task, Loss::Dlr, &logits).0, -0.5);
        // p_0 = 0.643914: log 0.356086/0.643914.
        assert!((evaluate(&goal, &task, Loss::CrossEntropy, &logits).0 + 0.592_394).abs() < 1e-5);
        let targeted = Goal::Targeted { labels: labels(0), targets: labels(3) };
        assert!((evaluate(&targeted, &task, Loss::Dlr, &logits).0 + 3.0 / 2.5).abs() < 1e-6);
        let binary = Task::Binary { threshold: 0.0 };
        assert_eq!(evaluate(&goal, &binary, Loss::CrossEntropy, &[-1.5]).0, -1.5);
    }

    #[test]
    fn confident_logits_keep_a_finite_objective_and_a_live_gradient() {
        let binary = Task::Binary { threshold: 0.0 };
        let findings = Task::MultiLabel { thresholds: vec![0.0, 0.0] };
        for logit in [-100.0, -17.0, 17.0, 100.0] {
            let truth = usize::from(logit > 0.0);
            for label in [truth, 1 - truth] {
                let goal = Goal::Untargeted { labels: labels(label) };
                let (value, cotangent) = evaluate(&goal, &binary, Loss::CrossEntropy, &[logit]);
                assert!(value.abs() == logit.abs() && cotangent[0].abs() == 1.0, "{logit}: {value} {cotangent:?}");
            }
            let goal = Goal::Untargeted { labels: vec![Label::Findings(vec![logit > 0.0, true])] };
            let (value, cotangent) = evaluate(&goal, &findings, Loss::CrossEntropy, &[logit, 100.0]);
            assert!(value.is_finite() && cotangent.iter().all(|slope| *slope != 0.0), "{logit}");
        }
        // Far beyond where −log p has a gradient in f32.
        let classes = Task::MultiClass { classes: 3 };
        let goal = Goal::Untargeted { labels: labels(0) };
        let (value, cotangent) = evaluate(&goal, &classes, Loss::CrossEntropy, &[900.0, -900.0, -1000.0]);
        assert_eq!((value, cotangent), (-1800.0, vec![-1.0, 1.0, 3.7835e-44]));
    }

    #[test]
    fn the_scaled_loss_is_that_of_logits_at_a_fixed_confidence() {
        let task = Task::MultiClass { classes: 3 };
        let goal = Goal::Untargeted { labels: labels(0) };
        // A lead of 40 becomes one of 10, whatever is added to all logits.
        for shift in [0.0, -700.0] {
            let logits = [50.0, 10.0, 2.0].map(|logit: f32| logit + shift);
            let (value, cotangent) = evaluate(&goal, &task, Loss::ScaledCrossEntropy, &logits);
            let (expected, slopes) = evaluate(&goal, &task, Loss::CrossEntropy, &[12.5, 2.5, 0.5]);
            assert!((value - expected).abs() < 1e-4, "{value} {expected}");
            for (slope, expected) in cotangent.iter().zip(slopes) {
                assert!((slope - 0.25 * expected).abs() < 1e-6, "{cotangent:?}");
            }
        }
        // Three equal logits have no confidence to scale.
        let (value, cotangent) = evaluate(&goal, &task, Loss::ScaledCrossEntropy, &[1.0, 1.0, 1.0]);
        assert!(value.is_finite() && cotangent.iter().all(|slope| slope.is_finite() && *slope != 0.0));
        // Findings whose plain cross-entropy has lost its gradient to underflow.
        let findings = Task::MultiLabel { thresholds: vec![0.0, 0.0] };
        let goal = Goal::Untargeted { labels: vec![Label::Findings(vec![true, true])] };
        assert_eq!(evaluate(&goal, &findings, Loss::CrossEntropy, &[200.0, 240.0]).1, [0.0, 0.0]);
        let (_, cotangent) = evaluate(&goal, &findings, Loss::ScaledCrossEntropy, &[200.0, 240.0]);
        // Sigmoids of −10 and −12, times 10/200.
        assert!((cotangent[0] / (-0.05 * 4.539787e-5) - 1.0).abs() < 1e-4, "{cotangent:?}");
        assert!((cotangent[1] / (-0.05 * 6.144175e-6) - 1.0).abs() < 1e-4, "{cotangent:?}");
    }

    #[test]
    fn dlr_refuses_too_few_classes() {
        let two = Task::MultiClass { classes: 2 };
        let three = Task::MultiClass { classes: 3 };
        let binary = Task::Binary { threshold: 0.0 };
        let untargeted = Goal::Untargeted { labels: labels(0) };
        let targeted = Goal::Targeted { labels: labels(0), targets: labels(1) };
        assert!(GoalObjective::new(&untargeted, &two, Loss::Dlr).is_err());
        assert!(GoalObjective::new(&untargeted, &binary, Loss::Dlr).is_err());
        assert!(GoalObjective::new(&untargeted, &three, Loss::Dlr).is_ok());
        let message = GoalObjective::new(&targeted, &three, Loss::Dlr).unwrap_err().to_string();
        assert!(message.contains("DLR loss with 3 classes") && message.contains("at least 4"), "{message}");
    }
}
