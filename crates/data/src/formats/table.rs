//! Tables: a CSV, Parquet or ARFF file, one sample a line, with or without `NAME.schema.toml` beside `NAME.csv`; written back line by
//! line, as Parquet where they were that, else as CSV.
//!
//! The [`Schema`] says what a column is; what it leaves open is inferred, and a warning says so (`nocebo data inspect`
//! prints all of it as a schema).
//!
//! ```text
//! number     one channel, (value in the file) / (standard deviation of the column); may change unless the schema says no
//! boolean    0 or 1 (true, false, yes, no); may not change unless the schema says so
//! category   one channel a value, 0 or 1; never changes: a budget of small changes does not say what another value costs
//! time       a date or a moment (ISO 8601), in days; never changes
//! ignored    no channel
//! ```
//!
//! So samples are in standard deviations, of the lines for training where a column says which those are, else of all, and
//! one epsilon is fair to all columns. Stored steps and bounds are those of the file, divided likewise: without a schema
//! the step is the last decimal place that a column uses, or the finest that single precision tells apart, and bounds
//! are the least and greatest value of the column. Values between steps are taken to the nearest.
//!
//! A line with a missing cell (empty, `?`, `NA`, `N/A`, `NaN`, `null`, and what the schema names) is left out, unless the
//! schema says `missing = "median"`: then numbers and booleans are the median of their column and a category is none of
//! its values. Lines without a label are left out.
//!
//! Comma, semicolon or tab; UTF-8 with or without byte-order mark; quotes as usual; where the comma does not separate
//! cells it may separate decimals. Cells are text and never evaluated. In what is written only the cells of numbers and
//! booleans that changed differ; every other cell has the bytes that it had. The schema written beside it says everything,
//! so that a part of a table is read as the whole was.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use nocebo_core::{Column, Direction, Domain, DomainConfig, Field, Samples, Unit};

use super::arff;
use super::folder::patient_warnings;
use super::labels::named;
use super::parquet_table::{self, Columns};
use crate::dataset::Origin;
use crate::split::assign;
use crate::{DataError, Dataset, OpenOptions, Split, Warning};

/// Names of a written table.
const TABLES: [&str; 2] = ["table.csv", "table.parquet"];
/// What can stand between cells.
const DELIMITERS: [char; 3] = [',', ';', '\t'];
/// Greatest size of a table in bytes.
pub(super) const BYTES: u64 = 1 << 30;
/// Greatest number of columns.
pub(super) const COLUMNS: u64 = 4096;
/// Text columns with more values than this, or with more than one for four lines, are no categories.
const CATEGORIES: usize = 32;
/// Years of dates.
const YEARS: RangeInclusive<u32> = 1800..=2300;
/// Days from 1 January 1800 to 1 January 1970.
const DAYS_TO_1970: i64 = 62_091;
/// Steps up to the greatest magnitude of a column that single precision keeps apart with room to spare.
const STEPS: f64 = 1_048_576.0;

/// What the columns of a table are. All of it may be left out, and is then inferred.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schema {
    /// Whether the first line names the columns; otherwise they are `column1`, `column2`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// The column to be predicted: one named label, class, target, outcome or diagnosis, else the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Names of all classes in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_names: Option<Vec<String>>,
    /// The column that tells patients apart: one named patient, `patient_id`, subject or `subject_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patient: Option<String>,
    /// The column of the words train, val and test: one named split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Columns that results are also given for, such as sex.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What a missing cell means for its line.
    pub missing: Missing,
    /// Groups of number columns whose sum is the same in every line, and stays so: percentages of a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sums: Vec<Vec<String>>,
    /// The columns by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub column: BTreeMap<String, ColumnSchema>,
}

/// What a missing cell means for its line.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The line is left out.
    #[default]
    LeaveOut,
    /// The cell is the median of its column.
    Median,
}

/// What one column is. All of it may be left out, and is then inferred.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColumnSchema {
    /// How its cells are read.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Unit of its values.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Least value that it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    /// Greatest value that it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    /// Distance of values that can be stored, from the minimum on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<f64>,
    /// Whether an attacker may change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutable: Option<bool>,
    /// The only way in which it may change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// How much of it is one of the unit of epsilon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standard_deviation: Option<f64>,
    /// Cells that mean a missing value, beside the usual ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Its value where a cell is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<f64>,
    /// The values of a category in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub categories: Option<Vec<String>>,
}

/// How the cells of a column are read.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A number.
    Number,
    /// 0 or 1, or a word for it.
    Boolean,
    /// One of a few texts.
    Category,
    /// A date or a moment.
    Time,
    /// No input of a model.
    Ignored,
}

/// The values that a number may have in the file: `minimum + k · step` for k from 0 to `steps`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grid {
    minimum: f64,
    step: f64,
    steps: f64,
    scale: f64,
}

impl Grid {
    fn lower(self) -> f32 {
        (self.minimum / self.scale) as f32
    }

    fn upper(self) -> f32 {
        ((self.minimum + self.steps * self.step) / self.scale) as f32
    }

    fn resolution(self) -> f32 {
        (self.step / self.scale) as f32
    }

    /// The number as it is written.
    fn text(self, sample: f32) -> String {
        let number = ((f64::from(sample) - f64::from(self.lower())) / f64::from(self.resolution())).round();
        let places = decimals(self.step).max(decimals(self.minimum));
        format!("{:.places$}", self.minimum + number * self.step)
    }
}

/// How a column becomes channels.
#[derive(Clone, Debug, PartialEq)]
enum Coding {
    Number { grid: Grid, kind: Kind, fill: Option<f64> },
    Category { values: Vec<String>, missing: bool },
}

#[derive(Clone, Debug, PartialEq)]
struct Feature {
    column: usize,
    name: String,
    /// Cells that mean a missing value, beside the usual ones.
    missing: Vec<String>,
    mutable: bool,
    coding: Coding,
}

impl Feature {
    fn channels(&self) -> usize {
        match &self.coding {
            Coding::Number { .. } => 1,
            Coding::Category { values, .. } => values.len(),
        }
    }
}

/// A table as it stands in its file, with everything known about its columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    text: String,
    delimiter: u8,
    decimal_comma: bool,
    /// The columns as a Parquet file stores them.
    columns: Option<Columns>,
    header: Option<Vec<Range<usize>>>,
    names: Vec<String>,
    lines: Vec<Vec<Range<usize>>>,
    schema: Schema,
    features: Vec<Feature>,
    domain: Domain,
}

