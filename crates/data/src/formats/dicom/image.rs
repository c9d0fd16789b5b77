//! One image: its attributes, and its pixels from stored bits to physical values.
//!
//! ```text
//! bits → stored number → modality LUT, or slope · stored + intercept → value
//!                      → palette                                     → red, green, blue
//!        luminance and chrominance                                   → red, green, blue
//! ```
//!
//! The window that a file suggests for display is reported, not applied: values stay in physical units.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::codecs;
use super::elements::{File, Group, trimmed};
use super::tags::{self, Tag};
use crate::DataError;

/// Units that an image may name.
const UNITS: [&str; 8] = ["HU", "OD", "BQML", "CNTS", "PROPCNTS", "PCNT", "GML", "CM2ML"];

/// An image of a DICOM file, without anything that says who the patient is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Image {
    /// `[channels, frames, rows, columns]`; 1 channel, or 3 for red, green and blue.
    pub shape: [usize; 4],
    /// Values in the order of `shape`, in physical units; empty where only the header was asked for.
    #[serde(skip)]
    pub values: Vec<f32>,
    /// Modality, such as `CT`.
    pub modality: String,
    /// Symbol of the unit; none where values are grey or colour levels.
    pub unit: Option<String>,
    /// Least and greatest value that the stored type can hold; those of the values where it is a float.
    pub bounds: (f64, f64),
    /// How stored numbers become values.
    pub storage: Storage,
    /// Whether the least value is shown white.
    pub inverted: bool,
    /// Millimetres between rows and between columns.
    pub spacing: Option<[f64; 2]>,
    /// Position of the first pixel in millimetres, in the patient's coordinates.
    pub position: Option<[f64; 3]>,
    /// Centre and width of the windows that the file suggests.
    pub windows: Vec<[f64; 2]>,
    /// Digest of the patient's identifier.
    pub patient: Option<String>,
    /// Digest of the study's identifier.
    pub study: Option<String>,
    /// Digest of the image's identifier.
    pub instance: Option<String>,
    /// Whether the pixels went through a compression that loses information.
    pub lossy: bool,
    /// Whether the file says that names or dates are burned into the picture.
    pub burned_in: bool,
    /// What was noticed.
    pub warnings: Vec<String>,
    /// Attributes that a derived image may keep.
    pub(super) kept: Vec<(Tag, [u8; 2], String)>,
}

/// How the numbers of a file are stored.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub enum Storage {
    /// Whole numbers; a value is `slope · stored + intercept`.
    Whole {
        /// Bits of a number, 1 to 32.
        bits: u16,
        /// Whether they are two's complement.
        signed: bool,
        /// Physical units a step.
        slope: f64,
        /// Physical value of 0.
        intercept: f64,
    },
    /// Whole numbers that a table turns into values.
    Table,
    /// Floats.
    Float,
}

/// Values, their bounds, and how they are stored.
type Pixels = (Vec<f32>, (f64, f64), Storage);

/// How pixels lie in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) frames: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) samples: usize,
    pub(super) allocated: u16,
    pub(super) stored: u16,
    pub(super) signed: bool,
    planar: bool,
    colours: Colours,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Colours {
    Grey,
    Inverted,
    Rgb,
    Ybr,
    /// Chrominance of two pixels at a time.
    Ybr422,
    Palette,
}

impl Layout {
    pub(super) fn frame_values(&self) -> usize {
        self.rows * self.columns * self.samples
    }

    /// A stored number from the low bits of a word.
    fn number(&self, word: i32) -> i64 {
        let shift = 32 - u32::from(self.stored);
        if self.signed { i64::from(word << shift >> shift) } else { i64::from((word as u32) << shift >> shift) }
    }
}

