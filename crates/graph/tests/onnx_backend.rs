//! ONNX's own test vectors: single operators, layers exported from PyTorch, whole networks.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not there")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use nocebo_graph::{Device, Executor, Graph, Tensor, onnx};

fn folder(name: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/onnx-backend")).join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} not found", path.display());
    None
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The tensors `input_0.pb`, `input_1.pb`, ... or `output_0.pb`, ... of a test.
fn tensors(test: &Path, kind: &str) -> Result<Vec<Tensor>, String> {
    let mut result = Vec::new();
    loop {
        let path = test.join("test_data_set_0").join(format!("{kind}_{}.pb", result.len()));
        if !path.exists() {
            return Ok(result);
        }
        result.push(onnx::read_tensor(&path).map_err(|error| error.to_string())?);
    }
}

/// Compares as the vectors' own checker does: relative tolerance 1e-3, absolute 1e-5 (of the greatest value for whole networks).
fn compare(expected: &Tensor, got: &Tensor) -> Result<(), String> {
    if expected.shape() != got.shape() || expected.element() != got.element() {
        let describe = |tensor: &Tensor| format!("{} {:?}", tensor.element(), tensor.shape());
        return Err(format!("expected {}, got {}", describe(expected), describe(got)));
    }
    for (index, (e, g)) in expected.to_f64().iter().zip(got.to_f64().iter()).enumerate() {
        let equal = e == g || (e.is_nan() && g.is_nan()) || (e - g).abs() <= 1e-5 + 1e-3 * e.abs();
        if !equal {
            return Err(format!("element {index}: expected {e}, got {g}"));
        }
    }
    Ok(())
}

enum Outcome {
    Passed,
    Unsupported(String),
    Failed(String),
}

fn run(graph: Graph, inputs: &[Tensor], outputs: &[Tensor]) -> Result<(), String> {
    let executor = Executor::new(graph, &Device::flex()).map_err(|error| error.to_string())?;
    let got = executor.forward(inputs).map_err(|error| error.to_string())?;
    if got.len() != outputs.len() {
        return Err(format!("expected {} outputs, got {}", outputs.len(), got.len()));
    }
    outputs.iter().zip(&got).enumerate().try_for_each(|(index, (expected, got))| {
        compare(expected, got).map_err(|error| format!("output {index}: {error}"))
    })
}

/// Runs the model as it is and once more after it was written and read again.
fn test(folder: &Path) -> Outcome {
    let tensors = tensors(folder, "input").and_then(|inputs| Ok((inputs, tensors(folder, "output")?)));
    let (inputs, outputs) = match tensors {
        Ok(tensors) => tensors,
        Err(error) => return Outcome::Unsupported(error),
    };
    let graph = match onnx::read(&folder.join("model.onnx")) {
        Ok(graph) => graph,
        Err(error) if error.to_string().contains("not supported") => return Outcome::Unsupported(error.to_string()),
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        run(graph.clone(), &inputs, &outputs)?;
        let again = onnx::to_bytes(&graph).map_err(|error| format!("writing: {error}"))?;
        let again = onnx::read_bytes(&again).map_err(|error| format!("reading what was written: {error}"))?;
        run(again, &inputs, &outputs).map_err(|error| format!("after writing and reading: {error}"))
    }));
    match attempt {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) => Outcome::Failed(error),
        Err(_) => Outcome::Failed("panic".into()),
    }
}

fn suite(name: &str) -> Option<BTreeMap<String, Outcome>> {
    let results: BTreeMap<String, Outcome> = sorted(&folder(name)?)
        .into_iter()
        .filter(|path| path.join("model.onnx").exists())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), test(&path)))
        .collect();
    let (mut passed, mut unsupported, mut failed) = (0, 0, 0);
    for (test, outcome) in &results {
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Unsupported(reason) => {
                unsupported += 1;
                eprintln!("{name}/{test} unsupported: {reason}");
            }
            Outcome::Failed(reason) => {
                failed += 1;
                eprintln!("{name}/{test} FAILED: {reason}");
            }
        }
    }
    eprintln!("{name}: {passed} passed, {failed} failed, {unsupported} unsupported of {}", results.len());
    Some(results)
}

/// Tests of rules from before opset 7 (a slope for each channel, broadcasting by an attribute), and two whose expected
/// integers have wrapped around where the operator saturates; ONNX Runtime disagrees with those, too.
const EXPECTED_FAILURES: [&str; 6] = [
    "test_PReLU_1d_multiparam",
    "test_PReLU_2d_multiparam",
    "test_PReLU_3d_multiparam",
    "test_Softsign",
    "test_qlinearmatmul_2D_int8_float16",
    "test_qlinearmatmul_3D_int8_float16",
];

fn check(results: &BTreeMap<String, Outcome>, least: usize) {
    let failed: Vec<&str> = results
        .iter()
        .filter(|(name, outcome)| matches!(outcome, Outcome::Failed(_)) && !EXPECTED_FAILURES.contains(&name.as_str()))
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    let passed = results.values().filter(|outcome| matches!(outcome, Outcome::Passed)).count();
    assert!(passed >= least, "expected at least {least} tests to pass, got {passed}");
}

#[test]
fn single_operators() {
    if let Some(results) = suite("node") {
        check(&results, 284);
    }
}

#[test]
fn layers_exported_from_pytorch() {
    if let Some(results) = suite("pytorch-converted") {
        check(&results, 76);
    }
}

/// Whole networks whose weights are made by `ConstantOfShape`; the input is i / n.
#[test]
fn whole_networks() {
    let Some(folder) = folder("light") else { return };
    let models: Vec<PathBuf> =
        sorted(&folder).into_iter().filter(|path| path.extension().is_some_and(|end| end == "onnx")).collect();
    assert_eq!(models.len(), 9);
    for path in models {
        let graph = onnx::read(&path).unwrap();
        let mut expected = path.clone();
        expected.set_file_name(format!("{}_output_0.pb", path.file_stem().unwrap().to_string_lossy()));
        let expected = onnx::read_tensor(&expected).unwrap();
        let count = 3 * 224 * 224;
        let input = Tensor::floats(&[1, 3, 224, 224], (0..count).map(|i| i as f32 / count as f32).collect()).unwrap();
        run(graph, &[input], &[expected]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