impl Table {
    /// What the columns are, everything that was inferred included.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    fn cell(&self, line: usize, column: usize) -> Cow<'_, str> {
        unquoted(&self.text[self.lines[line][column].clone()])
    }

    /// The values of a line, or nothing where a cell is missing that no value stands for.
    fn values(&self, file: &str, line: usize) -> Result<Option<Vec<f32>>, DataError> {
        let mut row = Vec::with_capacity(self.domain.elements());
        for feature in &self.features {
            let cell = self.cell(line, feature.column);
            let missing = is_missing(&cell, &feature.missing);
            let refuse = |expected: String| {
                let what = format!("line {}, column `{}`", self.place(line), feature.name);
                DataError::format(file, what, expected, "another cell")
            };
            match &feature.coding {
                Coding::Category { values, missing: allowed } => {
                    if missing && !allowed {
                        return Ok(None);
                    }
                    if !missing && !values.iter().any(|value| *value == cell) {
                        return Err(refuse(format!("one of {} values", values.len())));
                    }
                    row.extend(values.iter().map(|value| f32::from(u8::from(!missing && *value == cell))));
                }
                Coding::Number { grid, kind, fill } => {
                    let value = match fill {
                        Some(fill) if missing => *fill,
                        None if missing => return Ok(None),
                        _ => parse(*kind, &cell, self.decimal_comma)
                            .ok_or_else(|| refuse(format!("a {kind:?}").to_lowercase()))?,
                    };
                    let number = ((value - grid.minimum) / grid.step).round();
                    if !(0.0..=grid.steps).contains(&number) {
                        let greatest = grid.minimum + grid.steps * grid.step;
                        return Err(refuse(format!("a value from {} to {greatest}", grid.minimum)));
                    }
                    row.push(((grid.minimum + number * grid.step) / grid.scale) as f32);
                }
            }
        }
        // On the grid of the domain to the bit, so that what was not changed is stored as it was.
        self.domain.store(&mut row);
        Ok(Some(row))
    }

    /// Number of a line in the file, from 1, where no cell spans lines.
    fn place(&self, line: usize) -> usize {
        line + 1 + usize::from(self.header.is_some())
    }
}

/// Whether a folder holds a written table.
pub fn is_layout(path: &Path) -> bool {
    TABLES.iter().any(|name| path.join(name).is_file())
}

/// Reads one split of `path`, a CSV, Parquet or ARFF file or the folder of a written table.
///
/// # Errors
///
/// When the file or its schema cannot be read, lines differ in their number of cells, the schema names no column of the table
/// or a wrong kind, a value is out of the range of its column, or the split is empty.
pub fn read(path: &Path, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    let file = super::file_name(path);
    if options.bounds.is_some() || options.unit.is_some() {
        return Err(DataError::refused(&file, "one unit or range for a table", "say them by column in its schema"));
    }
    let parsed = Parsed::read(path, options)?;
    let Parsed { table, rows, labels, patients, splits, mut warnings } = parsed;
    let class_names = options.class_names.clone().or_else(|| table.schema.class_names.clone());
    let (labels, class_names) = named(&file, &labels, &OpenOptions { class_names, ..options.clone() })?;
    let splits = match splits {
        Some(splits) => {
            warnings.extend(patient_warnings(&splits, patients.as_deref()));
            splits
        }
        None => assign(&labels, patients.as_deref(), options.fractions, options.seed)?,
    };
    let chosen: Vec<usize> = (0..rows.len()).filter(|&row| splits[row] == split).collect();
    if chosen.is_empty() {
        return Err(DataError::Empty { file, split: split.to_string() });
    }
    let values = chosen.iter().flat_map(|&row| rows[row].1.iter().copied()).collect();
    let indices = chosen.iter().map(|&row| rows[row].0 as u64).collect();
    let samples = Samples::new(values, table.domain.shape())?.with_indices(indices)?;
    let kept = chosen.iter().map(|&row| labels[row].clone()).collect();
    let mut table = table;
    table.schema.class_names = Some(class_names.clone());
    let source = format!("{file}, {split} split");
    let mut data = Dataset::new(source, samples, kept, class_names, table.domain.clone())?.warned(warnings);
    if let Some(patients) = patients {
        data = data.with_patients(chosen.iter().map(|&row| patients[row].clone()).collect())?;
    }
    for name in &table.schema.groups {
        let at = table.column(name);
        let values = chosen.iter().map(|&row| table.cell(rows[row].0, at).into_owned()).collect();
        data = data.with_group(name, values)?;
    }
    Ok(data.with_origin(Origin::Table(Arc::new(table))))
}

/// Writes the lines of the samples as `table.csv` or `table.parquet` with its schema into the new folder `path`, under a temporary name until
/// it is complete.
///
/// # Errors
///
/// When a value is not on the domain's grid, one that may not change did, or the folder exists or cannot be written.
pub(crate) fn write(path: &Path, data: &Dataset, table: &Table) -> Result<(), DataError> {
    let file = super::file_name(path);
    let (mut lines, mut changes) = (Vec::new(), Vec::new());
    for (row, &index) in data.samples().indices().iter().enumerate() {
        let (line, point) = (index as usize, data.samples().row(row));
        let Some(clean) = table.lines.get(line).map(|_| table.values(&file, line)).transpose()?.flatten() else {
            return Err(DataError::format(&file, "sample", "one of the lines of the table", index));
        };
        let mut stored = point.to_vec();
        table.domain.store(&mut stored);
        if let Some(element) = (0..stored.len()).find(|&element| stored[element] != point[element]) {
            return Err(DataError::OffGrid { sample: row, element, value: point[element], storage: "in this column" });
        }
        let (mut changed, mut element) = (BTreeMap::new(), 0);
        for feature in &table.features {
            let elements = element..element + feature.channels();
            element = elements.end;
            if clean[elements.clone()] == point[elements.clone()] {
                continue;
            }
            match &feature.coding {
                Coding::Number { grid, .. } if feature.mutable => {
                    changed.insert(feature.column, grid.text(point[elements.start]));
                }
                _ => {
                    let what = format!("a change of column `{}`", feature.name);
                    return Err(DataError::refused(&file, what, "it may not change"));
                }
            }
        }
        lines.push(line);
        changes.push(changed);
    }
    let encoded = match &table.columns {
        Some(columns) => columns.encode(&lines, &changes),
        None => Ok(table.as_csv(&lines, &changes).into_bytes()),
    };
    let bytes =
        encoded.map_err(|error| DataError::format(&file, "changed cells", "what its columns can store", error))?;
    let name = TABLES[usize::from(table.columns.is_some())];
    let schema = toml::to_string(&table.schema)
        .map_err(|error| DataError::format(&file, "schema", "what TOML can say", error.to_string()))?;
    super::write_new_folder(path, |folder| {
        super::write_new_file(&folder.join(name), |writer| writer.write_all(&bytes))?;
        super::write_new_file(&schema_path(&folder.join(name)), |writer| writer.write_all(schema.as_bytes()))
    })
}

/// All samples of a written table, in the order of its lines.
pub(crate) fn read_back(path: &Path) -> Result<Samples, DataError> {
    let Parsed { table, rows, .. } = Parsed::read(path, &OpenOptions::default())?;
    Ok(Samples::new(rows.into_iter().flat_map(|(_, row)| row).collect(), table.domain.shape())?)
}

