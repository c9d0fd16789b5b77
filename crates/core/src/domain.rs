//! What the numbers of a sample mean: bounds, unit, storage step, and where a change is allowed.

use serde::{Deserialize, Serialize};

use crate::{Error, Samples};

/// One value for all elements of a sample, one for each channel, or one for each element.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Field<T> {
    /// The same value everywhere.
    Uniform(T),
    /// One value a channel (feature, lead).
    PerChannel(Vec<T>),
    /// One value an element.
    PerElement(Vec<T>),
}

impl<T: Copy> Field<T> {
    /// One value an element of a sample of the given shape.
    ///
    /// # Errors
    ///
    /// When the number of values is not the number of channels or elements.
    pub fn expand(&self, shape: &[usize]) -> Result<Vec<T>, Error> {
        let elements: usize = shape.iter().product();
        let channels = shape.first().copied().unwrap_or(1);
        match self {
            Self::Uniform(value) => Ok(vec![*value; elements]),
            Self::PerChannel(values) if values.len() == channels => {
                Ok((0..elements).map(|element| values[element / (elements / channels)]).collect())
            }
            Self::PerElement(values) if values.len() == elements => Ok(values.clone()),
            Self::PerChannel(values) => Err(Error::mismatch("values per channel of a domain", channels, values.len())),
            Self::PerElement(values) => Err(Error::mismatch("values per element of a domain", elements, values.len())),
        }
    }
}

/// Physical unit of the data, and so of every epsilon.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Stored grey level of an integer image.
    GreyLevel,
    /// Hounsfield unit of computed tomography.
    Hounsfield,
    /// Millivolt of an electrocardiogram.
    Millivolt,
    /// Microvolt of an electroencephalogram.
    Microvolt,
    /// Standard deviation of the training data.
    StandardDeviation,
    /// Any other unit, by its symbol.
    Other(String),
}

impl Unit {
    /// The symbol written after a number; also the suffix that an epsilon may carry.
    pub fn symbol(&self) -> &str {
        match self {
            Self::GreyLevel => "grey levels",
            Self::Hounsfield => "HU",
            Self::Millivolt => "mV",
            Self::Microvolt => "uV",
            Self::StandardDeviation => "SD",
            Self::Other(symbol) => symbol,
        }
    }
}

/// Bounds, unit, storage step and region of interest of the samples of one data set.
///
/// ```
/// # use nocebo_core::{Domain, Unit};
/// let domain = Domain::grey_levels(&[1, 28, 28], 255.0)?;
/// assert_eq!((domain.lower()[0], domain.upper()[0], domain.resolution()[0]), (0.0, 255.0, 1.0));
/// # Ok::<(), nocebo_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "DomainConfig", into = "DomainConfig")]
pub struct Domain {
    config: DomainConfig,
    lower: Vec<f32>,
    upper: Vec<f32>,
    resolution: Vec<f32>,
}

/// A [`Domain`] as it is written in recipes and model files.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DomainConfig {
    /// Shape of one sample, channels first.
    pub shape: Vec<usize>,
    /// Unit of the values, the bounds and every epsilon.
    pub unit: Unit,
    /// Least value that can be stored.
    pub lower: Field<f32>,
    /// Greatest value that can be stored.
    pub upper: Field<f32>,
    /// Step between values that can be stored; 0 for a value stored as a float.
    pub resolution: Field<f32>,
    /// Elements that may change; `None` for all. Elsewhere a sample is immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Vec<bool>>,
}

impl TryFrom<DomainConfig> for Domain {
    type Error = Error;

    fn try_from(config: DomainConfig) -> Result<Self, Error> {
        Samples::zeros(0, &config.shape)?;
        let lower = config.lower.expand(&config.shape)?;
        let upper = config.upper.expand(&config.shape)?;
        let resolution = config.resolution.expand(&config.shape)?;
        for (&low, &high) in lower.iter().zip(&upper) {
            if !(low.is_finite() && high.is_finite() && low < high) {
                return Err(Error::invalid("bounds", "finite, the lower below the upper", format!("[{low}, {high}]")));
            }
        }
        if let Some(step) = resolution.iter().find(|step| !(step.is_finite() && **step >= 0.0)) {
            return Err(Error::invalid("resolution", "finite and at least 0", step));
        }
        if let Some(region) = &config.region
            && region.len() != lower.len()
        {
            return Err(Error::mismatch("elements of the region of interest", lower.len(), region.len()));
        }
        Ok(Self { config, lower, upper, resolution })
    }
}

impl From<Domain> for DomainConfig {
    fn from(domain: Domain) -> Self {
        domain.config
    }
}

impl Domain {
    /// Integer images of `shape` with grey levels (or colour levels) from 0 to `greatest`.
    ///
    /// # Errors
    ///
    /// When the shape or `greatest` is not usable.
    pub fn grey_levels(shape: &[usize], greatest: f32) -> Result<Self, Error> {
        DomainConfig {
            shape: shape.to_vec(),
            unit: Unit::GreyLevel,
            lower: Field::Uniform(0.0),
            upper: Field::Uniform(greatest),
            resolution: Field::Uniform(1.0),
            region: None,
        }
        .try_into()
    }

    /// The settings this domain was made from.
    pub fn config(&self) -> &DomainConfig {
        &self.config
    }

