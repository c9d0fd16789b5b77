//! NIfTI-1 and NIfTI-2 volumes (`.nii`, `.nii.gz`, `.hdr` with `.img`), read and written back.
//!
//! A volume becomes one sample `[channels, depth, height, width]`: the file's fourth to seventh dimension, then its
//! third, second and first. That is the order of the values in the file, so nothing is moved.
//!
//! ```text
//! value = scl_slope · stored + scl_inter      (slope 0, or not a number: stored values as they are)
//! ```
//!
//! The stored type gives bounds and step of the domain: 8- and 16-bit whole numbers have those of their type, scaled.
//! Wider types and floats have no useful bounds of their own; unless bounds are given, those of the values in the file
//! are taken, with a warning. The header does not say what the values mean: without a given unit they are
//! "intensity".
//!
//! Refused: complex, RGB, 1-bit and 128-bit types, the older Analyze header, offsets inside the header or past the end,
//! sizes that are not positive or too large, spacing that is not a usable number, gzip data that are too large for
//! their file, damaged, or followed by other bytes. A spacing of 0 is taken as 1 and a negative one without its sign,
//! with a warning, as the format's own tools do.
//!
//! What is written keeps geometry, stored type and scaling. Text fields and header extensions are not copied, since
//! they can name a patient; the description says that nocebo wrote the file.
//!
//! Source: nifti1.h (2007) and nifti2.h (2011) of the NIfTI Data Format Working Group.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use nocebo_core::{Domain, DomainConfig, Field, Samples, Unit};

use crate::{DataError, OpenOptions, Warning};

const HEADER_1: usize = 348;
const HEADER_2: usize = 540;
/// Greatest ratio of inflated to stored bytes of a `.nii.gz`; masks reach a few hundred.
pub(super) const RATIO: u64 = 500;
/// Files up to this inflated size may have any ratio.
pub(super) const RATIO_FREE_BYTES: u64 = 64 << 20;
/// Bytes of padding that may follow the values.
const PADDING: u64 = 64 << 10;
const DESCRIPTION: &[u8] = b"written by nocebo; may be perturbed, not for clinical use";

/// Type of the stored values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Stored {
    /// Type, code and bits, as the header has them.
    const ALL: [(Self, i16, i16); 10] = [
        (Self::U8, 2, 8),
        (Self::I16, 4, 16),
        (Self::I32, 8, 32),
        (Self::F32, 16, 32),
        (Self::F64, 64, 64),
        (Self::I8, 256, 8),
        (Self::U16, 512, 16),
        (Self::U32, 768, 32),
        (Self::I64, 1024, 64),
        (Self::U64, 1280, 64),
    ];

    fn code(self) -> (i16, i16) {
        Self::ALL.iter().find(|(stored, ..)| *stored == self).map_or((0, 0), |&(_, code, bits)| (code, bits))
    }

    pub(super) fn bytes(self) -> usize {
        self.code().1 as usize / 8
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// Least and greatest whole number of the type.
    pub(super) fn range(self) -> (f64, f64) {
        match self {
            Self::U8 => (0.0, f64::from(u8::MAX)),
            Self::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
            Self::U16 => (0.0, f64::from(u16::MAX)),
            Self::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
            Self::U32 => (0.0, f64::from(u32::MAX)),
            Self::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            Self::U64 => (0.0, u64::MAX as f64),
            Self::I64 => (i64::MIN as f64, i64::MAX as f64),
            Self::F32 | Self::F64 => (f64::NEG_INFINITY, f64::INFINITY),
        }
    }

    /// The value of little-endian bytes.
    pub(super) fn decode(self, bytes: [u8; 8]) -> f64 {
        let [a, b, c, d, ..] = bytes;
        match self {
            Self::U8 => f64::from(a),
            Self::I8 => f64::from(a.cast_signed()),
            Self::U16 => f64::from(u16::from_le_bytes([a, b])),
            Self::I16 => f64::from(i16::from_le_bytes([a, b])),
            Self::U32 => f64::from(u32::from_le_bytes([a, b, c, d])),
            Self::I32 => f64::from(i32::from_le_bytes([a, b, c, d])),
            Self::U64 => u64::from_le_bytes(bytes) as f64,
            Self::I64 => i64::from_le_bytes(bytes) as f64,
            Self::F32 => f64::from(f32::from_le_bytes([a, b, c, d])),
            Self::F64 => f64::from_le_bytes(bytes),
        }
    }

    /// Little-endian bytes of a value that is in range; the first [`Stored::bytes`] count.
    pub(super) fn encode(self, value: f64) -> [u8; 8] {
        match self {
            Self::F64 => value.to_le_bytes(),
            Self::F32 => {
                let [a, b, c, d] = (value as f32).to_le_bytes();
                [a, b, c, d, 0, 0, 0, 0]
            }
            Self::U64 => (value as u64).to_le_bytes(),
            _ => (value as i64).to_le_bytes(),
        }
    }
}

/// What a header says, apart from texts.
#[derive(Clone, Debug, PartialEq)]
struct Header {
    version: u8,
    /// Byte order of the values.
    big_endian: bool,
    /// Sizes, the fastest first; 1 for dimensions that are not used.
    sides: [u64; 7],
    stored: Stored,
    slope: f64,
    intercept: f64,
    /// First byte of the values.
    offset: u64,
    /// Handedness of the quaternion form, then spacing of each dimension.
    pixdim: [f64; 8],
    units: u8,
    forms: [i16; 2],
    /// Quaternion b, c, d, and offset.
    quaternion: [f64; 6],
    rows: [[f64; 4]; 3],
}

/// A volume with its geometry and the way it is stored.
#[derive(Clone, Debug)]
pub struct Volume {
    header: Header,
    samples: Samples,
    domain: Domain,
    warnings: Vec<Warning>,
}

