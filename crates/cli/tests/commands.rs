//! The program as a user runs it: exit codes, messages, files, and the same bytes whatever the batch.

#![expect(clippy::unwrap_used, reason = "a command that cannot be started is a failed test")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use assert_cmd::Command;
use nocebo_core::{Domain, DomainConfig, Field, Label, Samples, Seed, Unit};
use nocebo_data::formats::npy::{self, Array};
use nocebo_data::formats::{nifti, npz, wfdb};
use nocebo_data::phantoms::chest_xray::{ChestXray, ChestXrayConfig};
use nocebo_data::{Dataset, OpenOptions, Split};
use nocebo_graph::operators::{Arithmetic, Operator, Unary};
use nocebo_graph::{ElementType, Graph, Input, Node, Tensor, onnx};
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
fn phantoms_are_listed_written_and_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let listed = succeed(folder.path(), "phantom --list");
    assert!(listed.lines().count() >= 14 && listed.contains("ct-slice"), "{listed}");
    for (modality, architecture) in [("mammogram", "mlp"), ("ppg", "resnet1d"), ("eeg", "resnet1d")] {
        let out = succeed(folder.path(), &format!("phantom {modality} --count 40 --size 64 --seed 1 --out {modality}"));
        assert!(out.contains("wrote 40"), "{out}");
        let out = succeed(
            folder.path(),
            &format!("train --data {modality} --architecture {architecture} --epochs 1 --seed 1 --out {modality}.onnx"),
        );
        assert!(out.contains("test accuracy"), "{out}");
    }
    // WFDB and EDF records.
    for (modality, epsilon) in [("ppg", "0.01"), ("eeg", "2uV")] {
        let attacked = format!(
            "attack --model {modality}.onnx --data {modality} --attack fgsm --threat linf:{epsilon} --samples 3 --seed 1 \
             --out adversarial-{modality}"
        );
        succeed(folder.path(), &attacked);
        assert!(folder.path().join(format!("adversarial-{modality}/labels.csv")).is_file());
        let said = succeed(folder.path(), &format!("data inspect {modality}"));
        assert!(said.contains("records (WFDB, EDF)"), "{said}");
    }
    let (code, _, error) = nocebo(folder.path(), "phantom x-ray --out x");
    assert!(code == 2 && error.contains("ct-slice"), "{code} {error}");
    let (code, _, error) = nocebo(folder.path(), "phantom ppg --count 40 --out ppg");
    assert!(code == 2 && error.contains("exists"), "{code} {error}");
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
    assert!(out.contains("read back"), "{out}");
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
fn success_is_judged_on_what_jpeg_leaves() {
    let folder = trained();
    let path = folder.path();
    let attack = "attack --model m.onnx --data phantoms.npz --attack pgd --threat linf:8 --samples 12 --seed 1";
    let success = |out: &str| {
        let text = fs::read(path.join(out).join("attack.json")).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let samples = read["samples"].as_array().unwrap().clone();
        let of = |field: &str| samples.iter().map(|sample| sample[field].clone()).collect::<Vec<_>>();
        (of("success"), of("success_after_storage"), of("distance_after_storage"), read["stored_as"].clone())
    };
    succeed(path, &format!("{attack} --out plain"));
    let shown = succeed(path, &format!("{attack} --store-as jpeg:10 --out lossy"));
    assert!(shown.contains("read back as jpeg:10"), "{shown}");
    let (plain, lossy) = (success("plain"), success("lossy"));
    assert_eq!(plain.0, lossy.0, "as computed");
    assert_ne!(plain.2, lossy.2, "distance after storage");
    assert_eq!((plain.3.as_str(), lossy.3.as_str()), (None, Some("jpeg:10")));

    let audit = "audit --model m.onnx --data phantoms.npz --attacks fgsm,pgd --threat linf:8 --samples 12 --seed 1";
    succeed(path, &format!("{audit} --out a"));
    succeed(path, &format!("{audit} --store-as jpeg:10 --out b"));
    let rates = |out: &str| {
        let read: serde_json::Value =
            serde_json::from_slice(&fs::read(path.join(out).join("audit.json")).unwrap()).unwrap();
        let worst = read["threats"][0]["worst_case"].clone();
        (worst["robust_accuracy"]["hits"].as_u64().unwrap(), worst["robust_accuracy_stored"]["hits"].as_u64().unwrap())
    };
    let (plain, lossy) = (rates("a"), rates("b"));
    assert!(plain.0 == lossy.0 && plain.1 < lossy.1, "a coarse JPEG undoes perturbations: {plain:?} {lossy:?}");
    assert!(fs::read_to_string(path.join("b/report.html")).unwrap().contains("jpeg:10, with loss"));
    let recipe = path.join("b/resolved.toml");
    assert!(fs::read_to_string(&recipe).unwrap().contains("store_as = \"jpeg:10\""));
    succeed(path, "audit --recipe b/resolved.toml --out c");
    assert_eq!(records(path, "b"), records(path, "c"));
    succeed(path, &format!("{audit} --store-as jpeg2000:10 --out d"));
    let small = rates("d");
    assert!(plain.0 == small.0 && plain.1 < small.1, "so does JPEG 2000: {plain:?} {small:?}");
    assert!(fs::read_to_string(path.join("d/report.html")).unwrap().contains("jpeg2000:10, with loss"));
    let (code, _, error) = nocebo(path, &format!("{attack} --store-as png --out no"));
    assert!(code == 2 && error.contains("jpeg:90"), "{error}");
}

#[test]
fn frozen_weights_stay_and_an_unknown_one_is_refused() {
    let folder = trained();
    let weights = |name: &str| onnx::read(&folder.path().join(name)).unwrap().constants;
    let go_on = "train --data phantoms.npz --from m.onnx --epochs 1 --batch-size 16";
    succeed(folder.path(), &format!("{go_on} --freeze head.* --freeze-batch-norm --out t.onnx"));
    succeed(
        folder.path(),
        "harden m.onnx --data phantoms.npz --threat linf:2 --epochs 1 --batch-size 20 --freeze head.* --out h.onnx",
    );
    let before = weights("m.onnx");
    for after in [weights("t.onnx"), weights("h.onnx")] {
        for (name, constant) in &before {
            let trained = name.starts_with("hidden");
            assert_eq!(after[name] != *constant, trained, "{name}");
        }
    }
    let (code, _, error) = nocebo(folder.path(), &format!("{go_on} --freeze tail.* --out x.onnx"));
    assert!(code == 2 && error.contains("tail.*") && error.contains("head.bias"), "{error}");
}

