//! Writes `docs/phantoms.md` and its pictures: `phantom_gallery FOLDER [MODALITY [SEED]]`; with a modality, its picture alone.

use std::fmt::Write;
use std::path::Path;

use nocebo_core::Seed;
use nocebo_data::phantoms::{MODALITIES, Phantom, PhantomSample};

const HEAD: &str = "# Phantoms

What `nocebo phantom MODALITY --out DIR` draws, at its default difficulty: without the finding to the left (above, in blue), with it to the
right (below, in red). Pictures are larger here than by default. How each is computed, and from which physics, is said at the head of
its module in `crates/data/src/phantoms/`. Nothing measured on phantoms says anything about patients.

Written by `cargo run --release -p nocebo-data --example phantom_gallery docs`.
";

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
        sheet(name, seed)?.write(&pictures.join(format!("{name}.png")))?;
        let shape = Phantom::new(name, None, None)?.domain().shape().to_vec();
        let classes = modality.classes.join(", ");
        writeln!(page, "\n## {name}\n\n{about}. Classes: {classes}. Shape {shape:?}.\n")?;
        writeln!(page, "![{about}](phantoms/{name}.png)")?;
    }
    if only.is_none() {
        std::fs::write(Path::new(&folder).join("phantoms.md"), page)?;
    }
    Ok(())
}

fn sheet(name: &str, seed: Seed) -> Result<Sheet, Box<dyn std::error::Error>> {
    let phantom = Phantom::new(name, Some(144), None)?;
    if phantom.domain().shape().len() == 2 {
        return Ok(traces(&Phantom::new(name, None, None)?, seed));
    }
    let classes = phantom.modality().classes.len();
    let each = if classes == 2 { 2 } else { 1 };
    let mut shown: Vec<PhantomSample> = Vec::new();
    for class in 0..classes {
        shown.extend((0..).map(|index| phantom.sample(seed, index)).filter(|sample| sample.class == class).take(each));
    }
    Ok(pictures(&phantom, &shown))
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

/// One row a class: the signals of one sample as lines, or the columns of a table in their own scale.
fn traces(phantom: &Phantom, seed: Seed) -> Sheet {
    const WIDTH: usize = 588;
    let (&[channels, length], classes) = (phantom.domain().shape(), phantom.modality().classes.len()) else {
        return Sheet::new(1, 1);
    };
    let height = if channels > 2 { 22 } else { 64 };
    let panel = channels * height + GAP;
    let wide = classes == 2 && length < 200;
    let width = if wide { WIDTH / 2 - GAP } else { WIDTH };
    let mut sheet = Sheet::new(WIDTH, if wide { panel } else { classes * panel });
    let shown: Vec<PhantomSample> = (0..classes)
        .filter_map(|class| {
            (0..classes as u64).map(|index| phantom.sample(seed, index)).find(|sample| sample.class == class)
        })
        .collect();
    for channel in 0..channels {
        let all = || shown.iter().flat_map(|sample| &sample.values[channel * length..(channel + 1) * length]);
        let (low, high) = all().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
        for (number, sample) in shown.iter().enumerate() {
            let (left, top) = if wide { (number * (WIDTH / 2 + GAP), 0) } else { (0, number * panel) };
            let colour = if sample.class == 0 { [30, 60, 140] } else { [170, 40, 30] };
            let place = |x: usize| {
                let at = x as f32 / (width - 1) as f32 * (length - 1) as f32;
                let (first, part) = (at as usize, at.fract());
                let values = &sample.values[channel * length..(channel + 1) * length];
                let value = values[first] * (1.0 - part) + values[(first + 1).min(length - 1)] * part;
                (channel + 1) as f32 * height as f32
                    - 2.0
                    - (value - low) / (high - low).max(1e-6) * (height as f32 - 4.0)
            };
            for x in 1..width {
                let (from, to) = (place(x - 1), place(x));
                for y in from.min(to) as usize..=from.max(to) as usize {
                    sheet.set(left + x, top + y, colour);
                }
            }
        }
    }
    sheet
}
