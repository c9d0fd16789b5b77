//! A folder of PNG, JPEG or TIFF pictures, with a `labels.csv` or one folder a class; written back as PNG, as TIFF where all
//! were that.
//!
//! Pictures with masks have a layout of their own, see [`masks`]. Of others three layouts are read:
//!
//! - `labels.csv` in the folder, with a header line. Columns, in any order and case: `file` (a path inside the folder),
//!   then `label` (a class name or number) or several `finding:NAME` columns of 0 and 1, and as wanted `split` and
//!   `patient`. Further columns are kept as subgroups. Comma or semicolon, UTF-8, with or without byte-order mark,
//!   quotes as usual; cells are text and never evaluated.
//! - one folder a class, named as the class.
//! - `train`, `val` and `test` folders, each with one folder a class.
//!
//! Without a split, one is drawn by [`assign`]: stratified, seeded, whole patients only. All pictures
//! of a data set have one size, number of channels and depth: resizing belongs to the model. Hidden files are ignored,
//! other files that are no pictures are left out with a warning. 8-bit pictures have grey levels 0 to 255, 16-bit
//! pictures 0 to 65535 unless bounds are given. Samples are numbered by their place in the sorted list of files (lines
//! of the table), over all splits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Component, Path};

use nocebo_core::{Domain, DomainConfig, Field, Label, Samples, Unit};

use super::labels::named;
use super::masks;
use super::picture::{self, Kind, Picture};
use crate::dataset::Origin;
use crate::split::{assign, shared_patients};
use crate::{DataError, Dataset, OpenOptions, Split, Warning};

pub(super) const TABLE: &str = "labels.csv";
const FINDING: &str = "finding:";
/// Greatest size of the table of labels in bytes.
const TABLE_BYTES: u64 = 256 << 20;
/// Greatest number of columns of the table of labels.
const COLUMNS: usize = 1024;

/// All pictures of a folder before they are read, one entry a picture in each list.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) files: Vec<String>,
    pub(super) labels: Vec<Label>,
    pub(super) class_names: Vec<String>,
    pub(super) splits: Option<Vec<Split>>,
    pub(super) patients: Option<Vec<String>>,
    pub(super) groups: BTreeMap<String, Vec<String>>,
    pub(super) warnings: Vec<Warning>,
}

impl Listing {
    /// One file that has no label.
    pub(super) fn of_one(file: &str) -> Self {
        Self {
            files: vec![file.to_owned()],
            labels: vec![Label::Class(0)],
            class_names: vec![String::new(); 2],
            splits: Some(vec![Split::Test]),
            ..Self::default()
        }
    }

    /// The rows of a split: as the listing says, with a warning where patients are in two of them, or else drawn.
    pub(super) fn rows_of(
        &mut self,
        folder: &str,
        split: Split,
        options: &OpenOptions,
    ) -> Result<Vec<usize>, DataError> {
        let patients = self.patients.as_deref();
        let splits = match self.splits.take() {
            Some(splits) => {
                self.warnings.extend(patient_warnings(&splits, patients));
                splits
            }
            None => assign(&self.labels, patients, options.fractions, options.seed)?,
        };
        let rows: Vec<usize> = (0..splits.len()).filter(|&row| splits[row] == split).collect();
        if rows.is_empty() {
            return Err(DataError::Empty { file: folder.to_owned(), split: split.to_string() });
        }
        Ok(rows)
    }

    /// The data set of these rows, with their values one after the other.
    pub(super) fn dataset(
        self,
        (folder, split): (&str, Split),
        rows: &[usize],
        values: Vec<f32>,
        domain: Domain,
    ) -> Result<Dataset, DataError> {
        let samples =
            Samples::new(values, domain.shape())?.with_indices(rows.iter().map(|&row| row as u64).collect())?;
        let labels = rows.iter().map(|&row| self.labels[row].clone()).collect();
        let source = format!("{folder}, {split} split");
        let mut data = Dataset::new(source, samples, labels, self.class_names, domain)?.warned(self.warnings);
        let pick = |column: &Vec<String>| rows.iter().map(|&row| column[row].clone()).collect();
        if let Some(patients) = &self.patients {
            data = data.with_patients(pick(patients))?;
        }
        for (name, column) in &self.groups {
            data = data.with_group(name, pick(column))?;
        }
        Ok(data)
    }
}

