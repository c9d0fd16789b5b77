//! JPEG-LS, lossless and near-lossless: contexts of three gradients, corrected median prediction, Golomb codes, runs.
//!
//! ```text
//! prediction = median(left, above, left + above - above left) + sign · correction of the context
//! sample = prediction + sign · error · (2 NEAR + 1)                  modulo the range
//! ```
//!
//! Components lie in scans of their own, line by line or sample by sample. Refused: mapping tables, point transforms, restart
//! intervals, subsampling.
//!
//! Source: ITU-T T.87 (1998), annex A and C; of runs in lines of several components, our reading.

use crate::DataError;

/// What the header of a stream says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) precision: u16,
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) samples: usize,
}

/// Lengths of runs, as exponents of two.
const RUNS: [u32; 32] =
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn broken(name: &str, got: &str) -> DataError {
    DataError::format(name, "JPEG-LS stream", "a whole, valid one", got)
}

/// The next segment: mark, content, where the one after it begins.
fn segment(bytes: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let &[0xff, mark, high, low] = bytes.get(at..at + 4)? else { return None };
    let next = at + 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
    Some((mark, bytes.get(at + 4..next)?, next))
}

/// What the stream says of itself, before anything is decoded.
pub(super) fn header(name: &str, bytes: &[u8]) -> Result<Header, DataError> {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return Err(broken(name, "other bytes"));
    }
    let mut at = 2;
    while let Some((mark, content, next)) = segment(bytes, at) {
        at = next;
        if mark == 0xf7 {
            let &[precision, y1, y0, x1, x0, samples, ref rest @ ..] = content else { break };
            if rest.len() != 3 * usize::from(samples) || rest.chunks_exact(3).any(|three| three[1] != 0x11) {
                return Err(broken(name, "components of different size"));
            }
            return Ok(Header {
                precision: u16::from(precision),
                columns: usize::from(u16::from_be_bytes([x1, x0])),
                rows: usize::from(u16::from_be_bytes([y1, y0])),
                samples: usize::from(samples),
            });
        }
    }
    Err(broken(name, "no frame header"))
}

/// Decodes a stream whose [`header`] has been read: its samples, those of a pixel together.
pub(super) fn decode(name: &str, bytes: &[u8], header: Header) -> Result<Vec<i32>, DataError> {
    if !(2..=16).contains(&header.precision) {
        return Err(broken(name, "a depth that cannot be"));
    }
    let mut planes: Vec<Vec<i32>> = Vec::new();
    let mut preset: Option<[i32; 5]> = None;
    let mut at = 2;
    while planes.len() < header.samples {
        let Some((mark, content, next)) = segment(bytes, at) else {
            return Err(broken(name, "the end before all components"));
        };
        at = next;
        match mark {
            0xf8 => match content {
                [1, numbers @ ..] if numbers.len() == 10 => {
                    let number = |at: usize| i32::from(u16::from_be_bytes([numbers[2 * at], numbers[2 * at + 1]]));
                    preset = Some([number(0), number(1), number(2), number(3), number(4)]);
                }
                _ => return Err(broken(name, "a mapping table")),
            },
            0xdd => return Err(broken(name, "restart intervals")),
            0xda => {
                let [count, rest @ ..] = content else { return Err(broken(name, "a bad scan header")) };
                let count = usize::from(*count);
                let Some(&[near, interleave, 0]) = rest.get(2 * count..) else {
                    return Err(broken(name, "a bad scan header"));
                };
                let alone = interleave == 0 && count == 1;
                let together = matches!(interleave, 1 | 2) && count == header.samples;
                if !(alone || together) || rest[..2 * count].chunks_exact(2).any(|pair| pair[1] != 0) {
                    return Err(broken(name, "a scan of another kind"));
                }
                let settings = Settings::new(header.precision, i32::from(near), preset)
                    .ok_or_else(|| broken(name, "coding parameters that cannot be"))?;
                let mut bits = Bits { bytes, at, held: 0, count: 0, missing: 0, after_ones: false };
                let decoded = Decoder::new(settings).scan(&mut bits, header, count, interleave == 2);
                planes.extend(decoded.ok_or_else(|| broken(name, "data that stop early or are damaged"))?);
                at = bits.at;
            }
            0xd9 => return Err(broken(name, "the end before all components")),
            _ => {}
        }
    }
    let positions = header.columns * header.rows;
    Ok((0..positions).flat_map(|position| planes.iter().map(move |plane| plane[position])).collect())
}

