//! Images in a NumPy archive, in the manner of MedMNIST.
//!
//! The arrays `train_images`, `train_labels`, `val_images`, `val_labels`, `test_images` and `test_labels` hold
//!
//! - images `[count, height, width]`, `[count, height, width, 1 or 3]`, `[count, depth, height, width]` or
//!   `[count, depth, height, width, 1 or 3]`; they become channels first;
//! - labels `[count]` or `[count, 1]` of class numbers, or `[count, findings]` of 0 and 1; of any numbers where the options say that
//!   labels are numbers.
//!
//! Only the wanted images and the (small) labels of all splits are inflated. The labels of all splits together decide
//! which classes there are. A file named as one of the MedMNIST data sets gets its class names. A fourth dimension of 1
//! or 3 is read as channels.
//!
//! The number type of the images gives bounds and storage step: whole numbers up to 16 bit are grey levels; floats must
//! lie in [0, 1] unless bounds are given.
//!
//! Source: Yang et al., Scientific Data 10:41, 2023 (MedMNIST v2).

use std::fs::File;
use std::io::Write;
use std::path::Path;

use nocebo_core::{Domain, DomainConfig, Field, Label, NotNan, Samples, Unit};

use super::labels::numbered_names;
use super::npy::{self, Element, Header};
use super::zip::{Archive, ArchiveWriter};
use crate::{DataError, Dataset, OpenOptions, Order, Split};

/// Reads one split.
///
/// # Errors
///
/// When the archive or an array is malformed, refused, too large or missing, lengths differ, a label is unusable, a
/// value is not finite or outside the bounds, or the split is empty.
pub fn read(path: &Path, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    let file = super::file_name(path);
    let opened = File::open(path).map_err(DataError::reading(&file))?;
    let mut archive = Archive::open(opened, &file)?;

    let mut labels = Vec::new();
    for split in Split::ALL {
        if let Some(array) = LabelArray::read(&mut archive, &file, split, options)? {
            labels.push(array);
        }
    }
    let Some(wanted) = labels.iter().position(|array| array.split == split) else {
        return Err(missing(&archive, &file, &array_name(split, "labels")));
    };
    let class_names = class_names(&file, &labels, options)?;
    let (samples, domain) = read_images(&mut archive, &file, split, options)?;
    if samples.is_empty() {
        return Err(DataError::Empty { file, split: split.to_string() });
    }
    let labels = labels.swap_remove(wanted).into_labels();
    Dataset::new(format!("{file}, {split} split"), samples, labels, class_names, domain)
}

/// Writes a MedMNIST-style archive with an array of images and one of labels a split, under a temporary name until it
/// is complete.
///
/// Images of a whole-number domain are stored as `uint8` or `uint16`, others and those that were not rounded to their
/// step as `float32`, which needs bounds to be read again unless they are [0, 1]. Labels are `uint8` where there are at
/// most 256 classes. Patients and subgroups are not stored: the format has no place for them.
///
/// # Errors
///
/// When samples are neither images nor volumes, the file exists or cannot be written, or would be 4 GiB or more.
pub fn write(path: &Path, parts: &[(Split, &Dataset)]) -> Result<(), DataError> {
    let mut members = Vec::new();
    for (split, data) in parts {
        if data.is_segmentation() {
            let reason = "write a folder of pictures and masks instead";
            return Err(nocebo_core::Error::unsupported("an archive of masks", reason).into());
        }
        members.push((array_name(*split, "images"), encode_images(data)?));
        members.push((array_name(*split, "labels"), encode_labels(data)));
    }
    super::write_new_file(path, |writer| {
        let mut archive = ArchiveWriter::new(writer);
        for (name, content) in &members {
            archive.add(&format!("{name}.npy"), content)?;
        }
        archive.finish()?.flush()
    })
}

fn array_name(split: Split, what: &str) -> String {
    let split = match split {
        Split::Train => "train",
        Split::Validation => "val",
        Split::Test => "test",
    };
    format!("{split}_{what}")
}

fn missing(archive: &Archive<File>, file: &str, array: &str) -> DataError {
    let found: Vec<&str> = archive.names().take(12).collect();
    DataError::format(file, "arrays", format!("`{array}`"), format!("{found:?}"))
}