#[test]
fn a_model_is_described() {
    let folder = trained();
    let shown = succeed(folder.path(), "inspect m.onnx");
    for part in [
        "float [batch, 1, 28, 28]",
        "one of 2 classes (logits)",
        "multiply-adds",
        "exact at every node",
        "computes every node",
        "nocebo.spec",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(succeed(folder.path(), "inspect m.onnx --nodes").contains(": Gemm("));
    let mut bytes = fs::read(folder.path().join("m.onnx")).unwrap();
    for name in [&b"Relu"[..], b"Gemm"] {
        let places: Vec<usize> = (0..bytes.len() - 4).filter(|&at| bytes[at..].starts_with(name)).collect();
        places.into_iter().for_each(|at| bytes[at] = b'Z');
    }
    fs::write(folder.path().join("strange.onnx"), bytes).unwrap();
    let (code, _, error) = nocebo(folder.path(), "inspect strange.onnx");
    assert!(code == 3 && error.contains("`Zelu`") && error.contains("`Zemm`"), "{error}");
}

/// A model with an integer, a truth and a float input, and outputs of the same types.
fn typed_model(path: &Path) {
    let input = |name: &str, element| Input { name: name.into(), shape: None, element };
    let node = |name: &str, operator: Operator, inputs: &[&str]| Node {
        name: name.into(),
        operator,
        inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
        outputs: vec![name.into()],
    };
    let graph = Graph {
        inputs: vec![
            input("places", ElementType::I64),
            input("mask", ElementType::Bool),
            input("values", ElementType::F32),
        ],
        outputs: ["double", "next", "not"].map(str::to_owned).to_vec(),
        nodes: vec![
            node("next", Arithmetic::Add.into(), &["places", "places"]),
            node("not", Unary::Not.into(), &["mask"]),
            node("double", Arithmetic::Add.into(), &["values", "values"]),
        ],
        ..Graph::default()
    };
    onnx::write(&graph, path).unwrap();
}

#[test]
fn arrays_of_any_type_are_run_and_values_that_would_change_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    typed_model(&path.join("typed.onnx"));
    let array = |name: &str, element, shape: &[usize], bytes: &[u8]| {
        npy::write_array(&path.join(name), &Array { element, shape: shape.to_vec(), bytes: bytes.to_vec() }).unwrap();
    };
    // An integer that 32-bit floats do not hold.
    let large = (1i64 << 53) + 1;
    array("places.npy", "int64", &[1], &large.to_le_bytes());
    array("mask.npy", "bool", &[2], &[1, 0]);
    array("values.npy", "float64", &[1], &0.1f64.to_le_bytes());
    onnx::write_tensor("values", &Tensor::floats(&[1], vec![0.1]).unwrap(), &path.join("values.pb")).unwrap();
    for (values, out) in [("values.npy", "a"), ("values.pb", "b")] {
        let command =
            format!("run typed.onnx --input places.npy --input mask.npy --input {values} --gradient --out {out}");
        succeed(path, &command);
        let read = |name: &str| npy::read_array(&path.join(out).join(name), 9).unwrap();
        assert_eq!((read("next.npy").element, read("next.npy").bytes), ("int64", (2 * large).to_le_bytes().to_vec()));
        assert_eq!((read("not.npy").element, read("not.npy").bytes), ("bool", vec![0, 1]));
        assert_eq!(read("double.npy").bytes, 0.2f32.to_le_bytes());
    }
    array("halves.npy", "float32", &[1], &0.5f32.to_le_bytes());
    array("bytes.npy", "uint8", &[2], &[1, 2]);
    for (inputs, mentions) in [
        ("--input halves.npy --input mask.npy --input values.npy", "int64"),
        ("--input places.npy --input bytes.npy --input values.npy", "bool"),
        ("--input places.npy", "places, mask, values"),
    ] {
        let (code, _, error) = nocebo(path, &format!("run typed.onnx {inputs} --out x"));
        assert!(code == 2 && error.contains(mentions) && !path.join("x").exists(), "{error}");
    }
}

#[test]
fn run_uses_the_executor_that_it_is_asked_for() {
    let folder = trained();
    let path = folder.path();
    let values: Vec<u8> = (0..5 * 784).flat_map(|at| ((at * 37 % 256) as f32).to_le_bytes()).collect();
    let array = Array { element: "float32", shape: vec![5, 1, 28, 28], bytes: values };
    npy::write_array(&path.join("x.npy"), &array).unwrap();
    let mut answers = Vec::new();
    for (executor, name) in [("burn", "burn"), ("engine", "engine ("), ("engine-direct", "engine-direct (")] {
        let run = format!("run m.onnx --input x.npy --gradient --executor {executor} --out {executor}");
        let shown = succeed(path, &run);
        assert!(shown.contains(&format!("computed by {name}")), "{shown}");
        let mut files: Vec<_> = fs::read_dir(path.join(executor)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        answers.push(files.iter().map(|file| npy::read_array(file, 9999).unwrap()).collect::<Vec<Array>>());
    }
    let floats = |array: &Array| -> Vec<f32> {
        array.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    for other in &answers[1..] {
        assert_eq!(other.len(), 2);
        for (ours, burn) in other.iter().zip(&answers[0]) {
            assert_eq!(ours.shape, burn.shape);
            let scale = floats(burn).iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * scale;
            assert!(scale > 0.0 && floats(ours).iter().zip(&floats(burn)).all(close));
        }
    }
    typed_model(&path.join("typed.onnx"));
    npy::write_array(&path.join("p.npy"), &Array { element: "int64", shape: vec![1], bytes: vec![0; 8] }).unwrap();
    npy::write_array(&path.join("m.npy"), &Array { element: "bool", shape: vec![1], bytes: vec![0] }).unwrap();
    npy::write_array(&path.join("v.npy"), &Array { element: "float32", shape: vec![1], bytes: vec![0; 4] }).unwrap();
    let run = "run typed.onnx --input p.npy --input m.npy --input v.npy --executor engine --out typed";
    let (code, shown, error) = nocebo(path, run);
    assert!(code == 0 && shown.contains("computed by burn") && error.contains("runs on the Burn executor"), "{error}");
}

#[test]
fn attacks_that_learn_first_do_so_from_another_part_of_the_data() {
    let folder = trained();
    let path = folder.path();
    let audit = "audit --model m.onnx --data phantoms.npz --threat linf:8 --learning-samples 24 --include-images 1 \
                 --attacks uap(passes=2),patch(steps=4) --seed 1";
    let mut records = Vec::new();
    for (batch, threads) in [(64, 2), (5, 1)] {
        let out = format!("audit-{batch}");
        let shown = succeed(path, &format!("{audit} --batch-size {batch} --threads {threads} --out {out}"));
        assert!(shown.contains("uap(passes=2)") && shown.contains("patch(steps=4)"), "{shown}");
        records.push(fs::read(path.join(out).join("records.parquet")).unwrap());
    }
    assert!(records[0] == records[1]);
    let summary = |out: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path.join(out).join("audit.json")).unwrap()).unwrap()
    };
    let learned = &summary("audit-64")["attacks"][0]["learned_from"];
    assert!(learned["samples"] == 24 && learned["name"].as_str().unwrap().contains("train"), "{learned}");
    assert!(fs::read_to_string(path.join("audit-64/report.html")).unwrap().contains("learned from 24 samples"));

    succeed(
        path,
        "audit --model m.onnx --data phantoms.npz --split train --samples 8 --threat linf:8 --attacks sgd-uap --out t",
    );
    let learned = &summary("t")["attacks"][0]["learned_from"];
    assert!(learned["samples"] == 20 && learned["name"].as_str().unwrap().contains("validation"), "{learned}");

    let attack = "attack --model m.onnx --data phantoms.npz --attack medical-uap --threat linf:8 --samples 6 --out a";
    succeed(path, attack);
    let written: serde_json::Value = serde_json::from_slice(&fs::read(path.join("a/attack.json")).unwrap()).unwrap();
    assert_eq!(written["learned_from"]["samples"], 80, "{written}");
    for part in ["test", "train --split train"] {
        let (code, _, error) = nocebo(path, &format!("{attack}2 --learn-from {part}"));
        assert!(code == 2 && error.contains("--learn-from"), "{error}");
    }
}

