//! Writes `docs/phantoms.md` and its pictures: `phantom_gallery FOLDER [MODALITY [SEED]]`; with a modality, its picture alone.

use std::fmt::Write;
use std::path::Path;

use nocebo_core::Seed;
use nocebo_data::phantoms::{MODALITIES, Phantom, PhantomSample};

const HEAD: &str = "# Phantoms

What `nocebo phantom MODALITY --out DIR` draws, at its default difficulty. Pictures are larger here than by default. How each is computed,
from which physics, and what the difficulty changes, is said at the head of its module in `crates/data/src/phantoms/`. Nothing measured on
phantoms says anything about patients.

Written by `cargo run --release -p nocebo-data --example phantom_gallery docs`; the table at the end by `bench/phantoms.py`.
";

/// What follows is kept as it is.
const TABLE: &str = "\n## How well a small network learns them\n";

/// Pixels between two pictures.
const GAP: usize = 4;

/// An RGB picture.
struct Sheet {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Sheet {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![255; 3 * width * height] }
    }

    fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            self.pixels[3 * (y * self.width + x)..][..3].copy_from_slice(&colour);
        }
    }

    /// The mean of each square of `factor` pixels a side.
    fn shrunk(&self, factor: usize) -> Self {
        let mut small = Self::new(self.width / factor, self.height / factor);
        for at in 0..small.width * small.height {
            let (x, y) = (at % small.width * factor, at / small.width * factor);
            let mean = |part: usize| {
                let square = (0..factor * factor).map(|at| (y + at / factor) * self.width + x + at % factor);
                let sum: usize = square.map(|pixel| usize::from(self.pixels[3 * pixel + part])).sum();
                (sum / (factor * factor)) as u8
            };
            small.set(at % small.width, at / small.width, [mean(0), mean(1), mean(2)]);
        }
        small
    }

    fn write(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let file = std::io::BufWriter::new(std::fs::File::create(path)?);
        let mut encoder = png::Encoder::new(file, self.width as u32, self.height as u32);
        encoder.set_compression(png::Compression::High);
        let grey = self.pixels.chunks(3).all(|rgb| rgb[0] == rgb[1] && rgb[1] == rgb[2]);
        if grey {
            encoder.set_color(png::ColorType::Grayscale);
            let pixels: Vec<u8> = self.pixels.iter().copied().step_by(3).collect();
            encoder.write_header()?.write_image_data(&pixels)?;
        } else {
            encoder.set_color(png::ColorType::Rgb);
            encoder.write_header()?.write_image_data(&self.pixels)?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("give a folder")?;
    let only = arguments.next();
    let seed = Seed(arguments.next().map_or(Ok(1), |text| text.parse())?);
    let pictures = Path::new(&folder).join("phantoms");
    std::fs::create_dir_all(&pictures)?;
    let mut page = HEAD.to_owned();
    for modality in MODALITIES.iter().filter(|modality| only.as_ref().is_none_or(|name| name == modality.name)) {
        let (name, about) = (modality.name, modality.about);
        let (drawn, labels) = sheet(name, seed)?;
        drawn.write(&pictures.join(format!("{name}.png")))?;
        let phantom = Phantom::new(name, None, None)?;
        let (shape, unit) = (phantom.domain().shape(), phantom.domain().unit().symbol());
        writeln!(
            page,
            "\n## {name}\n\n{about}. Shape {shape:?}, in {unit}.\n\n![{about}](phantoms/{name}.png)\n\n{labels}."
        )?;
    }
    let file = Path::new(&folder).join("phantoms.md");
    if only.is_none() {
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        if let Some((_, table)) = before.split_once(TABLE) {
            page = page + TABLE + table;
        }
        std::fs::write(file, page)?;
    }
    Ok(())
}

/// The picture of a modality, and in words what is where.
fn sheet(name: &str, seed: Seed) -> Result<(Sheet, String), Box<dyn std::error::Error>> {
    let phantom = Phantom::new(name, Some(144), None)?;
    let names = |shown: &[PhantomSample]| {
        let names: Vec<&str> = shown.iter().map(|sample| phantom.modality().classes[sample.class]).collect();
        names.join(", ")
    };
    if phantom.domain().shape().len() == 2 {
        let (sheet, shown, beside) = traces(&Phantom::new(name, None, None)?, seed);
        let place = if beside { "From left to right" } else { "From top to bottom" };
        return Ok((sheet, format!("{place}: {}. In each, from top to bottom: {}", names(&shown), channels(name))));
    }
    let classes = phantom.modality().classes.len();
    let each = if classes == 2 { 2 } else { 1 };
    let mut shown: Vec<PhantomSample> = Vec::new();
    for class in 0..classes {
        shown.extend((0..).map(|index| phantom.sample(seed, index)).filter(|sample| sample.class == class).take(each));
    }
    Ok((pictures(&phantom, &shown), format!("From left to right: {}", names(&shown))))
}

/// The middle slice of each sample, side by side.
fn pictures(phantom: &Phantom, shown: &[PhantomSample]) -> Sheet {
    let shape = phantom.domain().shape();
    let (channels, side) = (shape[0], shape[shape.len() - 1]);
    let slices = if shape.len() == 4 { shape[1] } else { 1 };
    let (black, white) = match phantom.modality().name {
        "ct-slice" | "ct-volume" => (-1150.0, 350.0),
        "brain-mri" => (0.0, 2000.0),
        _ => (0.0, phantom.domain().upper()[0]),
    };
    let mut sheet = Sheet::new(shown.len() * (side + GAP) - GAP, side);
    for (number, sample) in shown.iter().enumerate() {
        // The slice with the largest part of the finding.
        let area = side * side;
        let marked =
            |slice: usize| sample.mask[slice * area..(slice + 1) * area].iter().filter(|&&inside| inside).count();
        let slice = if slices > 1 && sample.class > 0 {
            (0..slices).max_by_key(|&slice| marked(slice)).unwrap_or(0)
        } else {
            slices / 2
        };
        for at in 0..area {
            let level = |channel: usize| {
                let value = sample.values[(channel * slices + slice) * area + at];
                (255.0 * (value - black) / (white - black)).clamp(0.0, 255.0) as u8
            };
            let colour = if channels == 3 { [level(0), level(1), level(2)] } else { [level(0); 3] };
            sheet.set(number * (side + GAP) + at % side, at / side, colour);
        }
    }
    sheet
}

/// What is drawn of a signal, from top to bottom.
fn channels(name: &str) -> &'static str {
    match name {
        "ecg" => "lead II and a chest lead; a square is 0.2 s wide and 0.5 mV high",
        "eeg" => "Fz, Cz, Pz, Oz, P3, P4, PO7, PO8, in one second from the flash on",
        "ppg" => "eight seconds of the pulse",
        _ => {
            "heart rate, breaths, temperature, arterial pressure, oxygen saturation, lactate, white cells, creatinine, in 24 hours"
        }
    }
}

