//! What a data set holds, and what may be wrong with it, without a name of a patient.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use nocebo_core::{Column, Label};

use crate::dataset::Form;
use crate::{DataError, Dataset, OpenOptions, Split, Warning, leaks, open_with};

/// A description of a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Survey {
    /// File or folder, without the folders that it lies in.
    pub name: String,
    /// How it is stored.
    pub format: String,
    /// Shape of a sample, channels first.
    pub shape: Vec<usize>,
    /// Unit of the values.
    pub unit: String,
    /// Least and greatest value that can be stored, over all elements.
    pub bounds: [f32; 2],
    /// Least and greatest step between values that can be stored, over all elements; 0 for floats.
    pub step: [f32; 2],
    /// Elements that an attack may change.
    pub mutable: usize,
    /// Samples a second of signals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency: Option<f64>,
    /// `class`, `findings`, `mask`, or `none` for one image.
    pub label: &'static str,
    /// Names of the classes or findings.
    pub classes: Vec<String>,
    /// Subgroup columns with their number of values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, usize>,
    /// Columns of a table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    /// The schema of a table as TOML, everything that was inferred included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The splits that hold samples.
    pub splits: Vec<Part>,
    /// What may change or flatter a result.
    pub problems: Vec<String>,
}

/// One split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// `train`, `validation` or `test`; nothing for one image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Number of samples.
    pub samples: usize,
    /// Number of patients, where the data say who is who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patients: Option<usize>,
    /// Samples of each class, with each finding, or with each class in their mask.
    pub counts: Vec<usize>,
    /// Least and greatest value.
    pub range: [f32; 2],
    /// Mean of the values of each channel.
    pub mean: Vec<f32>,
    /// Standard deviation of the values of each channel.
    pub standard_deviation: Vec<f32>,
}

impl Survey {
    /// Reads all splits of a data set and describes them. Pictures that cannot be read are named as a problem.
    ///
    /// # Errors
    ///
    /// As [`open_with`]; a split without samples is none.
    pub fn of(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, DataError> {
        let path = path.as_ref();
        if crate::is_image(path) {
            let image = crate::open_image(path, options)?;
            let placeholder = image.labelled(Label::Class(0), vec![String::new(); 2])?;
            let mut survey = Self::of_parts(path, &[(Split::Test, placeholder)])?;
            (survey.label, survey.classes) = ("none", Vec::new());
            survey.splits.iter_mut().for_each(|part| (part.split, part.counts) = (None, Vec::new()));
            return Ok(survey);
        }
        let options = OpenOptions { skip_unreadable: true, ..options.clone() };
        let (mut parts, mut empty) = (Vec::new(), None);
        for split in Split::ALL {
            match open_with(path, split, &options) {
                Ok(data) => parts.push((split, data)),
                Err(error @ DataError::Empty { .. }) => empty = Some(error),
                Err(error) => return Err(error),
            }
        }
        match empty {
            Some(error) if parts.is_empty() => Err(error),
            _ => Self::of_parts(path, &parts),
        }
    }

    fn of_parts(path: &Path, parts: &[(Split, Dataset)]) -> Result<Self, DataError> {
        let Some((_, first)) = parts.first() else {
            return Err(DataError::Empty { file: crate::formats::file_name(path), split: "whole".to_owned() });
        };
        let domain = first.domain();
        let ends = |values: &[f32]| {
            values
                .iter()
                .fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &value| [low.min(value), high.max(value)])
        };
        let schema = match first.table() {
            None => None,
            Some(table) => Some(toml::to_string(table.schema()).map_err(|error| {
                DataError::format(&crate::formats::file_name(path), "schema", "what TOML can say", error)
            })?),
        };
        let distinct = |name: &String| -> usize {
            let values = parts.iter().filter_map(|(_, data)| data.groups().get(name)).flatten();
            values.collect::<BTreeSet<_>>().len()
        };
        Ok(Self {
            name: crate::formats::file_name(path),
            format: format_of(path, first).to_owned(),
            shape: domain.shape().to_vec(),
            unit: domain.unit().symbol().to_owned(),
            bounds: [ends(domain.lower())[0], ends(domain.upper())[1]],
            step: ends(domain.resolution()),
            mutable: (0..domain.elements()).filter(|&element| domain.is_mutable(element)).count(),
            frequency: first.frequency(),
            label: match first {
                data if data.is_segmentation() => "mask",
                data if data.is_multi_label() => "findings",
                _ => "class",
            },
            classes: first.class_names().to_vec(),
            groups: first.groups().keys().map(|name| (name.clone(), distinct(name))).collect(),
            columns: domain.columns().to_vec(),
            schema,
            splits: parts.iter().map(|(split, data)| part(*split, data)).collect(),
            problems: problems(parts),
        })
    }
}

fn format_of(path: &Path, data: &Dataset) -> &'static str {
    let extension = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"));
    match data.form() {
        Form::Table(_) => "table (CSV, Parquet, ARFF)",
        Form::Volumes(_) => "volumes (NIfTI, NRRD, MetaImage)",
        Form::Dicom(_) => "DICOM images",
        Form::Beats => "WFDB records with annotated beats",
        Form::Recordings => "records (WFDB, EDF)",
        Form::Pictures if extension => "arrays (npz)",
        Form::Pictures => "pictures (PNG, JPEG, TIFF)",
    }
}

