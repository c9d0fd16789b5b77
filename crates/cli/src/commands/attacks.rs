//! `nocebo attacks`.

use nocebo_core::Knowledge;

use crate::arguments::Attacks;
use crate::failure::{Failure, OrFail};

pub(crate) fn run(arguments: &Attacks) -> Result<(), Failure> {
    match &arguments.show {
        Some(name) => show(name),
        None => {
            list();
            Ok(())
        }
    }
}

fn list() {
    for info in nocebo_attacks::infos().chain(nocebo_attacks::fit_infos()) {
        let norms: Vec<String> = info.norms.iter().map(ToString::to_string).collect();
        let knowledge = match info.knowledge {
            Knowledge::None => "nothing",
            Knowledge::Decisions => "decisions",
            Knowledge::Scores => "scores",
            Knowledge::Gradients => "gradients",
        };
        let kind = match (nocebo_attacks::learns(info.name), info.minimum_norm) {
            (true, _) => "learns first",
            (false, true) => "minimum norm",
            (false, false) => "fixed budget",
        };
        println!(
            "{:<18} {:<11} {:<16} {knowledge:<10} {kind:<13} {}",
            info.name,
            info.family,
            norms.join(","),
            info.title
        );
    }
}

fn show(name: &str) -> Result<(), Failure> {
    let settings = nocebo_attacks::resolve(name, toml::Table::new()).or_usage()?;
    if let Some(info) = nocebo_attacks::infos().chain(nocebo_attacks::fit_infos()).find(|info| info.name == name) {
        println!("# {} ({})", info.title, info.source);
    }
    print!("{settings}");
    Ok(())
}
