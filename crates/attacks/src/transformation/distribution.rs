//! What may happen to a sample between the attacker and the model, as settings; one draw of it is a [`Chain`].

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Domain, Error, Samples, Seed};

use super::Chain;
use super::filter::Blur;
use super::jpeg::Jpeg;
use super::tone::{Add, Clip, Flip, Gamma, Tone};
use super::warp::{Affine, Beyond, Warp, places, sides_of};

/// One step of a distribution. Two numbers are the ends of a uniform draw.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RandomTransformation {
    /// Rotation, scaling and shift about the centre; the edge goes on beyond the edge.
    Affine {
        /// Greatest angle in degrees, either way, in each plane of two axes; 0 to 180.
        rotation: f64,
        /// Factor on the size of the content; above 0.
        scale: [f64; 2],
        /// Greatest shift along each axis, either way, as a fraction of its side; 0 to 1.
        shift: f64,
    },
    /// Mirroring along each axis by itself.
    Flip {
        /// Chance of each axis; 0 to 1.
        probability: f64,
    },
    /// A tilted view of an image: distances from the centre are divided by `1 + tilt·place`, place in −1..1.
    Perspective {
        /// Greatest tilt along each axis, either way; 0 to 0.4.
        tilt: f64,
    },
    /// Gaussian blur.
    Blur {
        /// Standard deviation in elements; 0 to 100.
        sigma: [f64; 2],
    },
    /// A power law between the bounds.
    Gamma {
        /// Exponent; above 0.
        exponent: [f64; 2],
    },
    /// Contrast about the middle of the bounds, and brightness.
    Tone {
        /// Factor on the contrast; at least 0.
        contrast: [f64; 2],
        /// Greatest change of brightness, either way, as a fraction of the range; 0 to 1.
        brightness: f64,
    },
    /// Gaussian noise.
    Noise {
        /// Standard deviation as a fraction of the range; 0 to 1.
        deviation: [f64; 2],
    },
    /// Compression loss of an image; its derivative passes straight through.
    Jpeg {
        /// Quality, 1 to 100.
        quality: [f64; 2],
    },
}

/// Random steps one after another, each drawn by itself; then the values are clipped to the bounds. None is the
/// identity.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(try_from = "Vec<RandomTransformation>", into = "Vec<RandomTransformation>")]
pub struct Transformations(Vec<RandomTransformation>);

impl From<Transformations> for Vec<RandomTransformation> {
    fn from(transformations: Transformations) -> Self {
        transformations.0
    }
}

impl TryFrom<Vec<RandomTransformation>> for Transformations {
    type Error = Error;

    fn try_from(steps: Vec<RandomTransformation>) -> Result<Self, Error> {
        use RandomTransformation as Step;
        let number = |field, must_be, allowed: std::ops::RangeInclusive<f64>, value: f64| {
            if allowed.contains(&value) { Ok(()) } else { Err(Error::invalid(field, must_be, value)) }
        };
        let interval = |field, must_be, allowed: std::ops::RangeInclusive<f64>, ends: [f64; 2]| {
            if ends[0] <= ends[1] && ends.iter().all(|end| allowed.contains(end)) {
                Ok(())
            } else {
                Err(Error::invalid(field, must_be, format!("{ends:?}")))
            }
        };
        for step in &steps {
            match *step {
                Step::Affine { rotation, scale, shift } => {
                    number("rotation", "0 to 180 degrees", 0.0..=180.0, rotation)?;
                    interval("scale", "two numbers from 0.01 to 100, the lower first", 0.01..=100.0, scale)?;
                    number("shift", "0 to 1", 0.0..=1.0, shift)?;
                }
                Step::Flip { probability } => number("probability", "0 to 1", 0.0..=1.0, probability)?,
                Step::Perspective { tilt } => number("tilt", "0 to 0.4", 0.0..=0.4, tilt)?,
                Step::Blur { sigma } => {
                    interval("sigma", "two numbers from 0 to 100, the lower first", 0.0..=100.0, sigma)?;
                }
                Step::Gamma { exponent } => {
                    interval("exponent", "two numbers from 0.01 to 100, the lower first", 0.01..=100.0, exponent)?;
                }
                Step::Tone { contrast, brightness } => {
                    interval("contrast", "two numbers from 0 to 100, the lower first", 0.0..=100.0, contrast)?;
                    number("brightness", "0 to 1", 0.0..=1.0, brightness)?;
                }
                Step::Noise { deviation } => {
                    interval("deviation", "two numbers from 0 to 1, the lower first", 0.0..=1.0, deviation)?;
                }
                Step::Jpeg { quality } => {
                    interval("quality", "two numbers from 1 to 100, the lower first", 1.0..=100.0, quality)?;
                }
            }
        }
        Ok(Self(steps))
    }
}

