//! Reads each file below a folder as a DICOM image, for `bench/dicom_agreement.py`: `dicom_dump FOLDER NEW_FOLDER`.
//!
//! Prints one line a file, with tabs between its path in the folder, the milliseconds that it took, and shape, unit and number
//! of warnings, or why it is refused. The values of the file in line N go to `NEW_FOLDER/N.f32`, little endian.

mod walk;

use std::path::PathBuf;
use std::time::Instant;

use nocebo_data::Limits;
use nocebo_data::formats::dicom;

use walk::files;

#[expect(clippy::print_stdout, reason = "its output is its purpose")]
fn main() {
    dicom::isolate(&[]);
    let mut found = Vec::new();
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, out] = arguments.as_slice() else { panic!("usage: dicom_dump FOLDER NEW_FOLDER") };
    std::fs::create_dir(out).expect("a new folder");
    files(folder, &mut found);
    found.sort();
    for (number, path) in found.iter().enumerate() {
        let start = Instant::now();
        let read = dicom::read_image(path, Limits::default());
        let took = start.elapsed().as_millis();
        let name = path.strip_prefix(folder).unwrap_or(path).display();
        match read {
            Ok(image) => {
                let bytes: Vec<u8> = image.values.iter().flat_map(|value| value.to_le_bytes()).collect();
                std::fs::write(out.join(format!("{}.f32", number + 1)), bytes).expect("room for values");
                let unit = image.unit.as_deref().unwrap_or("levels");
                println!("{name}\t{took}\tread\t{:?}\t{unit}\t{}", image.shape, image.warnings.len());
            }
            Err(error) => println!("{name}\t{took}\trefused\t{error}"),
        }
    }
}
