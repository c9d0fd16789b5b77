//! The folder that holds an audit: one writer at a time, no file that is half written.
//!
//! ```text
//! audit.lock          marks the folder and is locked while an audit writes
//! resolved.toml       the recipe with every default filled in
//! cells/<id>.parquet  records of some samples of a cell, and cells/<id>.json: their digest and the seconds they took
//! samples.npy, samples.json, cells/<id>.npy: samples, where they are kept (kept.rs)
//! records.parquet     all cells; made when every cell is finished
//! report.html, summary.md, junit.xml, model.cdx.json
//! audit.json          written last: its presence says that the audit is complete
//! ```
//!
//! Every file is written under a temporary name, flushed to the disk, renamed, and the folder flushed, so a reader sees
//! the old file or the new one. A cell counts as finished when its digest agrees; otherwise it is computed again.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use nocebo_core::Samples;
use nocebo_core::file::{TEMPORARY, check_writable, write_file};
use serde::{Deserialize, Serialize};

use crate::digest::sha256;
use crate::{AuditError, kept};

const LOCK: &str = "audit.lock";
pub(crate) const CELLS: &str = "cells";
/// Extension of the samples of a part that are kept.
const POINTS: &str = "npy";

/// Name of the records of all cells.
pub const RECORDS: &str = "records.parquet";
/// Name of the report.
pub const REPORT: &str = "report.html";
/// Name of the gates and findings as JUnit XML.
pub const JUNIT: &str = "junit.xml";
/// Name of the summary in Markdown.
pub const MARKDOWN: &str = "summary.md";
/// Name of the model card in CycloneDX.
pub const MODEL_CARD: &str = "model.cdx.json";
/// Name of the recipe with every default filled in.
pub const RESOLVED: &str = "resolved.toml";
/// Name of the clean samples that are kept.
pub const KEPT_CLEAN: &str = "samples.npy";
/// Name of the list of samples that are kept.
pub const KEPT: &str = "samples.json";
/// Name of the summary, which is written last.
pub const SUMMARY: &str = "audit.json";

/// An output folder, locked for one audit until it is dropped.
#[derive(Debug)]
pub struct AuditFolder {
    path: PathBuf,
    lock: File,
}

/// What stands beside the records of a finished cell.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct CellSeal {
    sha256: String,
    seconds: f64,
}

