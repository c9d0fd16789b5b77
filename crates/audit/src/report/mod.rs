//! The report: one HTML file that needs nothing else, for one audit or several side by side.
//!
//! It prints on paper, can be read by a screen reader (every chart has a description and a table with its numbers), and
//! never relies on colour alone. Text that comes from outside (names of models, data, attacks, classes, commands) is
//! escaped, and the file's own policy forbids requests and every script but one: it sorts tables, and the policy knows it
//! by its digest.

mod chart;
mod examples;
mod extent;
mod markup;
mod traces;
mod triptych;

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nocebo_core::{Label, Norm};
use sha2::{Digest, Sha256};

use crate::audit::Audit;
use crate::findings::{Finding, Status};
use crate::metrics::{CellSummary, DecisionMetrics, ThreatResult, significant};
use crate::request::AuditGoal;
use crate::{Auc, AuditError, Example, Rate};
use chart::{Chart, Curve, Look};
use markup::{escape, interval, percent, rate, value};

const STYLE: &str = include_str!("style.css");
const SORT: &str = include_str!("sort.js");

/// One audit in a report.
#[derive(Clone, Copy)]
pub struct ReportEntry<'a> {
    /// Its name among the others.
    pub name: &'a str,
    /// Its results.
    pub audit: &'a Audit,
    /// Samples to show; none to leave images out.
    pub examples: &'a [Example],
}

/// The report on one or more audits as a complete HTML document.
///
/// # Errors
///
/// [`AuditError::Invalid`] without an audit, [`AuditError::Encode`] when an image cannot be encoded.
pub fn html(entries: &[ReportEntry<'_>]) -> Result<String, AuditError> {
    let Some(first) = entries.first() else {
        return Err(AuditError::invalid("audits of a report", "at least one", 0));
    };
    let names: Vec<String> = entries.iter().map(|entry| escape(entry.name)).collect();
    let title = format!("Robustness audit: {}", names.join(", "));
    let data = &first.audit.data;
    let sort = STANDARD.encode(Sha256::digest(SORT));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
         script-src 'sha256-{sort}'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header class=\"top\"><div class=\"inner\">\n\
         <h1>{title}</h1>\n<p>{} {} of {}</p>\n</div></header>\n<main>\n",
        data.samples,
        if data.samples == 1 { "sample" } else { "samples" },
        escape(&data.name),
    );
    headline(&mut page, entries);
    threat_model(&mut page, entries);
    curves(&mut page, entries);
    findings(&mut page, entries);
    extent::least_changes(&mut page, entries);
    results(&mut page, entries);
    extent::heat_map(&mut page, entries);
    clinical(&mut page, entries);
    extent::subgroups(&mut page, entries);
    overlaps(&mut page, entries);
    examples::examples(&mut page, entries)?;
    manifest(&mut page, entries);
    let _ = write!(
        page,
        "<footer>Made by {} {}. Robustness figures hold for the attacks, budgets and samples listed here; a stronger or \
         another attack may lower them.</footer>\n</main>\n<script>{SORT}</script>\n</body>\n</html>\n",
        escape(&first.audit.tool),
        escape(&first.audit.tool_version)
    );
    Ok(page)
}

/// A decision or label by the names of its classes.
pub(crate) fn decision_name(label: &Label, names: &[String]) -> String {
    match label {
        Label::Class(class) => names.get(*class).cloned().unwrap_or_else(|| class.to_string()),
        Label::Findings(found) => {
            let present: Vec<&str> = found
                .iter()
                .zip(names)
                .filter_map(|(present, name)| if *present { Some(name.as_str()) } else { None })
                .collect();
            if present.is_empty() { "no finding".to_owned() } else { present.join(" + ") }
        }
        Label::Mask(_) => "mask".to_owned(),
        Label::Number(number) => significant(f64::from(**number)),
    }
}

