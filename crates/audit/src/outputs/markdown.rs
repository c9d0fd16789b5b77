//! A summary in Markdown, for a pull request.

use std::fmt::Write as _;

use crate::Rate;
use crate::audit::Audit;
use crate::findings::Status;
use crate::metrics::significant;

/// Headline, curve, gates and failed findings of an audit.
pub(crate) fn markdown(audit: &Audit) -> String {
    let mut text = format!(
        "## Robustness of {} on {}\n\n{} samples, {} in scope; {}.\n\n",
        safe(&audit.model.name),
        safe(&audit.data.name),
        audit.data.samples,
        audit.data.in_scope,
        safe(audit.settings.protocol.as_deref().unwrap_or("attacks chosen by hand")),
    );
    let _ = writeln!(text, "| budget | worst case over attacks | after storage | random noise |\n|---|---|---|---|");
    let _ = writeln!(text, "| none (clean accuracy) | {} | | |", shown(audit.clean.accuracy));
    for threat in &audit.threats {
        let noise = threat.cells.iter().find(|cell| cell.control).map(|cell| shown(cell.robust_accuracy));
        let _ = writeln!(
            text,
            "| {}:{} {} | {} | {} | {} |",
            threat.norm,
            significant(f64::from(threat.epsilon)),
            safe(&audit.data.unit),
            shown(threat.worst_case.robust_accuracy),
            shown(threat.worst_case.robust_accuracy_stored),
            noise.unwrap_or_default(),
        );
    }
    if !audit.gates.is_empty() {
        text.push_str("\n| gate | result |\n|---|---|\n");
        for gate in &audit.gates {
            let _ = writeln!(text, "| `{}` | {} |", safe(&gate.gate), if gate.passed { "met" } else { "**not met**" });
        }
    }
    text.push('\n');
    if !audit.evaluation_is_strong {
        text.push_str("**The evaluation may be weak: the true robustness may be lower than these figures.**\n\n");
    }
    for finding in audit.findings.iter().filter(|finding| finding.status == Status::Fail) {
        let _ = writeln!(text, "- does not hold: {} ({})", safe(&finding.title), safe(&finding.detail));
    }
    text.push_str("\nShares with 95 % intervals. They hold for these attacks, budgets and samples; another attack may lower them.\n");
    text
}

fn shown(rate: Rate) -> String {
    match rate.value {
        Some(value) => format!("{value:.3} [{:.3}, {:.3}]", rate.lowest(), rate.highest()),
        None => "not defined".to_owned(),
    }
}

/// Text that cannot leave its place: no line break, no column, no markup.
fn safe(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .flat_map(|character| {
            let escaped = "\\`*_[]<>|#".contains(character);
            escaped.then_some('\\').into_iter().chain([character])
        })
        .collect()
}
