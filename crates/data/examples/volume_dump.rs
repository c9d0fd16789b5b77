//! Reads each volume below the given folders, and writes its values and the volume again into a new folder, for
//! `bench/volume_agreement.py`.

mod walk;

use std::io::Write;
use std::path::{Path, PathBuf};

use nocebo_core::Samples;
use nocebo_data::formats::{meta_image, nifti, nrrd};
use nocebo_data::{DataError, OpenOptions};

use walk::files;

/// The samples of a volume, written again under `out` with the ending of its format; `None` for other files.
fn copied(path: &Path, out: &Path) -> Option<Result<(Samples, PathBuf), DataError>> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let options = OpenOptions::default();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let target = |ending: &str| PathBuf::from(format!("{}{ending}", out.display()));
    Some(if ends(&[".nii", ".nii.gz", ".hdr"]) {
        nifti::read(path, &options).and_then(|volume| {
            let target = target(".nii.gz");
            nifti::write(&target, &volume, volume.samples()).map(|()| (volume.samples().clone(), target))
        })
    } else if ends(&[".nrrd", ".nhdr"]) {
        nrrd::read(path, &options).and_then(|volume| {
            let target = target(".nrrd");
            nrrd::write(&target, &volume, volume.samples()).map(|()| (volume.samples().clone(), target))
        })
    } else if ends(&[".mha", ".mhd"]) {
        meta_image::read(path, &options).and_then(|volume| {
            let target = target(".mha");
            meta_image::write(&target, &volume, volume.samples()).map(|()| (volume.samples().clone(), target))
        })
    } else {
        return None;
    })
}

#[expect(clippy::print_stdout, reason = "its output is its purpose")]
fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let out = PathBuf::from(arguments.next().unwrap_or_default());
    std::fs::create_dir(&out)?;
    let mut found = Vec::new();
    arguments.for_each(|folder| files(Path::new(&folder), &mut found));
    found.sort();
    for (number, path) in found.iter().enumerate() {
        let name = path.display();
        match copied(path, &out.join(number.to_string())) {
            None => {}
            Some(Err(error)) => println!("{name}\trefused: {error}"),
            Some(Ok((samples, written))) => {
                let values = out.join(format!("{number}.f32"));
                let mut file = std::io::BufWriter::new(std::fs::File::create(&values)?);
                samples.values().iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))?;
                file.flush()?;
                println!("{name}\t{}\t{}\t{:?}", values.display(), written.display(), samples.shape());
            }
        }
    }
    Ok(())
}
