//! NRRD volumes (`.nrrd`, or `.nhdr` with its values beside it), read and written back.
//!
//! A volume becomes one sample `[channels, depth, height, width]`: the file's fourth, third, second and first axis. The
//! stored type gives bounds and step of the domain; wider types and floats have the bounds of their values, with a warning.
//!
//! Refused: axes of colours or vectors before those of space, blocks, text and hex values, values in several files or in another
//! folder, skipped lines or bytes, sizes and spacings that are not usable, compressed values that are too large for their file,
//! damaged, or followed by others. Key/value pairs and comments are not read and not copied, since they can name a patient; what is
//! written keeps geometry, type and compression.
//!
//! Source: Kindlmann, Definition of NRRD File Format (teem.sourceforge.net/nrrd/format.html), versions 1 to 5.

use std::io::Write as _;
use std::path::Path;

use nocebo_core::Samples;

use super::nifti::Stored;
use super::raster::{self, Fields, Layout, NOTE, Packing, Volume};
use crate::{DataError, OpenOptions};

/// Fields that say where the voxels lie.
const GEOMETRY: [&str; 9] = [
    "space",
    "space dimension",
    "space units",
    "space origin",
    "space directions",
    "spacings",
    "centers",
    "kinds",
    "units",
];

/// Reads a volume.
///
/// # Errors
///
/// When a file cannot be read, is none of this format, refused (see the module), damaged or too large, or a value is not finite or
/// outside given bounds.
pub fn read(path: &Path, options: &OpenOptions) -> Result<Volume, DataError> {
    let file = super::file_name(path);
    let mut first = true;
    let kind = || DataError::format(&file, "header", "NRRD0001 to NRRD0005", "another kind of file");
    // A file of another kind ends at its first line.
    let (lines, rest) = raster::header(path, &file, |line| {
        std::mem::take(&mut first) && !line.starts_with("NRRD000") || line.is_empty()
    })
    .map_err(|error| if matches!(error, DataError::Read { .. }) { error } else { kind() })?;
    if !lines
        .first()
        .is_some_and(|line| matches!(line.as_str().strip_prefix("NRRD000"), Some("1" | "2" | "3" | "4" | "5")))
    {
        return Err(kind());
    }
    let pairs = lines[1..]
        .iter()
        .filter(|line| !line.starts_with('#') && !line.contains(":="))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
        .collect();
    let fields = Fields { file: &file, pairs };
    let find = |names: &[&str]| fields.find(names);
    let sides = fields.sides("dimension", "sizes")?;
    let stored = stored(fields.need("type")?)
        .ok_or_else(|| DataError::refused(&file, "a type that is no number", "store numbers of 8 to 64 bits"))?;
    let packing = match fields.need("encoding")?.to_ascii_lowercase().as_str() {
        "raw" => Packing::Raw,
        "gzip" | "gz" => Packing::Gzip,
        _ => return Err(DataError::refused(&file, "values that are neither raw nor gzip", "save them as gzip")),
    };
    let big_endian = match find(&["endian"]).map(str::to_ascii_lowercase).as_deref() {
        Some("big") => true,
        Some("little") => false,
        _ if stored.bytes() == 1 => false,
        _ => return Err(DataError::format(&file, "endian", "little or big", "neither")),
    };
    if find(&["line skip", "lineskip", "byte skip", "byteskip"]).is_some_and(|skip| skip != "0") {
        return Err(DataError::refused(&file, "a header that skips bytes", "save the values without any before them"));
    }
    if let Some(kinds) = find(&["kinds"]) {
        let of_space = |kind: &str| {
            matches!(kind.to_ascii_lowercase().as_str(), "domain" | "space" | "time" | "???" | "none" | "list")
        };
        if !kinds.split_whitespace().take(3).all(of_space) {
            return Err(DataError::refused(&file, "an axis of colours or vectors", "save one number a voxel"));
        }
    }
    let spacing = spacing(&file, sides.len(), find(&["spacings"]), find(&["space directions"]))?;
    let geometry = fields.lines(&GEOMETRY, ": ");
    let detached = find(&["data file", "datafile"]).map(str::to_owned);
    let layout = Layout { sides, stored, big_endian, packing, detached, spacing, geometry };
    raster::values(path, &file, layout, rest, options)
}

