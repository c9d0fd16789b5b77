//! Jacobian saliency map attack (JSMA), L0.
//!
//! ```text
//! αᵢ = ∂F_t/∂xᵢ,  βᵢ = Σ_{j≠t} ∂F_j/∂xᵢ          F softmax or logits, t the class to reach
//! pair     (p, q) = argmax −(αₚ + α_q)·(βₚ + β_q)  with αₚ + α_q > 0 > βₚ + β_q
//! single   p = argmax −αₚ·βₚ                       with αₚ > 0 > βₚ
//! add θ to what was chosen, until x' reaches the goal or a fraction Υ of the elements has changed
//! ```
//!
//! Source: Papernot et al., EuroS&P 2016, arXiv:1511.07528, algorithms 1 to 3; single elements: Grosse et al.,
//! arXiv:1606.04435; `either`: Wiyatno & Xu 2018, arXiv:1808.07945. Survey: \[96\].
//!
//! Differs from the source: the probabilities of all classes add up to 1, so with softmax β = −α and one gradient
//! suffices; α is taken as the gradient of the log-odds of t, which ranks the elements alike and does not underflow. Two
//! gradients suffice for logits. Pairs are looked for among the `pool` elements of greatest α − β. An untargeted goal
//! heads for the class with the second greatest logit. With one logit a decision, β = −α.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, Goal, GoalKind, Knowledge, Label, Loss, Norm, Objective, Perturbation,
    Task,
};

use super::step::sign;
use crate::boundaries::{Boundaries, ForRows};
use crate::nearest::{Nearest, can_pay};

/// What may happen to an element.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// It grows.
    #[default]
    Increase,
    /// It falls.
    Decrease,
    /// It follows the sign of α.
    Either,
}

/// What the Jacobian is taken of.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// Probabilities.
    #[default]
    Softmax,
    /// Logits.
    Logits,
}

/// How many elements a step changes.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// One.
    Single,
    /// Two, chosen together.
    #[default]
    Pair,
}

/// Settings of [`SaliencyMap`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaliencyMapConfig {
    /// Which way elements move.
    pub direction: Direction,
    /// What the Jacobian is taken of.
    pub scores: Scores,
    /// Elements a step.
    pub choice: Choice,
    /// θ as a fraction of the range of the bounds; in (0, 1].
    pub theta: f32,
    /// Υ: greatest fraction of changed elements; in (0, 1]. One step is always allowed.
    pub greatest_fraction: f32,
    /// Elements among which pairs are looked for; at least 2. A step costs its square.
    pub pool: usize,
}

impl Default for SaliencyMapConfig {
    /// The paper's; the pool is ours.
    fn default() -> Self {
        Self {
            direction: Direction::Increase,
            scores: Scores::Softmax,
            choice: Choice::Pair,
            theta: 1.0,
            greatest_fraction: 0.145,
            pool: 512,
        }
    }
}

/// JSMA; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SaliencyMapConfig")]
pub struct SaliencyMap(SaliencyMapConfig);

impl TryFrom<SaliencyMapConfig> for SaliencyMap {
    type Error = Error;

    fn try_from(config: SaliencyMapConfig) -> Result<Self, Error> {
        let fraction = |field, value: f32| {
            if value > 0.0 && value <= 1.0 {
                Ok(())
            } else {
                Err(Error::invalid(field, "above 0 and at most 1", value))
            }
        };
        fraction("theta", config.theta)?;
        fraction("greatest_fraction", config.greatest_fraction)?;
        if config.pool < 2 {
            return Err(Error::invalid("pool", "at least 2", config.pool));
        }
        Ok(Self(config))
    }
}

impl SaliencyMap {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "jsma",
        title: "Jacobian saliency map attack",
        source: "Papernot et al. 2016, arXiv:1511.07528",
        family: "gradient",
        norms: &[Norm::L0],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 gradient a step (2 for logits), until greatest_fraction is spent; 2 queries",
        minimum_norm: true,
    };

    /// The elements to move and which way, the best first; none where nothing helps.
    fn choose(&self, problem: &AttackProblem<'_>, point: &[f32], alpha: &[f32], beta: &[f32]) -> Vec<(usize, f32)> {
        let domain = problem.threat.domain();
        // (element, way, α and β along that way) of the elements that can still move.
        let mut movable: Vec<(usize, f32, f64, f64)> = (0..point.len())
            .filter_map(|element| {
                let way = match self.0.direction {
                    Direction::Increase => 1.0,
                    Direction::Decrease => -1.0,
                    Direction::Either => sign(alpha[element]),
                };
                let end = if way > 0.0 { domain.upper()[element] } else { domain.lower()[element] };
                let along = |slope: f32| f64::from(way) * f64::from(slope);
                (way != 0.0 && domain.is_mutable(element) && point[element] != end)
                    .then(|| (element, way, along(alpha[element]), along(beta[element])))
            })
            .collect();
        let gain = |alpha: f64, beta: f64| if alpha > 0.0 && beta < 0.0 { -alpha * beta } else { 0.0 };
        let mut best = 0.0;
        let mut chosen = Vec::new();
        match self.0.choice {
            Choice::Single => {
                for &(element, way, alpha, beta) in &movable {
                    if gain(alpha, beta) > best {
                        best = gain(alpha, beta);
                        chosen = vec![(element, way)];
                    }
                }
            }
            Choice::Pair => {
                movable.sort_by(|a, b| (b.2 - b.3).total_cmp(&(a.2 - a.3)).then(a.0.cmp(&b.0)));
                movable.truncate(self.0.pool);
                for (place, p) in movable.iter().enumerate() {
                    for q in &movable[place + 1..] {
                        let gain = gain(p.2 + q.2, p.3 + q.3);
                        if gain > best {
                            best = gain;
                            chosen = vec![(p.0, p.1), (q.0, q.1)];
                        }
                    }
                }
            }
        }
        chosen
    }
}