/// Decodes the bytes of a file, called `name` in messages, with at most `limit` values; without its pixels where only the
/// header is wanted.
pub(super) fn decode(name: &str, bytes: &[u8], limit: u64, with_pixels: bool) -> Result<Image, DataError> {
    let file = File::parse(name, bytes)?;
    let root = file.root();
    if file.class == "1.2.840.10008.1.3.10" {
        let advice = "give the folder, or a file of it: references to other files are never followed";
        return Err(DataError::refused(name, "an index of files (DICOMDIR)", advice));
    }
    let float = [(tags::FLOAT_PIXELS, 4), (tags::DOUBLE_PIXELS, 8)].into_iter().find(|(tag, _)| file.has(*tag));
    if float.is_none() && !file.has(tags::PIXEL_DATA) {
        let got = root
            .text(tags::MODALITY)
            .map_or("none".to_owned(), |text| format!("an object of modality {}", code(&text)));
        return Err(DataError::format(name, "content", "an image with pixel data", got));
    }
    let layout = layout(name, &root, float, limit)?;
    let mut warnings = file.warnings.clone();
    if with_pixels && file.has(tags::PIXEL_DATA) && root.text(tags::PHOTOMETRIC).is_none() {
        warnings.push("does not say how pixels are shown; taken as grey".to_owned());
    }
    let (values, bounds, storage) = if let Some((tag, size)) = float {
        floats(name, &file, tag, size, &layout)?
    } else {
        wholes(name, &file, &layout, with_pixels, &mut warnings)?
    };
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        let value = f64::from(values[at]);
        return Err(DataError::NonFinite { file: name.to_owned(), sample: 0, element: at, value });
    }
    let channels = if layout.samples == 3 || layout.colours == Colours::Palette { 3 } else { 1 };
    let modality = root.text(tags::MODALITY).map_or("OT".to_owned(), |text| code(&text));
    Ok(Image {
        shape: [channels, layout.frames, layout.rows, layout.columns],
        unit: unit_of(&root, &modality, channels),
        modality,
        values,
        bounds,
        storage,
        inverted: layout.colours == Colours::Inverted,
        spacing: spacing(&root, &mut warnings)?,
        position: root.decimals(tags::IMAGE_POSITION).ok().and_then(|position| position.try_into().ok()),
        windows: windows(&root),
        patient: digest(&root, tags::PATIENT_ID),
        study: digest(&root, tags::STUDY_INSTANCE),
        instance: digest(&root, tags::SOP_INSTANCE),
        lossy: root.text(tags::LOSSY).as_deref() == Some("01") || codecs::is_lossy(&file.syntax),
        burned_in: root.text(tags::BURNED_IN).as_deref() == Some("YES"),
        warnings,
        kept: kept(&root),
    })
}

/// Letters, digits and spaces of a code; what else is in it is left out.
fn code(text: &str) -> String {
    let plain = |c: &char| c.is_ascii_uppercase() || c.is_ascii_digit();
    let code: String = text.chars().filter(plain).take(8).collect();
    if code.is_empty() { "OT".to_owned() } else { code }
}

fn digest(root: &Group<'_>, tag: Tag) -> Option<String> {
    let text = trimmed(root.bytes(tag)?);
    let digest = Sha256::digest(text);
    let number = digest.iter().take(16).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
    (!text.is_empty()).then(|| format!("{number:032x}"))
}

fn kept(root: &Group<'_>) -> Vec<(Tag, [u8; 2], String)> {
    let plain = |text: &String| {
        text.len() <= 128
            && text.split('\\').all(|part| {
                let part = part.trim();
                // A number, or a code as short as HFS, PA or HU: too short to name anybody.
                part.parse::<f64>().is_ok() || part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_uppercase())
            })
    };
    tags::KEPT.iter().filter_map(|&(tag, vr)| Some((tag, vr, root.text(tag).filter(plain)?))).collect()
}

fn unit_of(root: &Group<'_>, modality: &str, channels: usize) -> Option<String> {
    if channels == 3 {
        return None;
    }
    let given = [tags::RESCALE_TYPE, tags::UNITS].into_iter().find_map(|tag| {
        let text = root.text(tag)?;
        UNITS.into_iter().find(|unit| *unit == text)
    });
    match modality {
        "CT" => Some(given.unwrap_or("HU").to_owned()),
        "RTDOSE" => Some("Gy".to_owned()),
        _ => given.map(str::to_owned),
    }
}

