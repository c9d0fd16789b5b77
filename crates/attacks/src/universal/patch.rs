//! Adversarial patch: a disc (segment, ball) that replaces what is under it, learned over random places, sizes and
//! turns.
//!
//! ```text
//! x′ = (1 − M)·x + M·W(p)      M the mask of the disc after the same warp W as the patch p
//! maximise over p   E_{x, W} L(f(x′), t)      p ← clip(p + η·∇ₚ mean L)
//! ```
//!
//! The budget of a patch is its area, not a norm of the change: give an infinite epsilon, or L0 with at least the number
//! of elements that it covers. A narrower threat model is obeyed too, by projection, which spoils the patch.
//!
//! Source: Brown et al. 2017, arXiv:1712.09665; as used on medical images by Finlayson et al. 2018, arXiv:1804.05296
//! (circular, scale 0.1 to 1, rotation to 22.5°, learning rate 5). Survey: \[38\].
//!
//! Differs from the source: the learning rate is theirs for values scaled to [−1, 1], applied to values in any unit;
//! the patch starts from the middle of the bounds; it stays inside the sample; signals and volumes are served too.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    ActiveSet, Attack, AttackInfo, AttackProblem, Domain, Error, GoalKind, GoalObjective, Knowledge, Loss, Norm,
    Perturbation, Seed,
};

use super::perturbation::check_shape;
use crate::fit::FitAttack;
use crate::gradient::search::look;
use crate::transformation::Transformation;
use crate::transformation::warp::{Affine, Beyond, Warp, places, sides_of};

/// Settings of [`Patch`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PatchConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps of gradient ascent; at least 1.
    pub steps: usize,
    /// Samples of a step; at least 1.
    pub batch: usize,
    /// Learning rate η for values scaled to [−1, 1]; finite and above 0.
    pub learning_rate: f64,
    /// Least and greatest diameter while learning, as fractions of the shortest side; above 0, at most 1.
    pub scale: [f64; 2],
    /// Greatest turn in degrees, either way, in each plane of two axes; 0 to 180.
    pub rotation: f64,
    /// Diameter of the applied patch as a fraction of the shortest side; above 0, at most 1.
    pub applied_scale: f64,
}

impl Default for PatchConfig {
    /// Scales, rotation and learning rate are the source's; the rest is ours.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            steps: 500,
            batch: 16,
            learning_rate: 5.0,
            scale: [0.1, 1.0],
            rotation: 22.5,
            applied_scale: 0.4,
        }
    }
}

/// A patch before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "PatchConfig")]
pub struct Patch(PatchConfig);

impl TryFrom<PatchConfig> for Patch {
    type Error = Error;

    fn try_from(config: PatchConfig) -> Result<Self, Error> {
        for (field, value) in [("steps", config.steps), ("batch", config.batch)] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        if !(config.learning_rate.is_finite() && config.learning_rate > 0.0) {
            return Err(Error::invalid("learning_rate", "finite and above 0", config.learning_rate));
        }
        let size = |value: f64| (0.01..=1.0).contains(&value);
        if !(config.scale.iter().all(|value| size(*value)) && config.scale[0] <= config.scale[1]) {
            return Err(Error::invalid(
                "scale",
                "two numbers from 0.01 to 1, the lower first",
                format!("{:?}", config.scale),
            ));
        }
        if !size(config.applied_scale) {
            return Err(Error::invalid("applied_scale", "0.01 to 1", config.applied_scale));
        }
        if !(0.0..=180.0).contains(&config.rotation) {
            return Err(Error::invalid("rotation", "0 to 180 degrees", config.rotation));
        }
        Ok(Self(config))
    }
}