/// Reads the array `name` with `values`, when the archive has it.
fn read_array<T>(
    archive: &mut Archive<File>,
    file: &str,
    name: &str,
    options: &OpenOptions,
    values: impl FnOnce(&mut npy::Source<'_, &mut super::zip::MemberReader<'_, File>>, &Header) -> Result<T, DataError>,
) -> Result<Option<(Header, T)>, DataError> {
    // The widest element has 8 bytes.
    let limit = options.limits.values.saturating_mul(8).saturating_add(1 << 16);
    let Some(mut member) = archive.member(&format!("{name}.npy"), limit)? else { return Ok(None) };
    let remaining = member.remaining();
    let mut source = npy::Source { file, array: name, reader: &mut member, remaining };
    let header = source.header()?;
    let count = header.shape.iter().product::<usize>() as u64;
    DataError::check_limit(file, format!("values of `{name}`"), options.limits.values, count)?;
    let values = values(&mut source, &header)?;
    member.finish()?;
    Ok(Some((header, values)))
}

/// The labels of one split: `[rows, columns]`, row by row.
struct LabelArray {
    split: Split,
    name: String,
    columns: Option<usize>,
    values: Vec<i128>,
    /// The same where labels are numbers, in place of `values`.
    numbers: Option<Vec<NotNan<f32>>>,
}

impl LabelArray {
    fn read(
        archive: &mut Archive<File>,
        file: &str,
        split: Split,
        options: &OpenOptions,
    ) -> Result<Option<Self>, DataError> {
        let name = array_name(split, "labels");
        let array = read_array(archive, file, &name, options, |source, header| {
            if !matches!(header.shape.len(), 1 | 2) || header.shape.get(1) == Some(&0) {
                return Err(
                    source.broken("shape (count,), (count, 1) or (count, findings)", format!("{:?}", header.shape))
                );
            }
            if let Some(Order::Numbers { .. }) = options.order {
                let numbers = source.floats(header)?.into_iter().map(NotNan::new).collect::<Result<_, _>>();
                return match numbers {
                    Ok(numbers) if header.shape.get(1).is_none_or(|&columns| columns == 1) => {
                        Ok((Vec::new(), Some(numbers)))
                    }
                    _ => Err(source.broken("one number a sample", "several, or NaN")),
                };
            }
            Ok((source.integers(header)?, None))
        })?;
        let Some((header, (values, numbers))) = array else { return Ok(None) };
        let columns = header.shape.get(1).copied().filter(|&columns| columns > 1);
        if let (Some(columns), Some(at)) = (columns, values.iter().position(|value| !matches!(value, 0 | 1))) {
            return Err(DataError::Label {
                file: format!("{file}, {name}"),
                sample: at / columns,
                expected: "0 or 1 a finding".to_owned(),
                got: values[at].to_string(),
            });
        }
        Ok(Some(Self { split, name, columns, values, numbers }))
    }

    fn into_labels(self) -> Vec<Label> {
        if let Some(numbers) = self.numbers {
            return numbers.into_iter().map(Label::Number).collect();
        }
        match self.columns {
            None => self.values.iter().map(|&class| Label::Class(class as usize)).collect(),
            Some(columns) => {
                let rows = self.values.chunks_exact(columns);
                rows.map(|row| Label::Findings(row.iter().map(|&value| value == 1).collect())).collect()
            }
        }
    }
}

