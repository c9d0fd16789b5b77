//! JPEG with sequential Huffman coding, 8 and 12 bits: baseline and the sequential part of extended.
//!
//! Components come out as they are coded, without a change of colours, at the size of the picture. The inverse transform is the
//! fixed-point one of Loeffler, Ligtenberg and Moschytz (ICASSP 1989) with constants of 13 bits, rounded after each pass; where
//! chrominance is coded at half the size, a value is three parts of its nearest sample and one of the next. Both are as the
//! widespread libjpeg computes them, so that lossy pictures agree to the bit.
//!
//! Refused: progressive, lossless, hierarchical and arithmetic streams, other subsampling than by two, data that stop early.
//!
//! Source: ITU-T T.81 (1992), sections B.2, F.2 and annex K.

use std::fmt::Display;

use crate::DataError;

/// What the header of a stream says.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Whether it is the kind that is read here.
    pub(super) sequential: bool,
    pub(super) precision: u16,
    pub(super) columns: usize,
    pub(super) rows: usize,
    components: Vec<Component>,
}

impl Frame {
    pub(super) fn samples(&self) -> usize {
        self.components.len()
    }
}

#[derive(Clone, Debug)]
struct Component {
    id: u8,
    across: usize,
    down: usize,
    quantisation: usize,
    /// Blocks in a row, filled up to whole units.
    blocks: usize,
    values: Vec<i32>,
}

/// A decoding table: length and symbol for each 16 bits that may come.
type Huffman = Vec<(u8, u8)>;

const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

fn broken(name: &str, got: impl Display) -> DataError {
    DataError::format(name, "JPEG stream", "a whole, valid one", got)
}

/// The segments of a stream up to the coded data: mark, content, and where the next one begins.
fn segments(bytes: &[u8], mut at: usize) -> impl Iterator<Item = (u8, &[u8], usize)> {
    std::iter::from_fn(move || {
        while bytes.get(at..at + 2)? == [0xff, 0xff] {
            at += 1;
        }
        let &[0xff, mark, high, low] = bytes.get(at..at + 4)? else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let content = bytes.get(at + 4..at + 2 + length.max(2))?;
        at += 2 + length.max(2);
        Some((mark, content, at))
    })
}

/// What the stream says of itself, before anything is decoded.
pub(super) fn header(name: &str, bytes: &[u8]) -> Result<Frame, DataError> {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return Err(broken(name, "other bytes"));
    }
    let is_frame = |mark: u8| (0xc0..=0xcf).contains(&mark) && !matches!(mark, 0xc4 | 0xc8 | 0xcc);
    let found = segments(bytes, 2).find(|(mark, ..)| is_frame(*mark));
    let Some((mark, &[precision, y1, y0, x1, x0, count, ref rest @ ..], _)) = found else {
        return Err(broken(name, "no frame header"));
    };
    let components = rest.chunks_exact(3).map(|three| Component {
        id: three[0],
        across: usize::from(three[1] >> 4),
        down: usize::from(three[1] & 15),
        quantisation: usize::from(three[2]),
        blocks: 0,
        values: Vec::new(),
    });
    let components: Vec<Component> = components.collect();
    if components.len() != usize::from(count) || count == 0 {
        return Err(broken(name, "a frame header of another length"));
    }
    Ok(Frame {
        sequential: matches!(mark, 0xc0 | 0xc1),
        precision: u16::from(precision),
        columns: usize::from(u16::from_be_bytes([x1, x0])),
        rows: usize::from(u16::from_be_bytes([y1, y0])),
        components,
    })
}

