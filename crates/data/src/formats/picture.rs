//! One PNG, JPEG or [TIFF](super::tiff) picture: 8 or 16 bit, grey or RGB, read without loss of depth; PNG and TIFF are written.
//!
//! The content decides the kind, not the name, and a name that contradicts it is an error. Size, kind and orientation
//! are checked before anything is decoded. Refused: animations, JPEG with other than 8 bits, CMYK, lossless or
//! arithmetic coding, pictures with transparent parts, and pictures that ask the viewer to rotate them. Colour profiles
//! and gamma are ignored, as in the pipelines that models are trained with. PNG of 1, 2 or 4 bits and palettes are
//! spread over 8 bits.
//!
//! Not noticed: a JPEG whose coded data stop early although its end marker stands; the decoder fills the rest.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::tiff;
use crate::DataError;

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Memory that the PNG decoder may use beside the picture.
const PNG_BYTES: usize = 64 << 20;
/// Greatest number of scans of a progressive JPEG; encoders write about 10.
const SCANS: usize = 100;

/// A decoded picture.
#[derive(Debug, PartialEq)]
pub(crate) struct Picture {
    pub(crate) kind: Kind,
    /// `[channels, height, width]`; 1 or 3 channels.
    pub(crate) shape: [usize; 3],
    /// Bits of a stored value, 8 or 16.
    pub(crate) bits: u8,
    /// Stored values, channel by channel.
    pub(crate) values: Vec<f32>,
}

/// Whether the name of a file promises a picture that is read here.
pub(crate) fn has_picture_name(name: &str) -> bool {
    promised_kind(name).is_some()
}

/// How a picture is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Png,
    Jpeg,
    Tiff,
}

fn promised_kind(name: &str) -> Option<Kind> {
    let (_, extension) = name.rsplit_once('.')?;
    match extension.to_ascii_lowercase().as_str() {
        "png" => Some(Kind::Png),
        "jpg" | "jpeg" => Some(Kind::Jpeg),
        "tif" | "tiff" => Some(Kind::Tiff),
        _ => None,
    }
}

/// Reads the picture at `path`, called `file` in messages, of at most `pixels` pixels.
pub(crate) fn read(path: &Path, file: &str, pixels: u64) -> Result<Picture, DataError> {
    let opened = File::open(path).map_err(DataError::reading(file))?;
    let length = opened.metadata().map_err(DataError::reading(file))?.len();
    let limit = pixels.saturating_mul(8).saturating_add(1 << 20);
    DataError::check_limit(file, "bytes of the picture file", limit, length)?;
    let mut bytes = Vec::new();
    opened.take(length).read_to_end(&mut bytes).map_err(DataError::reading(file))?;
    decode(&bytes, file, pixels)
}

/// Decodes the bytes of a picture file.
pub(crate) fn decode(bytes: &[u8], file: &str, pixels: u64) -> Result<Picture, DataError> {
    let kind = if bytes.starts_with(PNG_SIGNATURE) {
        Kind::Png
    } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        Kind::Jpeg
    } else if tiff::SIGNATURES.iter().any(|signature| bytes.starts_with(signature)) {
        Kind::Tiff
    } else {
        return Err(DataError::format(file, "content", "a PNG, JPEG or TIFF picture", guess(bytes)));
    };
    if let Some(promised) = promised_kind(file)
        && promised != kind
    {
        let (expected, got) = (format!("{promised:?}, as its name says"), format!("{kind:?}; rename the file"));
        return Err(DataError::format(file, "content", expected, got));
    }
    match kind {
        Kind::Png => decode_png(bytes, file, pixels),
        Kind::Jpeg => decode_jpeg(bytes, file, pixels),
        Kind::Tiff => tiff::decode(bytes, file, pixels),
    }
}

/// What a file of another kind looks like.
fn guess(bytes: &[u8]) -> &'static str {
    let starts = |signature: &[u8]| bytes.starts_with(signature);
    if bytes.is_empty() {
        "an empty file"
    } else if starts(b"GIF8") {
        "a GIF picture"
    } else if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        "a WebP picture"
    } else if starts(b"BM") {
        "a BMP picture"
    } else if bytes.get(128..132) == Some(b"DICM") {
        "a DICOM file"
    } else if starts(b"<svg") || starts(b"<?xml") {
        "an SVG or XML text"
    } else {
        "another kind of file"
    }
}

