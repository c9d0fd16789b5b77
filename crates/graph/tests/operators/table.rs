//! `OPERATORS.md`: which operators are read, differentiated and written, as measured by the tests of this folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use nocebo_graph::onnx::{NEWEST_OPSET, WRITTEN_OPSET};
use nocebo_graph::operators::{Operator, is_known};

use crate::gradients::cases;
use crate::vectors::{self, LIGHT, NODE, Outcomes, PYTORCH};

/// The operators of ONNX's own domain and the opset in which each came, up to opset 25
/// (`onnx.defs.get_all_schemas_with_history()` of onnx 1.23).
const ONNX: &str = "\
    Abs:1 Acos:7 Acosh:9 Add:1 AffineGrid:20 And:1 ArgMax:1 ArgMin:1 Asin:7 Asinh:9 Atan:7 Atanh:9 Attention:23 \
    AveragePool:1 BatchNormalization:1 Bernoulli:15 BitShift:11 BitwiseAnd:18 BitwiseNot:18 BitwiseOr:18 \
    BitwiseXor:18 BlackmanWindow:17 Cast:1 CastLike:15 Ceil:1 Celu:12 CenterCropPad:18 Clip:1 Col2Im:18 \
    Compress:9 Concat:1 ConcatFromSequence:11 Constant:1 ConstantOfShape:9 Conv:1 ConvInteger:10 \
    ConvTranspose:1 Cos:7 Cosh:9 CumSum:11 DFT:17 DeformConv:19 DepthToSpace:1 DequantizeLinear:10 Det:11 Div:1 \
    Dropout:1 DynamicQuantizeLinear:11 Einsum:12 Elu:1 Equal:1 Erf:9 Exp:1 Expand:8 EyeLike:9 Flatten:1 Floor:1 \
    GRU:1 Gather:1 GatherElements:11 GatherND:11 Gelu:20 Gemm:1 GlobalAveragePool:1 GlobalLpPool:1 \
    GlobalMaxPool:1 Greater:1 GreaterOrEqual:12 GridSample:16 GroupNormalization:18 HammingWindow:17 \
    HannWindow:17 HardSigmoid:1 HardSwish:14 Hardmax:1 Identity:1 If:1 ImageDecoder:20 InstanceNormalization:1 \
    IsInf:10 IsNaN:9 LRN:1 LSTM:1 LayerNormalization:17 LeakyRelu:1 Less:1 LessOrEqual:12 Log:1 LogSoftmax:1 \
    Loop:1 LpNormalization:1 LpPool:1 MatMul:1 MatMulInteger:10 Max:1 MaxPool:1 MaxRoiPool:1 MaxUnpool:9 Mean:1 \
    MeanVarianceNormalization:9 MelWeightMatrix:17 Min:1 Mish:18 Mod:10 Mul:1 Multinomial:7 Neg:1 \
    NegativeLogLikelihoodLoss:12 NonMaxSuppression:10 NonZero:9 Not:1 OneHot:9 Optional:15 \
    OptionalGetElement:15 OptionalHasElement:15 Or:1 PRelu:1 Pad:1 Pow:1 QLinearConv:10 QLinearMatMul:10 \
    QuantizeLinear:10 RMSNormalization:23 RNN:1 RandomNormal:1 RandomNormalLike:1 RandomUniform:1 \
    RandomUniformLike:1 Range:11 Reciprocal:1 ReduceL1:1 ReduceL2:1 ReduceLogSum:1 ReduceLogSumExp:1 \
    ReduceMax:1 ReduceMean:1 ReduceMin:1 ReduceProd:1 ReduceSum:1 ReduceSumSquare:1 RegexFullMatch:20 Relu:1 \
    Reshape:1 Resize:10 ReverseSequence:10 RoiAlign:10 RotaryEmbedding:23 Round:11 STFT:17 Scan:8 Scatter:9 \
    ScatterElements:11 ScatterND:11 Selu:1 SequenceAt:11 SequenceConstruct:11 SequenceEmpty:11 SequenceErase:11 \
    SequenceInsert:11 SequenceLength:11 SequenceMap:17 Shape:1 Shrink:9 Sigmoid:1 Sign:9 Sin:7 Sinh:9 Size:1 \
    Slice:1 Softmax:1 SoftmaxCrossEntropyLoss:12 Softplus:1 Softsign:1 SpaceToDepth:1 Split:1 \
    SplitToSequence:11 Sqrt:1 Squeeze:1 StringConcat:20 StringNormalizer:10 StringSplit:20 Sub:1 Sum:1 Swish:24 \
    Tan:7 Tanh:1 TensorScatter:24 TfIdfVectorizer:9 ThresholdedRelu:10 Tile:1 TopK:1 Transpose:1 Trilu:14 \
    Unique:11 Unsqueeze:1 Upsample:1 Where:9 Xor:1";

/// Least opset whose rules every operator is read by.
const LEAST_OPSET: i64 = 7;

fn onnx_operators() -> impl Iterator<Item = (&'static str, i64)> {
    ONNX.split_whitespace()
        .map(|entry| entry.split_once(':').map(|(name, opset)| (name, opset.parse().unwrap())).unwrap())
}

/// Operators that are only read: the graph then holds their newer form, or a constant.
const REPLACED: [(&str, &str); 3] = [
    ("Constant", "becomes a constant of the graph"),
    ("Scatter", "becomes `ScatterElements`"),
    ("Upsample", "becomes `Resize`"),
];

