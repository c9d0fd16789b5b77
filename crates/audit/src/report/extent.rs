//! How far each sample is from falling, which classes and which subgroups fall first.

use std::fmt::Write as _;

use super::chart::{Chart, Curve, Look};
use super::markup::{escape, rate, value};
use super::{ReportEntry, budget_unit, norm_name, robust_name};
use crate::Rate;
use crate::audit::Audit;
use crate::metrics::{LeastChanges, Subgroup, significant};

/// Bars of a histogram.
const BARS: usize = 24;
/// Points of a curve that has one step a sample.
const POINTS: usize = 48;

/// The least changes of every norm: a curve down to where everything found has fallen, and a histogram.
pub(super) fn least_changes(page: &mut String, entries: &[ReportEntry<'_>]) {
    let mut figures = String::new();
    for (place, ReportEntry { name, audit, .. }) in entries.iter().enumerate() {
        for changes in audit.least_changes.iter().filter(|changes| !changes.distances.is_empty()) {
            curve(&mut figures, &format!("least-{place}-{}", changes.norm), name, audit, changes);
            histogram(&mut figures, &format!("histogram-{place}-{}", changes.norm), name, audit, changes);
        }
    }
    if !figures.is_empty() {
        let _ = write!(
            page,
            "<section>\n<h2>The least change that brought each sample down</h2>\n<p class=\"note\">Over all attacks and \
             budgets; the true least change may be smaller. A fixed-budget attack uses what it is allowed, so bars gather \
             at the budgets audited; minimum-norm attacks lie between.</p>\n<div class=\"charts\">\n{figures}</div>\n</section>\n"
        );
    }
}

fn curve(page: &mut String, id: &str, name: &str, audit: &Audit, changes: &LeastChanges) {
    let fallen = changes.distances.len();
    let share = |standing: usize| standing as f64 / audit.data.in_scope.max(1) as f64;
    let mut points = vec![(0.0, share(fallen + changes.standing))];
    for step in 1..=POINTS {
        let Some(place) = (fallen * step / POINTS).checked_sub(1) else { continue };
        let distance = changes.distances[place];
        // All that fell by here, in one step.
        let reached = changes.distances.partition_point(|other| *other <= distance);
        let (last, before) = points[points.len() - 1];
        if distance > last || points.len() == 1 {
            points.extend([(distance, before), (distance, share(fallen - reached + changes.standing))]);
        }
    }
    let greatest = changes.distances[fallen - 1];
    let vertical = robust_name(audit.settings.goal);
    let chart = Chart {
        id,
        title: &format!("{vertical} over the least change found in {}: {name}", changes.norm),
        description: &format!(
            "From {:.1} % without a change to {:.1} % at {}; half of the fallen samples needed at most {}.",
            100.0 * points[0].1,
            100.0 * share(changes.standing),
            significant(greatest),
            significant(changes.distances[(fallen - 1) / 2]),
        ),
        horizontal: &format!("least change found: {} in {}", norm_name(changes.norm), budget_unit(audit, changes.norm)),
        vertical,
        ticks: (1..=4).map(|part| greatest * f64::from(part) / 4.0).collect(),
        share_of_range: None,
        curves: vec![Curve { name: "standing".to_owned(), look: Look::Numbered(0), points, band: Vec::new() }],
    };
    let _ = write!(
        page,
        "<figure>\n<h3>{}: {}</h3>\n{}<figcaption>{} of {} attacked samples were never brought down.</figcaption>\n</figure>\n",
        escape(name),
        changes.norm,
        chart.svg(),
        changes.standing,
        fallen + changes.standing,
    );
}

fn histogram(page: &mut String, id: &str, name: &str, audit: &Audit, changes: &LeastChanges) {
    const WIDTH: f64 = 640.0;
    const HEIGHT: f64 = 300.0;
    const LEFT: f64 = 56.0;
    const BOTTOM: f64 = 244.0;
    let greatest = changes.distances.last().copied().unwrap_or(0.0).max(f64::MIN_POSITIVE);
    let mut counts = [0_usize; BARS];
    for distance in &changes.distances {
        counts[((distance / greatest * BARS as f64) as usize).min(BARS - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let side = (WIDTH - LEFT - 12.0) / BARS as f64;
    let edge = |bar: usize| significant(greatest * bar as f64 / BARS as f64);
    let spoken: Vec<String> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(bar, count)| format!("{} to {}: {count}", edge(bar), edge(bar + 1)))
        .collect();
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-title {id}-text\" font-family=\"inherit\" \
         font-size=\"14\" fill=\"#1b1f24\">\n<title id=\"{id}-title\">Histogram of the least change found in {}: {}</title>\n\
         <desc id=\"{id}-text\">{}.</desc>\n",
        changes.norm,
        escape(name),
        spoken.join(", "),
    );
    for (bar, count) in counts.iter().enumerate() {
        let height = (BOTTOM - 24.0) * *count as f64 / most as f64;
        let _ = writeln!(
            svg,
            "<path d=\"M{:.1} {BOTTOM}v-{height:.1}h{:.1}v{height:.1}z\" fill=\"#0072b2\"/>",
            LEFT + side * bar as f64,
            side - 2.0,
        );
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{LEFT}\" y1=\"{BOTTOM}\" x2=\"{}\" y2=\"{BOTTOM}\" stroke=\"#57606a\"/>\n\
         <text x=\"{}\" y=\"29\" text-anchor=\"end\">{most}</text>\n\
         <text x=\"{}\" y=\"{BOTTOM}\" text-anchor=\"end\">0</text>",
        WIDTH - 12.0,
        LEFT - 8.0,
        LEFT - 8.0,
    );
    for part in 0..=4 {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"264\" text-anchor=\"middle\">{}</text>",
            LEFT + (WIDTH - LEFT - 12.0) * f64::from(part) / 4.0,
            significant(greatest * f64::from(part) / 4.0),
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"290\" text-anchor=\"middle\">least change found: {} in {}</text>\n</svg>",
        f64::midpoint(LEFT, WIDTH),
        norm_name(changes.norm),
        escape(budget_unit(audit, changes.norm)),
    );
    let _ = write!(
        page,
        "<figure>\n<h3>{}: histogram, {}</h3>\n{svg}<figcaption>Samples for each size of the least change found.\
         </figcaption>\n</figure>\n",
        escape(name),
        changes.norm,
    );
}

/// Class by attack at the headline's budget: the share of each class that is still decided rightly.
pub(super) fn heat_map(page: &mut String, entries: &[ReportEntry<'_>]) {
    if entries.iter().all(|entry| entry.audit.clean.classes.is_empty()) {
        return;
    }
    let mut tables = String::new();
    for ReportEntry { name, audit, .. } in entries {
        let Some(threat) = audit.headline() else { continue };
        let _ = write!(
            tables,
            "<h3>{}</h3>\n<div class=\"scroll\"><table class=\"heat\">\n<caption>Samples of each class or finding that are \
             still decided to have it at {}:{}, per cent; the darker, the more fell. Of a cascade: after the attack and \
             those before it.</caption>\n<thead><tr><th scope=\"col\">Class</th><th scope=\"col\">Samples</th>\
             <th scope=\"col\">clean</th>",
            escape(name),
            threat.norm,
            significant(f64::from(threat.epsilon)),
        );
        for cell in &threat.cells {
            let _ = write!(tables, "<th scope=\"col\">{}</th>", escape(&cell.attack));
        }
        tables.push_str("<th scope=\"col\">worst case</th></tr></thead>\n<tbody>\n");
        for (class, clean) in audit.clean.classes.iter().enumerate() {
            let _ = write!(
                tables,
                "<tr><th scope=\"row\">{}</th><td>{}</td>{}",
                escape(&clean.class),
                clean.sensitivity.trials,
                shade(&clean.sensitivity)
            );
            for cell in &threat.cells {
                tables.push_str(&shade(&cell.decisions.classes[class].sensitivity));
            }
            let _ = writeln!(tables, "{}</tr>", shade(&threat.worst_case.decisions.classes[class].sensitivity));
        }
        tables.push_str("</tbody></table></div>\n");
    }
    let _ = write!(page, "<section>\n<h2>Class by attack</h2>\n{tables}</section>\n");
}

/// A cell in one of five shades, with text that stands out from each (4.5 : 1 and more).
fn shade(rate: &Rate) -> String {
    let class = rate.value.map_or(0, |value| ((1.0 - value) * 5.0).min(4.0) as usize);
    format!("<td class=\"h{class}\">{}</td>", value(rate))
}

/// Each subgroup, clean and in the worst case at every budget.
pub(super) fn subgroups(page: &mut String, entries: &[ReportEntry<'_>]) {
    if entries.iter().all(|entry| entry.audit.clean_subgroups.is_empty()) {
        return;
    }
    page.push_str(
        "<section>\n<h2>Subgroups</h2>\n<p class=\"note\">Many small groups differ by chance: read the intervals, and test a \
         difference before acting on it.</p>\n",
    );
    for ReportEntry { name, audit, .. } in entries.iter().filter(|entry| !entry.audit.clean_subgroups.is_empty()) {
        let _ = write!(
            page,
            "<h3>{}</h3>\n<div class=\"scroll\"><table class=\"sortable\">\n<caption>Shares with 95&nbsp;% intervals; under \
             attack the worst case</caption>\n<thead><tr><th scope=\"col\">Subgroup</th><th scope=\"col\" class=\"text\">Budget\
             </th><th scope=\"col\">Samples</th><th scope=\"col\">{}</th><th scope=\"col\">Sensitivity</th>\
             <th scope=\"col\">Specificity</th></tr></thead>\n<tbody>\n",
            escape(name),
            robust_name(audit.settings.goal),
        );
        let mut rows = |budget: &str, subgroups: &[Subgroup]| {
            for subgroup in subgroups {
                let known = |of: &Option<Rate>| of.as_ref().map_or_else(|| "–".to_owned(), rate);
                let _ = writeln!(
                    page,
                    "<tr><th scope=\"row\">{} = {}</th><td class=\"text\">{budget}</td><td>{}</td><td>{}</td><td>{}</td>\
                     <td>{}</td></tr>",
                    escape(&subgroup.group),
                    escape(&subgroup.value),
                    subgroup.robust_accuracy.trials,
                    rate(&subgroup.robust_accuracy),
                    known(&subgroup.sensitivity),
                    known(&subgroup.specificity),
                );
            }
        };
        rows("clean", &audit.clean_subgroups);
        for threat in &audit.threats {
            let budget = format!("{}:{}", threat.norm, significant(f64::from(threat.epsilon)));
            rows(&budget, &threat.worst_case.subgroups);
        }
        page.push_str("</tbody></table></div>\n");
    }
    page.push_str("</section>\n");
}