#[test]
fn an_infinite_epsilon_is_the_bounds_alone() {
    let folder = trained();
    let path = folder.path();
    let audit = "audit --model m.onnx --data phantoms.npz --samples 12 --threat linf:1,inf --threat l2:inf --seed 1 --out audit \
                 --attacks fgsm,pgd(steps=10),ddn,affine(steps=4)";
    let output = Command::cargo_bin("nocebo")
        .unwrap()
        .current_dir(path)
        .args(audit.split_whitespace())
        .args(["--require", "attack_success_rate(linf:inf) >= 0.5", "--require", "robust_accuracy(l2:inf) <= 0.9"])
        .output()
        .unwrap();
    let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{out}\n{error}");
    assert!(
        out.contains("linf:inf grey levels") && out.contains("gate attack_success_rate(linf:inf) >= 0.5: met"),
        "{out}"
    );
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(path.join("audit/audit.json")).unwrap()).unwrap();
    assert_eq!(summary["settings"]["threats"][0]["epsilons"], serde_json::json!([1.0, "inf"]));
    let unlimited = &summary["threats"][1];
    assert_eq!(unlimited["epsilon"], "inf");
    for cell in unlimited["cells"].as_array().unwrap() {
        assert!(cell["not_finite"] == 0 && cell["outside_threat"] == 0, "{cell}");
    }
    let report = fs::read_to_string(path.join("audit/report.html")).unwrap();
    assert!(report.contains("no limit but the bounds of the data, 255 grey levels apart"));
    assert!(!report.contains("NaN") && report.contains("linf:inf"));

    let attack =
        "attack --model m.onnx --data phantoms.npz --attack st-adv(steps=5) --threat l2:inf --samples 4 --out moved";
    succeed(path, attack);
    assert!(fs::read_to_string(path.join("moved/attack.json")).unwrap().contains("\"epsilon\": \"inf\""));
}

#[test]
fn the_transfer_matrix_is_printed_and_written() {
    let folder = trained();
    let path = folder.path();
    succeed(path, "train --data phantoms.npz --architecture mlp --epochs 1 --batch-size 16 --seed 2 --out n.onnx");
    let transfer = "transfer --models m.onnx,n.onnx --data phantoms.npz --threat linf:32";
    let shown = succeed(path, &format!("{transfer} --attack mi-fgsm(steps=3) --out t.json"));
    assert!(shown.contains("crafted on") && shown.contains("accuracy"), "{shown}");
    let written: serde_json::Value = serde_json::from_slice(&fs::read(path.join("t.json")).unwrap()).unwrap();
    let matrix = &written["matrix"];
    assert_eq!(matrix["models"], serde_json::json!(["m.onnx", "n.onnx"]));
    let common = matrix["fooled"][0][1]["trials"].as_u64().unwrap();
    assert!(common > 0 && matrix["records"].as_array().unwrap().len() as u64 == 2 * common, "{written}");
    succeed(path, &format!("{transfer} --attack mi-fgsm(steps=3) --batch-size 3 --out u.json"));
    assert_eq!(fs::read(path.join("t.json")).unwrap(), fs::read(path.join("u.json")).unwrap());
    let (code, _, error) = nocebo(path, "transfer --models m.onnx --data phantoms.npz --threat linf:1");
    assert!(code == 2 && error.contains("two files"), "{error}");
    let (code, _, error) = nocebo(path, &format!("{transfer} --attack uap"));
    assert!(code == 2 && error.contains("learns from samples"), "{error}");
}