fn spacing(root: &Group<'_>, warnings: &mut Vec<String>) -> Result<Option<[f64; 2]>, DataError> {
    let shared = root.items(tags::SHARED_GROUPS).next();
    let measures = shared.and_then(|groups| groups.items(tags::PIXEL_MEASURES).next());
    let mut found = root.decimals(tags::PIXEL_SPACING)?;
    if let (true, Some(measures)) = (found.is_empty(), measures) {
        found = measures.decimals(tags::PIXEL_SPACING)?;
    }
    if found.is_empty() {
        found = root.decimals(tags::IMAGER_PIXEL_SPACING)?;
    }
    match found[..] {
        [] => Ok(None),
        [rows, columns] if rows > 0.0 && columns > 0.0 => Ok(Some([rows, columns])),
        _ => {
            warnings.push("has a pixel spacing that is not two numbers above 0; it is ignored".to_owned());
            Ok(None)
        }
    }
}

fn windows(root: &Group<'_>) -> Vec<[f64; 2]> {
    let centres = root.decimals(tags::WINDOW_CENTER).unwrap_or_default();
    let widths = root.decimals(tags::WINDOW_WIDTH).unwrap_or_default();
    centres.into_iter().zip(widths).filter(|(_, width)| *width > 0.0).map(|(centre, width)| [centre, width]).collect()
}

fn layout(name: &str, root: &Group<'_>, float: Option<(Tag, usize)>, limit: u64) -> Result<Layout, DataError> {
    let needed = |tag: Tag| root.short(tag)?.ok_or_else(|| root.wrong(tag, "a number", "none"));
    let (rows, columns) = (needed(tags::ROWS)?, needed(tags::COLUMNS)?);
    let samples = root.short(tags::SAMPLES_PER_PIXEL)?.unwrap_or(1);
    let allocated = needed(tags::BITS_ALLOCATED)?;
    let stored = root.short(tags::BITS_STORED)?.unwrap_or(allocated);
    let high = root.short(tags::HIGH_BIT)?.unwrap_or(stored.saturating_sub(1));
    let frames = match root.text(tags::FRAMES) {
        None => 1,
        Some(text) => match text.parse::<u64>() {
            Ok(frames @ 1..) if i32::try_from(frames).is_ok() => frames,
            _ => return Err(root.wrong(tags::FRAMES, "a number of frames from 1", "another text")),
        },
    };
    if rows == 0 || columns == 0 {
        return Err(root.wrong(tags::ROWS, "rows and columns from 1", format!("{rows} and {columns}")));
    }
    let values = u64::from(rows) * u64::from(columns) * u64::from(samples);
    DataError::check_limit(name, "values of the image", limit, values.saturating_mul(frames))?;
    let bits = match float {
        Some((_, size)) => allocated as usize == 8 * size,
        None => matches!(allocated, 1 | 8 | 16 | 32),
    };
    if !bits {
        return Err(root.wrong(tags::BITS_ALLOCATED, "1, 8, 16 or 32 bits (32 or 64 of floats)", allocated));
    }
    if float.is_none() && (stored == 0 || stored > allocated || high.checked_add(1) != Some(stored)) {
        let got = format!("{stored} bits of {allocated}, up to bit {high}");
        return Err(root.wrong(tags::BITS_STORED, "the lowest bits of those allocated", got));
    }
    let photometric = root.text(tags::PHOTOMETRIC).unwrap_or_else(|| "MONOCHROME2".to_owned());
    let colours = match (photometric.as_str(), samples) {
        ("MONOCHROME2", 1) => Colours::Grey,
        ("MONOCHROME1", 1) => Colours::Inverted,
        ("PALETTE COLOR", 1) => Colours::Palette,
        // The wavelet colours of JPEG 2000 are undone by its decoder.
        ("RGB" | "YBR_RCT" | "YBR_ICT", 3) => Colours::Rgb,
        ("YBR_FULL", 3) => Colours::Ybr,
        ("YBR_FULL_422", 3) => Colours::Ybr422,
        _ => {
            let expected = "grey, palette, RGB or YBR_FULL with 1 or 3 samples a pixel";
            return Err(root.wrong(tags::PHOTOMETRIC, expected, format!("another kind, {samples} samples")));
        }
    };
    Ok(Layout {
        frames: frames as usize,
        rows: usize::from(rows),
        columns: usize::from(columns),
        samples: usize::from(samples),
        allocated,
        stored,
        signed: root.short(tags::PIXEL_REPRESENTATION)? == Some(1),
        planar: root.short(tags::PLANAR)? == Some(1),
        colours,
    })
}