/// An operator has a row of `cases`, so that its gradient is checked or its lack of one is.
#[test]
fn every_operator_that_is_read_has_its_gradient_checked() {
    let checked: BTreeSet<&str> = cases().iter().map(|case| case.operator.name()).collect();
    let unchecked: Vec<&str> = onnx_operators()
        .map(|(name, _)| name)
        .filter(|name| is_known(name) && !checked.contains(name))
        .filter(|name| *name != "DynamicQuantizeLinear" && REPLACED.iter().all(|(old, _)| old != name))
        .collect();
    assert!(unchecked.is_empty(), "{unchecked:?}");
}

/// The part of the documentation of the module `operators` that says what a gradient is where there is no derivative.
fn rule() -> String {
    let source = include_str!("../../src/operators/mod.rs");
    let lines =
        source.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line));
    let rule: Vec<&str> = lines.skip_while(|line| !line.starts_with("# Where")).skip(2).collect();
    rule.join("\n")
}

fn vectors_section(text: &mut String, suite: &str, outcomes: &Outcomes) {
    let strange = vectors::not_matched(suite);
    let passed = |matched: bool| {
        outcomes
            .iter()
            .filter(|(name, outcome)| outcome.failure.is_none() && strange.contains_key(*name) != matched)
            .count()
    };
    writeln!(
        text,
        "\n`{suite}`: {} of the {} tests that ONNX Runtime matches pass, and {} of the {} others.\n",
        passed(true),
        outcomes.len() - strange.len(),
        passed(false),
        strange.len()
    )
    .unwrap();
    let failures: Vec<String> = outcomes
        .iter()
        .filter_map(|(name, outcome)| {
            let runtime = strange.get(name).map_or("match", String::as_str);
            let reason = outcome.failure.as_ref()?.replace('|', "\\|");
            Some(format!("| `{name}` | {reason} | {runtime} |"))
        })
        .collect();
    if !failures.is_empty() {
        writeln!(text, "| Test | Why it does not pass | ONNX Runtime |\n|---|---|---|\n{}", failures.join("\n"))
            .unwrap();
    }
}

fn render(node: &Outcomes, pytorch: &Outcomes, light: &Outcomes) -> String {
    let cases = cases();
    let graphs = node.values().chain(pytorch.values());
    let mut tests: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut instances: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut least: BTreeMap<&str, i64> = BTreeMap::new();
    let mut see = |operator: &Operator| {
        let derivative: &mut BTreeSet<String> = instances.entry(operator.name()).or_default();
        derivative.insert(operator.derivative().to_string());
        let opset = least.entry(operator.name()).or_insert(i64::MAX);
        *opset = operator.least_opset().max(WRITTEN_OPSET).min(*opset);
    };
    for case in &cases {
        see(&case.operator);
    }
    for outcome in graphs {
        let Some(graph) = &outcome.graph else { continue };
        let mut names = BTreeSet::new();
        for node in &graph.nodes {
            see(&node.operator);
            names.insert(node.operator.name());
        }
        for name in names {
            let count = tests.entry(name).or_default();
            count.0 += usize::from(outcome.failure.is_none());
            count.1 += 1;
        }
    }
    let mut text = format!(
        "# Operators\n\nWritten by `cargo xtask operators` from the tests in `tests/operators`; do not edit.\n\n\
         Files of opset {LEAST_OPSET} to {NEWEST_OPSET} are read, older ones where the operator has kept its meaning. A file is written in opset \
         {WRITTEN_OPSET}, or the least newer one that has all its operators. *Vectors* are the tests of ONNX 1.16 that hold the operator \
         and pass, of those that can be read; each is run again after it was written and read, and must give the same bits. *Gradient* is the \
         derivative (exact), straight-through (estimated), 0 as of a step function (zero), or ends there (none, an error that names the node); \
         *cases* are its checks against central differences.\n\n\
         | Operator | Read from opset | Vectors | Gradient | Cases | Written in opset |\n|---|---|---|---|---|---|\n"
    );
    for (name, first) in onnx_operators().filter(|(name, _)| is_known(name)) {
        let first = first.max(LEAST_OPSET);
        if let Some((_, becomes)) = REPLACED.iter().find(|(old, _)| *old == name) {
            writeln!(text, "| {name} | {first} | {becomes} | | | |").unwrap();
            continue;
        }
        let (passed, all) = tests.get(name).copied().unwrap_or_default();
        let gradient: Vec<&str> = instances.get(name).into_iter().flatten().map(String::as_str).collect();
        let checks = cases.iter().filter(|case| case.operator.name() == name).count();
        let written = least.get(name).copied().unwrap_or(WRITTEN_OPSET);
        writeln!(text, "| {name} | {first} | {passed} of {all} | {} | {checks} | {written} |", gradient.join(" or "))
            .unwrap();
    }
    let unknown: Vec<&str> = onnx_operators().map(|(name, _)| name).filter(|name| !is_known(name)).collect();
    writeln!(text, "\nNot read (an error that names the node): {}.", unknown.join(", ")).unwrap();
    writeln!(text, "\n## Where a function has no derivative\n\n{}", rule()).unwrap();
    text.push_str("\n## Test vectors\n");
    vectors_section(&mut text, "node", node);
    vectors_section(&mut text, "pytorch-converted", pytorch);
    let passed = light.values().filter(|outcome| outcome.failure.is_none()).count();
    writeln!(text, "\n`light`: {passed} of the {} whole networks pass.", light.len()).unwrap();
    text
}

#[test]
fn the_table_is_up_to_date() {
    let (Some(node), Some(pytorch), Some(light)) = (NODE.as_ref(), PYTORCH.as_ref(), LIGHT.as_ref()) else { return };
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/OPERATORS.md"));
    let wanted = render(node, pytorch, light);
    if std::env::var_os("NOCEBO_WRITE_OPERATORS").is_some() {
        std::fs::write(path, wanted).unwrap();
        return;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == wanted, "OPERATORS.md is not what the tests say; run `cargo xtask operators`");
}
