//! How much an attacker may change: norm, epsilon in the unit of the data, bounds, and queries.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Domain, Error, Norm, Samples};

/// What an attacker may do to a sample of one domain.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreatModel {
    norm: Norm,
    epsilon: f32,
    domain: Domain,
    query_limit: Option<u32>,
}

impl ThreatModel {
    /// Changes of at most `epsilon` in `norm`, in the unit of `domain`; infinity for no limit but the bounds.
    ///
    /// # Errors
    ///
    /// When epsilon is NaN or negative.
    pub fn new(norm: Norm, epsilon: f32, domain: Domain) -> Result<Self, Error> {
        if epsilon.is_nan() || epsilon < 0.0 {
            return Err(Error::invalid("epsilon", "at least 0", epsilon));
        }
        Ok(Self { norm, epsilon, domain, query_limit: None })
    }

    /// The same threat with at most `queries` forward passes a sample.
    #[must_use]
    pub fn with_query_limit(mut self, queries: u32) -> Self {
        self.query_limit = Some(queries);
        self
    }

    /// The same threat with a finite epsilon: no limit becomes the least that allows every change within the bounds, so
    /// that a step can be a fraction of it.
    #[must_use]
    pub fn finite(mut self) -> Self {
        if self.epsilon.is_infinite() {
            self.epsilon = self.norm.greatest_distance(&self.domain);
        }
        self
    }

    /// Norm of a change.
    pub fn norm(&self) -> Norm {
        self.norm
    }

    /// Greatest change, in the unit of the domain (for L0: number of elements).
    pub fn epsilon(&self) -> f32 {
        self.epsilon
    }

    /// Bounds, unit and region of interest of the samples.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Forward passes allowed a sample, gradient passes included; `None` for no limit.
    pub fn query_limit(&self) -> Option<u32> {
        self.query_limit
    }

    /// [`Norm::project`] for each row of a batch.
    ///
    /// # Panics
    ///
    /// When the batches do not have the domain's size.
    pub fn project(&self, clean: &Samples, points: &mut Samples) {
        for (clean, point) in clean.rows().zip(points.rows_mut()) {
            self.project_row(clean, point);
        }
    }

    /// [`Norm::project`] for one row.
    ///
    /// # Panics
    ///
    /// When the rows do not have the domain's size.
    pub fn project_row(&self, clean: &[f32], point: &mut [f32]) {
        self.norm.project(self.epsilon, &self.domain, clean, point);
    }

    /// Whether `point` is allowed: inside the bounds, unchanged outside the region, and within epsilon of `clean` up
    /// to what float rounding of the values themselves explains.
    pub fn allows(&self, clean: &[f32], point: &[f32]) -> bool {
        let inside = point.iter().enumerate().all(|(element, value)| {
            let (lower, upper) = self.domain.allowed(element, clean[element]);
            (lower..=upper).contains(value)
        });
        let magnitude =
            clean.iter().map(|value| f64::from(value.abs())).fold(f64::from(self.epsilon.min(f32::MAX)), f64::max);
        let rounding = match self.norm {
            Norm::L0 => 0.0,
            Norm::L1 => magnitude * f64::from(f32::EPSILON) * clean.len() as f64,
            Norm::L2 => magnitude * f64::from(f32::EPSILON) * (clean.len() as f64).sqrt(),
            Norm::Linf => magnitude * f64::from(f32::EPSILON),
        };
        inside && self.norm.distance(clean, point) <= f64::from(self.epsilon) * (1.0 + 1e-6) + rounding
    }

    /// Clean samples and perturbed points as a file would hold them.
    ///
    /// A value is stored as the nearest that can be. Where that would carry the perturbed input out of the threat model
    /// (half a grey level stored as a whole one), every change is cut towards the clean value instead: a budget below the
    /// storage step leaves nothing. Columns of a sum then give up what would change it.
    ///
    /// # Panics
    ///
    /// When the batches do not have the domain's size.
    pub fn as_stored(&self, inputs: &Samples, points: &Samples) -> (Samples, Samples) {
        let domain = &self.domain;
        let (mut base, mut stored) = (inputs.clone(), points.clone());
        for row in 0..inputs.len() {
            domain.store(base.row_mut(row));
            domain.store(stored.row_mut(row));
            if !self.allows(base.row(row), stored.row(row)) {
                let (clean, point) = (inputs.row(row), points.row(row));
                for (element, value) in stored.row_mut(row).iter_mut().enumerate() {
                    let step = domain.resolution()[element];
                    let change = f64::from(point[element]) - f64::from(clean[element]);
                    let kept = if step > 0.0 { (change / f64::from(step)).trunc() * f64::from(step) } else { change };
                    *value = (f64::from(base.row(row)[element]) + kept) as f32;
                }
                domain.store(stored.row_mut(row));
            }
            domain.keep_sums(base.row(row), stored.row_mut(row));
        }
        (base, stored)
    }