fn floats(name: &str, file: &File<'_>, tag: Tag, size: usize, layout: &Layout) -> Result<Pixels, DataError> {
    let bytes = file.bytes(tag).unwrap_or_default();
    let expected = layout.frames * layout.frame_values() * size;
    if bytes.len() != expected || layout.samples != 1 {
        return Err(DataError::format(name, "float pixels", format!("{expected} bytes"), bytes.len()));
    }
    let value = |chunk: &[u8]| {
        let mut chunk = chunk.to_vec();
        if file.big_endian {
            chunk.reverse();
        }
        match chunk[..] {
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            _ => f32::NAN,
        }
    };
    let values: Vec<f32> = bytes.chunks_exact(size).map(value).collect();
    let bounds = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
        (low.min(f64::from(value)), high.max(f64::from(value)))
    });
    Ok((values, bounds, Storage::Float))
}

fn wholes(
    name: &str,
    file: &File<'_>,
    layout: &Layout,
    with_pixels: bool,
    warnings: &mut Vec<String>,
) -> Result<Pixels, DataError> {
    let meaning = Meaning::of(file, layout)?;
    let (bounds, storage) = meaning.describe(layout);
    if !(bounds.0 < bounds.1 && (bounds.1 as f32).is_finite() && (bounds.0 as f32).is_finite()) {
        let got = format!("{} to {}", bounds.0, bounds.1);
        return Err(DataError::format(name, "values of the stored type", "two different finite bounds", got));
    }
    if !with_pixels {
        return Ok((Vec::new(), bounds, storage));
    }
    let channels = meaning.channels(layout);
    let positions = layout.frames * layout.rows * layout.columns;
    let mut values = vec![0.0; channels * positions];
    let frame = layout.rows * layout.columns;
    let mut put = |at: usize, words: &[i32]| {
        for position in 0..frame {
            for channel in 0..channels {
                let word = words[if layout.samples == 1 { position } else { position * layout.samples + channel }];
                values[channel * positions + at * frame + position] =
                    meaning.value(layout.number(word), channel) as f32;
            }
        }
    };
    if file.fragments().is_some() || codecs::is_compressed(&file.syntax) {
        let fragments = file.fragments().unwrap_or_default();
        for (at, bytes) in codecs::frames(name, &fragments, layout.frames)?.iter().enumerate() {
            let mut words = codecs::decode(name, &file.syntax, bytes, layout)?;
            if matches!(layout.colours, Colours::Ybr | Colours::Ybr422) {
                to_rgb(&mut words);
            }
            put(at, &words);
        }
    } else {
        let bytes = native(name, file, layout, warnings)?;
        for at in 0..layout.frames {
            let mut words = unpack(&bytes, at, layout, file.big_endian);
            if matches!(layout.colours, Colours::Ybr | Colours::Ybr422) {
                to_rgb(&mut words);
            }
            put(at, &words);
        }
    }
    Ok((values, bounds, storage))
}

/// The pixels of an uncompressed file, as long as they must be.
fn native<'a>(
    name: &str,
    file: &'a File<'_>,
    layout: &Layout,
    warnings: &mut Vec<String>,
) -> Result<Cow<'a, [u8]>, DataError> {
    let bytes = file.bytes(tags::PIXEL_DATA).unwrap_or_default();
    let values = (layout.frames * layout.frame_values()) as u64;
    // Of two pixels side by side with common chrominance, four numbers are stored instead of six.
    let values = if layout.colours == Colours::Ybr422 { values / 3 * 2 } else { values };
    let expected = (values * u64::from(layout.allocated)).div_ceil(8);
    let got = bytes.len() as u64;
    if got < expected {
        return Err(DataError::format(name, "pixel data", format!("{expected} bytes; the file is cut short"), got));
    }
    if got > expected + expected % 2 {
        warnings.push(format!("has {} bytes after its pixels; they are ignored", got - expected));
    }
    if layout.colours == Colours::Ybr422 && (layout.columns % 2 == 1 || layout.allocated != 8) {
        return Err(DataError::format(
            name,
            "pixels with common chrominance",
            "an even width of 8 bits",
            layout.columns,
        ));
    }
    if file.big_endian && layout.allocated == 8 && file.has_pixels_in_words() {
        // Bytes that are declared as words of 16 bits change places in pairs.
        return Ok(Cow::Owned(bytes.chunks(2).flat_map(|pair| pair.iter().rev().copied()).collect()));
    }
    Ok(Cow::Borrowed(bytes))
}