/// The coded bits: after a byte of ones only seven bits of the next count.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
    /// Bits that were made up after the end.
    missing: u32,
    after_ones: bool,
}

impl Bits<'_> {
    fn fill(&mut self) {
        while self.count <= 48 {
            let byte = self.bytes.get(self.at).copied();
            let (byte, bits) = match byte {
                // A mark ends the data.
                Some(byte) if self.after_ones && byte >= 0x80 => (None, 8),
                Some(0xff) if self.bytes.get(self.at + 1).is_none_or(|next| *next >= 0x80) => (None, 8),
                Some(byte) => (Some(byte), if self.after_ones { 7 } else { 8 }),
                None => (None, 8),
            };
            if let Some(byte) = byte {
                self.at += 1;
                self.after_ones = byte == 0xff;
            } else {
                self.missing += bits;
            }
            self.held = self.held << bits | u64::from(byte.unwrap_or(0));
            self.count += bits;
        }
    }

    fn take(&mut self, bits: u32) -> Option<i32> {
        self.fill();
        self.count -= bits;
        let value = (self.held >> self.count) & ((1 << bits) - 1);
        (self.count >= self.missing).then_some(value as i32)
    }

    /// A number in a Golomb code with parameter `k` and at most `limit` bits.
    fn golomb(&mut self, k: u32, limit: u32, depth: u32) -> Option<i32> {
        let mut zeros = 0;
        while self.take(1)? == 0 {
            zeros += 1;
            if zeros > limit {
                return None;
            }
        }
        if zeros < limit - depth - 1 { Some((zeros << k) as i32 + self.take(k)?) } else { Some(self.take(depth)? + 1) }
    }
}

#[derive(Clone, Copy)]
struct Settings {
    greatest: i32,
    near: i32,
    thresholds: [i32; 3],
    reset: i32,
    range: i32,
    /// Bits of an error.
    depth: u32,
    limit: u32,
}

impl Settings {
    fn new(precision: u16, near: i32, preset: Option<[i32; 5]>) -> Option<Self> {
        let preset = preset.unwrap_or([0; 5]);
        let or = |given: i32, default: i32| if given == 0 { default } else { given };
        let greatest = or(preset[0], (1 << precision) - 1);
        if near > greatest / 2 || greatest >= 1 << precision {
            return None;
        }
        let within = |value: i32, least: i32| if value > greatest || value < least { least } else { value };
        let base = if greatest >= 128 {
            let factor = (greatest.min(4095) + 128) / 256;
            [factor + 2 + 3 * near, factor * 4 + 3 + 5 * near, factor * 17 + 4 + 7 * near]
        } else {
            let factor = 256 / (greatest + 1);
            [2.max(3 / factor + 3 * near), 3.max(7 / factor + 5 * near), 4.max(21 / factor + 7 * near)]
        };
        let first = or(preset[1], within(base[0], near + 1));
        let second = or(preset[2], within(base[1], first));
        let third = or(preset[3], within(base[2], second));
        let range = (greatest + 2 * near) / (2 * near + 1) + 1;
        let bits = |count: i32| i32::BITS - (count - 1).leading_zeros();
        let wide = bits(greatest + 1).max(2);
        let settings = Self {
            greatest,
            near,
            thresholds: [first, second, third],
            reset: or(preset[4], 64),
            range,
            depth: bits(range),
            limit: 2 * (wide + wide.max(8)),
        };
        (settings.reset >= 3 && settings.depth > 0 && settings.limit > settings.depth + 17).then_some(settings)
    }

