//! Samples with their labels, domain, patients and origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use nocebo_core::segmentation::IGNORED;
use nocebo_core::{Domain, Label, Samples, Seed, has_finding};

use crate::formats::beats;
use crate::formats::picture::Kind;
use crate::formats::table::Table;
use crate::formats::volumes::Files;
use crate::{DataError, Order, Split};

/// Labelled samples of one split, in physical units.
///
/// There is at least one sample, all values are finite and inside the domain's bounds, and every label fits the
/// classes. All labels are [`Label::Class`], or all are [`Label::Findings`], or all are [`Label::Mask`], with one class a
/// position of a channel, or all are [`Label::Number`], without classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    samples: Samples,
    labels: Vec<Label>,
    class_names: Vec<String>,
    domain: Domain,
    patients: Option<Vec<String>>,
    groups: BTreeMap<String, Vec<String>>,
    frequency: Option<f64>,
    files: Option<Vec<PathBuf>>,
    source: String,
    warnings: Vec<Warning>,
    origin: Option<Origin>,
    order: Option<Order>,
}

/// What the files of a data set hold beside its samples, for those that are written back with it. Samples find theirs by their
/// index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    /// Lines of a table.
    Table(Arc<Table>),
    /// Volumes, of which samples are the centre.
    Volumes(Arc<Files>),
    /// Pictures that are written back as this kind.
    Pictures(Kind),
}

/// What a data set is written as, and read back from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form<'a> {
    /// Lines of a table.
    Table(&'a Table),
    /// Volumes.
    Volumes(&'a Files),
    /// Copies of these DICOM files, one a sample.
    Dicom(&'a [PathBuf]),
    /// WFDB records of one annotated beat.
    Beats,
    /// WFDB or EDF records with a `labels.csv`.
    Recordings,
    /// Pictures, with masks where there are any.
    Pictures,
}

/// One image that comes without a label.
#[derive(Clone, Debug)]
pub struct Unlabelled(Dataset);

impl Unlabelled {
    /// The sample.
    pub fn samples(&self) -> &Samples {
        &self.0.samples
    }

    /// Unit, bounds and storage step of its values.
    pub fn domain(&self) -> &Domain {
        &self.0.domain
    }

    /// Its file.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// A data set of this one sample.
    ///
    /// # Errors
    ///
    /// When the label does not fit the classes, or there are fewer than two classes (one finding).
    pub fn labelled(self, label: Label, class_names: Vec<String>) -> Result<Dataset, DataError> {
        let (samples, labels) = (self.0.samples, vec![label]);
        let positions = samples.elements() / samples.shape()[0];
        check_labels(&self.0.source, &labels, &class_names, 1, positions)?;
        Ok(Dataset { samples, labels, class_names, ..self.0 })
    }

    /// What a reader of data sets made of a folder of one file, with a label that means nothing.
    pub(crate) fn from_one(data: Dataset, source: &str) -> Self {
        let meant = |warning: &Warning| !matches!(warning, Warning::MissingClass { .. });
        let warnings = data.warnings.into_iter().filter(meant).collect();
        Self(Dataset { warnings, source: source.to_owned(), ..data })
    }
}

/// Something that was noticed while reading and that may change a result.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// The same patients occur in two splits: a test on them flatters the model.
    SamePatient {
        /// The two splits.
        splits: (Split, Split),
        /// Number of patients in both.
        patients: usize,
    },
    /// Exactly equal samples occur in two splits.
    SameSample {
        /// The two splits.
        splits: (Split, Split),
        /// Number of samples of the second split that are also in the first.
        samples: usize,
    },
    /// No sample of the split has this class or finding: its rates are undefined.
    MissingClass {
        /// Name of the class.
        class: String,
    },
    /// A file in the folder was left out.
    SkippedFile {
        /// The file, relative to the folder.
        file: String,
        /// Why.
        reason: String,
    },
    /// A reader had to choose among several meanings.
    Assumption {
        /// What was chosen.
        text: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SamePatient { splits: (first, second), patients } => write!(
                formatter,
                "{patients} patient(s) occur in both the {first} and the {second} split: results will look better than \
                 they are"
            ),
            Self::SameSample { splits: (first, second), samples } => {
                write!(formatter, "{samples} sample(s) of the {second} split are also in the {first} split")
            }
            Self::MissingClass { class } => {
                write!(formatter, "no sample of class `{class}`: rates of this class are undefined")
            }
            Self::SkippedFile { file, reason } => write!(formatter, "`{file}` was left out: {reason}"),
            Self::Assumption { text } => formatter.write_str(text),
        }
    }
}

