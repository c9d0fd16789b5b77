//! Carlini & Wagner's L2 attack.
//!
//! ```text
//! x' = ½(u + l) + ½(u − l)·tanh(w)                     l, u the bounds
//! minimise over w   ‖x' − x‖₂² + c·max(κ − m(x'), 0)   m the margin of the goal, by Adam
//! ```
//!
//! A binary search finds the least c that still succeeds: ten times greater until a first success, then halfway.
//!
//! Source: Carlini & Wagner, IEEE S&P 2017, arXiv:1608.04644, sections V and VI-A; constants of the authors' code.
//! Survey: \[16\].
//!
//! Differs from the source: distances are in the range of the bounds, so that the constants hold for any unit; a
//! sample that makes no progress ends its search step alone, not when the whole batch stalls; Adam starts anew with
//! each search step; of untargeted goals the margin to the greatest other class is used, whatever its sign.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::constant_search::{ConstantSearch, LEAST_STEPS_BETWEEN_LOOKS};
use super::frame::{Frame, size};
use super::search::{Ask, Search, Seen, minimise};
use super::settings::{at_least_one, not_negative, positive};
use super::tanh_space::TanhSpace;
use crate::adam::Adam;

/// Settings of [`CarliniWagnerL2`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CarliniWagnerL2Config {
    /// Values of c that are tried; at least 1.
    pub search_steps: usize,
    /// Greatest number of Adam steps for each c; at least 1.
    pub steps: usize,
    /// Step size of Adam in the variable w; finite and above 0.
    pub learning_rate: f64,
    /// First value of c; finite and above 0.
    pub initial_constant: f64,
    /// Margin κ, in logits, that a point must have to count; finite and at least 0. Above 0 for transfer.
    pub confidence: f64,
    /// Look ten times during a search step, but at most every hundred steps, whether the loss still falls, and end the search
    /// step when it does not.
    pub abort_early: bool,
}

impl Default for CarliniWagnerL2Config {
    /// Values of the authors' code.
    fn default() -> Self {
        Self {
            search_steps: 9,
            steps: 10_000,
            learning_rate: 0.01,
            initial_constant: 1e-3,
            confidence: 0.0,
            abort_early: true,
        }
    }
}

/// Carlini & Wagner's L2 attack; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "CarliniWagnerL2Config")]
pub struct CarliniWagnerL2(CarliniWagnerL2Config);

impl TryFrom<CarliniWagnerL2Config> for CarliniWagnerL2 {
    type Error = Error;

    fn try_from(config: CarliniWagnerL2Config) -> Result<Self, Error> {
        at_least_one("search_steps", config.search_steps)?;
        at_least_one("steps", config.steps)?;
        positive("learning_rate", config.learning_rate)?;
        positive("initial_constant", config.initial_constant)?;
        not_negative("confidence", config.confidence)?;
        Ok(Self(config))
    }
}

impl CarliniWagnerL2 {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "carlini-wagner-l2",
        title: "Carlini & Wagner, L2",
        source: "Carlini & Wagner 2017, arXiv:1608.04644",
        family: "minimum_norm",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "search_steps · steps gradients",
        minimum_norm: true,
    };
}

impl Attack for CarliniWagnerL2 {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `search_steps · steps` gradient queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        minimise(problem, Loss::Margin, |row| {
            Descent::new(self.0, Frame::new(problem.threat.domain(), problem.inputs.row(row)))
        })
    }
}

/// The search of one sample.
struct Descent<'a> {
    config: CarliniWagnerL2Config,
    frame: Frame<'a>,
    space: TanhSpace,
    variables: Vec<f64>,
    adam: Adam,
    constant: ConstantSearch,
    step: usize,
    found: bool,
    last_loss: f64,
}

impl<'a> Descent<'a> {
    fn new(config: CarliniWagnerL2Config, frame: Frame<'a>) -> Self {
        let space = TanhSpace::new(&frame);
        Self {
            config,
            frame,
            variables: space.variables(&vec![0.0; frame.elements()]),
            space,
            adam: Adam::new(frame.elements()),
            constant: ConstantSearch::new(config.initial_constant, config.search_steps),
            step: 0,
            found: false,
            last_loss: f64::INFINITY,
        }
    }

