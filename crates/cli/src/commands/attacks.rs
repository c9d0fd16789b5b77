//! `nocebo attacks`.

use nocebo_attacks::catalogue::Setting;
use nocebo_core::{AttackInfo, GoalKind, Knowledge};

use crate::arguments::{Attacks, ShowAttack};
use crate::failure::{Failure, OrFail};

pub(crate) fn run(arguments: &Attacks) -> Result<(), Failure> {
    match (&arguments.show, &arguments.name) {
        (Some(ShowAttack::Show { name }), _) | (None, Some(name)) => show(name),
        (None, None) => {
            list();
            Ok(())
        }
    }
}

/// One line an attack, columns as wide as what they hold.
fn list() {
    let lines: Vec<[String; 8]> = nocebo_attacks::infos()
        .chain(nocebo_attacks::fit_infos())
        .map(|info| {
            [
                info.name.to_owned(),
                info.family.to_owned(),
                joined(info.norms, ","),
                goals(&info),
                knowledge(info.knowledge).to_owned(),
                kind(&info).to_owned(),
                info.cost.to_owned(),
                format!("{} ({})", info.title, info.source),
            ]
        })
        .collect();
    let heads =
        ["NAME", "FAMILY", "NORMS", "GOALS", "SEES", "CHANGE", "COST A SAMPLE", "TITLE (PAPER)"].map(str::to_owned);
    let width = |column: usize| {
        let cells = lines.iter().chain([&heads]).map(|line| line[column].chars().count());
        if column == 7 { 0 } else { cells.max().unwrap_or(0) }
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    for line in [&heads].into_iter().chain(&lines) {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  "));
    }
}

fn show(name: &str) -> Result<(), Failure> {
    let settings = nocebo_attacks::settings(name).or_usage()?;
    if let Some(info) = nocebo_attacks::infos().chain(nocebo_attacks::fit_infos()).find(|info| info.name == name) {
        println!("# {}: {} ({})", info.name, info.title, info.source);
        println!("# family {}; norms {}; goals {}", info.family, joined(info.norms, ", "), goals(&info));
        println!("# sees {}; {}", knowledge(info.knowledge), kind(&info));
        println!("# cost a sample: {}", info.cost);
    }
    for Setting { name, about, choices, default } in settings {
        let words: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
        let choices = if words.is_empty() { String::new() } else { format!(" One of {}.", words.join(", ")) };
        println!("\n# {about}{choices}\n{name} = {default}");
    }
    Ok(())
}

fn joined(items: &[impl ToString], between: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

fn goals(info: &AttackInfo) -> String {
    if info.goals == GoalKind::ALL { "all".to_owned() } else { joined(info.goals, ", ") }
}

fn knowledge(knowledge: Knowledge) -> &'static str {
    match knowledge {
        Knowledge::None => "nothing",
        Knowledge::Decisions => "decisions",
        Knowledge::Scores => "scores",
        Knowledge::Gradients => "gradients",
    }
}

fn kind(info: &AttackInfo) -> &'static str {
    match (nocebo_attacks::learns(info.name), info.minimum_norm) {
        (true, _) => "learns first",
        (false, true) => "minimum norm",
        (false, false) => "fixed budget",
    }
}