impl AuditFolder {
    /// Opens or creates the folder, and makes sure that it can be written to.
    ///
    /// The files that a former audit finished with are removed (its cells are kept), so that no mixture looks complete.
    ///
    /// # Errors
    ///
    /// [`AuditError::Write`] where nothing can be written, [`AuditError::NotAnAudit`] for a folder that holds something
    /// else, [`AuditError::Busy`] while another process writes to it.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        fs::create_dir_all(path).map_err(AuditError::write(path))?;
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(AuditError::read(path))? {
            names.push(entry.map_err(AuditError::read(path))?.file_name());
        }
        if !names.is_empty() && !names.iter().any(|name| name == LOCK || name == SUMMARY) {
            return Err(AuditError::NotAnAudit { path: path.to_owned() });
        }
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(AuditError::write(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AuditError::Busy { path: path.to_owned() }),
            // A file system without locks: one writer at a time is then the caller's care.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(AuditError::write(&lock_path)(error)),
        }
        let folder = Self { path: path.to_owned(), lock };
        let cells = path.join(CELLS);
        fs::create_dir_all(&cells).map_err(AuditError::write(&cells))?;
        for name in [SUMMARY, REPORT, RECORDS, JUNIT, MARKDOWN, MODEL_CARD, KEPT, KEPT_CLEAN] {
            remove(&path.join(name))?;
        }
        for place in [path, &cells] {
            for entry in fs::read_dir(place).map_err(AuditError::read(place))? {
                let found = entry.map_err(AuditError::read(place))?.path();
                if found.extension().is_some_and(|extension| extension == TEMPORARY) {
                    remove(&found)?;
                }
            }
        }
        // What cannot be written is found out now, not after an hour.
        let probe = cells.join("probe");
        check_writable(&probe).map_err(AuditError::write(&probe))?;
        Ok(folder)
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file of the folder so that it is there whole or not at all.
    ///
    /// # Errors
    ///
    /// [`AuditError::Write`]; the former file is then still there.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), AuditError> {
        write(&self.path.join(name), bytes)
    }

    /// The records of a cell and the seconds it took; none when the cell is not finished.
    pub(crate) fn read_cell(&self, id: &str) -> Result<Option<(Vec<u8>, f64)>, AuditError> {
        let read = |name: String| {
            let path = self.path.join(CELLS).join(name);
            match fs::read(&path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(AuditError::read(&path)(error)),
            }
        };
        let (Some(records), Some(seal)) = (read(format!("{id}.parquet"))?, read(format!("{id}.json"))?) else {
            return Ok(None);
        };
        let seal: Option<CellSeal> = serde_json::from_slice(&seal).ok();
        Ok(seal.filter(|seal| seal.sha256 == sha256(&records)).map(|seal| (records, seal.seconds)))
    }

    /// Keeps the records of a finished cell.
    pub(crate) fn write_cell(&self, id: &str, records: &[u8], seconds: f64) -> Result<(), AuditError> {
        let seal = serde_json::to_vec(&CellSeal { sha256: sha256(records), seconds })
            .map_err(AuditError::encode("seal of a cell"))?;
        let cells = self.path.join(CELLS);
        write(&cells.join(format!("{id}.parquet")), records)?;
        write(&cells.join(format!("{id}.json")), &seal)
    }

    /// Whether the points of a part are kept as so many samples of this shape.
    pub(crate) fn keeps_points(&self, id: &str, rows: usize, shape: &[usize]) -> bool {
        let mut start = Vec::new();
        let expected = kept::header(rows, shape);
        File::open(self.points(id)).and_then(|file| file.take(expected.len() as u64).read_to_end(&mut start)).is_ok()
            && start == expected
    }

    /// Keeps the points of a part.
    pub(crate) fn write_points(&self, id: &str, points: &Samples) -> Result<(), AuditError> {
        write(&self.points(id), &kept::encode(points))
    }

    /// Removes all points but those of these parts.
    pub(crate) fn keep_only_points_of(&self, ids: &BTreeSet<&str>) -> Result<(), AuditError> {
        let cells = self.path.join(CELLS);
        for entry in fs::read_dir(&cells).map_err(AuditError::read(&cells))? {
            let path = entry.map_err(AuditError::read(&cells))?.path();
            let id = path.file_stem().unwrap_or_default().to_string_lossy();
            if path.extension().is_some_and(|extension| extension == POINTS) && !ids.contains(&*id) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn points(&self, id: &str) -> PathBuf {
        self.path.join(CELLS).join(id).with_extension(POINTS)
    }
}

impl Drop for AuditFolder {
    fn drop(&mut self) {
        // Closing the file alone would leave the folder locked while a process that was just started still has it open.
        let _ = self.lock.unlock();
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), AuditError> {
    write_file(path, bytes).map_err(AuditError::write(path))
}

fn remove(path: &Path) -> Result<(), AuditError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(AuditError::write(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_else_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("thesis.txt");
        fs::write(&precious, "years").unwrap();
        assert!(matches!(AuditFolder::open(folder.path()), Err(AuditError::NotAnAudit { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unwritable_place_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = AuditFolder::open(&file.join("below")).unwrap_err();
        assert!(matches!(&error, AuditError::Write { .. }), "{error}");
        assert!(error.to_string().contains("cannot write"), "{error}");
    }

    #[test]
    fn one_audit_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = AuditFolder::open(folder.path()).unwrap();
        assert!(matches!(AuditFolder::open(folder.path()), Err(AuditError::Busy { .. })));
        drop(first);
        AuditFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn final_and_temporary_files_of_a_former_audit_go_and_cells_stay() {
        let folder = tempfile::tempdir().unwrap();
        let audit = AuditFolder::open(folder.path()).unwrap();
        audit.write(SUMMARY, b"{}").unwrap();
        audit.write_cell("a", b"records", 1.5).unwrap();
        fs::write(folder.path().join("cells/b.parquet.part"), "torn").unwrap();
        drop(audit);
        let audit = AuditFolder::open(folder.path()).unwrap();
        assert!(!folder.path().join(SUMMARY).exists());
        assert!(!folder.path().join("cells/b.parquet.part").exists());
        assert_eq!(audit.read_cell("a").unwrap(), Some((b"records".to_vec(), 1.5)));
        assert_eq!(audit.read_cell("b").unwrap(), None);
    }

    #[test]
    fn a_cell_that_was_changed_counts_as_unfinished() {
        let folder = tempfile::tempdir().unwrap();
        let audit = AuditFolder::open(folder.path()).unwrap();
        audit.write_cell("a", b"records", 1.0).unwrap();
        for position in 0..7 {
            let mut bytes = b"records".to_vec();
            bytes[position] ^= 1;
            fs::write(folder.path().join("cells/a.parquet"), bytes).unwrap();
            assert_eq!(audit.read_cell("a").unwrap(), None);
        }
        fs::write(folder.path().join("cells/a.parquet"), b"records").unwrap();
        fs::write(folder.path().join("cells/a.json"), b"{\"sha").unwrap();
        assert_eq!(audit.read_cell("a").unwrap(), None);
    }
}
