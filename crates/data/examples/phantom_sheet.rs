//! Writes a sheet of chest X-ray phantoms: `phantom_sheet FILE.png [SIZE] [DIFFICULTY] [SEED]`.
//!
//! Upper rows are normal, lower rows have an opacity; the last row shows the masks of the row above it.

use std::fs::File;
use std::io::BufWriter;

use nocebo_core::Seed;
use nocebo_data::phantoms::{ChestXray, ChestXrayConfig, ChestXraySample};

const COLUMNS: usize = 4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("give the name of the PNG file")?;
    let size: usize = arguments.next().map_or(Ok(224), |text| text.parse())?;
    let difficulty: f32 = arguments.next().map_or(Ok(0.5), |text| text.parse())?;
    let seed = Seed(arguments.next().map_or(Ok(1), |text| text.parse())?);
    let phantom = ChestXray::try_from(ChestXrayConfig { size, difficulty, ..ChestXrayConfig::default() })?;

    let series = || (0u64..).map(|index| phantom.sample(seed, index));
    let normal: Vec<ChestXraySample> = series().filter(|sample| !sample.finding).take(COLUMNS).collect();
    let opacity: Vec<ChestXraySample> = series().filter(|sample| sample.finding).take(2 * COLUMNS).collect();
    let masks =
        opacity[COLUMNS..].iter().map(|sample| sample.mask.iter().map(|&inside| 255.0 * f32::from(inside)).collect());
    let mut pictures: Vec<Vec<f32>> = normal.into_iter().map(|sample| sample.pixels).collect();
    pictures.extend(opacity.iter().map(|sample| sample.pixels.clone()));
    pictures.extend(masks);

    let rows = pictures.len() / COLUMNS;
    let mut sheet = vec![0u8; rows * size * COLUMNS * size];
    for (number, picture) in pictures.iter().enumerate() {
        let (top, left) = (number / COLUMNS * size, number % COLUMNS * size);
        for (at, &value) in picture.iter().enumerate() {
            sheet[(top + at / size) * COLUMNS * size + left + at % size] = value as u8;
        }
    }
    let file = BufWriter::new(File::create_new(path)?);
    let mut encoder = png::Encoder::new(file, (COLUMNS * size) as u32, (rows * size) as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header()?.write_image_data(&sheet)?;
    Ok(())
}