/// Decodes a sequential stream whose [`header`] has been read: its samples, those of a pixel together.
pub(super) fn decode(name: &str, bytes: &[u8], mut frame: Frame) -> Result<Vec<i32>, DataError> {
    let usable = |component: &Component| matches!(component.across, 1 | 2) && matches!(component.down, 1 | 2);
    if !matches!(frame.precision, 8 | 12) || !frame.components.iter().all(|c| usable(c) && c.quantisation < 4) {
        return Err(broken(name, "a depth or subsampling that is not read"));
    }
    let (across, down) = frame.components.iter().fold((1, 1), |(x, y), c| (x.max(c.across), y.max(c.down)));
    if frame.components.len() == 1 {
        // One component is not interleaved: its unit is one block.
        (frame.components[0].across, frame.components[0].down) = (1, 1);
    }
    let (across, down) = if frame.components.len() == 1 { (1, 1) } else { (across, down) };
    let units = (frame.columns.div_ceil(8 * across), frame.rows.div_ceil(8 * down));
    for component in &mut frame.components {
        component.blocks = units.0 * component.across;
        component.values = vec![0; component.blocks * units.1 * component.down * 64];
    }

    let mut quantisation = [[0i32; 64]; 4];
    let mut tables: [Vec<Huffman>; 2] = [vec![Vec::new(); 4], vec![Vec::new(); 4]];
    let mut interval = 0;
    let mut at = 2;
    let mut seen = vec![false; frame.components.len()];
    while seen.iter().any(|seen| !seen) {
        let Some((mark, content, next)) = segments(bytes, at).next() else {
            return Err(broken(name, "the end before all components"));
        };
        at = next;
        match mark {
            0xdb => read_quantisation(content, &mut quantisation).ok_or_else(|| broken(name, "a bad table"))?,
            0xc4 => read_huffman(content, &mut tables).ok_or_else(|| broken(name, "a bad table of codes"))?,
            0xdd => match content {
                &[high, low] => interval = usize::from(u16::from_be_bytes([high, low])),
                _ => return Err(broken(name, "a bad restart interval")),
            },
            0xda => {
                let scan = Scan::of(content, &frame).ok_or_else(|| broken(name, "a bad scan header"))?;
                for &(component, ..) in &scan.0 {
                    if std::mem::replace(&mut seen[component], true) {
                        return Err(broken(name, "a component twice"));
                    }
                }
                let mut bits = Bits { bytes, at, held: 0, count: 0, missing: 0 };
                scan.decode(&mut bits, &mut frame, units, interval, (&quantisation, &tables))
                    .ok_or_else(|| broken(name, "data that stop early or are damaged"))?;
                at = bits.at;
            }
            0xd9 => return Err(broken(name, "the end before all components")),
            _ => {}
        }
    }
    let planes: Vec<Vec<i32>> = frame.components.iter().map(|c| enlarged(c, &frame, (across, down))).collect();
    let positions = frame.columns * frame.rows;
    Ok((0..positions).flat_map(|position| planes.iter().map(move |plane| plane[position])).collect())
}

fn read_quantisation(mut content: &[u8], tables: &mut [[i32; 64]; 4]) -> Option<()> {
    while let [kind, rest @ ..] = content {
        let wide = usize::from(kind >> 4);
        let table = tables.get_mut(usize::from(kind & 15))?;
        let values = rest.get(..64 * (1 + wide))?;
        for (place, value) in ZIGZAG.iter().zip(values.chunks_exact(1 + wide)) {
            table[*place] = value.iter().fold(0, |number, byte| number << 8 | i32::from(*byte));
        }
        content = &rest[values.len()..];
    }
    Some(())
}

fn read_huffman(mut content: &[u8], tables: &mut [Vec<Huffman>; 2]) -> Option<()> {
    while let [kind, rest @ ..] = content {
        let counts = rest.get(..16)?;
        let symbols: usize = counts.iter().map(|count| usize::from(*count)).sum();
        let mut symbols = rest.get(16..16 + symbols)?.iter();
        content = &rest[16 + symbols.len()..];
        let mut table = Vec::with_capacity(1 << 16);
        for (length, count) in (1..).zip(counts) {
            for symbol in symbols.by_ref().take(usize::from(*count)) {
                let end = table.len() + (1 << (16 - length));
                if end > 1 << 16 {
                    return None;
                }
                table.resize(end, (length, *symbol));
            }
        }
        // What no code begins with has length 0.
        table.resize(1 << 16, (0, 0));
        *tables.get_mut(usize::from(kind >> 4))?.get_mut(usize::from(kind & 15))? = table;
    }
    Some(())
}