impl Attack for SaliencyMap {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one query and one gradient query (two for the logits of several classes) a step, and two queries a sample.
    /// There are at most `min(ε, Υ·elements) / (elements a step) / θ` steps.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let (threat, elements) = (problem.threat, problem.inputs.elements());
        let at_once = if self.0.choice == Choice::Pair { 2 } else { 1 };
        let fraction = ((self.0.greatest_fraction * elements as f32) as usize).max(at_once);
        let allowed = (threat.epsilon().min(elements as f32) as usize).min(fraction);
        let steps = allowed / at_once * (1.0 / self.0.theta).ceil() as usize;

        let boundaries = Boundaries::new(problem, 1)?;
        let towards = boundaries.targeted_goal(0).unwrap_or_else(|| problem.goal.clone());
        let several_classes = matches!(problem.oracle.spec().task, Task::MultiClass { .. });
        let log_odds = problem.objective(&towards, Loss::CrossEntropy)?;
        let (target, others) = (LogitSum { goal: &towards, others: false }, LogitSum { goal: &towards, others: true });
        let crossing = boundaries.crossing(0);
        let scores: Vec<&dyn Objective> = match (several_classes, self.0.scores) {
            (true, Scores::Logits) => vec![&target, &others],
            (true, Scores::Softmax) => vec![&log_odds],
            (false, _) => vec![&crossing],
        };

        let mut nearest = Nearest::new(problem);
        let mut current = problem.inputs.clone();
        let mut rows: Vec<usize> = (0..problem.inputs.len()).collect();
        for step in 0..=steps {
            rows.retain(|&row| can_pay(problem, row, 1));
            if rows.is_empty() {
                break;
            }
            let points = current.select(&rows);
            if step == steps || !rows.iter().all(|&row| can_pay(problem, row, 2)) {
                nearest.offer_reached(&rows, &points, &problem.oracle.outputs(&points)?);
                break;
            }
            let parts: Vec<ForRows<'_>> =
                scores.iter().map(|objective| ForRows { objective: *objective, rows: &rows }).collect();
            let parts: Vec<&dyn Objective> = parts.iter().map(|part| part as &dyn Objective).collect();
            let found = problem.oracle.gradients(&points, &parts)?;
            let missed = nearest.offer_reached(&rows, &points, &found[0].outputs);
            let mut moving = Vec::with_capacity(missed.len());
            for &position in &missed {
                let row = rows[position];
                let alpha = found[0].inputs.row(position);
                let beta: Vec<f32> = match found.get(1) {
                    Some(others) => others.inputs.row(position).to_vec(),
                    None => alpha.iter().map(|slope| -slope).collect(),
                };
                let chosen = self.choose(problem, current.row(row), alpha, &beta);
                for &(element, way) in &chosen {
                    let (low, high) = (threat.domain().lower()[element], threat.domain().upper()[element]);
                    let moved = current.row(row)[element] + way * self.0.theta * threat.domain().range();
                    current.row_mut(row)[element] = moved.clamp(low, high);
                }
                let changed = Norm::L0.distance(problem.inputs.row(row), current.row(row)) as usize;
                if !chosen.is_empty() && changed <= allowed {
                    moving.push(row);
                }
            }
            rows = moving;
        }
        Ok(nearest.finish())
    }
}

/// The logit of the class to reach, or the sum of all others.
struct LogitSum<'a> {
    goal: &'a Goal,
    others: bool,
}

