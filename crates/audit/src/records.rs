//! Records: one row for each sample × attack × norm × epsilon, as Parquet.
//!
//! | column | meaning |
//! |---|---|
//! | `attack`, `norm`, `epsilon` | the cell; epsilon in the unit of the data |
//! | `sample`, `patient` | index in the data set; pseudonym where given |
//! | `label`, `clean_decision`, `perturbed_decision` | class, or one character a finding or class of a mask (`1` present) |
//! | `clean_overlap`, `perturbed_overlap` | masks only: positions `truth:decision:both` of each class |
//! | `in_scope`, `attacked` | whether the goal is about the sample; whether it was attacked |
//! | `claimed`, `success`, `success_stored` | said by the attack; confirmed as computed; confirmed as stored |
//! | `within_threat`, `finite` | the returned point is allowed; all numbers were finite |
//! | `clean_margin`, `perturbed_margin` | margin objective of the goal, above 0 where it is reached |
//! | `distance_l0` … `distance_linf` | from the clean sample, as computed |
//! | `queries`, `gradient_queries` | forward and backward passes |
//! | `goal_seen`, `left_bounds`, `zero_gradients`, `late_improvement` | seen while the attack ran, see [`Trace`] |
//!
//! Columns of a sample that was not attacked are null. The bytes depend on the results alone: no time, no name of a
//! machine, no compression, and one row group a cell.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nocebo_core::{Label, Norm, NotNan, Overlap, Queries};
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type as Schema;

use crate::AuditError;
use crate::cell::{Attacked, Cell, Clean, Trace};
use crate::request::{AuditData, CONTROL};

/// A column of values that may be missing.
#[derive(Clone, Debug, PartialEq)]
enum Values {
    Text(Vec<Option<String>>),
    Flag(Vec<Option<bool>>),
    Integer(Vec<Option<i64>>),
    Float(Vec<Option<f32>>),
    Double(Vec<Option<f64>>),
}

/// The samples that the cells are about.
#[derive(Clone, Copy)]
pub(crate) struct RecordSubjects<'a> {
    pub(crate) data: &'a AuditData,
    /// True labels, masks in brief.
    pub(crate) labels: &'a [Label],
    pub(crate) clean: &'a Clean,
}

/// The Parquet bytes of some cells: one row group each.
pub(crate) fn encode(subjects: RecordSubjects<'_>, cells: &[&Cell]) -> Result<Vec<u8>, AuditError> {
    write(subjects, cells).map_err(AuditError::encode("records"))
}

fn write(subjects: RecordSubjects<'_>, cells: &[&Cell]) -> Result<Vec<u8>, ParquetError> {
    let Some(first) = cells.first() else { return Ok(Vec::new()) };
    let schema = schema(&columns(subjects, first))?;
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("nocebo".to_owned())
        .set_offset_index_disabled(true)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
    for cell in cells {
        let mut group = writer.next_row_group()?;
        for (_, values) in columns(subjects, cell) {
            let Some(mut column) = group.next_column()? else { break };
            values.write(&mut column)?;
            column.close()?;
        }
        group.close()?;
    }
    writer.into_inner()
}