#[test]
fn attacks_are_listed_with_their_settings_and_the_doctor_is_content() {
    let folder = tempfile::tempdir().unwrap();
    let listed = succeed(folder.path(), "attacks");
    assert!(listed.contains("Projected gradient descent") && listed.contains("learns first"), "{listed}");
    assert!(succeed(folder.path(), "attacks show upset").contains("# upset: UPSET"));
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
    fs::write(path.join("pickled.pt"), b"PK\x03\x04 archive/data.pkl").unwrap();
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
        ("train --data phantoms.npz --weights pickled.pt --out x.onnx".to_owned(), 3, "data.pkl"),
        ("train --data phantoms.npz --key-map text.onnx --out x.onnx".to_owned(), 2, "--weights"),
        ("train --data phantoms.npz --weights x --key-map text.onnx --out x.onnx".to_owned(), 3, "text.onnx"),
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

#[test]
fn masks_are_trained_on_attacked_audited_and_written_back() {
    let folder = tempfile::tempdir().unwrap();
    // Bright blocks of 8 pixels on the left or the right of 16 x 16 pictures.
    let inside = |picture: usize, at: usize| (at % 16 < 8) == picture.is_multiple_of(2) && at / 16 >= 4;
    let value = |at: usize| {
        let (picture, at) = (at / 256, at % 256);
        (if inside(picture, at) { 170.0 } else { 60.0 }) + ((picture * 7 + at) * 31 % 23) as f32
    };
    let samples = Samples::new((0..10 * 256).map(value).collect(), &[1, 16, 16]).unwrap();
    let mask = |picture: usize| Label::Mask((0..256).map(|at| u8::from(inside(picture, at))).collect());
    let names = vec!["0".to_owned(), "255".to_owned()];
    let domain = Domain::grey_levels(&[1, 16, 16], 255.0).unwrap();
    let data = Dataset::new("blocks", samples, (0..10).map(mask).collect(), names, domain).unwrap();
    nocebo_data::write(folder.path().join("blocks"), &data).unwrap();
    let out = succeed(
        folder.path(),
        "train --data blocks --architecture unet-small --flip --epochs 6 --batch-size 4 --learning-rate 0.01 --seed 1 --out m.onnx",
    );
    assert!(
        out.contains("test mean Dice") && out.contains("class 255: Dice") && out.contains("counts as right"),
        "{out}"
    );
    succeed(
        folder.path(),
        "attack --model m.onnx --data blocks --attack fgsm --threat linf:60 --seed 1 --out adversarial",
    );
    let attacked = nocebo_data::open(folder.path().join("adversarial"), Split::Train).unwrap();
    assert_eq!((attacked.len(), &attacked.labels()[0]), (1, &data.labels()[8]));
    let moved = attacked.samples().row(0).iter().zip(data.samples().row(8)).map(|(one, other)| (one - other).abs());
    assert_eq!(moved.fold(0.0, f32::max), 60.0);
    let out = succeed(
        folder.path(),
        "audit --model m.onnx --data blocks --attacks fgsm --threat linf:60 --seed 1 --include-images 0 --out audit",
    );
    assert!(out.contains("clean Dice/IoU: 0 ") && out.contains("worst Dice/IoU: 0 "), "{out}");
    assert!(fs::read_to_string(folder.path().join("audit/report.html")).unwrap().contains("Overlap with the truth"));
    // A mask is no label of a picture.
    let (code, _, error) = nocebo(folder.path(), "train --data blocks --architecture mlp --out no.onnx");
    assert!(code != 0 && error.contains("mlp"), "{error}");
}

#[test]
fn beats_are_trained_on_attacked_and_written_back_in_their_own_steps() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    fs::create_dir(&records).unwrap();
    for (record, name) in ["a", "b", "c"].into_iter().enumerate() {
        // A beat each second, every other one wide (ventricular).
        let shape = |frame: usize| {
            let (beat, after) = (frame / 90, frame as f64 % 90.0 - 45.0);
            let width = if beat % 2 == 0 { 2.0 } else { 8.0 };
            (200.0 * (-after * after / (2.0 * width * width)).exp()) as i32 + ((frame + record) * 31 % 7) as i32
        };
        let signal = wfdb::Signal {
            name: "MLII".to_owned(),
            format: wfdb::Format::Packed12,
            samples_per_frame: 1,
            skew: 0,
            gain: 200.0,
            baseline: 0,
            unit: "mV".to_owned(),
            samples: (0..90 * 14).map(shape).collect(),
        };
        wfdb::write(&records, &wfdb::Record { name: name.to_owned(), frequency: 90.0, signals: vec![signal] }).unwrap();
        let beat = |beat: u64| wfdb::Annotation {
            sample: 90 * beat + 45,
            code: if beat.is_multiple_of(2) { 1 } else { 5 },
            text: String::new(),
        };
        let beats: Vec<_> = (0..14).map(beat).collect();
        wfdb::write_annotations(&records.join(format!("{name}.atr")), &beats).unwrap();
    }
    fs::write(records.join("records.csv"), "record,split\na,train\nb,val\nc,test\n").unwrap();
    let out = succeed(
        folder.path(),
        "train --data records --architecture resnet1d --balanced 32 --epochs 2 --batch-size 8 --seed 1 --out m.onnx",
    );
    assert!(out.contains("validation balanced accuracy") && out.contains("V: sensitivity"), "{out}");
    let attack =
        "attack --model m.onnx --data records --attack bim(steps=3) --threat linf:0.1mV --seed 1 --out adversarial";
    succeed(folder.path(), attack);
    let clean = nocebo_data::open(&records, Split::Test).unwrap();
    let mut moved = 0;
    for (row, index) in clean.samples().indices().iter().enumerate() {
        let record = wfdb::read(&folder.path().join(format!("adversarial/{index:06}.hea")), 1 << 20).unwrap();
        let signal = &record.signals[0];
        for (stored, before) in signal.samples.iter().zip(clean.samples().row(row)) {
            let change = signal.physical(*stored).unwrap() - f64::from(*before);
            // Whole steps of 1/200 mV, at most 20 of them.
            assert!((change * 200.0 - (change * 200.0).round()).abs() < 1e-3 && change.abs() < 0.1001, "{change}");
            moved += usize::from(change.abs() > 0.001);
        }
    }
    assert!(moved > 0);
    let text = fs::read_to_string(folder.path().join("adversarial/attack.json")).unwrap();
    assert!(text.contains("\"unit\": \"mV\""), "{text}");
}

