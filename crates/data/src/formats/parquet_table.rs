//! The columns of a Parquet file, as the text of a [table](super::table) and as they are stored.
//!
//! Read are flat columns of booleans, integers, floats, texts, dates and moments, plain or packed by Snappy or gzip; what is written
//! has the same types, not packed. An index that pandas stored (`__index_level_0__`) is left out. Refused: nested and repeated
//! columns, decimals and other types, other codings, encrypted files.
//!
//! Source: Apache Parquet format 2.12, read by the `parquet` crate.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::panic;
use std::path::Path;
use std::sync::{Arc, Once};

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{ColumnDescriptor, Type as Schema, TypePtr};

use super::parquet_pages;
use super::table::{BYTES, COLUMNS, date, quoted};
use crate::DataError;

/// Greatest number of cells: a few bytes can stand for any number of equal ones.
const CELLS: u64 = 1 << 27;
/// How the names of columns begin that hold the index of a pandas table.
const INDEX: &str = "__index_level_";

/// All columns as they are stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Columns {
    fields: Vec<TypePtr>,
    values: Vec<Values>,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    Flag(Vec<Option<bool>>),
    Integer(Vec<Option<i64>>),
    Single(Vec<Option<f32>>),
    Double(Vec<Option<f64>>),
    Text(Vec<Option<ByteArray>>),
}

/// What the stored values of a column stand for.
#[derive(Clone, Copy)]
enum Meaning {
    /// Themselves.
    Plain,
    /// Numbers from 0 of so many bits.
    Unsigned(u32),
    /// Days since 1970.
    Date,
    /// So many parts of a second since 1970.
    Moment(i64),
}

/// Reads a file of at most `cells` cells: its columns, and the same as text between commas with a line of names.
pub(super) fn read(path: &Path, file: &str, cells: u64) -> Result<(Columns, String), DataError> {
    let opened = File::open(path).map_err(DataError::reading(file))?;
    let length = opened.metadata().map_err(DataError::reading(file))?.len();
    DataError::check_limit(file, "bytes of the table", BYTES, length)?;
    let mut bytes = Vec::new();
    opened.take(length).read_to_end(&mut bytes).map_err(DataError::reading(file))?;
    // The `parquet` crate asserts what a damaged file may say otherwise.
    quietly(|| decode(bytes, file, cells)).unwrap_or_else(|| {
        Err(DataError::format(file, "Parquet table", "a whole, valid one", "one whose parts contradict each other"))
    })
}

/// What `read` returns; none where it panics, without a message of that.
fn quietly<T>(read: impl FnOnce() -> T) -> Option<T> {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |message| {
            if !QUIET.get() {
                usual(message);
            }
        }));
    });
    QUIET.set(true);
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(read));
    QUIET.set(false);
    outcome.ok()
}

fn decode(bytes: Vec<u8>, file: &str, cells: u64) -> Result<(Columns, String), DataError> {
    let broken = |error: ParquetError| DataError::format(file, "Parquet table", "a whole, valid one", error);
    let bytes = Bytes::from(bytes);
    let reader = SerializedFileReader::new(bytes.clone()).map_err(broken)?;
    let described = reader.metadata().file_metadata().schema_descr_ptr();
    DataError::check_limit(file, "columns", COLUMNS, described.num_columns() as u64)?;
    let rows = reader.metadata().row_groups().iter().map(|group| group.num_rows().max(0) as u64);
    let rows = rows.fold(0, u64::saturating_add);
    let got = rows.saturating_mul(described.num_columns() as u64);
    DataError::check_limit(file, "cells", cells.min(CELLS), got)?;

    let (mut fields, mut values, mut meanings) = (Vec::new(), Vec::new(), Vec::new());
    let mut unpacked: u64 = 0;
    for (at, column) in described.columns().iter().enumerate() {
        if column.name().starts_with(INDEX) {
            continue;
        }
        let Some(meaning) = meaning(column) else {
            let what = format!("column `{}`: a kind of column that is not read", column.name());
            return Err(DataError::refused(file, what, "store plain numbers, booleans, texts, dates or moments"));
        };
        let mut all: Option<Values> = None;
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(broken)?;
            let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
            unpacked = parquet_pages::unpacked(&bytes, group.metadata().column(at), rows as u64)
                .map_err(|got| DataError::format(file, format!("column `{}`", column.name()), "whole pages", got))?
                .saturating_add(unpacked);
            DataError::check_limit(file, "bytes of all pages", BYTES, unpacked)?;
            let part = Values::read(group.get_column_reader(at).map_err(broken)?, rows, column).map_err(broken)?;
            match &mut all {
                None => all = Some(part),
                Some(all) => all.append(part),
            }
        }
        fields.push(column.self_type_ptr());
        values.extend(all);
        meanings.push(meaning);
    }
    let mut text = fields.iter().map(|field| quoted(field.name())).collect::<Vec<_>>().join(",");
    text.push('\n');
    for row in 0..rows as usize {
        for (at, (values, meaning)) in values.iter().zip(&meanings).enumerate() {
            if at > 0 {
                text.push(',');
            }
            if values.cell(row, *meaning, &mut text).is_none() {
                let what = format!("row {}, column `{}`", row + 1, fields[at].name());
                return Err(DataError::format(file, what, "UTF-8", "other bytes"));
            }
        }
        text.push('\n');
        DataError::check_limit(file, "bytes of all cells", BYTES, text.len() as u64)?;
    }
    Ok((Columns { fields, values }, text))
}