/// Mean and standard deviation of each channel over all samples and positions.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Statistics {
    /// One mean a channel, in the unit of the data.
    pub mean: Vec<f32>,
    /// One population standard deviation a channel, in the unit of the data.
    pub standard_deviation: Vec<f32>,
}

impl Dataset {
    /// Puts the parts together and checks that they fit; `source` describes the origin, for reports and messages.
    ///
    /// # Errors
    ///
    /// When there is no sample, a value is not finite or outside the bounds, the shape differs from the domain's,
    /// there is not one label a sample, kinds of labels are mixed, a label is out of range, or there are fewer than
    /// two classes (one finding).
    pub fn new(
        source: impl Into<String>,
        samples: Samples,
        labels: Vec<Label>,
        class_names: Vec<String>,
        domain: Domain,
    ) -> Result<Self, DataError> {
        let source = source.into();
        if samples.is_empty() {
            return Err(DataError::Empty { file: source, split: "requested".to_owned() });
        }
        check_finite(&source, &samples)?;
        domain.check(&samples)?;
        let positions = samples.elements() / samples.shape()[0];
        check_labels(&source, &labels, &class_names, samples.len(), positions)?;
        let warnings = missing_classes(&labels, &class_names);
        Ok(Self {
            samples,
            labels,
            class_names,
            domain,
            patients: None,
            groups: BTreeMap::new(),
            frequency: None,
            files: None,
            source,
            warnings,
            origin: None,
            order: None,
        })
    }

    /// The same data with one patient key a sample.
    ///
    /// # Errors
    ///
    /// When the number of keys differs from the number of samples.
    pub fn with_patients(mut self, patients: Vec<String>) -> Result<Self, DataError> {
        self.check_length("patients", patients.len())?;
        self.patients = Some(patients);
        Ok(self)
    }

    /// The same data with a column of subgroup values, one a sample, such as sex, age band or scanner.
    ///
    /// # Errors
    ///
    /// When the number of values differs from the number of samples.
    pub fn with_group(mut self, name: impl Into<String>, values: Vec<String>) -> Result<Self, DataError> {
        self.check_length("subgroup values", values.len())?;
        self.groups.insert(name.into(), values);
        Ok(self)
    }

    /// The same data as signals with so many samples a second, in hertz.
    #[must_use]
    pub fn with_frequency(mut self, frequency: f64) -> Self {
        self.frequency = Some(frequency);
        self
    }

    /// The same data with the DICOM file that each sample came from, whose header a perturbed copy takes over in part.
    pub(crate) fn with_files(mut self, files: Vec<PathBuf>) -> Result<Self, DataError> {
        self.check_length("files", files.len())?;
        self.files = Some(files);
        Ok(self)
    }

    /// The same labels with other samples, such as perturbed ones.
    ///
    /// # Errors
    ///
    /// When the number or the shape of the samples differs, or a value is not finite or outside the bounds.
    pub fn with_samples(mut self, samples: Samples) -> Result<Self, DataError> {
        self.check_length("samples", samples.len())?;
        check_finite(&self.source, &samples)?;
        self.domain.check(&samples)?;
        self.samples = samples;
        Ok(self)
    }