/// A table with the lines that are kept.
struct Parsed {
    table: Table,
    /// Line and values of each sample.
    rows: Vec<(usize, Vec<f32>)>,
    labels: Vec<String>,
    patients: Option<Vec<String>>,
    splits: Option<Vec<Split>>,
    warnings: Vec<Warning>,
}

impl Parsed {
    fn read(path: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        let written = || TABLES.iter().map(|name| path.join(name)).find(|table| table.is_file());
        let path = if path.is_dir() { written().unwrap_or_else(|| path.join(TABLES[0])) } else { path.to_owned() };
        let file = super::file_name(&path);
        let source = Source::read(&path, &file, options)?;
        let schema_file = schema_path(&path);
        let schema = if schema_file.is_file() { Some(read_schema(&schema_file)?) } else { None };
        let mut warnings = Vec::new();
        let nominal = source.nominal.clone();
        let mut table = Table::raw(&file, source, schema.clone().unwrap_or_default(), options)?;
        table.name_columns(&file)?;
        table.check_names(&super::file_name(&schema_file))?;
        table.settle_roles(&mut warnings);
        table.settle_nominal(nominal);
        let named_column = |name: &Option<String>| name.as_ref().map(|name| table.column(name));
        let roles = [&table.schema.label, &table.schema.patient, &table.schema.split].map(named_column);
        let split_of = |table: &Table, line: usize, at: usize| {
            let cell = table.cell(line, at);
            let what = || format!("line {}, column `{}`", table.place(line), table.names[at]);
            Split::parse(&cell).ok_or_else(|| DataError::format(&file, what(), "train, val or test", "another cell"))
        };
        let splits: Option<Vec<Split>> =
            roles[2].map(|at| (0..table.lines.len()).map(|line| split_of(&table, line, at)).collect()).transpose()?;
        let training: Vec<usize> = (0..table.lines.len())
            .filter(|&line| splits.as_ref().is_none_or(|splits| splits[line] == Split::Train))
            .collect();
        for at in (0..table.names.len()).filter(|at| !roles.contains(&Some(*at))) {
            table.settle_column(&file, at, &training)?;
        }
        table.settle_domain(&file)?;
        if schema.is_none() {
            warnings.push(Warning::Assumption { text: table.in_words(&file) });
        }
        table.ignored_warning(&mut warnings);

        let label = roles[0].unwrap_or_default();
        let (mut rows, mut labels, mut patients, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for line in 0..table.lines.len() {
            let text = |at: usize| Some(table.cell(line, at)).filter(|cell| !is_missing(cell, &[]));
            let patient = roles[1].map(text);
            let (Some(class), false) = (text(label), matches!(patient, Some(None))) else { continue };
            let Some(row) = table.values(&file, line)? else { continue };
            labels.push(class.into_owned());
            patients.extend(patient.flatten().map(Cow::into_owned));
            kept.extend(splits.as_ref().map(|splits| splits[line]));
            rows.push((line, row));
        }
        if rows.len() < table.lines.len() {
            let text = format!(
                "{} of {} lines have a missing cell and were left out",
                table.lines.len() - rows.len(),
                table.lines.len()
            );
            warnings.push(Warning::Assumption { text });
        }
        table.check_sums(&file, &rows)?;
        Ok(Self { rows, labels, patients: roles[1].map(|_| patients), splits: splits.map(|_| kept), table, warnings })
    }
}

/// A table as text, and what its file says beside it.
struct Source {
    text: String,
    /// What separates cells, where that is known.
    delimiter: Option<u8>,
    /// Values of the columns that list them, in order.
    nominal: BTreeMap<String, Vec<String>>,
    columns: Option<Columns>,
}

impl Source {
    fn read(path: &Path, file: &str, options: &OpenOptions) -> Result<Self, DataError> {
        let known = Self { text: String::new(), delimiter: Some(b','), nominal: BTreeMap::new(), columns: None };
        match path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).as_deref() {
            Some("parquet") => {
                let (columns, text) = parquet_table::read(path, file, options.limits.values)?;
                Ok(Self { text, columns: Some(columns), ..known })
            }
            Some("arff") => {
                let (text, nominal) = arff::to_csv(file, &read_text(path, file)?)?;
                Ok(Self { text, nominal, ..known })
            }
            _ => Ok(Self { text: read_text(path, file)?, delimiter: None, ..known }),
        }
    }
}

impl Table {
    /// The cells, before anything is known of the columns.
    fn raw(file: &str, source: Source, mut schema: Schema, options: &OpenOptions) -> Result<Self, DataError> {
        let Source { text, delimiter, columns, .. } = source;
        if delimiter.is_some() {
            schema.header = Some(true);
        }
        let first = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
        let delimiter = delimiter.unwrap_or_else(|| likely_delimiter(first));
        let mut lines = split_cells(file, &text, delimiter)?;
        let width = lines.first().map_or(0, Vec::len);
        if let Some(wrong) = lines.iter().position(|cells| cells.len() != width) {
            let what = format!("line {}", wrong + 1);
            return Err(DataError::format(file, what, format!("{width} cells, as the first has"), lines[wrong].len()));
        }
        DataError::check_limit(file, "cells", options.limits.values, (lines.len() * width) as u64)?;
        let decimal_comma = delimiter != b',';
        let is_number = |cell: &Range<usize>| {
            let cell = unquoted(&text[cell.clone()]);
            is_missing(&cell, &[]) || parse(Kind::Number, &cell, decimal_comma).is_some()
        };
        let has_header =
            schema.header.unwrap_or_else(|| lines.first().is_some_and(|cells| !cells.iter().all(is_number)));
        schema.header = Some(has_header);
        let header = (has_header && !lines.is_empty()).then(|| lines.remove(0));
        if lines.is_empty() {
            return Err(DataError::Empty { file: file.to_owned(), split: "whole".to_owned() });
        }
        if width < 2 {
            return Err(DataError::format(file, "columns", "a label and at least one more", width));
        }
        // Replaced when the columns are known.
        let domain = Domain::grey_levels(&[1], 1.0)?;
        let decimal_comma = decimal_comma
            && lines.iter().flatten().any(|cell| {
                let cell = unquoted(&text[cell.clone()]);
                cell.contains(',') && parse(Kind::Number, &cell, true).is_some()
            });
        Ok(Self {
            text,
            delimiter,
            decimal_comma,
            columns,
            header,
            names: Vec::new(),
            lines,
            schema,
            features: Vec::new(),
            domain,
        })
    }

    fn column(&self, name: &str) -> usize {
        self.names.iter().position(|other| other == name).unwrap_or_default()
    }

