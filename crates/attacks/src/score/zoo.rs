//! ZOO: the Carlini-Wagner loss, descended one coordinate after another by differences of scores; L2, minimum norm.
//!
//! ```text
//! min over y   ‖δ‖² + c·max(κ − margin(x + δ), 0),  δ = U(y) in ranges of the bounds
//! gᵢ = ∂‖δ‖²/∂yᵢ + c·(f(y + h·eᵢ) − f(y − h·eᵢ))/2h          hᵢ = the second difference, for Newton
//! Adam    yᵢ ← yᵢ − η·m̂ᵢ/(√v̂ᵢ + 1e-8), moments and number of steps for each coordinate
//! Newton  yᵢ ← yᵢ − η·gᵢ/hᵢ where hᵢ > 0 (at least 0.1), else yᵢ − η·gᵢ
//! each step does this for a random choice of coordinates at once; c by binary search
//! U enlarges a coarse image (attack-space reduction), whose cells are halved after a number of steps (hierarchy); from then
//! on coordinates in regions that have changed most are chosen more often (importance sampling)
//! ```
//!
//! Source: Chen et al., `AISec` 2017, arXiv:1708.03999, algorithms 1 to 3 and sections 3.3 to 3.6. Survey: \[20\].
//!
//! Differs from the source: the margin is of logits, which equals that of its log-probabilities; points are clipped to the
//! bounds instead of going through tanh, and the change outside them costs nothing; U repeats values instead of
//! interpolating them; the derivative of ‖δ‖² is exact; a region without any change keeps a thousandth of the chance of
//! the one that changed most, so that the choice never runs out of coordinates.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::enlarge::Enlarge;
use super::questions::{Questions, along, generators, ranges};
use crate::minimum_norm::constant_search::ConstantSearch;

/// How a coordinate follows its slope.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Solver {
    /// Adam with β₁ = 0.9, β₂ = 0.999.
    #[default]
    Adam,
    /// Newton's method with the second difference.
    Newton,
}

/// Settings of [`Zoo`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZooConfig {
    /// How a coordinate follows its slope.
    pub solver: Solver,
    /// Values of c that are tried; at least 1.
    pub search_steps: usize,
    /// Greatest number of steps for each c; at least 1.
    pub steps: usize,
    /// First value of c; finite and above 0.
    pub initial_constant: f64,
    /// Margin κ, in logits, that the loss asks for; finite and at least 0.
    pub confidence: f64,
    /// Step η in ranges of the bounds; finite and above 0.
    pub learning_rate: f64,
    /// Distance h of a difference in ranges of the bounds; finite and above 0.
    pub probe_fraction: f64,
    /// Coordinates of a step; at least 1.
    pub coordinates: usize,
    /// Cells along each side at first; at least 1. A sample with fewer elements has one cell each.
    pub cells: usize,
    /// Steps after which the number of cells along each side doubles; at least 1.
    pub growth: usize,
    /// Choose coordinates by importance once the cells have been halved.
    pub importance_sampling: bool,
    /// Look ten times during the steps for one c whether the loss still falls, and end them when it does not.
    pub abort_early: bool,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
}

impl Default for ZooConfig {
    /// The values of the source, but for the growth (2,000 and 10,000 of up to 20,000 steps there), which fits its 1,000
    /// steps for small images here, and for the number of queries, which is ours.
    fn default() -> Self {
        Self {
            solver: Solver::Adam,
            search_steps: 9,
            steps: 1000,
            initial_constant: 0.01,
            confidence: 0.0,
            learning_rate: 0.01,
            probe_fraction: 1e-4,
            coordinates: 128,
            cells: 32,
            growth: 500,
            importance_sampling: true,
            abort_early: true,
            queries: 100_000,
        }
    }
}

/// ZOO; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "ZooConfig")]
pub struct Zoo(ZooConfig);

impl TryFrom<ZooConfig> for Zoo {
    type Error = Error;

    fn try_from(config: ZooConfig) -> Result<Self, Error> {
        for (field, value) in [
            ("search_steps", config.search_steps),
            ("steps", config.steps),
            ("coordinates", config.coordinates),
            ("cells", config.cells),
            ("growth", config.growth),
            ("queries", config.queries as usize),
        ] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        for (field, value) in [
            ("initial_constant", config.initial_constant),
            ("learning_rate", config.learning_rate),
            ("probe_fraction", config.probe_fraction),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::invalid(field, "finite and above 0", value));
            }
        }
        if !(config.confidence.is_finite() && config.confidence >= 0.0) {
            return Err(Error::invalid("confidence", "finite and at least 0", config.confidence));
        }
        Ok(Self(config))
    }
}