    /// Adds warnings of a reader.
    pub(crate) fn warned(mut self, warnings: impl IntoIterator<Item = Warning>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// The same data with what their files hold beside the samples.
    pub(crate) fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// The same data with the order of their labels.
    ///
    /// # Errors
    ///
    /// When the labels have no such order, or the harmless error is out of range.
    pub fn with_order(mut self, order: Option<Order>) -> Result<Self, DataError> {
        if let Some(order) = order {
            let task = order.task(self.class_names.len());
            task.check()?;
            self.labels.iter().try_for_each(|label| task.check_label(label))?;
        }
        self.order = order;
        Ok(self)
    }

    /// The order of the labels, where they have one.
    pub fn order(&self) -> Option<Order> {
        self.order
    }

    /// The table that the samples are lines of.
    pub fn table(&self) -> Option<&Table> {
        match &self.origin {
            Some(Origin::Table(table)) => Some(table),
            _ => None,
        }
    }

    /// How a sample is stored that is written as a picture.
    pub(crate) fn picture_kind(&self) -> Kind {
        match self.origin {
            Some(Origin::Pictures(kind)) => kind,
            _ => Kind::Png,
        }
    }

    /// What the data are written as.
    pub(crate) fn form(&self) -> Form<'_> {
        match (&self.origin, &self.files) {
            (Some(Origin::Table(table)), _) => Form::Table(table),
            (Some(Origin::Volumes(files)), _) => Form::Volumes(files),
            (None, Some(files)) => Form::Dicom(files),
            (None, None) if beats::are_beats(self) => Form::Beats,
            (None, None) if self.frequency.is_some() => Form::Recordings,
            (None, None) | (Some(Origin::Pictures(_)), _) => Form::Pictures,
        }
    }

    fn check_length(&self, what: &'static str, got: usize) -> Result<(), DataError> {
        let expected = self.len();
        if got == expected {
            return Ok(());
        }
        Err(DataError::Length { file: self.source.clone(), what, expected, got })
    }

    /// Number of samples, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a data set is never empty")]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// The values; sample indices are positions in the file or folder.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// One label a sample.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// Names of the classes, or of the findings of a multi-label data set.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Unit, bounds and storage step of the values.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// One patient key a sample, where the data have them. Never to be shown in a report.
    pub fn patients(&self) -> Option<&[String]> {
        self.patients.as_deref()
    }

    /// Subgroup columns by name, one value a sample.
    pub fn groups(&self) -> &BTreeMap<String, Vec<String>> {
        &self.groups
    }

    /// Samples a second of signals, in hertz.
    pub fn frequency(&self) -> Option<f64> {
        self.frequency
    }

    /// Where the data come from, in words.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What was noticed while reading.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Whether several findings can be present at once.
    pub fn is_multi_label(&self) -> bool {
        matches!(self.labels.first(), Some(Label::Findings(_)))
    }

    /// Whether every position of a sample has its own class.
    pub fn is_segmentation(&self) -> bool {
        matches!(self.labels.first(), Some(Label::Mask(_)))
    }

    /// The given rows in the given order.
    ///
    /// # Errors
    ///
    /// When no row is given or a row is not below [`Dataset::len`].
    pub fn select(&self, rows: &[usize]) -> Result<Self, DataError> {
        if let Some(row) = rows.iter().find(|row| **row >= self.len()) {
            return Err(
                nocebo_core::Error::mismatch("row of the data set", format!("below {}", self.len()), row).into()
            );
        }
        if rows.is_empty() {
            return Err(DataError::Empty { file: self.source.clone(), split: "selected".to_owned() });
        }
        let pick = |values: &Vec<String>| rows.iter().map(|&row| values[row].clone()).collect();
        let labels: Vec<Label> = rows.iter().map(|&row| self.labels[row].clone()).collect();
        let mut warnings: Vec<Warning> =
            self.warnings.iter().filter(|warning| !matches!(warning, Warning::MissingClass { .. })).cloned().collect();
        warnings.extend(missing_classes(&labels, &self.class_names));
        Ok(Self {
            samples: self.samples.select(rows),
            labels,
            class_names: self.class_names.clone(),
            domain: self.domain.clone(),
            patients: self.patients.as_ref().map(pick),
            groups: self.groups.iter().map(|(name, values)| (name.clone(), pick(values))).collect(),
            frequency: self.frequency,
            files: self.files.as_ref().map(|files| rows.iter().map(|&row| files[row].clone()).collect()),
            source: self.source.clone(),
            warnings,
            origin: self.origin.clone(),
            order: self.order,
        })
    }