    fn quantised(&self, gradient: i32) -> i32 {
        let [first, second, third] = self.thresholds;
        let size = match gradient.abs() {
            size if size <= self.near => 0,
            size if size < first => 1,
            size if size < second => 2,
            size if size < third => 3,
            _ => 4,
        };
        size * gradient.signum()
    }

    /// A sample from its prediction and the decoded error.
    fn sample(&self, prediction: i32, error: i32) -> i32 {
        let step = 2 * self.near + 1;
        let mut sample = prediction + error * step;
        if sample < -self.near {
            sample += self.range * step;
        } else if sample > self.greatest + self.near {
            sample -= self.range * step;
        }
        sample.clamp(0, self.greatest)
    }
}

/// What is known of the errors in a context.
#[derive(Clone, Copy)]
struct Context {
    sizes: i32,
    bias: i32,
    correction: i32,
    count: i32,
    /// Negative errors, of those that end a run.
    negative: i32,
}

impl Context {
    /// The parameter of the code: the least `k` for which `count · 2ᵏ` reaches the sum of sizes.
    fn parameter(&self, sizes: i32) -> u32 {
        (0..24).find(|&k| i64::from(self.count) << k >= i64::from(sizes)).unwrap_or(24)
    }
}

struct Decoder {
    settings: Settings,
    contexts: Vec<Context>,
    after_run: [Context; 2],
}

impl Decoder {
    fn new(settings: Settings) -> Self {
        let sizes = 2.max((settings.range + 32) / 64);
        let fresh = Context { sizes, bias: 0, correction: 0, count: 1, negative: 0 };
        Self { settings, contexts: vec![fresh; 365], after_run: [fresh; 2] }
    }

    /// The planes of one scan.
    fn scan(&mut self, bits: &mut Bits<'_>, header: Header, count: usize, by_sample: bool) -> Option<Vec<Vec<i32>>> {
        let columns = header.columns;
        // A line has one sample before its first and one after its last.
        let mut lines = vec![(vec![0; columns + 2], vec![0; columns + 2]); count];
        let mut planes = vec![Vec::with_capacity(columns * header.rows); count];
        let mut runs = vec![0; count];
        for _ in 0..header.rows {
            for (above, line) in &mut lines {
                std::mem::swap(above, line);
                above[columns + 1] = above[columns];
                line[0] = above[1];
            }
            if by_sample {
                self.line(bits, &mut lines, &mut runs[0], columns)?;
            } else {
                for (lines, run) in lines.chunks_exact_mut(1).zip(&mut runs) {
                    self.line(bits, lines, run, columns)?;
                }
            }
            for (plane, (_, line)) in planes.iter_mut().zip(&lines) {
                plane.extend_from_slice(&line[1..=columns]);
            }
        }
        Some(planes)
    }

    /// One line of one component, or of all of them sample by sample; a line and the one above it for each.
    fn line(
        &mut self,
        bits: &mut Bits<'_>,
        lines: &mut [(Vec<i32>, Vec<i32>)],
        run: &mut usize,
        columns: usize,
    ) -> Option<()> {
        let near = self.settings.near;
        let mut at = 1;
        while at <= columns {
            let is_flat = lines.iter().all(|(above, line)| {
                let (left, up, corner, next) = (line[at - 1], above[at], above[at - 1], above[at + 1]);
                (next - up).abs() <= near && (up - corner).abs() <= near && (corner - left).abs() <= near
            });
            if !is_flat {
                for (above, line) in &mut *lines {
                    line[at] = self.regular(bits, [line[at - 1], above[at], above[at - 1], above[at + 1]])?;
                }
                at += 1;
                continue;
            }
            let mut length = 0;
            let left = columns + 1 - at;
            while length < left {
                let whole = 1 << RUNS[*run];
                if bits.take(1)? == 1 {
                    length += whole;
                    if length <= left {
                        *run = (*run + 1).min(31);
                    }
                } else {
                    length += bits.take(RUNS[*run])? as usize;
                    if length > left {
                        return None;
                    }
                    break;
                }
            }
            let ended = length >= left;
            let length = length.min(left);
            for (_, line) in &mut *lines {
                let value = line[at - 1];
                line[at..at + length].fill(value);
            }
            at += length;
            if !ended {
                let several = lines.len() > 1;
                for (above, line) in &mut *lines {
                    line[at] = self.end_of_run(bits, line[at - 1], above[at], *run, several)?;
                }
                *run = run.saturating_sub(1);
                at += 1;
            }
        }
        Some(())
    }

