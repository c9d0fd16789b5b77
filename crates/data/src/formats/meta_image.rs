//! MetaImage volumes (`.mha`, or `.mhd` with its values beside it), read and written back.
//!
//! A volume becomes one sample `[channels, depth, height, width]`: the file's fourth, third, second and first axis. The
//! stored type gives bounds and step of the domain; wider types and floats have the bounds of their values, with a warning.
//!
//! Refused: several numbers a voxel, text values, values in several files or in another folder, headers that skip bytes, sizes and
//! spacings that are not usable, compressed values that are too large for their file, damaged, or followed by others. Comments and
//! unknown fields are not read and not copied, since they can name a patient; what is written keeps geometry, type and
//! compression.
//!
//! Source: MetaIO documentation of the Insight Toolkit (itk.org/Wiki/ITK/MetaIO/Documentation).

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use nocebo_core::Samples;

use super::nifti::Stored;
use super::raster::{self, Fields, Layout, NOTE, Packing, Volume};
use crate::{DataError, OpenOptions};

/// Fields that say where the voxels lie.
const GEOMETRY: [&str; 9] = [
    "TransformMatrix",
    "Rotation",
    "Orientation",
    "Offset",
    "Position",
    "Origin",
    "CenterOfRotation",
    "AnatomicalOrientation",
    "ElementSpacing",
];

const TYPES: [(&str, Stored); 12] = [
    ("MET_CHAR", Stored::I8),
    ("MET_UCHAR", Stored::U8),
    ("MET_SHORT", Stored::I16),
    ("MET_USHORT", Stored::U16),
    ("MET_INT", Stored::I32),
    ("MET_UINT", Stored::U32),
    ("MET_LONG_LONG", Stored::I64),
    ("MET_ULONG_LONG", Stored::U64),
    ("MET_FLOAT", Stored::F32),
    ("MET_DOUBLE", Stored::F64),
    // Four bytes, as the format's documentation has them.
    ("MET_LONG", Stored::I32),
    ("MET_ULONG", Stored::U32),
];

/// Reads a volume.
///
/// # Errors
///
/// When a file cannot be read, is none of this format, refused (see the module), damaged or too large, or a value is not finite or
/// outside given bounds.
pub fn read(path: &Path, options: &OpenOptions) -> Result<Volume, DataError> {
    let file = super::file_name(path);
    let kind = || DataError::format(&file, "header", "lines `Field = value`", "another kind of file");
    let (lines, rest) = raster::header(path, &file, |line| {
        line.split_once('=').is_none_or(|(name, _)| name.trim() == "ElementDataFile")
    })
    .map_err(|error| if matches!(error, DataError::Read { .. }) { error } else { kind() })?;
    let pairs =
        lines.iter().map(|line| line.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim())));
    let fields = Fields { file: &file, pairs: pairs.collect::<Option<_>>().ok_or_else(kind)? };
    let find = |names: &[&str]| fields.find(names);
    let is_true = |names: &[&str]| find(names).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
    let sides = fields.sides("NDims", "DimSize")?;
    let name = fields.need("ElementType")?;
    let Some((_, stored)) = TYPES.iter().find(|(known, _)| *known == name) else {
        return Err(DataError::refused(&file, "a type that is no number", "store numbers of 8 to 64 bits"));
    };
    if find(&["ElementNumberOfChannels"]).is_some_and(|channels| channels != "1") {
        return Err(DataError::refused(&file, "several numbers a voxel", "save one number a voxel"));
    }
    if find(&["BinaryData"]).is_some_and(|value| !(value.eq_ignore_ascii_case("true") || value == "1")) {
        return Err(DataError::refused(&file, "values as text", "save them as binary data"));
    }
    if find(&["HeaderSize"]).is_some_and(|size| size != "0") {
        return Err(DataError::refused(&file, "a header that skips bytes", "save the values without any before them"));
    }
    let spacing = match find(&["ElementSpacing", "ElementSize"]) {
        Some(text) => raster::numbers(&file, "ElementSpacing", text)?,
        None => vec![1.0; sides.len()],
    };
    let detached = Some(fields.need("ElementDataFile")?).filter(|name| *name != "LOCAL").map(str::to_owned);
    let layout = Layout {
        sides,
        stored: *stored,
        big_endian: is_true(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"]),
        packing: if is_true(&["CompressedData"]) { Packing::Zlib } else { Packing::Raw },
        detached,
        spacing: spacing.into_iter().map(f64::abs).collect(),
        geometry: fields.lines(&GEOMETRY, " = "),
    };
    raster::values(path, &file, layout, rest, options)
}