impl Volume {
    /// One sample `[channels, depth, height, width]` in the unit of the domain.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Unit, bounds and stored step.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// What was assumed while reading.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Distance of voxels in mm along depth, height and width.
    pub fn spacing(&self) -> [f64; 3] {
        let scale = match self.header.units & 7 {
            1 => 1000.0,
            3 => 0.001,
            _ => 1.0,
        };
        [3, 2, 1].map(|axis| self.header.pixdim[axis] * scale)
    }

    /// From voxel (column, row, slice) to the scanner's coordinates, three rows of four numbers: the affine form if the
    /// header has one, else the quaternion form, else the spacing alone.
    pub fn affine(&self) -> [[f64; 4]; 3] {
        let header = &self.header;
        let [_, dx, dy, dz, ..] = header.pixdim;
        let [qform, sform] = header.forms;
        if sform > 0 {
            return header.rows;
        }
        if qform <= 0 {
            return [[dx, 0.0, 0.0, 0.0], [0.0, dy, 0.0, 0.0], [0.0, 0.0, dz, 0.0]];
        }
        let [b, c, d, x, y, z] = header.quaternion;
        let a = (1.0 - b * b - c * c - d * d).max(0.0).sqrt();
        let dz = if header.pixdim[0] < 0.0 { -dz } else { dz };
        let row = |r: [f64; 3], offset: f64| [r[0] * dx, r[1] * dy, r[2] * dz, offset];
        [
            row([a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)], x),
            row([2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)], y),
            row([2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - c * c - b * b], z),
        ]
    }

    /// A volume that comes from no file, such as a phantom: one sample `[channels, depth, height, width]`, spacing in mm
    /// along depth, height and width.
    ///
    /// A domain of at most 65536 equal steps is stored as 16-bit whole numbers with scaling, another as floats.
    ///
    /// # Errors
    ///
    /// When there is not exactly one sample of four dimensions in the domain, a side is above 32767 or a spacing is not
    /// above 0.
    pub fn new(samples: Samples, domain: Domain, spacing: [f64; 3]) -> Result<Self, DataError> {
        domain.check(&samples)?;
        let &[channels, depth, height, width] = samples.shape() else {
            let shape = format!("{:?}", samples.shape());
            return Err(
                nocebo_core::Error::mismatch("shape of a volume", "[channels, depth, height, width]", shape).into()
            );
        };
        let sides = [width, height, depth, channels, 1, 1, 1].map(|side| side as u64);
        if samples.len() != 1 || sides.iter().any(|&side| side > 32767) {
            return Err(nocebo_core::Error::mismatch("volumes", "one, with sides up to 32767", samples.len()).into());
        }
        if let Some(wrong) = spacing.iter().find(|&&spacing| !is_usable_spacing(spacing)) {
            return Err(DataError::InvalidOption { field: "spacing", must_be: "above 0 mm", got: wrong.to_string() });
        }
        let (lower, upper, step) = (domain.lower()[0], domain.upper()[0], domain.resolution()[0]);
        let uniform = matches!(
            domain.config(),
            DomainConfig { lower: Field::Uniform(_), upper: Field::Uniform(_), resolution: Field::Uniform(_), .. }
        );
        let steps = f64::from(upper - lower) / f64::from(step);
        let (stored, slope, intercept) = if uniform && step > 0.0 && steps <= 65535.0 {
            (Stored::I16, f64::from(step), f64::from(lower) + 32768.0 * f64::from(step))
        } else {
            (Stored::F32, 1.0, 0.0)
        };
        let [depth, height, width] = spacing;
        let header = Header {
            version: 1,
            big_endian: false,
            sides,
            stored,
            slope,
            intercept,
            offset: 352,
            pixdim: [1.0, width, height, depth, 1.0, 1.0, 1.0, 1.0],
            units: 2,
            forms: [0, 1],
            quaternion: [0.0; 6],
            rows: [[width, 0.0, 0.0, 0.0], [0.0, height, 0.0, 0.0], [0.0, 0.0, depth, 0.0]],
        };
        Ok(Self { header, samples, domain, warnings: Vec::new() })
    }
}

/// Reads a volume. Of a `.hdr` and `.img` pair either file may be given.
///
/// # Errors
///
/// When a file cannot be read, is none of this format, refused (see the module), damaged or too large, or a value is
/// not finite or outside given bounds.
pub fn read(path: &Path, options: &OpenOptions) -> Result<Volume, DataError> {
    let (header_path, image_path) = pair(path);
    let file = super::file_name(&header_path);
    let mut source = Source::open(&header_path, &file)?;
    let mut warnings = Vec::new();
    let (header, consumed) = Header::read(&mut source, &file, image_path.is_some(), &mut warnings)?;
    let count = header.sides.iter().try_fold(1u64, |product, &side| product.checked_mul(side)).unwrap_or(u64::MAX);
    DataError::check_limit(&file, "voxels", options.limits.values, count)?;
    let values = match image_path {
        None => {
            source.skip(header.offset - consumed, &file)?;
            read_values(source, &header, count, &file)?
        }
        Some(image_path) => {
            let image = super::file_name(&image_path);
            let mut source = Source::open(&image_path, &image)?;
            source.skip(header.offset, &image)?;
            read_values(source, &header, count, &image)?
        }
    };
    if let Some(element) = values.iter().position(|value| !value.is_finite()) {
        return Err(DataError::NonFinite { file, sample: 0, element, value: f64::from(values[element]) });
    }
    let [width, height, depth, channels @ ..] = header.sides.map(|side| side as usize);
    let shape = [channels.iter().product(), depth, height, width];
    let samples = Samples::new(values, &shape)?;
    let domain = header.domain(&samples, options, &mut warnings)?;
    domain.check(&samples)?;
    Ok(Volume { header, samples, domain, warnings })
}

