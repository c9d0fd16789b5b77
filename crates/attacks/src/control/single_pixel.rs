//! One random pixel, moved as little as reaches the goal: a control.
//!
//! ```text
//! a pixel p (all its channels) goes a fraction t of the way to its upper, then to its lower bound;
//! pixels in random order until one reaches the goal, then the least t in (0, 1] (in L0 any t is as good)
//! ```
//!
//! It shows how far a model hangs on single points without any search for the right one. A feature of a table is a pixel.
//!
//! Source: the noise battery of Survey: \[6\], as in Foolbox.
//!
//! Differs from the source: pixels are not repeated, and the magnitude is reduced by bisection.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use crate::line_search::LineSearch;
use crate::nearest::Nearest;

/// Settings of [`SinglePixel`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SinglePixelConfig {
    /// Pixels that are tried, each in both directions; at least 1.
    pub pixels: usize,
    /// Halvings of the magnitude of a pixel that reaches the goal; 0 for none.
    pub bisections: usize,
}

impl Default for SinglePixelConfig {
    /// Chosen here.
    fn default() -> Self {
        Self { pixels: 100, bisections: 10 }
    }
}

/// One random pixel; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SinglePixelConfig")]
pub struct SinglePixel(SinglePixelConfig);

impl TryFrom<SinglePixelConfig> for SinglePixel {
    type Error = Error;

    fn try_from(config: SinglePixelConfig) -> Result<Self, Error> {
        if config.pixels == 0 {
            return Err(Error::invalid("pixels", "at least 1", config.pixels));
        }
        Ok(Self(config))
    }
}

impl SinglePixel {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "single-pixel",
        title: "Least change of one random pixel (control)",
        source: "control",
        family: "control",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "2 · pixels + bisections queries",
        minimum_norm: true,
    };

    /// For each row, the elements of each pixel that is tried, in order.
    fn draw(&self, problem: &AttackProblem<'_>) -> Vec<Vec<Vec<usize>>> {
        let (domain, shape) = (problem.threat.domain(), problem.inputs.shape());
        let plane: usize = if shape.len() == 1 { shape[0] } else { shape[1..].iter().product() };
        let pixels: Vec<Vec<usize>> = (0..plane)
            .map(|pixel| (pixel..domain.elements()).step_by(plane).filter(|&at| domain.is_mutable(at)).collect())
            .filter(|pixel: &Vec<usize>| !pixel.is_empty())
            .collect();
        problem
            .inputs
            .indices()
            .iter()
            .map(|&sample| {
                let mut generator = problem.seed.for_sample(sample);
                let mut order: Vec<usize> = (0..pixels.len()).collect();
                let tried = self.0.pixels.min(order.len());
                for place in 0..tried {
                    let other = generator.random_range(place..order.len());
                    order.swap(place, other);
                }
                order[..tried].iter().map(|&pixel| pixels[pixel].clone()).collect()
            })
            .collect()
    }
}

impl Attack for SinglePixel {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `2·pixels + bisections` queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let (domain, inputs) = (problem.threat.domain(), problem.inputs);
        let drawn = self.draw(problem);
        let mut nearest = Nearest::new(problem);
        let mut rows: Vec<usize> = (0..inputs.len()).collect();
        // The strongest change first, and only where it reaches the goal a weaker one.
        let search = LineSearch { doublings: 1, bisections: self.0.bisections };
        #[expect(clippy::needless_range_loop, reason = "all rows try the same place of their own draw")]
        for place in 0..drawn.iter().map(Vec::len).max().unwrap_or(0) {
            for ends in [domain.upper(), domain.lower()] {
                search.run(problem, &mut nearest, &rows, |row, magnitude| {
                    let mut point = inputs.row(row).to_vec();
                    for &element in &drawn[row][place] {
                        let clean = f64::from(point[element]);
                        point[element] = (clean + magnitude * (f64::from(ends[element]) - clean)) as f32;
                    }
                    point
                })?;
                rows.retain(|&row| nearest.found(row).is_none());
            }
        }
        Ok(nearest.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    fn attack(pixels: usize) -> SinglePixel {
        SinglePixel::try_from(SinglePixelConfig { pixels, ..Default::default() }).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        assert_eq!(suite::check_mechanics(&attack(12)), Ok(()));
    }

    #[test]
    fn finds_the_pixel_that_matters_when_all_are_tried() {
        // Two channels of 3 × 2: only pixel 4 has a weight, and its channels must rise by 40 together.
        let domain = Domain::grey_levels(&[2, 3, 2], 255.0).unwrap();
        let weights = (0..12).map(|at| f32::from(u8::from(at % 6 == 4))).collect();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 240.0 }, vec![weights], vec![0.0]);
        let inputs = Samples::new(vec![100.0; 8 * 12], &[2, 3, 2]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let outcome = attack(6).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.success.iter().all(|success| *success));
        for (element, value) in outcome.perturbed_inputs.values().iter().enumerate() {
            let expected = if element % 6 == 4 { 120.0 } else { 100.0 };
            assert!((value - expected).abs() < 0.5, "{element}: {value}");
        }
    }

    #[test]
    fn tries_no_more_pixels_than_it_is_told() {
        let model = nocebo_testkit::models::Constant::new(suite::ct_domain(), vec![1.0, 0.0]);
        let inputs = suite::ct_samples().select(&[0]);
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L0, f32::INFINITY, suite::ct_domain()).unwrap();
        for (pixels, expected) in [(1, 3), (5, 11), (99, 25)] {
            let outcome = attack(pixels).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
            assert_eq!(outcome.queries[0].forward, expected);
        }
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in ["pixels = 0", "max_pixels = 9"] {
            assert!(toml::from_str::<SinglePixel>(text).is_err(), "{text}");
        }
    }
}
