//! Robust physical perturbations (RP₂): a sticker that works from every view, Linf and L2.
//!
//! ```text
//! min over δ   λ·‖M·δ‖₂ + ν·NPS(x + M·δ) − E_T L(f(T(x + M·δ)))      by Adam
//! M            the region of interest; narrower when asked: where |δ| is greatest after a first search with λ·‖δ‖₁
//! ```
//!
//! Source: Eykholt et al., CVPR 2018, arXiv:1707.08945, section 3. Survey: \[34\].
//!
//! Differs from the source: the views of the object are random transformations of one sample instead of photographs, and
//! the perturbation is not aligned to each of them separately; the weights are ours, for values in fractions of the range.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::penalty::Palette;
use super::views::{Views, fractions};
use crate::transfer::momentum::Momentum;
use crate::transformation::Transformations;

/// Settings of [`Rp2`].
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rp2Config {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps of Adam; at least 1.
    pub steps: usize,
    /// Learning rate of Adam as a fraction of epsilon, at most of the range (L2: over √n); finite and above 0.
    pub relative_step_size: f32,
    /// Weight λ of the size of the change; finite and at least 0.
    pub size_weight: f64,
    /// Weight ν of the non-printability score; finite and at least 0.
    pub printability_weight: f64,
    /// Colours that can be printed, as fractions of the range.
    pub palette: Palette,
    /// Share of the region's places that the sticker covers, found by a first search; above 0, 1 for the whole region.
    pub mask_share: f64,
    /// Views drawn at every step, beside the sample itself; at least 1.
    pub draws: usize,
    /// What the sticker must survive.
    pub transformations: Transformations,
}

impl Default for Rp2Config {
    /// Values chosen here; the transformations are those of expectation over transformation.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            steps: 100,
            relative_step_size: 0.05,
            size_weight: 0.01,
            printability_weight: 0.1,
            palette: Palette::default(),
            mask_share: 1.0,
            draws: 10,
            transformations: Transformations::planar(),
        }
    }
}

/// RP₂; holds only settings that have been checked.
pub struct Rp2 {
    search: Momentum,
    views: Views,
    size_weight: f64,
    printability_weight: f64,
    palette: Palette,
    mask_share: f64,
}

impl TryFrom<Rp2Config> for Rp2 {
    type Error = Error;

    fn try_from(config: Rp2Config) -> Result<Self, Error> {
        let Rp2Config { loss, steps, relative_step_size, size_weight, printability_weight, mask_share, .. } = config;
        for (field, value) in [("size_weight", size_weight), ("printability_weight", printability_weight)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(field, "finite and at least 0", value));
            }
        }
        if !(mask_share > 0.0 && mask_share <= 1.0) {
            return Err(Error::invalid("mask_share", "above 0, at most 1", mask_share));
        }
        config.palette.check()?;
        Ok(Self {
            search: Momentum { loss, steps, relative_step_size, decay: 0.0 }.check()?,
            views: Views::new(config.transformations, config.draws)?,
            size_weight,
            printability_weight,
            palette: config.palette,
            mask_share,
        })
    }
}

impl Rp2 {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "rp2",
        title: "Robust physical perturbations (RP2)",
        source: "Eykholt et al. 2018, arXiv:1707.08945",
        family: "physical",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps · (1 + draws) gradients, 1 query; twice that for a narrow sticker",
        minimum_norm: false,
    };

    /// The places of each sample that its sticker covers: those that a search for a sparse change moved most.
    fn masks(&self, problem: &AttackProblem<'_>) -> Result<Vec<Vec<bool>>, Error> {
        let domain = problem.threat.domain();
        let plane: usize = domain.shape()[1..].iter().product();
        let free: Vec<usize> = (0..plane)
            .filter(|place| (0..domain.shape()[0]).any(|channel| domain.is_mutable(channel * plane + place)))
            .collect();
        let mut masks = vec![vec![true; plane]; problem.inputs.len()];
        let covered = (self.mask_share * free.len() as f64).ceil() as usize;
        if covered >= free.len() {
            return Ok(masks);
        }
        let clean: Vec<Vec<f64>> = problem.inputs.rows().map(|row| fractions(domain, row)).collect();
        let sparse = |row: usize, values: &[f64], slopes: &mut [f64]| {
            for ((slope, value), clean) in slopes.iter_mut().zip(values).zip(&clean[row]) {
                let change = value - clean;
                *slope -= if change == 0.0 { 0.0 } else { self.size_weight * change.signum() };
            }
        };
        let found = self.views.ascend_by_adam(problem, &self.search, sparse, |_, _| true)?;
        for (row, mask) in masks.iter_mut().enumerate() {
            let changes: Vec<f32> =
                found.inputs.row(row).iter().zip(problem.inputs.row(row)).map(|(a, b)| (a - b).abs()).collect();
            let moved = |place: usize| changes.iter().skip(place).step_by(plane).sum::<f32>();
            let mut order = free.clone();
            order.sort_by(|&a, &b| moved(b).total_cmp(&moved(a)).then(a.cmp(&b)));
            mask.fill(false);
            for &place in order.iter().take(covered) {
                mask[place] = true;
            }
        }
        Ok(masks)
    }
}