/// Distances along the axes: as given, or the lengths of the directions; 1 where neither says any.
fn spacing(file: &str, axes: usize, given: Option<&str>, directions: Option<&str>) -> Result<Vec<f64>, DataError> {
    let lengths: Vec<f64> = if let Some(text) = given {
        // An axis without a distance says `nan`.
        raster::numbers(file, "spacings", text)?
    } else if let Some(text) = directions {
        // `(1,0,0) none (0,0,2)`, with or without blanks inside of parentheses.
        let mut rest = text.trim();
        let mut lengths = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("none") {
                lengths.push(1.0);
                rest = after.trim_start();
                continue;
            }
            let Some((vector, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
                return Err(DataError::format(file, "space directions", "vectors in parentheses", format!("`{text}`")));
            };
            let parts: Vec<f64> = raster::numbers(file, "space directions", &vector.replace(',', " "))?;
            lengths.push(parts.iter().map(|part| part * part).sum::<f64>().sqrt());
            rest = after.trim_start();
        }
        lengths
    } else {
        vec![1.0; axes]
    };
    Ok(lengths.into_iter().map(|length| if length.is_nan() { 1.0 } else { length.abs() }).collect())
}

fn stored(name: &str) -> Option<Stored> {
    Some(match name.to_ascii_lowercase().as_str() {
        "signed char" | "int8" | "int8_t" => Stored::I8,
        "uchar" | "unsigned char" | "uint8" | "uint8_t" => Stored::U8,
        "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => Stored::I16,
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => Stored::U16,
        "int" | "signed int" | "int32" | "int32_t" => Stored::I32,
        "uint" | "unsigned int" | "uint32" | "uint32_t" => Stored::U32,
        "longlong"
        | "long long"
        | "long long int"
        | "signed long long"
        | "signed long long int"
        | "int64"
        | "int64_t" => Stored::I64,
        "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => Stored::U64,
        "float" => Stored::F32,
        "double" => Stored::F64,
        _ => return None,
    })
}