fn schema(columns: &[(&'static str, Values)]) -> Result<Schema, ParquetError> {
    let fields = columns.iter().map(|(name, values)| {
        let (physical, text) = match values {
            Values::Text(_) => (Physical::BYTE_ARRAY, true),
            Values::Flag(_) => (Physical::BOOLEAN, false),
            Values::Integer(_) => (Physical::INT64, false),
            Values::Float(_) => (Physical::FLOAT, false),
            Values::Double(_) => (Physical::DOUBLE, false),
        };
        let mut field = Schema::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        if text {
            field = field.with_logical_type(Some(LogicalType::String)).with_converted_type(ConvertedType::UTF8);
        }
        field.build().map(Arc::new)
    });
    Schema::group_type_builder("records").with_fields(fields.collect::<Result<_, _>>()?).build()
}

fn columns(
    RecordSubjects { data, labels: truth, clean }: RecordSubjects<'_>,
    cell: &Cell,
) -> Vec<(&'static str, Values)> {
    let samples = cell.rows.len();
    let all = |text: String| Values::Text(vec![Some(text); samples]);
    let flag = |of: fn(&Attacked) -> bool| Values::Flag(cell.rows.iter().map(|row| row.as_ref().map(of)).collect());
    let integer = |of: fn(&Attacked) -> u32| {
        Values::Integer(cell.rows.iter().map(|row| row.as_ref().map(|row| i64::from(of(row)))).collect())
    };
    let distance = |norm: Norm| {
        Values::Double(cell.rows.iter().map(|row| row.as_ref().and_then(|row| row.distance(norm))).collect())
    };
    let perturbed = cell.rows.iter().map(|row| row.as_ref().and_then(|row| row.decision.as_ref()));
    let mut columns = vec![
        ("attack", all(cell.attack.clone())),
        ("norm", all(cell.norm.to_string())),
        ("epsilon", Values::Float(vec![Some(cell.epsilon); samples])),
        ("sample", Values::Integer(data.samples.indices().iter().map(|&index| Some(index as i64)).collect())),
        (
            "patient",
            Values::Text(match &data.patients {
                Some(patients) => patients.iter().cloned().map(Some).collect(),
                None => vec![None; samples],
            }),
        ),
        ("label", labels(truth.first(), truth.iter().map(Some))),
        ("clean_decision", labels(truth.first(), clean.decisions.iter().map(Some))),
        ("perturbed_decision", labels(truth.first(), perturbed)),
        ("in_scope", Values::Flag(clean.in_scope.iter().copied().map(Some).collect())),
        ("attacked", Values::Flag(cell.rows.iter().map(|row| Some(row.is_some())).collect())),
        ("claimed", flag(|row| row.claimed)),
        ("success", flag(|row| row.success)),
        ("success_stored", flag(|row| row.success_stored)),
        ("within_threat", flag(|row| row.within_threat)),
        ("finite", flag(|row| row.finite)),
        ("clean_margin", Values::Float(clean.margins.iter().copied().map(Some).collect())),
        (
            "perturbed_margin",
            Values::Float(cell.rows.iter().map(|row| row.as_ref().and_then(|row| row.margin)).collect()),
        ),
        ("distance_l0", distance(Norm::L0)),
        ("distance_l1", distance(Norm::L1)),
        ("distance_l2", distance(Norm::L2)),
        ("distance_linf", distance(Norm::Linf)),
        ("queries", integer(|row| row.queries.forward)),
        ("gradient_queries", integer(|row| row.queries.backward)),
        ("goal_seen", flag(|row| row.trace.reached)),
        ("left_bounds", flag(|row| row.trace.left_bounds)),
        ("zero_gradients", integer(|row| row.trace.zero_gradients)),
        (
            "late_improvement",
            Values::Float(
                cell.rows.iter().map(|row| row.as_ref().and_then(|row| row.trace.late_improvement)).collect(),
            ),
        ),
    ];
    if let Some(overlaps) = &clean.overlaps {
        let perturbed = cell.rows.iter().map(|row| row.as_ref().and_then(|row| row.overlaps.as_deref()));
        columns.push((
            "clean_overlap",
            Values::Text(overlaps.iter().map(|overlaps| Some(overlaps_as_text(overlaps))).collect()),
        ));
        columns.push((
            "perturbed_overlap",
            Values::Text(perturbed.map(|overlaps| overlaps.map(overlaps_as_text)).collect()),
        ));
    }
    columns
}

fn overlaps_as_text(overlaps: &[Overlap]) -> String {
    let texts: Vec<String> =
        overlaps.iter().map(|overlap| format!("{}:{}:{}", overlap.truth, overlap.decision, overlap.both)).collect();
    texts.join(" ")
}

fn overlaps_from_text(text: &str) -> Option<Vec<Overlap>> {
    text.split(' ')
        .map(|text| {
            let mut numbers = text.split(':').map(|number| number.parse().ok());
            Some(Overlap { truth: numbers.next()??, decision: numbers.next()??, both: numbers.next()?? })
        })
        .collect()
}

/// A column of labels, all of the kind of one of them.
fn labels<'a>(kind: Option<&Label>, labels: impl Iterator<Item = Option<&'a Label>>) -> Values {
    if let Some(Label::Number(_)) = kind {
        let number = |label: &Label| if let Label::Number(number) = label { Some(**number) } else { None };
        Values::Float(labels.map(|label| label.and_then(number)).collect())
    } else if let Some(Label::Findings(_)) = kind {
        let text = |label: &Label| match label {
            Label::Findings(found) => found.iter().map(|&found| if found { '1' } else { '0' }).collect(),
            Label::Class(_) | Label::Mask(_) | Label::Number(_) => String::new(), // of one kind, and masks come in brief
        };
        Values::Text(labels.map(|label| label.map(text)).collect())
    } else {
        let class = |label: &Label| match label {
            Label::Class(class) => Some(*class as i64),
            Label::Findings(_) | Label::Mask(_) | Label::Number(_) => None,
        };
        Values::Integer(labels.map(|label| label.and_then(class)).collect())
    }
}

impl Values {
    fn write(&self, column: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        match self {
            Self::Text(values) => put::<ByteArrayType, _>(column, values, |text| ByteArray::from(text.as_str())),
            Self::Flag(values) => put::<BoolType, _>(column, values, |flag| *flag),
            Self::Integer(values) => put::<Int64Type, _>(column, values, |number| *number),
            Self::Float(values) => put::<FloatType, _>(column, values, |number| *number),
            Self::Double(values) => put::<DoubleType, _>(column, values, |number| *number),
        }
    }

    fn read(reader: ColumnReader, rows: usize) -> Result<Self, ParquetError> {
        let text = |bytes: ByteArray| bytes.as_utf8().map(str::to_owned);
        match reader {
            ColumnReader::ByteArrayColumnReader(reader) => get(reader, rows, text).map(Self::Text),
            ColumnReader::BoolColumnReader(reader) => get(reader, rows, Ok).map(Self::Flag),
            ColumnReader::Int64ColumnReader(reader) => get(reader, rows, Ok).map(Self::Integer),
            ColumnReader::FloatColumnReader(reader) => get(reader, rows, Ok).map(Self::Float),
            ColumnReader::DoubleColumnReader(reader) => get(reader, rows, Ok).map(Self::Double),
            _ => Err(ParquetError::General("a column of a type that records do not have".to_owned())),
        }
    }
}

fn put<D: DataType, T>(
    column: &mut SerializedColumnWriter<'_>,
    values: &[Option<T>],
    of: impl Fn(&T) -> D::T,
) -> Result<(), ParquetError> {
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let present: Vec<D::T> = values.iter().flatten().map(of).collect();
    column.typed::<D>().write_batch(&present, Some(&levels), None).map(|_| ())
}

fn get<D: DataType, T>(
    mut reader: ColumnReaderImpl<D>,
    rows: usize,
    of: impl Fn(D::T) -> Result<T, ParquetError>,
) -> Result<Vec<Option<T>>, ParquetError> {
    let (mut levels, mut present) = (Vec::new(), Vec::new());
    while levels.len() < rows {
        let (records, ..) = reader.read_records(rows - levels.len(), Some(&mut levels), None, &mut present)?;
        if records == 0 {
            return Err(ParquetError::General(format!("expected {rows} rows, got {}", levels.len())));
        }
    }
    let mut present = present.into_iter();
    levels.into_iter().map(|level| if level == 0 { Ok(None) } else { present.next().map(&of).transpose() }).collect()
}

/// One row group, by column name.
struct Table {
    rows: usize,
    columns: BTreeMap<String, Values>,
}

impl Table {
    fn read(group: &dyn RowGroupReader) -> Result<Self, ParquetError> {
        let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let mut columns = BTreeMap::new();
        for (place, column) in group.metadata().columns().iter().enumerate() {
            let values = Values::read(group.get_column_reader(place)?, rows)?;
            columns.insert(column.column_path().string(), values);
        }
        Ok(Self { rows, columns })
    }

    fn flag(&self, name: &str, row: usize) -> Option<bool> {
        match self.columns.get(name)? {
            Values::Flag(values) => values[row],
            _ => None,
        }
    }

    fn integer(&self, name: &str, row: usize) -> Option<i64> {
        match self.columns.get(name)? {
            Values::Integer(values) => values[row],
            _ => None,
        }
    }

    fn count(&self, name: &str, row: usize) -> Option<u32> {
        self.integer(name, row).and_then(|number| u32::try_from(number).ok())
    }

    fn float(&self, name: &str, row: usize) -> Option<f32> {
        match self.columns.get(name)? {
            Values::Float(values) => values[row],
            _ => None,
        }
    }

    fn double(&self, name: &str, row: usize) -> Option<f64> {
        match self.columns.get(name)? {
            Values::Double(values) => values[row],
            _ => None,
        }
    }

    fn text(&self, name: &str, row: usize) -> Option<&str> {
        match self.columns.get(name)? {
            Values::Text(values) => values[row].as_deref(),
            _ => None,
        }
    }

    fn label(&self, name: &str, row: usize) -> Option<Label> {
        match self.columns.get(name)? {
            Values::Integer(values) => values[row].and_then(|class| usize::try_from(class).ok()).map(Label::Class),
            Values::Float(values) => values[row].and_then(|number| NotNan::new(number).ok()).map(Label::Number),
            Values::Text(values) => {
                values[row].as_ref().map(|found| Label::Findings(found.bytes().map(|found| found == b'1').collect()))
            }
            _ => None,
        }
    }

    fn attacked(&self, row: usize) -> Option<Attacked> {
        let norms = ["distance_l0", "distance_l1", "distance_l2", "distance_linf"];
        let distances = norms.map(|name| self.double(name, row));
        Some(Attacked {
            claimed: self.flag("claimed", row)?,
            within_threat: self.flag("within_threat", row)?,
            finite: self.flag("finite", row)?,
            success: self.flag("success", row)?,
            success_stored: self.flag("success_stored", row)?,
            decision: self.label("perturbed_decision", row),
            overlaps: self.text("perturbed_overlap", row).and_then(overlaps_from_text),
            margin: self.float("perturbed_margin", row),
            distances: match distances {
                [Some(l0), Some(l1), Some(l2), Some(linf)] => Some([l0, l1, l2, linf]),
                _ => None,
            },
            queries: Queries { forward: self.count("queries", row)?, backward: self.count("gradient_queries", row)? },
            trace: Trace {
                reached: self.flag("goal_seen", row)?,
                left_bounds: self.flag("left_bounds", row)?,
                zero_gradients: self.count("zero_gradients", row)?,
                late_improvement: self.float("late_improvement", row),
            },
        })
    }

    fn cell(&self) -> Option<Cell> {
        let attack = self.text("attack", 0)?.to_owned();
        Some(Cell {
            control: attack == CONTROL,
            norm: self.text("norm", 0)?.parse().ok()?,
            epsilon: self.float("epsilon", 0)?,
            rows: (0..self.rows)
                .map(|row| if self.flag("attacked", row)? { self.attacked(row).map(Some) } else { Some(None) })
                .collect::<Option<_>>()?,
            attack,
        })
    }
}

/// The cells in Parquet bytes that [`encode`] made; an error text where they hold something else.
pub(crate) fn decode(bytes: Vec<u8>) -> Result<Vec<Cell>, String> {
    let read = || -> Result<Vec<Option<Cell>>, ParquetError> {
        let reader = SerializedFileReader::new(Bytes::from(bytes))?;
        (0..reader.num_row_groups())
            .map(|group| Table::read(reader.get_row_group(group)?.as_ref()).map(|table| table.cell()))
            .collect()
    };
    let cells = read().map_err(|error| error.to_string())?;
    cells.into_iter().collect::<Option<_>>().ok_or_else(|| "a column is missing or has another type".to_owned())
}

/// What records say about each sample, over all attacks.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) samples: BTreeMap<u64, JudgedSample>,
}