impl Columns {
    /// The bytes of a file with these rows, in which some cells (by column) have another number.
    pub(super) fn encode(&self, rows: &[usize], changes: &[BTreeMap<usize, String>]) -> Result<Vec<u8>, String> {
        let text = |error: ParquetError| error.to_string();
        let schema = Schema::group_type_builder("schema").with_fields(self.fields.clone()).build().map_err(text)?;
        let properties = WriterProperties::builder().set_created_by("nocebo".to_owned()).build();
        let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties)).map_err(text)?;
        let mut group = writer.next_row_group().map_err(text)?;
        for (at, (field, values)) in self.fields.iter().zip(&self.values).enumerate() {
            let picked = values.picked(rows, changes, at)?;
            let Some(mut column) = group.next_column().map_err(text)? else { break };
            picked.write(&mut column, field).map_err(text)?;
            column.close().map_err(text)?;
        }
        group.close().map_err(text)?;
        writer.into_inner().map_err(text)
    }
}

impl Values {
    fn read(reader: ColumnReader, rows: usize, column: &ColumnDescriptor) -> Result<Self, ParquetError> {
        let nullable = column.max_def_level() > 0;
        match reader {
            ColumnReader::BoolColumnReader(reader) => get(reader, rows, nullable, |flag| flag).map(Self::Flag),
            ColumnReader::Int32ColumnReader(reader) => get(reader, rows, nullable, i64::from).map(Self::Integer),
            ColumnReader::Int64ColumnReader(reader) => get(reader, rows, nullable, |number| number).map(Self::Integer),
            ColumnReader::FloatColumnReader(reader) => get(reader, rows, nullable, |number| number).map(Self::Single),
            ColumnReader::DoubleColumnReader(reader) => get(reader, rows, nullable, |number| number).map(Self::Double),
            ColumnReader::ByteArrayColumnReader(reader) => get(reader, rows, nullable, |text| text).map(Self::Text),
            _ => Err(ParquetError::General("a type that is not read".to_owned())),
        }
    }

    fn append(&mut self, more: Self) {
        match (self, more) {
            (Self::Flag(all), Self::Flag(more)) => all.extend(more),
            (Self::Integer(all), Self::Integer(more)) => all.extend(more),
            (Self::Single(all), Self::Single(more)) => all.extend(more),
            (Self::Double(all), Self::Double(more)) => all.extend(more),
            (Self::Text(all), Self::Text(more)) => all.extend(more),
            // One column has one type in all groups.
            _ => {}
        }
    }

