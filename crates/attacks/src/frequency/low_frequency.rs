//! Low-frequency PGD, L2 and Linf, for signals, images and volumes.
//!
//! ```text
//! P  = projection onto the lowest cosine frequencies of each channel (a fraction r of each axis)
//! L2    d = P·∇L / ‖P·∇L‖₂            Linf  d = P·sign(P·∇L), scaled to a greatest change of 1
//! δ ← δ + α·d;  δ ← δ·min(1, ε/‖δ‖);  xₜ₊₁ = Π(x + δ)
//! Π  = nearest point of ball ∩ bounds
//! ```
//!
//! Smooth changes pass through filters and defences that remove noise, and look like uneven exposure or contrast agent
//! instead of grain.
//!
//! Source: Guo, Frank & Weinberger, UAI 2019, arXiv:1809.08758; Sharma, Ding & Brubaker, IJCAI 2019, arXiv:1903.00073.
//!
//! Differs from the source: the perturbation itself is of low frequency, not only the gradient, until the bounds and
//! the region of interest cut it. The steps are those of PGD, without a random start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{ActiveSet, Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::cosine::low_pass;
use crate::gradient::search::look;

/// Settings of [`LowFrequency`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LowFrequencyConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// r: fraction of the frequencies of each axis that are kept, rounded up; in (0, 1].
    pub kept_fraction: f32,
    /// Step α as a fraction of epsilon; finite and above 0.
    pub relative_step_size: f32,
    /// Gradient steps; at least 1.
    pub steps: usize,
}

impl Default for LowFrequencyConfig {
    /// Values chosen here; r as in Guo et al. for images of 224 pixels.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, kept_fraction: 0.125, relative_step_size: 0.1, steps: 40 }
    }
}

/// Low-frequency PGD; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "LowFrequencyConfig")]
pub struct LowFrequency(LowFrequencyConfig);

impl TryFrom<LowFrequencyConfig> for LowFrequency {
    type Error = Error;

    fn try_from(config: LowFrequencyConfig) -> Result<Self, Error> {
        if !(config.kept_fraction > 0.0 && config.kept_fraction <= 1.0) {
            return Err(Error::invalid("kept_fraction", "above 0 and at most 1", config.kept_fraction));
        }
        if !(config.relative_step_size.is_finite() && config.relative_step_size > 0.0) {
            return Err(Error::invalid("relative_step_size", "finite and above 0", config.relative_step_size));
        }
        if config.steps == 0 {
            return Err(Error::invalid("steps", "at least 1", config.steps));
        }
        Ok(Self(config))
    }
}

impl LowFrequency {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "low-frequency",
        title: "Low-frequency PGD",
        source: "Guo et al. 2019, arXiv:1809.08758",
        family: "frequency",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: false,
    };

    /// The direction d of the greatest ascent of low frequency; all 0 where there is none.
    fn direction(&self, problem: &AttackProblem<'_>, gradient: &[f32]) -> Vec<f64> {
        let (threat, space) = (problem.threat, &problem.inputs.shape()[1..]);
        let kept: Vec<usize> =
            space.iter().map(|&side| (f64::from(self.0.kept_fraction) * side as f64).ceil() as usize).collect();
        let smooth = |values: &mut [f64]| {
            for channel in values.chunks_exact_mut(space.iter().product()) {
                low_pass(channel, space, &kept);
            }
        };
        let mut direction: Vec<f64> = gradient
            .iter()
            .enumerate()
            .map(|(element, slope)| if threat.domain().is_mutable(element) { f64::from(*slope) } else { 0.0 })
            .collect();
        // What a low pass leaves of a change without low frequencies is rounding, not a direction.
        let rounding = 1e-12 * size(Norm::Linf, &direction);
        smooth(&mut direction);
        direction.iter_mut().filter(|part| part.abs() <= rounding).for_each(|part| *part = 0.0);
        if threat.norm() == Norm::Linf {
            direction.iter_mut().for_each(|part| *part = if *part == 0.0 { 0.0 } else { part.signum() });
            smooth(&mut direction);
        }
        let length = size(threat.norm(), &direction);
        if length > 0.0 {
            direction.iter_mut().for_each(|part| *part /= length);
        }
        direction
    }
}

fn size(norm: Norm, change: &[f64]) -> f64 {
    match norm {
        Norm::Linf => change.iter().fold(0.0, |most: f64, part| most.max(part.abs())),
        _ => change.iter().map(|part| part * part).sum::<f64>().sqrt(),
    }
}