    fn name_columns(&mut self, file: &str) -> Result<(), DataError> {
        let names: Vec<String> = match &self.header {
            Some(header) => header.iter().map(|cell| unquoted(&self.text[cell.clone()]).into_owned()).collect(),
            None => (1..=self.lines[0].len()).map(|at| format!("column{at}")).collect(),
        };
        let distinct: BTreeSet<&String> = names.iter().filter(|name| !name.is_empty()).collect();
        if distinct.len() < names.len() {
            let got = format!("{} in {} columns", distinct.len(), names.len());
            return Err(DataError::format(file, "header", "a different name for each column", got));
        }
        self.names = names;
        Ok(())
    }

    /// Refuses a schema that names what the table does not have.
    fn check_names(&self, file: &str) -> Result<(), DataError> {
        let (schema, names) = (&self.schema, &self.names);
        let single = [&schema.label, &schema.patient, &schema.split];
        let mut named = single.into_iter().flatten().chain(&schema.groups).chain(schema.sums.iter().flatten());
        match named.find(|name| !names.contains(name)).or(schema.column.keys().find(|name| !names.contains(name))) {
            Some(stray) => {
                Err(DataError::format(file, format!("column `{stray}`"), "a column of the table", "none of this name"))
            }
            None => Ok(()),
        }
    }

    fn settle_roles(&mut self, warnings: &mut Vec<Warning>) {
        let names = &self.names;
        let find =
            |known: &[&str]| names.iter().find(|name| known.contains(&name.to_ascii_lowercase().as_str())).cloned();
        let schema = &mut self.schema;
        schema.patient = schema.patient.take().or_else(|| find(&["patient", "patient_id", "subject", "subject_id"]));
        schema.split = schema.split.take().or_else(|| find(&["split"]));
        if schema.label.is_none() {
            let known = find(&["label", "class", "target", "outcome", "diagnosis"]);
            schema.label = known.or_else(|| names.last().cloned());
            let text = format!("column `{}` is taken as the label", schema.label.as_deref().unwrap_or_default());
            warnings.push(Warning::Assumption { text });
        }
    }

    /// Takes over the values that columns list of themselves, where the schema says nothing else.
    fn settle_nominal(&mut self, nominal: BTreeMap<String, Vec<String>>) {
        let schema = &mut self.schema;
        for (name, values) in nominal {
            let given =
                schema.column.get(&name).is_some_and(|column| column.kind.is_some() || column.categories.is_some());
            if schema.label.as_ref() == Some(&name) {
                schema.class_names.get_or_insert(values);
            } else if ![&schema.patient, &schema.split].contains(&&Some(name.clone()))
                && !given
                && values.iter().any(|value| parse(Kind::Number, value, false).is_none())
            {
                let column = schema.column.entry(name).or_default();
                (column.kind, column.categories) = (Some(Kind::Category), Some(values));
            }
        }
    }

    /// These lines with the line of names; some cells, by column, have another number.
    fn as_csv(&self, lines: &[usize], changes: &[BTreeMap<usize, String>]) -> String {
        let mut text = String::new();
        let none = BTreeMap::new();
        let header = self.header.iter().map(|header| (header, &none));
        for (line, (cells, changed)) in
            header.chain(lines.iter().map(|&line| &self.lines[line]).zip(changes)).enumerate()
        {
            for (at, cell) in cells.iter().enumerate() {
                if at > 0 {
                    text.push(char::from(self.delimiter));
                }
                match changed.get(&at) {
                    Some(number) if self.decimal_comma => text.push_str(&number.replace('.', ",")),
                    Some(number) => text.push_str(number),
                    None => {
                        let cell = &self.text[cell.clone()];
                        let plain = unquoted(cell);
                        let number = || parse(Kind::Number, &plain, self.decimal_comma).is_some();
                        // What looks like a delimiter in the first line would be counted as one.
                        if line == 0 && cell.contains(DELIMITERS) && !number() {
                            text.push_str(&quoted(&plain));
                        } else {
                            text.push_str(cell);
                        }
                    }
                }
            }
            text.push('\n');
        }
        text
    }

    /// Completes what is known of a column, and adds it to the features.
    fn settle_column(&mut self, file: &str, at: usize, training: &[usize]) -> Result<(), DataError> {
        let name = self.names[at].clone();
        let mut given = self.schema.column.remove(&name).unwrap_or_default();
        let all: Vec<Cow<'_, str>> = (0..self.lines.len())
            .map(|line| self.cell(line, at))
            .filter(|cell| !is_missing(cell, &given.missing))
            .collect();
        let kind = given.kind.unwrap_or_else(|| infer(&name, &all, self.decimal_comma));
        given.kind = Some(kind);
        let wrong = |what: &str, expected: &str, got: String| {
            Err(DataError::format(file, format!("{what} of column `{name}`"), expected, got))
        };
        if matches!(kind, Kind::Category | Kind::Time | Kind::Ignored) && given.mutable == Some(true) {
            return wrong("mutable", "false: only numbers and booleans may change", "true".to_owned());
        }
        let fixed = ["age", "sex", "gender", "race", "ethnicity"].contains(&name.to_ascii_lowercase().as_str());
        let mutable = kind == Kind::Number && given.mutable.unwrap_or(!fixed) || given.mutable == Some(true);
        let median = self.schema.missing == Missing::Median;
        let coding = match kind {
            Kind::Ignored => None,
            Kind::Category => {
                let values = given.categories.clone().unwrap_or_else(|| {
                    all.iter().map(|cell| cell.clone().into_owned()).collect::<BTreeSet<_>>().into_iter().collect()
                });
                if values.is_empty() || values.len() > COLUMNS as usize {
                    return wrong("values", "1 to 4096 different ones", values.len().to_string());
                }
                given.categories = Some(values.clone());
                Some(Coding::Category { values, missing: median })
            }
            Kind::Number | Kind::Boolean | Kind::Time => {
                let number = |cell: &str| parse(kind, cell, self.decimal_comma);
                let numbers: Vec<f64> = all.iter().filter_map(|cell| number(cell)).collect();
                if numbers.is_empty() {
                    return wrong("cells", "numbers", "none".to_owned());
                }
                let cells = training.iter().map(|&line| self.cell(line, at));
                let known = cells.filter(|cell| !is_missing(cell, &given.missing));
                let deviation = deviation(&known.filter_map(|cell| number(&cell)).collect::<Vec<_>>());
                let grid = grid((file, &name), &mut given, &all, &numbers, deviation)?;
                if given.fill.is_none() && median {
                    let mut sorted = numbers;
                    sorted.sort_unstable_by(f64::total_cmp);
                    given.fill = Some(sorted[sorted.len() / 2]);
                }
                Some(Coding::Number { grid, kind, fill: given.fill })
            }
        };
        given.mutable = Some(mutable);
        let missing = given.missing.clone();
        self.schema.column.insert(name.clone(), given);
        if let Some(coding) = coding {
            self.features.push(Feature { column: at, name, missing, mutable, coding });
        }
        Ok(())
    }