fn decode_png(bytes: &[u8], file: &str, pixels: u64) -> Result<Picture, DataError> {
    let broken = |error: png::DecodingError| DataError::format(file, "PNG picture", "a whole, valid one", error);
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: PNG_BYTES });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(png::Transformations::EXPAND);
    let header = decoder.read_header_info().map_err(broken)?;
    let (width, height) = (header.width, header.height);
    DataError::check_limit(file, "pixels", pixels, u64::from(width) * u64::from(height))?;
    let mut reader = decoder.read_info().map_err(broken)?;
    if reader.info().animation_control.is_some() {
        return Err(DataError::refused(file, "an animated picture", "save one frame as a plain PNG"));
    }
    // The `png` crate cuts the palette into colours without asking.
    if let Some(bytes) = reader.info().palette.as_ref().map(|palette| palette.len()).filter(|bytes| bytes % 3 != 0) {
        return Err(DataError::format(file, "PNG palette", "three bytes a colour", format!("{bytes} bytes")));
    }
    let (color, depth) = reader.output_color_type();
    let size = reader.output_buffer_size().unwrap_or(usize::MAX);
    DataError::check_limit(file, "bytes of the decoded picture", pixels.saturating_mul(8), size as u64)?;
    let mut data = vec![0; size];
    reader.next_frame(&mut data).map_err(broken)?;
    reader.finish().map_err(broken)?;

    let bits: u8 = if depth == png::BitDepth::Sixteen { 16 } else { 8 };
    let stored = color.samples();
    let alpha = matches!(color, png::ColorType::GrayscaleAlpha | png::ColorType::Rgba);
    let channels = stored - usize::from(alpha);
    let value = |index: usize| match bits {
        16 => u16::from_be_bytes([data[2 * index], data[2 * index + 1]]),
        _ => u16::from(data[index]),
    };
    let area = width as usize * height as usize;
    let opaque = if bits == 16 { u16::MAX } else { 255 };
    if alpha && (0..area).any(|pixel| value(pixel * stored + channels) != opaque) {
        return Err(DataError::refused(file, "a picture with transparent parts", "save it without an alpha channel"));
    }
    let mut values = Vec::with_capacity(area * channels);
    for channel in 0..channels {
        values.extend((0..area).map(|pixel| f32::from(value(pixel * stored + channel))));
    }
    Ok(Picture { kind: Kind::Png, shape: [channels, height as usize, width as usize], bits, values })
}

fn decode_jpeg(bytes: &[u8], file: &str, pixels: u64) -> Result<Picture, DataError> {
    let header = JpegHeader::scan(bytes, file)?;
    DataError::check_limit(file, "pixels", pixels, header.width as u64 * header.height as u64)?;
    let (channels, space) = match header.components {
        1 => (1, ColorSpace::Luma),
        3 => (3, ColorSpace::RGB),
        other => {
            let what = format!("a JPEG with {other} components (such as CMYK)");
            return Err(DataError::refused(file, what, "save it as grey or RGB"));
        }
    };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(SCANS)
        .jpeg_set_out_colorspace(space);
    let data = JpegDecoder::new_with_options(ZCursor::new(bytes), options)
        .decode()
        .map_err(|error| DataError::format(file, "JPEG picture", "a whole, valid one", error))?;
    let area = header.width * header.height;
    if data.len() != area * channels {
        return Err(DataError::format(file, "JPEG picture", format!("{} values", area * channels), data.len()));
    }
    let mut values = Vec::with_capacity(data.len());
    for channel in 0..channels {
        values.extend((0..area).map(|pixel| f32::from(data[pixel * channels + channel])));
    }
    Ok(Picture { kind: Kind::Jpeg, shape: [channels, header.height, header.width], bits: 8, values })
}

/// What can be known about a JPEG without decoding it.
struct JpegHeader {
    width: usize,
    height: usize,
    components: u8,
}