/// Reads one split.
///
/// # Errors
///
/// When the layout is none of the three, the table or a label is unusable, a file lies outside the folder or cannot be
/// read (unless `skip_unreadable` is set), pictures differ in size, channels or depth, or the split is empty.
pub fn read(path: &Path, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    let folder = super::file_name(path);
    let mut listing = if path.join(TABLE).is_file() {
        list_table(path, options)?
    } else {
        list_class_folders(path, &folder, options)?
    };
    if listing.files.is_empty() {
        return Err(DataError::Empty { file: folder, split: split.to_string() });
    }
    let rows = listing.rows_of(&folder, split, options)?;
    read_pictures(path, &folder, split, listing, rows, options)
}

pub(super) fn patient_warnings(splits: &[Split], patients: Option<&[String]>) -> Vec<Warning> {
    let Some(patients) = patients else { return Vec::new() };
    let of = |wanted: Split| -> Vec<&String> {
        splits.iter().zip(patients).filter(|(split, _)| **split == wanted).map(|(_, patient)| patient).collect()
    };
    let pairs = [(Split::Train, Split::Validation), (Split::Train, Split::Test), (Split::Validation, Split::Test)];
    pairs.into_iter().filter_map(|pair| shared_patients(pair, &of(pair.0), &of(pair.1))).collect()
}

pub(super) fn read_pictures(
    path: &Path,
    folder: &str,
    split: Split,
    mut listing: Listing,
    rows: Vec<usize>,
    options: &OpenOptions,
) -> Result<Dataset, DataError> {
    let mut values = Vec::new();
    let mut first: Option<(usize, [usize; 3], u8)> = None;
    let mut kind = Kind::Tiff;
    let mut kept = Vec::with_capacity(rows.len());
    for row in rows {
        let file = &listing.files[row];
        let picture = match picture::read(&path.join(file), file, options.limits.pixels) {
            Ok(picture) => picture,
            Err(error) if options.skip_unreadable => {
                let reason = match &error {
                    DataError::Read { source, .. } => source.to_string(),
                    _ => error.to_string(),
                };
                listing.warnings.push(Warning::SkippedFile { file: file.clone(), reason });
                continue;
            }
            Err(error) => return Err(error),
        };
        let &mut (like, shape, bits) = first.get_or_insert((row, picture.shape, picture.bits));
        if (shape, bits) != (picture.shape, picture.bits) {
            let describe = |shape: [usize; 3], bits: u8| format!("{shape:?} of {bits} bits");
            let expected = format!("{}, as `{}` has", describe(shape, bits), listing.files[like]);
            let got = format!("{}; give all pictures one size and type", describe(picture.shape, picture.bits));
            return Err(DataError::format(file, "[channels, height, width] of the picture", expected, got));
        }
        let total = (values.len() + picture.values.len()) as u64;
        DataError::check_limit(folder, "values of all pictures", options.limits.values, total)?;
        if picture.kind != Kind::Tiff {
            kind = Kind::Png;
        }
        append(&mut values, picture);
        kept.push(row);
    }
    let Some((_, shape, bits)) = first else {
        return Err(DataError::Empty { file: folder.to_owned(), split: split.to_string() });
    };
    let domain = domain_of(shape, bits, options)?;
    Ok(listing.dataset((folder, split), &kept, values, domain)?.with_origin(Origin::Pictures(kind)))
}

/// What the values of pictures mean.
pub(super) fn domain_of(shape: [usize; 3], bits: u8, options: &OpenOptions) -> Result<Domain, DataError> {
    let bounds = options.bounds_or((0.0, if bits == 16 { 65535.0 } else { 255.0 }))?;
    let config = DomainConfig {
        shape: shape.to_vec(),
        unit: options.unit.clone().unwrap_or(Unit::GreyLevel),
        lower: Field::Uniform(bounds.0),
        upper: Field::Uniform(bounds.1),
        resolution: Field::Uniform(1.0),
        region: None,
    };
    Ok(config.try_into()?)
}

fn append(values: &mut Vec<f32>, picture: Picture) {
    if values.is_empty() {
        *values = picture.values;
    } else {
        values.extend(picture.values);
    }
}

/// Names of the entries of a folder in byte order, without hidden ones: folders, then files.
pub(super) fn entries(path: &Path, folder: &str) -> Result<(Vec<String>, Vec<String>), DataError> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path).map_err(DataError::reading(folder))? {
        let entry = entry.map_err(DataError::reading(folder))?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(DataError::format(folder, "name of a file in it", "UTF-8", "other bytes; rename the file"));
        };
        if name.starts_with('.') {
            continue;
        }
        // Follows links, as data sets are often assembled from links.
        let metadata = fs::metadata(entry.path()).map_err(DataError::reading(&name))?;
        if metadata.is_dir() { folders.push(name) } else { files.push(name) }
    }
    folders.sort_unstable();
    files.sort_unstable();
    Ok((folders, files))
}