fn part(split: Split, data: &Dataset) -> Part {
    let statistics = data.statistics();
    let ends = |[low, high]: [f32; 2], &value: &f32| [low.min(value), high.max(value)];
    Part {
        split: Some(split),
        samples: data.len(),
        patients: data.patients().map(|patients| patients.iter().collect::<BTreeSet<_>>().len()),
        counts: data.class_counts(),
        range: data.samples().values().iter().fold([f32::INFINITY, f32::NEG_INFINITY], ends),
        mean: statistics.mean,
        standard_deviation: statistics.standard_deviation,
    }
}

/// Warnings of the readers, each once; patients and samples in two splits; samples that say nothing or say it twice.
fn problems(parts: &[(Split, Dataset)]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let borrowed: Vec<(Split, &Dataset)> = parts.iter().map(|(split, data)| (*split, data)).collect();
    let read = parts.iter().flat_map(|(split, data)| {
        data.warnings().iter().map(move |warning| match warning {
            Warning::MissingClass { .. } => format!("{split} split: {warning}"),
            _ => warning.to_string(),
        })
    });
    for text in read.chain(leaks(&borrowed).iter().map(ToString::to_string)) {
        if !found.contains(&text) {
            found.push(text);
        }
    }
    for (split, data) in parts {
        let samples = data.samples();
        let constant: Vec<u64> = samples
            .rows()
            .zip(samples.indices())
            .filter(|(row, _)| row.len() > 1 && row.iter().all(|value| *value == row[0]))
            .map(|(_, &index)| index)
            .collect();
        if !constant.is_empty() {
            found.push(format!("{split} split: {} sample(s) are constant: {}", constant.len(), few(&constant)));
        }
        let mut seen = BTreeSet::new();
        let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
        let rows = samples.rows().zip(samples.indices());
        let twice: Vec<u64> = rows.filter(|(row, _)| !seen.insert(bits(row))).map(|(_, &index)| index).collect();
        if !twice.is_empty() {
            found.push(format!("{split} split: {} sample(s) repeat another: {}", twice.len(), few(&twice)));
        }
    }
    found
}

/// The first numbers of a list.
fn few(numbers: &[u64]) -> String {
    let shown: Vec<String> = numbers.iter().take(8).map(ToString::to_string).collect();
    let more = if numbers.len() > shown.len() { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::fs;

    #[test]
    fn a_table_is_described_without_its_patients() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let mut text = "patient,split,sex,a,b,label\n".to_owned();
        for (line, split) in ["train", "train", "train", "test", "test", "validation"].into_iter().enumerate() {
            let sex = if line % 2 == 0 { "f" } else { "m" };
            writeln!(text, "CANARY{},{split},{sex},{},7.{line},{}", line / 2, line % 3, line % 2).unwrap();
        }
        // The first line again, of another patient.
        text += "CANARY9,train,f,0,7.0,0\n";
        fs::write(&path, text).unwrap();
        fs::write(folder.path().join("t.schema.toml"), "groups = ['sex']\n[column.sex]\ntype = 'category'\n").unwrap();
        let survey = Survey::of(&path, &OpenOptions::default()).unwrap();
        assert_eq!((survey.unit.as_str(), survey.label, survey.groups["sex"]), ("SD", "class", 2));
        let names: Vec<&str> = survey.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!((names, survey.mutable), (vec!["sex=f", "sex=m", "a", "b"], 2));
        let of = |part: &Part| (part.split.unwrap(), part.samples, part.patients, part.counts.clone());
        assert_eq!(of(&survey.splits[0]), (Split::Train, 4, Some(3), vec![3, 1]));
        assert_eq!(of(&survey.splits[2]), (Split::Test, 2, Some(2), vec![1, 1]));
        let all = survey.problems.join("\n");
        for expected in
            ["1 patient(s) occur in both the train and the test split", "train split: 1 sample(s) repeat another: 6"]
        {
            assert!(all.contains(expected), "{expected}: {all}");
        }
        assert!(survey.schema.as_deref().unwrap().contains("standard_deviation"));
        assert!(!format!("{survey:?}").contains("CANARY"), "{survey:?}");
    }

    #[test]
    fn pictures_that_are_flat_twice_or_broken_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        let rows: Vec<[u8; 2]> = (0..20).map(|at| [at, 9]).collect();
        let rows: Vec<&[u8]> = rows.iter().map(<[u8; 2]>::as_slice).collect();
        let classes: Vec<usize> = (0..20).map(|at| at % 2).collect();
        crate::write(&path, &crate::dataset::tests::grey(&rows, &classes)).unwrap();
        let copy = |from: u8, to: u8| {
            let name = |at: u8| path.join(format!("{at:06}.png"));
            fs::copy(name(from), name(to)).unwrap();
        };
        for at in [1, 3, 5, 7, 11, 13] {
            copy(9, at);
        }
        fs::write(path.join("000002.png"), b"broken").unwrap();
        let survey = Survey::of(&path, &OpenOptions::default()).unwrap();
        assert_eq!(survey.splits.iter().map(|part| part.samples).sum::<usize>(), 19);
        assert_eq!(
            (survey.bounds, survey.step, survey.format.as_str()),
            ([0.0, 255.0], [1.0, 1.0], "pictures (PNG, JPEG, TIFF)")
        );
        let all = survey.problems.join("\n");
        for expected in ["`000002.png` was left out", "are constant", "repeat another"] {
            assert!(all.contains(expected), "{expected}: {all}");
        }
        assert!(Survey::of(folder.path().join("absent"), &OpenOptions::default()).is_err());
    }
}