/// Writes `samples` (one of the volume's shape, such as its perturbed values) in the way the volume was stored into the new file
/// `path`, values after the header, under a temporary name until it is complete.
///
/// # Errors
///
/// When the samples do not fit the volume's domain, a value cannot be stored, or the file exists or cannot be written.
pub fn write(path: &Path, volume: &Volume, samples: &Samples) -> Result<(), DataError> {
    let bytes = raster::packed(volume, samples)?;
    let name = match volume.stored {
        Stored::U8 => "uint8",
        Stored::I8 => "int8",
        Stored::U16 => "uint16",
        Stored::I16 => "int16",
        Stored::U32 => "uint32",
        Stored::I32 => "int32",
        Stored::U64 => "uint64",
        Stored::I64 => "int64",
        Stored::F32 => "float",
        Stored::F64 => "double",
    };
    let sizes: Vec<String> = volume.sides.iter().map(ToString::to_string).collect();
    let encoding = if volume.packing == Packing::Raw { "raw" } else { "gzip" };
    let mut header = format!(
        "NRRD0005\n# {NOTE}\ntype: {name}\ndimension: {}\nsizes: {}\nendian: little\nencoding: {encoding}\n",
        sizes.len(),
        sizes.join(" ")
    );
    for line in &volume.geometry {
        header.push_str(line);
        header.push('\n');
    }
    header.push('\n');
    super::write_new_file(path, |writer| {
        writer.write_all(header.as_bytes())?;
        writer.write_all(&bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const HEADER: &str = "NRRD0004\n# a comment\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 3 2 1\n\
        space directions: (0.5,0,0) (0,3,4) none\nendian: little\nencoding: raw\nPatient:=Somebody\n\n";

    fn file(header: &str, values: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.nrrd");
        fs::write(&path, [header.as_bytes(), values].concat()).unwrap();
        (folder, path)
    }

    fn values(numbers: &[i16]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn a_volume_is_read_and_written_back() {
        let (folder, path) = file(HEADER, &values(&[0, 1, -2, 300, 4, 5]));
        let volume = read(&path, &OpenOptions::default()).unwrap();
        assert_eq!(
            (volume.samples().shape(), volume.samples().values()),
            (&[1, 1, 2, 3][..], &[0.0, 1.0, -2.0, 300.0, 4.0, 5.0][..])
        );
        assert_eq!((volume.domain().lower()[0], volume.domain().resolution()[0]), (-32768.0, 1.0));
        assert_eq!(volume.spacing(), [1.0, 5.0, 0.5]);
        let mut samples = volume.samples().clone();
        samples.values_mut()[3] = 299.0;
        let out = folder.path().join("out.nrrd");
        write(&out, &volume, &samples).unwrap();
        let again = read(&out, &OpenOptions::default()).unwrap();
        assert_eq!((again.samples(), again.spacing()), (&samples, volume.spacing()));
        let text = String::from_utf8_lossy(&fs::read(&out).unwrap()).into_owned();
        assert!(!text.contains("Somebody") && text.contains("space directions: (0.5,0,0) (0,3,4) none"), "{text}");
        samples.values_mut()[3] = 0.5;
        assert!(matches!(write(&folder.path().join("no.nrrd"), &volume, &samples), Err(DataError::OffGrid { .. })));
    }

    #[test]
    fn other_storage_is_read() {
        let big: Vec<u8> = [0_i16, 1, -2, 300, 4, 5].iter().flat_map(|number| number.to_be_bytes()).collect();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&big).unwrap();
        let gzip = encoder.finish().unwrap();
        let header = HEADER.replace("little", "big").replace("raw", "gzip");
        let (folder, path) = file(&header, &gzip);
        let volume = read(&path, &OpenOptions::default()).unwrap();
        assert_eq!(volume.samples().values()[2..4], [-2.0, 300.0]);
        write(&folder.path().join("out.nrrd"), &volume, volume.samples()).unwrap();
        assert_eq!(read(&folder.path().join("out.nrrd"), &OpenOptions::default()).unwrap().samples(), volume.samples());
        let damaged = [&gzip[..gzip.len() - 6], &[0; 6]].concat();
        let (_folder, path) = file(&header, &damaged);
        assert!(read(&path, &OpenOptions::default()).is_err(), "checksum");
        // Values beside the header.
        fs::write(folder.path().join("v.raw"), values(&[7; 6])).unwrap();
        let header = HEADER.replace("encoding", "data file: v.raw\nencoding");
        fs::write(folder.path().join("d.nhdr"), &header).unwrap();
        assert_eq!(read(&folder.path().join("d.nhdr"), &OpenOptions::default()).unwrap().samples().values(), [7.0; 6]);
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let whole = values(&[0; 6]);
        for (change, reason) in [
            (("NRRD0004", "NRRD0009"), "header"),
            (("NRRD0004", "GIF89a"), "another kind"),
            (("sizes: 3 2 1", "sizes: 3 2 -1"), "sizes"),
            (("sizes: 3 2 1", "sizes: 3 2 0"), "sizes"),
            (("sizes: 3 2 1", "sizes: 3 2 2"), "24 bytes"),
            (("sizes: 3 2 1", "sizes: 99999999999 99999999999 9"), "voxels"),
            (("dimension: 3", "dimension: 2"), "dimension"),
            (("type: short", "type: block"), "type"),
            (("encoding: raw", "encoding: ascii"), "raw nor gzip"),
            (("encoding: raw", "encoding: gzip"), "compressed values"),
            (("endian: little", "endian: middle"), "endian"),
            (("encoding: raw", "byte skip: -1\nencoding: raw"), "skips"),
            (("encoding: raw", "kinds: RGB-color domain domain\nencoding: raw"), "colours"),
            (("encoding: raw", "data file: ../v.raw\nencoding: raw"), "same folder"),
            (("encoding: raw", "data file: /etc/passwd\nencoding: raw"), "same folder"),
            (("encoding: raw", "data file: LIST\nencoding: raw"), "LIST"),
            (("(0.5,0,0)", "(0.5,0,x)"), "space directions"),
            (("(0.5,0,0)", "(0,0,0)"), "spacing"),
            (("(0.5,0,0)", "(inf,0,0)"), "spacing"),
        ] {
            let (_folder, path) = file(&HEADER.replace(change.0, change.1), &whole);
            let error = read(&path, &OpenOptions::default()).unwrap_err().to_string();
            assert!(error.contains(reason), "{change:?}: {error}");
        }
        let (_folder, path) = file(HEADER, &whole[..11]);
        assert!(read(&path, &OpenOptions::default()).is_err(), "truncated");
        let (_folder, path) = file(&"NRRD0004\n".repeat(200_000), &[]);
        assert!(read(&path, &OpenOptions::default()).is_err(), "a header without end");
    }
}