/// The signals of one sample a class as lines, or the columns of a table in their own scale; and whether the classes are side by
/// side and not one below the other.
fn traces(phantom: &Phantom, seed: Seed) -> (Sheet, Vec<PhantomSample>, bool) {
    // Drawn this many times larger, so that lines are smooth.
    const FINE: usize = 4;
    const WIDTH: usize = 588 * FINE;
    const PAPER: [u8; 3] = [250, 205, 200];
    let shape = phantom.domain().shape();
    let (signals, length, classes) = (shape[0], shape[1], phantom.modality().classes.len());
    let height = FINE * if signals > 2 { 24 } else { 74 };
    let panel = signals * height + FINE * GAP;
    let beside = classes == 2;
    let width = if beside { WIDTH / 2 - FINE * GAP } else { WIDTH };
    let mut sheet = Sheet::new(WIDTH, if beside { panel } else { classes * panel });
    let shown: Vec<PhantomSample> = (0..classes)
        .filter_map(|class| {
            (0..classes as u64).map(|index| phantom.sample(seed, index)).find(|sample| sample.class == class)
        })
        .collect();
    // Pixels of a second and of a millivolt, as a chart recorder has them: 25 and 10 mm.
    let second = (phantom.modality().name == "ecg").then(|| width as f32 * 125.0 / length as f32);
    if let Some(second) = second {
        let square = second / 5.0;
        for x in 0..WIDTH {
            for y in 0..sheet.height {
                if (x as f32).rem_euclid(square) < FINE as f32 || (y as f32).rem_euclid(square) < FINE as f32 {
                    sheet.set(x, y, PAPER);
                }
            }
        }
    }
    for channel in 0..signals {
        let all = || shown.iter().flat_map(|sample| &sample.values[channel * length..(channel + 1) * length]);
        let (low, high) = all().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
        let unit = second.map_or((height - 4 * FINE) as f32 / (high - low).max(1e-6), |second| second / 2.5);
        for (number, sample) in shown.iter().enumerate() {
            let (left, top) = if beside { (number * (WIDTH / 2 + FINE * GAP), 0) } else { (0, number * panel) };
            let colour = if sample.class == 0 { [30, 60, 140] } else { [170, 40, 30] };
            let middle = (top + channel * height + height / 2) as f32;
            let place = |x: usize| {
                let at = x as f32 / (width - 1) as f32 * (length - 1) as f32;
                let (first, part) = (at as usize, at.fract());
                let values = &sample.values[channel * length..(channel + 1) * length];
                let value = values[first] * (1.0 - part) + values[(first + 1).min(length - 1)] * part;
                middle - unit * (value - 0.5 * (low + high))
            };
            for x in 1..width {
                let (from, to) = (place(x - 1), place(x));
                for y in from.min(to) as usize..=from.max(to) as usize + FINE {
                    for thick in 0..FINE {
                        sheet.set(left + x + thick, y, colour);
                    }
                }
            }
        }
    }
    (sheet.shrunk(FINE), shown, beside)
}