/// Writes `samples` (one of the volume's shape, such as its perturbed values) in the way the volume was stored, into a
/// new file named `.nii` or `.nii.gz`, under a temporary name until it is complete.
///
/// # Errors
///
/// When the samples do not fit the volume's domain, a value is not on the stored grid, the name ends otherwise, or the
/// file exists or cannot be written.
pub fn write(path: &Path, volume: &Volume, samples: &Samples) -> Result<(), DataError> {
    let file = super::file_name(path);
    if samples.len() != 1 {
        return Err(nocebo_core::Error::mismatch("samples of a volume", 1, samples.len()).into());
    }
    volume.domain.check(samples)?;
    let header = &volume.header;
    let size = header.stored.bytes();
    let mut data = Vec::with_capacity(samples.elements() * size);
    for (element, &value) in samples.values().iter().enumerate() {
        let Some(stored) = header.encode(value) else {
            let storage = "with the scaling of this volume";
            return Err(DataError::OffGrid { sample: 0, element, value, storage });
        };
        data.extend(&stored[..size]);
    }
    let bytes = header.bytes();
    let gzip = file.strip_suffix(".nii.gz").is_some();
    if !gzip && file.strip_suffix(".nii").is_none() {
        return Err(DataError::format(&file, "name of a volume to write", ".nii or .nii.gz", "another ending"));
    }
    super::write_new_file(path, |writer| {
        if !gzip {
            writer.write_all(&bytes)?;
            return writer.write_all(&data);
        }
        let mut encoder = GzEncoder::new(writer, Compression::default());
        encoder.write_all(&bytes)?;
        encoder.write_all(&data)?;
        encoder.finish().map(|_| ())
    })
}

/// The header's path, and the image's when it is a file of its own.
fn pair(path: &Path) -> (PathBuf, Option<PathBuf>) {
    let name = super::file_name(path);
    let (stem, gzip) = match name.strip_suffix(".gz") {
        Some(stem) => (stem, ".gz"),
        None => (name.as_str(), ""),
    };
    match stem.strip_suffix(".hdr").or_else(|| stem.strip_suffix(".img")) {
        None => (path.to_owned(), None),
        Some(stem) => {
            let sibling = |ending: &str| path.with_file_name(format!("{stem}{ending}{gzip}"));
            (sibling(".hdr"), Some(sibling(".img")))
        }
    }
}

/// A file, inflated when it is gzip.
enum Source {
    Plain { reader: BufReader<File>, length: u64 },
    Gzip { reader: GzDecoder<BufReader<File>>, stored: u64 },
}

impl Source {
    fn open(path: &Path, file: &str) -> Result<Self, DataError> {
        let opened = File::open(path).map_err(DataError::reading(file))?;
        let length = opened.metadata().map_err(DataError::reading(file))?.len();
        let mut reader = BufReader::new(opened);
        let start = io::BufRead::fill_buf(&mut reader).map_err(DataError::reading(file))?;
        Ok(if start.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip { reader: GzDecoder::new(reader), stored: length }
        } else {
            Self::Plain { reader, length }
        })
    }

    /// Refuses before reading what `total` bytes in all, once inflated, cannot come from.
    fn check_size(&self, total: u64, file: &str) -> Result<(), DataError> {
        match *self {
            Self::Plain { length, .. } if total > length => {
                Err(DataError::format(file, "size", format!("{total} bytes, as the header says"), length))
            }
            Self::Gzip { stored, .. } if total > RATIO_FREE_BYTES => {
                DataError::check_limit(file, "compression ratio", RATIO, total / stored.max(1))
            }
            _ => Ok(()),
        }
    }

    fn fill(&mut self, buffer: &mut [u8], file: &str) -> Result<(), DataError> {
        let filled = match self {
            Self::Plain { reader, .. } => reader.read_exact(buffer),
            Self::Gzip { reader, .. } => reader.read_exact(buffer),
        };
        filled.map_err(|source| damage(source, file))
    }

    fn skip(&mut self, mut bytes: u64, file: &str) -> Result<(), DataError> {
        self.check_size(bytes, file)?;
        let mut buffer = [0; 4096];
        while bytes > 0 {
            let part = bytes.min(buffer.len() as u64) as usize;
            self.fill(&mut buffer[..part], file)?;
            bytes -= part as u64;
        }
        Ok(())
    }

    /// Reads gzip data to their end, which checks their CRC.
    fn finish(self, file: &str) -> Result<(), DataError> {
        let Self::Gzip { mut reader, .. } = self else { return Ok(()) };
        let mut rest = Vec::new();
        let read = (&mut reader).take(PADDING + 1).read_to_end(&mut rest).map_err(|source| damage(source, file))?;
        if read as u64 > PADDING {
            return Err(DataError::format(file, "inflated size", "that of the header", "much more"));
        }
        let mut after = [0];
        if reader.into_inner().read(&mut after).map_err(DataError::reading(file))? > 0 {
            let advice = "compress it again as one piece";
            return Err(DataError::refused(file, "a gzip file with bytes after the compressed data", advice));
        }
        Ok(())
    }
}

fn damage(source: io::Error, file: &str) -> DataError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => DataError::format(file, "content", "a whole file", "a truncated one"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            DataError::format(file, "gzip data", "undamaged data", source)
        }
        _ => DataError::Read { file: file.to_owned(), source },
    }
}

