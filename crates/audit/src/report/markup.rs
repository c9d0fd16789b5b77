//! Text that is safe inside HTML and SVG.

use std::fmt::Display;

use crate::Rate;

/// `text` with everything replaced that HTML would read as markup, and control characters left out.
pub(super) fn escape(text: impl Display) -> String {
    let mut safe = String::new();
    for character in text.to_string().chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(character),
            control if control.is_control() => {}
            other => safe.push(other),
        }
    }
    safe
}

/// A share as a percentage with one decimal.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}&nbsp;%", 100.0 * share)
}

/// A rate without its interval.
pub(super) fn value(rate: &Rate) -> String {
    rate.value.map_or_else(|| "–".to_owned(), percent)
}

/// The ends of an interval in per cent.
pub(super) fn interval(rate: &Rate) -> String {
    format!("{:.1}–{:.1}", 100.0 * rate.lower, 100.0 * rate.upper)
}

/// A rate with its interval, for a table cell.
pub(super) fn rate(rate: &Rate) -> String {
    match rate.value {
        Some(share) => {
            let by_patient = rate.by_patient.map_or_else(String::new, |(lower, upper)| {
                format!("; by patient {:.1}–{:.1}", 100.0 * lower, 100.0 * upper)
            });
            format!("{} <span class=\"range\">({}{by_patient})</span>", percent(share), interval(rate))
        }
        None => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        assert_eq!(escape("<script>\"x\" & 'y'\u{1b}[2J\u{0}"), "&lt;script&gt;&quot;x&quot; &amp; &#39;y&#39;[2J");
    }
}
