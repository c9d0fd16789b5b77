//! Carlini & Wagner's Linf attack.
//!
//! ```text
//! minimise c·max(−m(x + δ), 0) + Σ max(|δᵢ| − τ, 0)     m the margin of the goal; x + δ in tanh space, by Adam
//! goal reached inside τ:  τ ← 0.9·min(τ, ‖δ‖∞), go on from there
//! steps used up:          c ← 2·c
//! ```
//!
//! It ends when τ falls below a grey level or c has grown too large.
//!
//! Source: Carlini & Wagner, IEEE S&P 2017, arXiv:1608.04644, section VI-C; constants of the authors' code. Survey: \[16\].
//!
//! Differs from the source: δ and τ are in the range of the bounds; where elements have a storage step, τ ends there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::frame::{Frame, size};
use super::search::{Ask, Search, Seen, minimise};
use super::settings::{at_least_one, fraction, growth, positive};
use super::tanh_space::TanhSpace;
use crate::adam::Adam;

/// Loss, as a fraction of c, at which a search counts as done.
const DONE: f64 = 1e-4;

/// Settings of [`CarliniWagnerLinf`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CarliniWagnerLinfConfig {
    /// Greatest number of Adam steps for each c and τ; at least 1.
    pub steps: usize,
    /// Step size of Adam in tanh space; finite and above 0.
    pub learning_rate: f64,
    /// First value of c; finite and above 0.
    pub initial_constant: f64,
    /// Value of c from which on the attack gives up; finite and above 0.
    pub largest_constant: f64,
    /// Factor by which c grows; finite and above 1.
    pub constant_factor: f64,
    /// Halve c after each success.
    pub reduce_constant: bool,
    /// Factor by which τ falls; above 0 and below 1.
    pub threshold_factor: f64,
    /// τ at which the attack ends, as a fraction of the range of the bounds, for elements stored as floats; above 0
    /// and below 1.
    pub least_threshold: f64,
}

impl Default for CarliniWagnerLinfConfig {
    /// Values of the authors' code.
    fn default() -> Self {
        Self {
            steps: 1000,
            learning_rate: 5e-3,
            initial_constant: 1e-5,
            largest_constant: 20.0,
            constant_factor: 2.0,
            reduce_constant: false,
            threshold_factor: 0.9,
            least_threshold: 1.0 / 256.0,
        }
    }
}

/// Carlini & Wagner's Linf attack; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "CarliniWagnerLinfConfig")]
pub struct CarliniWagnerLinf(CarliniWagnerLinfConfig);

impl TryFrom<CarliniWagnerLinfConfig> for CarliniWagnerLinf {
    type Error = Error;

    fn try_from(config: CarliniWagnerLinfConfig) -> Result<Self, Error> {
        at_least_one("steps", config.steps)?;
        positive("learning_rate", config.learning_rate)?;
        positive("initial_constant", config.initial_constant)?;
        positive("largest_constant", config.largest_constant)?;
        growth("constant_factor", config.constant_factor)?;
        fraction("threshold_factor", config.threshold_factor)?;
        fraction("least_threshold", config.least_threshold)?;
        Ok(Self(config))
    }
}

impl CarliniWagnerLinf {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "carlini-wagner-linf",
        title: "Carlini & Wagner, Linf",
        source: "Carlini & Wagner 2017, arXiv:1608.04644",
        family: "minimum_norm",
        norms: &[Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients a doubling of c and value of τ",
        minimum_norm: true,
    };
}

impl Attack for CarliniWagnerLinf {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries a sample for each doubling of c, of which there are 21 with the default settings,
    /// and at most as many for each τ.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let domain = problem.threat.domain();
        let finest = domain.resolution().iter().fold(f32::INFINITY, |least, step| least.min(*step));
        let least_threshold =
            if finest > 0.0 { f64::from(finest) / f64::from(domain.range()) } else { self.0.least_threshold };
        minimise(problem, Loss::Margin, |row| {
            let frame = Frame::new(domain, problem.inputs.row(row));
            let space = TanhSpace::new(&frame);
            Descent {
                config: self.0,
                least_threshold,
                frame,
                variables: space.variables(&vec![0.0; frame.elements()]),
                space,
                adam: Adam::new(frame.elements()),
                constant: self.0.initial_constant,
                threshold: 1.0,
                step: 0,
            }
        })
    }
}

/// The search of one sample.
struct Descent<'a> {
    config: CarliniWagnerLinfConfig,
    least_threshold: f64,
    frame: Frame<'a>,
    space: TanhSpace,
    variables: Vec<f64>,
    adam: Adam,
    constant: f64,
    threshold: f64,
    step: usize,
}

impl Descent<'_> {
    /// Goes on with a smaller threshold; false when it is small enough.
    fn tighten(&mut self, change: &[f64]) -> bool {
        self.threshold = self.config.threshold_factor * self.threshold.min(size(Norm::Linf, change));
        if self.config.reduce_constant {
            self.constant /= 2.0;
        }
        self.adam = Adam::new(self.frame.elements());
        self.step = 0;
        self.threshold > self.least_threshold
    }
}

impl Search for Descent<'_> {
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        let change = self.space.change(&self.variables);
        let missing = (-seen.value).max(0.0);
        let beyond: f64 = change.iter().map(|change| (change.abs() - self.threshold).max(0.0)).sum();
        if seen.reached && self.constant * missing + beyond < DONE * self.constant && !self.tighten(&change) {
            return None;
        }
        if self.step == self.config.steps {
            self.step = 0;
            self.constant *= self.config.constant_factor;
            if self.constant >= self.config.largest_constant {
                return None;
            }
        }
        self.step += 1;
        let weight = if missing > 0.0 { self.constant } else { 0.0 };
        let slopes = self.frame.slopes(seen.gradient);
        let descent: Vec<f64> = change
            .iter()
            .zip(slopes)
            .map(|(change, slope)| {
                let size_slope = if change.abs() > self.threshold { change.signum() } else { 0.0 };
                size_slope - weight * slope
            })
            .collect();
        let descent = self.space.pull_back(&self.variables, &descent);
        self.adam.descend(&descent, self.config.learning_rate, &mut self.variables);
        Some(Ask::Gradient(self.frame.point(&self.space.change(&self.variables))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let config = CarliniWagnerLinfConfig {
            steps: 50,
            learning_rate: 1e-3,
            largest_constant: 1.0,
            constant_factor: 10.0,
            ..Default::default()
        };
        let attack = CarliniWagnerLinf::try_from(config).unwrap();
        // One least change of the suite is smaller than the storage step, where the attack ends.
        assert_eq!(suite::check(&attack, Strength { linear: 1.5, goals: true }), Ok(()));
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in
            ["steps = 0", "constant_factor = 1.0", "threshold_factor = 1.0", "least_threshold = 0.0", "tau = 1.0"]
        {
            assert!(toml::from_str::<CarliniWagnerLinf>(text).is_err(), "{text}");
        }
    }
}