impl Transformations {
    /// The planar distribution of Athalye et al. 2018 (arXiv:1707.07397, appendix): scale 0.9 to 1.4, rotation to
    /// 22.5°, brightness to 5 %, noise to 10 % of the range. The shift of 10 % is ours, where the paper places the
    /// object anywhere in the frame.
    pub fn planar() -> Self {
        Self(vec![
            RandomTransformation::Affine { rotation: 22.5, scale: [0.9, 1.4], shift: 0.1 },
            RandomTransformation::Tone { contrast: [1.0, 1.0], brightness: 0.05 },
            RandomTransformation::Noise { deviation: [0.0, 0.1] },
        ])
    }

    /// A print of an image, scanned or photographed from the front: up to 2° of rotation, 2 % of scale and shift, a
    /// slight tilt, gamma within 20 %, blur of 0.3 to 1 element, noise of up to 2 % of the range, JPEG of quality 60 to 95.
    /// The ranges are ours and measured on no device.
    pub fn print_and_scan() -> Self {
        Self(vec![
            RandomTransformation::Affine { rotation: 2.0, scale: [0.98, 1.02], shift: 0.02 },
            RandomTransformation::Perspective { tilt: 0.03 },
            RandomTransformation::Gamma { exponent: [0.8, 1.25] },
            RandomTransformation::Blur { sigma: [0.3, 1.0] },
            RandomTransformation::Noise { deviation: [0.0, 0.02] },
            RandomTransformation::Jpeg { quality: [60.0, 95.0] },
        ])
    }

    /// Rotation to 30° and mirroring: a sample that may lie any way round. The angle is ours.
    pub fn turned_and_mirrored() -> Self {
        Self(vec![
            RandomTransformation::Affine { rotation: 30.0, scale: [1.0, 1.0], shift: 0.0 },
            RandomTransformation::Flip { probability: 0.5 },
        ])
    }

    /// Small movements of a wearer and changes of light. The ranges are ours.
    pub fn worn() -> Self {
        Self(vec![
            RandomTransformation::Affine { rotation: 4.0, scale: [0.95, 1.05], shift: 0.02 },
            RandomTransformation::Tone { contrast: [0.9, 1.1], brightness: 0.05 },
        ])
    }

