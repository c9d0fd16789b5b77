//! Brendel & Bethge's attack along the boundary, in all four norms.
//!
//! ```text
//! start   a point that reaches the goal, drawn towards the clean sample by a binary search
//! step    δ ← the least ‖δ'‖ with ∇m·(δ' − δ) = gap, ‖δ' − δ‖₂ ≤ r, inside the bounds      m the margin of the goal
//! gap     1.1·|m| where the goal is missed: just beyond the linearised boundary
//!         −0.9·m where it is reached: most of the way back to it
//! ```
//!
//! The gradient is a running mean, the radius r halves twenty times.
//!
//! Source: Brendel et al., `NeurIPS` 2019, arXiv:1907.01003, section 3; constants of the reference implementation in
//! `Foolbox`.
//!
//! Differs from the source: r is in the range of the bounds. The start is the first success of a few steps, growing to
//! a tenth of the range, along the sign of ∇m, or else of uniform noise, because there is no sample of another class at
//! hand. The trust-region problem is solved by root searches for its two multipliers, not by a dual BFGS; its L0 step
//! is ours. The binary search projects the start onto smaller and smaller balls of the norm.

use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation, ThreatModel,
};

use super::frame::{Frame, size};
use super::search::{Ask, Search, Seen, minimise};
use super::settings::{at_least_one, fraction, positive};
use super::trust_region::TrustRegion;

/// Last step of the climb to a start, as a fraction of the range; the steps grow to it evenly.
const CLIMB: f64 = 0.1;

/// Settings of [`BrendelBethge`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrendelBethgeConfig {
    /// Steps along the boundary; at least 1.
    pub steps: usize,
    /// First radius of the trust region in L2, as a fraction of the range of the bounds times the number of elements;
    /// finite and above 0.
    pub relative_radius: f64,
    /// Factor by which the radius falls; above 0 and below 1.
    pub radius_decay: f64,
    /// How often it falls, in equal intervals; at least 1.
    pub radius_decays: usize,
    /// Weight of the past in the running mean of the gradient; above 0 and below 1.
    pub momentum: f64,
    /// How far a step aims beyond the boundary: 1 at it, more than 1 beyond; finite and above 0.
    pub overshoot: f64,
    /// Steps of the binary search from the start to the clean sample; at least 1.
    pub search_steps: usize,
    /// Gradient steps that look for a start; at least 1.
    pub climb_steps: usize,
    /// Uniform random points that are tried where the gradient finds no start; 0 for none.
    pub noise_tries: usize,
}

impl Default for BrendelBethgeConfig {
    /// Values of Foolbox; the search for a start is ours.
    fn default() -> Self {
        Self {
            steps: 1000,
            relative_radius: 1e-3,
            radius_decay: 0.5,
            radius_decays: 20,
            momentum: 0.8,
            overshoot: 1.1,
            search_steps: 10,
            climb_steps: 20,
            noise_tries: 100,
        }
    }
}

/// Brendel & Bethge's attack; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "BrendelBethgeConfig")]
pub struct BrendelBethge(BrendelBethgeConfig);

impl TryFrom<BrendelBethgeConfig> for BrendelBethge {
    type Error = Error;

    fn try_from(config: BrendelBethgeConfig) -> Result<Self, Error> {
        at_least_one("steps", config.steps)?;
        positive("relative_radius", config.relative_radius)?;
        fraction("radius_decay", config.radius_decay)?;
        at_least_one("radius_decays", config.radius_decays)?;
        fraction("momentum", config.momentum)?;
        positive("overshoot", config.overshoot)?;
        at_least_one("search_steps", config.search_steps)?;
        at_least_one("climb_steps", config.climb_steps)?;
        Ok(Self(config))
    }
}

impl BrendelBethge {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "brendel-bethge",
        title: "Brendel & Bethge",
        source: "Brendel et al. 2019, arXiv:1907.01003",
        family: "minimum_norm",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "climb_steps + steps gradients, noise_tries + search_steps queries",
        minimum_norm: true,
    };
}

impl Attack for BrendelBethge {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `climb_steps + steps` gradient queries and `noise_tries + search_steps` queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let threat = problem.threat;
        let anywhere = ThreatModel::new(threat.norm(), f32::INFINITY, threat.domain().clone())?;
        minimise(problem, Loss::Margin, |row| {
            let frame = Frame::new(threat.domain(), problem.inputs.row(row));
            Walk {
                config: self.0,
                anywhere: &anywhere,
                frame,
                change: vec![0.0; frame.elements()],
                rooms: (0..frame.elements()).map(|element| frame.room(element)).collect(),
                slopes: Vec::new(),
                radius: self.0.relative_radius * frame.elements() as f64,
                phase: Phase::Climb { step: 0 },
                generator: problem.seed.for_sample(problem.inputs.indices()[row]),
            }
        })
    }
}

/// What a search does with the next answer.
enum Phase {
    /// Follows the gradient to a start.
    Climb { step: usize },
    /// Tries random points for a start.
    Noise { tries: usize },
    /// Draws the start towards the clean sample: fractions of its distance that miss and reach the goal.
    Draw { start: Vec<f64>, missed: f64, reached: f64, step: usize },
    /// Walks along the boundary.
    Walk { step: usize },
}

/// The search of one sample.
struct Walk<'a> {
    config: BrendelBethgeConfig,
    anywhere: &'a ThreatModel,
    frame: Frame<'a>,
    change: Vec<f64>,
    rooms: Vec<(f64, f64)>,
    /// Running mean of the gradient by the change; empty before the first.
    slopes: Vec<f64>,
    radius: f64,
    phase: Phase,
    generator: ChaCha8Rng,
}