impl Patch {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "patch",
        title: "Adversarial patch",
        source: "Brown et al. 2017, arXiv:1712.09665",
        family: "universal",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 query; learning: steps · batch gradients in all",
        minimum_norm: false,
    };

    /// Learns the patch; see [`FitAttack::fit`] for the checks that come before.
    ///
    /// Costs one query and one gradient query for each of `steps · batch` samples.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a table, and whatever the model returns.
    pub fn learned(&self, problem: &AttackProblem<'_>) -> Result<PatchAttack, Error> {
        let domain = problem.threat.domain();
        sides_of("a patch", domain.shape())?;
        let half_range: Vec<f64> =
            domain.lower().iter().zip(domain.upper()).map(|(low, high)| 0.5 * f64::from(high - low)).collect();
        let middle = domain.lower().iter().zip(domain.upper()).map(|(low, high)| 0.5 * (low + high)).collect();
        let mut patch = PatchAttack { info: Self::INFO, settings: self.0, disc: Disc::new(domain), values: middle };
        for step in 0..self.0.steps {
            let rows = self.batch(problem, step);
            let inputs = problem.inputs.select(&rows);
            let seed = problem.seed.stream(step as u64);
            let placed: Vec<Placed> =
                inputs.indices().iter().map(|&sample| self.place(&patch.disc, seed, sample)).collect();
            let mut points = inputs.clone();
            for (row, placed) in placed.iter().enumerate() {
                placed.cover(domain, &patch.disc, &patch.values, points.row_mut(row));
            }
            let goal = problem.goal.select(&rows);
            let objective = GoalObjective::new(&goal, &problem.oracle.spec().task, self.0.loss)?;
            let gradient = problem.oracle.gradient(&points, &objective)?.inputs;
            let mut mean = vec![0.0_f64; patch.values.len()];
            for (slopes, placed) in gradient.rows().zip(&placed) {
                for (mean, slope) in mean.iter_mut().zip(placed.pull_back(domain, &patch.disc, slopes)) {
                    *mean += f64::from(slope) / rows.len() as f64;
                }
            }
            for (element, value) in patch.values.iter_mut().enumerate() {
                // A step η·∂L/∂u for u in [−1, 1], where x = middle + half the range · u.
                let moved = f64::from(*value) + self.0.learning_rate * half_range[element].powi(2) * mean[element];
                *value = (moved as f32).clamp(domain.lower()[element], domain.upper()[element]);
            }
        }
        Ok(patch)
    }

    /// The control that a patch must beat: a disc cut from a sample of the domain, applied in the same way.
    ///
    /// # Errors
    ///
    /// When the sample does not have the domain's size, or for a table.
    pub fn natural(&self, domain: &Domain, sample: &[f32]) -> Result<PatchAttack, Error> {
        sides_of("a patch", domain.shape())?;
        if sample.len() != domain.elements() {
            return Err(Error::mismatch("values of a natural patch", domain.elements(), sample.len()));
        }
        let info = AttackInfo {
            name: "natural-patch",
            title: "A patch cut from a sample (control)",
            knowledge: Knowledge::None,
            ..Self::INFO
        };
        Ok(PatchAttack { info, settings: self.0, disc: Disc::new(domain), values: sample.to_vec() })
    }

    /// The samples of one step: without repetition, by chance.
    fn batch(&self, problem: &AttackProblem<'_>, step: usize) -> Vec<usize> {
        let mut generator = problem.seed.named("batch").for_sample(step as u64);
        let mut rows: Vec<usize> = (0..problem.inputs.len()).collect();
        for place in 0..self.0.batch.min(rows.len()) {
            rows.swap(place, generator.random_range(place..problem.inputs.len()));
        }
        rows.truncate(self.0.batch);
        rows
    }

    fn place(&self, disc: &Disc, seed: Seed, sample: u64) -> Placed {
        let [least, most] = self.0.scale;
        let mut generator = seed.for_sample(sample);
        let scale = least + (most - least) * generator.random::<f64>();
        disc.place(scale, self.0.rotation, &mut generator)
    }
}

impl FitAttack for Patch {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        Ok(Box::new(self.learned(problem)?))
    }
}

/// The greatest disc inside a sample, where a patch is drawn.
struct Disc {
    shape: Vec<usize>,
    /// 1 inside, 0 outside, for one channel.
    mask: Vec<f32>,
}

impl Disc {
    fn new(domain: &Domain) -> Self {
        let sides = &domain.shape()[1..];
        let radius = sides.iter().copied().min().unwrap_or(1) as f32 / 2.0;
        let own = places(sides);
        let inside = (0..sides.iter().product()).map(|element| {
            let squared: f32 = own
                .iter()
                .zip(sides)
                .map(|(places, side)| places[element] - (*side as f32 - 1.0) / 2.0)
                .map(|from_centre| from_centre * from_centre)
                .sum();
            f32::from(u8::from(squared <= radius * radius))
        });
        Self { shape: domain.shape().to_vec(), mask: inside.collect() }
    }

    fn sides(&self) -> &[usize] {
        &self.shape[1..]
    }