/// The coded bits, without the zeros after bytes of ones.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
    /// Bits that were made up after the end.
    missing: u32,
}

impl Bits<'_> {
    fn fill(&mut self) {
        while self.count <= 48 {
            let byte = match self.bytes.get(self.at..) {
                Some([0xff, 0, ..]) => {
                    self.at += 2;
                    0xff
                }
                Some([0xff, ..] | []) | None => {
                    self.missing += 8;
                    0
                }
                Some(&[byte, ..]) => {
                    self.at += 1;
                    byte
                }
            };
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    /// The next bits, at most 16.
    fn take(&mut self, bits: u32) -> Option<i32> {
        self.fill();
        self.count -= bits;
        let value = (self.held >> self.count) & ((1 << bits) - 1);
        (self.count >= self.missing).then_some(value as i32)
    }

    fn symbol(&mut self, table: &Huffman) -> Option<u8> {
        self.fill();
        let (length, symbol) = *table.get((self.held >> (self.count - 16)) as usize & 0xffff)?;
        self.count -= u32::from(length);
        (length > 0 && self.count >= self.missing).then_some(symbol)
    }

    /// A number of so many bits, whose first says its sign.
    fn signed(&mut self, bits: u8) -> Option<i32> {
        if bits == 0 {
            return Some(0);
        }
        let value = self.take(u32::from(bits))?;
        Some(if value < 1 << (bits - 1) { value - (1 << bits) + 1 } else { value })
    }

    /// Goes on after the restart mark.
    fn restart(&mut self) -> Option<()> {
        let &[0xff, 0xd0..=0xd7] = self.bytes.get(self.at..self.at + 2)? else { return None };
        self.at += 2;
        (self.held, self.count, self.missing) = (0, 0, 0);
        Some(())
    }
}

/// Components of a scan, with their tables of codes.
struct Scan(Vec<(usize, usize, usize)>);

impl Scan {
    fn of(content: &[u8], frame: &Frame) -> Option<Self> {
        let (&count, rest) = content.split_first()?;
        let chosen = rest.get(..2 * usize::from(count))?.chunks_exact(2);
        let components = chosen.map(|pair| {
            let component = frame.components.iter().position(|component| component.id == pair[0])?;
            Some((component, usize::from(pair[1] >> 4), usize::from(pair[1] & 15)))
        });
        let components: Vec<_> = components.collect::<Option<_>>()?;
        (!components.is_empty()).then_some(Self(components))
    }

    fn decode(
        &self,
        bits: &mut Bits<'_>,
        frame: &mut Frame,
        units: (usize, usize),
        interval: usize,
        (quantisation, tables): (&[[i32; 64]; 4], &[Vec<Huffman>; 2]),
    ) -> Option<()> {
        let interleaved = self.0.len() > 1;
        let largest = |side: fn(&Component) -> usize| frame.components.iter().map(side).max().unwrap_or(1);
        let (across, down) = (largest(|c| c.across), largest(|c| c.down));
        // A component alone has only the blocks that it needs.
        let (columns, rows) = if interleaved {
            units
        } else {
            let component = &frame.components[self.0[0].0];
            let side = |length: usize, own: usize, all: usize| (length * own).div_ceil(all).div_ceil(8);
            (side(frame.columns, component.across, across), side(frame.rows, component.down, down))
        };
        let mut last = vec![0; frame.components.len()];
        for unit in 0..columns * rows {
            if interval > 0 && unit > 0 && unit % interval == 0 {
                bits.restart()?;
                last.fill(0);
            }
            for &(at, direct, rest) in &self.0 {
                let component = &mut frame.components[at];
                let (wide, high) = if interleaved { (component.across, component.down) } else { (1, 1) };
                for block in 0..wide * high {
                    let column = unit % columns * wide + block % wide;
                    let row = unit / columns * high + block / wide;
                    let mut coefficients = [0i32; 64];
                    let steps = &quantisation[component.quantisation];
                    let table = &tables[0].get(direct)?;
                    let length = bits.symbol(table)?;
                    last[at] = i32::wrapping_add(last[at], bits.signed(length.min(16))?);
                    coefficients[0] = i32::wrapping_mul(last[at], steps[0]);
                    let table = &tables[1].get(rest)?;
                    let mut place = 1;
                    while place < 64 {
                        let symbol = bits.symbol(table)?;
                        let (zeros, length) = (usize::from(symbol >> 4), symbol & 15);
                        if length == 0 {
                            if zeros < 15 {
                                break;
                            }
                            place += 16;
                            continue;
                        }
                        place += zeros;
                        let to = *ZIGZAG.get(place)?;
                        coefficients[to] = i32::wrapping_mul(bits.signed(length)?, steps[to]);
                        place += 1;
                    }
                    let start = (row * component.blocks + column) * 64;
                    inverse(&coefficients, frame.precision, component.values.get_mut(start..start + 64)?);
                }
            }
        }
        Some(())
    }
}

/// The inverse cosine transform of a block, moved to numbers from 0.
fn inverse(coefficients: &[i32; 64], precision: u16, block: &mut [i32]) {
    let extra = if precision == 8 { 2 } else { 1 };
    let rounded = |value: i64, bits: u32| value.wrapping_add(1 << (bits - 1)) >> bits;
    let mut columns = [0i64; 64];
    for at in 0..8 {
        // Most columns have a mean alone, which all rounding leaves as it is.
        if (1..8).all(|row| coefficients[row * 8 + at] == 0) {
            (0..8).for_each(|row| columns[row * 8 + at] = i64::from(coefficients[at]) << extra);
            continue;
        }
        let column = transform([0, 1, 2, 3, 4, 5, 6, 7].map(|row| i64::from(coefficients[row * 8 + at])));
        for (row, value) in column.into_iter().enumerate() {
            columns[row * 8 + at] = rounded(value, 13 - extra);
        }
    }
    let (middle, greatest) = (1 << (precision - 1), (1 << precision) - 1);
    for (row, out) in block.chunks_exact_mut(8).enumerate() {
        let values = transform([0, 1, 2, 3, 4, 5, 6, 7].map(|at| columns[row * 8 + at]));
        for (out, value) in out.iter_mut().zip(values) {
            *out = (rounded(value, 13 + extra + 3) + middle).clamp(0, greatest) as i32;
        }
    }
}

/// Eight values from eight coefficients, times √8 and 2¹³.
fn transform(c: [i64; 8]) -> [i64; 8] {
    const fn fixed(value: f64) -> i64 {
        (value * 8192.0 + 0.5) as i64
    }
    let turned = (c[2] + c[6]) * fixed(0.541_196_100);
    let (low, high) = (turned - c[6] * fixed(1.847_759_065), turned + c[2] * fixed(0.765_366_865));
    let (sum, difference) = ((c[0] + c[4]) << 13, (c[0] - c[4]) << 13);
    let even = [sum + high, difference + low, difference - low, sum - high];

    let (a, b) = (c[7] + c[3], c[5] + c[1]);
    let both = (a + b) * fixed(1.175_875_602);
    let (a, b) = (both - a * fixed(1.961_570_560), both - b * fixed(0.390_180_644));
    let (outer, inner) = (-(c[7] + c[1]) * fixed(0.899_976_223), -(c[5] + c[3]) * fixed(2.562_915_447));
    let odd = [
        c[1] * fixed(1.501_321_110) + outer + b,
        c[3] * fixed(3.072_711_026) + inner + a,
        c[5] * fixed(2.053_119_869) + inner + b,
        c[7] * fixed(0.298_631_336) + outer + a,
    ];
    [
        even[0] + odd[0],
        even[1] + odd[1],
        even[2] + odd[2],
        even[3] + odd[3],
        even[3] - odd[3],
        even[2] - odd[2],
        even[1] - odd[1],
        even[0] - odd[0],
    ]
}

/// A component at the size of the picture.
fn enlarged(component: &Component, frame: &Frame, (across, down): (usize, usize)) -> Vec<i32> {
    let columns = (frame.columns * component.across).div_ceil(across);
    let rows = (frame.rows * component.down).div_ceil(down);
    let mut lines: Vec<Vec<i32>> = (0..rows)
        .map(|row| {
            let value = |column: usize| {
                let block = row / 8 * component.blocks + column / 8;
                component.values[block * 64 + row % 8 * 8 + column % 8]
            };
            (0..columns).map(value).collect()
        })
        .collect();
    let (twice_across, twice_down) = (across == 2 * component.across, down == 2 * component.down);
    // Sums of four parts down, and how they are rounded, depend on whether there are four parts across too.
    if twice_down {
        let scaled =
            |near: &[i32], far: &[i32]| near.iter().zip(far).map(|(near, far)| 3 * near + far).collect::<Vec<_>>();
        let doubled = (0..rows).flat_map(|row| {
            let (above, below) = (&lines[row.saturating_sub(1)], &lines[(row + 1).min(rows - 1)]);
            [scaled(&lines[row], above), scaled(&lines[row], below)]
        });
        lines = doubled.collect();
        if !twice_across {
            for (row, line) in lines.iter_mut().enumerate() {
                line.iter_mut().for_each(|value| *value = (*value + if row % 2 == 0 { 1 } else { 2 }) >> 2);
            }
        }
    }
    if twice_across {
        let (shift, left, right) = if twice_down { (4, 8, 7) } else { (2, 1, 2) };
        for line in &mut lines {
            let value = |at: usize, side: usize| 3 * line[at] + line[side];
            *line = (0..columns)
                .flat_map(|at| {
                    let (before, after) = (at.saturating_sub(1), (at + 1).min(columns - 1));
                    [(value(at, before) + left) >> shift, (value(at, after) + right) >> shift]
                })
                .collect();
        }
    }
    lines.into_iter().take(frame.rows).flat_map(|line| line.into_iter().take(frame.columns)).collect()
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use nocebo_core::Seed;
    use rand::RngExt;

    use super::*;

    #[test]
    fn the_inverse_transform_is_that_of_the_cosines() {
        let mut generator = Seed(1).for_sample(0);
        for precision in [8, 12] {
            let mut coefficients = [0i32; 64];
            for value in &mut coefficients {
                *value = generator.random_range(-60..60) * (1 << (precision - 8));
            }
            let mut block = [0; 64];
            inverse(&coefficients, precision, &mut block);
            for (at, &value) in block.iter().enumerate() {
                let (y, x) = (at / 8, at % 8);
                let mut sum = 0.0;
                for (place, &coefficient) in coefficients.iter().enumerate() {
                    let (v, u) = (place / 8, place % 8);
                    let scale = |k: usize| if k == 0 { (0.5f64).sqrt() } else { 1.0 };
                    let wave = |k: usize, at: usize| (PI * k as f64 * (2 * at + 1) as f64 / 16.0).cos();
                    sum += 0.25 * scale(u) * scale(v) * f64::from(coefficient) * wave(u, x) * wave(v, y);
                }
                let exact = (sum + f64::from(1 << (precision - 1))).clamp(0.0, f64::from((1 << precision) - 1));
                assert!((exact - f64::from(value)).abs() < 1.0, "{precision} {at}: {exact} {value}");
            }
        }
    }

    #[test]
    fn codes_are_canonical_and_too_many_are_refused() {
        let mut tables = [vec![Vec::new(); 4], vec![Vec::new(); 4]];
        // Symbols 5 (code 0), 7 (10), 9 (110).
        let mut content = vec![0x11, 1, 1, 1];
        content.extend([0; 13]);
        content.extend([5, 7, 9]);
        read_huffman(&content, &mut tables).unwrap();
        let table = &tables[1][1];
        assert_eq!((table[0], table[0x8000], table[0xc000], table[0xe000]), ((1, 5), (2, 7), (3, 9), (0, 0)));
        content[1] = 3;
        assert!(read_huffman(&content, &mut tables).is_none());
    }
}