    /// A random point of ball ∩ bounds around `clean`: uniform in the ball, then projected onto the bounds.
    ///
    /// L0 changes a random choice of elements to uniform values. With an infinite epsilon the point is uniform in the
    /// bounds.
    ///
    /// # Panics
    ///
    /// When `clean` does not have the domain's size.
    pub fn random_point(&self, clean: &[f32], generator: &mut ChaCha8Rng) -> Vec<f32> {
        self.draw(clean, generator, Place::Inside)
    }

    /// A random point at distance epsilon from `clean`, the control for an attack that uses its whole budget: random
    /// signs for Linf, a uniform direction for L1 and L2, and for L0 a random choice of elements at a random end of
    /// their bounds; then projected onto the bounds, which may shorten it.
    ///
    /// # Panics
    ///
    /// When `clean` does not have the domain's size.
    pub fn random_surface_point(&self, clean: &[f32], generator: &mut ChaCha8Rng) -> Vec<f32> {
        self.draw(clean, generator, Place::Surface)
    }

    fn draw(&self, clean: &[f32], generator: &mut ChaCha8Rng, place: Place) -> Vec<f32> {
        let elements = clean.len();
        let (lower, upper) = (self.domain.lower(), self.domain.upper());
        let mut point = clean.to_vec();
        let anywhere = |element: usize, generator: &mut ChaCha8Rng| match place {
            Place::Inside => generator.random_range(lower[element]..=upper[element]),
            Place::Surface if generator.random::<bool>() => upper[element],
            Place::Surface => lower[element],
        };
        if self.epsilon.is_infinite() {
            for (element, value) in point.iter_mut().enumerate() {
                *value = anywhere(element, generator);
            }
        } else {
            match self.norm {
                Norm::L0 => {
                    let mut free: Vec<usize> =
                        (0..elements).filter(|&element| self.domain.is_mutable(element)).collect();
                    for place in 0..(self.epsilon as usize).min(free.len()) {
                        let other = generator.random_range(place..free.len());
                        free.swap(place, other);
                        point[free[place]] = anywhere(free[place], generator);
                    }
                }
                Norm::Linf => {
                    for value in &mut point {
                        *value += self.epsilon
                            * match place {
                                Place::Inside => generator.random_range(-1.0_f32..=1.0),
                                Place::Surface if generator.random::<bool>() => 1.0,
                                Place::Surface => -1.0,
                            };
                    }
                }
                Norm::L1 | Norm::L2 => {
                    let direction = self.random_direction(elements, generator);
                    let fraction = match place {
                        Place::Inside => generator.random::<f64>().powf(1.0 / elements as f64),
                        Place::Surface => 1.0,
                    };
                    for (value, direction) in point.iter_mut().zip(direction) {
                        *value = (f64::from(*value) + fraction * f64::from(self.epsilon) * direction) as f32;
                    }
                }
            }
        }
        self.project_row(clean, &mut point);
        point
    }

    /// Uniform on the unit sphere of L1 (signed exponentials) or L2 (Gaussians).
    fn random_direction(&self, elements: usize, generator: &mut ChaCha8Rng) -> Vec<f64> {
        let mut direction: Vec<f64> = (0..elements)
            .map(|_| {
                let (a, b): (f64, f64) = (generator.random(), generator.random());
                let exponential = -(1.0 - a).ln();
                if self.norm == Norm::L1 {
                    if b < 0.5 { exponential } else { -exponential }
                } else {
                    (2.0 * exponential).sqrt() * (std::f64::consts::TAU * b).cos()
                }
            })
            .collect();
        let size = if self.norm == Norm::L1 {
            direction.iter().map(|part| part.abs()).sum::<f64>()
        } else {
            direction.iter().map(|part| part * part).sum::<f64>().sqrt()
        };
        for part in &mut direction {
            *part /= size;
        }
        direction
    }
}

/// Where a random point lies.
#[derive(Clone, Copy)]
enum Place {
    Inside,
    Surface,
}

/// An epsilon as a user writes it: a number in the unit of the data, or with a suffix.
///
/// `4` is four of the domain's units, `10HU` asserts the unit by its symbol, whatever it is (`gl` for grey levels), `4/255range` or
/// `0.1range` is a fraction of the distance between the bounds, `0.1sd` is in standard deviations of the data. `inf` is no limit but
/// the bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    value: f64,
    unit: BudgetUnit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum BudgetUnit {
    Data,
    Range,
    StandardDeviation,
    /// By the symbol of a unit.
    Named(String),
}

