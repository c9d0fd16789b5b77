//! Scale-invariant Nesterov iterative FGSM (SI-NI-FGSM, SIM), Linf and L2.
//!
//! ```text
//! ḡₜ = 1/m Σᵢ ∇ₓL(f(Sᵢ(x̂ₜ)), y),  Sᵢ(x) = x/2ⁱ,  i = 0 … m−1;  then as NI-FGSM with ḡₜ
//! ```
//!
//! Source: Lin et al., ICLR 2020, arXiv:1908.06281, section 3.2 and algorithm 1. Survey: \[78\].
//!
//! Differs from the source: values shrink towards the value nearest to zero that the bounds allow
//! ([`origin`]), which is zero itself for the paper's images.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, DifferentiableModel, Error, GoalKind, Knowledge, Loss, Norm, Objective,
    Perturbation, Samples,
};

use super::momentum::{Estimate, MeanGradient, Momentum};
use super::ni_fgsm::ahead;
use crate::transformation::gradient_through;
use crate::transformation::tone::{Tone, origin};

/// Settings of [`SiNiFgsm`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiNiFgsmConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps T; at least 1.
    pub steps: usize,
    /// Step α as a fraction of epsilon, 1/T in the paper; finite and above 0.
    pub relative_step_size: f32,
    /// How much of the last direction is kept, μ; finite and at least 0. With 0 there is no look ahead either.
    pub decay: f32,
    /// Copies m, each half as bright as the one before; 1 to 64.
    pub scales: u32,
}

impl Default for SiNiFgsmConfig {
    /// The paper's.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, steps: 10, relative_step_size: 0.1, decay: 1.0, scales: 5 }
    }
}

/// SI-NI-FGSM; holds only settings that have been checked.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "SiNiFgsmConfig")]
pub struct SiNiFgsm {
    momentum: Momentum,
    scales: u32,
}

impl TryFrom<SiNiFgsmConfig> for SiNiFgsm {
    type Error = Error;

    fn try_from(config: SiNiFgsmConfig) -> Result<Self, Error> {
        let SiNiFgsmConfig { loss, steps, relative_step_size, decay, scales } = config;
        if !(1..=64).contains(&scales) {
            return Err(Error::invalid("scales", "1 to 64", scales));
        }
        Ok(Self { momentum: Momentum { loss, steps, relative_step_size, decay }.check()?, scales })
    }
}

impl SiNiFgsm {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "si-ni-fgsm",
        title: "Scale-invariant Nesterov iterative FGSM",
        source: "Lin et al. 2020, arXiv:1908.06281",
        family: "transfer",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps · scales gradients, 1 query",
        minimum_norm: false,
    };
}

impl Attack for SiNiFgsm {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps · scales` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        self.momentum.run(
            problem,
            self.scales as usize,
            |at| {
                let points = ahead(at, self.momentum.decay);
                let mut mean = MeanGradient::new();
                add_scaled(problem, &points, at.objective, self.scales, &mut mean)?;
                Ok(Estimate { gradient: mean.finish(&points), seen: None })
            },
            |size, gradient, direction, point| {
                self.momentum.accumulate_and_ascend(problem.threat, size, gradient, direction, point);
            },
        )
    }
}

/// Adds the gradients through `scales` copies of `points`, each half as far from the origin as the one before.
pub(super) fn add_scaled(
    problem: &AttackProblem<'_>,
    points: &Samples,
    objective: &dyn Objective,
    scales: u32,
    mean: &mut MeanGradient,
) -> Result<(), Error> {
    let middle = origin(problem.threat.domain());
    let model: &dyn DifferentiableModel = problem.oracle;
    for scale in 0..scales {
        let shrink =
            Tone { contrast: 0.5_f32.powi(scale as i32), middle: middle.clone(), offset: vec![0.0; middle.len()] };
        mean.add(&gradient_through(model, points, objective, &vec![&shrink; points.len()])?.inputs);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Label, Seed, ThreatModel};
    use nocebo_testkit::models::Quadratic;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = SiNiFgsm::try_from(SiNiFgsmConfig::default()).unwrap();
        // Around a point that is not the origin the gradients of dimmed copies lead astray.
        assert_eq!(suite::check(&attack, Strength { linear: 4.0, goals: true }), Ok(()));
        let bright = SiNiFgsm::try_from(SiNiFgsmConfig { scales: 1, ..SiNiFgsmConfig::default() }).unwrap();
        assert_eq!(suite::check(&bright, Strength::EXACT), Ok(()));
    }

    #[test]
    fn averages_the_gradients_of_dimmed_copies() {
        // ∇ of ‖x/2ⁱ − c‖² by x is 2·(x/2ⁱ − c)/2ⁱ: with c = (60, 0) and x = (64, 2) the mean over i = 0, 1 is
        // ½·(8 + (32 − 60)) = −10 and ½·(4 + 1) = 2.5, while the copy at full brightness alone says (8, 4).
        let domain = Domain::grey_levels(&[2], 255.0).unwrap();
        let model = Quadratic::new(domain.clone(), vec![60.0, 0.0], 50.0);
        let samples = Samples::new(vec![64.0, 2.0], &[2]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::L2, 4.0, domain).unwrap();
        let moved = |scales| {
            let config = SiNiFgsmConfig { loss: Loss::Margin, steps: 1, relative_step_size: 1.0, decay: 1.0, scales };
            let attack = SiNiFgsm::try_from(config).unwrap();
            attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap().perturbed_inputs.row(0).to_vec()
        };
        let expect = |scales, slope: [f32; 2]| {
            let length = slope[0].hypot(slope[1]);
            for ((moved, clean), slope) in moved(scales).iter().zip([64.0, 2.0]).zip(slope) {
                assert!((moved - (clean + 4.0 * slope / length)).abs() < 1e-4, "{scales}: {moved}");
            }
        };
        expect(1, [8.0, 4.0]);
        expect(2, [-10.0, 2.5]);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["scale = 3", "scales = 0", "scales = 65", "steps = 0"] {
            assert!(toml::from_str::<SiNiFgsm>(text).is_err(), "{text}");
        }
    }
}
