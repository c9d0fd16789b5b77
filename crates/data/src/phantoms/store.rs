//! Phantoms written in the format of the field.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use nocebo_core::{Domain, Label, Samples, Seed};

use super::{Phantom, PhantomSample, Storage, ehr};
use crate::formats::dicom::{Acquisition, write_dataset};
use crate::formats::{folder, nifti, npz, picture, recordings, write_new_file};
use crate::{DataError, Dataset, Fractions, Split};

const ARCHIVE: &str = "phantoms.npz";

impl Phantom {
    /// Writes the first `count` samples of the series of `seed` into the new folder `path`.
    ///
    /// Pictures are PNG, X-ray, CT, ultrasound and mammograms DICOM, MRI and stacks NIfTI, signals WFDB (in mV, or without unit) or EDF (in
    /// µV), each with a `labels.csv`; records are a CSV table, one line a patient, with the columns explained in `columns.csv`. Outlines are pictures
    /// in `masks`, with the names of the samples (slices of a stack one below the other). NIfTI and tables have a `phantoms.npz` beside
    /// them, with the stored numbers (steps above the lower bound) in three splits.
    ///
    /// # Errors
    ///
    /// When there are fewer than 20 samples, or the folder exists or cannot be written.
    pub fn write(&self, path: &Path, seed: Seed, count: u64) -> Result<(), DataError> {
        if count < 20 {
            return Err(DataError::InvalidOption { field: "count", must_be: "at least 20", got: count.to_string() });
        }
        let samples = self.samples(seed, 0..count);
        let source = format!("{} phantoms, seed {}", self.modality().name, seed.0);
        let data = self.collect(source, samples.clone())?;
        match self.modality().storage {
            Storage::Pictures => folder::write(path, &data)?,
            Storage::Dicom { modality, window, field } => {
                let spacing = field.map(|field| [f64::from(10.0 * field) / self.size() as f64; 2]);
                let description = self.modality().about;
                write_dataset(
                    path,
                    &data,
                    &Acquisition { modality, spacing, thickness: None, window: Some(window), description },
                )?;
            }
            Storage::Nifti { field, slices } => self.write_volumes(path, &data, (field, slices))?,
            Storage::Records { frequency } => recordings::write(path, &data.with_frequency(frequency))?,
            Storage::Table => write_table(path, &data)?,
        }
        self.write_masks(&path.join("masks"), &samples)?;
        match self.modality().storage {
            Storage::Pictures | Storage::Dicom { .. } | Storage::Records { .. } => Ok(()),
            Storage::Nifti { .. } | Storage::Table => self.write_archive(&path.join(ARCHIVE), &samples),
        }
    }

    fn write_volumes(&self, path: &Path, data: &Dataset, (field, slices): (f32, f32)) -> Result<(), DataError> {
        let pixel = f64::from(10.0 * field) / self.size() as f64;
        let shape = match *data.domain().shape() {
            [channels, height, width] => vec![channels, 1, height, width],
            ref stack => stack.to_vec(),
        };
        let domain: Domain =
            nocebo_core::DomainConfig { shape: shape.clone(), ..data.domain().config().clone() }.try_into()?;
        crate::formats::write_new_folder(path, |folder| {
            let mut names = Vec::new();
            for (row, index) in data.samples().rows().zip(data.samples().indices()) {
                let samples = Samples::new(row.to_vec(), &shape)?;
                let volume =
                    nifti::Volume::new(samples.clone(), domain.clone(), [f64::from(10.0 * slices), pixel, pixel])?;
                let name = format!("{index:06}.nii.gz");
                nifti::write(&folder.join(&name), &volume, &samples)?;
                names.push(name);
            }
            folder::write_table(folder, data, &names)
        })
    }

    fn write_masks(&self, path: &Path, samples: &[PhantomSample]) -> Result<(), DataError> {
        if samples.iter().all(|sample| sample.mask.is_empty()) {
            return Ok(());
        }
        std::fs::create_dir(path).map_err(DataError::writing("masks"))?;
        for sample in samples {
            let shape = [1, sample.mask.len() / self.size(), self.size()];
            let values: Vec<u16> = sample.mask.iter().map(|&inside| 255 * u16::from(inside)).collect();
            write_new_file(&path.join(format!("{:06}.png", sample.index)), |writer| {
                picture::write_png(writer, shape, 8, &values).map_err(std::io::Error::other)
            })?;
        }
        Ok(())
    }

    fn write_archive(&self, path: &Path, samples: &[PhantomSample]) -> Result<(), DataError> {
        let shape = match *self.domain().shape() {
            [rows, columns] => vec![1, rows, columns],
            ref picture => picture.to_vec(),
        };
        let domain = self.domain();
        let steps = |at: usize, value: f32| (value - domain.lower()[at]) / domain.resolution()[at];
        let greatest = (0..domain.elements()).map(|at| steps(at, domain.upper()[at]).round()).fold(1.0, f32::max);
        let Fractions { train, validation, .. } = Fractions::default();
        let share = |part: f64| (part * samples.len() as f64).round() as usize;
        let (first, second) = (share(train), share(train + validation));
        let mut parts = Vec::new();
        for (split, part) in [
            (Split::Train, &samples[..first]),
            (Split::Validation, &samples[first..second]),
            (Split::Test, &samples[second..]),
        ] {
            let values = part
                .iter()
                .flat_map(|sample| sample.values.iter().enumerate().map(|(at, &value)| steps(at, value).round()))
                .collect();
            let labels = part.iter().map(|sample| Label::Class(sample.class)).collect();
            let names = self.modality().classes.iter().map(|&name| name.to_owned()).collect();
            let stored = Domain::grey_levels(&shape, greatest)?;
            parts.push((split, Dataset::new(ARCHIVE, Samples::new(values, &shape)?, labels, names, stored)?));
        }
        let borrowed: Vec<(Split, &Dataset)> = parts.iter().map(|(split, data)| (*split, data)).collect();
        npz::write(path, &borrowed)
    }
}

/// One line a patient: `heart_rate_00`, `heart_rate_01`, ... by hours, and the label.
fn write_table(path: &Path, data: &Dataset) -> Result<(), DataError> {
    let hours = data.domain().shape()[1];
    let columns = || ehr::COLUMNS.iter().flat_map(|column| (0..hours).map(move |hour| (column, hour)));
    let mut text = "patient,label".to_owned();
    let mut legend = "column,unit,lower,upper,step\n".to_owned();
    // Writing to a string cannot fail.
    for (element, (column, hour)) in columns().enumerate() {
        let name = format!("{}_{hour:02}", column.name);
        let _ = write!(text, ",{name}");
        let (lower, upper, step) =
            (data.domain().lower()[element], data.domain().upper()[element], data.domain().resolution()[element]);
        let _ = writeln!(legend, "{name},{},{lower},{upper},{step}", column.unit);
    }
    text.push('\n');
    for ((row, index), label) in data.samples().rows().zip(data.samples().indices()).zip(data.labels()) {
        let class = if let Label::Class(class) = label { data.class_names()[*class].as_str() } else { "" };
        let _ = write!(text, "phantom-{index},{class}");
        for (element, value) in row.iter().enumerate() {
            let decimals = usize::from(data.domain().resolution()[element] < 1.0);
            let _ = write!(text, ",{value:.decimals$}");
        }
        text.push('\n');
    }
    crate::formats::write_new_folder(path, |folder| {
        write_new_file(&folder.join("table.csv"), |writer| writer.write_all(text.as_bytes()))?;
        write_new_file(&folder.join("columns.csv"), |writer| writer.write_all(legend.as_bytes()))
    })
}
