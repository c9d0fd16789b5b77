//! `SimBA`: a simple black-box attack that tries one direction of an orthonormal basis after another; L2 and Linf.
//!
//! ```text
//! for q in a random order of the basis:   δ ← Π(δ + s·q) if that raises the objective, else Π(δ − s·q) if that does
//! pixel   q = one element
//! dct     q = one cosine of the lowest r of the frequencies of each side
//! ```
//!
//! Source: Guo et al., ICML 2019, arXiv:1905.07121, algorithm 1; frequencies as in section 3.2 (r = 1/8).
//!
//! Differs from the source: a budget that is narrower than the step takes its place, and Π keeps the change inside it (the
//! source lets the number of steps bound the change); when the whole basis has been tried the frequencies double, and
//! where there are no more the attack goes round again, with half the step if nothing helped (the source ends there); any
//! sample shape, and in a table `dct` is `pixel`.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::grid::{Grid, coordinates, flat, inverse_cosine};
use super::questions::{Questions, along, generators, length, radius, ranges};

/// Directions that [`SimBa`] tries.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Single elements.
    #[default]
    Pixel,
    /// Cosines of low frequency.
    Dct,
}

/// Settings of [`SimBa`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimBaConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Directions that are tried.
    pub basis: Basis,
    /// Step s as a fraction of the range of the bounds; finite and above 0. At most the budget is used.
    pub step_fraction: f64,
    /// `dct` only: fraction r of the frequencies of each side that are tried first; above 0, at most 1.
    pub frequency_ratio: f64,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
}

impl Default for SimBaConfig {
    /// Step and frequencies of the source; 10,000 queries.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            basis: Basis::Pixel,
            step_fraction: 0.2,
            frequency_ratio: 0.125,
            queries: 10_000,
        }
    }
}

/// `SimBA`; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SimBaConfig")]
pub struct SimBa(SimBaConfig);

impl TryFrom<SimBaConfig> for SimBa {
    type Error = Error;

    fn try_from(config: SimBaConfig) -> Result<Self, Error> {
        if !(config.step_fraction.is_finite() && config.step_fraction > 0.0) {
            return Err(Error::invalid("step_fraction", "finite and above 0", config.step_fraction));
        }
        if !(config.frequency_ratio > 0.0 && config.frequency_ratio <= 1.0) {
            return Err(Error::invalid("frequency_ratio", "above 0 and at most 1", config.frequency_ratio));
        }
        if config.queries == 0 {
            return Err(Error::invalid("queries", "at least 1", config.queries));
        }
        Ok(Self(config))
    }
}

impl SimBa {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "simba",
        title: "Simple black-box attack",
        source: "Guo et al. 2019, arXiv:1905.07121",
        family: "score",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Scores,
        cost: "at most queries queries, 1 or 2 a direction",
        minimum_norm: false,
    };
}

/// Halvings of the step after which a sample is given up.
const HALVINGS: u32 = 10;

/// The search of one sample.
struct Trial {
    value: f32,
    /// Step as a fraction of the first one.
    step: f64,
    ratio: f64,
    /// Directions of this round that have not been tried, the next one last.
    left: Vec<usize>,
    /// Whether this round raised the objective.
    improved: bool,
    halvings: u32,
}

/// The directions, counted through the channels and then through elements or frequencies.
struct Directions<'a> {
    grid: &'a Grid,
    ranges: &'a [f64],
    cosines: bool,
}

impl Directions<'_> {
    /// All directions of a round in random order.
    fn order(&self, ratio: f64, generator: &mut ChaCha8Rng) -> Vec<usize> {
        let mut all: Vec<usize> = if self.cosines {
            let kept = self.grid.low_frequencies(ratio);
            let each: usize = kept.iter().product();
            let frequency = |at: usize| flat(coordinates(at, &kept).into_iter(), self.grid.sides());
            let channels = 0..self.grid.channels();
            channels
                .flat_map(|channel| (0..each).map(move |at| (channel, at)))
                .map(|(channel, at)| channel * self.grid.positions() + frequency(at))
                .collect()
        } else {
            (0..self.ranges.len()).filter(|&element| self.ranges[element] > 0.0).collect()
        };
        for place in (1..all.len()).rev() {
            all.swap(place, generator.random_range(0..=place));
        }
        all
    }

    /// One direction, of length 1 where the region is a whole box, times the range of each element.
    fn direction(&self, which: usize) -> Vec<f64> {
        let mut direction = vec![0.0; self.ranges.len()];
        if self.cosines {
            let (channel, frequency) = (which / self.grid.positions(), which % self.grid.positions());
            let mut coefficients = vec![0.0; self.grid.positions()];
            coefficients[frequency] = 1.0;
            for (position, value) in inverse_cosine(&coefficients, self.grid.sides()).into_iter().enumerate() {
                let element = self.grid.element(channel, position);
                direction[element] = value * self.ranges[element];
            }
        } else {
            direction[which] = self.ranges[which];
        }
        direction
    }
}