fn list_class_folders(path: &Path, folder: &str, options: &OpenOptions) -> Result<Listing, DataError> {
    let (folders, files) = entries(path, folder)?;
    let layout = "labels.csv, one folder a class, or train, val and test folders with one folder a class each";
    if folders.is_empty() {
        return Err(DataError::format(folder, "layout of the folder", layout, format!("{} files", files.len())));
    }
    let splits: Vec<Split> = folders.iter().filter_map(|name| Split::parse(name)).collect();
    if splits.iter().collect::<BTreeSet<_>>().len() < splits.len() {
        return Err(DataError::format(folder, "layout of the folder", "one folder a split", "two for one split"));
    }
    let mut listing = Listing::default();
    let mut texts = Vec::new();
    if splits.len() == folders.len() {
        let mut of_file = Vec::new();
        for (name, split) in folders.iter().zip(splits) {
            let (classes, _) = entries(&path.join(name), name)?;
            if classes.is_empty() {
                return Err(DataError::format(name, "layout of the folder", "one folder a class", "no folder"));
            }
            for class in classes {
                list_pictures(path, &format!("{name}/{class}"), &class, &mut listing, &mut texts)?;
            }
            of_file.resize(listing.files.len(), split);
        }
        listing.splits = Some(of_file);
    } else {
        for class in &folders {
            list_pictures(path, class, class, &mut listing, &mut texts)?;
        }
    }
    (listing.labels, listing.class_names) = named(folder, &texts, options)?;
    Ok(listing)
}

/// Adds the pictures in the folder of one class.
fn list_pictures(
    path: &Path,
    folder: &str,
    class: &str,
    listing: &mut Listing,
    texts: &mut Vec<String>,
) -> Result<(), DataError> {
    let (folders, files) = entries(&path.join(folder), folder)?;
    if let Some(inner) = folders.first() {
        return Err(DataError::format(folder, "content of a class folder", "pictures", format!("a folder `{inner}`")));
    }
    let before = listing.files.len();
    for name in files {
        let file = format!("{folder}/{name}");
        if picture::has_picture_name(&name) {
            listing.files.push(file);
            texts.push(class.to_owned());
        } else {
            listing.warnings.push(Warning::SkippedFile { file, reason: "not named as PNG, JPEG or TIFF".to_owned() });
        }
    }
    if listing.files.len() == before {
        return Err(DataError::format(folder, "content of a class folder", "PNG, JPEG or TIFF pictures", "none"));
    }
    Ok(())
}

/// The columns of a table by their meaning.
#[derive(Default)]
struct Columns {
    file: Option<usize>,
    label: Option<usize>,
    split: Option<usize>,
    patient: Option<usize>,
    findings: Vec<(usize, String)>,
    groups: Vec<(usize, String)>,
}

impl Columns {
    fn parse(header: &csv::StringRecord) -> Result<Self, DataError> {
        let mut columns = Self::default();
        let mut names = BTreeSet::new();
        for (at, name) in header.iter().enumerate() {
            let name = name.trim();
            let lower = name.to_ascii_lowercase();
            if name.is_empty() || !names.insert(lower.clone()) {
                return Err(DataError::format(
                    TABLE,
                    "header",
                    "a different name for each column",
                    format!("`{name}`"),
                ));
            }
            match lower.as_str() {
                "file" => columns.file = Some(at),
                "label" => columns.label = Some(at),
                "split" => columns.split = Some(at),
                "patient" => columns.patient = Some(at),
                _ if lower.starts_with(FINDING) => columns.findings.push((at, name[FINDING.len()..].trim().to_owned())),
                _ => columns.groups.push((at, name.to_owned())),
            }
        }
        if columns.file.is_none() || columns.label.is_some() != columns.findings.is_empty() {
            let expected = "the column `file`, and either `label` or columns `finding:NAME`";
            return Err(DataError::format(TABLE, "header", expected, format!("{} other columns", names.len())));
        }
        Ok(columns)
    }
}

