//! ONNX's own test vectors: single operators, layers exported from PyTorch, whole networks.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use nocebo_graph::{Device, Executor, Graph, Tensor, onnx};
use rayon::prelude::*;

pub(crate) fn folder(name: &str) -> Option<PathBuf> {
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

/// What became of one test.
pub(crate) struct Outcome {
    /// Why it did not pass.
    pub(crate) failure: Option<String>,
    /// The network, where it could be read.
    pub(crate) graph: Option<Graph>,
}

fn run(graph: Graph, inputs: &[Tensor], outputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let executor = Executor::new(graph, &Device::flex()).map_err(|error| error.to_string())?;
    let got = executor.forward(inputs).map_err(|error| error.to_string())?;
    if got.len() != outputs.len() {
        return Err(format!("expected {} outputs, got {}", outputs.len(), got.len()));
    }
    outputs.iter().zip(&got).enumerate().try_for_each(|(index, (expected, got))| {
        compare(expected, got).map_err(|error| format!("output {index}: {error}"))
    })?;
    Ok(got)
}

/// Runs the network as it is, and once more after it was written and read again: the same bits must come out.
fn run_twice(graph: &Graph, inputs: &[Tensor], outputs: &[Tensor]) -> Result<(), String> {
    let first = run(graph.clone(), inputs, outputs)?;
    let again = onnx::to_bytes(graph).map_err(|error| format!("writing: {error}"))?;
    let again = onnx::read_bytes(&again).map_err(|error| format!("reading what was written: {error}"))?;
    let second = run(again, inputs, outputs).map_err(|error| format!("after writing and reading: {error}"))?;
    let bits = |tensors: &[Tensor]| -> Vec<u64> {
        tensors
            .iter()
            .flat_map(|tensor| tensor.to_f64().iter().map(|value| value.to_bits()).collect::<Vec<_>>())
            .collect()
    };
    if bits(&first) == bits(&second) { Ok(()) } else { Err("other values after writing and reading".into()) }
}

fn test(folder: &Path) -> Outcome {
    let graph = match onnx::read(&folder.join("model.onnx")) {
        Ok(graph) => graph,
        Err(error) => {
            // The error of a file names its place on this machine.
            let message = error.to_string().replace(&format!("{}/", folder.display()), "");
            return Outcome { failure: Some(message), graph: None };
        }
    };
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let read = |kind| tensors(folder, kind).map_err(|error| error.replace(&format!("{}/", folder.display()), ""));
        run_twice(&graph, &read("input")?, &read("output")?)
    }));
    let failure = attempt.unwrap_or_else(|_| Err("panic".into())).err();
    Outcome { failure, graph: Some(graph) }
}

/// Outcomes by the name of the test.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

fn outcomes(name: &str) -> Option<Outcomes> {
    let tests: Vec<PathBuf> =
        sorted(&folder(name)?).into_iter().filter(|path| path.join("model.onnx").exists()).collect();
    let named = |path: &PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), test(path));
    Some(tests.par_iter().map(named).collect())
}

/// Single operators; `None` without the vectors.
pub(crate) static NODE: LazyLock<Option<Outcomes>> = LazyLock::new(|| outcomes("node"));

/// Layers exported from PyTorch.
pub(crate) static PYTORCH: LazyLock<Option<Outcomes>> = LazyLock::new(|| outcomes("pytorch-converted"));

/// Whole networks whose weights are made by `ConstantOfShape`; the input is i / n.
pub(crate) static LIGHT: LazyLock<Option<Outcomes>> = LazyLock::new(|| {
    let is_model = |path: &PathBuf| path.extension().is_some_and(|end| end == "onnx");
    let models = sorted(&folder("light")?).into_iter().filter(is_model);
    let outcome = |path: PathBuf| {
        let graph = onnx::read(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let expected = onnx::read_tensor(&path.with_file_name(format!("{name}_output_0.pb"))).unwrap();
        let count = 3 * 224 * 224;
        let values = (0..count).map(|i| i as f32 / count as f32).collect();
        let input = Tensor::floats(&[1, 3, 224, 224], values).unwrap();
        let failure = run_twice(&graph, &[input], &[expected]).err();
        (name, Outcome { failure, graph: Some(graph) })
    };
    Some(models.map(outcome).collect())
});

/// Names of the tests of a suite whose outputs ONNX Runtime does not match, or does not run, from the vectors' README.
pub(crate) fn not_matched(suite: &str) -> BTreeMap<String, String> {
    let readme = std::fs::read_to_string(folder(".").unwrap().join("README.md")).unwrap();
    let start = readme.find(&format!("- `{suite}/`")).unwrap();
    let list = readme[start..].split("not matched: ").nth(1).unwrap().lines().next().unwrap();
    let entry = |part: &str| {
        let (name, why) = part.trim().trim_end_matches('.').split_once(' ').unwrap();
        (name.trim_matches('`').to_owned(), why.trim_matches(['(', ')']).to_owned())
    };
    list.split(", ").map(entry).collect()
}

fn check(suite: &str, outcomes: &Outcomes, least: usize) {
    let strange = not_matched(suite);
    let mut passed = 0;
    for (name, outcome) in outcomes {
        match &outcome.failure {
            None if strange.contains_key(name) => {}
            None => passed += 1,
            Some(reason) => eprintln!("{suite}/{name}: {reason}"),
        }
        assert_ne!(outcome.failure.as_deref(), Some("panic"), "{name}");
    }
    let of = outcomes.len() - strange.len();
    eprintln!("{suite}: {passed} of the {of} that ONNX Runtime matches");
    assert!(passed >= least, "expected at least {least} of {of} tests to pass, got {passed}");
}

#[test]
fn single_operators() {
    if let Some(outcomes) = NODE.as_ref() {
        check("node", outcomes, 278);
    }
}

#[test]
fn layers_exported_from_pytorch() {
    if let Some(outcomes) = PYTORCH.as_ref() {
        check("pytorch-converted", outcomes, 57);
    }
}

#[test]
fn whole_networks() {
    if let Some(outcomes) = LIGHT.as_ref() {
        let failed: Vec<_> =
            outcomes.iter().filter_map(|(name, outcome)| Some((name, outcome.failure.as_ref()?))).collect();
        assert!(failed.is_empty() && outcomes.len() == 9, "{failed:?}");
    }
}
