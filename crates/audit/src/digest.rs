//! SHA-256 of bytes, of files, and of what identifies a cell.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use nocebo_core::{Label, Samples};
use sha2::{Digest, Sha256};

use crate::AuditError;

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// SHA-256 of a file in hexadecimal, read in pieces.
///
/// # Errors
///
/// [`AuditError::Read`].
pub fn sha256_of_file(path: &Path) -> Result<String, AuditError> {
    let mut file = File::open(path).map_err(AuditError::read(path))?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece).map_err(AuditError::read(path))? {
            0 => return Ok(hexadecimal(&hasher.finalize())),
            read => hasher.update(&piece[..read]),
        }
    }
}

/// SHA-256 of a folder: of a line with the SHA-256 and the relative path of every file in it, sorted, hidden ones left out.
///
/// # Errors
///
/// [`AuditError::Read`].
pub fn sha256_of_folder(path: &Path) -> Result<String, AuditError> {
    let mut files = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(AuditError::read(&folder))? {
            let entry = entry.map_err(AuditError::read(&folder))?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let kind = entry.file_type().map_err(AuditError::read(&folder))?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
        hasher.update(format!("{}  {name}\n", sha256_of_file(&file)?));
    }
    Ok(hexadecimal(&hasher.finalize()))
}

/// Digest of everything that the audit itself has in hand: samples, their indices and labels, and the model's answers
/// on them. Two models with one name, or a file that changed between runs, cannot share cells.
pub(crate) fn sha256_of_data(samples: &Samples, labels: &[Label], outputs: &Samples) -> String {
    let mut hasher = Sha256::new();
    let mut number = |value: u64| hasher.update(value.to_le_bytes());
    number(samples.len() as u64);
    samples.shape().iter().for_each(|&side| number(side as u64));
    samples.indices().iter().for_each(|&index| number(index));
    for label in labels {
        match label {
            Label::Class(class) => number(*class as u64),
            Label::Findings(found) => found.iter().for_each(|&found| number(u64::from(found))),
            Label::Mask(mask) => mask.iter().for_each(|&class| number(u64::from(class))),
            Label::Number(value) => number(u64::from(value.to_bits())),
        }
    }
    for batch in [samples, outputs] {
        batch.values().iter().for_each(|value| hasher.update(value.to_bits().to_le_bytes()));
    }
    hexadecimal(&hasher.finalize())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_the_standard() {
        // FIPS 180-4 example: "abc".
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), expected);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("abc"), "abc").unwrap();
        assert_eq!(sha256_of_file(&folder.path().join("abc")).unwrap(), expected);
    }

    #[test]
    fn every_part_of_the_data_changes_the_digest() {
        let samples = Samples::new(vec![1.0, 2.0], &[1]).unwrap();
        let labels = [Label::Class(0), Label::Class(1)];
        let digest = sha256_of_data(&samples, &labels, &samples);
        let other = Samples::new(vec![1.0, 2.5], &[1]).unwrap();
        let renamed = samples.clone().with_indices(vec![0, 7]).unwrap();
        for changed in [
            sha256_of_data(&other, &labels, &samples),
            sha256_of_data(&samples, &labels, &other),
            sha256_of_data(&renamed, &labels, &samples),
            sha256_of_data(&samples, &[Label::Class(1), Label::Class(1)], &samples),
        ] {
            assert_ne!(changed, digest);
        }
    }
}
