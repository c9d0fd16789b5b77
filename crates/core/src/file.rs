//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Extension of a file that is being written; one that is left over belongs to a run that was killed.
pub const TEMPORARY: &str = "part";

/// Writes `bytes` under a temporary name beside `path`, makes them last through a power failure, and renames.
///
/// # Errors
///
/// Whatever the system answers; a former file at `path` is then still there, and no temporary one is left.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_added_extension(TEMPORARY);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
            _ => sync_folder(Path::new(".")),
        }
    })();
    if written.is_err() {
        // The error of the write is what matters.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Whether a file can be written at `path`, before work is done for it; leaves nothing behind.
///
/// # Errors
///
/// Whatever the system answers; [`io::ErrorKind::IsADirectory`] where a folder stands at `path`.
pub fn check_writable(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let temporary = path.with_added_extension(TEMPORARY);
    File::create(&temporary)?;
    fs::remove_file(&temporary)
}

/// Makes a rename in `folder` last. Only Unix can flush a folder; elsewhere the system orders renames.
///
/// # Errors
///
/// Whatever the system answers.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_a_failure_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        write_file(&path, b"first").unwrap();
        write_file(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert!(write_file(&folder.path().join("missing").join("x"), b"").is_err());
        // A folder stands where the file should go: the rename fails and the temporary file goes.
        let blocked = folder.path().join("blocked");
        fs::create_dir_all(blocked.join("inside")).unwrap();
        assert!(write_file(&blocked, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(check_writable(&blocked).is_err() && check_writable(&folder.path().join("no").join("x")).is_err());
        check_writable(&folder.path().join("free")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