    /// Shape of one sample.
    pub fn shape(&self) -> &[usize] {
        &self.config.shape
    }

    /// Values in one sample.
    pub fn elements(&self) -> usize {
        self.lower.len()
    }

    /// Unit of the values.
    pub fn unit(&self) -> &Unit {
        &self.config.unit
    }

    /// Least value of each element.
    pub fn lower(&self) -> &[f32] {
        &self.lower
    }

    /// Greatest value of each element.
    pub fn upper(&self) -> &[f32] {
        &self.upper
    }

    /// Storage step of each element; 0 for a float.
    pub fn resolution(&self) -> &[f32] {
        &self.resolution
    }

    /// Whether an attack may change this element.
    pub fn is_mutable(&self, element: usize) -> bool {
        self.config.region.as_ref().is_none_or(|region| region[element])
    }

    /// The greatest distance between the bounds of an element.
    pub fn range(&self) -> f32 {
        self.lower.iter().zip(&self.upper).map(|(low, high)| high - low).fold(0.0, f32::max)
    }

    /// The same domain in which only the elements marked `true` may change.
    ///
    /// # Errors
    ///
    /// When the mask does not have one entry an element.
    pub fn with_region(&self, region: Vec<bool>) -> Result<Self, Error> {
        DomainConfig { region: Some(region), ..self.config.clone() }.try_into()
    }

    /// Checks that samples have this domain's shape and lie inside its bounds.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] for another shape, [`Error::OutOfBounds`] for the first value outside (NaN included).
    pub fn check(&self, samples: &Samples) -> Result<(), Error> {
        if samples.shape() != self.shape() {
            return Err(Error::mismatch(
                "shape of a sample",
                format!("{:?}", self.shape()),
                format!("{:?}", samples.shape()),
            ));
        }
        for (row, &sample) in samples.rows().zip(samples.indices()) {
            for (element, &value) in row.iter().enumerate() {
                let (lower, upper) = (self.lower[element], self.upper[element]);
                if !(lower..=upper).contains(&value) {
                    return Err(Error::OutOfBounds { sample, element, value, lower, upper });
                }
            }
        }
        Ok(())
    }

    /// Rounds each value to the nearest one that can be stored (half away from zero) and clips it to the bounds.
    ///
    /// The grid starts at the lower bound.
    ///
    /// # Panics
    ///
    /// When `row` does not have one value an element.
    pub fn store(&self, row: &mut [f32]) {
        assert_eq!(row.len(), self.elements());
        for (element, value) in row.iter_mut().enumerate() {
            let (lower, upper, step) = (self.lower[element], self.upper[element], self.resolution[element]);
            if step > 0.0 {
                let steps = ((f64::from(*value) - f64::from(lower)) / f64::from(step)).round();
                *value = (f64::from(lower) + steps * f64::from(step)) as f32;
            }
            *value = value.clamp(lower, upper);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> DomainConfig {
        DomainConfig {
            shape: vec![2],
            unit: Unit::Other("mmol/l".to_owned()),
            lower: Field::PerChannel(vec![0.0, -1.0]),
            upper: Field::PerChannel(vec![10.0, 1.0]),
            resolution: Field::PerChannel(vec![0.5, 0.0]),
            region: None,
        }
    }

    #[test]
    fn storing_rounds_to_the_grid_and_keeps_floats() {
        let domain = Domain::try_from(table()).unwrap();
        let mut row = [3.3, 0.123];
        domain.store(&mut row);
        assert_eq!(row, [3.5, 0.123]);
        let mut outside = [11.0, -2.0];
        domain.store(&mut outside);
        assert_eq!(outside, [10.0, -1.0]);
    }

    #[test]
    fn a_field_per_channel_is_spread_over_space() {
        let field = Field::PerChannel(vec![1.0, 2.0]);
        assert_eq!(field.expand(&[2, 1, 3]).unwrap(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        assert!(field.expand(&[3, 2]).is_err());
    }

    #[test]
    fn unusable_domains_are_refused() {
        let crossed = DomainConfig { lower: Field::Uniform(1.0), upper: Field::Uniform(1.0), ..table() };
        let not_a_number = DomainConfig { upper: Field::Uniform(f32::NAN), ..table() };
        let negative_step = DomainConfig { resolution: Field::Uniform(-1.0), ..table() };
        let short_region = DomainConfig { region: Some(vec![true]), ..table() };
        for config in [crossed, not_a_number, negative_step, short_region] {
            assert!(Domain::try_from(config.clone()).is_err(), "{config:?}");
        }
    }

    #[test]
    fn a_value_outside_names_sample_and_element() {
        let domain = Domain::grey_levels(&[2], 255.0).unwrap();
        let samples = Samples::new(vec![0.0, 255.0, 1.0, f32::NAN], &[2]).unwrap();
        assert!(matches!(domain.check(&samples), Err(Error::OutOfBounds { sample: 1, element: 1, .. })));
        assert!(domain.check(&samples.select(&[0])).is_ok());
    }

    #[test]
    fn a_domain_travels_as_json() {
        let domain = Domain::try_from(table()).unwrap();
        let text = serde_json::to_string(&domain).unwrap();
        assert_eq!(serde_json::from_str::<Domain>(&text).unwrap(), domain);
    }
}