impl Objective for LogitSum<'_> {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        let target = match self.goal {
            Goal::Targeted { targets, .. } => targets[row].clone(),
            Goal::FalsePositive { finding } => Label::Class(*finding),
            // Untargeted goals have been given a target.
            Goal::Untargeted { .. } | Goal::FalseNegative { .. } => Label::Class(0),
        };
        for (class, slope) in cotangent.iter_mut().enumerate() {
            *slope = if (Label::Class(class) == target) == self.others { 0.0 } else { 1.0 };
        }
        Ok(outputs.iter().zip(cotangent).map(|(logit, weight)| logit * *weight).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Samples, Seed, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, Strength};

    fn attack(config: SaliencyMapConfig) -> SaliencyMap {
        SaliencyMap::try_from(config).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        // A pair may be one too many, and the room that an element has left plays no part in the choice.
        let strength = Strength { linear: 2.0, goals: true };
        for choice in [Choice::Single, Choice::Pair] {
            let config = SaliencyMapConfig {
                choice,
                direction: Direction::Either,
                greatest_fraction: 1.0,
                ..SaliencyMapConfig::default()
            };
            assert_eq!(suite::check(&attack(config), strength), Ok(()), "{config:?}");
            // With logits an element that helps the other class too is never chosen, so a far class may stay out of reach.
            let config = SaliencyMapConfig { scores: Scores::Logits, ..config };
            assert_eq!(suite::check_common(&attack(config), strength), Ok(()), "{config:?}");
        }
    }

    /// Changed elements of the one sample, 100 everywhere, of a linear model with these weights.
    fn changed(weights: [[f32; 4]; 3], biases: [f32; 3], config: SaliencyMapConfig) -> Vec<f32> {
        let (domain, task) = (Domain::grey_levels(&[4], 255.0).unwrap(), Task::MultiClass { classes: 3 });
        let weights = weights.iter().map(|row| row.to_vec()).collect();
        let model = Linear::new(domain.clone(), task, weights, biases.to_vec());
        let inputs = Samples::new(vec![100.0; 4], &[4]).unwrap();
        let goal = Goal::Targeted { labels: vec![Label::Class(0)], targets: vec![Label::Class(1)] };
        let threat = ThreatModel::new(Norm::L0, f32::INFINITY, domain).unwrap();
        let outcome = attack(config).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.success[0]);
        outcome.perturbed_inputs.row(0).to_vec()
    }

    #[test]
    fn chooses_by_hand() {
        // α = (5, 2, 3, −9), β = (1, −4, −2, 8) for the logits.
        let weights = [[0.0, -4.0, -2.0, 8.0], [5.0, 2.0, 3.0, -9.0], [1.0, 0.0, 0.0, 0.0]];
        let logits = SaliencyMapConfig { scores: Scores::Logits, greatest_fraction: 1.0, ..Default::default() };
        let single = SaliencyMapConfig { choice: Choice::Single, ..logits };
        // −αβ is 8 for element 1 and 6 for element 2; element 0 has β > 0.
        assert_eq!(changed(weights, [500.0, 0.0, 0.0], single), [100.0, 255.0, 100.0, 100.0]);
        // −(α + α)(β + β): (0, 1) 7·3 = 21, (0, 2) 8·1 = 8, (1, 2) 5·6 = 30.
        assert_eq!(changed(weights, [500.0, 0.0, 0.0], logits), [100.0, 255.0, 255.0, 100.0]);
        // Downwards only element 3 helps, by 9·8.
        let down = SaliencyMapConfig { direction: Direction::Decrease, ..single };
        assert_eq!(changed(weights, [500.0, 0.0, 0.0], down), [100.0, 100.0, 100.0, 0.0]);
        let either = SaliencyMapConfig { direction: Direction::Either, ..single };
        assert_eq!(changed(weights, [500.0, 0.0, 0.0], either), [100.0, 100.0, 100.0, 0.0]);
        // A quarter of the range at a time: one step is enough, or two where the start is farther, the last cut off.
        let quarter = SaliencyMapConfig { theta: 0.25, ..either };
        assert_eq!(changed(weights, [500.0, 0.0, 0.0], quarter), [100.0, 100.0, 100.0, 36.25]);
        assert_eq!(changed(weights, [1500.0, 0.0, 0.0], quarter), [100.0, 100.0, 100.0, 0.0]);
    }

    #[test]
    fn changes_at_most_the_fraction_and_epsilon() {
        let (model, inputs) = (suite::linear_classifier(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let flat = nocebo_testkit::models::Constant::new(suite::ct_domain(), vec![1.0, 0.0]);
        let held = Goal::Untargeted { labels: suite::decided(&flat, &inputs) };
        for (epsilon, greatest_fraction) in [(3.0, 1.0), (12.0, 0.25)] {
            let config = SaliencyMapConfig { greatest_fraction, choice: Choice::Single, ..Default::default() };
            let threat = ThreatModel::new(Norm::L0, epsilon, suite::ct_domain()).unwrap();
            let outcome = attack(config).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
            let changed = inputs.rows().zip(outcome.perturbed_inputs.rows()).map(|(a, b)| Norm::L0.distance(a, b));
            assert!(changed.fold(0.0, f64::max) <= 3.0);
            // A constant model offers nothing to choose: the clean sample, the ranking, and one gradient.
            let outcome = attack(config).run(&flat, &inputs, &held, &threat, Seed(1)).unwrap();
            assert_eq!(outcome.queries[0].forward, 3);
        }
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in
            ["theta = 0.0", "theta = 1.1", "greatest_fraction = nan", "pool = 1", "choice = \"triple\"", "gamma = 1"]
        {
            assert!(toml::from_str::<SaliencyMap>(text).is_err(), "{text}");
        }
    }
}
