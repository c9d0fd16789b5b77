//! DICOM as a user meets it: a folder of CT images is trained on, attacked, audited and written back, and nobody is named.

#![expect(clippy::unwrap_used, reason = "a command that cannot be started is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use nocebo_core::{Domain, DomainConfig, Field, Label, Samples, Seed, Unit};
use nocebo_data::Dataset;
use nocebo_data::formats::dicom::{Acquisition, write_dataset};
use rand::RngExt;

const SIDE: usize = 12;

/// Exit code and all that was shown.
fn nocebo(folder: &Path, arguments: &str) -> (i32, String) {
    let output = Command::cargo_bin("nocebo").unwrap().current_dir(folder).args(arguments.split(' ')).output().unwrap();
    let shown = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(shown).unwrap())
}

fn succeed(folder: &Path, arguments: &str) -> String {
    let (code, shown) = nocebo(folder, arguments);
    assert_eq!(code, 0, "{arguments}\n{shown}");
    shown
}

/// Noise of 10 HU around water, and a nodule that is 14 HU denser in every second image; two images a patient.
fn ct(folder: &Path) {
    let count = 32;
    let mut generator = Seed(5).for_sample(0);
    let mut values = Vec::new();
    for sample in 0..count {
        for pixel in 0..SIDE * SIDE {
            let (y, x) = (pixel / SIDE, pixel % SIDE);
            let inside = (3..9).contains(&y) && (3..9).contains(&x) && sample % 2 == 1;
            values.push(generator.random_range(-10..=10) as f32 + if inside { 14.0 } else { 0.0 });
        }
    }
    let domain = DomainConfig {
        shape: vec![1, SIDE, SIDE],
        unit: Unit::Hounsfield,
        lower: Field::Uniform(-1024.0),
        upper: Field::Uniform(3071.0),
        resolution: Field::Uniform(1.0),
        region: None,
    };
    let samples = Samples::new(values, &[1, SIDE, SIDE]).unwrap();
    let labels = (0..count).map(|sample| Label::Class(sample % 2)).collect();
    let names = vec!["clear".to_owned(), "nodule".to_owned()];
    let data = Dataset::new("phantoms", samples, labels, names, Domain::try_from(domain).unwrap()).unwrap();
    let data = data.with_patients((0..count).map(|sample| format!("CANARY-{}", sample / 2)).collect()).unwrap();
    let acquisition = Acquisition {
        modality: "CT",
        spacing: Some([0.7, 0.7]),
        thickness: Some(5.0),
        window: Some([40.0, 400.0]),
        description: "CANARY",
    };
    write_dataset(&folder.join("ct"), &data, &acquisition).unwrap();
    // Names where the writer leaves them empty, and a table that does not tell patients.
    for path in images(&folder.join("ct")) {
        let bytes = fs::read(&path).unwrap();
        let empty = b"\x10\0\x10\0PN\0\0";
        let at = bytes.windows(empty.len()).position(|window| window == empty).unwrap();
        fs::write(&path, [&bytes[..at], b"\x10\0\x10\0PN\x0c\0CANARY^JANE ", &bytes[at + empty.len()..]].concat())
            .unwrap();
    }
    let lines: Vec<String> = (0..count).map(|n| format!("{n:06}.dcm,{}\n", ["clear", "nodule"][n % 2])).collect();
    fs::write(folder.join("ct/labels.csv"), format!("file,label\n{}", lines.concat())).unwrap();
}

fn images(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "dcm")).collect()
}

/// The stored numbers, which come last.
fn stored(path: &Path) -> Vec<i32> {
    let bytes = fs::read(path).unwrap();
    let pixels = &bytes[bytes.len() - 2 * SIDE * SIDE..];
    pixels.chunks_exact(2).map(|pair| i32::from(u16::from_le_bytes([pair[0], pair[1]]))).collect()
}

fn assert_nobody_is_named(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_nobody_is_named(&path);
        } else {
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"CANARY"), "{}", path.display());
        }
    }
}

