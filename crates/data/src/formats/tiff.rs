//! TIFF pictures: 8 or 16 bits, grey or RGB, strips or tiles, plain, LZW, deflate or `PackBits`; written plain.
//!
//! Of `BigTIFF` too. Pictures whose least value is white are turned over, as viewers do. Refused: several pages (a stack of slices is no
//! picture: save each page as a file of its own), palettes, JPEG inside of TIFF, other colours and depths, signed and floating
//! values, planes one after the other, transparent parts, and pictures that ask the viewer to rotate them.
//!
//! Source: Adobe, TIFF revision 6.0, and its supplement on deflate; Aware Systems, "The `BigTIFF` File Format".

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use flate2::read::ZlibDecoder;
use weezl::{BitOrder, LzwStatus};

use super::picture::{Kind, Picture};
use crate::DataError;

/// How a file may start: byte order, then the version (43 is `BigTIFF`).
pub(super) const SIGNATURES: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];

const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const STRIPS: u16 = 273;
const ORIENTATION: u16 = 274;
const SAMPLES: u16 = 277;
const ROWS: u16 = 278;
const STRIP_BYTES: u16 = 279;
const PLANES: u16 = 284;
const PREDICTOR: u16 = 317;
const TILE_WIDTH: u16 = 322;
const TILE_HEIGHT: u16 = 323;
const TILES: u16 = 324;
const TILE_BYTES: u16 = 325;
const EXTRA: u16 = 338;
const FORMAT: u16 = 339;

/// The bytes of a file in their order, and how wide its offsets are.
struct Bytes<'a> {
    all: &'a [u8],
    little: bool,
    offset: usize,
}

impl Bytes<'_> {
    /// The number of `size` bytes at a place; none behind the end.
    fn number(&self, at: u64, size: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.all.get(at..at.checked_add(size)?)?;
        let join = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.little { bytes.iter().rev().fold(0, join) } else { bytes.iter().fold(0, join) })
    }

    /// Whole numbers from 0 of the tags of the first page, and where the next page stands; none where the file is cut short.
    fn page(&self) -> Option<(BTreeMap<u16, Vec<u64>>, u64)> {
        let wide = self.offset == 8;
        let start = self.number(if wide { 8 } else { 4 }, self.offset)?;
        let counter = if wide { 8 } else { 2 };
        let entries = self.number(start, counter)?;
        let (first, size) = (start.checked_add(counter as u64)?, 4 + 2 * self.offset as u64);
        let mut tags = BTreeMap::new();
        for entry in 0..entries {
            let at = first.checked_add(entry.checked_mul(size)?)?;
            let (tag, kind) = (self.number(at, 2)? as u16, self.number(at + 2, 2)?);
            let count = self.number(at + 4, self.offset)?;
            let width = match kind {
                1 => 1,
                3 => 2,
                4 => 4,
                16 => 8,
                _ => continue,
            };
            let inside = count.checked_mul(width)? <= self.offset as u64;
            let value = at + 4 + self.offset as u64;
            let place = if inside { value } else { self.number(value, self.offset)? };
            // As many as the file holds at most, since each is read before the next.
            let values = (0..count).map(|n| self.number(place.checked_add(n * width)?, width as usize));
            tags.insert(tag, values.collect::<Option<Vec<u64>>>()?);
        }
        Some((tags, self.number(first.checked_add(entries.checked_mul(size)?)?, self.offset)?))
    }
}