impl JpegHeader {
    /// Walks over all markers: the file must have one frame that is read here, few scans, and an end.
    fn scan(bytes: &[u8], file: &str) -> Result<Self, DataError> {
        let broken = |got: &str| DataError::format(file, "JPEG picture", "a whole, valid one", got);
        let mut header: Option<Self> = None;
        let mut scans = 0;
        let mut at = 2;
        loop {
            let marker = loop {
                match bytes.get(at..at + 2) {
                    None => return Err(broken("one without its end: a truncated file")),
                    Some([0xff, 0xff]) => at += 1,
                    Some([0xff, marker @ (0x01..=0xcf | 0xd8..=0xfe)]) => break *marker,
                    // Coded data and restart markers.
                    Some(_) if scans > 0 => at += 1,
                    Some(_) => return Err(broken("bytes between its segments")),
                }
            };
            if marker == 0xd9 {
                break;
            }
            let length = match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
                _ => return Err(broken("a truncated segment")),
            };
            let content = bytes.get(at + 4..at + 2 + length).ok_or_else(|| broken("a truncated segment"))?;
            match marker {
                0xc0..=0xc2 if header.is_none() => header = Some(Self::frame(content, file)?),
                0xc0..=0xc2 => return Err(broken("two frames")),
                0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    let what = "a lossless, hierarchical or arithmetic-coded JPEG";
                    return Err(DataError::refused(file, what, "save it as PNG or baseline JPEG"));
                }
                0xda => {
                    scans += 1;
                    DataError::check_limit(file, "scans of the JPEG", SCANS as u64, scans)?;
                }
                0xe1 => check_orientation(content, file)?,
                _ => {}
            }
            at += 2 + length;
        }
        match header {
            Some(header) if scans > 0 => Ok(header),
            _ => Err(broken("one without a picture")),
        }
    }

    fn frame(content: &[u8], file: &str) -> Result<Self, DataError> {
        let &[precision, h1, h0, w1, w0, components, ..] = content else {
            return Err(DataError::format(file, "JPEG frame header", "at least 6 bytes", content.len()));
        };
        if precision != 8 {
            return Err(DataError::refused(file, format!("a JPEG of {precision} bits"), "save it as 16-bit PNG"));
        }
        let (height, width) = (usize::from(u16::from_be_bytes([h1, h0])), usize::from(u16::from_be_bytes([w1, w0])));
        if height == 0 || width == 0 {
            return Err(DataError::format(file, "JPEG size", "at least 1 x 1", format!("{width} x {height}")));
        }
        Ok(Self { width, height, components })
    }
}

/// Refuses a picture whose EXIF block asks the viewer to rotate or mirror it.
fn check_orientation(segment: &[u8], file: &str) -> Result<(), DataError> {
    match orientation(segment) {
        None | Some(0 | 1) => Ok(()),
        Some(turn) => {
            let what = format!("a picture that viewers must turn (EXIF orientation {turn})");
            Err(DataError::refused(file, what, "turn the pixels themselves and save it again"))
        }
    }
}

/// The orientation tag (0x0112) in the first directory of an EXIF segment.
fn orientation(segment: &[u8]) -> Option<u16> {
    let tiff = segment.strip_prefix(b"Exif\0\0")?;
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let pair = [*tiff.get(at)?, *tiff.get(at + 1)?];
        Some(if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) })
    };
    let (first, second) = (usize::from(short(4)?), usize::from(short(6)?));
    let directory = if little { second << 16 | first } else { first << 16 | second };
    (0..usize::from(short(directory)?))
        .map(|entry| directory + 2 + 12 * entry)
        .find_map(|entry| if short(entry)? == 0x0112 { short(entry + 8) } else { None })
}

/// The bytes of a picture without loss, as TIFF or else as PNG: `values` channel by channel, whole numbers below 2 to the power of
/// `bits`.
pub(crate) fn encode(kind: Kind, shape: [usize; 3], bits: u8, values: &[u16]) -> io::Result<Vec<u8>> {
    if kind == Kind::Tiff {
        return tiff::encode(shape, bits, values);
    }
    let mut bytes = Vec::new();
    write_png(&mut bytes, shape, bits, values)?;
    Ok(bytes)
}

