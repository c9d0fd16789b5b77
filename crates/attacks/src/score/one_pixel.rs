//! One-pixel attack: differential evolution over places and values of a few pixels; L0.
//!
//! ```text
//! candidate  d pixels, each a place and one value a channel
//! start      places uniform, values ~ N(½, ½) of the range
//! child i    c_r1 + F·(c_r2 − c_r3) of three different candidates; it replaces candidate i if its objective is greater
//! ```
//!
//! Source: Su, Vargas & Sakurai, IEEE Transactions on Evolutionary Computation 2019, arXiv:1710.08864, section III-B;
//! d = 1, 3 and 5 there. Survey: \[119\].
//!
//! Differs from the source: the search ends at the first point that reaches the goal, not when a probability falls below
//! 5 %; places and values that leave their range are clipped to it; a pixel is a place in time or space, or a feature of
//! a table, and d falls to what epsilon allows.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Domain, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::grid::{Grid, flat, gaussian};
use super::questions::{Questions, generators};

/// Settings of [`OnePixel`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnePixelConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Pixels d that change; at least 1. Each counts as one element of epsilon for every channel.
    pub pixels: usize,
    /// Candidates; at least 4.
    pub population: usize,
    /// Generations of children; at least 1.
    pub generations: usize,
    /// Scale F of a difference; finite and above 0.
    pub scale: f64,
}

impl Default for OnePixelConfig {
    /// The values of the source.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, pixels: 1, population: 400, generations: 100, scale: 0.5 }
    }
}

/// One-pixel attack; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "OnePixelConfig")]
pub struct OnePixel(OnePixelConfig);

impl TryFrom<OnePixelConfig> for OnePixel {
    type Error = Error;

    fn try_from(config: OnePixelConfig) -> Result<Self, Error> {
        for (field, value) in [("pixels", config.pixels), ("generations", config.generations)] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        if config.population < 4 {
            return Err(Error::invalid("population", "at least 4", config.population));
        }
        if !(config.scale.is_finite() && config.scale > 0.0) {
            return Err(Error::invalid("scale", "finite and above 0", config.scale));
        }
        Ok(Self(config))
    }
}

impl OnePixel {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "one-pixel",
        title: "One-pixel attack",
        source: "Su et al. 2019, arXiv:1710.08864",
        family: "score",
        norms: &[Norm::L0],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Scores,
        cost: "population · (generations + 1) queries",
        minimum_norm: false,
    };
}

/// Candidates as rows of numbers: for each pixel its coordinates, then its values as fractions of the range.
struct Candidates<'a> {
    grid: &'a Grid,
    domain: &'a Domain,
    pixels: usize,
}

impl Candidates<'_> {
    fn random(&self, generator: &mut ChaCha8Rng) -> Vec<f64> {
        let mut candidate = Vec::new();
        for _ in 0..self.pixels {
            candidate.extend(self.grid.sides().iter().map(|&side| generator.random::<f64>() * side as f64));
            candidate.extend((0..self.grid.channels()).map(|_| 0.5 + 0.5 * gaussian(generator)));
        }
        candidate
    }

    fn point(&self, clean: &[f32], candidate: &[f64]) -> Vec<f32> {
        let (sides, mut point) = (self.grid.sides(), clean.to_vec());
        for pixel in candidate.chunks_exact(sides.len() + self.grid.channels()) {
            let (place, values) = pixel.split_at(sides.len());
            let at = place.iter().zip(sides).map(|(at, &side)| at.clamp(0.0, (side - 1) as f64) as usize);
            let position = flat(at, sides);
            for (channel, value) in values.iter().enumerate() {
                let element = self.grid.element(channel, position);
                let (lower, upper) = (f64::from(self.domain.lower()[element]), f64::from(self.domain.upper()[element]));
                point[element] = (lower + value.clamp(0.0, 1.0) * (upper - lower)) as f32;
            }
        }
        point
    }
}