fn read_values(mut source: Source, header: &Header, count: u64, file: &str) -> Result<Vec<f32>, DataError> {
    let size = header.stored.bytes();
    let total = header.offset.saturating_add(count.saturating_mul(size as u64));
    source.check_size(total, file)?;
    let mut values = Vec::with_capacity(count as usize);
    let mut buffer = vec![0; 8192 * size];
    while values.len() < count as usize {
        let part = (count as usize - values.len()).min(8192) * size;
        source.fill(&mut buffer[..part], file)?;
        values.extend(buffer[..part].chunks_exact(size).map(|element| {
            let mut bytes = [0; 8];
            bytes[..size].copy_from_slice(element);
            if header.big_endian {
                bytes[..size].reverse();
            }
            header.value(header.stored.decode(bytes))
        }));
    }
    source.finish(file)?;
    Ok(values)
}

pub(super) fn is_usable_spacing(spacing: f64) -> bool {
    (1e-6..=1e6).contains(&spacing)
}

/// Numbers of a header in its byte order.
struct Fields<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[at..at + N]);
        if self.big_endian {
            bytes.reverse();
        }
        bytes
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.array(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.array(at))
    }

    fn i64(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.array(at))
    }

    fn f32(&self, at: usize) -> f64 {
        f64::from(f32::from_le_bytes(self.array(at)))
    }

    fn f64(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.array(at))
    }
}

impl Header {
    /// The header, and how many bytes it took.
    fn read(
        source: &mut Source,
        file: &str,
        is_pair: bool,
        warnings: &mut Vec<Warning>,
    ) -> Result<(Self, u64), DataError> {
        let kind = || DataError::format(file, "header", "NIfTI-1 or NIfTI-2", "another kind of file");
        let mut bytes = vec![0; HEADER_1];
        source.fill(&mut bytes, file)?;
        let size = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let (version, big_endian) = match (u32::from_le_bytes(size), u32::from_be_bytes(size)) {
            (348, _) => (1, false),
            (_, 348) => (1, true),
            (540, _) => (2, false),
            (_, 540) => (2, true),
            _ => return Err(kind()),
        };
        if version == 2 {
            bytes.resize(HEADER_2, 0);
            source.fill(&mut bytes[HEADER_1..], file)?;
        }
        let magic = if version == 1 { &bytes[344..348] } else { &bytes[4..12] };
        let single = match magic {
            b"n+1\0" | b"n+2\0\r\n\x1a\n" => true,
            b"ni1\0" | b"ni2\0\r\n\x1a\n" => false,
            _ if version == 1 => {
                return Err(DataError::refused(file, "an Analyze 7.5 or unmarked header", "convert it to NIfTI"));
            }
            _ => return Err(kind()),
        };
        if single == is_pair {
            let (expected, got) =
                if single { ("a .hdr and .img pair", "a .nii") } else { ("a .nii", "half of a pair") };
            return Err(DataError::format(file, "kind of NIfTI, by its name", expected, got));
        }
        let fields = Fields { bytes: &bytes, big_endian };
        let mut header = if version == 1 { Self::fields_1(&fields, file)? } else { Self::fields_2(&fields, file)? };
        let least = if single { bytes.len() as u64 + 4 } else { 0 };
        if single && header.offset == 0 {
            header.offset = least;
        }
        if header.offset < least {
            return Err(DataError::format(file, "vox_offset", format!("at least {least}"), header.offset));
        }
        header.check_geometry(file, warnings)?;
        Ok((header, bytes.len() as u64))
    }

    fn fields_1(fields: &Fields<'_>, file: &str) -> Result<Self, DataError> {
        let dim: [i64; 8] = std::array::from_fn(|at| i64::from(fields.i16(40 + 2 * at)));
        let offset = fields.f32(108);
        if !(0.0..=1e9).contains(&offset) || offset.fract() != 0.0 {
            return Err(DataError::format(file, "vox_offset", "a whole number of bytes", offset));
        }
        Ok(Self {
            version: 1,
            big_endian: fields.big_endian,
            sides: sides(dim, file)?,
            stored: stored(fields.i16(70), fields.i16(72), file)?,
            slope: fields.f32(112),
            intercept: fields.f32(116),
            offset: offset as u64,
            pixdim: std::array::from_fn(|at| fields.f32(76 + 4 * at)),
            units: fields.bytes[123],
            forms: [fields.i16(252), fields.i16(254)],
            quaternion: std::array::from_fn(|at| fields.f32(256 + 4 * at)),
            rows: std::array::from_fn(|row| std::array::from_fn(|at| fields.f32(280 + 16 * row + 4 * at))),
        })
    }

    fn fields_2(fields: &Fields<'_>, file: &str) -> Result<Self, DataError> {
        let dim: [i64; 8] = std::array::from_fn(|at| fields.i64(16 + 8 * at));
        let offset = fields.i64(168);
        let Ok(offset) = u64::try_from(offset) else {
            return Err(DataError::format(file, "vox_offset", "a number of bytes", offset));
        };
        let form = |at: usize| i16::try_from(fields.i32(at)).unwrap_or(0);
        Ok(Self {
            version: 2,
            big_endian: fields.big_endian,
            sides: sides(dim, file)?,
            stored: stored(fields.i16(12), fields.i16(14), file)?,
            slope: fields.f64(176),
            intercept: fields.f64(184),
            offset,
            pixdim: std::array::from_fn(|at| fields.f64(104 + 8 * at)),
            units: fields.i32(500) as u8,
            forms: [form(344), form(348)],
            quaternion: std::array::from_fn(|at| fields.f64(352 + 8 * at)),
            rows: std::array::from_fn(|row| std::array::from_fn(|at| fields.f64(400 + 32 * row + 8 * at))),
        })
    }

