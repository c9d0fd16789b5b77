//! TIFF pictures: 8 or 16 bits, grey or RGB, strips or tiles, plain, LZW, deflate or `PackBits`; written plain.
//!
//! Of `BigTIFF` too. Pictures whose least value is white are turned over, as viewers do. Refused: several pages (a stack of slices is no
//! picture: save each page as a file of its own), palettes, JPEG inside of TIFF, other colours and depths, signed and floating
//! values, planes one after the other, transparent parts, and pictures that ask the viewer to rotate them.
//!
//! Source: Adobe, TIFF revision 6.0.

use std::io::{self, Cursor};

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::encoder::{TiffEncoder, colortype};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::picture::{Kind, Picture};
use crate::DataError;

/// How a file may start: byte order, then the version (43 is `BigTIFF`).
pub(super) const SIGNATURES: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];

/// Decodes the bytes of a file, of at most `pixels` pixels.
pub(super) fn decode(bytes: &[u8], file: &str, pixels: u64) -> Result<Picture, DataError> {
    let broken = |error: TiffError| DataError::format(file, "TIFF picture", "a whole, valid one", error);
    let refuse = |what: String| Err(DataError::refused(file, what, "save it as 8 or 16 bits, grey or RGB"));
    let mut limits = Limits::default();
    limits.decoding_buffer_size = usize::try_from(pixels.saturating_mul(8)).unwrap_or(usize::MAX);
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(broken)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(broken)?;
    DataError::check_limit(file, "pixels", pixels, u64::from(width) * u64::from(height))?;
    if decoder.more_images() {
        return Err(DataError::refused(file, "a TIFF of several pages", "save each page as a file of its own"));
    }
    match decoder.find_tag_unsigned::<u16>(Tag::Orientation).map_err(broken)? {
        None | Some(0 | 1) => {}
        Some(turn) => {
            let what = format!("a picture that viewers must turn (orientation {turn})");
            return Err(DataError::refused(file, what, "turn the pixels themselves and save it again"));
        }
    }
    let (channels, stored) = match decoder.colortype().map_err(broken)? {
        ColorType::Gray(8 | 16) => (1, 1),
        ColorType::RGB(8 | 16) => (3, 3),
        ColorType::RGBA(8 | 16) => (3, 4),
        other => return refuse(format!("a TIFF of kind {other:?}")),
    };
    if stored > 1 && decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).map_err(broken)? == Some(2) {
        return refuse("a TIFF of separate planes".to_owned());
    }
    let data = decoder.read_image().map_err(broken)?;
    let (bits, data, opaque) = match data {
        DecodingResult::U8(data) => (8, data.into_iter().map(u16::from).collect(), 255),
        DecodingResult::U16(data) => (16, data, u16::MAX),
        _ => return refuse("a TIFF of signed or floating values".to_owned()),
    };
    let area = width as usize * height as usize;
    if data.len() != area * stored {
        return Err(DataError::format(file, "TIFF picture", format!("{} values", area * stored), data.len()));
    }
    if stored > channels && data.iter().skip(channels).step_by(stored).any(|&alpha| alpha != opaque) {
        return Err(DataError::refused(file, "a picture with transparent parts", "save it without an alpha channel"));
    }
    let mut values = Vec::with_capacity(area * channels);
    for channel in 0..channels {
        values.extend(data.iter().skip(channel).step_by(stored).map(|&value| f32::from(value)));
    }
    Ok(Picture { kind: Kind::Tiff, shape: [channels, height as usize, width as usize], bits, values })
}