    /// The disc at `scale` of its size, turned and put at a random place where all of it is inside the sample.
    fn place(&self, scale: f64, rotation: f64, generator: &mut impl RngExt) -> Placed {
        let sides = self.sides();
        let diameter = scale * sides.iter().copied().min().unwrap_or(1) as f64;
        let mut either_way = |greatest: f64| greatest * (2.0 * generator.random::<f64>() - 1.0);
        let mut map = Affine::identity(sides.len());
        for angle in &mut map.angles {
            *angle = either_way(rotation).to_radians();
        }
        map.scales.fill(1.0 / scale);
        let centre: Vec<f64> = sides.iter().map(|side| either_way((*side as f64 - diameter) / 2.0)).collect();
        let warp = map.centred_at(&centre).warp(sides, Beyond::Value(0.0));
        Placed { cover: warp.apply(&self.mask), warp }
    }
}

/// A patch at its place in one sample.
struct Placed {
    warp: Warp,
    /// How much of each element the patch covers, 0 to 1, for one channel.
    cover: Vec<f32>,
}

impl Placed {
    /// Puts the patch over a sample, where the domain allows a change.
    fn cover(&self, domain: &Domain, disc: &Disc, patch: &[f32], sample: &mut [f32]) {
        let inside: Vec<f32> = patch.iter().zip(disc.mask.iter().cycle()).map(|(value, mask)| value * mask).collect();
        let drawn = self.warp.apply(&inside);
        for (element, value) in sample.iter_mut().enumerate() {
            let cover = self.cover[element % self.cover.len()];
            if cover > 0.0 && domain.is_mutable(element) {
                *value =
                    ((1.0 - cover) * *value + drawn[element]).clamp(domain.lower()[element], domain.upper()[element]);
            }
        }
    }

    /// The gradient by the patch from that by the covered sample.
    fn pull_back(&self, domain: &Domain, disc: &Disc, slopes: &[f32]) -> Vec<f32> {
        let free: Vec<f32> = slopes
            .iter()
            .enumerate()
            .map(|(element, slope)| if domain.is_mutable(element) { *slope } else { 0.0 })
            .collect();
        let pulled = self.warp.pull_back(&free, &free);
        pulled.iter().zip(disc.mask.iter().cycle()).map(|(slope, mask)| slope * mask).collect()
    }
}

/// A patch that was learned, or cut from a sample.
pub struct PatchAttack {
    info: AttackInfo,
    settings: PatchConfig,
    disc: Disc,
    values: Vec<f32>,
}

impl PatchAttack {
    /// The patch, in the unit of the data and the shape of a sample; only the greatest disc inside it is used.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

impl Attack for PatchAttack {
    fn info(&self) -> AttackInfo {
        self.info
    }