fn class_names(file: &str, labels: &[LabelArray], options: &OpenOptions) -> Result<Vec<String>, DataError> {
    if let Some(Order::Numbers { .. }) = options.order {
        return Ok(Vec::new());
    }
    let columns = labels.first().and_then(|array| array.columns);
    if let Some(other) = labels.iter().find(|array| array.columns != columns) {
        let show = |columns: Option<usize>| format!("{} columns", columns.unwrap_or(1));
        let expected = format!("{}, as in the other splits", show(columns));
        return Err(DataError::format(file, format!("array `{}`", other.name), expected, show(other.columns)));
    }
    let given = options.class_names.clone().or_else(|| {
        let known = known_names(file)?;
        Some(known.iter().map(ToString::to_string).collect())
    });
    match columns {
        None => {
            let parts: Vec<(&str, &[i128])> = labels.iter().map(|array| (&*array.name, &*array.values)).collect();
            numbered_names(file, &parts, given)
        }
        Some(columns) => match given {
            None => Ok((0..columns).map(|finding| finding.to_string()).collect()),
            Some(names) if names.len() == columns => Ok(names),
            Some(names) => Err(DataError::Classes {
                file: file.to_owned(),
                expected: format!("{} findings, as many as names", names.len()),
                got: columns.to_string(),
                advice: "name every finding, in the order of the columns",
            }),
        },
    }
}

fn read_images(
    archive: &mut Archive<File>,
    file: &str,
    split: Split,
    options: &OpenOptions,
) -> Result<(Samples, Domain), DataError> {
    let name = array_name(split, "images");
    let array = read_array(archive, file, &name, options, |source, header| {
        let Some((shape, _)) = sample_shape(&header.shape) else {
            let expected = "shape (count, height, width[, 3]) or (count, depth, height, width[, 3])";
            return Err(source.broken(expected, format!("{:?}", header.shape)));
        };
        if shape.contains(&0) {
            return Err(source.broken("sides of at least 1", format!("{:?}", header.shape)));
        }
        source.floats(header)
    })?;
    let Some((header, mut values)) = array else { return Err(missing(archive, file, &name)) };
    let (shape, channels_last) = sample_shape(&header.shape).unwrap_or_default();
    if channels_last && shape[0] > 1 {
        to_channels_first(&mut values, shape[0], shape[1..].iter().product());
    }
    let samples = Samples::new(values, &shape)?;
    let domain = image_domain(file, &name, header.element, &samples, options)?;
    Ok((samples, domain))
}

/// Shape of one sample, channels first, and whether the array has the channels last.
fn sample_shape(array: &[usize]) -> Option<(Vec<usize>, bool)> {
    let (_, sample) = array.split_first()?;
    match sample {
        [height, width] => Some((vec![1, *height, *width], false)),
        [space @ .., channels @ (1 | 3)] if matches!(space.len(), 2 | 3) => {
            Some(([&[*channels], space].concat(), true))
        }
        [depth, height, width] => Some((vec![1, *depth, *height, *width], false)),
        _ => None,
    }
}

/// Turns each sample of `area` pixels with `channels` values each into `channels` planes.
fn to_channels_first(values: &mut [f32], channels: usize, area: usize) {
    let mut planes = vec![0.0; channels * area];
    for sample in values.chunks_exact_mut(channels * area) {
        for (pixel, colours) in sample.chunks_exact(channels).enumerate() {
            for (channel, &value) in colours.iter().enumerate() {
                planes[channel * area + pixel] = value;
            }
        }
        sample.copy_from_slice(&planes);
    }
}

fn image_domain(
    file: &str,
    name: &str,
    element: Element,
    samples: &Samples,
    options: &OpenOptions,
) -> Result<Domain, DataError> {
    let stored = match element {
        Element::Bool => Some((0.0, 1.0)),
        Element::U8 => Some((0.0, 255.0)),
        Element::I8 => Some((-128.0, 127.0)),
        Element::U16 => Some((0.0, 65535.0)),
        Element::I16 => Some((-32768.0, 32767.0)),
        _ => None,
    };
    let in_unit_interval = || samples.values().iter().all(|value| !value.is_finite() || (0.0..=1.0).contains(value));
    let bounds = match (stored, options.bounds) {
        (Some(bounds), _) | (None, Some(bounds)) => options.bounds_or(bounds)?,
        (None, None) if element.is_float() && in_unit_interval() => (0.0, 1.0),
        (None, None) => {
            let what = format!("array `{name}` of {} outside [0, 1] without bounds", element.name());
            return Err(DataError::refused(file, what, "give the least and greatest possible value, or save as uint8"));
        }
    };
    let default_unit = if element.is_float() { Unit::Other("intensity".to_owned()) } else { Unit::GreyLevel };
    let config = DomainConfig {
        shape: samples.shape().to_vec(),
        unit: options.unit.clone().unwrap_or(default_unit),
        lower: Field::Uniform(bounds.0),
        upper: Field::Uniform(bounds.1),
        resolution: Field::Uniform(if element.is_float() { 0.0 } else { 1.0 }),
        region: None,
    };
    Ok(config.try_into()?)
}

