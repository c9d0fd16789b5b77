//! Adversarial affine transformation: rotation, scaling and shift that mislead.
//!
//! ```text
//! z ∈ [−1, 1]ᵏ scaled to the ranges: angle(s), a scale and a shift for each axis (5 numbers for an image, 9 for a volume)
//! z ← clip(z + α·sign ∇_z L(f(x ∘ A(z))))
//! ```
//!
//! Source: Chen et al. 2022, Medical Image Analysis 82:102597 (adversarial chain; the affine step, with the authors'
//! ranges: 15°, 0.2, 0.1). Survey: \[24\].
//!
//! Differs from the source: used as an attack on any model, with several steps and random restarts, stopping at the first
//! transformation that reaches the goal; the edge is repeated beyond the edge; signals and volumes are served too.

use std::marker::PhantomData;

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::search::Search;
use crate::gradient::step::sign;
use crate::transformation::warp::{Affine, Beyond, sides_of};

/// Settings of [`AffineAttack`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AffineAttackConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps of each restart; at least 1.
    pub steps: usize,
    /// Step α as a fraction of each range; finite and above 0.
    pub relative_step_size: f32,
    /// Independent searches from random transformations, the first from none; at least 1.
    pub restarts: usize,
    /// Greatest angle in degrees, either way; 0 to 180.
    pub rotation: f64,
    /// Greatest change of scale, either way; 0 to 0.9.
    pub scale: f64,
    /// Greatest shift along each axis, either way, as a fraction of its side; 0 to 1.
    pub shift: f64,
}

impl Default for AffineAttackConfig {
    /// The ranges of the source; the search is ours.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            steps: 10,
            relative_step_size: 0.2,
            restarts: 5,
            rotation: 15.0,
            scale: 0.2,
            shift: 0.1,
        }
    }
}

/// The affine attack; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "AffineAttackConfig")]
pub struct AffineAttack(AffineAttackConfig);

impl TryFrom<AffineAttackConfig> for AffineAttack {
    type Error = Error;

    fn try_from(config: AffineAttackConfig) -> Result<Self, Error> {
        for (field, value) in [("steps", config.steps), ("restarts", config.restarts)] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        if !(config.relative_step_size.is_finite() && config.relative_step_size > 0.0) {
            return Err(Error::invalid("relative_step_size", "finite and above 0", config.relative_step_size));
        }
        let ranges = [
            ("rotation", "0 to 180 degrees", 180.0, config.rotation),
            ("scale", "0 to 0.9", 0.9, config.scale),
            ("shift", "0 to 1", 1.0, config.shift),
        ];
        for (field, must_be, greatest, value) in ranges {
            if !(0.0..=greatest).contains(&value) {
                return Err(Error::invalid(field, must_be, value));
            }
        }
        Ok(Self(config))
    }
}

impl AffineAttack {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "affine",
        title: "Adversarial affine transformation",
        source: "Chen et al. 2022, Medical Image Analysis 82:102597",
        family: "spatial",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "restarts · (steps gradients, 1 query)",
        minimum_norm: false,
    };

    /// The range of each parameter: angles, scales, shifts.
    fn ranges(self, sides: &[usize]) -> Affine {
        let mut ranges = Affine::identity(sides.len());
        ranges.angles.fill(self.0.rotation.to_radians());
        ranges.scales.fill(self.0.scale);
        ranges.shifts = sides.iter().map(|side| self.0.shift * *side as f64).collect();
        ranges
    }
}

/// The parameters of a map in one row: angles, scales, shifts.
fn row(map: &Affine) -> impl Iterator<Item = f64> + '_ {
    map.angles.iter().chain(&map.scales).chain(&map.shifts).copied()
}

/// The map of parameters z in −1..1, given the ranges.
fn map(z: &[f64], ranges: &Affine) -> Affine {
    let (angles, rest) = z.split_at(ranges.angles.len());
    let (scales, shifts) = rest.split_at(ranges.scales.len());
    let times = |z: &[f64], ranges: &[f64]| z.iter().zip(ranges).map(|(z, range)| z * range).collect::<Vec<_>>();
    Affine {
        angles: times(angles, &ranges.angles),
        scales: times(scales, &ranges.scales).into_iter().map(|change| 1.0 + change).collect(),
        shifts: times(shifts, &ranges.shifts),
    }
}