    /// Puts the patch at a random place of each sample. Costs one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        check_shape(problem, &self.disc.shape)?;
        let (threat, mut points) = (problem.threat, problem.inputs.clone());
        for (row, &sample) in problem.inputs.indices().iter().enumerate() {
            let mut generator = problem.seed.for_sample(sample);
            let placed = self.disc.place(self.settings.applied_scale, self.settings.rotation, &mut generator);
            placed.cover(threat.domain(), &self.disc, &self.values, points.row_mut(row));
            threat.project_row(problem.inputs.row(row), points.row_mut(row));
        }
        let mut active = ActiveSet::new(problem);
        look(problem, &mut active, &points)?;
        Ok(active.finish(&points))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{DifferentiableModel, Goal, Label, Samples, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    fn images() -> Domain {
        Domain::grey_levels(&[1, 9, 11], 255.0).unwrap()
    }

    /// Class 1 where the sum of the image is great.
    fn bright() -> Linear {
        Linear::new(images(), Task::Binary { threshold: 0.0 }, vec![vec![0.001; 99]], vec![-0.001 * 120.0 * 99.0])
    }

    fn samples() -> Samples {
        Samples::new((0..4 * 99).map(|at| 90.0 + ((at * 37) % 40) as f32).collect(), &[1, 9, 11]).unwrap()
    }

    fn everything(domain: Domain) -> ThreatModel {
        ThreatModel::new(Norm::L0, f32::INFINITY, domain).unwrap()
    }

    fn config() -> PatchConfig {
        PatchConfig { steps: 40, batch: 2, applied_scale: 0.6, ..PatchConfig::default() }
    }

    #[test]
    fn learns_the_brightest_patch_for_a_brightness_classifier() {
        let (model, samples) = (bright(), samples());
        let goal = Goal::FalsePositive { finding: 1 };
        let patch = Patch::try_from(config()).unwrap();
        let fit = patch.fit(&model, &samples, &goal, &everything(images()), Seed(1)).unwrap();
        let outcome = fit.run(&model, &samples, &goal, &everything(images()), Seed(2)).unwrap();
        assert!(outcome.success.iter().all(|done| *done), "{:?}", outcome.success);
        // About π/4·(0.6·9)² = 23 elements change, all to white but at the rim.
        for (clean, point) in samples.rows().zip(outcome.perturbed_inputs.rows()) {
            let changed = Norm::L0.distance(clean, point);
            assert!((15.0..45.0).contains(&changed), "{changed}");
            assert!(point.iter().filter(|value| **value > 254.0).count() >= 9);
        }
        let natural = patch.natural(&images(), samples.row(0)).unwrap();
        let control = natural.run(&model, &samples, &goal, &everything(images()), Seed(2)).unwrap();
        assert!(!control.success.contains(&true), "{:?}", control.success);
    }

    #[test]
    fn the_gradient_by_the_patch_agrees_with_central_differences() {
        let domain = images().with_region((0..99).map(|element| element != 40).collect()).unwrap();
        let disc = Disc::new(&domain);
        let placed = disc.place(0.7, 22.5, &mut Seed(3).for_sample(1));
        let slopes: Vec<f32> = (0..99).map(|at| ((at * 13 + 5) % 7) as f32 / 3.0 - 1.0).collect();
        let patch: Vec<f32> = (0..99).map(|at| 100.0 + ((at * 31) % 50) as f32).collect();
        let value = |patch: &[f32]| {
            let mut point = samples().row(0).to_vec();
            placed.cover(&domain, &disc, patch, &mut point);
            point.iter().zip(&slopes).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
        };
        let ours = placed.pull_back(&domain, &disc, &slopes);
        assert!(ours.iter().any(|slope| *slope != 0.0));
        for element in 0..99 {
            let at = |shift: f32| {
                let mut moved = patch.clone();
                moved[element] += shift;
                value(&moved)
            };
            let slope = (at(1.0) - at(-1.0)) / 2.0;
            assert!((slope - f64::from(ours[element])).abs() < 1e-3, "{element}: {slope} {}", ours[element]);
        }
    }

    #[test]
    fn a_patch_stays_inside_the_sample_and_passes_the_mechanics_of_the_suite() {
        let disc = Disc::new(&images());
        let whole: f32 = disc.mask.iter().sum();
        for sample in 0..50 {
            let placed = disc.place(0.5, 0.0, &mut Seed(1).for_sample(sample));
            let area: f32 = placed.cover.iter().sum();
            assert!((area / whole - 0.25).abs() < 0.08, "{area} of {whole}");
        }
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let patch = Patch::try_from(PatchConfig { applied_scale: 1.0, ..config() }).unwrap();
        let fit = patch.fit(&model, &samples, &goal, &everything(suite::ct_domain()), Seed(1)).unwrap();
        assert_eq!(suite::check_mechanics(&*fit), Ok(()));
    }

    #[test]
    fn serves_signals_and_volumes_but_no_table() {
        for shape in [&[2, 20][..], &[1, 4, 5, 6], &[7]] {
            let domain = Domain::grey_levels(shape, 255.0).unwrap();
            let elements = domain.elements();
            let model = Linear::new(
                domain.clone(),
                Task::Binary { threshold: 0.0 },
                vec![vec![1.0; elements]],
                vec![-101.0 * elements as f32],
            );
            let samples = Samples::new(vec![100.0; 2 * elements], shape).unwrap();
            let goal = Goal::Untargeted { labels: vec![Label::Class(0); 2] };
            let patch = Patch::try_from(PatchConfig { steps: 5, ..config() }).unwrap();
            let threat = everything(domain);
            let model: &dyn DifferentiableModel = &model;
            match patch.fit(model, &samples, &goal, &threat, Seed(1)) {
                Ok(fit) => {
                    let outcome = fit.run(model, &samples, &goal, &threat, Seed(1)).unwrap();
                    assert!(outcome.success.iter().all(|done| *done), "{shape:?}");
                }
                Err(error) => assert!(shape.len() == 1 && matches!(error, Error::Unsupported { .. }), "{error}"),
            }
        }
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in [
            "lr = 5.0",
            "steps = 0",
            "batch = 0",
            "scale = [0.5, 0.1]",
            "scale = [0.0, 0.1]",
            "applied_scale = 1.5",
            "rotation = nan",
            "learning_rate = 0.0",
        ] {
            assert!(toml::from_str::<Patch>(text).is_err(), "{text}");
        }
    }
}