impl Attack for LowFrequency {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one gradient query a step and one query a sample.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for tables, which have no frequencies.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let (threat, domain, inputs) = (problem.threat, problem.threat.domain(), problem.inputs);
        if inputs.shape().len() < 2 {
            return Err(Error::unsupported(
                "low-frequency PGD on a table",
                "it needs samples in time or space, [channels, ...]",
            ));
        }
        let diameter = match threat.norm() {
            Norm::Linf => domain.range(),
            _ => domain.range() * (domain.elements() as f32).sqrt(),
        };
        let epsilon = f64::from(threat.epsilon().min(diameter));
        let mut changes = vec![vec![0.0_f64; inputs.elements()]; inputs.len()];
        let mut active = ActiveSet::new(problem);
        let mut current = inputs.clone();
        for _ in 0..self.0.steps {
            let affordable = active.rows().iter().all(|&row| problem.oracle.remaining(inputs.indices()[row]) > 1);
            if active.is_empty() || !affordable {
                break;
            }
            let (points, goal) = (active.gather(&current), active.goal());
            let found = problem.oracle.gradient(&points, &problem.objective(&goal, self.0.loss)?)?;
            let staying = active.keep_reached(&points, &found.outputs);
            for (&row, position) in active.rows().iter().zip(staying) {
                let change = &mut changes[row];
                let step = f64::from(self.0.relative_step_size) * epsilon;
                for (change, part) in change.iter_mut().zip(self.direction(problem, found.inputs.row(position))) {
                    *change += step * part;
                }
                let length = size(threat.norm(), change);
                let scale = if length > epsilon { epsilon / length } else { 1.0 };
                for ((value, clean), change) in current.row_mut(row).iter_mut().zip(inputs.row(row)).zip(change) {
                    *change *= scale;
                    *value = (f64::from(*clean) + *change) as f32;
                }
                threat.project_row(inputs.row(row), current.row_mut(row));
            }
        }
        look(problem, &mut active, &current)?;
        Ok(active.finish(&current))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cosine::transform;
    use super::*;
    use nocebo_core::{Domain, Goal, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    fn attack(kept_fraction: f32) -> LowFrequency {
        LowFrequency::try_from(LowFrequencyConfig { kept_fraction, ..LowFrequencyConfig::default() }).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        // Half of the frequencies of each axis leave 4 of 12 dimensions.
        let half = attack(0.5);
        assert_eq!(suite::check(&half, Strength { linear: 5.0, goals: true }), Ok(()));
        // With all frequencies it is PGD.
        let all = attack(1.0);
        assert_eq!(suite::check(&InNorm(&all, &[Norm::L2]), Strength::EXACT), Ok(()));
        assert_eq!(suite::check(&InNorm(&all, &[Norm::Linf]), Strength::EXACT), Ok(()));
    }

    #[test]
    fn the_perturbation_has_low_frequencies_alone() {
        for shape in [vec![2, 16], vec![2, 8, 6], vec![1, 4, 6, 5]] {
            let domain = Domain::grey_levels(&shape, 255.0).unwrap();
            let elements = domain.elements();
            let weights = (0..elements).map(|at| ((at * 53 + 7) % 31) as f32 / 10.0 - 1.4).collect();
            let task = Task::Binary { threshold: -1e6 };
            let model = Linear::new(domain.clone(), task, vec![weights], vec![0.0]);
            let inputs = Samples::new(vec![120.0; elements], &shape).unwrap();
            let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
            for norm in [Norm::L2, Norm::Linf] {
                let threat = ThreatModel::new(norm, 20.0, domain.clone()).unwrap();
                let outcome = attack(0.5).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
                let perturbed = outcome.perturbed_inputs.row(0);
                // The whole budget is used, and it lowers the logit.
                assert!((norm.distance(inputs.row(0), perturbed) - 20.0).abs() < 1e-3, "{shape:?} {norm}");
                assert!(model.logits(perturbed)[0] < model.logits(inputs.row(0))[0]);
                let (space, plane) = (&shape[1..], elements / shape[0]);
                for channel in perturbed.chunks_exact(plane) {
                    let mut change: Vec<f64> = channel.iter().map(|value| f64::from(*value) - 120.0).collect();
                    transform(&mut change, space);
                    for (at, part) in change.iter().enumerate() {
                        let mut rest = at;
                        let frequencies = space.iter().rev().map(|side| {
                            let frequency = rest % side;
                            rest /= side;
                            (frequency, *side)
                        });
                        let low = frequencies.fold(true, |low, (at, side)| low && at < side.div_ceil(2));
                        assert!(low || part.abs() < 1e-3, "{shape:?} {norm} {at}: {part}");
                    }
                }
            }
        }
    }

    #[test]
    fn refuses_tables_and_unusable_settings() {
        let domain = Domain::grey_levels(&[3], 255.0).unwrap();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.5 }, vec![vec![1.0; 3]], vec![0.0]);
        let inputs = Samples::new(vec![0.0; 3], &[3]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, 1.0, domain).unwrap();
        assert!(matches!(attack(0.5).run(&model, &inputs, &goal, &threat, Seed(1)), Err(Error::Unsupported { .. })));
        for text in ["kept_fraction = 0.0", "kept_fraction = 1.1", "steps = 0", "relative_step_size = nan", "band = 1"]
        {
            assert!(toml::from_str::<LowFrequency>(text).is_err(), "{text}");
        }
    }
}
