//! Progress bars on standard error; nothing where that is not a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::arguments::Global;

/// A bar over `length` steps, hidden when `--quiet` is given or standard error is not a terminal.
pub(crate) fn bar(global: &Global, length: u64) -> ProgressBar {
    if global.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (left {eta}) {msg}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A note for people, on standard error.
pub(crate) fn note(global: &Global, text: impl std::fmt::Display) {
    if !global.quiet {
        eprintln!("{text}");
    }
}