#[derive(Debug)]
pub(crate) struct JudgedSample {
    pub(crate) label: Option<Label>,
    pub(crate) in_scope: bool,
    /// In scope, and right without an attack.
    pub(crate) standing: bool,
    /// Norm and budget of every attack but the control that brought it down.
    fell: Vec<(Norm, f32)>,
}

impl JudgedSample {
    /// Whether it fell at this budget or a smaller one of the norm.
    pub(crate) fn fell_by(&self, (norm, epsilon): (Norm, f32)) -> bool {
        self.fell.iter().any(|(of, at)| *of == norm && *at <= epsilon)
    }
}

/// Reads back what [`encode`] made, by sample.
pub(crate) fn judged(bytes: Vec<u8>) -> Result<Judged, String> {
    let read = || -> Result<Judged, ParquetError> {
        let reader = SerializedFileReader::new(Bytes::from(bytes))?;
        let mut judged = Judged::default();
        for group in 0..reader.num_row_groups() {
            let table = Table::read(reader.get_row_group(group)?.as_ref())?;
            let missing = || ParquetError::General("a column is missing or has another type".to_owned());
            let cell = table.cell().ok_or_else(missing)?;
            for (row, attacked) in cell.rows.iter().enumerate() {
                let sample = table.integer("sample", row).ok_or_else(missing)? as u64;
                let known = judged.samples.entry(sample).or_insert_with(|| JudgedSample {
                    label: table.label("label", row),
                    in_scope: table.flag("in_scope", row).unwrap_or(false),
                    standing: false,
                    fell: Vec::new(),
                });
                let Some(attacked) = attacked else { continue };
                known.standing = true;
                if attacked.fell() && !cell.control {
                    known.fell.push((cell.norm, cell.epsilon));
                }
            }
        }
        Ok(judged)
    };
    read().map_err(|error| error.to_string())
}

