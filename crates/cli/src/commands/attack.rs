//! `nocebo attack`.

use std::time::{Duration, Instant};

use nocebo_core::{DifferentiableModel, Goal, Model, Samples, Seed};
use nocebo_data::Dataset;
use serde_json::json;

use crate::arguments::{Attack, Global};
use crate::failure::{Failure, OrFail};
use crate::load::{self, AnyAttack, Loaded};
use crate::progress::{bar, note};

pub(crate) fn run(arguments: &Attack, global: &Global) -> Result<(), Failure> {
    if arguments.out.exists() {
        return Err(Failure::usage(format!(
            "{} exists; choose another folder, since nothing is written over",
            arguments.out.display()
        )));
    }
    let (Loaded { model, .. }, data) = load::model_and_samples(&arguments.samples, global)?;
    let deviation = load::standard_deviation(&arguments.samples.source, &data, global)?;
    let threat = load::threat(&arguments.threat, data.domain(), deviation)?;
    arguments.store_as.iter().try_for_each(|store| store.check(data.domain())).or_usage()?;
    let mut named = load::attacks(&arguments.attack)?;
    let (Some(named), true) = (named.pop(), named.is_empty()) else {
        return Err(Failure::usage("--attack: exactly one attack is needed"));
    };
    let (attack, learned_from) = match named.attack {
        AnyAttack::Ready(attack) => (attack, None),
        AnyAttack::Learns(attack) => {
            let set = load::learning_set(&arguments.samples, &data, global)?;
            let goal = Goal::Untargeted { labels: set.labels().to_vec() };
            let learned =
                attack.fit(model.as_ref(), set.samples(), &goal, &threat, Seed(global.seed)).or_incomplete()?;
            (learned, Some(json!({ "name": set.source(), "samples": set.len() })))
        }
    };

    let bar = bar(global, data.len() as u64);
    let mut taken = Duration::ZERO;
    let mut values = Vec::with_capacity(data.samples().values().len());
    let mut records = Vec::new();
    let rows: Vec<usize> = (0..data.len()).collect();
    for rows in rows.chunks(arguments.samples.draw.batch_size) {
        let (clean, goal) = part(&data, rows);
        let start = Instant::now();
        let outcome = attack.run(model.as_ref(), &clean, &goal, &threat, Seed(global.seed)).or_incomplete()?;
        taken += start.elapsed();
        let (_, stored) = threat.as_stored(&clean, &outcome.perturbed_inputs);
        let before = reached(model.as_ref(), &clean, &goal)?;
        let computed = reached(model.as_ref(), &outcome.perturbed_inputs, &goal)?;
        for (position, &row) in rows.iter().enumerate() {
            records.push(json!({
                "sample": clean.indices()[position],
                "label": nocebo_audit::in_brief(&model.spec().task, &data.labels()[row]),
                "wrong_before": before[position],
                "success": computed[position],
                "distance": threat.norm().distance(clean.row(position), outcome.perturbed_inputs.row(position)),
                "queries": outcome.queries[position].forward,
                "gradient_queries": outcome.queries[position].backward,
            }));
        }
        values.extend_from_slice(stored.values());
        bar.inc(rows.len() as u64);
    }
    bar.finish_and_clear();
    note(global, format!("the attack took {:.3} s", taken.as_secs_f64()));

    let stored = Samples::new(values, data.samples().shape())
        .and_then(|samples| samples.with_indices(data.samples().indices().to_vec()));
    let perturbed = data.clone().with_samples(stored.or_incomplete()?).or_incomplete()?;
    nocebo_data::write(&arguments.out, &perturbed).or_usage()?;
    let mut stored = nocebo_data::read_back(&arguments.out, &perturbed).or_incomplete()?;
    if let Some(store) = arguments.store_as {
        stored = store.store(&stored, data.domain()).or_incomplete()?;
    }
    for rows in rows.chunks(arguments.samples.draw.batch_size) {
        let (clean, goal) = part(&data, rows);
        let stored = stored.select(rows);
        let after_storage = reached(model.as_ref(), &stored, &goal)?;
        for (position, &row) in rows.iter().enumerate() {
            let distance = threat.norm().distance(clean.row(position), stored.row(position));
            records[row]["success_after_storage"] = json!(after_storage[position]);
            records[row]["distance_after_storage"] = json!(distance);
        }
    }
    let count = |field: &str| records.iter().filter(|record| record[field] == true).count();
    let (success, survived, wrong, all) =
        (count("success"), count("success_after_storage"), count("wrong_before"), records.len());
    let summary = json!({
        "attack": named.name,
        "labels_from": if nocebo_data::is_image(&arguments.samples.source.data) { "model" } else { "data" },
        "settings": named.settings,
        "learned_from": learned_from,
        "norm": threat.norm(),
        "epsilon": if threat.epsilon().is_finite() { json!(threat.epsilon()) } else { json!("inf") },
        "unit": threat.domain().unit().symbol(),
        "stored_as": arguments.store_as.map(|store| store.to_string()),
        "seed": global.seed,
        "samples": records,
    });
    let text = serde_json::to_string_pretty(&summary).or_incomplete()?;
    nocebo_core::write_file(&arguments.out.join("attack.json"), text.as_bytes()).or_incomplete()?;
    println!("{all} samples, {wrong} wrong before the attack");
    let how = arguments.store_as.map_or("from the files".to_owned(), |store| format!("as {store}"));
    println!("{success} wrong as computed, {survived} wrong when read back {how}");
    println!("wrote {}", arguments.out.display());
    Ok(())
}

/// The samples of some rows, and the goal to have them decided wrongly.
fn part(data: &Dataset, rows: &[usize]) -> (Samples, Goal) {
    let labels = rows.iter().map(|&row| data.labels()[row].clone()).collect();
    (data.samples().select(rows), Goal::Untargeted { labels })
}

/// Which samples the model decides as the attacker wants.
fn reached(model: &dyn DifferentiableModel, samples: &Samples, goal: &Goal) -> Result<Vec<bool>, Failure> {
    Ok(goal.reached(&model.spec().task, &Model::outputs(model, samples).or_incomplete()?))
}
