//! Diverse-input momentum FGSM (DI-FGSM, M-DI²-FGSM), Linf and L2.
//!
//! ```text
//! gₜ₊₁ = μ·gₜ + ∇ₓL(f(T(xₜ; p)), y)/‖·‖₁      xₜ₊₁ = clip(xₜ + α·sign(gₜ₊₁))
//! T    with probability p: enlarged to a random size s′ in [s, r·s), put at a random place of a frame of r·s, and
//!      shrunk back to s; otherwise nothing
//! ```
//!
//! Source: Xie et al., CVPR 2019, arXiv:1803.06978, section 3.
//!
//! Differs from the source: the networks that it attacks take the larger frame, ours is shrunk back to the size that a
//! model takes, as in later public implementations, in one interpolation instead of two; what is around the sample
//! repeats its edge, because zero is black in a photograph but water in a scan; signals and volumes are served too.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::momentum::{Estimate, Momentum};
use crate::transformation::warp::{Affine, Beyond, sides_of};
use crate::transformation::{Chain, gradient_through};

/// Settings of [`DiFgsm`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiFgsmConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps T; at least 1.
    pub steps: usize,
    /// Step α as a fraction of epsilon, 1/T in the paper; finite and above 0.
    pub relative_step_size: f32,
    /// How much of the last direction is kept, μ; finite and at least 0.
    pub decay: f32,
    /// Side r of the frame over that of the sample; 1 to 10.
    pub resize_rate: f64,
    /// Chance p that a sample is resized before a gradient; 0 to 1.
    pub probability: f64,
}

impl Default for DiFgsmConfig {
    /// The paper's: 299 elements in a frame of 330, half of the time.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            steps: 10,
            relative_step_size: 0.1,
            decay: 1.0,
            resize_rate: 1.1,
            probability: 0.5,
        }
    }
}

/// DI-FGSM; holds only settings that have been checked.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "DiFgsmConfig")]
pub struct DiFgsm {
    momentum: Momentum,
    resize_rate: f64,
    probability: f64,
}

impl TryFrom<DiFgsmConfig> for DiFgsm {
    type Error = Error;

    fn try_from(config: DiFgsmConfig) -> Result<Self, Error> {
        let DiFgsmConfig { loss, steps, relative_step_size, decay, resize_rate, probability } = config;
        if !(1.0..=10.0).contains(&resize_rate) {
            return Err(Error::invalid("resize_rate", "1 to 10", resize_rate));
        }
        if !(0.0..=1.0).contains(&probability) {
            return Err(Error::invalid("probability", "0 to 1", probability));
        }
        Ok(Self { momentum: Momentum { loss, steps, relative_step_size, decay }.check()?, resize_rate, probability })
    }
}

impl DiFgsm {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "di-fgsm",
        title: "Diverse-input momentum FGSM",
        source: "Xie et al. 2019, arXiv:1803.06978",
        family: "transfer",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: false,
    };

    /// One draw of T.
    fn draw(self, sides: &[usize], generator: &mut impl RngExt) -> Chain {
        if generator.random::<f64>() >= self.probability {
            return Chain::default();
        }
        // Sizes in units of the frame: the content takes `content` of it and begins at `start`.
        let content = (1.0 + (self.resize_rate - 1.0) * generator.random::<f64>()) / self.resize_rate;
        let mut map = Affine::identity(sides.len());
        map.scales.fill(1.0 / content);
        for (shift, side) in map.shifts.iter_mut().zip(sides) {
            let start = (1.0 - content) * generator.random::<f64>();
            // The content's middle lies at start + content/2 of the frame instead of at 1/2.
            *shift = (0.5 - start - 0.5 * content) / content * *side as f64;
        }
        Chain(vec![Box::new(map.warp(sides, Beyond::Edge))])
    }
}

impl Attack for DiFgsm {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let sides = sides_of("resizing", problem.inputs.shape())?;
        self.momentum.run(
            problem,
            1,
            |at| {
                let seed = problem.seed.stream(at.step);
                let indices = problem.inputs.indices().iter();
                let through: Vec<Chain> =
                    indices.map(|&sample| self.draw(sides, &mut seed.for_sample(sample))).collect();
                let gradient = gradient_through(problem.oracle, at.points, at.objective, &through)?.inputs;
                Ok(Estimate { gradient, seen: None })
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
    use crate::transformation::Transformation;
    use nocebo_core::Seed;
    use nocebo_testkit::suite::{self, Strength};

    fn attack(probability: f64) -> DiFgsm {
        DiFgsm::try_from(DiFgsmConfig { probability, ..DiFgsmConfig::default() }).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        assert_eq!(suite::check(&attack(0.5), Strength { linear: 1.5, goals: true }), Ok(()));
        assert_eq!(suite::check(&attack(0.0), Strength::EXACT), Ok(()));
    }

    #[test]
    fn the_content_shrinks_and_stays_in_the_frame() {
        let ramp: Vec<f32> = (0..100).map(|at| at as f32).collect();
        let (mut resized, mut starts) = (0, std::collections::BTreeSet::new());
        for sample in 0..200 {
            let chain = attack(0.5).draw(&[100], &mut Seed(1).for_sample(sample));
            if chain.0.is_empty() {
                continue;
            }
            resized += 1;
            let moved = chain.apply(&ramp);
            let slope = moved[50] - moved[49];
            assert!((1.0..=1.1 + 1e-3).contains(&slope), "{slope}");
            // Both ends of the content are still inside, so the edge begins to repeat there.
            assert!(moved[0] < 1.0 && moved[99] > 98.0, "{} {}", moved[0], moved[99]);
            starts.insert(moved.iter().filter(|value| **value == 0.0).count());
        }
        assert!((70..130).contains(&resized) && starts.len() > 3, "{resized} {starts:?}");
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["resize = 3", "resize_rate = 0.9", "probability = 1.1", "probability = nan", "steps = 0"] {
            assert!(toml::from_str::<DiFgsm>(text).is_err(), "{text}");
        }
    }
}