impl Attack for SimBa {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// A sample stops at the first point that reaches the goal.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let threat = problem.threat;
        let (grid, ranges) = (Grid::new(threat.domain()), ranges(threat.domain()));
        let directions =
            Directions { grid: &grid, ranges: &ranges, cosines: self.0.basis == Basis::Dct && !grid.is_table() };
        let mut questions = Questions::scored(problem, self.0.queries, self.0.loss)?;
        let mut generators = generators(problem);
        let mut best = problem.inputs.clone();
        let fresh = Trial {
            value: f32::NEG_INFINITY,
            step: 1.0,
            ratio: self.0.frequency_ratio,
            left: Vec::new(),
            improved: true,
            halvings: 0,
        };
        let mut trials: Vec<Trial> = (0..best.len()).map(|_| Trial { left: Vec::new(), ..fresh }).collect();
        // What the clean samples score.
        let first: Vec<_> = questions.searching().into_iter().map(|row| (row, best.row(row).to_vec(), ())).collect();
        questions.stream(first, |row, (), reply| {
            if let Some(reply) = reply {
                trials[row].value = reply.value;
            }
        })?;
        for row in questions.searching() {
            trials[row].left = directions.order(self.0.frequency_ratio, &mut generators[row]);
        }
        loop {
            let mut rows = questions.searching();
            rows.retain(|&row| trials[row].halvings <= HALVINGS);
            if rows.is_empty() {
                return Ok(questions.finish(&best));
            }
            for &row in &rows {
                if trials[row].left.is_empty() {
                    trials[row].next_round(directions.cosines);
                    trials[row].left = directions.order(trials[row].ratio, &mut generators[row]);
                }
            }
            let mut missed: Vec<(usize, Vec<f64>)> = rows
                .into_iter()
                .filter_map(|row| {
                    let which = trials[row].left.pop()?;
                    let mut direction = directions.direction(which);
                    let most = radius(threat) / length(threat.norm(), &direction).max(f64::MIN_POSITIVE);
                    let step = self.0.step_fraction.min(most) * trials[row].step;
                    direction.iter_mut().for_each(|part| *part *= step);
                    Some((row, direction))
                })
                .collect();
            for sign in [1.0, -1.0] {
                let requests: Vec<_> = missed
                    .drain(..)
                    .map(|(row, direction)| {
                        let mut point = along(best.row(row), sign, &direction);
                        threat.project_row(problem.inputs.row(row), &mut point);
                        (row, point, direction)
                    })
                    .collect();
                questions.stream(requests, |row, direction, reply| match reply {
                    Some(reply) if reply.value > trials[row].value => {
                        (trials[row].value, trials[row].improved) = (reply.value, true);
                        best.row_mut(row).copy_from_slice(reply.point);
                    }
                    Some(reply) if !reply.reached => missed.push((row, direction)),
                    _ => {}
                })?;
            }
        }
    }
}

impl Trial {
    fn next_round(&mut self, cosines: bool) {
        if cosines && self.ratio < 1.0 {
            self.ratio = (2.0 * self.ratio).min(1.0);
        } else if !self.improved {
            self.step *= 0.5;
            self.halvings += 1;
        }
        self.improved = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    fn attack(text: &str) -> SimBa {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        for basis in ["pixel", "dct"] {
            let attack = attack(&format!("basis = \"{basis}\"\nqueries = 3000"));
            // Linf is solved element by element; in L2 the halved steps close in on the gradient.
            let linf = if basis == "pixel" { 1.01 } else { 1.3 };
            let linf = suite::check(&InNorm(&attack, &[Norm::Linf]), Strength { linear: linf, goals: true });
            let l2 = suite::check(&InNorm(&attack, &[Norm::L2]), Strength { linear: 1.05, goals: true });
            assert_eq!((linf, l2), (Ok(()), Ok(())), "{basis}");
        }
    }

    #[test]
    fn one_pass_over_the_elements_takes_every_step_that_helps() {
        // 12 elements: one query for the clean sample and at most two for each.
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 0.5, suite::ct_domain()).unwrap();
        let outcome = attack("queries = 25").run(&model, &samples, &goal, &threat, Seed(3)).unwrap();
        let slopes: Vec<f32> = (0..12).map(|at| ((at * 5 + 3) % 11) as f32 / 5.0 - 1.1).collect();
        for (row, clean) in samples.rows().enumerate().filter(|(row, _)| !outcome.success[*row]) {
            let away = if model.logits(clean)[0] > 0.0 { -0.5 } else { 0.5 };
            for (element, slope) in slopes.iter().enumerate() {
                let moved = outcome.perturbed_inputs.row(row)[element] - clean[element];
                assert!((moved - away * slope.signum()).abs() < 1e-4, "{row} {element}: {moved} {slope}");
            }
        }
    }

    #[test]
    fn cosine_directions_are_orthonormal_and_start_with_the_low_ones() {
        let domain = Domain::grey_levels(&[2, 8, 16], 1.0).unwrap();
        let (grid, ranges) = (Grid::new(&domain), ranges(&domain));
        let directions = Directions { grid: &grid, ranges: &ranges, cosines: true };
        let mut first = directions.order(0.125, &mut Seed(1).for_sample(0));
        first.sort_unstable();
        // Frequencies (0, 0) and (0, 1) of both channels.
        assert_eq!(first, [0, 1, 128, 129]);
        let all = directions.order(1.0, &mut Seed(1).for_sample(0));
        assert_eq!(all.len(), 256);
        for (a, b) in all.iter().zip(all.iter().skip(1)).take(20) {
            let (one, other) = (directions.direction(*a), directions.direction(*b));
            let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            assert!((product(&one, &one) - 1.0).abs() < 1e-9 && product(&one, &other).abs() < 1e-9);
        }
    }

    #[test]
    fn a_table_has_no_cosines() {
        let domain = Domain::grey_levels(&[5], 9.0).unwrap();
        let weights = vec![vec![1.0, -2.0, 0.5, 3.0, 0.0]];
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, weights, vec![-10.0]);
        let samples = Samples::new(vec![4.0; 5], &[5]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 2.0, domain).unwrap();
        let run = |text: &str| attack(text).run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert!(run("basis = \"dct\"").success[0]);
        assert_eq!(run("basis = \"dct\""), run(""));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["step = 1", "step_fraction = 0.0", "frequency_ratio = 1.5", "queries = 0", "basis = \"wavelet\""] {
            assert!(toml::from_str::<SimBa>(text).is_err(), "{text}");
        }
    }
}