/// The words of one frame, the samples of a pixel together.
fn unpack(bytes: &[u8], frame: usize, layout: &Layout, big_endian: bool) -> Vec<i32> {
    let values = layout.frame_values();
    let positions = layout.rows * layout.columns;
    let word = |at: usize| match layout.allocated {
        1 => i32::from(bytes[at / 8] >> (at % 8) & 1),
        8 => i32::from(bytes[at]),
        16 if big_endian => i32::from(u16::from_be_bytes([bytes[2 * at], bytes[2 * at + 1]])),
        16 => i32::from(u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]])),
        _ => {
            let four = [bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]];
            if big_endian { i32::from_be_bytes(four) } else { i32::from_le_bytes(four) }
        }
    };
    if layout.colours == Colours::Ybr422 {
        let start = frame * positions * 2;
        return (0..positions)
            .flat_map(|position| {
                let pair = start + position / 2 * 4;
                [word(pair + position % 2), word(pair + 2), word(pair + 3)]
            })
            .collect();
    }
    let start = frame * values;
    if layout.planar && layout.samples > 1 {
        let place = |at: usize| start + at % layout.samples * positions + at / layout.samples;
        return (0..values).map(|at| word(place(at))).collect();
    }
    (0..values).map(|at| word(start + at)).collect()
}

/// Red, green and blue of 8 bits from luminance and chrominance (PS3.3 C.7.6.3.1.2), rounded half up.
fn to_rgb(words: &mut [i32]) {
    for pixel in words.chunks_exact_mut(3) {
        let [luminance, blue, red] = [0, 1, 2].map(|at| f64::from(pixel[at]));
        let (blue, red) = (blue - 128.0, red - 128.0);
        let converted = [
            luminance + 1.402 * red,
            luminance - 0.114 * 1.772 / 0.587 * blue - 0.299 * 1.402 / 0.587 * red,
            luminance + 1.772 * blue,
        ];
        for (word, value) in pixel.iter_mut().zip(converted) {
            *word = (value + 0.5).floor().clamp(0.0, 255.0) as i32;
        }
    }
}

/// What stored numbers mean.
enum Meaning {
    Scale {
        slope: f64,
        intercept: f64,
    },
    /// Values of numbers from `first` on, for each channel.
    Table {
        first: i64,
        channels: Vec<Vec<u16>>,
        bits: u16,
    },
}

impl Meaning {
    fn of(file: &File<'_>, layout: &Layout) -> Result<Self, DataError> {
        let root = file.root();
        if layout.colours == Colours::Palette {
            let mut first = 0;
            let mut bits = 8;
            let mut channels = Vec::new();
            for (descriptor, data) in tags::PALETTES {
                let table = Table::of(&root, descriptor, data, layout)?;
                (first, bits) = (table.first, table.bits);
                channels.push(table.entries);
            }
            return Ok(Self::Table { first, channels, bits });
        }
        if let Some(item) = root.items(tags::MODALITY_LUT_SEQUENCE).next() {
            let table = Table::of(&item, tags::LUT_DESCRIPTOR, tags::LUT_DATA, layout)?;
            return Ok(Self::Table { first: table.first, channels: vec![table.entries], bits: table.bits });
        }
        if layout.samples == 3 {
            return Ok(Self::Scale { slope: 1.0, intercept: 0.0 });
        }
        let dose = root.decimals(tags::DOSE_SCALING)?;
        if let [slope] = dose[..] {
            return Self::scale(&root, slope, 0.0);
        }
        let (slope, intercept) = rescale(&root)?;
        Self::scale(&root, slope, intercept)
    }

    fn scale(root: &Group<'_>, slope: f64, intercept: f64) -> Result<Self, DataError> {
        if slope == 0.0 {
            return Err(root.wrong(tags::RESCALE_SLOPE, "a slope that is not 0", "0"));
        }
        Ok(Self::Scale { slope, intercept })
    }

    fn channels(&self, layout: &Layout) -> usize {
        match self {
            Self::Table { channels, .. } => channels.len(),
            Self::Scale { .. } => layout.samples,
        }
    }