    /// Replaces what the format gives a meaning to, and refuses the rest.
    fn check_geometry(&mut self, file: &str, warnings: &mut Vec<Warning>) -> Result<(), DataError> {
        if self.slope == 0.0 || !self.slope.is_finite() {
            (self.slope, self.intercept) = (1.0, 0.0);
        }
        if !self.intercept.is_finite() || self.slope.abs() < 1e-30 || self.slope.abs() > 1e30 {
            let got = format!("{} and {}", self.slope, self.intercept);
            return Err(DataError::format(file, "scl_slope and scl_inter", "usable numbers", got));
        }
        for axis in 1..=3 {
            let spacing = &mut self.pixdim[axis];
            let given = *spacing;
            *spacing = if given == 0.0 { 1.0 } else { given.abs() };
            if *spacing != given && self.sides[axis - 1] > 1 {
                let text = format!("`{file}`: the spacing {given} of dimension {axis} is taken as {spacing}");
                warnings.push(Warning::Assumption { text });
            }
            if !is_usable_spacing(*spacing) {
                return Err(DataError::format(file, format!("pixdim[{axis}]"), "a spacing from 1e-6 to 1e6", given));
            }
        }
        let form = if self.forms[1] > 0 { self.rows.as_flattened() } else { &self.quaternion[..] };
        if (self.forms[0] > 0 || self.forms[1] > 0) && form.iter().any(|value| !value.is_finite()) {
            return Err(DataError::format(file, "orientation", "finite numbers", "NaN or infinity"));
        }
        Ok(())
    }

    /// What a stored number means.
    fn value(&self, stored: f64) -> f32 {
        (self.slope * stored + self.intercept) as f32
    }

    /// The bytes of a value, when it can be stored: whole numbers must be met to a thousandth of a step (or the
    /// precision of the value, where that is coarser).
    fn encode(&self, value: f32) -> Option<[u8; 8]> {
        let stored = (f64::from(value) - self.intercept) / self.slope;
        if self.stored.is_float() {
            return Some(self.stored.encode(stored));
        }
        let whole = stored.round();
        let (low, high) = self.stored.range();
        let precision = f64::from(value.abs()) * f64::from(f32::EPSILON) / self.slope.abs();
        let met = (stored - whole).abs() <= precision.max(1e-3) && (low..=high).contains(&whole);
        met.then(|| self.stored.encode(whole))
    }

    fn domain(
        &self,
        samples: &Samples,
        options: &OpenOptions,
        warnings: &mut Vec<Warning>,
    ) -> Result<Domain, DataError> {
        let (low, high) = self.stored.range();
        let of_type = if high <= 65535.0 {
            let (a, b) = (self.value(low), self.value(high));
            (a.min(b), a.max(b))
        } else {
            let (low, high) = samples
                .values()
                .iter()
                .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)));
            // A flat volume still needs two different bounds.
            let high = if low < high { high } else { low + low.abs().max(1.0) };
            if options.bounds.is_none() {
                let text = format!("bounds {low} to {high} are those of the values in the file; give others if known");
                warnings.push(Warning::Assumption { text });
            }
            (low, high)
        };
        let (lower, upper) = options.bounds_or(of_type)?;
        let config = DomainConfig {
            shape: samples.shape().to_vec(),
            unit: options.unit.clone().unwrap_or(Unit::Other("intensity".to_owned())),
            lower: Field::Uniform(lower),
            upper: Field::Uniform(upper),
            resolution: Field::Uniform(if self.stored.is_float() { 0.0 } else { self.slope.abs() as f32 }),
            region: None,
        };
        Ok(config.try_into()?)
    }

    /// The header as little-endian bytes of a single file, up to the first value.
    fn bytes(&self) -> Vec<u8> {
        let (code, bits) = self.stored.code();
        let last = self.sides.iter().rposition(|&side| side > 1).map_or(1, |last| last + 1).max(3);
        let dim = |at: usize| if at == 0 { last as i64 } else { self.sides[at - 1] as i64 };
        let size = if self.version == 1 { HEADER_1 } else { HEADER_2 };
        let offset = size + 4;
        let mut bytes = vec![0; offset];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &(size as i32).to_le_bytes());
        if self.version == 1 {
            put(344, b"n+1\0");
            put(70, &code.to_le_bytes());
            put(72, &bits.to_le_bytes());
            put(123, &[self.units]);
            put(148, DESCRIPTION);
            for at in 0..8 {
                put(40 + 2 * at, &(dim(at) as i16).to_le_bytes());
                put(76 + 4 * at, &(self.pixdim[at] as f32).to_le_bytes());
            }
            for (at, value) in [(108, offset as f64), (112, self.slope), (116, self.intercept)] {
                put(at, &(value as f32).to_le_bytes());
            }
            for (at, form) in self.forms.iter().enumerate() {
                put(252 + 2 * at, &form.to_le_bytes());
            }
            for (at, value) in self.quaternion.iter().chain(self.rows.as_flattened()).enumerate() {
                put(256 + 4 * at, &(*value as f32).to_le_bytes());
            }
        } else {
            put(4, b"n+2\0\r\n\x1a\n");
            put(12, &code.to_le_bytes());
            put(14, &bits.to_le_bytes());
            put(168, &(offset as i64).to_le_bytes());
            put(240, DESCRIPTION);
            put(500, &i32::from(self.units).to_le_bytes());
            for at in 0..8 {
                put(16 + 8 * at, &dim(at).to_le_bytes());
                put(104 + 8 * at, &self.pixdim[at].to_le_bytes());
            }
            for (at, value) in [(176, self.slope), (184, self.intercept)] {
                put(at, &value.to_le_bytes());
            }
            for (at, form) in self.forms.iter().enumerate() {
                put(344 + 4 * at, &i32::from(*form).to_le_bytes());
            }
            for (at, value) in self.quaternion.iter().chain(self.rows.as_flattened()).enumerate() {
                put(352 + 8 * at, &value.to_le_bytes());
            }
        }
        bytes
    }
}