#[test]
fn a_table_is_attacked_in_its_own_steps_and_what_may_not_change_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut text = "patient;age;sex;glucose;pressure;part a;part b;label\r\n".to_owned();
    for line in 0..240_u32 {
        // Two classes that glucose and part a tell apart, with an overlap.
        let (class, noise) = (line % 2, f64::from(line * 7919 % 101) / 100.0);
        let glucose = 4.0 + 1.5 * f64::from(class) + 2.0 * noise;
        let part = 20 + 15 * class + line * 31 % 20;
        let (age, sex) = (40 + line % 37, if line % 3 == 0 { "f" } else { "\"m\"" });
        let row = format!("p{line};{age};{sex};{glucose:.1};{};{part};{};{class}\r\n", 110 + line % 40, 100 - part);
        text.push_str(&row.replace('.', ","));
    }
    fs::write(path.join("t.csv"), &text).unwrap();
    let schema = "groups = ['sex']\nsums = [['part a', 'part b']]\n[column.glucose]\nunit = 'mmol/l'\nminimum = 3\nmaximum = 9\n\
                  direction = 'decrease'\n";
    fs::write(path.join("t.schema.toml"), schema).unwrap();
    let out = succeed(path, "train --data t.csv --architecture mlp --epochs 20 --batch-size 16 --seed 1 --out m.onnx");
    assert!(out.contains("test accuracy"), "{out}");
    succeed(path, "attack --model m.onnx --data t.csv --attack pgd --threat linf:2sd --seed 1 --out adversarial");
    let written = fs::read_to_string(path.join("adversarial/table.csv")).unwrap();
    let attack: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join("adversarial/attack.json")).unwrap()).unwrap();
    let (mut changed, mut fooled) = (0, 0);
    let number = |cell: &str| cell.replace(',', ".").parse::<f64>().unwrap();
    for (sample, line) in attack["samples"].as_array().unwrap().iter().zip(written.lines().skip(1)) {
        let index = sample["sample"].as_u64().unwrap() as usize;
        let (before, after): (Vec<&str>, Vec<&str>) =
            (text.lines().nth(index + 1).unwrap().split(';').collect(), line.split(';').collect());
        for fixed in [0, 1, 2, 7] {
            assert_eq!(before[fixed], after[fixed], "{line}");
        }
        assert!(number(after[3]) <= number(before[3]) && number(after[3]) >= 3.0, "{line}");
        assert!(after[3].len() <= 3 && after[4].parse::<u32>().is_ok(), "{line}");
        assert_eq!(number(after[5]) + number(after[6]), 100.0, "{line}");
        assert!(sample["distance_after_storage"].as_f64().unwrap() <= 2.000_01);
        changed += usize::from(before != after);
        fooled += usize::from(sample["success_after_storage"] == true && sample["wrong_before"] == false);
    }
    assert!(changed > 20 && fooled > 2, "{changed} {fooled}");
    // The written table is data like any other: the model is wrong on it before any attack.
    let again =
        "attack --model m.onnx --data adversarial --attack noise --threat linf:0 --seed 1 --split train --out again";
    let out = succeed(path, again);
    assert!(!out.starts_with("0 samples") && !out.contains(" 0 wrong before"), "{out}");
    succeed(
        path,
        "audit --model m.onnx --data t.csv --attacks fgsm --threat linf:0.5sd --group sex --seed 1 --out audit",
    );
    succeed(path, "harden m.onnx --data t.csv --threat linf:0.3 --epochs 1 --seed 1 --out h.onnx");
    // Another standard deviation is another input.
    fs::write(path.join("t.schema.toml"), format!("{schema}standard_deviation = 3\n")).unwrap();
    let (code, _, error) = nocebo(path, "attack --model m.onnx --data t.csv --threat linf:1 --out no");
    assert!(code == 2 && error.contains("other standard deviations"), "{error}");
    // A network from elsewhere takes the values as they stand in the file: here class 0 where `b` is above 500.
    fs::write(path.join("f.csv"), "a,b,label\n1,900,0\n2,100,1\n3,800,0\n4,300,1\n5,700,0\n6,200,1\n").unwrap();
    let mut b = nocebo_graph::GraphBuilder::new("foreign", Seed(1));
    let x = b.input("values", &[2]);
    let x = b.linear("head", &x, (2, 2));
    let mut graph = b.finish(&[&x]).unwrap();
    for (name, values, shape) in
        [("head.weight", vec![0.0, 1.0, 0.0, 0.0], vec![2, 2]), ("head.bias", vec![-500.0, 0.0], vec![2])]
    {
        assert!(graph.constants.contains_key(name), "{:?}", graph.constants.keys());
        graph.constants.insert(name.to_owned(), std::sync::Arc::new(Tensor::floats(&shape, values).unwrap()));
    }
    onnx::write(&graph, &path.join("f.onnx")).unwrap();
    let out =
        succeed(path, "attack --model f.onnx --data f.csv --attack noise --threat linf:0 --split train --out foreign");
    assert!(out.contains(", 0 wrong before"), "{out}");
}

#[test]
fn numbers_and_grades_are_learned_and_audited_with_the_error_that_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // Months grow with both columns; a grade is the quarter that they lie in.
    let (mut months, mut grades) = ("a,b,months\n".to_owned(), "a,b,grade\n".to_owned());
    for row in 0..160_u32 {
        let (a, b) = (row * 37 % 100, row * 61 % 97);
        let number = 50.0 + 0.5 * f64::from(a) + 0.25 * f64::from(b);
        writeln!(months, "{a},{b},{number}").unwrap();
        writeln!(grades, "{a},{b},{}", ((number - 50.0) / 18.6) as u32).unwrap();
    }
    fs::write(path.join("months.csv"), months).unwrap();
    fs::write(path.join("grades.csv"), grades).unwrap();
    // Two grades are farther than the bounds let most rows go.
    for (name, option, worse, most) in [("months", "--tolerance 6", 6.0, 0.2), ("grades", "--serious 2", 0.5, 0.8)] {
        let out = succeed(
            path,
            &format!(
                "train --data {name}.csv {option} --architecture mlp --epochs 40 --batch-size 16 --seed 1 --out {name}.onnx"
            ),
        );
        assert!(out.contains("test mean absolute error"), "{out}");
        succeed(
            path,
            &format!(
                "audit --model {name}.onnx --data {name}.csv {option} --protocol standard --threat linf:0.1,1.5 --seed 1 --out {name}"
            ),
        );
        let audit: serde_json::Value =
            serde_json::from_slice(&fs::read(path.join(name).join("audit.json")).unwrap()).unwrap();
        let clean = audit["clean"]["accuracy"]["value"].as_f64().unwrap();
        let error = audit["clean"]["mean_error"].as_f64().unwrap();
        let [small, large] = [0, 1].map(|at| &audit["threats"][at]["worst_case"]);
        let robust = |worst: &serde_json::Value| worst["robust_accuracy"]["value"].as_f64().unwrap();
        let attacked = large["decisions"]["mean_error"].as_f64().unwrap();
        assert!(clean > 0.9 && robust(small) > 0.5 && robust(large) < most, "{name}: {clean}, {small}, {large}");
        assert!(attacked > error + worse, "{name}: {error} {attacked}");
        assert!(audit["settings"]["protocol"].as_str().unwrap().starts_with("variant of AutoAttack for"));
        let report = fs::read_to_string(path.join(name).join("report.html")).unwrap();
        assert!(report.contains("mean absolute error"));
        succeed(path, &format!("audit --recipe {name}/resolved.toml --out {name}-again"));
        assert_eq!(records(path, name), records(path, &format!("{name}-again")));
    }
    succeed(
        path,
        "harden months.onnx --data months.csv --tolerance 6 --threat linf:0.3 --epochs 1 --seed 1 --out h.onnx",
    );
    for (arguments, reason) in [
        ("audit --model months.onnx --data months.csv --threat linf:1 --out no", "--tolerance (6"),
        ("audit --model grades.onnx --data grades.csv --tolerance 1 --threat linf:1 --out no", "decides no number"),
        ("audit --model grades.onnx --data grades.csv --serious 3 --threat linf:1 --out no", "half of the grades"),
        (
            "audit --model months.onnx --data months.csv --tolerance 6 --attacks deepfool(loss=dlr) --threat l2:1 --out no",
            "",
        ),
    ] {
        let (code, _, error) = nocebo(path, arguments);
        assert!(code >= 2 && error.contains(reason), "{arguments}: {code} {error}");
    }
}