/// Length of the number or fraction that a text begins with; an `e` belongs to it where digits follow.
fn length_of_number(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_exponent = |at: usize| {
        let digits = if matches!(bytes.get(at + 1), Some(b'+' | b'-')) { at + 2 } else { at + 1 };
        bytes.get(digits).is_some_and(u8::is_ascii_digit)
    };
    let belongs = |at: usize| match bytes[at] {
        b'e' | b'E' => is_exponent(at),
        byte => byte.is_ascii_digit() || b".+-/ ".contains(&byte),
    };
    (0..bytes.len()).find(|&at| !belongs(at)).unwrap_or(bytes.len())
}

impl FromStr for Budget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse =
            || Error::invalid("epsilon", "a number such as 4, 10HU, 4/255range, 0.1sd, or inf", format!("`{text}`"));
        let text = text.trim();
        if text.eq_ignore_ascii_case("inf") {
            return Ok(Self { value: f64::INFINITY, unit: BudgetUnit::Data });
        }
        let (number, suffix) = text.split_at(length_of_number(text));
        let unit = match suffix.trim() {
            "" => BudgetUnit::Data,
            suffix if suffix.eq_ignore_ascii_case("range") => BudgetUnit::Range,
            suffix if suffix.eq_ignore_ascii_case("sd") => BudgetUnit::StandardDeviation,
            suffix if suffix.contains(',') => return Err(refuse()),
            suffix => BudgetUnit::Named(suffix.to_owned()),
        };
        let parse = |part: &str| part.trim().parse::<f64>().map_err(|_| refuse());
        let value = match number.split_once('/') {
            Some((numerator, denominator)) => parse(numerator)? / parse(denominator)?,
            None => parse(number)?,
        };
        if !(value as f32).is_finite() || value < 0.0 {
            return Err(Error::invalid("epsilon", "finite and at least 0", format!("`{text}`")));
        }
        Ok(Self { value, unit })
    }
}

impl Budget {
    /// Epsilon in the unit of the data.
    ///
    /// # Errors
    ///
    /// When the suffix names another unit than the domain's.
    pub fn resolve(&self, domain: &Domain, standard_deviation: f32) -> Result<f32, Error> {
        use crate::Unit;
        // Values that are in standard deviations already.
        let standard_deviation = if *domain.unit() == Unit::StandardDeviation { 1.0 } else { standard_deviation };
        match &self.unit {
            BudgetUnit::Data => Ok(self.value as f32),
            BudgetUnit::Range => Ok((self.value * f64::from(domain.range())) as f32),
            BudgetUnit::StandardDeviation => Ok((self.value * f64::from(standard_deviation)) as f32),
            BudgetUnit::Named(name) => {
                let symbol = domain.unit().symbol();
                let short = *domain.unit() == Unit::GreyLevel && name.eq_ignore_ascii_case("gl");
                if short || name.eq_ignore_ascii_case(symbol) {
                    return Ok(self.value as f32);
                }
                let expected = format!("{symbol} (the unit of the data), sd, range or no unit");
                Err(Error::mismatch("unit of epsilon", expected, name))
            }
        }
    }
}

/// One norm and its epsilons, as in `linf:0.5,1,2,4,8`; in files the same text.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ThreatSpec {
    /// Norm of the changes.
    pub norm: Norm,
    /// One or more epsilons.
    pub budgets: Vec<Budget>,
    text: String,
}

impl From<ThreatSpec> for String {
    fn from(spec: ThreatSpec) -> Self {
        spec.text
    }
}