#[test]
fn a_folder_of_ct_images_is_attacked_and_written_back_without_a_name() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    ct(folder);
    let before: Vec<Vec<u8>> = images(&folder.join("ct")).iter().map(|path| fs::read(path).unwrap()).collect();
    let mut shown = String::new();
    let train = "train --data ct --architecture mlp --epochs 12 --batch-size 8 --seed 1 --out out/m.onnx";
    fs::create_dir(folder.join("out")).unwrap();
    shown += &succeed(folder, train);
    assert!(shown.contains("-1024 to 3071 HU in steps of 1"), "{shown}");
    let attack = "attack --model out/m.onnx --data ct --attack pgd(steps=5) --threat linf:10HU --split train --seed 1";
    shown += &succeed(folder, &format!("{attack} --out out/adversarial"));
    let audit = "audit --model out/m.onnx --data ct --attacks fgsm --threat linf:10HU --samples 4 --seed 1";
    shown += &succeed(folder, &format!("{audit} --out out/audit"));
    shown += &succeed(folder, "inspect out/m.onnx");
    shown += &succeed(folder, "init --model out/m.onnx --data ct --out out/audit.toml");

    let record = fs::read_to_string(folder.join("out/adversarial/attack.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let samples = record["samples"].as_array().unwrap();
    let fooled =
        samples.iter().filter(|sample| sample["wrong_before"] == false && sample["success_after_storage"] == true);
    assert!(fooled.count() > 0, "{record:#}");
    for sample in samples {
        let name = format!("{:06}.dcm", sample["sample"].as_u64().unwrap());
        let (source, copy) =
            (stored(&folder.join("ct").join(&name)), stored(&folder.join("out/adversarial").join(&name)));
        let greatest = source.iter().zip(&copy).map(|(old, new)| (old - new).abs()).max().unwrap();
        let least = i32::from(sample["wrong_before"] == false);
        assert!((least..=10).contains(&greatest), "{name}: {greatest} HU");
        assert_eq!(sample["distance_after_storage"].as_f64().unwrap(), f64::from(greatest));
    }

    // One file, which has no label.
    let one = attack.replace("--data ct", "--data ct/000001.dcm");
    shown += &succeed(folder, &format!("{one} --out out/one"));
    assert!(shown.contains("decision of the model itself"), "{shown}");
    let record: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("out/one/attack.json")).unwrap()).unwrap();
    assert_eq!((record["labels_from"].as_str(), record["samples"].as_array().unwrap().len()), (Some("model"), 1));
    let (source, copy) = (stored(&folder.join("ct/000001.dcm")), stored(&folder.join("out/one/000000.dcm")));
    let greatest = source.iter().zip(&copy).map(|(old, new)| (old - new).abs()).max().unwrap();
    assert_eq!(record["samples"][0]["distance_after_storage"].as_f64().unwrap(), f64::from(greatest));
    assert!((1..=10).contains(&greatest) && record["samples"][0]["wrong_before"] == false, "{greatest} HU, {record:#}");
    shown += &succeed(folder, "data inspect ct/000001.dcm");
    shown += &succeed(folder, "run out/m.onnx --input ct/000001.dcm --out out/run");

    // What the model says of the files is what the record says.
    let again =
        "attack --model out/m.onnx --data out/adversarial --attack noise --threat linf:0 --split train --out out/again";
    let again = succeed(folder, again);
    assert!(again.contains("wrong before the attack"), "{again}");
    shown += &again;
    // A window leaves what lies outside as it is; a budget in another unit is refused.
    shown += &succeed(folder, &format!("{attack} --window 0,12 --out out/window"));
    let window = stored(&folder.join("out/window/000001.dcm"));
    for (old, new) in stored(&folder.join("ct/000001.dcm")).iter().zip(&window) {
        assert!(old == new || (1018..=1030).contains(old), "{old} {new}");
    }
    let (code, refused) = nocebo(folder, &attack.replace("10HU", "10mV --out out/unit"));
    assert!(code == 2 && refused.contains("HU"), "{refused}");
    shown += &refused;
    assert_eq!(nocebo(folder, &format!("{attack} --out ct")).0, 2, "nothing is written over");

    // A file that is cut short is named with what to do, and nobody with it.
    let cut = folder.join("ct/000003.dcm");
    let whole = fs::read(&cut).unwrap();
    fs::write(&cut, &whole[..whole.len() - 9]).unwrap();
    let (code, refused) = nocebo(folder, train.replace("m.onnx", "n.onnx").as_str());
    assert!(code == 3 && refused.contains("000003.dcm") && refused.contains("expected"), "{refused}");
    shown += &refused;
    fs::write(&cut, whole).unwrap();

    assert!(!shown.contains("CANARY"), "{shown}");
    assert_nobody_is_named(&folder.join("out"));
    let after: Vec<Vec<u8>> = images(&folder.join("ct")).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(before, after, "sources are as they were");
}
