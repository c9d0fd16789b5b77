//! Adversarial camouflage (`AdvCam`), our reading: a change in a mask that has the texture of what surrounds it, Linf and
//! L2.
//!
//! ```text
//! min over x′ in the region   −E L(f(t(x′))) + w_s·‖G(x′) − G*‖² + w_c·mean (x′ − x)² + w_v·TV(x′)      by Adam
//! F(p)  responses at p of every channel, smoothed with σ = 0, 1, 2, and of their differences along every axis
//! G     mean of F·Fᵀ over the region          G* that of the clean sample outside the region (everywhere if none is)
//! ```
//!
//! Source: Duan et al., CVPR 2020, arXiv:2003.08757, section 3. Survey: \[31\].
//!
//! Differs from the source: texture is read by a fixed bank of linear filters where the paper has the features of a
//! trained network; the style to be taken on is the surroundings of the mask in the same sample, not another image; the
//! content term acts on the values themselves; the weights are ours.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::penalty::total_variation;
use super::views::{Views, fractions};
use crate::transfer::momentum::Momentum;
use crate::transformation::Transformations;
use crate::transformation::filter::Kernel;
use crate::transformation::warp::sides_of;

/// Settings of [`AdvCam`].
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdvCamConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps of Adam; at least 1.
    pub steps: usize,
    /// Learning rate of Adam as a fraction of epsilon, at most of the range (L2: over √n); finite and above 0.
    pub relative_step_size: f32,
    /// Weight `w_s` of the difference in texture; finite and at least 0.
    pub style_weight: f64,
    /// Weight `w_c` of the mean squared change in the region; finite and at least 0.
    pub content_weight: f64,
    /// Weight `w_v` of the total variation; finite and at least 0.
    pub variation_weight: f64,
    /// Views drawn at every step, beside the sample itself; at least 1.
    pub draws: usize,
    /// What the camouflage must survive.
    pub transformations: Transformations,
}

impl Default for AdvCamConfig {
    /// Values chosen here; the transformations are those of expectation over transformation.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            steps: 200,
            relative_step_size: 0.02,
            style_weight: 100.0,
            content_weight: 1.0,
            variation_weight: 0.001,
            draws: 4,
            transformations: Transformations::planar(),
        }
    }
}

/// Adversarial camouflage; holds only settings that have been checked.
pub struct AdvCam {
    search: Momentum,
    views: Views,
    style_weight: f64,
    content_weight: f64,
    variation_weight: f64,
}

impl TryFrom<AdvCamConfig> for AdvCam {
    type Error = Error;

    fn try_from(config: AdvCamConfig) -> Result<Self, Error> {
        let AdvCamConfig { loss, steps, relative_step_size, style_weight, content_weight, variation_weight, .. } =
            config;
        let weights = [
            ("style_weight", style_weight),
            ("content_weight", content_weight),
            ("variation_weight", variation_weight),
        ];
        for (field, value) in weights {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(field, "finite and at least 0", value));
            }
        }
        Ok(Self {
            search: Momentum { loss, steps, relative_step_size, decay: 0.0 }.check()?,
            views: Views::new(config.transformations, config.draws)?,
            style_weight,
            content_weight,
            variation_weight,
        })
    }
}

impl AdvCam {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "adv-cam",
        title: "Adversarial camouflage (our reading)",
        source: "Duan et al. 2020, arXiv:2003.08757",
        family: "physical",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps · (1 + draws) gradients, 1 query",
        minimum_norm: false,
    };
}