    fn value(&self, number: i64, channel: usize) -> f64 {
        match self {
            Self::Scale { slope, intercept } => number as f64 * slope + intercept,
            // Numbers outside of the table have the value of its nearest entry.
            Self::Table { first, channels, .. } => {
                let entries = &channels[channel];
                f64::from(entries[(number - first).clamp(0, entries.len() as i64 - 1) as usize])
            }
        }
    }

    fn describe(&self, layout: &Layout) -> ((f64, f64), Storage) {
        match *self {
            Self::Scale { slope, intercept } => {
                let (least, greatest) = range(layout.stored, layout.signed);
                let ends = [least, greatest].map(|number| number as f64 * slope + intercept);
                let storage = Storage::Whole { bits: layout.stored, signed: layout.signed, slope, intercept };
                ((ends[0].min(ends[1]), ends[0].max(ends[1])), storage)
            }
            Self::Table { bits, ref channels, .. } if channels.len() == 3 => {
                let storage = Storage::Whole { bits, signed: false, slope: 1.0, intercept: 0.0 };
                ((0.0, range(bits, false).1 as f64), storage)
            }
            Self::Table { ref channels, .. } => {
                let entries = || channels.iter().flatten();
                let bounds = (entries().min().copied().unwrap_or(0), entries().max().copied().unwrap_or(0));
                ((f64::from(bounds.0), f64::from(bounds.1)), Storage::Table)
            }
        }
    }
}

/// Slope and intercept of an image; of one with several frames those that all have in common.
fn rescale(root: &Group<'_>) -> Result<(f64, f64), DataError> {
    let read = |group: &Group<'_>| -> Result<Option<(f64, f64)>, DataError> {
        match (&group.decimals(tags::RESCALE_SLOPE)?[..], &group.decimals(tags::RESCALE_INTERCEPT)?[..]) {
            ([], []) => Ok(None),
            (&[slope], []) => Ok(Some((slope, 0.0))),
            ([], &[intercept]) => Ok(Some((1.0, intercept))),
            (&[slope], &[intercept]) => Ok(Some((slope, intercept))),
            _ => Err(group.wrong(tags::RESCALE_SLOPE, "one slope and one intercept", "several")),
        }
    };
    if let Some(found) = read(root)? {
        return Ok(found);
    }
    let mut common = None;
    for groups in root.items(tags::SHARED_GROUPS).chain(root.items(tags::PER_FRAME_GROUPS)) {
        for transformation in groups.items(tags::PIXEL_VALUE_TRANSFORMATION) {
            let found = read(&transformation)?;
            if common.is_some() && found != common {
                let expected = "one slope and intercept for all frames";
                return Err(root.wrong(tags::RESCALE_SLOPE, expected, "others from frame to frame"));
            }
            common = found;
        }
    }
    Ok(common.unwrap_or((1.0, 0.0)))
}

/// A look-up table.
struct Table {
    first: i64,
    bits: u16,
    entries: Vec<u16>,
}

impl Table {
    fn of(group: &Group<'_>, descriptor: Tag, data: Tag, layout: &Layout) -> Result<Self, DataError> {
        let Some(&[length, first, bits]) = group.shorts(descriptor).as_deref() else {
            return Err(group.wrong(descriptor, "length, first number and bits of a table", "none"));
        };
        let length = if length == 0 { 1 << 16 } else { usize::from(length) };
        let first = if layout.signed { i64::from(first.cast_signed()) } else { i64::from(first) };
        let bytes = group.bytes(data).unwrap_or_default();
        let entries = match bits {
            // Entries of 8 bits lie in bytes, or each in a word of 16.
            8 if bytes.len() < 2 * length => bytes.iter().map(|&byte| u16::from(byte)).collect(),
            8 => group.shorts(data).unwrap_or_default().into_iter().map(|entry| entry & 0xff).collect(),
            9..=16 => group.shorts(data).unwrap_or_default(),
            _ => return Err(group.wrong(descriptor, "entries of 8 to 16 bits", bits)),
        };
        let mut entries: Vec<u16> = entries;
        if entries.len() < length {
            return Err(group.wrong(data, &format!("{length} entries"), entries.len()));
        }
        entries.truncate(length);
        Ok(Self { first, bits, entries })
    }
}

/// Least and greatest number of so many bits.
pub(super) fn range(bits: u16, signed: bool) -> (i64, i64) {
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}
