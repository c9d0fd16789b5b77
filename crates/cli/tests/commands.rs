//! The program as a user runs it: exit codes, messages, files, and the same bytes whatever the batch.

#![expect(clippy::unwrap_used, reason = "a command that cannot be started is a failed test")]

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use nocebo_core::Seed;
use nocebo_data::phantoms::chest_xray::{ChestXray, ChestXrayConfig};
use nocebo_data::{Dataset, Split, formats::npz};
use tempfile::TempDir;

/// Exit code, standard output and standard error of `nocebo` run in a folder, its arguments split at spaces.
fn nocebo(folder: &Path, arguments: &str) -> (i32, String, String) {
    let output = Command::cargo_bin("nocebo").unwrap().current_dir(folder).args(arguments.split(' ')).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn succeed(folder: &Path, arguments: &str) -> String {
    let (code, out, error) = nocebo(folder, arguments);
    assert_eq!(code, 0, "{arguments}\n{out}\n{error}");
    out
}

/// 80 training, 20 validation and 24 test phantoms of 28 pixels.
fn data(folder: &Path) {
    let phantom = ChestXray::try_from(ChestXrayConfig { difficulty: 0.1, ..ChestXrayConfig::default() }).unwrap();
    let part = |range| phantom.dataset(Seed(1), range).unwrap();
    let parts: [(Split, Dataset); 3] =
        [(Split::Train, part(0..80)), (Split::Validation, part(80..100)), (Split::Test, part(100..124))];
    let borrowed: Vec<(Split, &Dataset)> = parts.iter().map(|(split, data)| (*split, data)).collect();
    npz::write(&folder.join("phantoms.npz"), &borrowed).unwrap();
}

fn trained() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let out = succeed(
        folder.path(),
        "train --data phantoms.npz --architecture mlp --epochs 2 --batch-size 16 --seed 1 --out m.onnx",
    );
    assert!(out.contains("validation accuracy") && out.contains("test accuracy"), "{out}");
    folder
}