/// Writes a picture as PNG: `values` channel by channel, whole numbers below 2 to the power of `bits`.
pub(crate) fn write_png(
    writer: impl Write,
    shape: [usize; 3],
    bits: u8,
    values: &[u16],
) -> Result<(), png::EncodingError> {
    let [channels, height, width] = shape;
    let mut encoder = png::Encoder::new(writer, width as u32, height as u32);
    encoder.set_color(if channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    encoder.set_depth(if bits == 16 { png::BitDepth::Sixteen } else { png::BitDepth::Eight });
    let area = height * width;
    let mut data = Vec::with_capacity(values.len() * usize::from(bits / 8));
    for pixel in 0..area {
        for channel in 0..channels {
            let [high, low] = values[channel * area + pixel].to_be_bytes();
            if bits == 16 {
                data.push(high);
            }
            data.push(low);
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&data)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 1 << 26;
    /// Flat 8 x 8 pictures, encoded by Pillow: grey 200, and RGB (200, 30, 90) up to 2 levels.
    const GREY_JPEG: &str = "ffd8ffe000104a46494600010100000100010000ffdb00430002010101010102010101020202020204030202020205040403\
         04060506060605060606070908060709070606080b08090a0a0a0a0a06080b0c0b0a0c090a0a0affc0000b08000800080101\
         1100ffc40014000100000000000000000000000000000009ffc40014100100000000000000000000000000000000ffda0008\
         010100003f00481fffd9";
    const RGB_JPEG: &str = "ffd8ffe000104a46494600010100000100010000ffdb00430002010101010102010101020202020204030202020205040403\
         04060506060605060606070908060709070606080b08090a0a0a0a0a06080b0c0b0a0c090a0a0affdb004301020202020202\
         050303050a0706070a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\
         0a0a0a0a0a0a0a0affc00011080008000803011100021101031101ffc40014000100000000000000000000000000000008ff\
         c40014100100000000000000000000000000000000ffc4001501010100000000000000000000000000000309ffc400141101\
         00000000000000000000000000000000ffda000c03010002110311003f002f91501fffd9";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn png(shape: [usize; 3], bits: u8, values: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_png(&mut bytes, shape, bits, values).unwrap();
        bytes
    }

    /// A PNG with any color type and raw data, and chunks put before the image data.
    fn raw_png(color: png::ColorType, depth: png::BitDepth, data: &[u8], palette: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette.to_vec());
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    fn refusal(bytes: &[u8]) -> DataError {
        decode(bytes, "x", LIMIT).unwrap_err()
    }

    /// Found by fuzzing.
    #[test]
    fn a_palette_with_part_of_a_colour_is_refused() {
        let palette = |bytes: usize| {
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, 2, 1);
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_palette((0..bytes as u8).collect::<Vec<_>>());
            encoder.write_header().unwrap().write_image_data(&[0, 1]).unwrap();
            decode_png(&file, "x.png", LIMIT)
        };
        assert_eq!(palette(6).unwrap().values, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert!(palette(7).unwrap_err().to_string().contains("three bytes a colour"));
    }

    #[test]
    fn sixteen_bits_stay_sixteen_bits() {
        let picture = decode(&png([1, 1, 3], 16, &[0, 4095, 65535]), "a.png", LIMIT).unwrap();
        assert_eq!((picture.shape, picture.bits, picture.values), ([1, 1, 3], 16, vec![0.0, 4095.0, 65535.0]));
    }

    #[test]
    fn palettes_few_bits_and_opaque_alpha_are_spread_over_eight_bits() {
        use png::{BitDepth, ColorType};
        let values = |bytes: &[u8]| decode(bytes, "x", LIMIT).unwrap().values;
        assert_eq!(values(&raw_png(ColorType::Grayscale, BitDepth::One, &[0b0100_0000], None)), [0.0, 255.0]);
        let palette = [1, 2, 3, 4, 5, 6];
        let indexed = raw_png(ColorType::Indexed, BitDepth::Eight, &[1, 0], Some(&palette));
        assert_eq!(values(&indexed), [4.0, 1.0, 5.0, 2.0, 6.0, 3.0]);
        assert_eq!(values(&raw_png(ColorType::GrayscaleAlpha, BitDepth::Eight, &[7, 255, 9, 255], None)), [7.0, 9.0]);
        let transparent = raw_png(ColorType::GrayscaleAlpha, BitDepth::Eight, &[7, 255, 9, 254], None);
        assert!(matches!(refusal(&transparent), DataError::Refused { .. }));
    }

    #[test]
    fn jpeg_is_read_and_its_truncations_are_refused() {
        let grey = hex(GREY_JPEG);
        assert_eq!(
            decode(&grey, "a.jpg", LIMIT).unwrap(),
            Picture { kind: Kind::Jpeg, shape: [1, 8, 8], bits: 8, values: vec![200.0; 64] }
        );
        let rgb = decode(&hex(RGB_JPEG), "a.JPEG", LIMIT).unwrap();
        assert_eq!(rgb.shape, [3, 8, 8]);
        for (channel, expected) in [200.0f32, 30.0, 90.0].into_iter().enumerate() {
            assert!((rgb.values[64 * channel] - expected).abs() <= 2.0);
        }
        for length in 0..grey.len() {
            assert!(decode(&grey[..length], "a.jpg", LIMIT).is_err(), "{length}");
        }
    }

    #[test]
    fn odd_jpegs_are_refused_by_their_header() {
        let grey = hex(GREY_JPEG);
        let frame = grey.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let with = |at: usize, byte: u8| {
            let mut bytes = grey.clone();
            bytes[at] = byte;
            bytes
        };
        assert!(refusal(&with(frame + 4, 12)).to_string().contains("12 bits"));
        assert!(refusal(&with(frame + 6, 0)).to_string().contains("8 x 0"));
        assert!(refusal(&with(frame + 9, 4)).to_string().contains("CMYK"));
        assert!(refusal(&with(frame + 1, 0xc3)).to_string().contains("lossless"));
        let mut huge = grey.clone();
        huge[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
        assert!(matches!(refusal(&huge), DataError::TooLarge { .. }));
        let scan = grey.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        let mut scans = grey[..scan].to_vec();
        for _ in 0..1000 {
            scans.extend(&grey[scan..grey.len() - 2]);
        }
        scans.extend([0xff, 0xd9]);
        assert!(matches!(refusal(&scans), DataError::TooLarge { limit: 100, .. }));
    }

    #[test]
    fn a_picture_that_viewers_must_turn_is_refused() {
        let turned = |little: bool, turn: u8| {
            let mut exif = b"Exif\0\0".to_vec();
            exif.extend(if little { b"II*\0\x08\0\0\0" } else { b"MM\0*\0\0\0\x08" });
            exif.extend(if little { [1, 0] } else { [0, 1] });
            exif.extend(if little {
                [0x12, 1, 3, 0, 1, 0, 0, 0, turn, 0, 0, 0]
            } else {
                [1, 0x12, 0, 3, 0, 0, 0, 1, 0, turn, 0, 0]
            });
            let mut bytes = vec![0xff, 0xd8, 0xff, 0xe1, 0, exif.len() as u8 + 2];
            bytes.extend(exif);
            bytes.extend(&hex(GREY_JPEG)[2..]);
            bytes
        };
        for little in [true, false] {
            assert!(decode(&turned(little, 1), "a.jpg", LIMIT).is_ok());
            assert!(refusal(&turned(little, 6)).to_string().contains("orientation 6"));
        }
    }

    #[test]
    fn huge_pictures_are_refused_before_decoding() {
        let mut bytes = png([1, 1, 1], 8, &[0]);
        for (width, height) in [(60_000u32, 60_000u32), (20_000, 20_000), (0x7fff_ffff, 0x7fff_ffff)] {
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            let mut crc = flate2::Crc::new();
            crc.update(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
            assert!(matches!(refusal(&bytes), DataError::TooLarge { .. }), "{width}: {}", refusal(&bytes));
        }
    }

    /// Puts a chunk after the header of a PNG.
    fn with_chunk(png: &[u8], kind: [u8; 4], content: &[u8]) -> Vec<u8> {
        let mut bytes = png[..33].to_vec();
        bytes.extend((content.len() as u32).to_be_bytes());
        bytes.extend(kind);
        bytes.extend(content);
        let mut crc = flate2::Crc::new();
        crc.update(&kind);
        crc.update(content);
        bytes.extend(crc.sum().to_be_bytes());
        bytes.extend(&png[33..]);
        bytes
    }

    #[test]
    fn hostile_png_chunks_are_refused_or_ignored() {
        let good = png([1, 2, 2], 8, &[1, 2, 3, 4]);
        let animated = with_chunk(&good, *b"acTL", &[0, 0x0f, 0x42, 0x40, 0, 0, 0, 0]);
        assert!(refusal(&animated).to_string().contains("animated"));
        // A text chunk that inflates to 256 MiB is never inflated.
        let mut encoder = flate2::write::ZlibEncoder::new(b"k\0\0".to_vec(), flate2::Compression::best());
        for _ in 0..256 {
            encoder.write_all(&vec![0; 1 << 20]).unwrap();
        }
        let bomb = with_chunk(&good, *b"zTXt", &encoder.finish().unwrap());
        assert_eq!(decode(&bomb, "x", LIMIT).unwrap().values, [1.0, 2.0, 3.0, 4.0]);
        // Length 2^31, a wrong CRC of the data, and every truncation.
        let mut long = good.clone();
        long[33..37].copy_from_slice(&0x8000_0000u32.to_be_bytes());
        assert!(matches!(refusal(&long), DataError::Format { .. }));
        let mut wrong = good.clone();
        wrong[45] ^= 1;
        assert!(matches!(refusal(&wrong), DataError::Format { .. }));
        for length in 0..good.len() {
            assert!(decode(&good[..length], "x", LIMIT).is_err(), "{length}");
        }
    }

    #[test]
    fn the_content_decides_and_the_name_must_agree() {
        let good = png([1, 1, 1], 8, &[1]);
        assert!(decode(&good, "a.jpg", LIMIT).unwrap_err().to_string().contains("rename"));
        assert!(decode(&good, "folder.jpg/a", LIMIT).is_ok());
        let others: [(&[u8], &str); 5] = [
            (b"GIF89a", "GIF"),
            (b"RIFF\0\0\0\0WEBP", "WebP"),
            (b"<svg xmlns=", "SVG"),
            (b"", "empty"),
            (b"hello", "another"),
        ];
        for (content, kind) in others {
            assert!(decode(content, "a.png", LIMIT).unwrap_err().to_string().contains(kind));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            channels in prop_oneof![Just(1usize), Just(3)],
            height in 1usize..6,
            width in 1usize..6,
            sixteen: bool,
            tiff: bool,
            seed: u16,
        ) {
            let (bits, greatest) = if sixteen { (16, 65535) } else { (8, 255) };
            let values: Vec<u16> = (0..channels * height * width)
                .map(|at| (u32::from(seed).wrapping_mul(at as u32 + 1) % (greatest + 1)) as u16)
                .collect();
            let shape = [channels, height, width];
            let (kind, name) = if tiff { (Kind::Tiff, "a.tif") } else { (Kind::Png, "a.png") };
            let picture = decode(&encode(kind, shape, bits, &values).unwrap(), name, LIMIT).unwrap();
            let floats = values.iter().map(|&value| f32::from(value)).collect();
            prop_assert_eq!(picture, Picture { kind, shape, bits, values: floats });
        }

        #[test]
        fn damaged_pictures_never_panic(kind in 0..3, at in 0usize..4000, byte: u8) {
            let mut bytes = match kind {
                0 => hex(RGB_JPEG),
                1 => png([1, 2, 2], 16, &[1, 2, 3, 4]),
                _ => encode(Kind::Tiff, [1, 2, 2], 16, &[1, 2, 3, 4]).unwrap(),
            };
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = decode(&bytes, "x", LIMIT);
        }
    }
}
