//! Samples kept beside the records for those who look at them: clean, and as each attack returned them.
//!
//! ```text
//! samples.npy           the clean samples kept: [samples, *shape], 32-bit floats in the unit of the data
//! cells/<id>.npy        what one run of an attack made of those of them that are in a part
//! samples.json          which samples these are, and which file belongs to which run; there when the audit is complete
//! ```
//!
//! Off unless asked for, because samples are patient data. The records are the same with and without.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use nocebo_core::{Label, Norm, Samples};
use serde::{Deserialize, Serialize};

use crate::folder::{CELLS, KEPT, KEPT_CLEAN};
use crate::{AuditError, epsilon};

/// What a results folder keeps.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeptSamples {
    /// Indices in the data set of the clean samples, in the order of `samples.npy`.
    pub samples: Vec<u64>,
    /// Shape of a sample, channels first.
    pub shape: Vec<usize>,
    /// Every run of an attack that worked on one of them.
    pub runs: Vec<KeptRun>,
}

/// Where the perturbed samples of one run of an attack are.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeptRun {
    /// Name of the attack in the audit.
    pub attack: String,
    /// Norm of the threat.
    pub norm: Norm,
    /// Budgets at which the points are judged.
    #[serde(with = "epsilon::list")]
    pub epsilons: Vec<f32>,
    /// The files of the run.
    pub parts: Vec<KeptPart>,
}

/// One file of perturbed samples.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeptPart {
    /// Name of the part in the folder of cells, without extension.
    pub id: String,
    /// Indices in the data set, in the order of the file.
    pub samples: Vec<u64>,
}

/// Which samples in scope are kept when `wanted` are: each label in turn, in the order of the data.
pub(crate) fn choose(labels: &[Label], in_scope: &[bool], wanted: usize) -> Vec<bool> {
    let mut lists: Vec<(&Label, Vec<usize>)> = Vec::new();
    for (at, label) in labels.iter().enumerate().rev().filter(|(at, _)| in_scope[*at]) {
        match lists.iter_mut().find(|(known, _)| *known == label) {
            Some((_, list)) => list.push(at),
            None => lists.push((label, vec![at])),
        }
    }
    lists.sort_by_key(|(label, _)| *label);
    let mut kept = vec![false; labels.len()];
    let mut left = wanted;
    while left > 0 && lists.iter().any(|(_, list)| !list.is_empty()) {
        for at in lists.iter_mut().filter_map(|(_, list)| list.pop()).take(left).collect::<Vec<_>>() {
            kept[at] = true;
            left -= 1;
        }
    }
    kept
}

/// The start of a NumPy file of 32-bit floats in rows of this shape.
pub(crate) fn header(rows: usize, shape: &[usize]) -> Vec<u8> {
    let sides: Vec<String> = std::iter::once(&rows).chain(shape).map(ToString::to_string).collect();
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", sides.join(", "));
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(format!("{text:<width$}\n", width = length - 1).into_bytes());
    bytes
}

/// Samples as a NumPy file.
pub(crate) fn encode(samples: &Samples) -> Vec<u8> {
    let mut bytes = header(samples.len(), samples.shape());
    bytes.extend(samples.values().iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

impl KeptSamples {
    /// What the folder of a finished audit keeps; none where it keeps nothing.
    ///
    /// # Errors
    ///
    /// [`AuditError::Read`], and [`AuditError::Corrupt`] where the list holds something else.
    pub fn read(folder: &Path) -> Result<Option<Self>, AuditError> {
        let path = folder.join(KEPT);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(AuditError::read(&path))?,
        };
        let corrupt = |got: String| AuditError::Corrupt {
            path: path.clone(),
            expected: "a list of kept samples".to_owned(),
            got,
        };
        let kept: Self = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        // Names become paths: only those that an audit gives.
        let is_id = |id: &str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        match kept.runs.iter().flat_map(|run| &run.parts).find(|part| !is_id(&part.id)) {
            Some(part) => Err(corrupt(format!("a part called {:?}", part.id))),
            None => Ok(Some(kept)),
        }
    }

    /// Values of a clean sample, as bytes (32-bit floats, least byte first); none for one that is not kept.
    ///
    /// # Errors
    ///
    /// [`AuditError::Read`], and [`AuditError::Corrupt`] where the file holds something else.
    pub fn clean(&self, folder: &Path, sample: u64) -> Result<Option<Vec<u8>>, AuditError> {
        self.row(folder.join(KEPT_CLEAN), &self.samples, sample)
    }

    /// The same for what an attack made of it; not a number throughout where model or attack could not compute.
    ///
    /// # Errors
    ///
    /// As [`KeptSamples::clean`].
    pub fn perturbed(
        &self,
        folder: &Path,
        (attack, norm, epsilon): (&str, Norm, f32),
        sample: u64,
    ) -> Result<Option<Vec<u8>>, AuditError> {
        let run =
            self.runs.iter().find(|run| run.attack == attack && run.norm == norm && run.epsilons.contains(&epsilon));
        match run.and_then(|run| run.parts.iter().find(|part| part.samples.contains(&sample))) {
            Some(part) => self.row(folder.join(CELLS).join(format!("{}.npy", part.id)), &part.samples, sample),
            None => Ok(None),
        }
    }

    fn row(&self, path: PathBuf, samples: &[u64], sample: u64) -> Result<Option<Vec<u8>>, AuditError> {
        let Some(place) = samples.iter().position(|known| *known == sample) else { return Ok(None) };
        let expected = header(samples.len(), &self.shape);
        let mut file = File::open(&path).map_err(AuditError::read(&path))?;
        let size = file.metadata().map_err(AuditError::read(&path))?.len();
        let row = self.shape.iter().try_fold(4_u64, |bytes, side| bytes.checked_mul(*side as u64));
        let whole = row.and_then(|row| row.checked_mul(samples.len() as u64)?.checked_add(expected.len() as u64));
        let mut found = vec![0; expected.len()];
        let (Some(row), true) = (row, whole == Some(size) && file.read_exact(&mut found).is_ok() && found == expected)
        else {
            let expected = format!("{} samples of shape {:?}", samples.len(), self.shape);
            return Err(AuditError::Corrupt { path, expected, got: format!("another array of {size} bytes") });
        };
        let start = expected.len() as u64 + row * place as u64;
        file.seek(SeekFrom::Start(start)).map_err(AuditError::read(&path))?;
        let mut values = vec![0; usize::try_from(row).unwrap_or(0)];
        file.read_exact(&mut values).map_err(AuditError::read(&path))?;
        Ok(Some(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kept_in_turn_and_fewer_are_a_part_of_more() {
        let labels = [0, 0, 0, 1, 0, 1].map(Label::Class);
        let places = |wanted: usize| -> Vec<usize> {
            let scope = [true, true, true, false, true, true];
            let kept = choose(&labels, &scope, wanted);
            (0..6).filter(|&at| kept[at]).collect()
        };
        assert_eq!([0, 1, 2, 3, 9].map(places), [vec![], vec![0], vec![0, 5], vec![0, 1, 5], vec![0, 1, 2, 4, 5]]);
    }

    #[test]
    fn the_header_is_that_of_numpy() {
        // numpy.lib.format.write_array of zeros((2, 1, 28, 28), "<f4"), NumPy 2.4.6.
        let mut written = b"\x93NUMPY\x01\x00v\x00".to_vec();
        written.extend(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 28, 28), }");
        written.extend([b' '; 50]);
        written.push(b'\n');
        assert_eq!(header(2, &[1, 28, 28]), written);
    }
}