/// Decodes the bytes of a file, of at most `pixels` pixels.
pub(super) fn decode(bytes: &[u8], file: &str, pixels: u64) -> Result<Picture, DataError> {
    let broken = |got: &str| DataError::format(file, "TIFF picture", "a whole, valid one", got);
    let advice = "save it as 8 or 16 bits, grey or RGB, without loss";
    let refuse = |what: String| Err(DataError::refused(file, what, advice));
    let (little, wide) = (bytes.starts_with(b"II"), bytes.get(2..4).is_some_and(|version| version.contains(&43)));
    let source = Bytes { all: bytes, little, offset: if wide { 8 } else { 4 } };
    let (tags, next) = source.page().ok_or_else(|| broken("a directory that ends too early"))?;
    if next != 0 {
        return Err(DataError::refused(file, "a TIFF of several pages", "save each page as a file of its own"));
    }
    let one = |tag: u16, otherwise: u64| tags.get(&tag).and_then(|values| values.first()).copied().unwrap_or(otherwise);
    let (width, height) = (one(WIDTH, 0), one(HEIGHT, 0));
    if width == 0 || height == 0 {
        return Err(broken(&format!("{width} x {height} pixels")));
    }
    DataError::check_limit(file, "pixels", pixels, width.saturating_mul(height))?;
    let turn = one(ORIENTATION, 1);
    if turn > 1 {
        let what = format!("a picture that viewers must turn (orientation {turn})");
        return Err(DataError::refused(file, what, "turn the pixels themselves and save it again"));
    }
    let stored = one(SAMPLES, 1);
    let channels = match one(PHOTOMETRIC, u64::MAX) {
        0 | 1 => 1,
        2 => 3,
        3 => return refuse("a TIFF with a palette".to_owned()),
        other => return refuse(format!("a TIFF of colours of kind {other}")),
    };
    let alpha = stored == channels + 1 && matches!(one(EXTRA, 0), 1 | 2);
    if stored != channels && !alpha {
        return refuse(format!("a TIFF of {stored} values a pixel"));
    }
    let all = |tag: u16, wanted: u64| tags.get(&tag).is_none_or(|values| values.iter().all(|value| *value == wanted));
    let bits = one(BITS, 1);
    if !matches!(bits, 8 | 16) || !all(BITS, bits) || !all(FORMAT, 1) {
        return refuse(format!("a TIFF of {bits} bits, or of signed or floating values"));
    }
    if stored > 1 && one(PLANES, 1) != 1 {
        return refuse("a TIFF of separate planes".to_owned());
    }
    let (coding, predictor) = (one(COMPRESSION, 1), one(PREDICTOR, 1));
    if !matches!(coding, 1 | 5 | 8 | 32773 | 32946) || !matches!(predictor, 1 | 2) || one(FILL_ORDER, 1) != 1 {
        return refuse(format!("a TIFF of coding {coding} with predictor {predictor}"));
    }

    let tiled = tags.contains_key(&TILES);
    let (part_width, part_height) =
        if tiled { (one(TILE_WIDTH, 0), one(TILE_HEIGHT, 0)) } else { (width, one(ROWS, height).min(height)) };
    if part_width == 0 || part_height == 0 {
        return Err(broken("parts without pixels"));
    }
    let (across, down) = (width.div_ceil(part_width), height.div_ceil(part_height));
    let padded = across.saturating_mul(part_width).saturating_mul(down).saturating_mul(part_height);
    DataError::check_limit(file, "pixels of all tiles", pixels.max(padded * u64::from(!tiled)), padded)?;
    let list = |tag: u16| tags.get(&tag).map_or(&[][..], Vec::as_slice);
    let (places, sizes) = if tiled { (list(TILES), list(TILE_BYTES)) } else { (list(STRIPS), list(STRIP_BYTES)) };
    if places.len() as u64 != across * down || sizes.len() != places.len() {
        return Err(broken(&format!("{} parts of {} sizes", places.len(), sizes.len())));
    }

    let (width, height) = (width as usize, height as usize);
    let (part_width, part_height, across) = (part_width as usize, part_height as usize, across as usize);
    let (stored, channels) = (stored as usize, channels as usize);
    let (greatest, area) = (if bits == 16 { u16::MAX } else { 255 }, width * height);
    let mut values = vec![0.0; channels * area];
    for (at, (&place, &size)) in places.iter().zip(sizes).enumerate() {
        let (top, left) = (at / across * part_height, at % across * part_width);
        let rows = if tiled { part_height } else { part_height.min(height - top) };
        let packed = usize::try_from(place).ok().zip(usize::try_from(size).ok());
        let packed = packed.and_then(|(place, size)| bytes.get(place..place.checked_add(size)?));
        let packed = packed.ok_or_else(|| broken("a part behind the end of the file"))?;
        let line = part_width * stored;
        let part = unpacked(packed, coding, rows * line * bits as usize / 8)
            .ok_or_else(|| broken("a part that is cut short or damaged"))?;
        let mut part = numbers(&part, bits == 16, little);
        if predictor == 2 {
            for line in part.chunks_exact_mut(line) {
                for value in stored..line.len() {
                    let sum = line[value].wrapping_add(line[value - stored]);
                    line[value] = sum & greatest;
                }
            }
        }
        if alpha && part.iter().skip(channels).step_by(stored).any(|&alpha| alpha != greatest) {
            return Err(DataError::refused(
                file,
                "a picture with transparent parts",
                "save it without an alpha channel",
            ));
        }
        for (y, line) in part.chunks_exact(line).enumerate().take(height - top) {
            for (x, pixel) in line.chunks_exact(stored).enumerate().take(width - left) {
                for (channel, &value) in pixel[..channels].iter().enumerate() {
                    let value = if one(PHOTOMETRIC, 1) == 0 { greatest - value } else { value };
                    values[channel * area + (top + y) * width + left + x] = f32::from(value);
                }
            }
        }
    }
    Ok(Picture { kind: Kind::Tiff, shape: [channels, height, width], bits: bits as u8, values })
}