#[test]
fn volumes_are_attacked_in_their_own_steps_and_described() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut table = "file,label,patient\n".to_owned();
    fs::create_dir(path.join("ct")).unwrap();
    for at in 0..40_usize {
        // A bright corner in every other one, in steps of 2 HU.
        let ill = at % 2 == 1;
        let value = |voxel: usize| {
            let noise = ((voxel * 7919 + at * 104_729) % 50) as f32 * 2.0;
            noise - if ill && voxel < 16 { 20.0 } else { 60.0 }
        };
        let samples = Samples::new((0..4 * 4 * 4).map(value).collect(), &[1, 4, 4, 4]).unwrap();
        let config = DomainConfig {
            shape: vec![1, 4, 4, 4],
            unit: Unit::Hounsfield,
            lower: Field::Uniform(-1024.0),
            upper: Field::Uniform(3070.0),
            resolution: Field::Uniform(2.0),
            region: None,
        };
        let volume = nifti::Volume::new(samples.clone(), config.try_into().unwrap(), [2.0, 1.0, 1.0]).unwrap();
        nifti::write(&path.join(format!("ct/{at:02}.nii.gz")), &volume, &samples).unwrap();
        writeln!(table, "{at:02}.nii.gz,{},CANARY{at}", if ill { "ill" } else { "well" }).unwrap();
    }
    fs::write(path.join("ct/labels.csv"), table).unwrap();
    let shown = succeed(path, "data inspect ct --unit HU --seed 1");
    for expected in ["volumes (NIfTI", "[1, 4, 4, 4]", "HU, in steps of 2", "8 samples, 8 patient(s)", "none found"] {
        assert!(shown.contains(expected), "{expected} in\n{shown}");
    }
    let json = succeed(path, "data inspect ct --json --unit HU --seed 1");
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((read["unit"].as_str(), read["splits"][2]["samples"].as_u64()), (Some("HU"), Some(8)));
    assert!(!shown.contains("CANARY") && !json.contains("CANARY"));
    assert_eq!(nocebo(path, "data inspect absent").0, 3);
    assert_eq!(nocebo(path, "data inspect ct --schema").0, 2);

    succeed(path, "train --data ct --unit HU --architecture mlp --epochs 20 --batch-size 8 --seed 1 --out m.onnx");
    succeed(
        path,
        "attack --model m.onnx --data ct --unit HU --attack pgd --threat linf:10HU --seed 1 --out adversarial",
    );
    let attack: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join("adversarial/attack.json")).unwrap()).unwrap();
    let read = |file: &Path| nifti::read(file, &OpenOptions::default()).unwrap();
    let mut fooled = 0;
    for sample in attack["samples"].as_array().unwrap() {
        let index = sample["sample"].as_u64().unwrap();
        let clean = read(&path.join(format!("ct/{index:02}.nii.gz")));
        let written = read(&path.join(format!("adversarial/{index:06}.nii.gz")));
        assert_eq!((written.spacing(), written.affine()), (clean.spacing(), clean.affine()));
        for (one, other) in clean.samples().values().iter().zip(written.samples().values()) {
            let steps = (one - other) / 2.0;
            assert!(steps.fract() == 0.0 && steps.abs() <= 5.0, "{one} {other}");
        }
        fooled += usize::from(sample["success_after_storage"] == true && sample["wrong_before"] == false);
    }
    assert!(fooled > 0, "{attack}");
    // One of them, without a label.
    let shown = succeed(path, "data inspect ct/01.nii.gz --unit HU");
    assert!(shown.contains("[1, 4, 4, 4]") && shown.contains("none") && !shown.contains("samples"), "{shown}");
    succeed(
        path,
        "attack --model m.onnx --data ct/01.nii.gz --unit HU --attack pgd --threat linf:10HU --seed 1 --out one",
    );
    let one: serde_json::Value = serde_json::from_slice(&fs::read(path.join("one/attack.json")).unwrap()).unwrap();
    assert_eq!(
        (one["labels_from"].as_str(), one["samples"][0]["wrong_before"].as_bool()),
        (Some("model"), Some(false))
    );
    let (clean, written) = (read(&path.join("ct/01.nii.gz")), read(&path.join("one/000000.nii.gz")));
    let differences =
        clean.samples().values().iter().zip(written.samples().values()).map(|(old, new)| (old - new).abs());
    let differences: Vec<f32> = differences.collect();
    assert!(differences.iter().all(|value| value % 2.0 == 0.0 && *value <= 10.0) && differences.contains(&10.0));
    succeed(path, "run m.onnx --input ct/01.nii.gz --out ran");
    assert_eq!(fs::read_dir(path.join("ran")).unwrap().count(), 1);
    let (code, _, error) = nocebo(path, "audit --model m.onnx --data ct/01.nii.gz --threat linf:1 --out no");
    assert!(code == 3 && error.contains("one image"), "{code} {error}");
}

fn records(folder: &Path, out: &str) -> Vec<u8> {
    fs::read(folder.join(out).join("records.parquet")).unwrap()
}