/// Writes `samples` (one of the volume's shape, such as its perturbed values) in the way the volume was stored into the new file
/// `path`, values after the header, under a temporary name until it is complete.
///
/// # Errors
///
/// When the samples do not fit the volume's domain, a value cannot be stored, or the file exists or cannot be written.
pub fn write(path: &Path, volume: &Volume, samples: &Samples) -> Result<(), DataError> {
    let bytes = raster::packed(volume, samples)?;
    let name = TYPES.iter().find(|(_, stored)| *stored == volume.stored).map_or("", |(name, _)| name);
    let sizes: Vec<String> = volume.sides.iter().map(ToString::to_string).collect();
    let compressed = if volume.packing == Packing::Raw { "False" } else { "True" };
    let mut header = format!(
        "ObjectType = Image\nNDims = {}\nComment = {NOTE}\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
         CompressedData = {compressed}\n",
        sizes.len(),
    );
    for line in &volume.geometry {
        header.push_str(line);
        header.push('\n');
    }
    // Writing to a string cannot fail.
    if volume.packing != Packing::Raw {
        let _ = writeln!(header, "CompressedDataSize = {}", bytes.len());
    }
    let _ = write!(header, "DimSize = {}\nElementType = {name}\nElementDataFile = LOCAL\n", sizes.join(" "));
    super::write_new_file(path, |writer| {
        writer.write_all(header.as_bytes())?;
        writer.write_all(&bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const HEADER: &str = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nPatientName = Somebody\n\
        CompressedData = False\nOffset = 1 2 3\nElementSpacing = 0.5 2 4\nDimSize = 3 2 1\nElementType = MET_SHORT\n\
        ElementDataFile = LOCAL\n";

    fn file(header: &str, values: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.mha");
        fs::write(&path, [header.as_bytes(), values].concat()).unwrap();
        (folder, path)
    }

    fn values(numbers: &[i16]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn a_volume_is_read_and_written_back() {
        let stored = values(&[0, 1, -2, 300, 4, 5]);
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&stored).unwrap();
        let zlib = encoder.finish().unwrap();
        for (header, bytes) in
            [(HEADER.to_owned(), stored), (HEADER.replace("CompressedData = False", "CompressedData = True"), zlib)]
        {
            let (folder, path) = file(&header, &bytes);
            let volume = read(&path, &OpenOptions::default()).unwrap();
            assert_eq!((volume.samples().shape(), volume.samples().values()[3]), (&[1, 1, 2, 3][..], 300.0));
            assert_eq!((volume.spacing(), volume.domain().upper()[0]), ([4.0, 2.0, 0.5], 32767.0));
            let mut samples = volume.samples().clone();
            samples.values_mut()[3] = 299.0;
            let out = folder.path().join("out.mha");
            write(&out, &volume, &samples).unwrap();
            let again = read(&out, &OpenOptions::default()).unwrap();
            assert_eq!((again.samples(), again.spacing()), (&samples, volume.spacing()));
            let text = String::from_utf8_lossy(&fs::read(&out).unwrap()).into_owned();
            assert!(!text.contains("Somebody") && text.contains("Offset = 1 2 3"), "{text}");
        }
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let whole = values(&[0; 6]);
        for (change, reason) in [
            (("ObjectType = Image", "MZ"), "another kind"),
            (("DimSize = 3 2 1", "DimSize = 3 2 x"), "DimSize"),
            (("DimSize = 3 2 1", "DimSize = 3 2 0"), "sizes"),
            (("DimSize = 3 2 1", "DimSize = 3 2 2"), "24 bytes"),
            (("DimSize = 3 2 1", "DimSize = 99999999999 99999999999 9"), "voxels"),
            (("NDims = 3", "NDims = 2"), "NDims"),
            (("MET_SHORT", "MET_SHORT_ARRAY"), "no number"),
            (("BinaryData = True", "BinaryData = False"), "text"),
            (("NDims = 3", "ElementNumberOfChannels = 3\nNDims = 3"), "several numbers"),
            (("NDims = 3", "HeaderSize = -1\nNDims = 3"), "skips"),
            (("= 0.5 2 4", "= 0.5 0 4"), "spacing"),
            (("= 0.5 2 4", "= 0.5 nan 4"), "spacing"),
            (("= 0.5 2 4", "= 0.5 2"), "spacing"),
            (("CompressedData = False", "CompressedData = True"), "compressed values"),
            (("LOCAL", "../v.raw"), "same folder"),
            (("LOCAL", "LIST 2D"), "same folder"),
            (("LOCAL", "slice%03d.raw"), "same folder"),
            (("LOCAL", "absent.raw"), "absent.raw"),
            (("ElementDataFile", "Element"), "another kind"),
        ] {
            let (_folder, path) = file(&HEADER.replace(change.0, change.1), &whole);
            let error = read(&path, &OpenOptions::default()).unwrap_err().to_string();
            assert!(error.contains(reason), "{change:?}: {error}");
        }
        let (_folder, path) = file(HEADER, &whole[..11]);
        assert!(read(&path, &OpenOptions::default()).is_err(), "truncated");
    }
}