    fn settle_domain(&mut self, file: &str) -> Result<(), DataError> {
        let channels: usize = self.features.iter().map(Feature::channels).sum();
        DataError::check_limit(file, "channels of all columns", COLUMNS, channels as u64)?;
        if channels == 0 {
            return Err(DataError::format(file, "columns", "at least one that is no label", "none that can be read"));
        }
        let mut config = (Vec::new(), Vec::new(), Vec::new());
        let (mut region, mut columns) = (Vec::new(), Vec::new());
        for feature in &self.features {
            let given = &self.schema.column[&feature.name];
            let sum = self.schema.sums.iter().position(|sum| sum.contains(&feature.name));
            let mut add = |grid: Grid, name: String| {
                config.0.push(grid.lower());
                config.1.push(grid.upper());
                config.2.push(grid.resolution());
                region.push(feature.mutable);
                let (unit, direction) = (given.unit.clone(), given.direction);
                columns.push(Column { name, unit, scale: grid.scale, direction, sum });
            };
            match &feature.coding {
                Coding::Number { grid, .. } => add(*grid, feature.name.clone()),
                Coding::Category { values, .. } => {
                    let flag = Grid { minimum: 0.0, step: 1.0, steps: 1.0, scale: 1.0 };
                    values.iter().for_each(|value| add(flag, format!("{}={value}", feature.name)));
                }
            }
        }
        let domain: Domain = DomainConfig {
            shape: vec![channels],
            unit: Unit::StandardDeviation,
            lower: Field::PerChannel(config.0),
            upper: Field::PerChannel(config.1),
            resolution: Field::PerChannel(config.2),
            region: (!region.iter().all(|mutable| *mutable)).then_some(region),
        }
        .try_into()?;
        self.domain = domain.with_columns(columns)?;
        Ok(())
    }

    /// Refuses lines whose sums differ.
    fn check_sums(&self, file: &str, rows: &[(usize, Vec<f32>)]) -> Result<(), DataError> {
        let columns = self.domain.columns();
        for (sum, names) in self.schema.sums.iter().enumerate() {
            let members: Vec<usize> = (0..columns.len()).filter(|&at| columns[at].sum == Some(sum)).collect();
            if members.len() != names.len() || members.len() < 2 {
                let got = format!("{} of {}", members.len(), names.len());
                return Err(DataError::format(file, "columns of a sum", "two or more, each a number in one sum", got));
            }
            let step = f64::from(self.domain.resolution()[members[0]]) * columns[members[0]].scale;
            let total = |row: &[f32]| members.iter().map(|&at| f64::from(row[at]) * columns[at].scale).sum::<f64>();
            let first = rows.first().map_or(0.0, |(_, row)| total(row));
            if let Some((line, row)) = rows.iter().find(|(_, row)| (total(row) - first).abs() > 0.5 * step) {
                let what = format!("line {}, sum of {} columns", self.place(*line), names.len());
                return Err(DataError::format(file, what, first, total(row)));
            }
        }
        Ok(())
    }

    /// What was inferred, briefly.
    fn in_words(&self, file: &str) -> String {
        let count = |wanted: &dyn Fn(&Feature) -> bool| self.features.iter().filter(|feature| wanted(feature)).count();
        let categories = count(&|feature| matches!(feature.coding, Coding::Category { .. }));
        format!(
            "`{file}` has no schema beside it: {} column(s) may change, {} may not, {categories} of these categories; \
             bounds, steps and standard deviations are those of its values (`nocebo data inspect` prints them)",
            count(&|feature| feature.mutable),
            count(&|feature| !feature.mutable),
        )
    }

    fn ignored_warning(&self, warnings: &mut Vec<Warning>) {
        let ignored = self.schema.column.iter().filter(|(_, column)| column.kind == Some(Kind::Ignored));
        let names: Vec<String> = ignored.map(|(name, _)| format!("`{name}`")).collect();
        if !names.is_empty() {
            let text = format!("no input of a model: column(s) {}", names.join(", "));
            warnings.push(Warning::Assumption { text });
        }
    }
}

fn schema_path(path: &Path) -> PathBuf {
    path.with_extension("schema.toml")
}

fn read_text(path: &Path, file: &str) -> Result<String, DataError> {
    let opened = File::open(path).map_err(DataError::reading(file))?;
    let length = opened.metadata().map_err(DataError::reading(file))?.len();
    DataError::check_limit(file, "bytes of the table", BYTES, length)?;
    let mut bytes = Vec::new();
    opened.take(length).read_to_end(&mut bytes).map_err(DataError::reading(file))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        DataError::format(file, "text", "UTF-8", format!("other bytes from {} on", error.utf8_error().valid_up_to()))
    })?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

fn read_schema(path: &Path) -> Result<Schema, DataError> {
    let file = super::file_name(path);
    let text = read_text(path, &file)?;
    toml::from_str(&text).map_err(|error| DataError::format(&file, "schema", "settings as documented", error.message()))
}

/// The one of [`DELIMITERS`] that stands most often in a line, outside of cells between quotes; of as many, the first.
fn likely_delimiter(line: &str) -> u8 {
    let (mut counts, mut quoted, mut before) = ([0; DELIMITERS.len()], false, DELIMITERS[0]);
    for character in line.chars() {
        if character == '"' && (quoted || before == '"' || DELIMITERS.contains(&before)) {
            quoted = !quoted;
        } else if let Some(which) = DELIMITERS.iter().position(|other| *other == character && !quoted) {
            counts[which] += 1;
        }
        before = character;
    }
    let most = DELIMITERS.into_iter().zip(counts).rev().max_by_key(|(_, count)| *count);
    most.map_or(b',', |(delimiter, _)| delimiter as u8)
}

/// Places of the cells of each line that is not empty, quotes included.
fn split_cells(file: &str, text: &str, delimiter: u8) -> Result<Vec<Vec<Range<usize>>>, DataError> {
    let bytes = text.as_bytes();
    let (mut lines, mut cells, mut start, mut quoted) = (Vec::new(), Vec::new(), 0, false);
    for at in 0..=bytes.len() {
        match bytes.get(at) {
            // A quote opens a cell, closes it, or is one of two that stand for one.
            Some(b'"') if quoted || at == start || bytes[at - 1] == b'"' => quoted = !quoted,
            Some(&byte) if byte == delimiter && !quoted => {
                cells.push(start..at);
                DataError::check_limit(file, "columns", COLUMNS, cells.len() as u64 + 1)?;
                start = at + 1;
            }
            Some(b'\n') | None if !quoted => {
                let end = if at > start && bytes[at - 1] == b'\r' { at - 1 } else { at };
                cells.push(start..end);
                let line = std::mem::take(&mut cells);
                if line.len() > 1 || !line[0].is_empty() {
                    lines.push(line);
                }
                start = at + 1;
            }
            None => {
                return Err(DataError::format(file, format!("line {}", lines.len() + 1), "a closing quote", "none"));
            }
            Some(_) => {}
        }
    }
    Ok(lines)
}