    /// `count` samples drawn without replacement, in their order in the data set; all of them when there are no more.
    ///
    /// Each label (each combination of findings; masks are all alike) keeps its share: shares are rounded down, and the samples still
    /// missing go to the labels with the greatest remainder, the more frequent label first.
    ///
    /// # Errors
    ///
    /// When `count` is 0.
    pub fn take(&self, count: usize, seed: Seed) -> Result<Self, DataError> {
        if count >= self.len() {
            return Ok(self.clone());
        }
        let mut strata: BTreeMap<Label, Vec<usize>> = BTreeMap::new();
        for (row, label) in self.labels.iter().enumerate() {
            strata.entry(stratum(label)).or_default().push(row);
        }
        let mut strata: Vec<Vec<usize>> = strata.into_values().collect();
        let share = |stratum: &Vec<usize>| (stratum.len() * count / self.len(), stratum.len() * count % self.len());
        let mut wanted: Vec<usize> = strata.iter().map(|stratum| share(stratum).0).collect();
        let mut by_remainder: Vec<usize> = (0..strata.len()).collect();
        by_remainder.sort_by_key(|&at| std::cmp::Reverse((share(&strata[at]).1, strata[at].len())));
        let missing = count - wanted.iter().sum::<usize>();
        for &at in &by_remainder[..missing] {
            wanted[at] += 1;
        }
        let mut rows = Vec::with_capacity(count);
        for (number, (stratum, wanted)) in strata.iter_mut().zip(wanted).enumerate() {
            stratum.shuffle(&mut seed.named("take").for_sample(number as u64));
            rows.extend(&stratum[..wanted]);
        }
        rows.sort_unstable();
        self.select(&rows)
    }

    /// Number of samples of each class, with each finding, or with each class somewhere in their mask.
    pub fn class_counts(&self) -> Vec<usize> {
        count_classes(&self.labels, self.class_names.len())
    }

    /// Mean and standard deviation of each channel, for budgets such as `0.1sd` and for normalisation.
    pub fn statistics(&self) -> Statistics {
        let channels = self.samples.shape()[0];
        let per_channel = (self.samples.elements() / channels * self.len()) as f64;
        let mut mean = vec![0.0; channels];
        self.each_channel(|channel, values| mean[channel] += values.iter().map(|&v| f64::from(v)).sum::<f64>());
        for sum in &mut mean {
            *sum /= per_channel;
        }
        let mut variance = vec![0.0; channels];
        self.each_channel(|channel, values| {
            variance[channel] += values.iter().map(|&v| (f64::from(v) - mean[channel]).powi(2)).sum::<f64>();
        });
        Statistics {
            mean: mean.iter().map(|&mean| mean as f32).collect(),
            standard_deviation: variance.iter().map(|&sum| (sum / per_channel).sqrt() as f32).collect(),
        }
    }

    fn each_channel(&self, mut visit: impl FnMut(usize, &[f32])) {
        for row in 0..self.len() {
            let view = self.samples.view(row);
            for channel in 0..view.channels() {
                visit(channel, view.channel(channel));
            }
        }
    }
}

fn check_finite(source: &str, samples: &Samples) -> Result<(), DataError> {
    if let Some(at) = samples.values().iter().position(|value| !value.is_finite()) {
        let (sample, element) = (at / samples.elements(), at % samples.elements());
        let value = f64::from(samples.values()[at]);
        return Err(DataError::NonFinite { file: source.to_owned(), sample, element, value });
    }
    Ok(())
}

