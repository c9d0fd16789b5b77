//! `nocebo transfer`.

use nocebo_audit::{Transfer, transfer};
use nocebo_core::{DifferentiableModel, Seed};
use serde_json::json;

use crate::arguments::{Global, Transfer as Arguments};
use crate::failure::{Failure, OrFail};
use crate::load::{self, AnyAttack};

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    if arguments.models.len() < 2 {
        return Err(Failure::usage("--models: two files at least are needed, separated by a comma"));
    }
    if let Some(out) = &arguments.out {
        load::writable(out)?;
    }
    let all = load::data(&arguments.source, arguments.draw.split.into(), global)?;
    let mut models: Vec<(String, Box<dyn DifferentiableModel>)> = Vec::new();
    for path in &arguments.models {
        let (graph, spec) = load::graph(path, &all)?;
        if let Some((first, model)) = models.first()
            && model.spec().task != spec.task
        {
            return Err(Failure::usage(format!("{}: decides another task than {first}", path.display())));
        }
        models.push((path.display().to_string(), load::model(graph, spec, global)?.model));
    }
    let data = load::chosen(all, arguments.draw, global)?;
    let deviation = load::standard_deviation(&arguments.source, &data, global)?;
    let threat = load::threat(&arguments.threat, data.domain(), deviation)?;
    let mut named = load::attacks(&arguments.attack)?;
    let (Some(attack), true) = (named.pop(), named.is_empty()) else {
        return Err(Failure::usage("--attack: exactly one attack is needed"));
    };
    let AnyAttack::Ready(crafting) = &attack.attack else {
        return Err(Failure::usage(format!(
            "--attack {}: it learns from samples first; choose one that does not",
            attack.name
        )));
    };
    let borrowed: Vec<(String, &dyn DifferentiableModel)> =
        models.iter().map(|(name, model)| (name.clone(), &**model)).collect();
    let request = Transfer {
        attack: &**crafting,
        samples: data.samples(),
        labels: data.labels(),
        threat: &threat,
        seed: Seed(global.seed),
        batch_size: arguments.draw.batch_size,
    };
    let matrix = transfer(&borrowed, &request).or_incomplete()?;

    let width = matrix.models.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("crafted on".len());
    let cell = |rate: &nocebo_audit::Rate| rate.value.map_or("none".to_owned(), |value| format!("{value:.3}"));
    let line = |head: &str, cells: Vec<String>| {
        let cells: Vec<String> = cells.into_iter().map(|cell| format!("{cell:>width$}")).collect();
        println!("{head:<width$}  {}", cells.join("  "));
    };
    let common = matrix.fooled[0][0].trials;
    println!(
        "share fooled by {} at {} {} {}, of the {common} of {} samples that all models decide rightly",
        attack.name,
        threat.norm(),
        threat.epsilon(),
        threat.domain().unit().symbol(),
        data.len()
    );
    line("crafted on", matrix.models.clone());
    for (name, row) in matrix.models.iter().zip(&matrix.fooled) {
        line(name, row.iter().map(cell).collect());
    }
    line("accuracy", matrix.clean_accuracy.iter().map(cell).collect());
    if let Some(out) = &arguments.out {
        let summary = json!({
            "attack": attack.name,
            "settings": attack.settings,
            "norm": threat.norm(),
            "epsilon": if threat.epsilon().is_finite() { json!(threat.epsilon()) } else { json!("inf") },
            "unit": threat.domain().unit().symbol(),
            "seed": global.seed,
            "matrix": matrix,
        });
        let text = serde_json::to_string_pretty(&summary).or_incomplete()?;
        nocebo_core::write_file(out, text.as_bytes()).or_incomplete()?;
        println!("wrote {}", out.display());
    }
    Ok(())
}