fn encode_images(data: &Dataset) -> Result<Vec<u8>, DataError> {
    let samples = data.samples();
    let (channels, space) = match samples.shape() {
        [channels @ (1 | 3), space @ ..] if matches!(space.len(), 2 | 3) => (*channels, space),
        shape => {
            let expected = "[1 or 3, height, width] or [1 or 3, depth, height, width]";
            return Err(nocebo_core::Error::mismatch("shape of a sample", expected, format!("{shape:?}")).into());
        }
    };
    let mut shape = vec![samples.len()];
    shape.extend(space);
    // A volume without a channel dimension whose width is 1 or 3 would be read as a colour image.
    if channels == 3 || (space.len() == 3 && matches!(space[2], 1 | 3)) {
        shape.push(channels);
    }
    let area: usize = space.iter().product();
    let ordered = samples
        .rows()
        .flat_map(|row| (0..area).flat_map(move |pixel| (0..channels).map(move |channel| row[channel * area + pixel])));
    let whole = samples.values().iter().all(|value| value.fract() == 0.0);
    Ok(match super::grey_bits(data.domain()) {
        Some(8) if whole => npy::encode("|u1", &shape, &ordered.map(|value| value as u8).collect::<Vec<_>>()),
        Some(_) if whole => {
            npy::encode("<u2", &shape, &ordered.flat_map(|value| (value as u16).to_le_bytes()).collect::<Vec<_>>())
        }
        _ => npy::encode_floats(&shape, &ordered.collect::<Vec<_>>()),
    })
}

fn encode_labels(data: &Dataset) -> Vec<u8> {
    if let Some(Order::Numbers { .. }) = data.order() {
        let number = |label: &Label| if let Label::Number(number) = label { **number } else { 0.0 };
        return npy::encode_floats(&[data.len(), 1], &data.labels().iter().map(number).collect::<Vec<_>>());
    }
    let columns = if data.is_multi_label() { data.class_names().len() } else { 1 };
    let values = data.labels().iter().flat_map(|label| match label {
        Label::Class(class) => vec![*class as u64],
        Label::Findings(findings) => findings.iter().map(|&present| u64::from(present)).collect(),
        Label::Mask(_) | Label::Number(_) => Vec::new(), // refused by `write`, written above
    });
    let shape = [data.len(), columns];
    if data.is_multi_label() || data.class_names().len() <= 256 {
        npy::encode("|u1", &shape, &values.map(|value| value as u8).collect::<Vec<_>>())
    } else {
        npy::encode("<u8", &shape, &values.flat_map(u64::to_le_bytes).collect::<Vec<_>>())
    }
}