impl TryFrom<String> for ThreatSpec {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl fmt::Display for ThreatSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for ThreatSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some((norm, budgets)) = text.split_once(':') else {
            return Err(Error::invalid("threat", "a norm and epsilons such as linf:1,2,4", format!("`{text}`")));
        };
        Ok(Self {
            norm: norm.trim().parse()?,
            budgets: budgets.split(',').map(str::parse).collect::<Result<_, _>>()?,
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;

    fn images() -> Domain {
        Domain::grey_levels(&[1, 4, 4], 255.0).unwrap()
    }

    #[test]
    fn budgets_are_in_the_unit_of_the_data() {
        let resolve = |text: &str| text.parse::<Budget>().unwrap().resolve(&images(), 50.0);
        assert_eq!(resolve("4").unwrap(), 4.0);
        assert_eq!(resolve("4/255range").unwrap(), 4.0);
        assert_eq!(resolve("0.1sd").unwrap(), 5.0);
        assert_eq!(resolve("1e-1").unwrap(), 0.1);
        assert_eq!(resolve("2gl").unwrap(), 2.0);
        assert_eq!(resolve("inf").unwrap(), f32::INFINITY);
        let config = crate::DomainConfig { unit: crate::Unit::StandardDeviation, ..images().config().clone() };
        assert_eq!("0.1sd".parse::<Budget>().unwrap().resolve(&config.try_into().unwrap(), 50.0).unwrap(), 0.1);
        let message = resolve("10HU").unwrap_err().to_string();
        assert!(message.contains("expected grey levels") && message.contains("got HU"), "{message}");
        // Any unit by the name that the data give it.
        for (unit, text, epsilon) in [
            ("NU", "0.01NU", 0.01),
            ("eV", "2e-3eV", 0.002),
            ("mm/s", "3 mm/s", 3.0),
            ("%", "5%", 5.0),
            ("µV", "1/2µV", 0.5),
        ] {
            let config = crate::DomainConfig { unit: crate::Unit::Other(unit.to_owned()), ..images().config().clone() };
            let domain: Domain = config.try_into().unwrap();
            assert_eq!(text.parse::<Budget>().unwrap().resolve(&domain, 1.0).unwrap(), epsilon, "{text}");
            let message = "4px".parse::<Budget>().unwrap().resolve(&domain, 1.0).unwrap_err().to_string();
            assert!(message.contains(&format!("expected {unit}")) && message.contains("got px"), "{message}");
        }
    }

    #[test]
    fn budgets_that_mean_nothing_are_refused() {
        for text in ["", "-1", "NaN", "-inf", "infHU", "inf/2", "8/0", "x", "1,2", "--", "1e39", "1e999"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
        for text in ["4", "linf", "l3:4", "linf:", "linf:1,,2", "linf:-1"] {
            assert!(text.parse::<ThreatSpec>().is_err(), "{text}");
        }
        assert_eq!("linf:0.5,1".parse::<ThreatSpec>().unwrap().budgets.len(), 2);
        assert!(ThreatModel::new(Norm::L2, -1.0, images()).is_err());
        assert!(ThreatModel::new(Norm::L2, f32::NAN, images()).is_err());
    }

    #[test]
    fn no_limit_becomes_what_the_bounds_allow() {
        for (norm, epsilon) in [(Norm::L0, 16.0), (Norm::L1, 4080.0), (Norm::L2, 1020.0), (Norm::Linf, 255.0)] {
            let threat = ThreatModel::new(norm, f32::INFINITY, images()).unwrap().finite();
            assert_eq!(threat.epsilon(), epsilon, "{norm}");
            assert!(threat.allows(&[0.0; 16], &[255.0; 16]));
            assert_eq!(ThreatModel::new(norm, 2.0, images()).unwrap().finite().epsilon(), 2.0);
        }
    }

    #[test]
    fn random_points_are_allowed_spread_and_repeatable() {
        let clean = vec![100.0; 16];
        for (norm, epsilon) in
            [(Norm::L0, 3.0), (Norm::L1, 20.0), (Norm::L2, 20.0), (Norm::Linf, 8.0), (Norm::L2, f32::INFINITY)]
        {
            let threat = ThreatModel::new(norm, epsilon, images()).unwrap();
            let mut greatest: f64 = 0.0;
            for index in 0..50 {
                let point = threat.random_point(&clean, &mut Seed(3).for_sample(index));
                assert!(threat.allows(&clean, &point), "{norm} {point:?}");
                assert_eq!(point, threat.random_point(&clean, &mut Seed(3).for_sample(index)));
                greatest = greatest.max(norm.distance(&clean, &point));
            }
            assert!(epsilon.is_infinite() || greatest > 0.9 * f64::from(epsilon), "{norm}: {greatest}");
        }
    }

    #[test]
    fn surface_points_use_the_whole_budget() {
        let clean = vec![100.0; 16];
        for (norm, epsilon) in [(Norm::L0, 3.0), (Norm::L1, 20.0), (Norm::L2, 20.0), (Norm::Linf, 8.0)] {
            let threat = ThreatModel::new(norm, epsilon, images()).unwrap();
            let point = threat.random_surface_point(&clean, &mut Seed(3).for_sample(1));
            assert!(threat.allows(&clean, &point));
            assert!((norm.distance(&clean, &point) - f64::from(epsilon)).abs() < 1e-4, "{norm}");
        }
    }

    #[test]
    fn a_point_outside_ball_bounds_or_region_is_not_allowed() {
        let region = (0..16).map(|element| element != 0).collect();
        let threat = ThreatModel::new(Norm::Linf, 2.0, images().with_region(region).unwrap()).unwrap();
        let clean = vec![1.0; 16];
        let allows = |element: usize, value: f32| {
            let mut point = clean.clone();
            point[element] = value;
            threat.allows(&clean, &point)
        };
        assert!(allows(1, 3.0) && allows(0, 1.0));
        assert!(!allows(1, 3.1) && !allows(1, -0.1) && !allows(0, 1.5) && !allows(1, f32::NAN));
    }
}