#[test]
fn an_audit_is_repeated_from_its_resolved_recipe_and_refuses_a_changed_file() {
    let folder = trained();
    let path = folder.path();
    succeed(
        path,
        "audit --model m.onnx --data phantoms.npz --threat linf:4/255range,16 --protocol quick --samples 10 --seed 3 --out first",
    );
    succeed(path, "audit --recipe first/resolved.toml --out again/deeper --batch-size 3");
    assert_eq!(records(path, "first"), records(path, "again/deeper"));
    let resolved = fs::read_to_string(path.join("again/deeper/resolved.toml")).unwrap();
    for expected in
        ["path = \"../../m.onnx\"", "\"linf:4,16\"", "protocol = \"quick\"", "sha256 = ", "steps = 20", "seed = 3"]
    {
        assert!(resolved.contains(expected), "{expected} in\n{resolved}");
    }
    let summary = fs::read_to_string(path.join("first/audit.json")).unwrap();
    assert!(summary.contains("\"protocol\": \"quick look\""));
    assert_eq!(nocebo(path, "audit --recipe first/resolved.toml --seed 4 --out x").0, 2);

    let mut bytes = fs::read(path.join("m.onnx")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path.join("m.onnx"), bytes).unwrap();
    let (code, _, error) = nocebo(path, "audit --recipe first/resolved.toml --out x");
    assert!(code == 3 && error.contains("has changed since"), "{code} {error}");
}

#[test]
fn a_recipe_that_is_wrong_is_shown_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let good = "schema = 1\n[model]\npath = 'm.onnx'\n[data]\npath = 'd.npz'\n[threat]\nbudgets = ['linf:1']\n";
    let cases = [
        (good.replace("budgets", "budgts"), "budgts"),
        (good.replace("linf:1", "linf:-1"), "linf:-1"),
        (good.replace("schema = 1", "schema = 1\ngates = ['robustness > 1']"), "robustness > 1"),
        (format!("{good}[[attack]]\nnme = 'pgd'\n"), "nme"),
        (good.replace("schema = 1", "schema = 2"), "schema"),
        ("schema = [".to_owned(), "schema = ["),
    ];
    for (text, mentions) in cases {
        fs::write(path.join("audit.toml"), &text).unwrap();
        let (code, _, error) = nocebo(path, "audit --recipe audit.toml --out x");
        assert!(code == 2 && error.contains(mentions) && error.contains("audit.toml"), "{code} {error}\n{text}");
    }
    fs::write(path.join("audit.toml"), good).unwrap();
    let (code, _, error) = nocebo(path, "audit --recipe audit.toml --out x");
    assert!(code == 3 && error.contains("m.onnx"), "{code} {error}");
    assert_eq!(nocebo(path, "audit --recipe audit.toml --samples 3 --out x").0, 2, "flags beside a recipe");
}

#[test]
fn init_writes_a_recipe_that_runs() {
    let folder = trained();
    let path = folder.path();
    succeed(path, "init --model m.onnx --data phantoms.npz");
    let recipe = fs::read_to_string(path.join("audit.toml")).unwrap();
    assert!(recipe.contains("budgets = [\"linf:0.5,1,2,4,8,64\"]"), "{recipe}");
    assert_eq!(nocebo(path, "init --model m.onnx --data phantoms.npz").0, 2, "nothing is written over");
    // Comments that hold a setting hold a valid one.
    let quick = recipe.replace("\"standard\"", "\"quick\"").replace("\nsamples = 0 ", "\nsamples = 4 ");
    let quick = quick.replace("# \"robust", "\"robust").replace(">= 0.5\"", ">= 0.0\"").replace("# query", "query");
    let quick =
        quick.replace("# finding", "finding").replace("# channel", "channel").replace("# class_names", "class_names");
    let quick = quick.replace("# [[attack]]", "[[attack]]").replace("# name", "name").replace("# label", "label");
    let quick = quick.replace("# settings = { steps = 200, restarts = 5 }", "settings = { steps = 3 }");
    fs::write(path.join("audit.toml"), quick).unwrap();
    succeed(path, "audit --recipe audit.toml --out results");
    assert!(fs::read_to_string(path.join("results/audit.json")).unwrap().contains("pgd-long"));
}

#[test]
fn a_foreign_file_is_told_its_task_threshold_and_normalisation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    data(path);
    // One logit: 2·(mean of the normalised image) − 1, so that the threshold of ½ is the decision at its zero.
    let mut b = nocebo_graph::GraphBuilder::new("foreign", Seed(1));
    let x = b.input("image", &[1, 28, 28]);
    let x = b.global_average("pool", &x);
    let x = b.linear("head", &x, (1, 1));
    let graph = b.finish(&[&x]).unwrap();
    nocebo_graph::onnx::write(&graph, &path.join("foreign.onnx")).unwrap();
    let recipe = "schema = 1\nprotocol = 'quick'\n[model]\npath = 'foreign.onnx'\ntask = 'binary'\nthresholds = [0.73105858]\n\
                  normalization = { mean = [100.0], standard_deviation = [50.0] }\n[data]\npath = 'phantoms.npz'\nsamples = 6\n\
                  [threat]\nbudgets = ['linf:8']\n";
    fs::write(path.join("audit.toml"), recipe).unwrap();
    succeed(path, "audit --recipe audit.toml --out results");
    let audit = nocebo_audit::Audit::read(&path.join("results")).unwrap();
    let nocebo_core::Task::Binary { threshold } = audit.model.task else { panic!("{:?}", audit.model.task) };
    // The log-odds of 0.731 are 1.
    assert!((threshold - 1.0).abs() < 1e-5, "{threshold}");
    assert_eq!(audit.settings.protocol.as_deref(), Some("quick look"));
    for (wrong, mentions) in [
        (recipe.replace("0.73105858", "1.5"), "above 0 and below 1"),
        (recipe.replace("mean = [100.0]", "mean = [1.0, 2.0]"), "1 channels"),
        (recipe.replace("'binary'", "'multi_class'"), "thresholds"),
    ] {
        fs::write(path.join("audit.toml"), wrong).unwrap();
        let (code, _, error) = nocebo(path, "audit --recipe audit.toml --out x");
        assert!(code == 2 && error.contains(mentions), "{code} {error}");
    }
}

