//! `nocebo data`.

use nocebo_core::Seed;
use nocebo_data::{OpenOptions, Survey};

use crate::arguments::{Data, Global, InspectData};
use crate::failure::{Failure, OrFail};

pub(crate) fn run(arguments: &Data, global: &Global) -> Result<(), Failure> {
    let InspectData::Inspect { data, json, schema, open } = &arguments.inspect;
    let survey = Survey::of(data, &OpenOptions { seed: Seed(global.seed), ..open.options() }).or_load()?;
    if *json {
        println!("{}", serde_json::to_string_pretty(&survey).or_incomplete()?);
    } else if *schema {
        let Some(schema) = &survey.schema else {
            return Err(Failure::usage("--schema: only a table has one"));
        };
        print!("{schema}");
    } else {
        in_words(&survey);
    }
    Ok(())
}

fn in_words(survey: &Survey) {
    // Names come from files: control characters must not reach the terminal.
    let line = |name: &str, value: &str| {
        let value: String = value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        println!("{name:<16} {value}");
    };
    let elements: usize = survey.shape.iter().product();
    let [low, high] = survey.bounds;
    let step = match survey.step {
        [_, 0.0] => "stored as floats".to_owned(),
        [least, greatest] if least == greatest => format!("in steps of {least}"),
        [least, greatest] => format!("in steps of {least} to {greatest}"),
    };
    line("name", &survey.name);
    line("format", &survey.format);
    line("sample", &format!("{:?}, {} of {elements} values may change", survey.shape, survey.mutable));
    line("values", &format!("{low} to {high} {}, {step}", survey.unit));
    if let Some(frequency) = survey.frequency {
        line("frequency", &format!("{frequency} Hz"));
    }
    let classes = format!(" of {}: {}", survey.classes.len(), survey.classes.join(", "));
    line("label", &format!("{}{}", survey.label, if survey.classes.is_empty() { "" } else { &classes }));
    for (name, values) in &survey.groups {
        line("subgroups", &format!("{name}: {values} values"));
    }
    for column in &survey.columns {
        let unit = if column.unit.is_empty() { String::new() } else { format!(" {}", column.unit) };
        line("column", &format!("{}: 1 is {}{unit}", column.name, column.scale));
    }
    for part in &survey.splits {
        let patients = part.patients.map_or(String::new(), |count| format!(", {count} patient(s)"));
        let counts: Vec<String> =
            survey.classes.iter().zip(&part.counts).map(|(class, count)| format!("{class} {count}")).collect();
        if let Some(split) = part.split {
            line(&split.to_string(), &format!("{} samples{patients}: {}", part.samples, counts.join(", ")));
        }
        let [least, greatest] = part.range;
        let shown = |values: &[f32]| {
            let first: Vec<String> = values.iter().take(4).map(|value| format!("{value:.4}")).collect();
            format!("{}{}", first.join(", "), if values.len() > 4 { ", ..." } else { "" })
        };
        let (mean, deviation) = (shown(&part.mean), shown(&part.standard_deviation));
        line("", &format!("values {least} to {greatest}, mean {mean}, standard deviation {deviation} (by channel)"));
    }
    survey.problems.iter().for_each(|problem| line("problem", problem));
    if survey.problems.is_empty() {
        line("problem", "none found");
    }
}