fn sides(dim: [i64; 8], file: &str) -> Result<[u64; 7], DataError> {
    let used = usize::try_from(dim[0]).ok().filter(|used| (1..=7).contains(used));
    let Some(used) = used else {
        return Err(DataError::format(file, "dim[0]", "1 to 7 dimensions", dim[0]));
    };
    let mut sides = [1; 7];
    for axis in 1..=used {
        match u64::try_from(dim[axis]) {
            Ok(side) if side > 0 => sides[axis - 1] = side,
            _ => return Err(DataError::format(file, format!("dim[{axis}]"), "at least 1", dim[axis])),
        }
    }
    Ok(sides)
}

fn stored(code: i16, bits: i16, file: &str) -> Result<Stored, DataError> {
    match Stored::ALL.iter().find(|(_, known, _)| *known == code) {
        Some((stored, _, expected)) if bits == *expected => Ok(*stored),
        Some((_, _, expected)) => Err(DataError::format(file, "bitpix", expected, bits)),
        None => {
            let name = match code {
                1 => "1-bit",
                32 | 1792 | 2048 => "complex",
                128 | 2304 => "RGB",
                1536 => "128-bit float",
                _ => "unknown",
            };
            let what = format!("the {name} data type {code}");
            Err(DataError::refused(file, what, "convert the volume to a real type of 8 to 64 bits"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::tests::shared;

    /// A NIfTI-1 file of type int16 with the given sides and stored values.
    fn header(sides: [u64; 7]) -> Header {
        Header {
            version: 1,
            big_endian: false,
            sides,
            stored: Stored::I16,
            slope: 0.5,
            intercept: -1.0,
            offset: 352,
            pixdim: [1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 1.0, 1.0],
            units: 2,
            forms: [0, 0],
            quaternion: [0.0; 6],
            rows: [[0.0; 4]; 3],
        }
    }

    fn file(header: &Header, data: &[u8]) -> Vec<u8> {
        let mut bytes = header.bytes();
        bytes.extend(data);
        bytes
    }

    fn small() -> Vec<u8> {
        file(&header([2, 1, 1, 1, 1, 1, 1]), &[3, 0, 0xff, 0xff])
    }

    fn read_bytes(name: &str, bytes: &[u8]) -> Result<Volume, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read(&path, &OpenOptions::default())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn with(at: usize, field: &[u8]) -> Vec<u8> {
        let mut bytes = small();
        bytes[at..at + field.len()].copy_from_slice(field);
        bytes
    }

    #[test]
    fn stored_values_are_scaled_and_give_the_domain() {
        let volume = read_bytes("a.nii", &small()).unwrap();
        assert_eq!(
            (volume.samples().shape(), volume.samples().values()),
            ([1, 1, 1, 2].as_slice(), [0.5, -1.5].as_slice())
        );
        let domain = volume.domain();
        assert_eq!((domain.lower()[0], domain.upper()[0], domain.resolution()[0]), (-16385.0, 16382.5, 0.5));
        assert_eq!((volume.spacing(), volume.warnings()), ([4.0, 3.0, 2.0], [].as_slice()));
    }

    #[test]
    fn every_stored_type_is_read_and_written() {
        for (stored, _, _) in Stored::ALL {
            let header = Header { stored, slope: 1.0, intercept: 0.0, ..header([2, 1, 1, 1, 1, 1, 1]) };
            let data: Vec<u8> =
                [7.0, 100.0].iter().flat_map(|&value| stored.encode(value)[..stored.bytes()].to_vec()).collect();
            let volume = read_bytes("a.nii", &file(&header, &data)).unwrap();
            assert_eq!(volume.samples().values(), [7.0, 100.0], "{stored:?}");
            assert_eq!(volume.domain().resolution()[0], if stored.is_float() { 0.0 } else { 1.0 });
            assert_eq!(volume.warnings().len(), usize::from(stored.bytes() > 2), "{stored:?}");
        }
    }

    #[test]
    fn other_byte_order_version_two_gzip_and_pairs_are_read() {
        // The same numbers, each field turned around.
        let mut swapped = small();
        for at in [0, 108, 112, 116].into_iter().chain((76..108).step_by(4)) {
            swapped[at..at + 4].reverse();
        }
        for at in (40..56).step_by(2).chain([70, 72, 252, 254, 352, 354]) {
            swapped[at..at + 2].reverse();
        }
        let second = Header { version: 2, offset: 544, ..header([2, 1, 1, 1, 1, 1, 1]) };
        let second = file(&second, &[3, 0, 0xff, 0xff]);
        for (name, bytes) in [("a.nii", swapped), ("a.nii", second), ("a.nii.gz", gzip(&small()))] {
            assert_eq!(read_bytes(name, &bytes).unwrap().samples().values(), [0.5, -1.5]);
        }
        let folder = tempfile::tempdir().unwrap();
        let mut pair = with(344, b"ni1\0");
        pair[108..112].copy_from_slice(&0f32.to_le_bytes());
        std::fs::write(folder.path().join("b.hdr"), &pair[..348]).unwrap();
        let missing = read(&folder.path().join("b.hdr"), &OpenOptions::default()).unwrap_err();
        assert!(matches!(&missing, DataError::Read { file, .. } if file == "b.img"), "{missing}");
        std::fs::write(folder.path().join("b.img"), [3, 0, 0xff, 0xff]).unwrap();
        for name in ["b.hdr", "b.img"] {
            let volume = read(&folder.path().join(name), &OpenOptions::default()).unwrap();
            assert_eq!(volume.samples().values(), [0.5, -1.5]);
        }
        assert!(read_bytes("a.nii", &pair).is_err());
    }

    #[test]
    fn unusable_headers_are_refused() {
        let cases: [(usize, Vec<u8>); 22] = [
            (0, 349i32.to_le_bytes().to_vec()),
            (40, 0i16.to_le_bytes().to_vec()),
            (40, 8i16.to_le_bytes().to_vec()),
            (40, 9i16.to_le_bytes().to_vec()),
            (40, (-1i16).to_le_bytes().to_vec()),
            (42, 0i16.to_le_bytes().to_vec()),
            (44, (-5i16).to_le_bytes().to_vec()),
            (42, [side_limit(), side_limit(), side_limit()].concat()),
            (42, 3i16.to_le_bytes().to_vec()),
            (70, 32i16.to_le_bytes().to_vec()),
            (70, 128i16.to_le_bytes().to_vec()),
            (70, 1536i16.to_le_bytes().to_vec()),
            (70, 1i16.to_le_bytes().to_vec()),
            (72, 8i16.to_le_bytes().to_vec()),
            (80, f32::NAN.to_le_bytes().to_vec()),
            (80, f32::INFINITY.to_le_bytes().to_vec()),
            (80, 1e-40f32.to_le_bytes().to_vec()),
            (108, f32::NAN.to_le_bytes().to_vec()),
            (108, 1e30f32.to_le_bytes().to_vec()),
            (108, 300f32.to_le_bytes().to_vec()),
            (108, 400f32.to_le_bytes().to_vec()),
            (344, b"\0\0\0\0".to_vec()),
        ];
        for (at, field) in cases {
            let error = read_bytes("a.nii", &with(at, &field)).unwrap_err();
            let typed =
                matches!(error, DataError::Format { .. } | DataError::Refused { .. } | DataError::TooLarge { .. });
            assert!(typed, "{at} {field:?}: {error}");
        }
        for length in 0..small().len() {
            assert!(read_bytes("a.nii", &small()[..length]).is_err(), "{length}");
        }
    }

    fn side_limit() -> Vec<u8> {
        i16::MAX.to_le_bytes().to_vec()
    }

    #[test]
    fn fields_with_a_default_take_it() {
        for slope in [0.0, f32::NAN, f32::INFINITY] {
            let volume = read_bytes("a.nii", &with(112, &slope.to_le_bytes())).unwrap();
            assert_eq!(volume.samples().values(), [3.0, -1.0], "{slope}");
        }
        let zero = read_bytes("a.nii", &with(80, &0f32.to_le_bytes())).unwrap();
        assert_eq!((zero.spacing()[2], zero.warnings().len()), (1.0, 1));
        let negative = read_bytes("a.nii", &with(80, &(-2f32).to_le_bytes())).unwrap();
        assert_eq!((negative.spacing()[2], negative.warnings().len()), (2.0, 1));
        assert_eq!(read_bytes("a.nii", &with(108, &0f32.to_le_bytes())).unwrap().samples().values(), [0.5, -1.5]);
        assert_eq!(read_bytes("a.nii", &with(123, &[3])).unwrap().spacing()[2], 0.002);
        assert!(read_bytes("a.nii", &with(116, &f32::NAN.to_le_bytes())).is_err());
    }

    #[test]
    fn damaged_and_oversized_gzip_is_refused() {
        let good = gzip(&small());
        for length in 0..good.len() {
            assert!(read_bytes("a.nii.gz", &good[..length]).is_err(), "{length}");
        }
        let mut wrong_crc = good.clone();
        let at = wrong_crc.len() - 8;
        wrong_crc[at] ^= 1;
        assert!(read_bytes("a.nii.gz", &wrong_crc).unwrap_err().to_string().contains("gzip"));
        assert!(matches!(read_bytes("a.nii.gz", &[&good[..], b"x"].concat()), Err(DataError::Refused { .. })));
        assert!(matches!(read_bytes("a.nii.gz", &[&good[..], &good].concat()), Err(DataError::Refused { .. })));
        // 200 MiB of zeros in 200 kB: behind a header that announces them, and behind one that does not.
        let zeros = vec![0; 200 << 20];
        let bomb = gzip(&file(&header([512, 512, 400, 1, 1, 1, 1]), &zeros));
        assert!(matches!(read_bytes("a.nii.gz", &bomb), Err(DataError::TooLarge { limit: RATIO, .. })));
        let hidden = gzip(&[&small()[..], &zeros].concat());
        assert!(matches!(read_bytes("a.nii.gz", &hidden), Err(DataError::Format { .. })));
    }

    #[test]
    fn values_off_the_stored_grid_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let volume = read_bytes("a.nii", &small()).unwrap();
        let written = |values: Vec<f32>, name: &str| {
            let samples = Samples::new(values, &[1, 1, 1, 2]).unwrap();
            write(&folder.path().join(name), &volume, &samples)
        };
        assert!(matches!(written(vec![0.5, 0.7], "a.nii"), Err(DataError::OffGrid { element: 1, .. })));
        assert!(matches!(written(vec![0.5, 1e9], "a.nii"), Err(DataError::Core(_))));
        assert!(matches!(written(vec![0.5, 1.0], "a.img"), Err(DataError::Format { .. })));
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
        written(vec![0.5, 1.0], "a.nii").unwrap();
        assert!(matches!(written(vec![0.5, 1.0], "a.nii"), Err(DataError::Exists { .. })));
        let text = String::from_utf8_lossy(&std::fs::read(folder.path().join("a.nii")).unwrap()).into_owned();
        assert!(text.contains("written by nocebo"));
    }

    #[test]
    fn a_volume_made_here_is_stored_on_its_grid() {
        let folder = tempfile::tempdir().unwrap();
        let domain: Domain = DomainConfig {
            shape: vec![1, 2, 1, 2],
            unit: Unit::Hounsfield,
            lower: Field::Uniform(-1024.0),
            upper: Field::Uniform(3071.0),
            resolution: Field::Uniform(1.0),
            region: None,
        }
        .try_into()
        .unwrap();
        let samples = Samples::new(vec![-1024.0, 40.0, 3071.0, 0.0], &[1, 2, 1, 2]).unwrap();
        let volume = Volume::new(samples.clone(), domain.clone(), [5.0, 0.7, 0.8]).unwrap();
        let path = folder.path().join("ct.nii.gz");
        write(&path, &volume, &samples).unwrap();
        let options =
            OpenOptions { bounds: Some((-1024.0, 3071.0)), unit: Some(Unit::Hounsfield), ..OpenOptions::default() };
        let again = read(&path, &options).unwrap();
        assert_eq!((again.samples(), again.domain()), (&samples, &domain));
        assert!((again.spacing()[1] - 0.7).abs() < 1e-6 && again.affine()[2][2] == 5.0);
        assert!(Volume::new(samples.clone(), domain.clone(), [0.0, 1.0, 1.0]).is_err());
        let float = DomainConfig { resolution: Field::Uniform(0.0), ..domain.config().clone() }.try_into().unwrap();
        let volume = Volume::new(samples.clone(), float, [1.0; 3]).unwrap();
        let path = folder.path().join("float.nii");
        write(&path, &volume, &samples).unwrap();
        assert_eq!(read(&path, &OpenOptions::default()).unwrap().samples(), &samples);
    }

    #[test]
    fn real_volumes_agree_with_nibabel() {
        // Sum, least and greatest value, and the first row of the affine, by nibabel 5.4.
        let expected = [
            ("anatomical.nii", [1, 25, 41, 33], 284_166_082.0, -610.0, 30393.0, [-2.0, 0.0, 0.0, 32.0]),
            ("functional.nii", [20, 3, 21, 17], 77_913_290.362_923, 629.826_2, 5_571.622, [-4.0, 0.0, 0.0, 32.0]),
            ("example4d.nii.gz", [2, 24, 96, 128], 101_985_356.0, 0.0, 1162.0, [-2.0, 0.0, 0.0, 117.8551]),
            ("example_nifti2.nii.gz", [2, 12, 20, 32], 6_926_802.0, 46.0, 757.0, [-2.0, 0.0, 0.0, 117.8551]),
            ("standard.nii.gz", [1, 7, 5, 4], 7650.0, 0.0, 255.0, [1.0, 0.0, 0.0, 0.0]),
            ("reoriented_anat_moved.nii", [1, 22, 26, 21], 32_739_769.449, 0.0, 21_199.936, [4.0, 0.0, 0.0, -35.29784]),
        ];
        for (name, shape, sum, low, high, row) in expected {
            let Some(path) = shared(&format!("nifti-nibabel/images/{name}")) else { continue };
            let volume = read(&path, &OpenOptions::default()).unwrap();
            let values = volume.samples().values();
            assert_eq!(volume.samples().shape(), shape, "{name}");
            let total: f64 = values.iter().map(|&value| f64::from(value)).sum();
            assert!((total / sum - 1.0).abs() < 1e-6, "{name}: {total}");
            let least = values.iter().copied().fold(f32::INFINITY, f32::min);
            let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!((least - low).abs() < 1e-3 && (greatest - high).abs() < 1e-3, "{name}: {least} {greatest}");
            for (got, expected) in volume.affine()[0].into_iter().zip(row) {
                assert!((got - expected).abs() < 1e-4, "{name}: {:?}", volume.affine());
            }
        }
        for (name, needle) in [
            ("resampled_anat_moved.nii", "not finite"),
            ("nifti1.hdr", "nifti1.img"),
            ("nifti2.hdr", "nifti2.img"),
            ("analyze.hdr", "Analyze"),
        ] {
            let Some(path) = shared(&format!("nifti-nibabel/images/{name}")) else { continue };
            let error = read(&path, &OpenOptions::default()).unwrap_err().to_string();
            assert!(error.contains(needle), "{name}: {error}");
        }
    }

    #[test]
    fn quaternion_and_affine_form_of_a_real_file_agree() {
        let Some(path) = shared("nifti-nibabel/images/example4d.nii.gz") else { return };
        let mut volume = read(&path, &OpenOptions::default()).unwrap();
        let rows = volume.affine();
        volume.header.forms = [1, 0];
        for (a, b) in volume.affine().as_flattened().iter().zip(rows.as_flattened()) {
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
    }

    #[test]
    fn real_volumes_survive_writing() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["anatomical.nii", "functional.nii", "example_nifti2.nii.gz", "standard.nii.gz"] {
            let Some(path) = shared(&format!("nifti-nibabel/images/{name}")) else { continue };
            let volume = read(&path, &OpenOptions::default()).unwrap();
            let copy = folder.path().join(name);
            // A change by one stored step.
            let mut changed = volume.samples().clone();
            let step = volume.domain().resolution()[0];
            let first = changed.values()[0];
            changed.values_mut()[0] = if first > 0.0 { first - step } else { first + step };
            write(&copy, &volume, &changed).unwrap();
            let again = read(&copy, &OpenOptions::default()).unwrap();
            for (a, b) in again.samples().values().iter().zip(changed.values()) {
                assert!((a - b).abs() <= 1e-6 * b.abs(), "{name}: {a} {b}");
            }
            assert_eq!(
                (again.domain(), again.spacing(), again.affine()),
                (volume.domain(), volume.spacing(), volume.affine())
            );
        }
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(at in 0usize..356, byte: u8, compressed: bool) {
            let mut bytes = small();
            bytes[at] = byte;
            let (name, bytes) = if compressed { ("a.nii.gz", gzip(&bytes)) } else { ("a.nii", bytes) };
            let _ = read_bytes(name, &bytes);
        }
    }
}