/// What the table in the folder says.
pub(super) fn list_table(path: &Path, options: &OpenOptions) -> Result<Listing, DataError> {
    let reading = |source| DataError::Read { file: TABLE.to_owned(), source };
    let table = File::open(path.join(TABLE)).map_err(reading)?;
    let length = table.metadata().map_err(reading)?.len();
    DataError::check_limit(TABLE, "bytes of the table", TABLE_BYTES, length)?;
    let mut text = String::new();
    table.take(length).read_to_string(&mut text).map_err(reading)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let header = text.lines().next().unwrap_or_default();
    let delimiter = if header.contains(';') && !header.contains(',') { b';' } else { b',' };
    DataError::check_limit(
        TABLE,
        "columns",
        COLUMNS as u64,
        header.bytes().filter(|&b| b == delimiter).count() as u64,
    )?;

    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
    let broken =
        |error: csv::Error| DataError::format(TABLE, "table", "as many cells in each line as in the header", error);
    let columns = Columns::parse(reader.headers().map_err(broken)?)?;
    let mut listing = Listing::default();
    let (mut texts, mut splits, mut patients, mut findings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (line, record) in reader.records().enumerate() {
        let record = record.map_err(broken)?;
        let cell = |at: Option<usize>| at.and_then(|at| record.get(at)).map(str::trim);
        let place = || format!("line {} of the table", line + 2);
        let file = cell(columns.file).unwrap_or_default();
        listing.files.push(checked_path(file, &place())?);
        if let Some(text) = cell(columns.label) {
            if text.is_empty() {
                return Err(DataError::format(TABLE, place(), "a label", "an empty cell"));
            }
            texts.push(text.to_owned());
        }
        if !columns.findings.is_empty() {
            let flags = columns.findings.iter().map(|(at, name)| match cell(Some(*at)) {
                Some("0") => Ok(false),
                Some("1") => Ok(true),
                _ => Err(DataError::format(TABLE, place(), format!("0 or 1 as finding `{name}`"), "another cell")),
            });
            findings.push(Label::Findings(flags.collect::<Result<_, _>>()?));
        }
        if let Some(text) = cell(columns.split) {
            let split = Split::parse(text);
            splits.push(split.ok_or_else(|| DataError::format(TABLE, place(), "the split train, val or test", text))?);
        }
        if let Some(text) = cell(columns.patient) {
            if text.is_empty() {
                return Err(DataError::format(TABLE, place(), "a patient key", "an empty cell"));
            }
            patients.push(text.to_owned());
        }
        for (at, name) in &columns.groups {
            let value = cell(Some(*at)).unwrap_or_default().to_owned();
            listing.groups.entry(name.clone()).or_default().push(value);
        }
    }
    let distinct: BTreeSet<&String> = listing.files.iter().collect();
    if distinct.len() < listing.files.len() {
        let got = format!("{} files in {} lines", distinct.len(), listing.files.len());
        return Err(DataError::format(TABLE, "column `file`", "each file once", got));
    }
    listing.splits = columns.split.map(|_| splits);
    listing.patients = columns.patient.map(|_| patients);
    if columns.findings.is_empty() {
        (listing.labels, listing.class_names) = named(TABLE, &texts, options)?;
    } else {
        listing.labels = findings;
        listing.class_names = columns.findings.into_iter().map(|(_, name)| name).collect();
    }
    Ok(listing)
}

/// Refuses paths that leave the folder.
fn checked_path(file: &str, place: &str) -> Result<String, DataError> {
    let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if file.is_empty() || !inside || file.contains('\\') {
        return Err(DataError::format(TABLE, place, "a path inside the folder, with `/`", format!("`{file}`")));
    }
    Ok(file.to_owned())
}

/// Writes the samples as pictures (TIFF where they were read from such, else PNG) with a `labels.csv` into the new folder `path`, under a temporary name until it
/// is complete.
///
/// Masks are written as [`masks`] says. Pictures have 8 bits when the domain ends at 255 or below, else 16. They are named by the index of the sample.
///
/// # Errors
///
/// When samples are no images with 1 or 3 channels, the domain is not one of whole numbers from 0 to at most 65535, a
/// value is not a whole number inside the bounds, or the folder exists or cannot be written.
pub fn write(path: &Path, data: &Dataset) -> Result<(), DataError> {
    if data.is_segmentation() {
        return masks::write(path, data);
    }
    let pictures = encoded(data)?;
    super::write_new_folder(path, |folder| {
        for (name, bytes) in &pictures {
            super::write_new_file(&folder.join(name), |writer| writer.write_all(bytes))?;
        }
        let names: Vec<String> = pictures.iter().map(|(name, _)| name.clone()).collect();
        write_table(folder, data, &names)
    })
}

/// Writes the `labels.csv` of the samples, which lie in files of these names.
pub(crate) fn write_table(folder: &Path, data: &Dataset, names: &[String]) -> Result<(), DataError> {
    write_lines(&folder.join(TABLE), data, names).map_err(|error| DataError::Write {
        file: TABLE.to_owned(),
        source: match error.into_kind() {
            csv::ErrorKind::Io(source) => source,
            _ => std::io::Error::other("a line with a different number of cells"),
        },
    })
}

/// The samples that were written into `path`, row by row.
pub(crate) fn read_back(path: &Path, data: &Dataset) -> Result<Samples, DataError> {
    let folder = if data.is_segmentation() { path.join(masks::IMAGES) } else { path.to_owned() };
    let mut values = Vec::with_capacity(data.samples().values().len());
    for &index in data.samples().indices() {
        let name = picture_name(index, data.picture_kind());
        values.extend(picture::read(&folder.join(&name), &name, u64::MAX)?.values);
    }
    Ok(Samples::new(values, data.samples().shape())?)
}

/// Name and bytes of the picture of each sample.
pub(super) fn encoded(data: &Dataset) -> Result<Vec<(String, Vec<u8>)>, DataError> {
    let samples = data.samples();
    let &[channels @ (1 | 3), height, width] = samples.shape() else {
        let shape = format!("{:?}", samples.shape());
        return Err(nocebo_core::Error::mismatch("shape of a picture", "[1 or 3, height, width]", shape).into());
    };
    let Some(bits) = super::grey_bits(data.domain()) else {
        let reason = "only whole numbers from 0 to 65535 can be pictures; write another format";
        return Err(nocebo_core::Error::unsupported("a picture of this domain", reason).into());
    };
    (0..samples.len())
        .map(|row| {
            let name = picture_name(samples.indices()[row], data.picture_kind());
            let values = on_grid(row, samples.row(row), data.domain(), bits)?;
            let bytes = picture::encode(data.picture_kind(), [channels, height, width], bits, &values)
                .map_err(DataError::writing(&name))?;
            Ok((name, bytes))
        })
        .collect()
}

pub(super) fn picture_name(index: u64, kind: Kind) -> String {
    format!("{index:06}.{}", if kind == Kind::Tiff { "tif" } else { "png" })
}

fn on_grid(sample: usize, row: &[f32], domain: &Domain, bits: u8) -> Result<Vec<u16>, DataError> {
    let storage = if bits == 16 { "in 16 bits" } else { "in 8 bits" };
    let mut rounded = row.to_vec();
    domain.store(&mut rounded);
    match (0..row.len()).find(|&element| row[element] != rounded[element]) {
        Some(element) => Err(DataError::OffGrid { sample, element, value: row[element], storage }),
        None => Ok(rounded.into_iter().map(|value| value as u16).collect()),
    }
}

fn write_lines(path: &Path, data: &Dataset, names: &[String]) -> Result<(), csv::Error> {
    let file = File::create_new(path)?;
    let mut writer = csv::Writer::from_writer(BufWriter::new(&file));
    let mut header = vec!["file".to_owned()];
    if data.is_multi_label() {
        header.extend(data.class_names().iter().map(|name| format!("{FINDING}{name}")));
    } else {
        header.push("label".to_owned());
    }
    header.extend(data.patients().map(|_| "patient".to_owned()));
    header.extend(data.groups().keys().cloned());
    writer.write_record(&header)?;
    for (row, label) in data.labels().iter().enumerate() {
        let mut cells = vec![names[row].clone()];
        match label {
            Label::Class(class) => cells.push(data.class_names()[*class].clone()),
            Label::Findings(findings) => cells.extend(findings.iter().map(|&f| u8::from(f).to_string())),
            Label::Mask(_) => cells.push(String::new()), // written as pictures
            Label::Number(number) => cells.push(number.to_string()),
        }
        cells.extend(data.patients().map(|patients| patients[row].clone()));
        cells.extend(data.groups().values().map(|column| column[row].clone()));
        writer.write_record(&cells)?;
    }
    writer.flush()?;
    drop(writer);
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    /// A folder of flat 2 x 1 pictures with the given names and levels, and a table.
    fn folder(pictures: &[(&str, u8)], table: Option<&str>) -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        fs::create_dir(&path).unwrap();
        for (name, level) in pictures {
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let writer = File::create(file).unwrap();
            picture::write_png(writer, [1, 2, 1], 8, &[u16::from(*level); 2]).unwrap();
        }
        if let Some(table) = table {
            fs::write(path.join(TABLE), table).unwrap();
        }
        (parent, path)
    }

    fn levels(data: &Dataset) -> Vec<f32> {
        data.samples().rows().map(|row| row[0]).collect()
    }

    #[test]
    fn pictures_of_tiff_come_back_as_tiff_and_mixed_ones_as_png() {
        let (_parent, path) = folder(&[], Some("file,label\na.tif,0\nb.TIFF,1\nc.tif,0\nd.tif,1\n"));
        let shape = [3, 1, 2];
        for (at, name) in (0..).zip(["a.tif", "b.TIFF", "c.tif", "d.tif"]) {
            let values: Vec<u16> = (0..6).map(|value| 9000 * value + at).collect();
            fs::write(path.join(name), picture::encode(Kind::Tiff, shape, 16, &values).unwrap()).unwrap();
        }
        let all = crate::Fractions { train: 1.0, validation: 0.0, test: 0.0 };
        let options = OpenOptions { fractions: all, ..OpenOptions::default() };
        let open = || crate::open_with(&path, Split::Train, &options).unwrap();
        let data = open();
        assert_eq!(data.samples().row(1)[..2], [1.0, 9001.0]);
        crate::write(path.join("out"), &data).unwrap();
        let stored = picture::read(&path.join("out/000003.tif"), "000003.tif", 100).unwrap();
        assert_eq!((stored.bits, stored.values.as_slice()), (16, data.samples().row(3)));
        assert_eq!(crate::read_back(path.join("out"), &data).unwrap(), *data.samples());
        fs::write(path.join("d.tif"), b"").unwrap();
        fs::rename(path.join("d.tif"), path.join("d.png")).unwrap();
        picture::write_png(File::create(path.join("d.png")).unwrap(), shape, 16, &[5; 6]).unwrap();
        fs::write(path.join(TABLE), "file,label\na.tif,0\nd.png,1\n").unwrap();
        let mixed = open();
        crate::write(path.join("mixed"), &mixed).unwrap();
        assert_eq!(crate::read_back(path.join("mixed"), &mixed).unwrap(), *mixed.samples());
        assert!(path.join("mixed/000000.png").is_file());
    }

    #[test]
    fn one_folder_a_class_is_split_by_seed() {
        let names: Vec<String> =
            (0..20).map(|at| format!("{}/{at:02}.png", if at < 10 { "sick" } else { "healthy" })).collect();
        let pictures: Vec<(&str, u8)> = names.iter().zip(0..).map(|(name, at)| (name.as_str(), at)).collect();
        let (_parent, path) = folder(&pictures, None);
        fs::write(path.join("sick/notes.txt"), "x").unwrap();
        fs::write(path.join("sick/.hidden"), "x").unwrap();
        let mut seen = Vec::new();
        for (split, expected) in Split::ALL.into_iter().zip([7, 1, 2]) {
            let data = crate::open(&path, split).unwrap();
            assert_eq!(data.class_counts(), [expected; 2], "{split}");
            assert_eq!(data.class_names(), ["healthy", "sick"]);
            assert!(matches!(data.warnings(), [Warning::SkippedFile { file, .. }] if file == "sick/notes.txt"));
            for (row, level) in levels(&data).into_iter().enumerate() {
                assert_eq!(data.labels()[row], Label::Class(usize::from(level < 10.0)));
                // The list is sorted: the ten healthy pictures (levels 10 to 19) come first.
                assert_eq!(
                    data.samples().indices()[row],
                    if level < 10.0 { level as u64 + 10 } else { level as u64 - 10 }
                );
                seen.push(level as u8);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn folders_named_as_splits_are_splits() {
        let (_parent, path) = folder(&[("train/a/1.png", 1), ("train/b/1.png", 2), ("test/b/1.png", 3)], None);
        assert_eq!(levels(&crate::open(&path, Split::Train).unwrap()), [1.0, 2.0]);
        let test = crate::open(&path, Split::Test).unwrap();
        assert_eq!((levels(&test), &test.labels()[0]), (vec![3.0], &Label::Class(1)));
        assert_eq!(test.warnings(), [Warning::MissingClass { class: "a".into() }]);
        assert!(matches!(crate::open(&path, Split::Validation), Err(DataError::Empty { .. })));
    }

    #[test]
    fn a_table_gives_labels_splits_patients_and_subgroups() {
        let table = "\u{feff}Patient;file;split;label;sex\r\np1;x/1.png;train;sick;f\r\np1;2.png;test;\"well; fine\";m\r\n\
                     p2;3.png;test;sick;f\r\n";
        let (_parent, path) = folder(&[("x/1.png", 1), ("2.png", 2), ("3.png", 3)], Some(table));
        let test = crate::open(&path, Split::Test).unwrap();
        assert_eq!(levels(&test), [2.0, 3.0]);
        assert_eq!(test.class_names(), ["sick", "well; fine"]);
        assert_eq!(test.labels(), [Label::Class(1), Label::Class(0)]);
        assert_eq!(test.patients().unwrap(), ["p1", "p2"]);
        assert_eq!(test.groups()["sex"], ["m", "f"]);
        let splits = (Split::Train, Split::Test);
        assert_eq!(test.warnings(), [Warning::SamePatient { splits, patients: 1 }]);
        assert!(!test.warnings()[0].to_string().contains("p1"));
    }

    #[test]
    fn columns_of_findings_are_multi_label() {
        let table = "file,finding:nodule,finding: mass\n1.png,1,0\n2.png,1,1\n3.png,0,0\n";
        let (_parent, path) = folder(&[("1.png", 1), ("2.png", 2), ("3.png", 3)], Some(table));
        let data = crate::open(&path, Split::Train).unwrap();
        assert_eq!(data.class_names(), ["nodule", "mass"]);
        assert!(data.is_multi_label());
        let broken = table.replace("1,1", "1,2");
        fs::write(path.join(TABLE), broken).unwrap();
        assert!(crate::open(&path, Split::Train).unwrap_err().to_string().contains("line 3"));
    }

    #[test]
    fn unusable_tables_are_refused() {
        let pictures = [("1.png", 1), ("2.png", 2)];
        let (_parent, path) = folder(&pictures, None);
        fs::write(path.parent().unwrap().join("outside.png"), "x").unwrap();
        let wide = format!("file,label{}\n", ",x".repeat(2000));
        let cases = [
            "",
            "file\n1.png\n",
            "label\na\n",
            "file,label,label\n1.png,a,a\n",
            "file,label,finding:x\n1.png,a,1\n",
            "file,label\n1.png,a,b\n",
            "file,label\n1.png,\n",
            "file,label\n../outside.png,a\n",
            "file,label\n/1.png,a\n",
            "file,label\n,a\n",
            "file,label\n1.png,a\n1.png,b\n",
            "file,label,split\n1.png,a,holdout\n",
            "file,label,patient\n1.png,a,\n",
            wide.as_str(),
        ];
        for table in cases {
            fs::write(path.join(TABLE), table).unwrap();
            let error = crate::open(&path, Split::Train).unwrap_err();
            let named =
                matches!(&error, DataError::Format { .. } | DataError::TooLarge { .. } | DataError::Empty { .. });
            assert!(named, "{}: {error}", &table[..table.len().min(60)]);
        }
        fs::write(path.join(TABLE), "file,label\n1.png,a\nabsent.png,b\n").unwrap();
        let all = OpenOptions {
            fractions: crate::Fractions { train: 1.0, validation: 0.0, test: 0.0 },
            ..OpenOptions::default()
        };
        assert!(matches!(crate::open_with(&path, Split::Train, &all), Err(DataError::Read { .. })));
        fs::write(path.join(TABLE), [b'f', 0xff]).unwrap();
        assert!(crate::open(&path, Split::Train).is_err());
    }

    #[test]
    fn folders_of_another_layout_are_refused() {
        let (_parent, path) = folder(&[("1.png", 1)], None);
        assert!(crate::open(&path, Split::Train).unwrap_err().to_string().contains("labels.csv"));
        let (_parent, path) = folder(&[("a/b/1.png", 1), ("c/1.png", 1)], None);
        assert!(crate::open(&path, Split::Train).unwrap_err().to_string().contains("`b`"));
        let (_parent, path) = folder(&[("train/a/1.png", 1), ("training/b/1.png", 1)], None);
        assert!(crate::open(&path, Split::Train).unwrap_err().to_string().contains("split"));
        let (_parent, path) = folder(&[("a/1.png", 1)], None);
        assert!(matches!(crate::open(&path, Split::Train), Err(DataError::Classes { .. })));
        fs::create_dir(path.join("b")).unwrap();
        assert!(crate::open(&path, Split::Train).unwrap_err().to_string().contains("got none"));
    }

    #[test]
    fn pictures_of_different_size_or_depth_are_refused_and_broken_ones_left_out_when_asked() {
        let table = "file,label,split\n1.png,a,train\n2.png,b,train\n3.png,b,train\n";
        let (_parent, path) = folder(&[("1.png", 1), ("2.png", 2), ("3.png", 3)], Some(table));
        let three = path.join("3.png");
        fs::write(&three, &fs::read(&three).unwrap()[..40]).unwrap();
        assert!(crate::open(&path, Split::Train).unwrap_err().to_string().contains("3.png"));
        let options = OpenOptions { skip_unreadable: true, ..OpenOptions::default() };
        let data = crate::open_with(&path, Split::Train, &options).unwrap();
        assert_eq!((data.len(), data.samples().indices()), (2, [0, 1].as_slice()));
        assert!(matches!(data.warnings(), [Warning::SkippedFile { file, .. }] if file == "3.png"));
        for (shape, bits) in [([1, 1, 1], 8), ([3, 2, 1], 8), ([1, 2, 1], 16)] {
            let values = vec![1; shape.iter().product()];
            picture::write_png(File::create(&three).unwrap(), shape, bits, &values).unwrap();
            let error = crate::open(&path, Split::Train).unwrap_err().to_string();
            assert!(error.contains("`1.png`") && error.contains("`3.png`"), "{error}");
        }
    }

    #[test]
    fn values_that_cannot_be_stored_are_refused_and_leave_nothing_behind() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("out");
        let data = crate::dataset::tests::grey(&[&[1, 2], &[3, 4]], &[0, 1]);
        let halves = Samples::new(vec![1.0, 2.0, 3.0, 4.5], &[1, 1, 2]).unwrap();
        let perturbed = data.clone().with_samples(halves).unwrap();
        let error = write(&path, &perturbed).unwrap_err();
        assert!(matches!(error, DataError::OffGrid { sample: 1, element: 1, .. }), "{error}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        // Two samples with one index have one file name: the second is refused and the folder removed again.
        let same = data.samples().clone().with_indices(vec![5, 5]).unwrap();
        assert!(matches!(write(&path, &data.clone().with_samples(same).unwrap()), Err(DataError::Exists { .. })));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        fs::create_dir(&path).unwrap();
        assert!(matches!(write(&path, &data), Err(DataError::Exists { .. })));
        assert!(matches!(write(&parent.path().join("no/such"), &data), Err(DataError::Write { .. })));
    }

    #[test]
    fn real_folders_are_read() {
        if let Some(path) = crate::formats::tests::shared("mednist-64") {
            let data = crate::open(path, Split::Test).unwrap();
            assert_eq!(data.class_counts(), [24; 6]);
            assert_eq!((data.samples().shape(), data.class_names()[2].as_str()), ([1, 64, 64].as_slice(), "CXR"));
        }
        if let Some(path) = crate::formats::tests::shared("busi-256") {
            let data = crate::open(path, Split::Validation).unwrap();
            assert_eq!(data.class_counts(), [7; 3]);
            assert_eq!(data.samples().shape(), [3, 256, 256]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_is_written_is_read_back(
            values in proptest::collection::vec(0u16..=4095, 3 * 2 * 6),
            sixteen: bool,
            multi_label: bool,
        ) {
            let greatest = if sixteen { 4095 } else { 255 };
            let values: Vec<f32> = values.iter().map(|&value| f32::from(value % (greatest + 1))).collect();
            let shape = [3, 2, 1];
            let samples = Samples::new(values, &shape).unwrap().with_indices((7..13).collect()).unwrap();
            let labels = (0..6).map(|at| {
                if multi_label { Label::Findings(vec![at > 2, true]) } else { Label::Class(at % 2) }
            });
            let names = vec!["=1+1".to_owned(), "a \"b\", c".to_owned()];
            let domain = Domain::grey_levels(&shape, f32::from(greatest)).unwrap();
            let data = Dataset::new("made", samples, labels.collect(), names, domain).unwrap()
                .with_patients((0..6).map(|at| format!("p{at}")).collect()).unwrap()
                .with_group("site", vec!["x".to_owned(); 6]).unwrap();
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join("out");
            write(&path, &data).unwrap();
            let options = OpenOptions {
                fractions: crate::Fractions { train: 1.0, validation: 0.0, test: 0.0 },
                bounds: Some((0.0, f32::from(greatest))),
                ..OpenOptions::default()
            };
            let again = crate::open_with(&path, Split::Train, &options).unwrap();
            prop_assert_eq!(again.samples().values(), data.samples().values());
            prop_assert_eq!(again.labels(), data.labels());
            prop_assert_eq!(again.class_names(), data.class_names());
            prop_assert_eq!(again.domain(), data.domain());
            prop_assert_eq!(again.patients(), data.patients());
            prop_assert_eq!(again.groups(), data.groups());
        }
    }
}
