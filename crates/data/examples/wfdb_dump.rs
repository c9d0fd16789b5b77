//! Prints what each WFDB header and annotation file below the given folders holds, for `bench/wfdb_agreement.py`.

mod walk;

use std::path::Path;

use nocebo_data::formats::wfdb;
use sha2::{Digest, Sha256};

use walk::files;

const LIMIT: u64 = 1 << 28;

fn digest(values: impl Iterator<Item = i64>) -> String {
    let mut hasher = Sha256::new();
    values.for_each(|value| hasher.update(value.to_le_bytes()));
    let start = hasher.finalize().iter().take(8).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    format!("{start:016x}")
}

#[expect(clippy::print_stdout, reason = "its output is its purpose")]
fn main() {
    let mut found = Vec::new();
    std::env::args().skip(1).for_each(|folder| files(Path::new(&folder), &mut found));
    found.sort();
    for path in found {
        let name = path.display();
        let refused = |error: nocebo_data::DataError| println!("{name}\trefused: {error}");
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("hea") => match wfdb::read(&path, LIMIT) {
                Ok(record) => record.signals.iter().for_each(|signal| {
                    let values = digest(signal.samples.iter().map(|value| i64::from(*value)));
                    println!(
                        "{name}\t{:?} {:?} {} {} {} {values}",
                        record.frequency,
                        signal.gain,
                        signal.baseline,
                        signal.unit,
                        signal.samples.len(),
                    );
                }),
                Err(error) => refused(error),
            },
            Some("atr" | "qrs" | "gqrsh" | "gqrsl" | "sqrs") => match wfdb::read_annotations(&path, LIMIT) {
                Ok(marks) => println!(
                    "{name}\t{} {} {}",
                    marks.len(),
                    digest(marks.iter().map(|mark| mark.sample as i64)),
                    digest(marks.iter().map(|mark| i64::from(mark.code))),
                ),
                Err(error) => refused(error),
            },
            _ => {}
        }
    }
}