impl Attack for OnePixel {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let grid = Grid::new(problem.threat.domain());
        let allowed = (problem.threat.epsilon() / grid.channels() as f32) as usize;
        let pixels = self.0.pixels.min(allowed).min(grid.positions());
        let mut questions = Questions::scored(problem, u32::MAX, self.0.loss)?;
        if pixels == 0 {
            return Ok(questions.finish(problem.inputs));
        }
        let candidates = Candidates { grid: &grid, domain: problem.threat.domain(), pixels };
        let mut generators = generators(problem);
        let mut populations: Vec<Vec<Vec<f64>>> = generators
            .iter_mut()
            .map(|generator| (0..self.0.population).map(|_| candidates.random(generator)).collect())
            .collect();
        let mut values = vec![vec![f32::NEG_INFINITY; self.0.population]; populations.len()];
        for generation in 0..=self.0.generations {
            let rows = questions.searching();
            if rows.is_empty() {
                break;
            }
            let mut requests = Vec::with_capacity(rows.len() * self.0.population);
            for row in rows {
                for member in 0..self.0.population {
                    let candidate = if generation == 0 {
                        populations[row][member].clone()
                    } else {
                        self.child(&populations[row], &mut generators[row])
                    };
                    requests.push((row, candidates.point(problem.inputs.row(row), &candidate), (member, candidate)));
                }
            }
            questions.stream(requests, |row, (member, candidate), reply| {
                if let Some(reply) = reply
                    && reply.value > values[row][member]
                {
                    values[row][member] = reply.value;
                    populations[row][member] = candidate;
                }
            })?;
        }
        let mut best = problem.inputs.clone();
        for (row, (population, values)) in populations.iter().zip(&values).enumerate() {
            let point = candidates.point(problem.inputs.row(row), &population[nocebo_core::argmax(values)]);
            best.row_mut(row).copy_from_slice(&point);
            problem.threat.project_row(problem.inputs.row(row), best.row_mut(row));
        }
        Ok(questions.finish(&best))
    }
}

impl OnePixel {
    fn child(&self, population: &[Vec<f64>], generator: &mut ChaCha8Rng) -> Vec<f64> {
        let mut three = [0; 3];
        for place in 0..3 {
            three[place] = loop {
                let drawn = generator.random_range(0..population.len());
                if !three[..place].contains(&drawn) {
                    break drawn;
                }
            };
        }
        let [first, second, third] = three.map(|member| &population[member]);
        first.iter().zip(second.iter().zip(third)).map(|(a, (b, c))| a + self.0.scale * (b - c)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Goal, Samples, Seed, ThreatModel};
    use nocebo_testkit::models::Constant;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack: OnePixel = toml::from_str("pixels = 12\npopulation = 60\ngenerations = 40").unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.01, goals: true }), Ok(()));
    }

    #[test]
    fn changes_whole_pixels_as_many_as_epsilon_allows_and_costs_what_it_says() {
        let domain = Domain::grey_levels(&[3, 5, 6], 255.0).unwrap();
        let model = Constant::new(domain.clone(), vec![1.0, 0.0]);
        let samples = Samples::new(vec![9.0; 180], &[3, 5, 6]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let attack: OnePixel = toml::from_str("pixels = 3\npopulation = 6\ngenerations = 2").unwrap();
        for (epsilon, most) in [(2.0, 0), (7.0, 2), (50.0, 3)] {
            let threat = ThreatModel::new(Norm::L0, epsilon, domain.clone()).unwrap();
            let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
            for (row, point) in outcome.perturbed_inputs.rows().enumerate() {
                let changed: std::collections::BTreeSet<usize> =
                    (0..90).filter(|&element| point[element] != 9.0).map(|element| element % 30).collect();
                assert!(changed.len() <= most && (most == 0) == changed.is_empty(), "{epsilon}: {changed:?}");
                assert_eq!(outcome.queries[row].forward, if most == 0 { 1 } else { 1 + 6 * 3 });
            }
        }
    }

    #[test]
    fn a_child_is_made_of_three_others() {
        let attack = OnePixel::try_from(OnePixelConfig { scale: 0.25, ..OnePixelConfig::default() }).unwrap();
        let population: Vec<Vec<f64>> = [1.0, 10.0, 100.0, 1000.0].iter().map(|value| vec![*value]).collect();
        let mut seen = std::collections::BTreeSet::new();
        let mut generator = Seed(1).for_sample(0);
        for _ in 0..500 {
            seen.insert((attack.child(&population, &mut generator)[0] * 4.0) as i64);
        }
        // 4a + b − c over the 24 ordered choices of three.
        let values = [1, 10, 100, 1000];
        let mut expected = std::collections::BTreeSet::new();
        for a in values {
            for b in values {
                for c in values {
                    if a != b && b != c && a != c {
                        expected.insert(4 * a + b - c);
                    }
                }
            }
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["d = 1", "pixels = 0", "population = 3", "generations = 0", "scale = inf"] {
            assert!(toml::from_str::<OnePixel>(text).is_err(), "{text}");
        }
    }
}