/// A text between quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// What a cell says: without blanks around it and without quotes.
fn unquoted(cell: &str) -> Cow<'_, str> {
    let cell = cell.trim();
    match cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"')) {
        Some(inside) if inside.contains("\"\"") => inside.replace("\"\"", "\"").into(),
        Some(inside) => inside.into(),
        None => cell.into(),
    }
}

fn is_missing(cell: &str, more: &[String]) -> bool {
    ["", "?", "na", "n/a", "nan", "null"].contains(&cell.to_ascii_lowercase().as_str())
        || more.iter().any(|missing| missing == cell)
}

/// The number of a cell: 0 or 1 for a boolean, days since 1970 for a time.
fn parse(kind: Kind, cell: &str, decimal_comma: bool) -> Option<f64> {
    match kind {
        Kind::Boolean => match cell.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" => Some(1.0),
            "0" | "false" | "no" => Some(0.0),
            _ => None,
        },
        Kind::Time => days(cell),
        _ => {
            let cell = if decimal_comma { Cow::from(cell.replace(',', ".")) } else { cell.into() };
            let plain = cell.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
            cell.parse().ok().filter(|number: &f64| plain && number.is_finite() && number.abs() < 1e30)
        }
    }
}

/// The date so many days after 1 January 1970, where its year is read.
pub(super) fn date(days: i64) -> Option<String> {
    let mut left = days.checked_add(DAYS_TO_1970).filter(|days| *days >= 0)?;
    for year in YEARS {
        for (month, length) in (1..).zip(months(year)) {
            if left < i64::from(length) {
                return Some(format!("{year}-{month:02}-{:02}", left + 1));
            }
            left -= i64::from(length);
        }
    }
    None
}

