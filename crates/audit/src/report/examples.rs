//! Samples before and after the attack that brought them down: images, traces of a signal, values of a table.

use std::fmt::Write as _;

use super::ReportEntry;
use super::markup::escape;
use super::traces::traces;
use super::triptych::{Triptych, triptych};
use crate::metrics::significant;
use crate::{AuditError, Example};

/// Columns of a table that are listed: those that changed most.
const COLUMNS: usize = 8;

pub(super) fn examples(page: &mut String, entries: &[ReportEntry<'_>]) -> Result<(), AuditError> {
    let mut figures = String::new();
    for entry in entries {
        let mut shown = String::new();
        for example in entry.examples {
            if let Some(figure) = figure(example)? {
                shown.push_str(&figure);
            }
        }
        if !shown.is_empty() {
            let _ = write!(figures, "<h3>{}</h3>\n<div class=\"examples\">\n{shown}</div>\n", escape(entry.name));
        }
    }
    if !figures.is_empty() {
        let _ = write!(
            page,
            "<section>\n<h2>Worst cases</h2>\n<p class=\"note\">This report contains data of samples. Each is shown at the \
             least budget that changed the decision. The perturbation of an image is multiplied by the factor given and laid \
             on mid-grey.</p>\n{figures}</section>\n"
        );
    }
    Ok(())
}

fn figure(example: &Example) -> Result<Option<String>, AuditError> {
    let content = if let Some(images) = triptych(example)? {
        panels(example, &images)
    } else if let Some(traces) = traces(example) {
        traces
    } else if let Some(table) = changed_columns(example) {
        table
    } else {
        return Ok(None);
    };
    Ok(Some(format!(
        "<figure class=\"example\">\n{content}<figcaption>Sample {}: truth {}; {} turned {} into {} at {}:{}</figcaption>\n\
         </figure>\n",
        example.sample,
        escape(&example.label),
        escape(&example.attack),
        escape(&example.clean_decision),
        escape(&example.perturbed_decision),
        example.norm,
        significant(f64::from(example.epsilon)),
    )))
}

fn panels(example: &Example, images: &Triptych) -> String {
    let class = if images.small { " class=\"small\"" } else { "" };
    let ((height, width), sample) = (images.sides, example.sample);
    let panel = |uri: &str, spoken: &str, caption: &str| {
        format!(
            "<div><img{class} width=\"{width}\" height=\"{height}\" src=\"{uri}\" alt=\"{spoken}\">{caption}</div>\n"
        )
    };
    let amplification = significant(images.amplification);
    let slice = images.slice.map_or_else(String::new, |(slice, depth)| format!(", slice {} of {depth}", slice + 1));
    format!(
        "<div class=\"triptych\">\n{}{}{}</div>\n",
        panel(
            &images.clean,
            &format!("Sample {sample}, clean{slice}"),
            &format!("clean: {}{slice}", escape(&example.clean_decision))
        ),
        panel(
            &images.perturbation,
            &format!("Perturbation of sample {sample}, times {amplification}"),
            &format!("perturbation × {amplification}")
        ),
        panel(
            &images.perturbed,
            &format!("Sample {sample}, perturbed"),
            &format!("perturbed: {}", escape(&example.perturbed_decision))
        ),
    )
}

/// The columns that changed most, in the units of the file; none for samples that are no rows of a table.
fn changed_columns(example: &Example) -> Option<String> {
    let columns = example.domain.columns();
    if columns.is_empty() || example.pair.len() != 2 || example.pair.shape() != [columns.len()] {
        return None;
    }
    let (clean, perturbed) = (example.pair.row(0), example.pair.row(1));
    let change = |place: usize| (perturbed[place] - clean[place]).abs();
    let mut changed: Vec<usize> = (0..columns.len()).filter(|&place| change(place) > 0.0).collect();
    changed.sort_by(|&a, &b| change(b).total_cmp(&change(a)).then(a.cmp(&b)));
    let mut table = format!(
        "<div class=\"scroll\"><table>\n<caption>{} of {} values changed{}</caption>\n<thead><tr><th scope=\"col\">Column</th>\
         <th scope=\"col\">clean</th><th scope=\"col\">perturbed</th><th scope=\"col\">change in {}</th></tr></thead>\n<tbody>\n",
        changed.len(),
        columns.len(),
        if changed.len() > COLUMNS { "; those that changed most" } else { "" },
        escape(example.domain.unit().symbol()),
    );
    for place in changed.into_iter().take(COLUMNS) {
        let column = &columns[place];
        let in_file = |value: f32| format!("{} {}", significant(f64::from(value) * column.scale), escape(&column.unit));
        let _ = writeln!(
            table,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&column.name),
            in_file(clean[place]).trim_end(),
            in_file(perturbed[place]).trim_end(),
            significant(f64::from(perturbed[place] - clean[place])),
        );
    }
    table.push_str("</tbody></table></div>\n");
    Some(table)
}

#[cfg(test)]
mod tests {
    use nocebo_core::{Column, Domain, Norm, Samples};

    use super::*;

    #[test]
    fn of_a_row_the_columns_that_changed_are_listed_in_the_units_of_the_file() {
        let column = |name: &str, unit: &str, scale| Column {
            name: name.to_owned(),
            unit: unit.to_owned(),
            scale,
            direction: None,
            sum: None,
        };
        let columns = vec![column("age", "years", 12.0), column("glucose", "mg/dl", 30.0), column("<smoker>", "", 1.0)];
        let example = Example {
            sample: 7,
            attack: "fmn".to_owned(),
            norm: Norm::L1,
            epsilon: 1.0,
            label: "healthy".to_owned(),
            clean_decision: "healthy".to_owned(),
            perturbed_decision: "diabetes".to_owned(),
            pair: Samples::new(vec![5.0, 3.0, 0.0, 5.0, 3.5, 1.0], &[3]).unwrap(),
            domain: Domain::grey_levels(&[3], 255.0).unwrap().with_columns(columns).unwrap(),
        };
        let page = figure(&example).unwrap().unwrap();
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("<tr>")).collect();
        assert_eq!(
            rows,
            [
                "<tr><th scope=\"row\">&lt;smoker&gt;</th><td>0</td><td>1</td><td>1</td></tr>",
                "<tr><th scope=\"row\">glucose</th><td>90 mg/dl</td><td>105 mg/dl</td><td>0.5</td></tr>"
            ]
        );
        assert!(
            page.contains("2 of 3 values changed") && page.contains("fmn turned healthy into diabetes at l1:1"),
            "{page}"
        );
    }
}