    /// Starts again at the clean sample with the next c.
    fn restart(&mut self) -> Option<Ask> {
        if !self.constant.advance(self.found) {
            return None;
        }
        self.variables = self.space.variables(&vec![0.0; self.frame.elements()]);
        self.adam = Adam::new(self.frame.elements());
        (self.step, self.found, self.last_loss) = (0, false, f64::INFINITY);
        Some(Ask::Gradient(self.frame.clean().to_vec()))
    }
}

impl Search for Descent<'_> {
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        self.found |= self.accepts(seen);
        let change = self.space.change(&self.variables);
        let missing = (self.config.confidence - seen.value).max(0.0);
        let loss = size(Norm::L2, &change).powi(2) + self.constant.value() * missing;
        if self.config.abort_early && self.step.is_multiple_of((self.config.steps / 10).max(LEAST_STEPS_BETWEEN_LOOKS))
        {
            if loss > 0.9999 * self.last_loss {
                return self.restart();
            }
            self.last_loss = loss;
        }
        self.step += 1;
        if self.step == self.config.steps {
            return self.restart();
        }
        let weight = if missing > 0.0 { self.constant.value() } else { 0.0 };
        let slopes = self.frame.slopes(seen.gradient);
        let descent: Vec<f64> =
            change.iter().zip(slopes).map(|(change, slope)| 2.0 * change - weight * slope).collect();
        let descent = self.space.pull_back(&self.variables, &descent);
        self.adam.descend(&descent, self.config.learning_rate, &mut self.variables);
        Some(Ask::Gradient(self.frame.point(&self.space.change(&self.variables))))
    }

    fn accepts(&self, seen: &Seen<'_>) -> bool {
        seen.reached && seen.value >= self.config.confidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, Strength};

    /// Few and small steps: the suite stays quick, and its least changes are down to a thousandth of the range.
    const QUICK: CarliniWagnerL2Config = CarliniWagnerL2Config {
        search_steps: 9,
        steps: 300,
        learning_rate: 1e-3,
        initial_constant: 1e-3,
        confidence: 0.0,
        abort_early: true,
    };

    #[test]
    fn passes_the_common_suite() {
        let attack = CarliniWagnerL2::try_from(QUICK).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.1, goals: true }), Ok(()));
    }

    fn distance(config: CarliniWagnerL2Config, biases: [f32; 2]) -> (f64, f64) {
        let domain = Domain::grey_levels(&[2], 255.0).unwrap();
        let weights = vec![vec![3.0, 1.0], vec![-1.0, -2.0]];
        let model = Linear::new(domain.clone(), Task::MultiClass { classes: 2 }, weights, biases.to_vec());
        let samples = Samples::new(vec![90.0, 80.0], &[2]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let attack = CarliniWagnerL2::try_from(config).unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.success[0]);
        let found = Norm::L2.distance(samples.row(0), outcome.perturbed_inputs.row(0));
        let logits = model.logits(outcome.perturbed_inputs.row(0));
        (found, f64::from(logits[1] - logits[0]))
    }

    #[test]
    fn negative_logits_change_nothing() {
        // 4·90 + 3·80 − 500 = 100 to overcome, 20 away with weights of length 5.
        let near = |found: f64| (20.0..20.4).contains(&found);
        assert!(near(distance(QUICK, [0.0, 500.0]).0));
        assert!(near(distance(QUICK, [-9000.0, -8500.0]).0));
    }

    #[test]
    fn a_short_search_step_is_not_ended_early() {
        let found = |abort_early| {
            let short = CarliniWagnerL2Config { steps: 40, learning_rate: 0.05, abort_early, ..QUICK };
            distance(short, [0.0, 500.0]).0
        };
        assert_eq!(found(true), found(false));
    }

    #[test]
    fn confidence_is_a_margin_that_costs_distance() {
        let (found, margin) = distance(CarliniWagnerL2Config { confidence: 50.0, ..QUICK }, [0.0, 500.0]);
        assert!((30.0..30.6).contains(&found) && margin >= 50.0, "{found} {margin}");
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["steps = 0", "search_steps = 0", "learning_rate = 0.0", "confidence = -1.0", "kappa = 1.0"] {
            assert!(toml::from_str::<CarliniWagnerL2>(text).is_err(), "{text}");
        }
    }
}
