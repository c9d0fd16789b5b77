//! Carlini & Wagner's L0 attack.
//!
//! ```text
//! all elements free
//! repeat  minimise ‖δ‖₂² + c·max(s − m(x + δ), 0) over the free elements, by Adam in tanh space, until the goal is reached
//!         freeze the free elements of least |gᵢ·δᵢ|, g = ∇m(x + δ)          m the margin of the goal
//! steps used up: c ← 2·c, until c has grown too large
//! ```
//!
//! Source: Carlini & Wagner, IEEE S&P 2017, arXiv:1608.04644, section VI-B; constants and the number of elements frozen
//! at once from the authors' code. Survey: \[16\].
//!
//! Differs from the source: δ is in the range of the bounds; g is the gradient of the margin, as in the paper, where the
//! code takes that of the whole loss; elements count one by one, not pixels with all their channels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::frame::{Frame, size};
use super::search::{Ask, Search, Seen, minimise};
use super::settings::{at_least_one, growth, not_negative, positive};
use super::tanh_space::TanhSpace;
use crate::adam::Adam;

/// Missing margin, in logits, at which a search counts as done.
const DONE: f64 = 1e-4;

/// Settings of [`CarliniWagnerL0`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CarliniWagnerL0Config {
    /// Greatest number of Adam steps for each c; at least 1.
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
    /// Margin s, in logits, that a search aims at; finite and at least 0.
    pub logit_slack: f64,
    /// The first element whose |gᵢ·δᵢ| is above this (in logits) is the last one frozen in a round; finite and at least 0.
    pub freeze_below: f64,
    /// Greatest number of elements frozen in a round, as a multiple of the root of the number of changed elements (at
    /// least one is); finite and at least 0.
    pub freeze_rate: f64,
}

impl Default for CarliniWagnerL0Config {
    /// Values of the authors' code.
    fn default() -> Self {
        Self {
            steps: 1000,
            learning_rate: 0.01,
            initial_constant: 1e-3,
            largest_constant: 2e6,
            constant_factor: 2.0,
            reduce_constant: false,
            logit_slack: 0.01,
            freeze_below: 0.01,
            freeze_rate: 0.3,
        }
    }
}

/// Carlini & Wagner's L0 attack; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "CarliniWagnerL0Config")]
pub struct CarliniWagnerL0(CarliniWagnerL0Config);

impl TryFrom<CarliniWagnerL0Config> for CarliniWagnerL0 {
    type Error = Error;

    fn try_from(config: CarliniWagnerL0Config) -> Result<Self, Error> {
        at_least_one("steps", config.steps)?;
        positive("learning_rate", config.learning_rate)?;
        positive("initial_constant", config.initial_constant)?;
        positive("largest_constant", config.largest_constant)?;
        growth("constant_factor", config.constant_factor)?;
        not_negative("logit_slack", config.logit_slack)?;
        not_negative("freeze_below", config.freeze_below)?;
        not_negative("freeze_rate", config.freeze_rate)?;
        Ok(Self(config))
    }
}

impl CarliniWagnerL0 {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "carlini-wagner-l0",
        title: "Carlini & Wagner, L0",
        source: "Carlini & Wagner 2017, arXiv:1608.04644",
        family: "minimum_norm",
        norms: &[Norm::L0],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients a doubling of c and round of freezing",
        minimum_norm: true,
    };
}

impl Attack for CarliniWagnerL0 {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries a sample for each doubling of c, of which there are 31 with the default settings,
    /// and at most as many for each round of freezing.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        minimise(problem, Loss::Margin, |row| {
            let frame = Frame::new(problem.threat.domain(), problem.inputs.row(row));
            let space = TanhSpace::new(&frame);
            Descent {
                config: self.0,
                frame,
                variables: space.variables(&vec![0.0; frame.elements()]),
                space,
                free: (0..frame.elements()).map(|element| frame.room(element) != (0.0, 0.0)).collect(),
                adam: Adam::new(frame.elements()),
                constant: self.0.initial_constant,
                step: 0,
            }
        })
    }
}

/// The search of one sample.
struct Descent<'a> {
    config: CarliniWagnerL0Config,
    frame: Frame<'a>,
    space: TanhSpace,
    variables: Vec<f64>,
    free: Vec<bool>,
    adam: Adam,
    constant: f64,
    step: usize,
}

impl Descent<'_> {
    fn change(&self) -> Vec<f64> {
        let mut change = self.space.change(&self.variables);
        for (part, _) in change.iter_mut().zip(&self.free).filter(|(_, free)| !**free) {
            *part = 0.0;
        }
        change
    }

    /// Freezes the elements that matter least at a successful point; false when none is left.
    fn freeze(&mut self, change: &[f64], slopes: &[f64]) -> bool {
        let mut worth: Vec<(f64, usize)> = (0..change.len())
            .filter(|&element| self.free[element])
            .map(|element| ((slopes[element] * change[element]).abs(), element))
            .collect();
        worth.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let most = self.config.freeze_rate * size(Norm::L0, change).sqrt();
        for (count, &(worth, element)) in worth.iter().enumerate() {
            self.free[element] = false;
            if worth > self.config.freeze_below || (count + 1) as f64 >= most {
                break;
            }
        }
        if self.config.reduce_constant {
            self.constant /= 2.0;
        }
        self.adam = Adam::new(self.frame.elements());
        self.step = 0;
        self.free.contains(&true)
    }
}

impl Search for Descent<'_> {
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        let mut change = self.change();
        let slopes = self.frame.slopes(seen.gradient);
        let mut missing = (self.config.logit_slack - seen.value).max(0.0);
        if seen.reached && missing < DONE {
            if !self.freeze(&change, &slopes) {
                return None;
            }
            // Without the frozen elements the goal may be missed; the next answer tells.
            change = self.change();
            missing = 0.0;
        } else if self.step == self.config.steps {
            self.step = 0;
            self.constant *= self.config.constant_factor;
            if self.constant >= self.config.largest_constant {
                return None;
            }
        }
        self.step += 1;
        let weight = if missing > 0.0 { self.constant } else { 0.0 };
        let descent: Vec<f64> = change
            .iter()
            .zip(slopes)
            .zip(&self.free)
            .map(|((change, slope), free)| if *free { 2.0 * change - weight * slope } else { 0.0 })
            .collect();
        let descent = self.space.pull_back(&self.variables, &descent);
        self.adam.descend(&descent, self.config.learning_rate, &mut self.variables);
        Some(Ask::Gradient(self.frame.point(&self.change())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let config =
            CarliniWagnerL0Config { steps: 200, learning_rate: 0.05, constant_factor: 10.0, ..Default::default() };
        let attack = CarliniWagnerL0::try_from(config).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.25, goals: true }), Ok(()));
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["steps = 0", "constant_factor = 1.0", "logit_slack = -1.0", "freeze_rate = -0.1", "tau = 1.0"] {
            assert!(toml::from_str::<CarliniWagnerL0>(text).is_err(), "{text}");
        }
    }
}