/// Class names of the two-dimensional MedMNIST data sets, by file name: `pneumoniamnist.npz`, `pneumoniamnist_64.npz`.
fn known_names(file: &str) -> Option<&'static [&'static str]> {
    const ORGANS: &[&str] = &[
        "bladder",
        "femur-left",
        "femur-right",
        "heart",
        "kidney-left",
        "kidney-right",
        "liver",
        "lung-left",
        "lung-right",
        "pancreas",
        "spleen",
    ];
    let stem = file.strip_suffix(".npz")?;
    let stem = ["_64", "_128", "_224"].iter().find_map(|size| stem.strip_suffix(size)).unwrap_or(stem);
    Some(match stem {
        "pathmnist" => &[
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ],
        "chestmnist" => &[
            "atelectasis",
            "cardiomegaly",
            "effusion",
            "infiltration",
            "mass",
            "nodule",
            "pneumonia",
            "pneumothorax",
            "consolidation",
            "edema",
            "emphysema",
            "fibrosis",
            "pleural",
            "hernia",
        ],
        "dermamnist" => &[
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ],
        "octmnist" => &["choroidal neovascularization", "diabetic macular edema", "drusen", "normal"],
        "pneumoniamnist" => &["normal", "pneumonia"],
        "retinamnist" => &["0", "1", "2", "3", "4"],
        "breastmnist" => &["malignant", "normal or benign"],
        "bloodmnist" => &[
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocyte",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ],
        "tissuemnist" => &[
            "collecting duct, connecting tubule",
            "distal convoluted tubule",
            "glomerular endothelial cells",
            "interstitial endothelial cells",
            "leukocytes",
            "podocytes",
            "proximal tubule segments",
            "thick ascending limb",
        ],
        "organamnist" | "organcmnist" | "organsmnist" => ORGANS,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive in a temporary folder; the arrays are `.npy` bytes.
    fn archive(members: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, std::path::PathBuf) {
        archive_called("data.npz", members)
    }

    fn archive_called(name: &str, members: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut writer = ArchiveWriter::new(Vec::new());
        for (name, content) in members {
            writer.add(&format!("{name}.npy"), content).unwrap();
        }
        std::fs::write(&path, writer.finish().unwrap()).unwrap();
        (folder, path)
    }

    fn bytes(shape: &[usize], data: &[u8]) -> Vec<u8> {
        npy::encode("|u1", shape, data)
    }

    fn test_split(images: Vec<u8>, labels: Vec<u8>) -> Result<Dataset, DataError> {
        let (_folder, path) = archive(&[("test_images", images), ("test_labels", labels)]);
        crate::open(path, Split::Test)
    }

    #[test]
    fn grey_colour_and_volume_arrays_become_channels_first() {
        let labels = || bytes(&[2, 1], &[0, 1]);
        let grey = test_split(bytes(&[2, 1, 2], &[1, 2, 3, 4]), labels()).unwrap();
        assert_eq!(
            (grey.samples().shape(), grey.samples().values()),
            ([1, 1, 2].as_slice(), [1.0, 2.0, 3.0, 4.0].as_slice())
        );
        assert_eq!((grey.domain().upper()[0], grey.domain().resolution()[0]), (255.0, 1.0));
        assert_eq!(grey.labels(), [Label::Class(0), Label::Class(1)]);
        assert_eq!(
            (grey.class_names(), grey.source()),
            (["0".to_owned(), "1".to_owned()].as_slice(), "data.npz, test split")
        );

        let colour: Vec<u8> = (0..12).collect();
        let colour = test_split(bytes(&[2, 1, 2, 3], &colour), bytes(&[2], &[0, 1])).unwrap();
        assert_eq!(colour.samples().shape(), [3, 1, 2]);
        assert_eq!(colour.samples().row(1), [6.0, 9.0, 7.0, 10.0, 8.0, 11.0]);

        let volume = test_split(bytes(&[2, 1, 2, 2], &[0; 8]), labels()).unwrap();
        assert_eq!(volume.samples().shape(), [1, 1, 2, 2]);
        let one_channel = test_split(bytes(&[2, 2, 1, 1], &[0; 4]), labels()).unwrap();
        assert_eq!(one_channel.samples().shape(), [1, 2, 1]);
    }

    #[test]
    fn several_columns_are_findings() {
        let data = test_split(bytes(&[2, 1, 1], &[0, 9]), bytes(&[2, 3], &[1, 0, 1, 0, 0, 1])).unwrap();
        assert_eq!(data.labels()[0], Label::Findings(vec![true, false, true]));
        assert_eq!(data.class_counts(), [1, 0, 2]);
        let error = test_split(bytes(&[2, 1, 1], &[0, 9]), bytes(&[2, 2], &[1, 0, 2, 0])).unwrap_err();
        assert!(matches!(error, DataError::Label { sample: 1, .. }), "{error}");
    }

    #[test]
    fn the_number_type_gives_the_domain() {
        let labels = || bytes(&[2], &[0, 1]);
        let deep = test_split(npy::encode("<u2", &[2, 1, 1], &[0xff, 0x0f, 0, 0]), labels()).unwrap();
        assert_eq!((deep.samples().values()[0], deep.domain().upper()[0]), (4095.0, 65535.0));
        let floats = test_split(npy::encode_floats(&[2, 1, 1], &[0.25, 1.0]), labels()).unwrap();
        assert_eq!((floats.domain().upper()[0], floats.domain().resolution()[0]), (1.0, 0.0));
        let outside = || npy::encode_floats(&[2, 1, 1], &[-3.0, 1.0]);
        assert!(matches!(test_split(outside(), labels()), Err(DataError::Refused { .. })));
        let (_folder, path) = archive(&[("test_images", outside()), ("test_labels", labels())]);
        let options =
            OpenOptions { bounds: Some((-5.0, 5.0)), unit: Some(Unit::StandardDeviation), ..OpenOptions::default() };
        let data = crate::open_with(&path, Split::Test, &options).unwrap();
        assert_eq!((data.domain().lower()[0], data.domain().unit()), (-5.0, &Unit::StandardDeviation));
        let narrow = OpenOptions { bounds: Some((-1.0, 1.0)), ..OpenOptions::default() };
        assert!(matches!(crate::open_with(&path, Split::Test, &narrow), Err(DataError::Core(_))));
    }

    #[test]
    fn classes_come_from_all_splits_and_known_names_from_the_file_name() {
        let members = [
            ("train_images", bytes(&[2, 1, 1], &[0, 0])),
            ("train_labels", bytes(&[2], &[0, 2])),
            ("test_images", bytes(&[1, 1, 1], &[0])),
            ("test_labels", bytes(&[1], &[1])),
        ];
        let (_folder, path) = archive(&members);
        let data = crate::open(&path, Split::Test).unwrap();
        assert_eq!(data.class_names(), ["0", "1", "2"]);
        assert_eq!(data.warnings().len(), 2);
        let (_folder, path) = archive_called("breastmnist_64.npz", &members);
        let error = crate::open(&path, Split::Train).unwrap_err().to_string();
        assert_eq!(error, "`breastmnist_64.npz, train_labels`: label of sample 1: expected a class from 0 to 1, got 2");
        let (_folder, path) = archive_called("octmnist.npz", &members);
        assert_eq!(crate::open(path, Split::Test).unwrap().class_names()[3], "normal");
    }

    #[test]
    fn inconsistent_data_get_a_typed_error() {
        let image = |count| bytes(&[count, 1, 1], &vec![0; count]);
        let error = test_split(image(3), bytes(&[2], &[0, 1])).unwrap_err();
        assert!(matches!(error, DataError::Length { expected: 3, got: 2, .. }), "{error}");
        let error = test_split(image(0), bytes(&[0], &[])).unwrap_err();
        assert!(matches!(error, DataError::Empty { .. }), "{error}");
        let one_class = test_split(image(2), bytes(&[2], &[0, 0])).unwrap_err();
        assert!(matches!(one_class, DataError::Classes { .. }), "{one_class}");
        let gap = test_split(image(2), bytes(&[2], &[0, 200])).unwrap_err();
        assert!(matches!(gap, DataError::Classes { .. }), "{gap}");
        let negative = test_split(image(2), npy::encode("|i1", &[2], &[0, 0xff])).unwrap_err();
        assert!(matches!(negative, DataError::Label { sample: 1, .. }), "{negative}");
        let huge = test_split(image(1), npy::encode("<u8", &[1], &[0xff; 8])).unwrap_err();
        assert!(matches!(huge, DataError::Classes { .. }), "{huge}");
        let floats = test_split(image(2), npy::encode_floats(&[2], &[0.0, 1.0])).unwrap_err();
        assert!(floats.to_string().contains("integer"), "{floats}");
        for shape in [vec![], vec![1, 1, 2], vec![2, 0]] {
            let data = vec![0; shape.iter().product()];
            assert!(test_split(image(2), bytes(&shape, &data)).is_err(), "{shape:?}");
        }
        for shape in [vec![], vec![2], vec![2, 1], vec![1, 1, 1, 1, 2], vec![2, 0, 1]] {
            let data = vec![0; shape.iter().product()];
            assert!(test_split(bytes(&shape, &data), bytes(&[2], &[0, 1])).is_err(), "{shape:?}");
        }
        for value in [f32::NAN, f32::INFINITY] {
            let error = test_split(npy::encode_floats(&[2, 1, 1], &[0.0, value]), bytes(&[2], &[0, 1])).unwrap_err();
            assert!(matches!(error, DataError::NonFinite { sample: 1, .. }), "{error}");
        }
    }

    #[test]
    fn files_of_another_kind_and_missing_arrays_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.npz");
        for content in ["", "PK", "this is no archive, but long enough to be looked at"] {
            std::fs::write(&path, content).unwrap();
            assert!(matches!(crate::open(&path, Split::Train), Err(DataError::Format { .. })), "{content}");
        }
        let (_folder, path) = archive(&[("x", bytes(&[1], &[0]))]);
        let error = crate::open(path, Split::Validation).unwrap_err().to_string();
        assert!(error.contains("val_labels") && error.contains("x.npy"), "{error}");
        assert!(matches!(crate::open("absent.npz", Split::Train), Err(DataError::Read { .. })));
    }

    #[test]
    fn the_limit_of_values_is_kept() {
        let (_folder, path) =
            archive(&[("test_images", bytes(&[2, 4, 4], &[0; 32])), ("test_labels", bytes(&[2], &[0, 1]))]);
        let limits = crate::Limits { values: 31, ..crate::Limits::default() };
        let options = OpenOptions { limits, ..OpenOptions::default() };
        assert!(matches!(crate::open_with(path, Split::Test, &options), Err(DataError::TooLarge { limit: 31, .. })));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let colour = test_split(bytes(&[2, 1, 2, 3], &(0..12).collect::<Vec<u8>>()), bytes(&[2], &[0, 1])).unwrap();
        let findings = test_split(npy::encode_floats(&[2, 1, 1], &[0.25, 1.0]), bytes(&[2, 2], &[0, 1, 1, 1])).unwrap();
        let narrow_volume = test_split(bytes(&[2, 2, 2, 3, 1], &[3; 24]), bytes(&[2], &[0, 1])).unwrap();
        for (number, data) in [colour, findings, narrow_volume].iter().enumerate() {
            let path = folder.path().join(format!("{number}.npz"));
            write(&path, &[(Split::Test, data)]).unwrap();
            let again = crate::open(&path, Split::Test).unwrap();
            assert_eq!(
                (again.samples(), again.labels(), again.domain()),
                (data.samples(), data.labels(), data.domain())
            );
            assert!(matches!(write(&path, &[(Split::Test, data)]), Err(DataError::Exists { .. })));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    fn shared(name: &str) -> Option<std::path::PathBuf> {
        crate::formats::tests::shared(name)
    }

    #[test]
    fn the_real_medmnist_files_have_the_official_counts() {
        let official = [
            ("pneumoniamnist/pneumoniamnist.npz", [[1214, 3494], [135, 389], [234, 390]], "pneumonia"),
            ("breastmnist/breastmnist.npz", [[147, 399], [21, 57], [42, 114]], "normal or benign"),
        ];
        for (name, counts, positive) in official {
            let Some(path) = shared(name) else { continue };
            for (split, counts) in Split::ALL.into_iter().zip(counts) {
                let data = crate::open(&path, split).unwrap();
                assert_eq!(data.class_counts(), counts, "{name} {split}");
                assert_eq!(data.class_names()[1], positive);
                assert_eq!((data.samples().shape(), data.warnings()), ([1, 28, 28].as_slice(), [].as_slice()));
            }
        }
    }

    #[test]
    fn pictures_in_both_splits_of_pneumoniamnist_are_reported() {
        let Some(path) = shared("pneumoniamnist/pneumoniamnist.npz") else { return };
        let parts = Split::ALL.map(|split| (split, crate::open(&path, split).unwrap()));
        let parts: Vec<(Split, &Dataset)> = parts.iter().map(|(split, data)| (*split, data)).collect();
        // Eight pictures of the train split also occur in the validation split, none in the test split.
        let warnings = crate::leaks(&parts);
        assert!(
            matches!(
                warnings[..],
                [crate::Warning::SameSample { splits: (Split::Train, Split::Validation), samples: 8..12 }]
            ),
            "{warnings:?}"
        );
    }
}