impl Attack for AffineAttack {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample and restart.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let sides = sides_of("an affine transformation", problem.inputs.shape())?;
        let ranges = self.ranges(sides);
        let parameters = row(&ranges).count();
        let size = f64::from(self.0.relative_step_size);
        Search {
            loss: self.0.loss,
            steps: self.0.steps,
            restarts: self.0.restarts,
            start: |restart, sample| {
                let mut generator = problem.seed.stream(restart).for_sample(sample);
                let mut draw = || if restart == 0 { 0.0 } else { 2.0 * generator.random::<f64>() - 1.0 };
                (0..parameters).map(|_| draw()).collect::<Vec<f64>>()
            },
            warp: |z: &Vec<f64>| map(z, &ranges).warp(sides, Beyond::Edge),
            step: |z: &mut Vec<f64>, positions: &[Vec<f32>]| {
                let slopes = map(z, &ranges).pull_back(sides, positions);
                for ((z, slope), range) in z.iter_mut().zip(row(&slopes)).zip(row(&ranges)) {
                    *z = (*z + size * f64::from(sign((slope * range) as f32))).clamp(-1.0, 1.0);
                }
            },
            parameters: PhantomData,
        }
        .run(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformation::Transformation;
    use nocebo_core::{Domain, Goal, Label, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    fn affine(config: AffineAttackConfig) -> AffineAttack {
        AffineAttack::try_from(config).unwrap()
    }

    #[test]
    fn passes_the_mechanics_of_the_common_suite() {
        assert_eq!(suite::check_mechanics(&affine(AffineAttackConfig::default())), Ok(()));
    }

    /// A bright bar and a template of the same bar turned by 10 degrees: class 1 where they agree well enough.
    fn bars(threshold: f32) -> (Linear, Samples) {
        let domain = Domain::grey_levels(&[1, 17, 17], 255.0).unwrap();
        let bar: Vec<f32> = (0..289).map(|at| if (at / 17_usize).abs_diff(8) <= 1 { 200.0 } else { 20.0 }).collect();
        let turn = Affine { angles: vec![10_f64.to_radians()], ..Affine::identity(2) };
        let template: Vec<f32> =
            turn.warp(&[17, 17], Beyond::Edge).apply(&bar).iter().map(|value| (value - 60.0) / 1e4).collect();
        let agreement: f32 = template.iter().zip(&bar).map(|(a, b)| a * b).sum();
        let perfect: f32 =
            template.iter().zip(turn.warp(&[17, 17], Beyond::Edge).apply(&bar)).map(|(a, b)| a * b).sum();
        let bias = -(agreement + threshold * (perfect - agreement));
        let model = Linear::new(domain, Task::Binary { threshold: 0.0 }, vec![template], vec![bias]);
        (model, Samples::new(bar, &[1, 17, 17]).unwrap())
    }

    #[test]
    fn finds_the_turn_that_fits_a_template() {
        let (model, samples) = bars(0.9);
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let domain = Domain::grey_levels(&[1, 17, 17], 255.0).unwrap();
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let run = |rotation| {
            let config =
                AffineAttackConfig { rotation, scale: 0.0, shift: 0.0, restarts: 1, ..AffineAttackConfig::default() };
            affine(config).run(&model, &samples, &goal, &threat, Seed(1)).unwrap().success[0]
        };
        assert!(run(15.0));
        assert!(!run(2.0));
    }

    #[test]
    fn a_volume_has_nine_parameters_and_a_signal_two() {
        let attack = affine(AffineAttackConfig::default());
        for (sides, count) in [(&[8_usize][..], 2), (&[8, 8], 5), (&[8, 8, 8], 9)] {
            assert_eq!(row(&attack.ranges(sides)).count(), count);
            assert_eq!(map(&vec![0.0; count], &attack.ranges(sides)), Affine::identity(sides.len()));
        }
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["angle = 3", "steps = 0", "restarts = 0", "rotation = -1.0", "scale = 1.0", "shift = nan"] {
            assert!(toml::from_str::<AffineAttack>(text).is_err(), "{text}");
        }
    }
}