impl Zoo {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "zoo",
        title: "Zeroth-order optimisation (ZOO)",
        source: "Chen et al. 2017, arXiv:1708.03999",
        family: "score",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Scores,
        cost: "at most queries queries, 2 · coordinates + 1 a step",
        minimum_norm: true,
    };
}

/// Running moments of the slope of one coordinate.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    mean: f64,
    square: f64,
    steps: i32,
}

/// The descent of one sample.
struct Descent {
    search: ConstantSearch,
    /// Which of the ever finer images is in use.
    level: usize,
    variables: Vec<f64>,
    moments: Vec<Moments>,
    /// Chance of each coordinate, up to a factor.
    weights: Vec<f64>,
    step: usize,
    /// Loss at the last look.
    looked: f64,
    reached: bool,
    finished: bool,
}

/// What one step has been told about a sample.
#[derive(Clone)]
struct Answers {
    here: Option<f64>,
    /// For each chosen coordinate the hinge loss above and below.
    sides: Vec<[Option<f64>; 2]>,
}

impl Descent {
    fn restart(&mut self, levels: &[Enlarge]) {
        (self.level, self.step, self.looked, self.reached) = (0, 0, f64::INFINITY, false);
        self.refill(levels, None);
    }

    /// Starts at the present level with the change that the elements have now.
    fn refill(&mut self, levels: &[Enlarge], change: Option<&[f64]>) {
        let level = &levels[self.level];
        self.variables = vec![0.0; level.variables()];
        self.moments = vec![Moments::default(); level.variables()];
        self.weights = vec![1.0; level.variables()];
        if let Some(change) = change {
            for (element, variable) in level.places() {
                self.variables[variable] = change[element];
            }
        }
    }

    /// `count` different coordinates, each with a chance that grows with its weight (Efraimidis & Spirakis 2006).
    fn choose(&self, count: usize, generator: &mut ChaCha8Rng) -> Vec<usize> {
        let mut keys: Vec<(f64, usize)> = self
            .weights
            .iter()
            .enumerate()
            .map(|(variable, weight)| (-(1.0 - generator.random::<f64>()).ln() / weight, variable))
            .collect();
        keys.sort_by(|a, b| a.0.total_cmp(&b.0));
        keys.into_iter().take(count).map(|(_, variable)| variable).collect()
    }
}

impl Attack for Zoo {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let domain = problem.threat.domain();
        let ranges = ranges(domain);
        let longest = domain.shape()[1..].iter().copied().max().unwrap_or(1);
        let mut levels = Vec::new();
        let mut side = self.0.cells;
        while levels.is_empty() || side < 2 * longest {
            levels.push(Enlarge::new(domain, side));
            side *= 2;
        }
        let regions = Enlarge::new(domain, REGIONS);
        let mut questions = Questions::scored(problem, self.0.queries, Loss::Margin)?;
        let mut generators = generators(problem);
        let mut descents: Vec<Descent> = (0..problem.inputs.len())
            .map(|_| {
                let mut descent = Descent {
                    search: ConstantSearch::new(self.0.initial_constant, self.0.search_steps),
                    level: 0,
                    variables: Vec::new(),
                    moments: Vec::new(),
                    weights: Vec::new(),
                    step: 0,
                    looked: f64::INFINITY,
                    reached: false,
                    finished: false,
                };
                descent.restart(&levels);
                descent
            })
            .collect();
        loop {
            let mut rows = questions.askable();
            rows.retain(|&row| !descents[row].finished);
            if rows.is_empty() {
                return Ok(questions.finish_minimum());
            }
            let mut chosen = vec![Vec::new(); descents.len()];
            let mut answers = vec![Answers { here: None, sides: Vec::new() }; descents.len()];
            for &row in &rows {
                let descent = &mut descents[row];
                if descent.step > 0 && descent.step.is_multiple_of(self.0.growth) && descent.level + 1 < levels.len() {
                    self.grow(descent, &levels, &regions);
                }
                chosen[row] = descent.choose(self.0.coordinates, &mut generators[row]);
                answers[row].sides = vec![[None; 2]; chosen[row].len()];
            }
            let requests = rows.iter().flat_map(|&row| {
                let (descent, clean) = (&descents[row], problem.inputs.row(row));
                let level = &levels[descent.level];
                let at = |variables: &[f64]| along(clean, 1.0, &level.image(variables));
                let here = (row, at(&descent.variables), None);
                let sides = chosen[row].iter().enumerate().flat_map(move |(place, &variable)| {
                    [1.0, -1.0].into_iter().enumerate().map(move |(side, sign)| {
                        let mut moved = descent.variables.clone();
                        moved[variable] += sign * self.0.probe_fraction;
                        (row, at(&moved), Some((place, side)))
                    })
                });
                std::iter::once(here).chain(sides)
            });
            // The closure of the answers must not hold the descents, which the requests read.
            let mut reached = vec![false; descents.len()];
            questions.stream(requests.collect::<Vec<_>>(), |row, asked, reply| {
                let Some(reply) = reply else { return };
                reached[row] |= reply.reached;
                let hinge = (self.0.confidence - f64::from(reply.value)).max(0.0);
                match asked {
                    None => answers[row].here = Some(hinge),
                    Some((place, side)) => answers[row].sides[place][side] = Some(hinge),
                }
            })?;
            for row in rows {
                let descent = &mut descents[row];
                descent.reached |= reached[row];
                let level = &levels[descent.level];
                self.step(descent, level, &ranges, &chosen[row], &answers[row]);
                if self.ends(descent, level, answers[row].here) {
                    let success = descent.reached;
                    if descent.search.advance(success) {
                        descent.restart(&levels);
                    } else {
                        descent.finished = true;
                    }
                }
            }
        }
    }
}