    /// Adds the text of a cell, nothing where there is no value; none where it is no text.
    fn cell(&self, row: usize, meaning: Meaning, text: &mut String) -> Option<()> {
        let number = |text: &mut String, number: i64| match meaning {
            Meaning::Plain => write!(text, "{number}"),
            Meaning::Unsigned(bits) => write!(text, "{}", number as u64 & (u64::MAX >> (64 - bits))),
            Meaning::Date => write!(text, "{}", date(number).unwrap_or_default()),
            Meaning::Moment(parts) => {
                let (seconds, rest) = (number.div_euclid(parts), number.rem_euclid(parts));
                let Some(date) = date(seconds.div_euclid(86_400)) else { return Ok(()) };
                let second = seconds.rem_euclid(86_400);
                let last = (second % 60) as f64 + rest as f64 / parts as f64;
                write!(text, "{date} {:02}:{:02}:{last}", second / 3600, second / 60 % 60)
            }
        };
        match self {
            Self::Flag(values) => values[row].map_or(Ok(()), |flag| write!(text, "{flag}")),
            Self::Integer(values) => values[row].map_or(Ok(()), |value| number(text, value)),
            Self::Single(values) => values[row].map_or(Ok(()), |number| write!(text, "{number}")),
            Self::Double(values) => values[row].map_or(Ok(()), |number| write!(text, "{number}")),
            Self::Text(values) => match &values[row] {
                None => Ok(()),
                Some(bytes) => write!(text, "{}", quoted(bytes.as_utf8().ok()?)),
            },
        }
        .ok()
    }

    /// These rows, some of which have another number in this column.
    fn picked(&self, rows: &[usize], changes: &[BTreeMap<usize, String>], column: usize) -> Result<Self, String> {
        fn pick<T: Clone>(
            values: &[Option<T>],
            rows: &[usize],
            new: &[Option<&String>],
            parse: impl Fn(&str) -> Option<T>,
        ) -> Result<Vec<Option<T>>, String> {
            let one = |(&row, new): (&usize, Option<&String>)| match new {
                None => Ok(values[row].clone()),
                Some(text) => {
                    parse(text).map(Some).ok_or_else(|| format!("{text} does not fit the type of its column"))
                }
            };
            rows.iter().zip(new.iter().copied()).map(one).collect()
        }
        let new: Vec<Option<&String>> = changes.iter().map(|cells| cells.get(&column)).collect();
        Ok(match self {
            Self::Flag(values) => Self::Flag(pick(values, rows, &new, |text| Some(text != "0"))?),
            Self::Integer(values) => Self::Integer(pick(values, rows, &new, |text| text.parse().ok())?),
            Self::Single(values) => Self::Single(pick(values, rows, &new, |text| text.parse().ok())?),
            Self::Double(values) => Self::Double(pick(values, rows, &new, |text| text.parse().ok())?),
            Self::Text(values) => Self::Text(pick(values, rows, &new, |_| None)?),
        })
    }

    fn write(&self, column: &mut SerializedColumnWriter<'_>, field: &Schema) -> Result<(), ParquetError> {
        let nullable = field.is_optional();
        match self {
            Self::Flag(values) => put::<BoolType, _>(column, values, nullable, |flag| *flag),
            Self::Integer(values) if field.get_physical_type() == Physical::INT32 => {
                put::<Int32Type, _>(column, values, nullable, |number| *number as i32)
            }
            Self::Integer(values) => put::<Int64Type, _>(column, values, nullable, |number| *number),
            Self::Single(values) => put::<FloatType, _>(column, values, nullable, |number| *number),
            Self::Double(values) => put::<DoubleType, _>(column, values, nullable, |number| *number),
            Self::Text(values) => put::<ByteArrayType, _>(column, values, nullable, Clone::clone),
        }
    }
}

fn get<D: DataType, T>(
    mut reader: ColumnReaderImpl<D>,
    rows: usize,
    nullable: bool,
    of: impl Fn(D::T) -> T,
) -> Result<Vec<Option<T>>, ParquetError> {
    let (mut levels, mut present, mut done) = (Vec::new(), Vec::new(), 0);
    while done < rows {
        let (records, ..) = reader.read_records(rows - done, Some(&mut levels), None, &mut present)?;
        if records == 0 {
            return Err(ParquetError::General(format!("expected {rows} rows in a column, got {done}")));
        }
        done += records;
    }
    let mut present = present.into_iter().map(of);
    if !nullable {
        return Ok(present.map(Some).collect());
    }
    Ok(levels.into_iter().map(|level| if level == 0 { None } else { present.next() }).collect())
}

