//! `cargo xtask check`: every check of the workspace, cheapest first. `cargo xtask operators` writes
//! `crates/graph/OPERATORS.md` (a test says whether it is up to date).
//!
//! A tool that is not installed is reported as skipped, with how to install it; everything else that fails makes the
//! command fail.

#![expect(clippy::print_stdout, reason = "this is the output of the command")]

use std::process::{Command, ExitCode, Stdio};

/// One check: its name, the command, and how to install the tool when it is not part of the toolchain.
struct Check {
    name: &'static str,
    command: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    install: Option<&'static str>,
}

const CHECKS: &[Check] = &[
    Check { name: "format", command: &["cargo", "fmt", "--all", "--check"], environment: &[], install: None },
    Check { name: "typos", command: &["typos"], environment: &[], install: Some("cargo install typos-cli --locked") },
    Check {
        name: "clippy",
        command: &["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        environment: &[],
        install: None,
    },
    Check { name: "tests", command: &["cargo", "test", "--workspace", "--locked"], environment: &[], install: None },
    Check {
        name: "docs",
        command: &["cargo", "doc", "--workspace", "--no-deps", "--locked"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        install: None,
    },
    Check {
        name: "deny",
        command: &["cargo", "deny", "--offline", "check", "bans", "licenses", "sources"],
        environment: &[],
        install: Some("cargo install cargo-deny --locked"),
    },
    Check {
        name: "unused dependencies",
        command: &["cargo", "machete"],
        environment: &[],
        install: Some("cargo install cargo-machete --locked"),
    },
];

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("check") => check(),
        Some("operators") => operators(),
        other => {
            println!("usage: cargo xtask check | operators\nunknown task: {}", other.unwrap_or("none given"));
            ExitCode::from(2)
        }
    }
}

fn check() -> ExitCode {
    let mut summary = Vec::new();
    let mut failed = false;
    for check in CHECKS {
        let outcome = match check.install {
            Some(install) if !is_installed(check.command) => format!("skipped: not installed; {install}"),
            _ if run(check) => "passed".to_owned(),
            _ => {
                failed = true;
                "FAILED".to_owned()
            }
        };
        summary.push(format!("{:<20} {outcome}", check.name));
    }
    println!("\n{}", summary.join("\n"));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Writes the table of operators from what the tests of `nocebo-graph` measure.
fn operators() -> ExitCode {
    let table = Check {
        name: "operators",
        command: &["cargo", "test", "-p", "nocebo-graph", "--locked", "--test", "operators", "the_table"],
        environment: &[("NOCEBO_WRITE_OPERATORS", "1")],
        install: None,
    };
    if run(&table) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the tool answers `--version`; for a cargo subcommand, the subcommand does.
fn is_installed(command: &[&str]) -> bool {
    let words = if command[0] == "cargo" { 2 } else { 1 };
    let mut probe = Command::new(command[0]);
    probe.args(&command[1..words]).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn run(check: &Check) -> bool {
    println!("\n--- {}: {}", check.name, check.command.join(" "));
    let mut command = Command::new(check.command[0]);
    command.args(&check.command[1..]).envs(check.environment.iter().copied());
    command.status().is_ok_and(|status| status.success())
}
