//! Masked patch that is smooth and printable, as worn on a frame of glasses: Linf and L2.
//!
//! ```text
//! min over r in the region   −E L(f(t(x + r))) + κ₁·TV(r) + κ₂·NPS(x + r)      by gradient descent with momentum
//! ```
//!
//! The region of interest is the frame: a skin marker, a ruler, an electrode, a tube or a tag in an X-ray.
//!
//! Source: Sharif et al., CCS 2016, doi 10.1145/2976749.2978392, section 4. Survey: \[116\].
//!
//! Differs from the source: views are random transformations of one sample instead of several photographs; the gradient
//! is brought to unit size before it enters the momentum, and a step is a sign step in Linf; κ₁ and κ₂ are ours. The
//! black-box version by particle swarms is left out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::penalty::{Palette, total_variation};
use super::views::{Views, fractions};
use crate::transfer::momentum::Momentum;
use crate::transformation::Transformations;

/// Settings of [`MaskedPatch`].
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskedPatchConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps; at least 1.
    pub steps: usize,
    /// Step as a fraction of epsilon, at most of the range; finite and above 0.
    pub relative_step_size: f32,
    /// How much of the last direction is kept; finite and at least 0.
    pub decay: f32,
    /// Weight κ₁ of the total variation of the change; finite and at least 0.
    pub variation_weight: f64,
    /// Weight κ₂ of the non-printability score in the region; finite and at least 0.
    pub printability_weight: f64,
    /// Colours that can be printed, as fractions of the range.
    pub palette: Palette,
    /// Views drawn at every step, beside the sample itself; at least 1.
    pub draws: usize,
    /// What the patch must survive.
    pub transformations: Transformations,
}

impl Default for MaskedPatchConfig {
    /// 300 steps are the source's; the rest is ours: small movements of the wearer and changes of light.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            steps: 300,
            relative_step_size: 0.02,
            decay: 0.9,
            variation_weight: 0.01,
            printability_weight: 0.1,
            palette: Palette::default(),
            draws: 4,
            transformations: Transformations::worn(),
        }
    }
}

/// The masked patch; holds only settings that have been checked.
pub struct MaskedPatch {
    momentum: Momentum,
    views: Views,
    variation_weight: f64,
    printability_weight: f64,
    palette: Palette,
}

impl TryFrom<MaskedPatchConfig> for MaskedPatch {
    type Error = Error;

    fn try_from(config: MaskedPatchConfig) -> Result<Self, Error> {
        let MaskedPatchConfig { loss, steps, relative_step_size, decay, .. } = config;
        let (variation_weight, printability_weight) = (config.variation_weight, config.printability_weight);
        for (field, value) in [("variation_weight", variation_weight), ("printability_weight", printability_weight)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(field, "finite and at least 0", value));
            }
        }
        config.palette.check()?;
        Ok(Self {
            momentum: Momentum { loss, steps, relative_step_size, decay }.check()?,
            views: Views::new(config.transformations, config.draws)?,
            variation_weight,
            printability_weight,
            palette: config.palette,
        })
    }
}

impl MaskedPatch {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "masked-patch",
        title: "Smooth, printable patch in a mask",
        source: "Sharif et al. 2016, doi 10.1145/2976749.2978392",
        family: "physical",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps · (1 + draws) gradients, 1 query",
        minimum_norm: false,
    };
}

impl Attack for MaskedPatch {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps · (1 + draws)` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let domain = problem.threat.domain();
        self.views.check(domain)?;
        self.palette.check_channels(domain.shape()[0])?;
        let sides = &domain.shape()[1..];
        let plane: usize = sides.iter().product();
        let range = f64::from(domain.range());
        self.momentum.run(
            problem,
            self.views.cost(),
            |at| {
                let mut estimate = self.views.gradient(problem, at)?;
                for row in 0..estimate.gradient.len() {
                    let values = fractions(domain, at.points.row(row));
                    let clean = fractions(domain, problem.inputs.row(row));
                    let change: Vec<f64> = values.iter().zip(&clean).map(|(value, clean)| value - clean).collect();
                    let mut slopes: Vec<f64> =
                        estimate.gradient.row(row).iter().map(|slope| range * f64::from(*slope)).collect();
                    total_variation(sides, &change, -self.variation_weight, &mut slopes);
                    let inside = |place: usize| domain.is_mutable(place);
                    self.palette.non_printability(plane, &values, inside, -self.printability_weight, &mut slopes);
                    for (slope, total) in estimate.gradient.row_mut(row).iter_mut().zip(slopes) {
                        *slope = total as f32;
                    }
                }
                Ok(estimate)
            },
            |size, gradient, direction, point| {
                self.momentum.accumulate_and_ascend(problem.threat, size, gradient, direction, point);
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Label, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, Strength};

    fn still() -> MaskedPatchConfig {
        MaskedPatchConfig { transformations: Transformations::default(), ..MaskedPatchConfig::default() }
    }

    fn patch(config: MaskedPatchConfig) -> MaskedPatch {
        MaskedPatch::try_from(config).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        let config = MaskedPatchConfig { steps: 60, ..still() };
        assert_eq!(suite::check(&patch(config), Strength { linear: 1.05, goals: true }), Ok(()));
        let viewed = MaskedPatchConfig { steps: 10, ..MaskedPatchConfig::default() };
        assert_eq!(suite::check_mechanics(&patch(viewed)), Ok(()));
    }

    #[test]
    fn variation_falls_with_its_weight_inside_the_mask() {
        // A chequered gradient inside a frame of 4 × 4; a smooth change must follow its mean.
        let region: Vec<bool> = (0..36).map(|at| (1..5).contains(&(at / 6)) && (1..5).contains(&(at % 6))).collect();
        let domain = Domain::grey_levels(&[1, 6, 6], 255.0).unwrap().with_region(region.clone()).unwrap();
        let weights = (0..36).map(|at| if (at / 6 + at % 6) % 2 == 0 { 0.03 } else { -0.01 }).collect();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![weights], vec![-40.0]);
        let samples = Samples::new(vec![100.0; 36], &[1, 6, 6]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::L2, 400.0, domain.clone()).unwrap();
        let variation = |variation_weight: f64| {
            let config = MaskedPatchConfig { variation_weight, printability_weight: 0.0, ..still() };
            let outcome = patch(config).run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
            assert!(outcome.success[0]);
            let row = outcome.perturbed_inputs.row(0);
            assert!((0..36).all(|at| region[at] || row[at] == 100.0));
            let inside: Vec<f64> = (0..36).filter(|&at| region[at]).map(|at| f64::from(row[at]) / 255.0).collect();
            total_variation(&[4, 4], &inside, 0.0, &mut [0.0; 16])
        };
        assert!(variation(1.5) < 0.8 * variation(0.0), "{} {}", variation(1.5), variation(0.0));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        let build = |text: &str| MaskedPatch::try_from(toml::from_str::<MaskedPatchConfig>(text).ok()?).ok();
        for text in ["kappa = 1.0", "steps = 0", "variation_weight = -1.0", "printability_weight = inf", "draws = 0"] {
            assert!(build(text).is_none(), "{text}");
        }
    }
}