fn numbers(bytes: &[u8], wide: bool, little: bool) -> Vec<u16> {
    if !wide {
        return bytes.iter().map(|&byte| u16::from(byte)).collect();
    }
    let number = |pair: &[u8]| {
        let pair = [pair[0], pair[1]];
        if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
    };
    bytes.chunks_exact(2).map(number).collect()
}

/// Exactly `size` bytes of a part; none where it holds fewer.
fn unpacked(packed: &[u8], coding: u64, size: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match coding {
        1 => bytes.extend(packed.get(..size)?),
        5 => {
            bytes.resize(size, 0);
            let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
            let (mut read, mut written) = (0, 0);
            while written < size {
                let result = decoder.decode_bytes(&packed[read..], &mut bytes[written..]);
                (read, written) = (read + result.consumed_in, written + result.consumed_out);
                if !matches!(result.status.ok()?, LzwStatus::Ok) && written < size {
                    return None;
                }
            }
        }
        32773 => {
            let mut rest = packed;
            while bytes.len() < size {
                let (&head, after) = rest.split_first()?;
                let count = usize::from(head.cast_signed().unsigned_abs());
                rest = match head.cast_signed() {
                    -128 => after,
                    ..0 => {
                        bytes.extend(std::iter::repeat_n(*after.first()?, count + 1));
                        &after[1..]
                    }
                    0.. => {
                        bytes.extend(after.get(..=count)?);
                        &after[count + 1..]
                    }
                };
            }
            bytes.truncate(size);
        }
        _ => {
            ZlibDecoder::new(packed).take(size as u64).read_to_end(&mut bytes).ok()?;
        }
    }
    (bytes.len() == size).then_some(bytes)
}