impl Walk<'_> {
    fn climb(&mut self, seen: &Seen<'_>, step: usize) -> Option<Ask> {
        if seen.reached {
            return Some(self.draw(self.frame.change(seen.point), 0.0, 1.0, 0));
        }
        if step == self.config.climb_steps {
            return self.try_noise(0);
        }
        self.phase = Phase::Climb { step: step + 1 };
        let length = CLIMB * (step + 1) as f64 / self.config.climb_steps as f64;
        for (change, slope) in self.change.iter_mut().zip(self.frame.slopes(seen.gradient)) {
            *change += if slope == 0.0 { 0.0 } else { length * slope.signum() };
        }
        self.frame.clip(&mut self.change);
        Some(Ask::Gradient(self.frame.point(&self.change)))
    }

    fn try_noise(&mut self, tries: usize) -> Option<Ask> {
        if tries == self.config.noise_tries {
            return None;
        }
        self.phase = Phase::Noise { tries: tries + 1 };
        Some(Ask::Value(self.anywhere.random_point(self.frame.clean(), &mut self.generator)))
    }

    fn draw(&mut self, start: Vec<f64>, missed: f64, reached: f64, step: usize) -> Ask {
        let share = if step == self.config.search_steps { reached } else { 0.5 * (missed + reached) };
        let norm = self.anywhere.norm();
        let point = self.frame.project(norm, share * size(norm, &start), &start);
        if step == self.config.search_steps {
            self.change = self.frame.change(&point);
            self.phase = Phase::Walk { step: 0 };
            return Ask::Gradient(point);
        }
        self.phase = Phase::Draw { start, missed, reached, step };
        Ask::Value(point)
    }

    fn walk(&mut self, seen: &Seen<'_>, step: usize) -> Option<Ask> {
        if step == self.config.steps {
            return None;
        }
        let new = self.frame.slopes(seen.gradient);
        let momentum = if self.slopes.is_empty() { 0.0 } else { self.config.momentum };
        self.slopes.resize(new.len(), 0.0);
        for (mean, slope) in self.slopes.iter_mut().zip(new) {
            *mean = momentum * *mean + (1.0 - momentum) * slope;
        }
        if size(Norm::Linf, &self.slopes) == 0.0 {
            return None;
        }
        if (step + 2).is_multiple_of((self.config.steps / self.config.radius_decays).max(1)) {
            self.radius *= self.config.radius_decay;
        }
        self.phase = Phase::Walk { step: step + 1 };
        let share = if seen.value < 0.0 { self.config.overshoot } else { 2.0 - self.config.overshoot };
        let region = TrustRegion {
            change: &self.change,
            rooms: &self.rooms,
            slopes: &self.slopes,
            gap: -share * seen.value,
            radius: self.radius,
        };
        self.change = region.least_change(self.anywhere.norm());
        Some(Ask::Gradient(self.frame.point(&self.change)))
    }
}

impl Search for Walk<'_> {
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        match std::mem::replace(&mut self.phase, Phase::Walk { step: 0 }) {
            Phase::Climb { step } => self.climb(seen, step),
            Phase::Noise { .. } if seen.reached => Some(self.draw(self.frame.change(seen.point), 0.0, 1.0, 0)),
            Phase::Noise { tries } => self.try_noise(tries),
            Phase::Draw { start, missed, reached, step } => {
                let tried = 0.5 * (missed + reached);
                let (missed, reached) = if seen.reached { (missed, tried) } else { (tried, reached) };
                Some(self.draw(start, missed, reached, step + 1))
            }
            Phase::Walk { step } => self.walk(seen, step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Label, Samples, Seed, Task};
    use nocebo_testkit::models::{Linear, SmallRelu};
    use nocebo_testkit::suite::{self, InNorm, Strength};

    #[test]
    fn passes_the_common_suite() {
        // The radius grows with the number of elements; twelve are few.
        for (norms, steps, linear) in [(&[Norm::L0] as &[Norm], 60, 2.0), (&[Norm::L1, Norm::L2, Norm::Linf], 25, 1.01)]
        {
            let config = BrendelBethgeConfig { steps, relative_radius: 0.1, ..Default::default() };
            let attack = BrendelBethge::try_from(config).unwrap();
            assert_eq!(suite::check(&InNorm(&attack, norms), Strength { linear, goals: true }), Ok(()));
        }
    }

    #[test]
    fn noise_finds_a_start_where_there_is_no_gradient() {
        // Class 1 only where the sum is below −51; elsewhere the only hidden unit rests, and so does the gradient.
        let domain = suite::ct_domain();
        let resting = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![vec![-1.0; 12]], vec![-50.0]);
        let hidden = Domain::grey_levels(&[1], 1.0).unwrap();
        let head = Linear::new(hidden, Task::MultiClass { classes: 2 }, vec![vec![0.0], vec![1.0]], vec![1.0, 0.0]);
        let model = SmallRelu::new(resting, head);
        let samples = Samples::new(vec![0.0; 12], &[1, 3, 4]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let config = BrendelBethgeConfig { noise_tries: 100_000, steps: 300, ..Default::default() };
        let attack = BrendelBethge::try_from(config).unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.success[0], "{:?}", outcome.queries);
        let least = 51.0 / 12.0_f64.sqrt();
        let found = Norm::L2.distance(samples.row(0), outcome.perturbed_inputs.row(0));
        assert!((least * 0.999..least * 1.05).contains(&found), "{found} {least}");
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["steps = 0", "relative_radius = 0.0", "momentum = 1.0", "climb_steps = 0", "lr = 1.0"] {
            assert!(toml::from_str::<BrendelBethge>(text).is_err(), "{text}");
        }
    }
}