fn headline(page: &mut String, entries: &[ReportEntry<'_>]) {
    page.push_str("<section aria-label=\"Headline\">\n<div class=\"cards\">\n");
    for ReportEntry { name, audit, .. } in entries {
        let _ = write!(page, "<article class=\"card\">\n<h2>{}</h2>\n", escape(name));
        if let Some(threat) = audit.headline() {
            let robust = &threat.worst_case.robust_accuracy;
            let _ = write!(
                page,
                "<p class=\"figure\">{} <small>({} with 95&nbsp;% confidence)</small></p>\n\
                 <p>{} against the strongest of {} for each sample; budget: {}.</p>\n",
                value(robust),
                interval(robust),
                robust_name(audit.settings.goal),
                counted(attack_count(audit), "attack"),
                escape(&threat.budget),
            );
        }
        page.push_str("<dl>\n");
        let mut fact = |term: &str, value: String| {
            let _ = writeln!(page, "<dt>{term}</dt><dd>{value}</dd>");
        };
        fact("Clean accuracy", rate(&audit.clean.accuracy));
        for threat in &audit.threats {
            let budget = format!("{}:{}", threat.norm, significant(f64::from(threat.epsilon)));
            fact(
                &format!("{} at {budget}", robust_name(audit.settings.goal)),
                rate(&threat.worst_case.robust_accuracy),
            );
        }
        if let Some(threat) = audit.headline() {
            let budget = format!("{}:{}", threat.norm, significant(f64::from(threat.epsilon)));
            fact(&format!("{budget}, inputs stored and read again"), rate(&threat.worst_case.robust_accuracy_stored));
            if let Some(noise) = threat.cells.iter().find(|cell| cell.control) {
                fact(&format!("{budget}, random noise instead"), rate(&noise.robust_accuracy));
            }
            if let (Some(clean), Some(attacked)) = (audit.clean.mean_error, threat.worst_case.decisions.mean_error) {
                fact(
                    &format!("{budget}, mean absolute error"),
                    format!("{} (clean {})", significant(attacked), significant(clean)),
                );
            }
            if let (Some(clean), Some(attacked)) =
                (audit.clean.false_negative_rate, threat.worst_case.decisions.false_negative_rate)
            {
                fact(&format!("{budget}, missed findings"), format!("{} (clean {})", value(&attacked), value(&clean)));
            }
        }
        fact("Samples attacked", format!("{} of {}", audit.data.attacked, audit.data.in_scope));
        page.push_str("</dl>\n<p>");
        let (class, text) = if audit.evaluation_is_strong {
            ("pass", "no sign of a weak evaluation")
        } else {
            ("fail", "verdict withheld: evaluation may be weak")
        };
        let _ = write!(page, "<span class=\"badge {class}\">{text}</span>");
        if !audit.gates.is_empty() {
            let passed = audit.gates.iter().filter(|gate| gate.passed).count();
            let class = if audit.gates_passed() { "pass" } else { "fail" };
            let _ = write!(page, " <span class=\"badge {class}\">{passed} of {} gates met</span>", audit.gates.len());
        }
        page.push_str("</p>\n</article>\n");
    }
    page.push_str("</div>\n");
    gates(page, entries);
    page.push_str("</section>\n");
}

fn gates(page: &mut String, entries: &[ReportEntry<'_>]) {
    if entries.iter().all(|entry| entry.audit.gates.is_empty()) {
        return;
    }
    page.push_str(
        "<h3>Gates</h3>\n<div class=\"scroll\"><table>\n<caption>Judged at the pessimistic end of the 95&nbsp;% \
         interval</caption>\n<thead><tr><th scope=\"col\">Condition</th><th scope=\"col\" class=\"text\">Model</th>\
         <th scope=\"col\">Measured</th><th scope=\"col\">Judged</th><th scope=\"col\">Result</th></tr></thead>\n<tbody>\n",
    );
    for ReportEntry { name, audit, .. } in entries {
        for gate in &audit.gates {
            let (class, text) = if gate.passed { ("pass", "pass") } else { ("fail", "fail") };
            let _ = writeln!(
                page,
                "<tr><th scope=\"row\"><code>{}</code></th><td class=\"text\">{}</td><td>{}</td><td>{}</td><td><span \
                 class=\"badge {class}\">{text}</span></td></tr>",
                escape(&gate.gate),
                escape(name),
                gate.value.map_or_else(|| "–".to_owned(), percent),
                percent(gate.judged),
            );
        }
    }
    page.push_str("</tbody></table></div>\n");
}

fn threat_model(page: &mut String, entries: &[ReportEntry<'_>]) {
    page.push_str("<section>\n<h2>What was tried</h2>\n");
    for (place, ReportEntry { name, audit, .. }) in entries.iter().enumerate() {
        let text = threat_text(audit);
        // Audits of one plan are described once.
        if place > 0 && threat_text(entries[place - 1].audit) == text {
            continue;
        }
        if place > 0 || entries.iter().any(|entry| threat_text(entry.audit) != text) {
            let _ = writeln!(page, "<h3>{}</h3>", escape(name));
        }
        page.push_str(&text);
    }
    page.push_str("</section>\n");
}

fn threat_text(audit: &Audit) -> String {
    let (data, settings) = (&audit.data, &audit.settings);
    let finding =
        |finding: usize| escape(audit.model.class_names.get(finding).cloned().unwrap_or_else(|| finding.to_string()));
    let goal = match settings.goal {
        AuditGoal::Untargeted => "make the model decide anything but the truth (untargeted)".to_owned(),
        AuditGoal::FalseNegative { finding: class } => {
            format!("hide a finding that is there: <em>{}</em> (false negative)", finding(class))
        }
        AuditGoal::FalsePositive { finding: class } => {
            format!("invent a finding that is not there: <em>{}</em> (false positive)", finding(class))
        }
    };
    let budgets: Vec<String> = settings
        .threats
        .iter()
        .map(|threat| {
            let list: Vec<String> = threat.epsilons.iter().map(|epsilon| significant(f64::from(*epsilon))).collect();
            format!(
                "{} ({}): {} {}",
                norm_name(threat.norm),
                threat.norm,
                list.join(", "),
                budget_unit(audit, threat.norm)
            )
        })
        .collect();
    let white_box = audit.attacks.iter().any(|attack| attack.knowledge == "gradients" && !attack.control);
    let black_box = audit.attacks.iter().any(|attack| matches!(attack.knowledge.as_str(), "scores" | "decisions"));
    let transfer = audit.attacks.iter().any(|attack| attack.learned_from.is_some());
    let mut knowledge = Vec::new();
    if white_box {
        knowledge.push("model, weights and gradients (white box; MITRE ATLAS AML.T0043.000)");
    }
    if black_box {
        knowledge.push("outputs only, by queries (black box; AML.T0043.001)");
    }
    if transfer {
        knowledge.push("other samples or another model (transfer; AML.T0043.002)");
    }
    if knowledge.is_empty() {
        knowledge.push("nothing");
    }
    let knowledge = knowledge.join("; ");
    let attacks: Vec<String> = audit
        .attacks
        .iter()
        .map(|attack| {
            let role = if attack.control { ", as control" } else { "" };
            let learned = attack.learned_from.as_ref().map_or_else(String::new, |set| {
                format!(", learned from {} samples of {}", set.samples, escape(&set.name))
            });
            format!("<strong>{}</strong> ({}{learned}{role})", escape(&attack.name), escape(&attack.title))
        })
        .collect();
    let mut text = "<dl class=\"facts\">\n".to_owned();
    let mut fact = |term: &str, value: &str| {
        let _ = writeln!(text, "<dt>{term}</dt><dd>{value}</dd>");
    };
    fact(
        "Attack",
        "evasion in the deployment stage, an integrity violation (NIST AI 100-2): the input is changed, the model is not \
         (MITRE ATLAS AML.T0015)",
    );
    fact("Attacker's goal", &goal);
    fact(
        "Attacker's capability",
        "control over the values of one input within the budget below (test-time input control)",
    );
    if let Some(channel) = &settings.channel {
        fact("Where the input is reached", &escape(channel));
    }
    fact("Attacker's knowledge", &knowledge);
    fact("Allowed change", &escape(budgets.join("; ")));
    let both: Vec<String> = audit.threats.iter().map(|threat| escape(&threat.budget)).collect();
    fact("The same in both units", &both.join("; "));
    let stored =
        settings.store_as.map(|store| format!("{store}, with loss; success after storage is judged on what is left"));
    let said =
        [("Why these budgets", &settings.justification), ("Stored as", &stored), ("Protocol", &settings.protocol)];
    said.into_iter().for_each(|(name, text)| text.iter().for_each(|text| fact(name, &escape(text))));
    if data.mutable_elements < data.shape.iter().product() {
        let total: usize = data.shape.iter().product();
        fact("Where", &format!("{} of {total} elements may change; the rest is fixed", data.mutable_elements));
    }
    if let Some(limit) = settings.query_limit {
        fact("Query limit", &format!("{limit} forward passes a sample"));
    }
    fact("Attacks", &attacks.join(", "));
    scope_facts(audit, fact);
    text.push_str(
        "</dl>\n<p class=\"note\">Samples that are wrong without an attack are not attacked and count as not robust. \
         A sample counts as robust at a budget only if no attack brings it down at that budget or a smaller one. Every \
         success is confirmed by a forward pass of the audit's own, once as computed and once after rounding to what a \
         file stores. Noise is a control and never part of the worst case. An attack of a cascade runs only on samples that \
         no earlier attack brought down both as computed and as stored; its figures are those after it and all before it. Where patients have several \
         samples, a second interval draws whole patients again (bootstrap).</p>\n",
    );
    text
}

fn scope_facts(audit: &Audit, mut fact: impl FnMut(&str, &str)) {
    let data = &audit.data;
    let storage = if data.resolution > 0.0 {
        format!("stored in steps of {} {}", significant(f64::from(data.resolution)), escape(&data.unit))
    } else {
        "stored as floating-point numbers".to_owned()
    };
    let patients = data.patients.map_or_else(String::new, |patients| format!(" of {patients} patients"));
    let shape: Vec<String> = data.shape.iter().map(ToString::to_string).collect();
    fact(
        "Samples",
        &format!(
            "{}{patients}, {} values each, from {} to {} {}, {storage}",
            data.samples,
            shape.join(" × "),
            significant(f64::from(data.lower)),
            significant(f64::from(data.upper)),
            escape(&data.unit)
        ),
    );
    let counts = audit.model.class_names.iter().zip(&data.class_counts);
    let counts: Vec<String> = counts.map(|(name, count)| format!("{} {count}", escape(name))).collect();
    fact("Samples of each class or finding", &counts.join(", "));
    fact("Wrong without an attack", &format!("{} samples in scope, not attacked", data.in_scope - data.attacked));
    if !data.notes.is_empty() {
        let notes: Vec<String> = data.notes.iter().map(escape).collect();
        fact("Left out or assumed while reading", &notes.join("; "));
    }
    if data.in_scope < data.samples {
        fact("In scope", &format!("{} samples that the goal is about", data.in_scope));
    }
    if !audit.skipped.is_empty() {
        let skipped: Vec<String> =
            audit.skipped.iter().map(|skipped| format!("{} in {}", escape(&skipped.attack), skipped.norm)).collect();
        fact("Left out", &format!("{} (not defined)", skipped.join(", ")));
    }
}

fn curves(page: &mut String, entries: &[ReportEntry<'_>]) {
    page.push_str("<section>\n<h2>Robustness over budget</h2>\n<div class=\"charts\">\n");
    for norm in norms(entries) {
        if entries.iter().all(|entry| on_axis(entry.audit, norm).next().is_none()) {
            continue;
        }
        if entries.len() > 1 {
            let curves: Vec<Curve> = entries
                .iter()
                .enumerate()
                .map(|(place, entry)| Curve {
                    name: entry.name.to_owned(),
                    look: Look::Numbered(place),
                    points: worst_case(entry.audit, norm),
                    band: band(entry.audit, norm),
                })
                .collect();
            draw(page, &format!("all-{norm}"), "All models, worst case over attacks", entries[0].audit, norm, curves);
        }
        for (place, ReportEntry { name, audit, .. }) in entries.iter().enumerate() {
            if !audit.threats.iter().any(|threat| threat.norm == norm) {
                continue;
            }
            let mut curves = vec![Curve {
                name: "worst case".to_owned(),
                look: Look::Worst,
                points: worst_case(audit, norm),
                band: band(audit, norm),
            }];
            let attacks = audit.attacks.iter().filter(|attack| !attack.control).enumerate();
            let control = audit.attacks.iter().filter(|attack| attack.control).map(|attack| (Look::Control, attack));
            for (look, attack) in attacks.map(|(number, attack)| (Look::Numbered(number), attack)).chain(control) {
                let points = curve(audit, norm, |threat| {
                    threat.cells.iter().find(|cell| cell.attack == attack.name).map(|cell| cell.robust_accuracy)
                });
                if points.len() > 1 {
                    curves.push(Curve { name: attack.name.clone(), look, points, band: Vec::new() });
                }
            }
            draw(page, &format!("audit-{place}-{norm}"), name, audit, norm, curves);
        }
    }
    page.push_str("</div>\n</section>\n");
}

fn draw(page: &mut String, id: &str, title: &str, audit: &Audit, norm: Norm, curves: Vec<Curve>) {
    let vertical = robust_name(audit.settings.goal);
    let ticks: Vec<f64> = curves.iter().flat_map(|curve| curve.points.iter().map(|(budget, _)| *budget)).fold(
        Vec::new(),
        |mut ticks, budget| {
            if !ticks.contains(&budget) {
                ticks.push(budget);
            }
            ticks
        },
    );
    let spoken: Vec<String> = curves
        .iter()
        .map(|curve| {
            let points: Vec<String> = curve
                .points
                .iter()
                .map(|(budget, share)| format!("{:.1} % at {}", 100.0 * share, significant(*budget)))
                .collect();
            format!("{}: {}", curve.name, points.join(", "))
        })
        .collect();
    let range = f64::from(audit.data.upper) - f64::from(audit.data.lower);
    let mut ticks = ticks;
    ticks.sort_by(f64::total_cmp);
    let chart = Chart {
        id,
        title: &format!("{vertical} over budget in {norm}: {title}"),
        description: &format!("{}.", spoken.join(". ")),
        horizontal: &format!("budget: {} in {}", norm_name(norm), budget_unit(audit, norm)),
        vertical,
        ticks,
        share_of_range: (norm == Norm::Linf && range > 0.0).then(|| 1.0 / range),
        curves,
    };
    let _ = write!(
        page,
        "<figure>\n<h3>{}: {norm}</h3>\n{}<figcaption>Shaded: 95&nbsp;% interval of the worst case.</figcaption>\n</figure>\n",
        escape(title),
        chart.svg()
    );
}

fn results(page: &mut String, entries: &[ReportEntry<'_>]) {
    page.push_str("<section>\n<h2>Every attack at every budget</h2>\n");
    for (place, ReportEntry { name, audit, .. }) in entries.iter().enumerate() {
        let binary = audit.settings.finding.is_some();
        let _ = write!(
            page,
            "<h3 id=\"results-{place}\">{}</h3>\n<div class=\"scroll\"><table class=\"sortable\">\n<caption>Shares with 95&nbsp;% Wilson \
             intervals; n = {} in scope, {} attacked. Success: of the samples the attack was run on. Sizes are those of successful perturbations, in the unit of the \
             budget; queries are forward passes a sample.</caption>\n<thead><tr>",
            escape(name),
            audit.data.in_scope,
            audit.data.attacked,
        );
        let mut columns = vec!["Attack", "Robust accuracy", "after storage", "Success of attack", "Balanced accuracy"];
        if binary {
            columns.extend(["False negatives", "False positives"]);
        }
        columns.extend(["Median size", "Queries median", "95th percentile", "max", "Gradients median", "Seconds"]);
        for column in columns {
            let _ = write!(page, "<th scope=\"col\">{column}</th>");
        }
        page.push_str("</tr></thead>\n");
        for threat in &audit.threats {
            let width = if binary { 13 } else { 11 };
            let _ = write!(
                page,
                "<tbody>\n<tr><th scope=\"rowgroup\" colspan=\"{width}\"><strong>{}:{}</strong> <span \
                 class=\"range\">{}</span></th></tr>\n",
                threat.norm,
                significant(f64::from(threat.epsilon)),
                escape(&threat.budget)
            );
            for cell in threat.cells.iter().filter(|cell| !cell.control) {
                cell_row(page, audit, threat, cell, binary);
            }
            worst_row(page, threat, binary);
            for cell in threat.cells.iter().filter(|cell| cell.control) {
                cell_row(page, audit, threat, cell, binary);
            }
            page.push_str("</tbody>\n");
        }
        page.push_str("</table></div>\n");
    }
    page.push_str("</section>\n");
}

fn cell_row(page: &mut String, audit: &Audit, threat: &ThreatResult, cell: &CellSummary, binary: bool) {
    let class = if cell.control { " class=\"control\"" } else { "" };
    let role = if cell.control { " (control)" } else { "" };
    let _ = write!(
        page,
        "<tr{class}><th scope=\"row\">{}{role}</th><td>{}</td><td>{}</td><td>{} <span class=\"range\">of {}</span></td>",
        escape(&cell.attack),
        rate(&cell.robust_accuracy),
        value(&cell.robust_accuracy_stored),
        value(&cell.attack_success_rate),
        cell.attacked,
    );
    decision_columns(page, &cell.decisions, binary);
    let count = |count: Option<u32>| count.map_or_else(|| "–".to_owned(), |count| count.to_string());
    let seconds = audit.timings.runs.iter().find(|time| {
        time.run == format!("{} {}:{}", cell.attack, threat.norm, threat.epsilon)
            || time.run == format!("{} {}, least change", cell.attack, threat.norm)
    });
    let _ = writeln!(
        page,
        "<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        cell.perturbation.map_or_else(|| "–".to_owned(), |size| significant(size.median)),
        count(cell.queries.median),
        count(cell.queries.percentile_95),
        cell.queries.max,
        count(cell.gradient_queries.median),
        seconds.map_or_else(|| "–".to_owned(), |time| format!("{:.1}", time.seconds)),
    );
}

fn worst_row(page: &mut String, threat: &ThreatResult, binary: bool) {
    let worst = &threat.worst_case;
    let _ = write!(
        page,
        "<tr class=\"worst\"><th scope=\"row\">worst case</th><td>{}</td><td>{}</td><td>{}</td>",
        rate(&worst.robust_accuracy),
        value(&worst.robust_accuracy_stored),
        value(&worst.attack_success_rate),
    );
    decision_columns(page, &worst.decisions, binary);
    page.push_str("<td></td><td></td><td></td><td></td><td></td><td></td></tr>\n");
}

fn decision_columns(page: &mut String, decisions: &DecisionMetrics, binary: bool) {
    let of = |rate: &Option<Rate>| rate.as_ref().map_or_else(|| "–".to_owned(), value);
    let balanced = decisions.balanced_accuracy.map_or_else(|| "–".to_owned(), percent);
    let _ = write!(page, "<td>{balanced}</td>");
    if binary {
        let _ = write!(
            page,
            "<td>{}</td><td>{}</td>",
            of(&decisions.false_negative_rate),
            of(&decisions.false_positive_rate)
        );
    }
}

fn clinical(page: &mut String, entries: &[ReportEntry<'_>]) {
    if entries.iter().all(|entry| entry.audit.clean.classes.is_empty()) {
        return;
    }
    page.push_str("<section>\n<h2>Each finding: clean and under attack</h2>\n<p class=\"note\">Sensitivity is the share of samples \
         with the finding that are decided to have it; specificity the share without it that are decided not to. Under \
         attack each is the worst case over all attacks at that budget or a smaller one. The operating point is the threshold of \
         the model, or the greatest output. AUC: area under the ROC curve with a bootstrap interval; under attack every \
         attacked sample has the worst score seen.</p>\n");
    for ReportEntry { name, audit, .. } in entries {
        let _ = write!(
            page,
            "<h3>{}</h3>\n<div class=\"scroll\"><table>\n<caption>Shares with 95&nbsp;% Wilson intervals</caption>\n\
             <thead><tr><th scope=\"col\">Finding</th><th scope=\"col\" class=\"text\">Budget</th>\
             <th scope=\"col\">Sensitivity</th><th scope=\"col\">False negatives</th><th scope=\"col\">Specificity</th>\
             <th scope=\"col\">False positives</th><th scope=\"col\">AUC</th></tr></thead>\n",
            escape(name)
        );
        // Of two exclusive classes one says everything.
        let shown = |class: usize| {
            audit.settings.finding.is_none_or(|finding| finding == class || audit.clean.classes.len() > 2)
        };
        for (class, rates) in audit.clean.classes.iter().enumerate().filter(|(class, _)| shown(*class)) {
            page.push_str("<tbody>\n");
            let mut row = |budget: &str, metrics: &DecisionMetrics| {
                let rates = &metrics.classes[class];
                let _ = writeln!(
                    page,
                    "<tr><th scope=\"row\">{}</th><td class=\"text\">{budget}</td><td>{}</td><td>{}</td><td>{}</td><td>{}\
                     </td><td>{}</td></tr>",
                    escape(&rates.class),
                    rate(&rates.sensitivity),
                    value(&rates.sensitivity.complement()),
                    rate(&rates.specificity),
                    value(&rates.specificity.complement()),
                    rates.auc.map_or_else(|| "–".to_owned(), |auc| auc_with_interval(&auc)),
                );
            };
            let _ = rates;
            row("clean", &audit.clean);
            for threat in &audit.threats {
                let budget = format!("{}:{}", threat.norm, significant(f64::from(threat.epsilon)));
                row(&budget, &threat.worst_case.decisions);
            }
            page.push_str("</tbody>\n");
        }
        page.push_str("</table></div>\n");
    }
    page.push_str("</section>\n");
}

fn auc_with_interval(auc: &Auc) -> String {
    format!("{:.3} <span class=\"range\">({:.3}–{:.3})</span>", auc.value, auc.lower, auc.upper)
}

/// Agreement of masks with the truth, for the audits of segmentations.
fn overlaps(page: &mut String, entries: &[ReportEntry<'_>]) {
    let masks: Vec<_> = entries.iter().filter(|entry| entry.audit.clean.overlaps.is_some()).collect();
    if masks.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>Each structure: clean and under attack</h2>\n<p class=\"note\">Means over the samples in \
         which the structure occurs. Under attack each sample counts with its least Dice over all attacks at that budget \
         or a smaller one.</p>\n");
    for ReportEntry { name, audit, .. } in masks {
        let _ = write!(
            page,
            "<h3>{}</h3>\n<div class=\"scroll\"><table>\n<caption>Overlap with the truth</caption>\n\
             <thead><tr><th scope=\"col\">Structure</th><th scope=\"col\" class=\"text\">Budget</th>\
             <th scope=\"col\">Dice</th><th scope=\"col\">Intersection over union</th></tr></thead>\n<tbody>\n",
            escape(name)
        );
        let mut rows = |budget: &str, metrics: &DecisionMetrics| {
            let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
            for overlap in metrics.overlaps.iter().flatten() {
                let _ = writeln!(
                    page,
                    "<tr><th scope=\"row\">{}</th><td class=\"text\">{budget}</td><td>{}</td><td>{}</td></tr>",
                    escape(&overlap.class),
                    shown(overlap.dice),
                    shown(overlap.iou),
                );
            }
        };
        rows("clean", &audit.clean);
        for threat in &audit.threats {
            let budget = format!("{}:{}", threat.norm, significant(f64::from(threat.epsilon)));
            rows(&budget, &threat.worst_case.decisions);
        }
        page.push_str("</tbody></table></div>\n");
    }
    page.push_str("</section>\n");
}

fn findings(page: &mut String, entries: &[ReportEntry<'_>]) {
    page.push_str(
        "<section>\n<h2>Can the figures be believed?</h2>\n<p class=\"note\">Each line is computed. Where one about \
         strength fails, the attacks may have been weaker than they should be: the true robustness may be lower, and no \
         verdict should be drawn.</p>\n<div class=\"scroll\"><table class=\"left\">\n<caption>What was looked for; failures \
         first</caption>\n<thead><tr><th scope=\"col\">Should hold</th><th scope=\"col\">About</th>",
    );
    for entry in entries {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escape(entry.name));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    let mut rows: Vec<Vec<&Finding>> = Vec::new();
    for finding in entries.iter().flat_map(|entry| &entry.audit.findings) {
        match rows.iter_mut().find(|row| row[0].id == finding.id) {
            Some(row) => row.push(finding),
            None => rows.push(vec![finding]),
        }
    }
    let failed = |row: &[&Finding]| row.iter().any(|finding| finding.status == Status::Fail);
    rows.sort_by_key(|row| !failed(row));
    for row in &rows {
        let _ = write!(
            page,
            "<tr{}><th scope=\"row\" class=\"wrap\">{}</th><td>{}</td>",
            if failed(row) { " class=\"failed\"" } else { "" },
            escape(&row[0].title),
            if row[0].weakens_evaluation { "strength" } else { "meaning" },
        );
        for entry in entries {
            let Some(finding) = entry.audit.findings.iter().find(|finding| finding.id == row[0].id) else {
                page.push_str("<td>–</td>");
                continue;
            };
            let (class, text) = match finding.status {
                Status::Pass => ("pass", "pass"),
                Status::Fail => ("fail", "fail"),
                Status::NotApplicable => ("na", "not applicable"),
            };
            let _ = write!(
                page,
                "<td class=\"wrap\"><span class=\"badge {class}\">{text}</span> {}",
                escape(&finding.detail)
            );
            if !finding.advice.is_empty() {
                let _ = write!(page, "<br><strong>What to do:</strong> {}", escape(&finding.advice));
            }
            page.push_str("</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n</section>\n");
}

fn manifest(page: &mut String, entries: &[ReportEntry<'_>]) {
    page.push_str("<section>\n<h2>How to repeat it</h2>\n");
    for ReportEntry { name, audit, .. } in entries {
        let provenance = &audit.provenance;
        let _ = writeln!(page, "<h3>{}</h3>", escape(name));
        if provenance.recipe.is_some() {
            page.push_str("<pre><code>nocebo audit --recipe resolved.toml --out again</code></pre>\n");
        }
        if let Some(command) = &provenance.command {
            let _ = writeln!(page, "<pre><code>{}</code></pre>", escape(command));
        }
        page.push_str("<dl class=\"facts\">\n");
        let mut fact = |term: &str, value: String| {
            let _ = writeln!(page, "<dt>{}</dt><dd>{value}</dd>", escape(term));
        };
        for input in &provenance.inputs {
            fact(
                &format!("{} SHA-256", input.role),
                format!("{} <code>{}</code>", escape(&input.name), escape(&input.sha256)),
            );
        }
        fact("records SHA-256", format!("<code>{}</code>", escape(&audit.records_sha256)));
        fact("Seed", audit.settings.seed.0.to_string());
        for attack in &audit.attacks {
            fact(
                &format!("Settings of {}", attack.name),
                format!("<code>{}</code>; {}", escape(&attack.settings), escape(&attack.source)),
            );
        }
        let versions: Vec<String> =
            provenance.versions.iter().map(|(name, version)| escape(format!("{name} {version}"))).collect();
        fact(
            "Program",
            format!("{} {}; {}", escape(&audit.tool), escape(&audit.tool_version), versions.join(", "))
                .trim_end_matches("; ")
                .to_owned(),
        );
        fact(
            "Run",
            format!(
                "device {}, {} threads, batches of {}, {:.1} seconds",
                escape(&provenance.device),
                provenance.threads,
                audit.run.batch_size,
                audit.timings.total_seconds
            ),
        );
        page.push_str("</dl>\n");
        if let Some(recipe) = &provenance.recipe {
            let _ = writeln!(
                page,
                "<details><summary>The recipe, <code>resolved.toml</code></summary><pre><code>{}</code></pre></details>",
                escape(recipe)
            );
        }
    }
    page.push_str("</section>\n");
}

fn norms(entries: &[ReportEntry<'_>]) -> Vec<Norm> {
    let mut norms = Vec::new();
    for threat in entries.iter().flat_map(|entry| &entry.audit.threats) {
        if !norms.contains(&threat.norm) {
            norms.push(threat.norm);
        }
    }
    norms
}

/// (budget, share) of one rate at each budget of a norm, from the clean samples on.
fn curve(audit: &Audit, norm: Norm, of: impl Fn(&ThreatResult) -> Option<Rate>) -> Vec<(f64, f64)> {
    let start = (0.0, audit.data.attacked as f64 / audit.data.in_scope.max(1) as f64);
    let points = on_axis(audit, norm).filter_map(|threat| Some((f64::from(threat.epsilon), of(threat)?.value?)));
    std::iter::once(start).chain(points).collect()
}

/// The budgets of a norm that have a place on an axis: an infinite one stands in the tables only.
fn on_axis(audit: &Audit, norm: Norm) -> impl Iterator<Item = &ThreatResult> {
    audit.threats.iter().filter(move |threat| threat.norm == norm && threat.epsilon > 0.0 && threat.epsilon.is_finite())
}

fn worst_case(audit: &Audit, norm: Norm) -> Vec<(f64, f64)> {
    curve(audit, norm, |threat| Some(threat.worst_case.robust_accuracy))
}

fn band(audit: &Audit, norm: Norm) -> Vec<(f64, f64, f64)> {
    let start = Rate::new(audit.data.attacked, audit.data.in_scope);
    let rates = on_axis(audit, norm).map(|threat| (f64::from(threat.epsilon), threat.worst_case.robust_accuracy));
    std::iter::once((0.0, start)).chain(rates).map(|(budget, rate)| (budget, rate.lower, rate.upper)).collect()
}

pub(crate) fn robust_name(goal: AuditGoal) -> &'static str {
    match goal {
        AuditGoal::Untargeted => "Robust accuracy",
        AuditGoal::FalseNegative { .. } => "Robust sensitivity",
        AuditGoal::FalsePositive { .. } => "Robust specificity",
    }
}

fn norm_name(norm: Norm) -> &'static str {
    match norm {
        Norm::L0 => "number of changed elements",
        Norm::L1 => "sum of the changes",
        Norm::L2 => "Euclidean size of the change",
        Norm::Linf => "greatest change of an element",
    }
}

fn budget_unit(audit: &Audit, norm: Norm) -> &str {
    if norm == Norm::L0 { "elements" } else { &audit.data.unit }
}

fn attack_count(audit: &Audit) -> usize {
    audit.attacks.iter().filter(|attack| !attack.control).count()
}

fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::toy::{self, Behaviour, Mean, ToyAttack};
    use crate::{AuditRequest, Evaluation, evaluate};

    fn evaluation(include_images: usize, command: &str) -> Evaluation {
        let mut settings = toy::settings(&[0.5, 2.0, 4.0]);
        settings.include_images = include_images;
        settings.gates =
            vec!["robust_accuracy(linf:2) >= 0.3".parse().unwrap(), "clean_accuracy > 0.9".parse().unwrap()];
        let mut provenance = toy::provenance();
        provenance.command = Some(command.to_owned());
        let mut attacks = toy::attacks();
        attacks.push(ToyAttack::entry("<img src=x>", Behaviour::LeastChange));
        let (model, data) = (Mean::new(), toy::ten());
        let request = AuditRequest {
            model: &model,
            data: &data,
            attacks: &attacks,
            settings: &settings,
            provenance: &provenance,
        };
        evaluate(request, &()).unwrap()
    }

    fn page(evaluations: &[(&str, &Evaluation)]) -> String {
        let entries: Vec<ReportEntry<'_>> = evaluations
            .iter()
            .map(|(name, evaluation)| ReportEntry { name, audit: &evaluation.audit, examples: &evaluation.examples })
            .collect();
        html(&entries).unwrap()
    }

    /// Names of the tags in order, closing ones with a slash.
    fn tags(page: &str) -> Vec<String> {
        page.split('<')
            .skip(1)
            .map(|rest| rest.split([' ', '>', '\n']).next().unwrap_or_default().to_owned())
            .filter(|tag| !tag.starts_with('!'))
            .collect()
    }

    #[test]
    fn every_element_is_closed_and_every_id_is_used_once() {
        let (one, other) = (evaluation(2, "x"), evaluation(0, "y"));
        let page = page(&[("one", &one), ("other", &other)]);
        let mut open = Vec::new();
        for tag in tags(&page) {
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name));
            } else if !["meta", "br", "img", "line", "path", "polygon"].contains(&tag.as_str()) {
                open.push(tag);
            }
        }
        assert_eq!(open, [""; 0]);
        let ids: Vec<&str> = page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        assert_eq!(page.matches("<svg").count(), 7);
        assert_eq!(page.matches("<desc").count(), 7);
        assert_eq!(page.matches("<table").count(), page.matches("<caption").count());
        assert_eq!(page.matches("<img").count(), page.matches(" alt=\"").count());
    }

    #[test]
    fn nothing_is_fetched_and_nothing_from_outside_is_markup() {
        let found = evaluation(1, "nocebo audit --out '</code><script>alert(1)</script>'");
        let page = page(&[("</title><script>", &found)]);
        for forbidden in ["http:", "https:", "<link", "<iframe", "@import", "url(", "<b>", "<img src=x", "<test>"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert!(page.split("src=\"").skip(1).all(|rest| rest.starts_with("data:image/png;base64,")));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        // The one script is ours, and the policy names its digest.
        let (_, script) = page.split_once("<script>").unwrap();
        let (script, rest) = script.split_once("</script>").unwrap();
        assert!(script == SORT && !rest.contains("<script"));
        assert!(page.contains(&format!("script-src 'sha256-{}'", STANDARD.encode(Sha256::digest(script)))));
        assert!(!page.to_lowercase().contains("compliant"));
    }

    #[test]
    fn images_are_left_out_unless_asked_for() {
        assert_eq!(page(&[("x", &evaluation(0, ""))]).matches("<img").count(), 0);
        assert_eq!(page(&[("x", &evaluation(2, ""))]).matches("<img").count(), 6);
    }

    #[test]
    fn a_report_needs_an_audit() {
        assert!(matches!(html(&[]), Err(AuditError::Invalid { .. })));
    }

    /// The part of the page from one heading to the next.
    fn section<'a>(page: &'a str, heading: &str) -> &'a str {
        let start = page.find(&format!("<h2>{heading}")).unwrap();
        let length = page[start..].find("</section>").unwrap();
        &page[start..start + length]
    }

    #[test]
    fn the_figures_are_those_of_the_audit() {
        let found = evaluation(0, "");
        let page = page(&[("mean.onnx", &found)]);
        let headline = &page[page.find("<article").unwrap()..page.find("</article>").unwrap()];
        insta::assert_snapshot!("headline", headline);
        insta::assert_snapshot!("what_was_tried", section(&page, "What was tried"));
        insta::assert_snapshot!("curve", section(&page, "Robustness over budget"));
        insta::assert_snapshot!("findings", section(&page, "Each finding"));
    }

    #[test]
    fn decisions_are_told_by_name() {
        let names = ["mass", "nodule"].map(str::to_owned);
        assert_eq!(decision_name(&Label::Class(1), &names), "nodule");
        assert_eq!(decision_name(&Label::Findings(vec![true, true]), &names), "mass + nodule");
        assert_eq!(decision_name(&Label::Findings(vec![false, false]), &names), "no finding");
    }
}