#[test]
fn an_audit_that_runs_out_of_time_says_what_is_missing_and_continues() {
    let folder = trained();
    let path = folder.path();
    let audit = "audit --model m.onnx --data phantoms.npz --threat linf:2,8 --protocol quick --samples 8 --out";
    let (code, _, error) = nocebo(path, &format!("{audit} part --max-minutes 0.0000001"));
    assert!(code == 4 && error.contains("missing: noise linf:2, noise linf:8, fgsm linf:2"), "{code} {error}");
    assert!(!path.join("part/audit.json").exists() && path.join("part/resolved.toml").is_file());
    succeed(path, &format!("{audit} part"));
    succeed(path, &format!("{audit} whole --max-minutes 10"));
    assert_eq!(records(path, "part"), records(path, "whole"));
    assert_eq!(nocebo(path, &format!("{audit} x --max-minutes 0")).0, 2);
}

#[test]
fn two_audits_are_compared_sample_by_sample() {
    let folder = trained();
    let path = folder.path();
    succeed(path, "train --data phantoms.npz --architecture mlp --epochs 1 --batch-size 16 --seed 2 --out n.onnx");
    for model in ["m", "n"] {
        succeed(
            path,
            &format!("audit --model {model}.onnx --data phantoms.npz --threat linf:2 --attacks fgsm --out {model}"),
        );
    }
    let out = succeed(path, "compare m n --out both.html");
    assert!(out.contains("p McNemar") && out.contains("linf:2") && out.contains("the same 24 samples"), "{out}");
    assert!(fs::read_to_string(path.join("both.html")).unwrap().contains("<article"));
    assert_eq!(nocebo(path, "compare m nothing").0, 3);
}

/// Lines that a process prints until one has this in it.
fn line_with(output: impl std::io::Read, wanted: &str) -> String {
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output)).map(Result::unwrap);
    lines.find(|line| line.contains(wanted)).unwrap()
}

#[test]
fn a_finished_audit_is_viewed_and_keeps_samples_only_when_asked() {
    use std::io::{Read, Write};
    let folder = trained();
    let path = folder.path();
    let audit = "audit --model m.onnx --data phantoms.npz --threat linf:4 --attacks fgsm --out";
    succeed(path, &format!("{audit} plain"));
    succeed(path, &format!("{audit} kept --keep-samples 3"));
    assert_eq!(records(path, "plain"), records(path, "kept"));
    assert!(path.join("kept/samples.npy").is_file() && !path.join("plain/samples.npy").exists());
    let (shape, clean) = npy::read(&path.join("kept/samples.npy"), 10_000).unwrap();
    assert_eq!(shape, [3, 1, 28, 28]);
    let (code, _, error) = nocebo(path, &format!("{audit} x --keep-samples 3 --include-images 0"));
    assert!(code == 2 && error.contains("keep_samples") && !path.join("x/samples.npy").exists(), "{code} {error}");
    assert_eq!(nocebo(path, "view nothing").0, 3);

    let mut viewer = std::process::Command::new(env!("CARGO_BIN_EXE_nocebo"))
        .current_dir(path)
        .args(["view", "plain", "kept"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let line = line_with(viewer.stdout.take().unwrap(), "http://127.0.0.1:");
    let host = line.split('/').nth(2).unwrap().to_owned();
    let get = |page: &str| {
        let mut stream = std::net::TcpStream::connect(&host).unwrap();
        write!(stream, "GET {page} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let at = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        (String::from_utf8_lossy(&answer[..at]).into_owned(), answer[at + 4..].to_vec())
    };
    let (head, page) = get("/");
    assert!(head.starts_with("HTTP/1.1 200") && page.starts_with(b"<!DOCTYPE html>"), "{head}");
    let (_, runs) = get("/runs.json");
    let runs: serde_json::Value = serde_json::from_slice(&runs).unwrap();
    assert_eq!((&runs[0]["name"], &runs[1]["name"]), (&"plain".into(), &"kept".into()));
    let sample = runs[1]["samples"].as_array().unwrap().iter().find(|sample| sample["kept"] == true).unwrap();
    let values = get(&format!("/run/1/clean/{}", sample["index"])).1;
    let first: Vec<u8> = clean.iter().take(784).flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(values, first);
    let (_, report) = get("/run/0/report.html");
    assert_eq!(report, fs::read(path.join("plain/report.html")).unwrap());
    for missing in ["/run/0/clean/0", "/run/1/../../m.onnx", "/run/9/report.html", "/kept/samples.npy"] {
        assert!(get(missing).0.starts_with("HTTP/1.1 404"), "{missing}");
    }
    viewer.kill().unwrap();
    viewer.wait().unwrap();
}

#[test]
fn a_folder_in_use_by_another_process_is_left_alone() {
    let folder = trained();
    let path = folder.path();
    let audit = "audit --model m.onnx --data phantoms.npz --threat linf:4 --attacks fgsm --out results";
    fs::create_dir(path.join("results")).unwrap();
    let lock = fs::File::create(path.join("results/audit.lock")).unwrap();
    lock.lock().unwrap();
    let (code, _, error) = nocebo(path, audit);
    assert!(code == 2 && error.contains("in use by another audit"), "{code} {error}");
    assert_eq!(fs::read_dir(path.join("results")).unwrap().count(), 1);
    drop(lock);
    succeed(path, audit);
}

#[cfg(unix)]
#[test]
fn a_file_that_does_not_fit_ends_with_4_and_the_audit_continues_once_there_is_room() {
    let folder = trained();
    let path = folder.path();
    let audit = "audit --model m.onnx --data phantoms.npz --threat linf:2,4,8 --attacks fgsm,bim --out";
    succeed(path, &format!("{audit} whole"));
    // No file may grow beyond 16 blocks: as on a full disk, writes fail in the middle, here without a disk to fill.
    let limited = format!("trap '' XFSZ; ulimit -f 16; exec {} {audit} full", env!("CARGO_BIN_EXE_nocebo"));
    let output = Command::new("sh").current_dir(path).args(["-c", &limited]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(4) && error.contains("free some space"), "{:?} {error}", output.status);
    assert!(error.contains("finished cells are kept") && !path.join("full/audit.json").exists(), "{error}");
    let left = fs::read_dir(path.join("full")).unwrap().map(|entry| entry.unwrap().path());
    assert!(left.into_iter().all(|path| path.extension().is_none_or(|extension| extension != "part")));
    succeed(path, &format!("{audit} full"));
    assert_eq!(records(path, "full"), records(path, "whole"));
}
