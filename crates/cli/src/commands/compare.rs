//! `nocebo compare`.

use nocebo_audit::{Rate, ReportEntry};

use crate::arguments::Compare;
use crate::failure::{Failure, OrFail};

pub(crate) fn run(arguments: &Compare) -> Result<(), Failure> {
    let (first, second, found) = nocebo_audit::compare(&arguments.first, &arguments.second).or_load()?;
    let names = distinct(&first.model.name, &second.model.name);
    println!("A {} and B {} on {}, the same {} samples", names.0, names.1, first.data.name, first.data.samples);
    println!(
        "{:<22} {:<22} {:<22} {:<26} {:>7} {:>7} {:>10} {:>10}",
        "robust accuracy", "A", "B", "B - A", "A only", "B only", "p McNemar", "p Holm"
    );
    for line in &found {
        let name = line.threat.map_or_else(|| "clean".to_owned(), |(norm, epsilon)| format!("{norm}:{epsilon}"));
        let (gain, lower, upper) = line.difference;
        println!(
            "{name:<22} {:<22} {:<22} {:<26} {:>7} {:>7} {:>10.2e} {:>10.2e}",
            shown(line.first),
            shown(line.second),
            format!("{gain:+.3} [{lower:+.3}, {upper:+.3}]"),
            line.first_only,
            line.second_only,
            line.p,
            line.p_corrected
        );
    }
    for (name, audit) in [("A", &first), ("B", &second)] {
        if !audit.evaluation_is_strong {
            println!("note: the evaluation of {name} may be weak; see the findings of its report");
        }
    }
    if let Some(out) = &arguments.out {
        let entries = [
            ReportEntry { name: &names.0, audit: &first, examples: &[] },
            ReportEntry { name: &names.1, audit: &second, examples: &[] },
        ];
        let html = nocebo_audit::report_html(&entries).or_incomplete()?;
        nocebo_core::write_file(out, html.as_bytes()).or_usage()?;
        println!("wrote {}", out.display());
    }
    Ok(())
}

fn distinct(first: &str, second: &str) -> (String, String) {
    if first == second {
        (format!("{first} (A)"), format!("{second} (B)"))
    } else {
        (first.to_owned(), second.to_owned())
    }
}

fn shown(rate: Rate) -> String {
    match rate.value {
        Some(value) => format!("{value:.3} [{:.3}, {:.3}]", rate.lower, rate.upper),
        None => "not defined".to_owned(),
    }
}