/// Regions along each side whose greatest change is the chance of the coordinates in them.
const REGIONS: usize = 8;

impl Zoo {
    /// Goes on with smaller cells.
    fn grow(&self, descent: &mut Descent, levels: &[Enlarge], regions: &Enlarge) {
        let mut change = vec![0.0; levels[descent.level].elements()];
        for (element, variable) in levels[descent.level].places() {
            change[element] = descent.variables[variable];
        }
        descent.level += 1;
        descent.refill(levels, Some(&change));
        if self.0.importance_sampling {
            let mut greatest = vec![0.0_f64; regions.variables()];
            for (element, region) in regions.places() {
                greatest[region] = greatest[region].max(change[element].abs());
            }
            let most = greatest.iter().copied().fold(0.0, f64::max);
            if most > 0.0 {
                let mut region_of = vec![0; change.len()];
                regions.places().for_each(|(element, region)| region_of[element] = region);
                for (element, variable) in levels[descent.level].places() {
                    descent.weights[variable] = greatest[region_of[element]].max(1e-3 * most);
                }
            }
        }
    }

    /// Moves the chosen coordinates whose differences were answered.
    fn step(&self, descent: &mut Descent, level: &Enlarge, ranges: &[f64], chosen: &[usize], answers: &Answers) {
        let greatest = ranges.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        // d‖δ‖²/dy is 2·y times this, for δ in the greatest range.
        let mut curvature = vec![0.0; descent.variables.len()];
        for (element, variable) in level.places() {
            curvature[variable] += (ranges[element] / greatest).powi(2);
        }
        let (constant, h, rate) = (descent.search.value(), self.0.probe_fraction, self.0.learning_rate);
        for (&variable, sides) in chosen.iter().zip(&answers.sides) {
            let ([Some(above), Some(below)], Some(here)) = (*sides, answers.here) else { continue };
            let slope =
                2.0 * curvature[variable] * descent.variables[variable] + constant * (above - below) / (2.0 * h);
            let moved = match self.0.solver {
                Solver::Adam => descent.moments[variable].direction(slope),
                Solver::Newton => {
                    let bend = 2.0 * curvature[variable] + constant * (above + below - 2.0 * here) / (h * h);
                    if bend > 0.0 { slope / bend.max(0.1) } else { slope }
                }
            };
            // Farther than the whole range there is nothing.
            descent.variables[variable] = (descent.variables[variable] - rate * moved).clamp(-1.0, 1.0);
        }
        descent.step += 1;
    }

    /// Whether the steps for this c are over.
    fn ends(&self, descent: &mut Descent, level: &Enlarge, here: Option<f64>) -> bool {
        let Some(here) = here else { return true };
        if self.0.abort_early && descent.step.is_multiple_of((self.0.steps / 10).max(1)) {
            let loss = level.length(&descent.variables).powi(2) + descent.search.value() * here;
            if loss > 0.9999 * descent.looked {
                return true;
            }
            descent.looked = loss;
        }
        descent.step >= self.0.steps
    }
}