/// Days of each month.
fn months(year: u32) -> [u32; 12] {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// Days since 1970 of `2026-11-25`, `2026-11-25 13:05` or `2026-11-25T13:05:10`.
fn days(cell: &str) -> Option<f64> {
    let (date, clock) = cell.split_once(['T', ' ']).unwrap_or((cell, "0:0"));
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let lengths = months(year);
    let length = *lengths.get(month.checked_sub(1)? as usize)?;
    if !YEARS.contains(&year) || day == 0 || day > length {
        return None;
    }
    let years: i64 = (1800..year).map(|year| i64::from(months(year).iter().sum::<u32>())).sum();
    let before: u32 = lengths[..month as usize - 1].iter().sum();
    let mut units = clock.trim_end_matches('Z').splitn(3, ':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (units.next()??, units.next()??, units.next().unwrap_or(Some(0.0))?);
    if !(0.0..24.0).contains(&hours) || !(0.0..60.0).contains(&minutes) || !(0.0..61.0).contains(&seconds) {
        return None;
    }
    Some(
        (years + i64::from(before + day) - 1 - DAYS_TO_1970) as f64
            + (hours * 3600.0 + minutes * 60.0 + seconds) / 86_400.0,
    )
}

fn infer(name: &str, cells: &[Cow<'_, str>], decimal_comma: bool) -> Kind {
    let distinct: BTreeSet<&str> = cells.iter().map(AsRef::as_ref).collect();
    let all = |kind: Kind| cells.iter().all(|cell| parse(kind, cell, decimal_comma).is_some());
    match distinct.len() {
        0 | 1 => Kind::Ignored,
        _ if name.eq_ignore_ascii_case("id") => Kind::Ignored,
        2 if all(Kind::Boolean) => Kind::Boolean,
        _ if all(Kind::Number) => Kind::Number,
        _ if all(Kind::Time) => Kind::Time,
        values if values <= CATEGORIES && values * 4 <= cells.len() => Kind::Category,
        _ => Kind::Ignored,
    }
}

/// Digits after the decimal point of the shortest text of a number.
fn decimals(number: f64) -> usize {
    number.to_string().split_once('.').map_or(0, |(_, digits)| digits.len())
}

/// Digits after the decimal point of a cell, its exponent counted.
fn places(cell: &str) -> i32 {
    let (mantissa, exponent) = cell.split_once(['e', 'E']).unwrap_or((cell, "0"));
    let digits = mantissa.split_once(['.', ',']).map_or(0, |(_, digits)| digits.len() as i32);
    digits.saturating_sub(exponent.parse().unwrap_or(0))
}

/// Population standard deviation to four digits.
fn deviation(numbers: &[f64]) -> f64 {
    let count = numbers.len().max(1) as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let variance = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / count;
    format!("{:.3e}", variance.sqrt()).parse().unwrap_or(0.0)
}

/// The values that a number may have; completes what is given of them.
fn grid(
    (file, name): (&str, &str),
    given: &mut ColumnSchema,
    cells: &[Cow<'_, str>],
    numbers: &[f64],
    deviation: f64,
) -> Result<Grid, DataError> {
    let wrong = |what: &str, expected: &str, got: f64| {
        Err(DataError::format(file, format!("{what} of column `{name}`"), expected, got))
    };
    let boolean = given.kind == Some(Kind::Boolean);
    let (low, high) = if boolean {
        (0.0, 1.0)
    } else {
        numbers
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &number| (low.min(number), high.max(number)))
    };
    let (low, high) = (given.minimum.unwrap_or(low), given.maximum.unwrap_or(high));
    let magnitude = low.abs().max(high.abs());
    let step = given.step.unwrap_or_else(|| match given.kind {
        Some(Kind::Boolean) => 1.0,
        Some(Kind::Time) => (magnitude / STEPS).max(1.0 / 86_400.0),
        _ => {
            let finest = cells.iter().map(|cell| places(cell)).max().unwrap_or(0);
            let coarsest = (magnitude / STEPS).max(f64::MIN_POSITIVE).log10().ceil() as i32;
            // From its text, as a power would be off by a bit.
            format!("1e{}", finest.saturating_neg().max(coarsest).clamp(-300, 30)).parse().unwrap_or(1.0)
        }
    });
    if !(step.is_finite() && step > 0.0 && magnitude / step <= 4.0 * STEPS) {
        return wrong("step", "above 0 and no finer than the greatest value / 4194304", step);
    }
    // A bound that is not given lies at the value or on the next step outside of it.
    let on_step = |number: f64| format!("{:.*}", decimals(step), number * step).parse().unwrap_or(number * step);
    let minimum = given.minimum.unwrap_or_else(|| on_step((low / step + 1e-6).floor()));
    let span = (high - minimum) / step;
    let steps = if given.maximum.is_some() { (span + 1e-6).floor() } else { (span - 1e-6).ceil().max(1.0) };
    if !(steps.is_finite() && steps >= 1.0) {
        return wrong("maximum", "a step above the minimum at least", high);
    }
    let scale = given.standard_deviation.unwrap_or(if boolean || deviation <= 0.0 { 1.0 } else { deviation });
    if !(scale.is_finite() && scale > 0.0) {
        return wrong("standard deviation", "above 0", scale);
    }
    let grid = Grid { minimum, step, steps, scale };
    (given.minimum, given.step, given.standard_deviation) = (Some(minimum), Some(step), Some(scale));
    given.maximum = given.maximum.or(grid.text(grid.upper()).parse().ok());
    Ok(grid)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Fractions;
    use nocebo_core::Label;

    /// A table in a folder of its own, with or without a schema.
    fn table(text: &str, schema: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        fs::write(&path, text).unwrap();
        if !schema.is_empty() {
            fs::write(folder.path().join("t.schema.toml"), schema).unwrap();
        }
        (folder, path)
    }

    fn whole() -> OpenOptions {
        OpenOptions { fractions: Fractions { train: 1.0, validation: 0.0, test: 0.0 }, ..OpenOptions::default() }
    }

    fn open(text: &str, schema: &str) -> Result<Dataset, DataError> {
        read(&table(text, schema).1, Split::Train, &whole())
    }

    const PATIENTS: &str = "\u{feff}patient,sex,dose,\"lab, total\",smoker,seen,label\r\n\
        p1,f,1.5,200,yes,2020-02-29,ill\r\np2,\"m\",2.25,180,no,2020-03-01 12:00,well\r\n\
        p3,f,4.0,,no,2021-01-01,ill\r\np4,m,0.25,220,yes,2019-12-31,well\r\n";
    const SCHEMA: &str = "groups = ['sex']\n[column.sex]\ntype = 'category'\n[column.dose]\nunit = 'mg'\nminimum = 0\nmaximum = 10\n\
        step = 0.25\ndirection = 'increase'\nstandard_deviation = 2\n[column.smoker]\ntype = 'boolean'\nmutable = true\n";

    #[test]
    fn what_stands_between_quotes_separates_nothing() {
        let data = open("\"dose\t;\tin\tmg\",label\n1.5,ill\n2.5,well\n", "").unwrap();
        assert_eq!((data.domain().columns()[0].name.as_str(), data.len()), ("dose\t;\tin\tmg", 2));
        assert_eq!(likely_delimiter("\"a;\"\";\",b\"c;,\"\",\t"), b',', "two of three semicolons are between quotes");
        assert_eq!(likely_delimiter("a,b\"c;d;\"e"), b';', "a quote within a cell is none");
    }

    /// Found by fuzzing: a copy of an ARFF table whose names hold more tabs than there are columns was read in other columns.
    #[test]
    fn a_written_name_that_holds_delimiters_is_one_cell() {
        let (folder, path) = table("", "");
        let source = path.with_file_name("t.arff");
        fs::write(&source, "@data\n1.5,a\t\t\tb\n2.5,ill\n3.5,well\n").unwrap();
        let data = read(&source, Split::Train, &whole()).unwrap();
        let copy = folder.path().join("copy");
        crate::write(&copy, &data).unwrap();
        assert_eq!(crate::read_back(&copy, &data).unwrap(), *data.samples());
    }

    #[test]
    fn columns_become_channels_in_their_own_standard_deviation() {
        let data = open(PATIENTS, SCHEMA).unwrap();
        let domain = data.domain();
        let names: Vec<&str> = domain.columns().iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["sex=f", "sex=m", "dose", "lab, total", "smoker", "seen"]);
        let mutable: Vec<bool> = (0..6).map(|at| domain.is_mutable(at)).collect();
        assert_eq!(mutable, [false, false, true, true, true, false]);
        assert_eq!((domain.lower()[2], domain.upper()[2], domain.resolution()[2]), (0.0, 5.0, 0.125));
        assert_eq!((domain.columns()[2].unit.as_str(), domain.columns()[2].scale), ("mg", 2.0));
        // The line with the empty cell is left out; 200, 180 and 220 deviate by 16.33.
        assert_eq!((data.len(), data.samples().indices()), (3, &[0, 1, 3][..]));
        assert_eq!(domain.columns()[3].scale, 16.33);
        assert_eq!(data.samples().row(1)[..3], [0.0, 1.0, 1.125]);
        assert_eq!((data.samples().row(0)[4], data.samples().row(1)[4]), (1.0, 0.0));
        assert_eq!(
            (data.groups()["sex"].as_slice(), data.class_names()),
            (&["f", "m", "m"].map(String::from)[..], &["ill", "well"].map(String::from)[..])
        );
        assert_eq!(data.patients().unwrap(), ["p1", "p2", "p4"]);
        assert_eq!(data.labels()[0], Label::Class(0));
        let warnings: Vec<String> = data.warnings().iter().map(ToString::to_string).collect();
        assert!(warnings.iter().any(|text| text.starts_with("1 of 4 lines")), "{warnings:?}");
        assert!(!format!("{warnings:?}").contains("p1"));
        let median = open(PATIENTS, &format!("missing = 'median'\n{SCHEMA}")).unwrap();
        assert_eq!((median.len(), median.samples().row(2)[3] * 16.33), (4, 200.0));
    }

    #[test]
    fn only_the_cells_that_changed_differ_in_what_is_written() {
        let (folder, path) = table(PATIENTS, &format!("missing = 'median'\n{SCHEMA}"));
        let data = read(&path, Split::Train, &whole()).unwrap().select(&[2, 1]).unwrap();
        let mut samples = data.samples().clone();
        (samples.row_mut(0)[2], samples.row_mut(1)[4]) = (2.125, 1.0);
        let out = folder.path().join("out");
        crate::write(&out, &data.clone().with_samples(samples.clone()).unwrap()).unwrap();
        let written = fs::read_to_string(out.join(TABLES[0])).unwrap();
        let expected = "patient,sex,dose,\"lab, total\",smoker,seen,label\np3,f,4.25,,no,2021-01-01,ill\n\
            p2,\"m\",2.25,180,1,2020-03-01 12:00,well\n";
        assert_eq!(written, expected);
        assert_eq!(crate::read_back(&out, &data).unwrap(), samples);
        let again = crate::open_with(&out, Split::Train, &whole()).unwrap();
        assert_eq!(
            (again.domain(), again.labels(), again.class_names()),
            (data.domain(), data.labels(), data.class_names())
        );
        // A value off the grid, and one that may not change.
        for (element, value, expected) in [(2, 2.01, "cannot be stored"), (0, 0.0, "may not change")] {
            let mut wrong = data.samples().clone();
            wrong.row_mut(0)[element] = value;
            let error = crate::write(folder.path().join("no"), &data.clone().with_samples(wrong).unwrap()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(!folder.path().join("no").exists());
    }

    #[test]
    fn any_number_is_written_as_it_is_read() {
        let mut text = "a;b;c;d\n".to_owned();
        for at in 0..200 {
            let x = f64::from(at);
            text += &format!("{};{:.4};{}e-3;{}\n", 1000 - 7 * at, x * 0.0137 - 1.0, at * at, at % 2).replace('.', ",");
        }
        let (folder, path) = table(&text, "");
        let data = read(&path, Split::Train, &whole()).unwrap();
        let mut samples = data.samples().clone();
        for (row, values) in samples.rows_mut().enumerate() {
            for (element, value) in values.iter_mut().enumerate() {
                *value += (row as f32 * 0.37 + element as f32).sin();
            }
            data.domain().store(values);
        }
        let out = folder.path().join("out");
        crate::write(&out, &data.clone().with_samples(samples.clone()).unwrap()).unwrap();
        assert_eq!(crate::read_back(&out, &data).unwrap(), samples);
        assert!(fs::read_to_string(out.join(TABLES[0])).unwrap().lines().nth(1).unwrap().contains(','));
    }

    #[test]
    fn sums_are_checked() {
        let text = "a,b,label\n30,70,x\n55,45,y\n50,50,x\n10,90,y\n";
        let data = open(text, "sums = [['a', 'b']]\n").unwrap();
        assert_eq!(data.domain().columns()[1].sum, Some(0));
        let error = open(&text.replace("50,50", "50,51"), "sums = [['a', 'b']]\n").unwrap_err();
        assert!(error.to_string().contains("line 4, sum"), "{error}");
    }

    /// Row S3 of the bad inputs.
    #[test]
    fn other_dialects_are_read_and_broken_tables_refused() {
        let plain = open("a,b,label\n1.5,2,x\n3,4,y\n5.25,6,x\n", "").unwrap();
        for (same, text) in [
            ("semicolon and decimal comma", "a;b;label\n1,5;2;x\n3;4;y\n5,25;6;x\n"),
            ("tab, CRLF, blank line", "a\tb\tlabel\r\n1.5\t2\tx\r\n\r\n3\t4\ty\r\n5.25\t6\tx"),
            ("quotes and order mark", "\u{feff}\"a\",b,label\n\"1.5\", 2,\"x\"\n3,4,y\n5.25,6,x\n"),
        ] {
            assert_eq!(open(text, "").unwrap().samples(), plain.samples(), "{same}");
        }
        // Formulas are text: here classes, as they stand.
        let formula = open("a,label\n1,=1+1\n2,\"=cmd|' /C calc'!A0\"\n", "").unwrap();
        assert_eq!(formula.class_names()[0], "=1+1");
        // No header, and numbers that are labels.
        let bare = open("1,2,0\n3,4,1\n5,?,1\n7,9,0\n", "").unwrap();
        assert_eq!(
            (bare.len(), bare.class_names(), bare.domain().columns()[0].name.as_str()),
            (3, &["0", "1"].map(String::from)[..], "column1")
        );

        let wide = "1,".repeat(10_000_000);
        let good = "a,b,label\n1,2,x\n3,4,y\n";
        for (text, schema, reason) in [
            ("", "", "no sample"),
            ("a,b,label\n", "", "no sample"),
            ("label\nx\ny\n", "", "at least one more"),
            (wide.as_str(), "", "columns"),
            ("a,b,label\n1,2\n3,4,y\n", "", "line 2: expected 3 cells"),
            ("a,a,label\n1,2,x\n3,4,y\n", "", "different name"),
            ("a,b,label\n1,\"2,x\n3,4,y\n", "", "closing quote"),
            ("a,b,label\n1,2,x\n1,2,x\n", "", "can be read"),
            (good, "label = 'c'\n", "`c`"),
            (good, "lable = 'b'\n", "schema"),
            (good, "[column.c]\n", "`c`"),
            (good, "[column.b]\nmaximum = 3\n", "line 3, column `b`: expected a value from 2 to 3"),
            (good, "[column.b]\nminimum = 5\n", "a value from 5 to 6"),
            (good, "[column.b]\nstep = 0\n", "step of column `b`"),
            (good, "[column.b]\nstep = 1e-9\n", "step of column `b`"),
            (good, "[column.b]\nstandard_deviation = -1\n", "standard deviation"),
            (good, "[column.b]\ntype = 'category'\nmutable = true\n", "only numbers"),
            (good, "[column.b]\ntype = 'time'\n", "numbers"),
            (good, "[column.b]\ntype = 'category'\ncategories = ['2']\n", "line 3"),
            (good, "sums = [['a']]\n", "sum"),
            ("a,b,label\n1,x2,x\n3,4,y\n", "[column.b]\ntype = 'number'\n", "line 2, column `b`"),
            ("a,label,split\n1,x,train\n2,y,later\n", "", "train, val or test"),
        ] {
            let error = open(text, schema).unwrap_err().to_string();
            assert!(error.contains(reason), "{:?} {schema:?}: {error}", &text[..text.len().min(60)]);
        }
        let (_folder, path) = table("a,label\n1,x\n", "");
        fs::write(&path, [b'a', b',', 0xff]).unwrap();
        assert!(read(&path, Split::Train, &whole()).unwrap_err().to_string().contains("UTF-8"));
        let unit = OpenOptions { unit: Some(Unit::Millivolt), ..OpenOptions::default() };
        assert!(read(&path, Split::Train, &unit).is_err());
    }

    #[test]
    fn days_are_counted_from_1970() {
        assert_eq!(days("1970-01-01"), Some(0.0));
        for day in [-62_091, -1, 0, 59, 11_016, 11_017, 20_782, 120_894] {
            assert_eq!(days(&date(day).unwrap()), Some(day as f64), "{day}");
        }
        assert_eq!((date(-62_092), date(i64::MAX), date(11_016).as_deref()), (None, None, Some("2000-02-29")));
        assert_eq!(days("2000-03-01T12:00:00Z"), Some(11_017.5));
        assert_eq!(days("1969-12-31 06:00"), Some(-0.75));
        for wrong in ["", "2001-02-29", "2001-13-01", "2001-00-01", "2001-01-00", "2001-1", "2001-01-01 25:00", "1-2-3"]
        {
            assert_eq!(days(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn real_tables_are_read() {
        let Some(folder) = crate::formats::tests::shared("tabular-clinical") else { return };
        for (name, lines, channels, counts) in [
            ("wdbc", 569, 30, [357, 212]),
            ("breast-cancer-wisconsin", 683, 9, [444, 239]),
            ("pima-indians-diabetes", 768, 8, [500, 268]),
            ("statlog-heart", 270, 13, [150, 120]),
        ] {
            let data = read(&folder.join(format!("{name}.csv")), Split::Train, &whole()).unwrap();
            assert_eq!(
                (data.len(), data.domain().elements(), data.class_counts()),
                (lines, channels, counts.to_vec()),
                "{name}"
            );
            let statistics = data.statistics();
            let fair =
                |at: usize| !data.domain().is_mutable(at) || (statistics.standard_deviation[at] - 1.0).abs() < 0.02;
            assert!((0..channels).all(fair), "{name}: {statistics:?}");
        }
    }
}
