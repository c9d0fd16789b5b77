//! Compressed frames: runs of bytes (RLE), JPEG baseline, extended and lossless, JPEG-LS, JPEG 2000.
//!
//! What a stream says of its size must be what the attributes say, and is looked at before anything is decoded.
//!
//! Source: DICOM PS3.5 annexes A.4 and G.

use std::borrow::Cow;

use jpeg_decoder::{ColorTransform, Decoder, PixelFormat};
use jpeg2k::DecodeParameters;

use super::image::Layout;
use super::{jpeg, jpeg_ls};
use crate::DataError;

/// How frames are compressed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Codec {
    Runs,
    Jpeg,
    JpegLs,
    Jpeg2000,
}

/// The codec of a transfer syntax, and whether it can lose information; none where pixels are not compressed.
fn codec(syntax: &str) -> Option<(Codec, bool)> {
    Some(match syntax.strip_prefix("1.2.840.10008.1.2.")? {
        "5" => (Codec::Runs, false),
        "4.50" | "4.51" => (Codec::Jpeg, true),
        "4.57" | "4.70" => (Codec::Jpeg, false),
        "4.80" => (Codec::JpegLs, false),
        "4.81" => (Codec::JpegLs, true),
        "4.90" | "4.201" | "4.202" => (Codec::Jpeg2000, false),
        "4.91" | "4.203" => (Codec::Jpeg2000, true),
        _ => return None,
    })
}

/// Whether a transfer syntax loses information.
pub(super) fn is_lossy(syntax: &str) -> bool {
    codec(syntax).is_some_and(|(_, lossy)| lossy)
}

/// Whether pixels of a transfer syntax are none of the four kinds that are not compressed.
pub(super) fn is_compressed(syntax: &str) -> bool {
    !matches!(syntax, "1.2.840.10008.1.2" | "1.2.840.10008.1.2.1" | "1.2.840.10008.1.2.1.99" | "1.2.840.10008.1.2.2")
}

/// The bytes of each frame.
pub(super) fn frames<'a>(name: &str, fragments: &[&'a [u8]], frames: usize) -> Result<Vec<Cow<'a, [u8]>>, DataError> {
    let wrong = |expected: String, got: String| Err(DataError::format(name, "compressed pixels", expected, got));
    let [table, parts @ ..] = fragments else {
        return wrong("a table of offsets and fragments".to_owned(), "none".to_owned());
    };
    if parts.is_empty() {
        return wrong(format!("at least {frames} fragments"), "none".to_owned());
    }
    let starts = if !table.is_empty() {
        starts_of(name, table, parts, frames)?
    } else if frames == 1 {
        vec![0]
    } else if parts.len() == frames {
        (0..frames).collect()
    } else {
        // The first fragment of a frame begins with the mark that begins a stream.
        (0..parts.len())
            .filter(|&at| parts[at].starts_with(&[0xff, 0xd8]) || parts[at].starts_with(&[0xff, 0x4f]))
            .collect()
    };
    if starts.len() != frames || starts.first() != Some(&0) {
        return wrong(format!("{frames} frames"), format!("{} in {} fragments", starts.len(), parts.len()));
    }
    let ends = starts[1..].iter().copied().chain([parts.len()]);
    Ok(starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| match &parts[start..end] {
            [one] => Cow::Borrowed(*one),
            several => Cow::Owned(several.concat()),
        })
        .collect())
}

/// Which fragment each frame begins with, from the table of offsets.
fn starts_of(name: &str, table: &[u8], parts: &[&[u8]], frames: usize) -> Result<Vec<usize>, DataError> {
    let mut places = Vec::with_capacity(parts.len());
    let mut place = 0u64;
    for part in parts {
        places.push(place);
        place += 8 + part.len() as u64;
    }
    let offsets = table.chunks_exact(4).map(|four| u64::from(u32::from_le_bytes([four[0], four[1], four[2], four[3]])));
    let starts: Option<Vec<usize>> = offsets.map(|offset| places.binary_search(&offset).ok()).collect();
    match starts {
        Some(starts) if starts.len() == frames && starts.is_sorted_by(|a, b| a < b) => Ok(starts),
        _ => {
            let expected = format!("{frames} offsets, each that of a later fragment");
            Err(DataError::format(name, "table of offsets", expected, format!("{} bytes", table.len())))
        }
    }
}

/// The words of one frame, the samples of a pixel together.
pub(super) fn decode(name: &str, syntax: &str, bytes: &[u8], layout: &Layout) -> Result<Vec<i32>, DataError> {
    match codec(syntax) {
        Some((Codec::Runs, _)) => runs(name, bytes, layout),
        Some((Codec::Jpeg, _)) => jpeg(name, bytes, layout),
        Some((Codec::Jpeg2000, _)) => jpeg2000(name, bytes, layout),
        Some((Codec::JpegLs, _)) => jpeg_ls(name, bytes, layout),
        None => {
            let shown = if syntax.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') { syntax } else { "?" };
            let what = format!("the transfer syntax {shown}");
            let advice = "convert the file to an uncompressed one, for example with dcmconv, dcmdjpls or gdcmconv";
            Err(DataError::refused(name, what, advice))
        }
    }
}

fn broken(name: &str, kind: &str, error: impl std::fmt::Display) -> DataError {
    DataError::format(name, format!("{kind} stream"), "a whole, valid one", error)
}

/// Refuses a stream of another size than the attributes say.
fn check_size(name: &str, kind: &str, layout: &Layout, got: [usize; 3]) -> Result<(), DataError> {
    let expected = [layout.columns, layout.rows, layout.samples];
    if got == expected {
        return Ok(());
    }
    let shown = |[columns, rows, samples]: [usize; 3]| format!("{columns} columns, {rows} rows, {samples} samples");
    Err(DataError::format(name, format!("size of the {kind} stream"), shown(expected), shown(got)))
}