impl Moments {
    fn direction(&mut self, slope: f64) -> f64 {
        const DECAYS: [f64; 2] = [0.9, 0.999];
        self.steps = self.steps.saturating_add(1);
        self.mean = DECAYS[0] * self.mean + (1.0 - DECAYS[0]) * slope;
        self.square = DECAYS[1] * self.square + (1.0 - DECAYS[1]) * slope * slope;
        let [mean, square] = [self.mean, self.square];
        let corrected = |moment: f64, decay: f64| moment / (1.0 - decay.powi(self.steps));
        corrected(mean, DECAYS[0]) / (corrected(square, DECAYS[1]).sqrt() + 1e-8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Seed, ThreatModel};
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        // A linear loss under the squared length is a parabola, whose lowest point one step of Newton's finds.
        let text = "solver = \"newton\"\nlearning_rate = 1.0\nsteps = 3\nsearch_steps = 16\ninitial_constant = 1e-8";
        let attack: Zoo = toml::from_str(text).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.05, goals: true }), Ok(()));
        let adam: Zoo = toml::from_str("steps = 10\nsearch_steps = 3\ncoordinates = 6").unwrap();
        assert_eq!(suite::check_mechanics(&adam), Ok(()));
    }

    #[test]
    fn adam_comes_near_the_least_change() {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, suite::ct_domain()).unwrap();
        let attack: Zoo = toml::from_str("learning_rate = 2e-4\nsteps = 300\ninitial_constant = 1e-6").unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        for (row, clean) in samples.rows().enumerate() {
            let found = Norm::L2.distance(clean, outcome.perturbed_inputs.row(row));
            let least = model.least_change(Norm::L2, clean);
            assert!(outcome.success[row] && found < 1.2 * least, "{row}: {found} {least}");
        }
    }

    #[test]
    fn cells_are_halved_and_then_chosen_where_something_changed() {
        let domain = Domain::grey_levels(&[1, 16, 16], 1.0).unwrap();
        let levels = [2, 4].map(|side| Enlarge::new(&domain, side));
        let regions = Enlarge::new(&domain, REGIONS);
        let zoo = Zoo::try_from(ZooConfig::default()).unwrap();
        let mut descent = Descent {
            search: ConstantSearch::new(1.0, 1),
            level: 0,
            variables: Vec::new(),
            moments: Vec::new(),
            weights: Vec::new(),
            step: 0,
            looked: 0.0,
            reached: false,
            finished: false,
        };
        descent.restart(&levels);
        descent.variables = vec![0.0, 0.5, 0.0, 0.0];
        let before = levels[0].image(&descent.variables);
        zoo.grow(&mut descent, &levels, &regions);
        assert_eq!(levels[1].image(&descent.variables), before);
        let mut counts = [0; 16];
        let mut generator = Seed(1).for_sample(0);
        for _ in 0..500 {
            let chosen = descent.choose(2, &mut generator);
            assert!(chosen[0] != chosen[1]);
            chosen.into_iter().for_each(|variable| counts[variable] += 1);
        }
        // The upper right quarter of 4 by 4 cells.
        let quarter: i32 = [2, 3, 6, 7].iter().map(|&variable| counts[variable]).sum();
        assert!(quarter > 950, "{counts:?}");
    }

    #[test]
    fn a_coarse_search_asks_for_few_coordinates() {
        // 16 by 16 elements in 2 by 2 cells: 9 queries a step.
        let domain = Domain::grey_levels(&[1, 16, 16], 1.0).unwrap();
        let model = nocebo_testkit::models::Constant::new(domain.clone(), vec![1.0, 0.0]);
        let samples = nocebo_core::Samples::new(vec![0.5; 256], &[1, 16, 16]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::L2, 1.0, domain).unwrap();
        let attack: Zoo = toml::from_str("cells = 2\nsteps = 7\nsearch_steps = 2\nabort_early = false").unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert_eq!(outcome.queries[0].forward, 1 + 2 * 7 * 9);
        let outcome = attack.run(&model, &samples, &goal, &threat.with_query_limit(30), Seed(1)).unwrap();
        assert_eq!(outcome.queries[0].forward, 30);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in [
            "kappa = 1",
            "steps = 0",
            "coordinates = 0",
            "cells = 0",
            "growth = 0",
            "queries = 0",
            "initial_constant = 0.0",
            "learning_rate = nan",
            "probe_fraction = -1",
            "confidence = -1",
            "solver = \"sgd\"",
        ] {
            assert!(toml::from_str::<Zoo>(text).is_err(), "{text}");
        }
    }
}