    /// Whether nothing happens.
    pub fn is_identity(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that every step can be applied to samples of this shape.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for geometry on a table, or for a step that only images have.
    pub fn check(&self, domain: &Domain) -> Result<(), Error> {
        use RandomTransformation as Step;
        for step in &self.0 {
            match step {
                Step::Affine { .. } | Step::Flip { .. } | Step::Blur { .. } => {
                    sides_of("a change of geometry", domain.shape())?;
                }
                Step::Perspective { .. } | Step::Jpeg { .. } => {
                    if sides_of("a change of geometry", domain.shape())?.len() != 2 {
                        return Err(Error::unsupported(
                            format!("perspective or JPEG on samples of shape {:?}", domain.shape()),
                            "only an image (channels, height, width) has them",
                        ));
                    }
                }
                Step::Gamma { .. } | Step::Tone { .. } | Step::Noise { .. } => {}
            }
        }
        Ok(())
    }

    /// One draw for samples of this domain, which [`Transformations::check`] has seen.
    pub fn draw(&self, domain: &Domain, generator: &mut impl RngExt) -> Chain {
        let mut chain = Chain::default();
        for step in &self.0 {
            step.draw(domain, generator, &mut chain);
        }
        if !self.0.is_empty() {
            let (lower, upper) = (domain.lower().to_vec(), domain.upper().to_vec());
            chain.0.push(Box::new(Clip { lower, upper }));
        }
        chain
    }

    /// One draw for each row of a batch: that of a sample depends on the seed and its index alone.
    pub fn draw_each(&self, domain: &Domain, points: &Samples, seed: Seed) -> Vec<Chain> {
        points.indices().iter().map(|&index| self.draw(domain, &mut seed.for_sample(index))).collect()
    }
}

impl RandomTransformation {
    fn draw(&self, domain: &Domain, generator: &mut impl RngExt, chain: &mut Chain) {
        let sides = &domain.shape()[1..];
        let (lower, upper) = (domain.lower(), domain.upper());
        let ranges = lower.iter().zip(upper).map(|(lower, upper)| upper - lower);
        match *self {
            Self::Affine { rotation, scale, shift } => {
                let mut map = Affine::identity(sides.len());
                for angle in &mut map.angles {
                    *angle = either_way(rotation, generator).to_radians();
                }
                map.scales.fill(1.0 / between(scale, generator));
                for (moved, side) in map.shifts.iter_mut().zip(sides) {
                    *moved = either_way(shift, generator) * *side as f64;
                }
                chain.0.push(Box::new(map.warp(sides, Beyond::Edge)));
            }
            Self::Flip { probability } => {
                for axis in 0..sides.len() {
                    if generator.random::<f64>() < probability {
                        chain.0.push(Box::new(Flip { sides: sides.to_vec(), axis }));
                    }
                }
            }
            Self::Perspective { tilt } => {
                let tilts = [either_way(tilt, generator), either_way(tilt, generator)];
                chain.0.push(Box::new(perspective(sides, tilts)));
            }
            Self::Blur { sigma } => chain.0.push(Box::new(Blur::new(sides, between(sigma, generator)))),
            Self::Gamma { exponent } => chain.0.push(Box::new(Gamma {
                exponent: between(exponent, generator) as f32,
                lower: lower.to_vec(),
                upper: upper.to_vec(),
            })),
            Self::Tone { contrast, brightness } => {
                let contrast = between(contrast, generator) as f32;
                let brightness = either_way(brightness, generator) as f32;
                let middle = lower.iter().zip(upper).map(|(lower, upper)| 0.5 * (lower + upper)).collect();
                chain.0.push(Box::new(Tone {
                    contrast,
                    middle,
                    offset: ranges.map(|range| brightness * range).collect(),
                }));
            }
            Self::Noise { deviation } => {
                let deviation = between(deviation, generator) as f32;
                chain.0.push(Box::new(Add(ranges.map(|range| deviation * range * normal(generator)).collect())));
            }
            Self::Jpeg { quality } => {
                chain.0.push(Box::new(Jpeg::new(sides[0], sides[1], lower, upper, between(quality, generator))));
            }
        }
    }
}

/// Reads an image as seen from a tilted camera.
fn perspective(sides: &[usize], tilts: [f64; 2]) -> Warp {
    let own = places(sides);
    let mut positions = own.clone();
    let centre: Vec<f64> = sides.iter().map(|side| (*side as f64 - 1.0) / 2.0).collect();
    for element in 0..sides.iter().product() {
        let from_centre = [0, 1].map(|axis| f64::from(own[axis][element]) - centre[axis]);
        let depth: f64 = 1.0 + (0..2).map(|axis| tilts[axis] * from_centre[axis] / centre[axis].max(0.5)).sum::<f64>();
        for axis in 0..2 {
            positions[axis][element] = (centre[axis] + from_centre[axis] / depth) as f32;
        }
    }
    Warp::new(sides, positions, Beyond::Edge)
}

fn between(ends: [f64; 2], generator: &mut impl RngExt) -> f64 {
    ends[0] + (ends[1] - ends[0]) * generator.random::<f64>()
}

fn either_way(greatest: f64, generator: &mut impl RngExt) -> f64 {
    greatest * (2.0 * generator.random::<f64>() - 1.0)
}

/// A standard normal number (Box & Muller 1958).
pub(crate) fn normal(generator: &mut impl RngExt) -> f32 {
    let (a, b): (f64, f64) = (generator.random(), generator.random());
    ((-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::super::Transformation;
    use super::*;

    const EVERY_KIND: &str = r#"
        steps = [
            { kind = "affine", rotation = 15.0, scale = [0.9, 1.1], shift = 0.1 },
            { kind = "flip", probability = 0.5 },
            { kind = "perspective", tilt = 0.1 },
            { kind = "blur", sigma = [0.0, 1.0] },
            { kind = "gamma", exponent = [0.8, 1.2] },
            { kind = "tone", contrast = [0.9, 1.1], brightness = 0.05 },
            { kind = "noise", deviation = [0.0, 0.02] },
            { kind = "jpeg", quality = [60.0, 95.0] },
        ]
    "#;

    #[derive(Deserialize)]
    struct Recipe {
        steps: Transformations,
    }

    fn parse(text: &str) -> Result<Transformations, toml::de::Error> {
        toml::from_str::<Recipe>(text).map(|recipe| recipe.steps)
    }

    #[test]
    fn a_draw_depends_on_seed_and_index_and_stays_inside_the_bounds() {
        let all = parse(EVERY_KIND).unwrap();
        let domain = Domain::grey_levels(&[1, 6, 9], 255.0).unwrap();
        all.check(&domain).unwrap();
        let samples = Samples::new((0..108).map(|at| ((at * 53) % 256) as f32).collect(), &[1, 6, 9]).unwrap();
        let apply = |chains: &[Chain], row: usize| chains[row].apply(samples.row(row));
        let (once, again) = (all.draw_each(&domain, &samples, Seed(1)), all.draw_each(&domain, &samples, Seed(1)));
        let other = all.draw_each(&domain, &samples, Seed(2));
        assert_eq!(apply(&once, 1), apply(&again, 1));
        assert_ne!(apply(&once, 1), apply(&other, 1));
        assert_eq!(apply(&all.draw_each(&domain, &samples.select(&[1]), Seed(1)), 0).len(), 54);
        assert_eq!(all.draw_each(&domain, &samples.select(&[1]), Seed(1))[0].apply(samples.row(1)), apply(&once, 1));
        assert!(apply(&once, 0).iter().all(|value| (0.0..=255.0).contains(value)));
        assert!(apply(&once, 0) != samples.row(0));
    }

    #[test]
    fn the_distributions_with_a_name_are_within_what_is_checked() {
        let named = [
            Transformations::planar(),
            Transformations::print_and_scan(),
            Transformations::turned_and_mirrored(),
            Transformations::worn(),
        ];
        for distribution in named {
            assert!(!distribution.is_identity());
            assert_eq!(Transformations::try_from(distribution.0.clone()).unwrap(), distribution);
        }
    }

    #[test]
    fn noise_is_clipped_to_the_bounds() {
        let noise = parse(r#"steps = [{ kind = "noise", deviation = [0.5, 0.5] }]"#).unwrap();
        let domain = Domain::grey_levels(&[40], 255.0).unwrap();
        let noisy = noise.draw(&domain, &mut Seed(1).for_sample(0)).apply(&[250.0; 40]);
        assert!(noisy.iter().all(|value| (0.0..=255.0).contains(value)) && noisy.contains(&255.0), "{noisy:?}");
    }

    #[test]
    fn no_steps_are_the_identity() {
        let domain = Domain::grey_levels(&[4], 255.0).unwrap();
        let chain = Transformations::default().draw(&domain, &mut Seed(1).for_sample(0));
        assert_eq!(chain.apply(&[1.0, 2.0, 3.0, 4.0]), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn a_tilt_enlarges_one_side() {
        let column = |at: usize| perspective(&[1, 5], [0.0, 0.2]).apply(&[0.0, 1.0, 2.0, 3.0, 4.0])[at];
        // 2 + 2/1.2 on the right; on the left 2 − 2/0.8 = −0.5 is the edge.
        assert!((column(4) - (2.0 + 2.0 / 1.2)).abs() < 1e-5 && column(0) == 0.0 && column(2) == 2.0);
    }

    #[test]
    fn unusable_steps_are_refused() {
        for step in [
            r#"{ kind = "affine", rotation = 200.0, scale = [1.0, 1.0], shift = 0.0 }"#,
            r#"{ kind = "affine", rotation = 0.0, scale = [1.2, 1.0], shift = 0.0 }"#,
            r#"{ kind = "affine", rotation = 0.0, scale = [1.0, 1.0], shift = 0.0, shear = 1.0 }"#,
            r#"{ kind = "noise", deviation = [0.0, nan] }"#,
            r#"{ kind = "gamma", exponent = [0.0, 1.0] }"#,
            r#"{ kind = "jpeg", quality = [0.0, 50.0] }"#,
            r#"{ kind = "snow" }"#,
        ] {
            assert!(parse(&format!("steps = [{step}]")).is_err(), "{step}");
        }
        let all = parse(EVERY_KIND).unwrap();
        assert!(all.check(&Domain::grey_levels(&[7], 255.0).unwrap()).is_err());
        assert!(all.check(&Domain::grey_levels(&[1, 2, 3, 4], 255.0).unwrap()).is_err());
    }
}