impl Attack for Rp2 {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps · (1 + draws)` gradient queries and one query a sample, twice that when the sticker is narrower than
    /// the region.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let domain = problem.threat.domain();
        self.palette.check_channels(domain.shape()[0])?;
        let plane: usize = domain.shape()[1..].iter().product();
        let masks = self.masks(problem)?;
        let clean: Vec<Vec<f64>> = problem.inputs.rows().map(|row| fractions(domain, row)).collect();
        let penalise = |row: usize, values: &[f64], slopes: &mut [f64]| {
            let changes = || values.iter().zip(&clean[row]).map(|(value, clean)| value - clean);
            let length = changes().map(|change| change * change).sum::<f64>().sqrt();
            if length > 0.0 {
                for (slope, change) in slopes.iter_mut().zip(changes()) {
                    *slope -= self.size_weight * change / length;
                }
            }
            let covered = |place: usize| masks[row][place] && domain.is_mutable(place);
            self.palette.non_printability(plane, values, covered, -self.printability_weight, slopes);
        };
        self.views.ascend_by_adam(problem, &self.search, penalise, |row, element| masks[row][element % plane])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Label, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, Strength};

    fn rp2(config: Rp2Config) -> Rp2 {
        Rp2::try_from(config).unwrap()
    }

    fn still() -> Rp2Config {
        Rp2Config { transformations: Transformations::default(), ..Rp2Config::default() }
    }

    #[test]
    fn passes_the_common_suite() {
        assert_eq!(suite::check(&rp2(still()), Strength { linear: 2.0, goals: true }), Ok(()));
        let viewed = Rp2Config { steps: 10, draws: 2, mask_share: 0.5, ..Rp2Config::default() };
        assert_eq!(suite::check_mechanics(&rp2(viewed)), Ok(()));
    }

    /// Ten elements that matter ever less, with a logit of 550 at the sample.
    fn graded(bias: f32) -> (Linear, Samples, Goal, ThreatModel) {
        let domain = Domain::grey_levels(&[1, 2, 5], 255.0).unwrap();
        let weights = (0..10).map(|at| (10 - at) as f32 / 10.0).collect();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![weights], vec![bias]);
        let threat = ThreatModel::new(Norm::Linf, f32::INFINITY, domain).unwrap();
        let samples = Samples::new(vec![100.0; 10], &[1, 2, 5]).unwrap();
        (model, samples, Goal::Untargeted { labels: vec![Label::Class(0)] }, threat)
    }

    #[test]
    fn a_narrow_sticker_covers_what_matters_most() {
        let (model, samples, goal, threat) = graded(-700.0);
        // A weight that holds back what matters least.
        let config =
            Rp2Config { mask_share: 0.3, size_weight: 100.0, printability_weight: 0.0, loss: Loss::Margin, ..still() };
        let outcome = rp2(config).run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        let changed: Vec<usize> = (0..10).filter(|&at| outcome.perturbed_inputs.row(0)[at] != 100.0).collect();
        assert_eq!(changed, [0, 1, 2]);
        assert!(outcome.success[0]);
    }

    #[test]
    fn stays_in_the_region_and_prefers_printable_colours() {
        let (model, samples, goal, threat) = graded(-650.0);
        // The middle grey, 127.5 in the six elements, adds 124 to the logit.
        let region = (0..10).map(|at| at < 6).collect();
        let inside = ThreatModel::new(Norm::Linf, 80.0, threat.domain().with_region(region).unwrap()).unwrap();
        let score = |printability_weight: f64| {
            let config = Rp2Config { printability_weight, steps: 300, relative_step_size: 0.01, ..still() };
            let outcome = rp2(config).run(&model, &samples, &goal, &inside, Seed(1)).unwrap();
            let row = outcome.perturbed_inputs.row(0).to_vec();
            assert!(row[6..] == [100.0; 4] && outcome.success[0]);
            Palette::default().non_printability(10, &fractions(inside.domain(), &row), |at| at < 6, 0.0, &mut [0.0; 10])
        };
        assert!(score(1e5) < 0.2 * score(0.0), "{} {}", score(1e5), score(0.0));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        let build = |text: &str| Rp2::try_from(toml::from_str::<Rp2Config>(text).ok()?).ok();
        for text in [
            "lambda = 1.0",
            "steps = 0",
            "size_weight = -1.0",
            "printability_weight = nan",
            "mask_share = 0.0",
            "palette = []",
            "draws = 0",
        ] {
            assert!(build(text).is_none(), "{text}");
        }
        assert!(build("palette = [[0.0], [0.2, 0.4, 0.6]]").is_some());
    }
}