fn check_labels(
    source: &str,
    labels: &[Label],
    class_names: &[String],
    samples: usize,
    positions: usize,
) -> Result<(), DataError> {
    if labels.len() != samples {
        return Err(DataError::Length {
            file: source.to_owned(),
            what: "labels",
            expected: samples,
            got: labels.len(),
        });
    }
    if let Some(Label::Number(_)) = labels.first() {
        let strange = labels.iter().position(|label| !matches!(label, Label::Number(number) if number.is_finite()));
        return match strange {
            None => Ok(()),
            Some(sample) => {
                let (expected, got) =
                    ("a finite number, as the first sample has".to_owned(), "another label".to_owned());
                Err(DataError::Label { file: source.to_owned(), sample, expected, got })
            }
        };
    }
    let multi_label = matches!(labels.first(), Some(Label::Findings(_)));
    let fewest = if multi_label { 1 } else { 2 };
    if class_names.len() < fewest {
        return Err(DataError::Classes {
            file: source.to_owned(),
            expected: format!("at least {fewest}"),
            got: class_names.len().to_string(),
            advice: "a classifier needs something to tell apart; check the labels",
        });
    }
    let masks = matches!(labels.first(), Some(Label::Mask(_)));
    for (sample, label) in labels.iter().enumerate() {
        let (expected, got) = match label {
            Label::Mask(mask) if masks => match mask_fault(mask, positions, class_names.len()) {
                Some(fault) => fault,
                None => continue,
            },
            Label::Mask(_) => ("a class or findings, as the first sample has".to_owned(), "a mask".to_owned()),
            _ if masks => ("a mask, as the first sample has".to_owned(), "a class or findings".to_owned()),
            Label::Class(class) if !multi_label && *class < class_names.len() => continue,
            Label::Findings(findings) if multi_label && findings.len() == class_names.len() => continue,
            Label::Class(class) if multi_label => (format!("{} findings", class_names.len()), format!("class {class}")),
            Label::Findings(findings) if multi_label => {
                (format!("{} findings", class_names.len()), findings.len().to_string())
            }
            Label::Findings(_) => ("one class, as the first sample has".to_owned(), "findings".to_owned()),
            Label::Class(class) => (format!("a class from 0 to {}", class_names.len() - 1), class.to_string()),
            Label::Number(_) => ("a class or findings, as the first sample has".to_owned(), "a number".to_owned()),
        };
        return Err(DataError::Label { file: source.to_owned(), sample, expected, got });
    }
    Ok(())
}

/// What samples are drawn by: their label, as long as several can share it.
pub(crate) fn stratum(label: &Label) -> Label {
    match label {
        Label::Mask(_) | Label::Number(_) => Label::Mask(Vec::new()),
        Label::Class(_) | Label::Findings(_) => label.clone(),
    }
}

/// What a mask should have been, and what it is instead.
fn mask_fault(mask: &[u8], positions: usize, classes: usize) -> Option<(String, String)> {
    if mask.len() != positions {
        return Some((format!("a mask of {positions} positions"), mask.len().to_string()));
    }
    if mask.iter().all(|&class| class == IGNORED) {
        return Some(("a position that is not ignored".to_owned(), "none".to_owned()));
    }
    let strange = mask.iter().find(|&&class| class != IGNORED && usize::from(class) >= classes)?;
    Some((format!("classes from 0 to {}", classes - 1), strange.to_string()))
}

fn count_classes(labels: &[Label], classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for label in labels {
        match label {
            Label::Class(class) => counts[*class] += 1,
            Label::Findings(findings) => {
                for (count, present) in counts.iter_mut().zip(findings) {
                    *count += usize::from(*present);
                }
            }
            Label::Mask(_) | Label::Number(_) => {
                for (class, count) in counts.iter_mut().enumerate() {
                    *count += usize::from(has_finding(label, class));
                }
            }
        }
    }
    counts
}