/// The bytes of a picture: `values` channel by channel, whole numbers below 2 to the power of `bits`.
pub(super) fn encode([channels, height, width]: [usize; 3], bits: u8, values: &[u16]) -> io::Result<Vec<u8>> {
    let area = height * width;
    let pixels: Vec<u16> = (0..values.len()).map(|at| values[at % channels * area + at / channels]).collect();
    let low: Vec<u8> = pixels.iter().map(|&value| value as u8).collect();
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).map_err(io::Error::other)?;
    let (width, height) = (width as u32, height as u32);
    match (channels, bits) {
        (1, 16) => encoder.write_image::<colortype::Gray16>(width, height, &pixels),
        (1, _) => encoder.write_image::<colortype::Gray8>(width, height, &low),
        (_, 16) => encoder.write_image::<colortype::RGB16>(width, height, &pixels),
        _ => encoder.write_image::<colortype::RGB8>(width, height, &low),
    }
    .map_err(io::Error::other)?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::picture;

    const LIMIT: u64 = 1 << 20;
    /// `[[0, 1, 258], [4095, 40000, 65535]]` of 16 bits, by Pillow 13: LZW, deflate and `PackBits`; then 0 to 11 as RGB, LZW.
    const LZW: &str = "49492a00180000008000000010000802ff0790138ff7fc0409000001030001000000030000000101030001000000020000000201030001\
        000000100000000301030001000000050000000601030001000000010000001101040001000000080000001601030001000000020000001701040001000000\
        100000001c010300010000000100000000000000";
    const DEFLATE: &str = "49492a001c000000789c636060646062fccfef30e7ff7f000c4303ed0900000103000100000003000000010103000100000002000000\
        020103000100000010000000030103000100000008000000060103000100000001000000110104000100000008000000160103000100000002000000170104\
        0001000000140000001c010300010000000100000000000000";
    const PACKBITS: &str = "49492a0016000000ff00030100020103ff0f409cffff0900000103000100000003000000010103000100000002000000020103000100\
        000010000000030103000100000005800000060103000100000001000000110104000100000008000000160103000100000002000000170104000100000\
        00e0000001c010300010000000100000000000000";
    const RGB: &str = "49492a0018000000800000202018100a0603820120a05c040a0000010300010000000200000001010300010000000200000002010300030\
        00000960000000301030001000000050000000601030001000000020000001101040001000000080000001501030001000000030000001601030001000000\
        020000001701040001000000100000001c010300010000000100000000000000080008000800";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// A big-endian picture of 2 x 1 pixels: the tags of a plain grey one of 8 bits with some replaced or added, then the next page.
    fn built(changes: &[(u16, u32)], next: u32, data: &[u8]) -> Vec<u8> {
        let mut tags = std::collections::BTreeMap::from([
            (256, 2),
            (257, 1),
            (258, 8),
            (259, 1),
            (262, 1),
            (273, 8),
            (277, 1),
            (278, 1),
            (279, data.len() as u32),
        ]);
        tags.extend(changes.iter().copied());
        let mut bytes = b"MM\0*".to_vec();
        bytes.extend((8 + data.len() as u32).to_be_bytes());
        bytes.extend(data);
        bytes.extend((tags.len() as u16).to_be_bytes());
        for (tag, value) in tags {
            bytes.extend(tag.to_be_bytes());
            // Kinds of further samples are short numbers, which stand on the left.
            let (kind, value) = if tag == 338 { (3, value << 16) } else { (4, value) };
            bytes.extend([0, kind, 0, 0, 0, 1]);
            bytes.extend(value.to_be_bytes());
        }
        bytes.extend(next.to_be_bytes());
        bytes
    }

    fn refusal(bytes: &[u8]) -> String {
        decode(bytes, "a.tif", LIMIT).unwrap_err().to_string()
    }

    #[test]
    fn what_other_programs_write_is_read() {
        for text in [LZW, DEFLATE, PACKBITS] {
            let picture = picture::decode(&hex(text), "a.tiff", LIMIT).unwrap();
            assert_eq!((picture.shape, picture.bits), ([1, 2, 3], 16));
            assert_eq!(picture.values, [0.0, 1.0, 258.0, 4095.0, 40000.0, 65535.0]);
        }
        let colours = decode(&hex(RGB), "a.tif", LIMIT).unwrap();
        assert_eq!((colours.shape, colours.bits), ([3, 2, 2], 8));
        assert_eq!(colours.values[..5], [0.0, 3.0, 6.0, 9.0, 1.0]);
    }

    #[test]
    fn grey_that_starts_at_white_is_turned_over() {
        assert_eq!(decode(&built(&[], 0, &[3, 250]), "a", LIMIT).unwrap().values, [3.0, 250.0]);
        assert_eq!(decode(&built(&[(262, 0)], 0, &[3, 250]), "a", LIMIT).unwrap().values, [252.0, 5.0]);
    }

    #[test]
    fn other_pictures_are_refused_by_name() {
        for (changes, reason) in [
            (&[(258, 1)][..], "Gray(1)"),
            (&[(258, 32)], "Gray(32)"),
            (&[(262, 3)], "Palette"),
            (&[(339, 2)], "signed"),
            (&[(274, 6)], "orientation 6"),
            (&[(259, 7)], "a whole, valid one"),
            (&[(256, 1 << 30), (257, 1 << 30), (278, 1 << 30)], "above the limit"),
            (&[(256, 0)], "a whole, valid one"),
            (&[(273, 1 << 30)], "a whole, valid one"),
        ] {
            let error = refusal(&built(changes, 0, &[3, 250]));
            assert!(error.contains(reason), "{changes:?}: {error}");
        }
        let pages = built(&[], 8, &[3, 250]);
        assert!(refusal(&pages).contains("several pages"), "{}", refusal(&pages));
        // Three strips, each a plane: their places and sizes stand behind them.
        let planes = [&[1, 2, 3, 4, 5, 6][..], &[8, 10, 12, 2, 2, 2].map(|at: u32| at.to_be_bytes()).concat()].concat();
        let mut planes = built(&[(262, 2), (273, 14), (277, 3), (279, 26), (284, 2)], 0, &planes);
        for tag in [[1, 17, 0, 4], [1, 23, 0, 4]] {
            let entry = planes.windows(4).position(|bytes| bytes == tag).unwrap();
            planes[entry + 7] = 3;
        }
        assert!(refusal(&planes).contains("separate planes"), "{}", refusal(&planes));
        let alpha = [(262, 2), (277, 4), (338, 2), (279, 8)];
        assert_eq!(
            decode(&built(&alpha, 0, &[1, 2, 3, 255, 4, 5, 6, 255]), "a", LIMIT).unwrap().values,
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
        assert!(refusal(&built(&alpha, 0, &[1, 2, 3, 255, 4, 5, 6, 254])).contains("transparent"));
        for text in [LZW, DEFLATE, PACKBITS, RGB] {
            let bytes = hex(text);
            for length in 0..bytes.len() {
                assert!(decode(&bytes[..length], "a", LIMIT).is_err() || length + 4 > bytes.len(), "{length}");
            }
        }
    }
}