#[test]
fn an_audit_writes_the_same_records_for_any_batch_size_and_thread_count() {
    let folder = trained();
    let audit = "audit --model m.onnx --data phantoms.npz --threat linf:1,8 --threat l2:0.1sd --attacks fgsm,pgd(steps=3) --seed 1";
    let mut records = Vec::new();
    for (batch, threads) in [(1, 1), (7, 2), (64, 1), (64, 2)] {
        let out = format!("audit-{batch}-{threads}");
        let shown = succeed(folder.path(), &format!("{audit} --batch-size {batch} --threads {threads} --out {out}"));
        assert!(shown.contains("linf:8 grey levels") && shown.contains("noise"), "{shown}");
        records.push(fs::read(folder.path().join(&out).join("records.parquet")).unwrap());
        for file in ["audit.json", "report.html"] {
            assert!(folder.path().join(&out).join(file).is_file(), "{file}");
        }
    }
    assert!(records.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_gate_that_does_not_hold_ends_with_1_and_keeps_the_results() {
    let folder = trained();
    let audit = "audit --model m.onnx --data phantoms.npz --threat linf:64 --attacks fgsm --out audit";
    let run = |gate: &str| {
        let gates = ["--require", gate];
        let mut command = Command::cargo_bin("nocebo").unwrap();
        command.current_dir(folder.path()).args(audit.split(' ')).args(gates).output().unwrap()
    };
    assert_eq!(run("robust_accuracy(linf:64) >= 0.0").status.code(), Some(0));
    let failed = run("robust_accuracy(linf:64) >= 0.99");
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("robust_accuracy(linf:64)"));
    assert!(folder.path().join("audit/audit.json").is_file());
    assert_eq!(run("robust_accuracy(linf:3) >= 0.5").status.code(), Some(2));
}

#[test]
fn attack_and_harden_write_what_they_say() {
    let folder = trained();
    let attack = "attack --model m.onnx --data phantoms.npz --attack pgd --threat linf:8 --samples 6 --out adversarial";
    let out = succeed(folder.path(), attack);
    assert!(out.contains("after rounding"), "{out}");
    let written = fs::read_to_string(folder.path().join("adversarial/attack.json")).unwrap();
    assert_eq!(written.matches("\"sample\"").count(), 6);
    assert!(folder.path().join("adversarial/labels.csv").is_file());
    assert_eq!(nocebo(folder.path(), attack).0, 2, "nothing is written over");

    let harden = "harden m.onnx --data phantoms.npz --threat linf:2 --epochs 1 --batch-size 20 --out h.onnx";
    let out = succeed(folder.path(), harden);
    assert!(out.contains("under PGD at linf:2"), "{out}");
    succeed(folder.path(), "attack --model h.onnx --data phantoms.npz --threat linf:2 --samples 4 --out again");
}

#[test]
fn attacks_are_listed_with_their_settings_and_the_doctor_is_content() {
    let folder = tempfile::tempdir().unwrap();
    assert!(succeed(folder.path(), "attacks").contains("Projected gradient descent"));
    let shown = succeed(folder.path(), "attacks show pgd");
    assert!(shown.contains("# Gradient steps of each restart; at least 1.\nsteps = 40"), "{shown}");
    assert!(shown.contains("\"scaled_cross_entropy\", \"margin\""), "{shown}");
    assert_eq!(succeed(folder.path(), "attacks pgd"), shown);
    assert!(shown.parse::<toml::Table>().is_ok());
    assert!(!succeed(folder.path(), "doctor").contains("FAILED"));
}

#[test]
fn bad_input_gets_one_clear_message_the_right_code_and_no_output() {
    let folder = trained();
    let path = folder.path();
    let archive = fs::read(path.join("phantoms.npz")).unwrap();
    fs::write(path.join("truncated.npz"), &archive[..archive.len() / 2]).unwrap();
    fs::write(path.join("text.onnx"), "this is no network\n").unwrap();
    fs::write(path.join("file"), "").unwrap();
    let phantom = ChestXray::try_from(ChestXrayConfig { size: 32, ..ChestXrayConfig::default() }).unwrap();
    let other_size = phantom.dataset(Seed(1), 0..20).unwrap();
    npz::write(&path.join("other-size.npz"), &[(Split::Test, &other_size)]).unwrap();
    three_classes(&path.join("three.npz"));
    let audit = |rest: &str| format!("audit --model m.onnx --data phantoms.npz --attacks fgsm {rest}");
    let cases = [
        ("train --data truncated.npz --out x.onnx".to_owned(), 3, "truncated.npz"),
        ("train --data missing.npz --out x.onnx".to_owned(), 3, "missing.npz"),
        ("train --data phantoms.npz --architecture resnet-18 --out x.onnx".to_owned(), 2, "resnet18"),
        ("train --data phantoms.npz --epochs 0 --out x.onnx".to_owned(), 2, "epochs"),
        ("train --data phantoms.npz --out file/x.onnx".to_owned(), 2, "file/x.onnx"),
        ("audit --model text.onnx --data phantoms.npz --threat linf:1 --out x".to_owned(), 3, "text.onnx"),
        ("audit --model m.onnx --data other-size.npz --threat linf:1 --out x".to_owned(), 2, "shape"),
        ("audit --model m.onnx --data three.npz --threat linf:1 --out x".to_owned(), 2, "3"),
        (audit("--threat linf:-1 --out x"), 2, "-1"),
        (audit("--threat linf:10HU --out x"), 2, "HU"),
        (audit("--threat l5:1 --out x"), 2, "l5"),
        (audit("--threat linf:1 --out file/x"), 2, "file/x"),
        (audit("--threat linf:1 --batch-size 0 --out x"), 2, "batch-size"),
        ("audit --model m.onnx --data phantoms.npz --threat linf:1 --attacks pdg --out x".to_owned(), 2, "pdg"),
        (
            "audit --model m.onnx --data phantoms.npz --threat linf:1 --attacks pgd(steps=0) --out x".to_owned(),
            2,
            "steps",
        ),
        ("harden m.onnx --data phantoms.npz --threat linf:1,2 --out x.onnx".to_owned(), 2, "one epsilon"),
        ("attack --model m.onnx --data phantoms.npz --threat linf:1 --device cuda:0 --out x".to_owned(), 2, "cuda:0"),
    ];
    for (arguments, code, mentions) in cases {
        let (got, out, error) = nocebo(path, &arguments);
        assert_eq!(got, code, "{arguments}\n{out}\n{error}");
        assert!(error.contains(mentions) && !error.contains("panicked"), "{arguments}\n{error}");
        for name in ["x.onnx", "x", "x.onnx.part"] {
            let left = path.join(name);
            assert!(!left.is_file() && !left.join("audit.json").exists(), "{arguments} left {name}");
        }
    }
}

/// Phantoms under three class names.
fn three_classes(path: &Path) {
    let phantom = ChestXray::try_from(ChestXrayConfig::default()).unwrap().dataset(Seed(1), 0..20).unwrap();
    let labels = (0..20).map(|index| nocebo_core::Label::Class(index % 3)).collect();
    let names = ["a", "b", "c"].map(str::to_owned).to_vec();
    let data = Dataset::new("three", phantom.samples().clone(), labels, names, phantom.domain().clone()).unwrap();
    npz::write(path, &[(Split::Train, &data), (Split::Test, &data)]).unwrap();
}