/// The bytes of a picture: `values` channel by channel, whole numbers below 2 to the power of `bits`.
pub(super) fn encode([channels, height, width]: [usize; 3], bits: u8, values: &[u16]) -> io::Result<Vec<u8>> {
    let area = height * width;
    let mut bytes = b"II*\0\0\0\0\0".to_vec();
    for at in 0..values.len() {
        let pair = values[at % channels * area + at / channels].to_le_bytes();
        bytes.extend(&pair[..usize::from(bits / 8)]);
    }
    let size = bytes.len() - 8;
    if size % 2 == 1 {
        bytes.push(0);
    }
    // The depth of three channels does not fit into its entry.
    let depths = bytes.len();
    bytes.extend((0..channels).flat_map(|_| u16::from(bits).to_le_bytes()));
    let start = u32::try_from(bytes.len()).map_err(|_| io::Error::other("the picture is too large for TIFF"))?;
    bytes[4..8].copy_from_slice(&start.to_le_bytes());
    let photometric = if channels == 1 { 1 } else { 2 };
    let depth = if channels == 1 { usize::from(bits) } else { depths };
    let entries = [
        (WIDTH, 1, width),
        (HEIGHT, 1, height),
        (BITS, channels, depth),
        (COMPRESSION, 1, 1),
        (PHOTOMETRIC, 1, photometric),
        (STRIPS, 1, 8),
        (SAMPLES, 1, channels),
        (ROWS, 1, height),
        (STRIP_BYTES, 1, size),
    ];
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, count, value) in entries {
        let kind: u16 = if matches!(tag, BITS | COMPRESSION | PHOTOMETRIC | SAMPLES) { 3 } else { 4 };
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend((count as u32).to_le_bytes());
        bytes.extend((value as u32).to_le_bytes());
    }
    bytes.extend([0; 4]);
    Ok(bytes)
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
    /// The same without packing, as `BigTIFF`.
    const BIG: &str = "49492b00080000001000000000000000090000000000000000010400010000000000000003000000000000000101040001000000000000000\
        200000000000000020103000100000000000000100000000000000003010300010000000000000001000000000000000601030001000000000000000100000\
        000000000110104000100000000000000d40000000000000016010400010000000000000002000000000000001701040001000000000000000c00000000000\
        0001c010300010000000000000001000000000000000000000000000000000001000201ff0f409cffff";
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
        for text in [LZW, DEFLATE, PACKBITS, BIG] {
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

    /// Row I4 of the bad inputs.
    #[test]
    fn other_pictures_are_refused_by_name() {
        for (changes, reason) in [
            (&[(258, 1)][..], "of 1 bits"),
            (&[(258, 32)], "of 32 bits"),
            (&[(262, 3)], "palette"),
            (&[(339, 2)], "signed"),
            (&[(274, 6)], "orientation 6"),
            (&[(259, 7)], "coding 7"),
            (&[(256, 1 << 30), (257, 1 << 30), (278, 1 << 30)], "above the limit"),
            (&[(256, 0)], "a whole, valid one"),
            (&[(273, 1 << 30)], "behind the end"),
            (&[(279, 1)], "cut short"),
        ] {
            let error = refusal(&built(changes, 0, &[3, 250]));
            assert!(error.contains(reason), "{changes:?}: {error}");
        }
        let tiles = |width: u32| {
            let data =
                [&[7; 256][..], &[9; 256], &[8, 264, 256, 256].map(|at: u32| at.to_be_bytes()).concat()].concat();
            let mut bytes = built(&[(256, 17), (322, width), (323, 16), (324, 520), (325, 528)], 0, &data);
            for tag in [[1, 68, 0, 4], [1, 69, 0, 4]] {
                let entry = bytes.windows(4).position(|bytes| bytes == tag).unwrap();
                bytes[entry + 7] = 2;
            }
            bytes
        };
        let tiled = decode(&tiles(16), "a", LIMIT).unwrap().values;
        assert_eq!((tiled.len(), tiled[0], tiled[15], tiled[16]), (17, 7.0, 7.0, 9.0));
        assert!(refusal(&tiles(0)).contains("without pixels"));
        assert!(refusal(&tiles(1 << 31)).contains("all tiles"));
        // A directory that comes after itself, and one that lies inside of itself.
        let start = built(&[], 0, &[3, 250]).len() as u32 - 4 - 9 * 12 - 2;
        assert!(refusal(&built(&[], start, &[3, 250])).contains("several pages"));
        let mut inside = built(&[], 0, &[3, 250]);
        inside[4..8].copy_from_slice(&4u32.to_be_bytes());
        assert!(decode(&inside, "a", LIMIT).is_err());
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
        for text in [LZW, DEFLATE, PACKBITS, BIG, RGB] {
            let bytes = hex(text);
            for length in 0..bytes.len() {
                assert!(decode(&bytes[..length], "a", LIMIT).is_err() || length + 4 > bytes.len(), "{length}");
            }
        }
    }
}