/// A sample without an attack, as records hold it.
#[derive(Debug)]
pub(crate) struct RecordedSample {
    pub(crate) index: u64,
    pub(crate) patient: Option<String>,
    pub(crate) label: Label,
    pub(crate) decision: Label,
    pub(crate) in_scope: bool,
    /// In scope, and the goal not reached without an attack.
    pub(crate) standing: bool,
}

/// The samples of records that [`encode`] made, in order.
pub(crate) fn samples(bytes: Vec<u8>) -> Result<Vec<RecordedSample>, String> {
    let read = || -> Result<Option<Vec<RecordedSample>>, ParquetError> {
        let reader = SerializedFileReader::new(Bytes::from(bytes))?;
        let mut samples: Vec<RecordedSample> = Vec::new();
        for group in 0..reader.num_row_groups() {
            let table = Table::read(reader.get_row_group(group)?.as_ref())?;
            let sample = |row: usize| {
                Some(RecordedSample {
                    index: u64::try_from(table.integer("sample", row)?).ok()?,
                    patient: table.text("patient", row).map(str::to_owned),
                    label: table.label("label", row)?,
                    decision: table.label("clean_decision", row)?,
                    in_scope: table.flag("in_scope", row)?,
                    standing: false,
                })
            };
            if group == 0 {
                let Some(found) = (0..table.rows).map(sample).collect() else { return Ok(None) };
                samples = found;
            }
            // Of a cascade only the first attack is run on all of them.
            for (row, sample) in samples.iter_mut().enumerate().take(table.rows) {
                sample.standing |= table.flag("attacked", row).unwrap_or(false);
            }
        }
        Ok(Some(samples))
    };
    let samples = read().map_err(|error| error.to_string())?;
    samples.ok_or_else(|| "a column is missing or has another type".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy;
    use parquet::record::RowAccessor;

    fn cells(multi_label: bool, masks: bool) -> (AuditData, Clean, Vec<Cell>) {
        let overlaps = masks.then(|| vec![Overlap { truth: 3, decision: 1, both: 0 }, Overlap::default()]);
        let mut data = toy::data(&[100.0, 150.0, 160.0]);
        data.patients = Some(["p1", "p2", "p2"].map(str::to_owned).to_vec());
        let label = |text: &str| {
            if multi_label {
                Label::Findings(text.bytes().map(|byte| byte == b'1').collect())
            } else {
                Label::Class(text.len())
            }
        };
        data.labels = vec![label("01"), label("11"), label("0")];
        let clean = Clean {
            decisions: data.labels.clone(),
            overlaps: overlaps.clone().map(|overlaps| vec![overlaps; 3]),
            margins: vec![-1.0, -0.1, 2.0],
            in_scope: vec![true; 3],
            standing: vec![true, true, false],
        };
        let fallen = Attacked {
            claimed: true,
            within_threat: true,
            finite: true,
            success: true,
            success_stored: false,
            decision: Some(label("11")),
            overlaps,
            margin: Some(0.5),
            distances: Some([4.0, 8.0, 4.0, 2.0]),
            queries: Queries { forward: 7, backward: 3 },
            trace: Trace { reached: true, left_bounds: false, zero_gradients: 2, late_improvement: Some(0.25) },
        };
        let broken = Attacked {
            finite: false,
            decision: None,
            overlaps: None,
            margin: None,
            distances: None,
            trace: Trace::default(),
            ..fallen.clone()
        };
        let cell = |attack: &str, epsilon, rows| Cell {
            attack: attack.to_owned(),
            control: attack == CONTROL,
            norm: Norm::L2,
            epsilon,
            rows,
        };
        let cells = vec![
            cell("pgd", 0.1, vec![Some(fallen.clone()), Some(broken), None]),
            cell(CONTROL, 4.0, vec![None, Some(fallen), None]),
        ];
        (data, clean, cells)
    }

    #[test]
    fn cells_come_back_as_they_were() {
        for (multi_label, masks) in [(false, false), (true, false), (true, true)] {
            let (data, clean, cells) = cells(multi_label, masks);
            let subjects = RecordSubjects { data: &data, labels: &data.labels, clean: &clean };
            let bytes = encode(subjects, &cells.iter().collect::<Vec<_>>()).unwrap();
            assert_eq!(bytes, encode(subjects, &cells.iter().collect::<Vec<_>>()).unwrap());
            assert_eq!(decode(bytes.clone()).unwrap(), cells);
            assert!(decode(bytes[..bytes.len() / 2].to_vec()).is_err());
        }
        assert!(decode(Vec::new()).is_err());
    }

    #[test]
    fn any_reader_finds_the_documented_columns() {
        let (data, clean, cells) = cells(true, true);
        let bytes = encode(
            RecordSubjects { data: &data, labels: &data.labels, clean: &clean },
            &cells.iter().collect::<Vec<_>>(),
        )
        .unwrap();
        let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 6);
        let names: Vec<&String> = rows[0].get_column_iter().map(|(name, _)| name).collect();
        let at = |name: &str| names.iter().position(|known| *known == name).unwrap();
        assert_eq!(rows[0].get_string(at("attack")).unwrap(), "pgd");
        assert_eq!(rows[0].get_float(at("epsilon")).unwrap(), 0.1);
        assert_eq!(rows[1].get_long(at("sample")).unwrap(), 101);
        assert_eq!(rows[1].get_string(at("patient")).unwrap(), "p2");
        assert_eq!(rows[0].get_string(at("perturbed_decision")).unwrap(), "11");
        assert_eq!(rows[0].get_string(at("perturbed_overlap")).unwrap(), "3:1:0 0:0:0");
        assert_eq!(rows[0].get_double(at("distance_l1")).unwrap(), 8.0);
        assert!(!rows[2].get_bool(at("attacked")).unwrap());
        assert!(rows[2].get_bool(at("success")).is_err());
        let documented = include_str!("records.rs");
        let header: String = documented.lines().take_while(|line| line.starts_with("//!")).collect();
        for name in names {
            assert!(header.contains(&format!("`{name}`")) || name.starts_with("distance_"), "{name} is not documented");
        }
    }
}