fn missing_classes(labels: &[Label], class_names: &[String]) -> Vec<Warning> {
    let counts = count_classes(labels, class_names.len());
    let missing = counts.iter().zip(class_names).filter(|(count, _)| **count == 0);
    missing.map(|(_, name)| Warning::MissingClass { class: name.clone() }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A data set of grey rows with classes named `c0`, `c1`, ...
    pub(crate) fn grey(rows: &[&[u8]], classes: &[usize]) -> Dataset {
        let width = rows[0].len();
        let values = rows.iter().flat_map(|row| row.iter().map(|&value| f32::from(value))).collect();
        let samples = Samples::new(values, &[1, 1, width]).unwrap();
        let names = (0..=*classes.iter().max().unwrap()).map(|class| format!("c{class}")).collect();
        let domain = Domain::grey_levels(&[1, 1, width], 255.0).unwrap();
        Dataset::new("test", samples, classes.iter().map(|&class| Label::Class(class)).collect(), names, domain)
            .unwrap()
    }

    fn build(values: Vec<f32>, labels: Vec<Label>, names: &[&str]) -> Result<Dataset, DataError> {
        let samples = Samples::new(values, &[2]).unwrap();
        let names = names.iter().map(ToString::to_string).collect();
        Dataset::new("test", samples, labels, names, Domain::grey_levels(&[2], 255.0).unwrap())
    }

    #[test]
    fn statistics_and_counts_are_those_computed_by_hand() {
        let samples = Samples::new(vec![1.0, 3.0, 10.0, 10.0, 5.0, 7.0, 10.0, 30.0], &[2, 1, 2]).unwrap();
        let domain = Domain::grey_levels(&[2, 1, 2], 255.0).unwrap();
        let labels = vec![Label::Findings(vec![true, false]), Label::Findings(vec![true, true])];
        let data = Dataset::new("test", samples, labels, vec!["a".into(), "b".into()], domain).unwrap();
        let statistics = data.statistics();
        assert_eq!(statistics.mean, [4.0, 15.0]);
        // Channel 0: 1, 3, 5, 7 with variance 5; channel 1: 10, 10, 10, 30 with variance 75.
        assert_eq!(statistics.standard_deviation, [5f32.sqrt(), 75f32.sqrt()]);
        assert_eq!(data.class_counts(), [2, 1]);
        assert!(data.is_multi_label());
    }

    #[test]
    fn data_that_do_not_fit_are_refused() {
        let two = || vec![Label::Class(0), Label::Class(1)];
        let names = ["a", "b"];
        assert!(build(vec![0.0; 4], two(), &names).is_ok());
        assert!(matches!(build(vec![], vec![], &names), Err(DataError::Empty { .. })));
        assert!(matches!(build(vec![0.0; 6], two(), &names), Err(DataError::Length { expected: 3, got: 2, .. })));
        assert!(matches!(build(vec![0.0; 4], two(), &names[..1]), Err(DataError::Classes { .. })));
        for value in [f32::NAN, f32::INFINITY] {
            let error = build(vec![0.0, 0.0, 0.0, value], two(), &names).unwrap_err();
            assert!(matches!(error, DataError::NonFinite { sample: 1, element: 1, .. }), "{error}");
        }
        assert!(matches!(build(vec![256.0; 4], two(), &names), Err(DataError::Core(_))));
        for labels in [
            vec![Label::Class(0), Label::Class(2)],
            vec![Label::Class(0), Label::Findings(vec![true, true])],
            vec![Label::Findings(vec![true, true]), Label::Findings(vec![true])],
            vec![Label::Findings(vec![true, true]), Label::Class(0)],
        ] {
            let error = build(vec![0.0; 4], labels, &names).unwrap_err();
            assert!(matches!(error, DataError::Label { sample: 1, .. }), "{error}");
        }
    }

    #[test]
    fn selected_rows_keep_everything_that_belongs_to_them() {
        let data = grey(&[&[1], &[2], &[3]], &[0, 1, 0])
            .with_patients(vec!["x".into(), "y".into(), "z".into()])
            .unwrap()
            .with_group("sex", vec!["f".into(), "m".into(), "f".into()])
            .unwrap();
        let part = data.select(&[2, 0]).unwrap();
        assert_eq!((part.samples().values(), part.samples().indices()), ([3.0, 1.0].as_slice(), [2, 0].as_slice()));
        assert_eq!(part.patients().unwrap(), ["z", "x"]);
        assert_eq!(part.groups()["sex"], ["f", "f"]);
        assert_eq!(part.warnings(), [Warning::MissingClass { class: "c1".into() }]);
        assert!(data.select(&[3]).is_err() && data.select(&[]).is_err());
        assert!(data.clone().with_patients(vec![]).is_err());
        assert!(data.with_samples(Samples::new(vec![1.0, 2.0, 300.0], &[1, 1, 1]).unwrap()).is_err());
    }

    #[test]
    fn taking_keeps_the_shares_of_the_classes() {
        let classes: Vec<usize> = (0..100).map(|row| usize::from(row % 10 == 0)).collect();
        let rows = [[7u8]; 100];
        let data = grey(&rows.iter().map(<[u8; 1]>::as_slice).collect::<Vec<_>>(), &classes);
        let part = data.take(20, Seed(1)).unwrap();
        assert_eq!(part.class_counts(), [18, 2]);
        assert!(part.samples().indices().is_sorted());
        assert_eq!(part, data.take(20, Seed(1)).unwrap());
        assert_ne!(part, data.take(20, Seed(2)).unwrap());
        assert_eq!(data.take(7, Seed(1)).unwrap().class_counts(), [6, 1]);
        assert_eq!(data.take(500, Seed(1)).unwrap().len(), 100);
        assert!(data.take(0, Seed(1)).is_err());
    }
}
