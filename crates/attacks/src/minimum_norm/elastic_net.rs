//! Elastic-net attack (EAD), L1.
//!
//! ```text
//! minimise c·max(κ − m(x'), 0) + ‖x' − x‖₂² + β·‖x' − x‖₁          m the margin of the goal
//! xₖ₊₁ = S(yₖ − ηₖ·∇(c·max(κ − m, 0) + ‖· − x‖₂²)(yₖ))            FISTA, ηₖ = η·√(1 − k/n)
//! yₖ₊₁ = xₖ₊₁ + k/(k + 3)·(xₖ₊₁ − xₖ)
//! S shrinks each change by β to 0 and clips it to the bounds
//! ```
//!
//! The least c that still succeeds is found as in Carlini & Wagner's attack. Of the points that succeed, the one of
//! least elastic-net distance `‖·‖₂² + β·‖·‖₁` (EN rule) or of least L1 distance (L1 rule) is returned.
//!
//! Source: Chen et al., AAAI 2018, arXiv:1709.04114, algorithm 1. Survey: \[21\].
//!
//! Differs from the source: changes are in the range of the bounds; y is clipped to the bounds; a sample that makes no
//! progress ends its search step alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::constant_search::{ConstantSearch, LEAST_STEPS_BETWEEN_LOOKS};
use super::frame::{Frame, size};
use super::proximal::proximal;
use super::search::{Ask, Search, Seen, minimise};
use super::settings::{at_least_one, not_negative, positive};

/// Which of the successful points is returned.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionRule {
    /// The one of least elastic-net distance.
    ElasticNet,
    /// The one of least L1 distance.
    #[default]
    L1,
}

/// Settings of [`ElasticNet`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ElasticNetConfig {
    /// Which of the successful points is returned.
    pub decision_rule: DecisionRule,
    /// Weight β of the L1 distance, for changes as fractions of the range of the bounds; finite and at least 0.
    pub l1_weight: f64,
    /// Values of c that are tried; at least 1.
    pub search_steps: usize,
    /// Greatest number of steps for each c; at least 1.
    pub steps: usize,
    /// First step size η; finite and above 0.
    pub step_size: f64,
    /// First value of c; finite and above 0.
    pub initial_constant: f64,
    /// Margin κ, in logits, that a point must have to count; finite and at least 0. Above 0 for transfer.
    pub confidence: f64,
    /// Look ten times during a search step, but at most every hundred steps, whether the loss still falls, and end the search
    /// step when it does not.
    pub abort_early: bool,
}

impl Default for ElasticNetConfig {
    /// Values of the paper; of its two rules, the one that returns the least norm.
    fn default() -> Self {
        Self {
            decision_rule: DecisionRule::L1,
            l1_weight: 1e-3,
            search_steps: 9,
            steps: 1000,
            step_size: 0.01,
            initial_constant: 1e-3,
            confidence: 0.0,
            abort_early: true,
        }
    }
}

/// EAD; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "ElasticNetConfig")]
pub struct ElasticNet(ElasticNetConfig);

impl TryFrom<ElasticNetConfig> for ElasticNet {
    type Error = Error;

    fn try_from(config: ElasticNetConfig) -> Result<Self, Error> {
        at_least_one("search_steps", config.search_steps)?;
        at_least_one("steps", config.steps)?;
        not_negative("l1_weight", config.l1_weight)?;
        positive("step_size", config.step_size)?;
        positive("initial_constant", config.initial_constant)?;
        not_negative("confidence", config.confidence)?;
        Ok(Self(config))
    }
}

impl ElasticNet {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "ead",
        title: "Elastic net",
        source: "Chen et al. 2018, arXiv:1709.04114",
        family: "minimum_norm",
        norms: &[Norm::L1],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "search_steps · steps gradients and as many queries",
        minimum_norm: true,
    };
}

impl Attack for ElasticNet {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `search_steps · steps` gradient queries and as many queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        minimise(problem, Loss::Margin, |row| {
            Descent::new(self.0, Frame::new(problem.threat.domain(), problem.inputs.row(row)))
        })
    }
}

/// The search of one sample.
struct Descent<'a> {
    config: ElasticNetConfig,
    frame: Frame<'a>,
    /// x − clean.
    change: Vec<f64>,
    /// y − clean, where the gradient is taken.
    ahead: Vec<f64>,
    constant: ConstantSearch,
    step: usize,
    found: bool,
    last_loss: f64,
}

impl<'a> Descent<'a> {
    fn new(config: ElasticNetConfig, frame: Frame<'a>) -> Self {
        Self {
            config,
            frame,
            change: vec![0.0; frame.elements()],
            ahead: vec![0.0; frame.elements()],
            constant: ConstantSearch::new(config.initial_constant, config.search_steps),
            step: 0,
            found: false,
            last_loss: f64::INFINITY,
        }
    }

    fn elastic_net(&self, change: &[f64]) -> f64 {
        size(Norm::L2, change).powi(2) + self.config.l1_weight * size(Norm::L1, change)
    }