fn put<D: DataType, T>(
    column: &mut SerializedColumnWriter<'_>,
    values: &[Option<T>],
    nullable: bool,
    of: impl Fn(&T) -> D::T,
) -> Result<(), ParquetError> {
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let present: Vec<D::T> = values.iter().flatten().map(of).collect();
    column.typed::<D>().write_batch(&present, nullable.then_some(levels.as_slice()), None).map(|_| ())
}

/// What a flat column stands for; none where it is not read.
fn meaning(column: &ColumnDescriptor) -> Option<Meaning> {
    if column.max_rep_level() > 0 || column.max_def_level() > 1 || column.path().parts().len() > 1 {
        return None;
    }
    if matches!(column.physical_type(), Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY) {
        return None;
    }
    let parts = |unit: &TimeUnit| match unit {
        TimeUnit::MILLIS => 1_000,
        TimeUnit::MICROS => 1_000_000,
        TimeUnit::NANOS => 1_000_000_000,
    };
    if let Some(logical) = column.logical_type_ref() {
        return match logical {
            LogicalType::String | LogicalType::Enum | LogicalType::Json => Some(Meaning::Plain),
            LogicalType::Date => Some(Meaning::Date),
            LogicalType::Timestamp(of) => Some(Meaning::Moment(parts(&of.unit))),
            LogicalType::Integer(of) if of.is_signed => Some(Meaning::Plain),
            LogicalType::Integer(of) if (8..=64).contains(&of.bit_width) => {
                Some(Meaning::Unsigned(of.bit_width as u32))
            }
            _ => None,
        };
    }
    // What files say that are older than logical types.
    match column.converted_type() {
        ConvertedType::DATE => Some(Meaning::Date),
        ConvertedType::TIMESTAMP_MILLIS => Some(Meaning::Moment(1_000)),
        ConvertedType::TIMESTAMP_MICROS => Some(Meaning::Moment(1_000_000)),
        ConvertedType::UINT_8 => Some(Meaning::Unsigned(8)),
        ConvertedType::UINT_16 => Some(Meaning::Unsigned(16)),
        ConvertedType::UINT_32 => Some(Meaning::Unsigned(32)),
        ConvertedType::UINT_64 => Some(Meaning::Unsigned(64)),
        ConvertedType::NONE
        | ConvertedType::UTF8
        | ConvertedType::ENUM
        | ConvertedType::JSON
        | ConvertedType::INT_8
        | ConvertedType::INT_16
        | ConvertedType::INT_32
        | ConvertedType::INT_64 => Some(Meaning::Plain),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, OpenOptions, Split};

    /// Written by pyarrow: Snappy, dictionaries, two row groups; gzip and pages of version 2; neither.
    const SEEDS: [&[u8]; 3] = [
        include_bytes!("../../../../fuzz/seeds/parquet/snappy.parquet"),
        include_bytes!("../../../../fuzz/seeds/parquet/gzip.parquet"),
        include_bytes!("../../../../fuzz/seeds/parquet/plain.parquet"),
    ];

    fn saved(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn open(path: &Path) -> Dataset {
        let fractions = crate::Fractions { train: 1.0, validation: 0.0, test: 0.0 };
        crate::open_with(path, Split::Train, &OpenOptions { fractions, ..OpenOptions::default() }).unwrap()
    }

    #[test]
    fn what_pyarrow_writes_is_read() {
        let (_folder, path) = saved(SEEDS[0]);
        let (columns, text) = read(&path, "t", 1000).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], r#""patient","sex","age","lab","dose","smoker","seen","drawn","label""#);
        assert_eq!(lines[4], r#""p1","f",43,,4.5,true,2019-04-17,2020-09-13 12:26:40.503,"ill""#);
        assert_eq!(lines[12], r#""p5",,51,2.75,12.5,false,2019-04-25,2020-09-13 12:26:40.511,"ill""#);
        assert_eq!((lines.len(), columns.fields.len()), (13, 9));
        let of = |bytes: &[u8], cells: u64| {
            let (_folder, path) = saved(bytes);
            read(&path, "t", cells).map(|(_, text)| text)
        };
        assert_eq!(of(SEEDS[1], 36).unwrap(), of(SEEDS[2], 36).unwrap());
        assert!(matches!(of(SEEDS[1], 35), Err(DataError::TooLarge { .. })), "12 rows of 3 cells");
    }

    #[test]
    fn changed_cells_are_written_and_all_others_stay_as_they_were() {
        let (folder, path) = saved(SEEDS[0]);
        std::fs::write(folder.path().join("t.schema.toml"), "missing = 'median'\n[column.age]\nmutable = true\n")
            .unwrap();
        let data = open(&path);
        assert_eq!((data.len(), data.patients().unwrap().len()), (12, 12));
        let mut samples = data.samples().clone();
        let names: Vec<&str> = data.domain().columns().iter().map(|column| column.name.as_str()).collect();
        for name in ["age", "lab", "dose"] {
            let at = names.iter().position(|other| *other == name).unwrap();
            samples.row_mut(1)[at] = samples.row(9)[at];
        }
        let changed = data.clone().with_samples(samples).unwrap().select(&[1, 3]).unwrap();
        let out = folder.path().join("out");
        crate::write(&out, &changed).unwrap();
        assert_eq!(crate::read_back(&out, &changed).unwrap(), *changed.samples());
        let (columns, text) = read(&out.join("table.parquet"), "t", 1000).unwrap();
        assert_eq!(columns.fields, read(&path, "t", 1000).unwrap().0.fields, "types are kept");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], r#""p0","m",49,2.25,10.5,false,2019-04-15,2020-09-13 12:26:40.501,"ill""#);
        assert_eq!(lines[2], r#""p1","f",43,,4.5,true,2019-04-17,2020-09-13 12:26:40.503,"ill""#);
    }

    /// Found by fuzzing: a negative place of a column is an assertion of the `parquet` crate.
    #[test]
    fn a_file_that_contradicts_itself_is_an_error_and_no_panic() {
        let mut refused = 0;
        for at in 0..SEEDS[2].len() {
            for change in [1, 0x7f, 0x80] {
                let mut bytes = SEEDS[2].to_vec();
                bytes[at] ^= change;
                let (_folder, path) = saved(&bytes);
                refused += usize::from(read(&path, "t.parquet", 1000).is_err());
            }
        }
        assert!(refused > SEEDS[2].len(), "{refused}");
        assert_eq!(quietly(|| assert!(SEEDS.is_empty())), None);
    }

    /// Found by fuzzing: nine gigabytes for three kilobytes.
    #[test]
    fn a_page_that_claims_what_it_cannot_hold_is_refused() {
        let (_folder, path) = saved(include_bytes!("../../tests/found/claim.parquet"));
        let error = read(&path, "t.parquet", 1000).unwrap_err().to_string();
        assert!(error.contains("t.parquet") && error.contains("a page"), "{error}");
    }

    #[test]
    fn cut_files_and_other_types_are_refused() {
        for seed in SEEDS {
            for length in (0..seed.len()).step_by(7) {
                let (_folder, path) = saved(&seed[..length]);
                assert!(read(&path, "t", 1000).is_err(), "{length}");
            }
        }
        let columns = Columns {
            fields: vec![Arc::new(Schema::primitive_type_builder("a", Physical::INT32).build().unwrap())],
            values: vec![Values::Integer(vec![Some(1)])],
        };
        let half = BTreeMap::from([(0, "0.5".to_owned())]);
        assert!(columns.encode(&[0], &[half]).unwrap_err().contains("does not fit"));
        let decimal = Schema::primitive_type_builder("d", Physical::INT32)
            .with_logical_type(Some(LogicalType::decimal(2, 9)))
            .with_precision(9)
            .with_scale(2)
            .build()
            .unwrap();
        let columns = Columns { fields: vec![Arc::new(decimal)], ..columns };
        let (_folder, path) = saved(&columns.encode(&[0], &[BTreeMap::new()]).unwrap());
        assert!(read(&path, "t", 1000).unwrap_err().to_string().contains("column `d`"));
    }
}
