//! `nocebo inspect`.

use std::fmt::Write;

use nocebo_graph::onnx;
use nocebo_graph::summary::Summary;

use crate::arguments::Inspect;
use crate::failure::{Failure, Kind};

pub(crate) fn run(arguments: &Inspect) -> Result<(), Failure> {
    let graph = onnx::read_or_all_problems(&arguments.model).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let message = format!("{} cannot be read:\n  {}", arguments.model.display(), all.join("\n  "));
        Failure::new(Kind::Load, anyhow::anyhow!(message))
    })?;
    if arguments.nodes {
        print!("{graph}");
        return Ok(());
    }
    let summary = Summary::of(&graph);
    let mut lines: Vec<(&str, String)> = graph.inputs.iter().map(|input| ("input", input.to_string())).collect();
    for (name, shape) in graph.outputs.iter().zip(&summary.outputs) {
        let shape = shape.as_ref().map_or("open".to_owned(), |shape| format!("{shape:?} for one sample"));
        lines.push(("output", format!("{name}: {shape}")));
    }
    lines.push(("task (a guess)", summary.task.unwrap_or_else(|| "unknown".into())));
    lines.push(("parameters", summary.parameters.to_string()));
    lines.push(("other constants", summary.other_constants.to_string()));
    let unknown = || "unknown: the file leaves sides of the input open".into();
    let multiplications = summary.multiplications.map(|count| count.to_string());
    lines.push(("multiply-adds", multiplications.unwrap_or_else(unknown)));
    let operators: Vec<String> = summary.operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
    lines.push(("operators", operators.join(", ")));
    for (kind, nodes) in &summary.inexact {
        lines.push(("gradient", format!("{kind} at {}", nodes.join(", "))));
    }
    if summary.inexact.is_empty() {
        lines.push(("gradient", "exact at every node".into()));
    }
    match nocebo_engine::unsupported(&graph) {
        Ok(missing) if missing.is_empty() => lines.push(("engine", "computes every node".into())),
        Ok(missing) => {
            let missing = missing.into_iter().map(|node| ("engine", format!("{node}; the model runs on Burn")));
            lines.extend(missing);
        }
        Err(error) => lines.push(("engine", format!("not known: {error}"))),
    }
    lines.extend(summary.taps.iter().map(|(name, shape)| ("tap", format!("{name}: {shape:?}"))));
    lines.extend(summary.findings.into_iter().map(|finding| ("finding", finding)));
    lines.extend(graph.metadata.iter().map(|(key, value)| ("metadata", format!("{key} = {value}"))));
    let mut text = String::new();
    for (name, value) in lines {
        // Names and metadata come from the file: control characters must not reach the terminal.
        let value: String = value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        writeln!(text, "{name:<16} {value}").map_err(|error| Failure::new(Kind::Incomplete, error))?;
    }
    print!("{text}");
    Ok(())
}