    fn regular(&mut self, bits: &mut Bits<'_>, [left, above, corner, next]: [i32; 4]) -> Option<i32> {
        let settings = self.settings;
        let gradients = [next - above, above - corner, corner - left].map(|gradient| settings.quantised(gradient));
        let mut place = gradients.iter().fold(0, |place, quantised| place * 9 + quantised);
        let sign = if place < 0 { -1 } else { 1 };
        place *= sign;
        let context = self.contexts.get_mut(place as usize)?;
        let (low, high) = (left.min(above), left.max(above));
        let median = if corner >= high {
            low
        } else if corner <= low {
            high
        } else {
            left + above - corner
        };
        let prediction = (median + sign * context.correction).clamp(0, settings.greatest);

        let k = context.parameter(context.sizes);
        let mapped = bits.golomb(k, settings.limit, settings.depth).filter(|mapped| *mapped <= 2 * settings.range)?;
        let mut error = if mapped % 2 == 0 { mapped / 2 } else { -(mapped / 2) - 1 };
        if settings.near == 0 && k == 0 && 2 * context.bias <= -context.count {
            error = -error - 1;
        }

        context.sizes += error.abs();
        context.bias += error * (2 * settings.near + 1);
        if context.count == settings.reset {
            context.sizes >>= 1;
            context.bias >>= 1;
            context.count >>= 1;
        }
        context.count += 1;
        if context.bias <= -context.count {
            context.bias = (context.bias + context.count).max(1 - context.count);
            context.correction = (context.correction - 1).max(-128);
        } else if context.bias > 0 {
            context.bias = (context.bias - context.count).min(0);
            context.correction = (context.correction + 1).min(127);
        }
        Some(settings.sample(prediction, sign * error))
    }

    /// The sample that ends a run. Where there are several components, each counts as different from the one above.
    fn end_of_run(&mut self, bits: &mut Bits<'_>, left: i32, above: i32, run: usize, several: bool) -> Option<i32> {
        let settings = self.settings;
        let alike = i32::from(!several && (left - above).abs() <= settings.near);
        let context = &mut self.after_run[alike as usize];
        let k = context.parameter(context.sizes + alike * (context.count >> 1));
        let mapped = bits
            .golomb(k, settings.limit - RUNS[run] - 1, settings.depth)
            .filter(|mapped| *mapped <= 2 * settings.range)?;
        let odd = (mapped + alike) % 2;
        let size = (mapped + alike + odd) / 2;
        let usual = k != 0 || 2 * context.negative >= context.count;
        let error = if usual == (odd == 1) { -size } else { size };

        if error < 0 {
            context.negative += 1;
        }
        context.sizes += (mapped + 1 - alike) >> 1;
        if context.count == settings.reset {
            context.sizes >>= 1;
            context.count >>= 1;
            context.negative >>= 1;
        }
        context.count += 1;
        let sign = if alike == 0 && left > above { -1 } else { 1 };
        Some(settings.sample(if alike == 1 { left } else { above }, sign * error))
    }
}