impl Attack for AdvCam {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps · (1 + draws)` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let domain = problem.threat.domain();
        let sides = sides_of("a texture", domain.shape())?;
        let plane: usize = sides.iter().product();
        let inside: Vec<bool> = (0..plane).map(|place| domain.is_mutable(place)).collect();
        let outside: Vec<bool> = inside.iter().map(|inside| !inside).collect();
        let texture = Texture::new(sides);
        let clean: Vec<Vec<f64>> = problem.inputs.rows().map(|row| fractions(domain, row)).collect();
        let around = if outside.contains(&true) { &outside } else { &inside };
        let styles: Vec<Vec<f64>> = clean.iter().map(|values| gram(&texture.features(values), around)).collect();
        let count = inside.iter().filter(|inside| **inside).count().max(1) as f64;
        let penalise = |row: usize, values: &[f64], slopes: &mut [f64]| {
            texture.add_difference(values, &styles[row], &inside, -self.style_weight, slopes);
            for (slope, (value, clean)) in slopes.iter_mut().zip(values.iter().zip(&clean[row])) {
                *slope -= 2.0 * self.content_weight * (value - clean) / count;
            }
            total_variation(sides, values, -self.variation_weight, slopes);
        };
        self.views.ascend_by_adam(problem, &self.search, penalise, |_, _| true)
    }
}

/// A bank of linear filters.
struct Texture {
    sides: Vec<usize>,
    kernels: Vec<Kernel>,
}

/// Standard deviations of the smoothing in elements.
const SCALES: [f64; 3] = [0.0, 1.0, 2.0];

impl Texture {
    fn new(sides: &[usize]) -> Self {
        Self { sides: sides.to_vec(), kernels: SCALES.map(Kernel::of_deviation).to_vec() }
    }

    /// The responses of every filter on every channel: one row a feature, one number a place.
    fn features(&self, values: &[f64]) -> Vec<Vec<f64>> {
        let plane: usize = self.sides.iter().product();
        let mut features = Vec::new();
        for channel in values.chunks_exact(plane) {
            for kernel in &self.kernels {
                let smooth = smoothed(kernel, &self.sides, channel);
                for axis in 0..self.sides.len() {
                    features.push(difference(&self.sides, axis, &smooth));
                }
                features.push(smooth);
            }
        }
        features
    }

    /// `‖G(values) − style‖²`; adds `weight` times its derivative to `slopes`.
    fn add_difference(&self, values: &[f64], style: &[f64], inside: &[bool], weight: f64, slopes: &mut [f64]) -> f64 {
        let plane: usize = self.sides.iter().product();
        let features = self.features(values);
        let own = gram(&features, inside);
        let gaps: Vec<f64> = own.iter().zip(style).map(|(own, style)| own - style).collect();
        let count = inside.iter().filter(|inside| **inside).count().max(1) as f64;
        // d‖G − G*‖²/dF = 4·(G − G*)·F/n, since G is symmetric; then back through the filters.
        let slopes_of = |feature: usize| -> Vec<f64> {
            let mut slope = vec![0.0; plane];
            for (other, values) in features.iter().enumerate() {
                let gap = 4.0 * weight * gaps[feature * features.len() + other] / count;
                for place in (0..plane).filter(|&place| inside[place]) {
                    slope[place] += gap * values[place];
                }
            }
            slope
        };
        let mut feature = 0;
        for channel in slopes.chunks_exact_mut(plane) {
            for kernel in &self.kernels {
                let mut smooth = vec![0.0; plane];
                for axis in 0..self.sides.len() {
                    difference_transposed(&self.sides, axis, &slopes_of(feature), &mut smooth);
                    feature += 1;
                }
                for (total, slope) in smooth.iter_mut().zip(slopes_of(feature)) {
                    *total += slope;
                }
                feature += 1;
                // A kernel is its own transpose.
                for (slope, part) in channel.iter_mut().zip(smoothed(kernel, &self.sides, &smooth)) {
                    *slope += part;
                }
            }
        }
        gaps.iter().map(|gap| gap * gap).sum()
    }
}

fn smoothed(kernel: &Kernel, sides: &[usize], channel: &[f64]) -> Vec<f64> {
    let values: Vec<f32> = channel.iter().map(|value| *value as f32).collect();
    kernel.smooth(sides, &values).into_iter().map(f64::from).collect()
}

/// Differences to the next element along an axis; 0 for the last one.
fn difference(sides: &[usize], axis: usize, values: &[f64]) -> Vec<f64> {
    let stride: usize = sides[axis + 1..].iter().product();
    let next =
        |at: usize| if at / stride % sides[axis] + 1 < sides[axis] { values[at + stride] - values[at] } else { 0.0 };
    (0..values.len()).map(next).collect()
}

/// Adds the transpose of [`difference`].
fn difference_transposed(sides: &[usize], axis: usize, slopes: &[f64], sum: &mut [f64]) {
    let stride: usize = sides[axis + 1..].iter().product();
    for (at, slope) in slopes.iter().enumerate() {
        if at / stride % sides[axis] + 1 < sides[axis] {
            sum[at + stride] += slope;
            sum[at] -= slope;
        }
    }
}

/// The mean of F·Fᵀ over the marked places, row by row.
fn gram(features: &[Vec<f64>], marked: &[bool]) -> Vec<f64> {
    let count = marked.iter().filter(|marked| **marked).count().max(1) as f64;
    let dot = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).zip(marked).filter(|(_, marked)| **marked).map(|((a, b), _)| a * b).sum()
    };
    features.iter().flat_map(|a| features.iter().map(move |b| dot(a, b) / count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Label, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, Strength};

    fn still() -> AdvCamConfig {
        AdvCamConfig { transformations: Transformations::default(), ..AdvCamConfig::default() }
    }

    fn adv_cam(config: AdvCamConfig) -> AdvCam {
        AdvCam::try_from(config).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        let plain = AdvCamConfig { steps: 60, relative_step_size: 0.05, ..still() };
        assert_eq!(suite::check(&adv_cam(plain), Strength { linear: 2.0, goals: true }), Ok(()));
        let viewed = AdvCamConfig { steps: 8, draws: 2, ..AdvCamConfig::default() };
        assert_eq!(suite::check_mechanics(&adv_cam(viewed)), Ok(()));
    }

    #[test]
    fn the_texture_difference_has_its_derivative_and_vanishes_on_itself() {
        let texture = Texture::new(&[3, 4]);
        let values: Vec<f64> = (0..24).map(|at| f64::from((at * 7) % 11) / 10.0).collect();
        let other: Vec<f64> = (0..24).map(|at| f64::from((at * 5) % 13) / 12.0).collect();
        let inside: Vec<bool> = (0..12).map(|at| at % 3 != 0).collect();
        let style = gram(&texture.features(&other), &inside);
        let own = gram(&texture.features(&values), &inside);
        assert_eq!(texture.add_difference(&values, &own, &inside, 1.0, &mut [0.0; 24]), 0.0);
        // Smoothing is in f32, so differences are taken over a wider step.
        let mut slopes = vec![0.0; 24];
        texture.add_difference(&values, &style, &inside, 1.0, &mut slopes);
        for element in 0..24 {
            let at = |shift: f64| {
                let mut moved = values.clone();
                moved[element] += shift;
                texture.add_difference(&moved, &style, &inside, 1.0, &mut [0.0; 24])
            };
            let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
            assert!((slope - slopes[element]).abs() < 2e-3, "{element}: {slope} {}", slopes[element]);
        }
    }

    #[test]
    fn style_makes_the_change_look_like_its_surroundings() {
        // Stripes around a flat middle: class 1 where the middle is bright.
        let region: Vec<bool> = (0..64).map(|at| (2..6).contains(&(at / 8)) && (2..6).contains(&(at % 8))).collect();
        let domain = Domain::grey_levels(&[1, 8, 8], 255.0).unwrap().with_region(region.clone()).unwrap();
        let weights = region.iter().map(|inside| if *inside { 0.01 } else { 0.0 }).collect();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![weights], vec![-18.0]);
        let stripes = |at: usize| if at.is_multiple_of(2) { 50.0 } else { 190.0 };
        let image = (0..64).map(|at| if region[at] { 100.0 } else { stripes(at) }).collect();
        let samples = Samples::new(image, &[1, 8, 8]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::Linf, f32::INFINITY, domain.clone()).unwrap();
        let gap = |style_weight: f64| {
            let config = AdvCamConfig { style_weight, content_weight: 0.0, variation_weight: 0.0, ..still() };
            let outcome = adv_cam(config).run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
            assert!(outcome.success[0]);
            let texture = Texture::new(&[8, 8]);
            let outside: Vec<bool> = region.iter().map(|inside| !inside).collect();
            let style = gram(&texture.features(&fractions(&domain, samples.row(0))), &outside);
            let values = fractions(&domain, outcome.perturbed_inputs.row(0));
            texture.add_difference(&values, &style, &region, 0.0, &mut [0.0; 64])
        };
        assert!(gap(100.0) < 0.5 * gap(0.0), "{} {}", gap(100.0), gap(0.0));
    }

    #[test]
    fn a_table_and_invalid_settings_are_refused() {
        let build = |text: &str| AdvCam::try_from(toml::from_str::<AdvCamConfig>(text).ok()?).ok();
        for text in ["lambda = 1.0", "steps = 0", "style_weight = -1.0", "content_weight = nan", "draws = 0"] {
            assert!(build(text).is_none(), "{text}");
        }
        let domain = Domain::grey_levels(&[4], 255.0).unwrap();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![vec![1.0; 4]], vec![-500.0]);
        let table = Samples::new(vec![100.0; 4], &[4]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::Linf, 8.0, domain).unwrap();
        assert!(adv_cam(still()).run(&model, &table, &goal, &threat, Seed(1)).is_err());
    }
}
