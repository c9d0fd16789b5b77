//! What the numbers of a sample mean: bounds, unit, storage step, and where a change is allowed.

use std::collections::BTreeSet;

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

/// A column of a table, which is one channel of a sample: its values there are divided by `scale`.
///
/// One epsilon then means the same for every column, and no attack needs to know of columns.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name; of a category, with the value that it stands for.
    pub name: String,
    /// Unit of the values in the file; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// How much in the file is 1 in a sample: the standard deviation of a number, 1 for a category; above 0.
    pub scale: f64,
    /// The only way in which it may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Columns of one number have a constant sum, in the file; they share their step there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<usize>,
}

/// The only way in which a value may change.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// It may only grow.
    Increase,
    /// It may only fall.
    Decrease,
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
#[serde(try_from = "Described", into = "Described")]
pub struct Domain {
    config: DomainConfig,
    columns: Vec<Column>,
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
        Ok(Self { config, columns: Vec::new(), lower, upper, resolution })
    }
}

/// A domain with its columns, where it has any, in one table.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Described {
    shape: Vec<usize>,
    unit: Unit,
    lower: Field<f32>,
    upper: Field<f32>,
    resolution: Field<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<Vec<bool>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<Column>,
}

impl TryFrom<Described> for Domain {
    type Error = Error;

    fn try_from(described: Described) -> Result<Self, Error> {
        let Described { shape, unit, lower, upper, resolution, region, columns } = described;
        let domain = Self::try_from(DomainConfig { shape, unit, lower, upper, resolution, region })?;
        if columns.is_empty() { Ok(domain) } else { domain.with_columns(columns) }
    }
}