/// Runs of bytes: one segment for each byte of each sample, the greatest byte first.
fn runs(name: &str, bytes: &[u8], layout: &Layout) -> Result<Vec<i32>, DataError> {
    let number = |at: usize| {
        let four = bytes.get(4 * at..4 * at + 4).unwrap_or(&[0xff; 4]);
        u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize
    };
    let bytes_per_sample = usize::from(layout.allocated.div_ceil(8));
    let segments = layout.samples * bytes_per_sample;
    if number(0) != segments || segments > 15 {
        return Err(DataError::format(name, "segments of the RLE stream", segments, number(0)));
    }
    let positions = layout.rows * layout.columns;
    let mut words = vec![0i32; positions * layout.samples];
    for segment in 0..segments {
        let end = if segment + 1 < segments { number(segment + 2) } else { bytes.len() };
        let Some(coded) = bytes.get(number(segment + 1)..end) else {
            return Err(DataError::format(name, "RLE stream", "offsets of segments in order, inside of it", "others"));
        };
        let (sample, byte) = (segment / bytes_per_sample, segment % bytes_per_sample);
        let shift = 8 * (bytes_per_sample - 1 - byte);
        let mut position = 0;
        let mut at = 0;
        while position < positions {
            let Some(&head) = coded.get(at) else {
                let got = format!("{position} of segment {segment}");
                return Err(DataError::format(name, "bytes of the RLE stream", positions, got));
            };
            let head = head.cast_signed();
            let (length, step) = match head {
                0.. => (head as usize + 1, 1),
                -128 => {
                    at += 1;
                    continue;
                }
                _ => (usize::from(head.unsigned_abs()) + 1, 0),
            };
            for run in 0..length.min(positions - position) {
                let Some(&value) = coded.get(at + 1 + run * step) else {
                    return Err(DataError::format(name, "RLE stream", "a whole run", "the end of its segment"));
                };
                words[(position + run) * layout.samples + sample] |= i32::from(value) << shift;
            }
            position += length;
            at += if step == 1 { 1 + length } else { 2 };
        }
    }
    Ok(words)
}

fn check_bits(name: &str, kind: &str, layout: &Layout, got: u16) -> Result<(), DataError> {
    if got <= layout.allocated {
        return Ok(());
    }
    Err(DataError::format(name, format!("bits of the {kind} stream"), format!("at most {}", layout.allocated), got))
}

fn jpeg(name: &str, bytes: &[u8], layout: &Layout) -> Result<Vec<i32>, DataError> {
    let header = jpeg::header(name, bytes)?;
    check_size(name, "JPEG", layout, [header.columns, header.rows, header.samples()])?;
    check_bits(name, "JPEG", layout, header.precision)?;
    if header.sequential {
        return jpeg::decode(name, bytes, header);
    }
    let mut decoder = Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(layout.frame_values() * 4 + (1 << 20));
    decoder.set_color_transform(ColorTransform::None);
    let decoded = decoder.decode().map_err(|error| broken(name, "JPEG", error))?;
    let is_wide = decoder.info().is_some_and(|info| info.pixel_format == PixelFormat::L16);
    let words: Vec<i32> = if is_wide {
        decoded.chunks_exact(2).map(|pair| i32::from(u16::from_ne_bytes([pair[0], pair[1]]))).collect()
    } else {
        decoded.into_iter().map(i32::from).collect()
    };
    if words.len() != layout.frame_values() {
        return Err(DataError::format(name, "values of the JPEG stream", layout.frame_values(), words.len()));
    }
    Ok(words)
}

fn jpeg_ls(name: &str, bytes: &[u8], layout: &Layout) -> Result<Vec<i32>, DataError> {
    let header = jpeg_ls::header(name, bytes)?;
    check_size(name, "JPEG-LS", layout, [header.columns, header.rows, header.samples])?;
    check_bits(name, "JPEG-LS", layout, header.precision)?;
    jpeg_ls::decode(name, bytes, header)
}

fn jpeg2000(name: &str, bytes: &[u8], layout: &Layout) -> Result<Vec<i32>, DataError> {
    // Start of codestream and size: profile, width, height and the offsets of both.
    let header = bytes.windows(4).position(|four| four == [0xff, 0x4f, 0xff, 0x51]);
    let Some(header) = header.and_then(|at| bytes.get(at + 8..at + 24)) else {
        return Err(broken(name, "JPEG 2000", "no header"));
    };
    let number = |at: usize| {
        u32::from_be_bytes([header[4 * at], header[4 * at + 1], header[4 * at + 2], header[4 * at + 3]]) as usize
    };
    let size = [number(0).wrapping_sub(number(2)), number(1).wrapping_sub(number(3)), layout.samples];
    check_size(name, "JPEG 2000", layout, size)?;
    let image = jpeg2k::Image::from_bytes_with(bytes, DecodeParameters::new().strict(true))
        .map_err(|error| broken(name, "JPEG 2000", error))?;
    let components = image.components();
    check_size(name, "JPEG 2000", layout, [image.width() as usize, image.height() as usize, components.len()])?;
    let positions = layout.rows * layout.columns;
    for component in components {
        if component.data().len() != positions || component.precision() > u32::from(layout.allocated) {
            return Err(broken(name, "JPEG 2000", "samples of another size or depth"));
        }
    }
    Ok((0..positions).flat_map(|position| components.iter().map(move |component| component.data()[position])).collect())
}
