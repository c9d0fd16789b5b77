//! Nobody is named: whatever a file says of a patient, or is called after one, no report, record or summary says it, and no message
//! shows what stands inside of a file.
//!
//! DICOM has its own test beside this one.

#![expect(clippy::unwrap_used, reason = "a command that cannot be started is a failed test")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use nocebo_core::{Domain, DomainConfig, Field, Samples, Unit};
use nocebo_data::formats::nifti;

/// What no output may hold.
const NAME: &str = "CANARY";

/// Exit code and all that was shown.
fn nocebo(folder: &Path, arguments: &str) -> (i32, String) {
    let output = Command::cargo_bin("nocebo").unwrap().current_dir(folder).args(arguments.split(' ')).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Trains on the data set `data`, describes, attacks and audits it; then reads it with a file that is cut short. Looks for the name in
/// all that was shown and written, names of files in it included.
fn nobody_is_named(folder: &Path, architecture: &str, epsilon: &str, broken: &str) {
    let out = folder.join("out");
    fs::create_dir(&out).unwrap();
    let mut shown = String::new();
    let mut run = |arguments: &str, expected: i32| {
        let (code, text) = nocebo(folder, arguments);
        assert_eq!(code, expected, "{arguments}\n{text}");
        shown += &text;
    };
    run(&format!("train --data data --architecture {architecture} --epochs 1 --seed 1 --out out/m.onnx"), 0);
    run("data inspect data --json", 0);
    let subject = format!("--model out/m.onnx --data data --threat linf:{epsilon} --samples 2 --seed 1");
    run(&format!("attack {subject} --attack fgsm --out out/adversarial"), 0);
    run(&format!("audit {subject} --attacks fgsm --out out/audit"), 0);
    for path in files(&out) {
        let (bytes, name) = (fs::read(&path).unwrap(), path.to_string_lossy().into_owned());
        // A table is written back as it stands, patients included, since that is the data.
        let is_data = name.ends_with("adversarial/table.csv") || name.ends_with("adversarial/labels.csv");
        assert!(!name.contains(NAME), "{name}");
        assert!(is_data || !bytes.windows(NAME.len()).any(|part| part == NAME.as_bytes()), "{name}");
    }
    assert!(files(&out).iter().any(|path| path.ends_with("records.parquet")));
    assert!(!shown.contains(NAME), "{shown}");

    let path = folder.join("data").join(broken);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let (code, error) = nocebo(folder, "data inspect data");
    assert_eq!(code, 3, "{error}");
    // An error names the file, as nobody could find it otherwise, and nothing that stands inside.
    assert!(!error.replace(broken, "").contains(NAME), "{error}");
}

/// Changes every file of this ending.
fn change(folder: &Path, ending: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let of_ending = |path: &PathBuf| path.extension().is_some_and(|extension| extension == ending);
    let paths: Vec<PathBuf> = files(folder).into_iter().filter(of_ending).collect();
    assert!(!paths.is_empty());
    for path in paths {
        fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
    }
}

#[test]
fn the_header_of_an_edf_file_stays_in_it() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    let (code, text) = nocebo(folder, "phantom eeg --count 20 --size 32 --seed 1 --out data");
    assert_eq!(code, 0, "{text}");
    change(&folder.join("data"), "edf", |mut bytes| {
        bytes[8..26].copy_from_slice(b"CANARY-7 F X JANE_");
        bytes[88..106].copy_from_slice(b"Startdate X CANARY");
        bytes
    });
    nobody_is_named(folder, "eegnet", "2uV", "000003.edf");
}

#[test]
fn the_comments_of_a_wfdb_record_stay_in_it() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    let (code, text) = nocebo(folder, "phantom ppg --count 20 --size 32 --seed 1 --out data");
    assert_eq!(code, 0, "{text}");
    change(&folder.join("data"), "hea", |bytes| [&bytes[..], b"# <age>: 70 <name>: CANARY\n"].concat());
    nobody_is_named(folder, "resnet1d", "0.01", "000003.dat");
}

#[test]
fn the_texts_of_a_volume_and_the_name_of_its_file_stay_where_they_are() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    fs::create_dir(folder.join("data")).unwrap();
    let mut table = "file,label,patient\n".to_owned();
    for at in 0..20_u16 {
        let samples =
            Samples::new((0..27).map(|voxel| f32::from(voxel * (at + 1) % 50)).collect(), &[1, 3, 3, 3]).unwrap();
        let config = DomainConfig {
            shape: vec![1, 3, 3, 3],
            unit: Unit::Other("a.u.".to_owned()),
            lower: Field::Uniform(0.0),
            upper: Field::Uniform(255.0),
            resolution: Field::Uniform(1.0),
            region: None,
        };
        let volume = nifti::Volume::new(samples.clone(), Domain::try_from(config).unwrap(), [1.0; 3]).unwrap();
        let name = format!("CANARY-JANE-{at:02}.nii");
        nifti::write(&folder.join("data").join(&name), &volume, &samples).unwrap();
        writeln!(table, "{name},{},CANARY-{at}", at % 2).unwrap();
    }
    change(&folder.join("data"), "nii", |mut bytes| {
        // data_type, db_name, descrip, aux_file and intent_name.
        for place in [4, 14, 148, 228, 328] {
            bytes[place..place + 6].copy_from_slice(NAME.as_bytes());
        }
        bytes
    });
    fs::write(folder.join("data/labels.csv"), table).unwrap();
    nobody_is_named(folder, "mlp", "4", "CANARY-JANE-03.nii");
}

#[test]
fn the_patients_of_a_table_are_no_part_of_results() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    fs::create_dir(folder.join("data")).unwrap();
    let mut table = "patient,name,a,b,label\n".to_owned();
    for at in 0..40 {
        writeln!(table, "CANARY-{at},CANARY JANE {at},{},{}.5,{}", at * 7 % 11, at * 3 % 5, at % 2).unwrap();
    }
    fs::write(folder.join("data/table.csv"), table).unwrap();
    nobody_is_named(folder, "mlp", "0.5sd", "table.csv");
}