impl From<Domain> for Described {
    fn from(domain: Domain) -> Self {
        let DomainConfig { shape, unit, lower, upper, resolution, region } = domain.config;
        Self { shape, unit, lower, upper, resolution, region, columns: domain.columns }
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

    /// What the channels are, for a table; else nothing.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Least and greatest value that an element with this clean value may be given.
    pub fn allowed(&self, element: usize, clean: f32) -> (f32, f32) {
        let (lower, upper) = (self.lower[element], self.upper[element]);
        match self.columns.get(element).and_then(|column| column.direction) {
            _ if !self.is_mutable(element) => (clean, clean),
            Some(Direction::Increase) => (clean, upper),
            Some(Direction::Decrease) => (lower, clean),
            None => (lower, upper),
        }
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
        let domain = Self::try_from(DomainConfig { region: Some(region), ..self.config.clone() })?;
        Ok(Self { columns: self.columns.clone(), ..domain })
    }

    /// The same domain as that of a table with these columns.
    ///
    /// # Errors
    ///
    /// When samples are not flat with one value a column, a scale is not finite and above 0, or columns of one sum differ in
    /// their step in the file.
    pub fn with_columns(mut self, columns: Vec<Column>) -> Result<Self, Error> {
        if self.shape() != [columns.len()] {
            return Err(Error::mismatch("columns of a table", format!("{:?}", self.shape()), columns.len()));
        }
        if let Some(column) = columns.iter().find(|column| !(column.scale.is_finite() && column.scale > 0.0)) {
            return Err(Error::invalid(
                "scale",
                "finite and above 0",
                format!("{} of `{}`", column.scale, column.name),
            ));
        }
        let step = |at: usize| f64::from(self.resolution[at]) * columns[at].scale;
        for (at, column) in columns.iter().enumerate() {
            let first = columns.iter().position(|other| column.sum.is_some() && other.sum == column.sum);
            if let Some(first) = first
                && (step(at) <= 0.0 || (step(at) / step(first) - 1.0).abs() > 1e-6)
            {
                let expected = format!("that of `{}`, above 0", columns[first].name);
                return Err(Error::mismatch(
                    "step of a column in a sum",
                    expected,
                    format!("that of `{}`", column.name),
                ));
            }
        }
        self.columns = columns;
        Ok(self)
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

    /// Shrinks the changes from `clean` to `point`, both as stored, until the sums of columns are those of `clean`.
    ///
    /// Of the changes in the direction that outweighs the other each keeps the same share, in whole steps. So no change
    /// grows or turns round.
    ///
    /// # Panics
    ///
    /// When a row does not have one value an element.
    pub(crate) fn keep_sums(&self, clean: &[f32], point: &mut [f32]) {
        let sums: BTreeSet<usize> = self.columns.iter().filter_map(|column| column.sum).collect();
        if sums.is_empty() {
            return;
        }
        for sum in sums {
            let members = (0..self.columns.len()).filter(|&at| self.columns[at].sum == Some(sum));
            let mut steps: Vec<(usize, i64)> = members
                .map(|at| {
                    let change = f64::from(point[at]) - f64::from(clean[at]);
                    (at, (change / f64::from(self.resolution[at])).round() as i64)
                })
                .collect();
            let excess: i64 = steps.iter().map(|(_, step)| step).sum();
            let outweighs = |step: i64| step.signum() == excess.signum();
            let total: i64 = steps.iter().map(|(_, step)| *step).filter(|step| outweighs(*step)).sum();
            if excess == 0 || total == 0 {
                continue;
            }
            let share = (total - excess) as f64 / total as f64;
            for (_, step) in steps.iter_mut().filter(|(_, step)| outweighs(*step)) {
                *step = (*step as f64 * share).trunc() as i64;
            }
            // What truncation left over: one step each to as many as need be.
            let mut left: i64 = steps.iter().map(|(_, step)| step).sum();
            for (at, step) in &mut steps {
                let change = f64::from(point[*at]) - f64::from(clean[*at]);
                let whole = (change / f64::from(self.resolution[*at])).round() as i64;
                if left != 0 && left.signum() != excess.signum() && *step != whole && outweighs(whole) {
                    *step += excess.signum();
                    left += excess.signum();
                }
            }
            for (at, step) in steps {
                point[at] = (f64::from(clean[at]) + step as f64 * f64::from(self.resolution[at])) as f32;
            }
        }
        self.store(point);
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

    fn column(name: &str, direction: Option<Direction>, sum: Option<usize>) -> Column {
        Column { name: name.to_owned(), unit: "%".to_owned(), scale: 2.0, direction, sum }
    }

    #[test]
    fn a_direction_is_one_side_of_the_bounds() {
        let columns = vec![column("a", Some(Direction::Increase), None), column("b", Some(Direction::Decrease), None)];
        let domain = Domain::try_from(table()).unwrap().with_columns(columns).unwrap();
        assert_eq!((domain.allowed(0, 3.0), domain.allowed(1, 0.5)), ((3.0, 10.0), (-1.0, 0.5)));
        let frozen = domain.with_region(vec![false, true]).unwrap();
        assert_eq!((frozen.allowed(0, 3.0), frozen.columns().len()), ((3.0, 3.0), 2));
        assert!(Domain::try_from(table()).unwrap().with_columns(vec![column("a", None, None)]).is_err());
        let sums = vec![column("a", None, Some(0)), column("b", None, Some(0))];
        assert!(Domain::try_from(table()).unwrap().with_columns(sums).is_err(), "steps differ");
    }

    #[test]
    fn sums_are_kept_by_changing_less() {
        let config = DomainConfig {
            shape: vec![4],
            unit: Unit::StandardDeviation,
            lower: Field::Uniform(0.0),
            upper: Field::Uniform(100.0),
            resolution: Field::Uniform(0.5),
            region: None,
        };
        let columns = (0..4).map(|at| column("part", None, (at < 3).then_some(7))).collect();
        let domain = Domain::try_from(config).unwrap().with_columns(columns).unwrap();
        let clean = [10.0, 20.0, 30.0, 40.0];
        for point in [[13.0, 24.0, 28.5, 45.0], [10.0, 17.5, 31.0, 40.0], [11.0, 21.0, 31.0, 40.0], clean] {
            let mut kept = point;
            domain.keep_sums(&clean, &mut kept);
            assert_eq!(kept[..3].iter().sum::<f32>(), 60.0, "{point:?} -> {kept:?}");
            assert_eq!(kept[3], point[3]);
            for at in 0..3 {
                let (wanted, got) = (point[at] - clean[at], kept[at] - clean[at]);
                assert!(got.abs() <= wanted.abs() && got * wanted >= 0.0, "{point:?} -> {kept:?}");
            }
        }
        let mut kept = [13.0, 24.0, 28.5, 40.0];
        domain.keep_sums(&clean, &mut kept);
        assert_eq!(kept[2], 28.5, "the side that is outweighed stays whole");
    }

    #[test]
    fn a_domain_travels_as_json() {
        let columns = vec![column("a", Some(Direction::Increase), Some(0)), column("b", None, None)];
        let domain = Domain::try_from(table()).unwrap().with_columns(columns).unwrap();
        let text = serde_json::to_string(&domain).unwrap();
        assert_eq!(serde_json::from_str::<Domain>(&text).unwrap(), domain);
    }
}
