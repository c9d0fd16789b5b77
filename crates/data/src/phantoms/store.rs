//! Phantoms written in the format of the field.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use nocebo_core::{Label, Seed};
use rayon::prelude::*;

use super::{Phantom, PhantomSample, Storage, brain_mri, ehr};
use crate::formats::dicom::{Acquisition, write_dataset};
use crate::formats::table::Schema;
use crate::formats::{folder, nifti, npy, picture, recordings, write_new_file};
use crate::{DataError, Dataset};

const TABLE: &str = "table.csv";
const SCHEMA: &str = "table.schema.toml";

impl Phantom {
    /// Writes the first `count` samples of the series of `seed` into the new folder `path`, which [`crate::open`] reads.
    ///
    /// Pictures are PNG, X-ray, CT, MRI, ultrasound and mammograms DICOM, stacks NIfTI, signals WFDB (in mV, or without unit) or EDF (in
    /// µV), each with a `labels.csv`; records are a CSV table, one line a patient, with its schema. Outlines are pictures in `masks`,
    /// with the names of the samples (slices of a stack one below the other). What the scanner of an MRI measured is in `kspace`:
    /// `[2, size, size]` as `.npy`, see [`Phantom::k_space`].
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
        self.write_k_space(&path.join("kspace"), seed, count)
    }

    fn write_volumes(&self, path: &Path, data: &Dataset, (field, slices): (f32, f32)) -> Result<(), DataError> {
        let pixel = f64::from(10.0 * field) / self.size() as f64;
        crate::formats::write_new_folder(path, |folder| {
            let mut names = Vec::new();
            for (row, index) in data.samples().indices().iter().enumerate() {
                let samples = data.samples().select(&[row]);
                let spacing = [f64::from(10.0 * slices), pixel, pixel];
                let volume = nifti::Volume::new(samples.clone(), data.domain().clone(), spacing)?;
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

    fn write_k_space(&self, path: &Path, seed: Seed, count: u64) -> Result<(), DataError> {
        if self.modality().name != brain_mri::MODALITY.name {
            return Ok(());
        }
        std::fs::create_dir(path).map_err(DataError::writing("kspace"))?;
        (0..count).into_par_iter().try_for_each(|index| {
            let values = self.k_space(seed, index)?;
            npy::write(&path.join(format!("{index:06}.npy")), &[2, self.size(), self.size()], &values)
        })
    }
}

/// One line a patient: `heart_rate_00`, `heart_rate_01`, ... by hours, and the label.
fn write_table(path: &Path, data: &Dataset) -> Result<(), DataError> {
    let hours = data.domain().shape()[1];
    let columns = || ehr::COLUMNS.iter().flat_map(|column| (0..hours).map(move |hour| (column, hour)));
    let mut text = "patient,label".to_owned();
    let mut schema = Schema {
        label: Some("label".to_owned()),
        class_names: Some(data.class_names().to_vec()),
        patient: Some("patient".to_owned()),
        ..Schema::default()
    };
    // Writing to a string cannot fail.
    for (column, hour) in columns() {
        let name = format!("{}_{hour:02}", column.name);
        let _ = write!(text, ",{name}");
        schema.column.insert(name, column.schema());
    }
    text.push('\n');
    for ((row, index), label) in data.samples().rows().zip(data.samples().indices()).zip(data.labels()) {
        let class = if let Label::Class(class) = label { data.class_names()[*class].as_str() } else { "" };
        let _ = write!(text, "phantom-{index},{class}");
        for (value, (column, _)) in row.iter().zip(columns()) {
            let decimals = usize::from(column.step < 1.0);
            let _ = write!(text, ",{value:.decimals$}");
        }
        text.push('\n');
    }
    let schema =
        toml::to_string(&schema).map_err(|error| DataError::format(SCHEMA, "schema", "TOML", error.to_string()))?;
    crate::formats::write_new_folder(path, |folder| {
        write_new_file(&folder.join(TABLE), |writer| writer.write_all(text.as_bytes()))?;
        write_new_file(&folder.join(SCHEMA), |writer| writer.write_all(schema.as_bytes()))
    })
}