    /// From the gradient at y to the next x, whose value is asked for.
    fn shrink(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        let missing = (self.config.confidence - seen.value).max(0.0);
        if self.config.abort_early
            && self.step.is_multiple_of(self.config.steps.div_ceil(10).max(LEAST_STEPS_BETWEEN_LOOKS))
        {
            let loss = self.constant.value() * missing + self.elastic_net(&self.ahead);
            if loss > 0.9999 * self.last_loss {
                return self.restart();
            }
            self.last_loss = loss;
        }
        let weight = if missing > 0.0 { self.constant.value() } else { 0.0 };
        let step_size = self.config.step_size * (1.0 - self.step as f64 / self.config.steps as f64).sqrt();
        let slopes = self.frame.slopes(seen.gradient);
        let moved: Vec<f64> = self
            .ahead
            .iter()
            .zip(slopes)
            .map(|(ahead, slope)| ahead - step_size * (2.0 * ahead - weight * slope))
            .collect();
        let mut next = proximal(Norm::L1, self.config.l1_weight, &moved);
        self.frame.clip(&mut next);
        let momentum = self.step as f64 / (self.step as f64 + 3.0);
        self.ahead = next.iter().zip(&self.change).map(|(next, last)| next + momentum * (next - last)).collect();
        self.frame.clip(&mut self.ahead);
        self.change = next;
        self.step += 1;
        Some(Ask::Value(self.frame.point(&self.change)))
    }

    /// Starts again at the clean sample with the next c.
    fn restart(&mut self) -> Option<Ask> {
        if !self.constant.advance(self.found) {
            return None;
        }
        self.change.fill(0.0);
        self.ahead.fill(0.0);
        (self.step, self.found, self.last_loss) = (0, false, f64::INFINITY);
        Some(Ask::Gradient(self.frame.clean().to_vec()))
    }
}

impl Search for Descent<'_> {
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        self.found |= self.accepts(seen);
        if !seen.gradient.is_empty() {
            self.shrink(seen)
        } else if self.step == self.config.steps {
            self.restart()
        } else {
            Some(Ask::Gradient(self.frame.point(&self.ahead)))
        }
    }

    fn accepts(&self, seen: &Seen<'_>) -> bool {
        seen.reached && seen.value >= self.config.confidence
    }

    fn size(&self, norm: Norm, clean: &[f32], point: &[f32]) -> f64 {
        match self.config.decision_rule {
            DecisionRule::L1 => norm.distance(clean, point),
            DecisionRule::ElasticNet => self.elastic_net(&self.frame.change(point)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Goal, Seed, ThreatModel};
    use nocebo_testkit::models::Recorder;
    use nocebo_testkit::suite::{self, Strength};

    /// Few and small steps: the suite stays quick, and its least changes are down to a thousandth of the range.
    const QUICK: ElasticNetConfig = ElasticNetConfig {
        decision_rule: DecisionRule::L1,
        l1_weight: 1e-3,
        search_steps: 9,
        steps: 100,
        step_size: 0.01,
        initial_constant: 1e-3,
        confidence: 0.0,
        abort_early: true,
    };

    #[test]
    fn passes_the_common_suite() {
        let attack = ElasticNet::try_from(QUICK).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.1, goals: true }), Ok(()));
        let config = ElasticNetConfig { decision_rule: DecisionRule::ElasticNet, ..QUICK };
        let attack = ElasticNet::try_from(config).unwrap();
        assert_eq!(suite::check_common(&attack, Strength { linear: 2.0, goals: true }), Ok(()));
    }

    #[test]
    fn each_rule_returns_the_least_of_its_distance() {
        let (model, samples) = (suite::linear_pair(), suite::ct_samples().select(&[2]));
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::L1, f32::INFINITY, suite::ct_domain()).unwrap();
        let frame = Frame::new(threat.domain(), samples.row(0));
        for decision_rule in [DecisionRule::L1, DecisionRule::ElasticNet] {
            let config = ElasticNetConfig { decision_rule, l1_weight: 1e-2, ..QUICK };
            let recorder = Recorder::new(&model);
            let attack = ElasticNet::try_from(config).unwrap();
            let outcome = attack.run(&recorder, &samples, &goal, &threat, Seed(1)).unwrap();
            let distance = |point: &[f32]| match decision_rule {
                DecisionRule::L1 => size(Norm::L1, &frame.change(point)),
                DecisionRule::ElasticNet => Descent::new(config, frame).elastic_net(&frame.change(point)),
            };
            let asked = recorder.into_asked();
            let reached = asked.iter().filter(|asked| goal.is_reached(&model_task(), 0, &asked.logits));
            let least = reached.map(|asked| distance(&asked.point)).fold(f64::INFINITY, f64::min);
            assert_eq!(distance(outcome.perturbed_inputs.row(0)), least, "{decision_rule:?}");
        }
    }

    fn model_task() -> nocebo_core::Task {
        nocebo_core::Task::MultiClass { classes: 2 }
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["steps = 0", "l1_weight = -1.0", "decision_rule = \"l2\"", "beta = 1.0"] {
            assert!(toml::from_str::<ElasticNet>(text).is_err(), "{text}");
        }
    }
}
