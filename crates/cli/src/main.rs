//! `nocebo`: the command-line program.

#![expect(clippy::print_stdout, reason = "results go to standard output")]

mod arguments;
mod commands;
mod failure;
mod figures;
mod load;
mod progress;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, Global};
use failure::{Failure, OrFail};

fn main() -> ExitCode {
    nocebo_data::formats::dicom::isolate(&[]);
    let Arguments { command, global } = Arguments::parse();
    match run(command, &global) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.code()
        }
    }
}

fn run(command: Command, global: &Global) -> Result<(), Failure> {
    rayon::ThreadPoolBuilder::new().num_threads(global.threads).build_global().or_usage()?;
    match command {
        Command::Demo(demo) => commands::demo::run(&demo, global),
        Command::Phantom(phantom) => commands::phantom::run(&phantom, global),
        Command::Train(train) => commands::train::run(&train, global),
        Command::Harden(harden) => commands::harden::run(&harden, global),
        Command::Audit(audit) => commands::audit::run(&audit, global),
        Command::Init(init) => commands::init::run(&init, global),
        Command::Compare(compare) => commands::compare::run(&compare),
        Command::View(view) => commands::view::run(&view),
        Command::Schema => {
            commands::schema::run();
            Ok(())
        }
        Command::Attack(attack) => commands::attack::run(&attack, global),
        Command::Transfer(transfer) => commands::transfer::run(&transfer, global),
        Command::Attacks(attacks) => commands::attacks::run(&attacks),
        Command::Inspect(inspect) => commands::inspect::run(&inspect),
        Command::Data(data) => commands::data::run(&data, global),
        Command::Run(run) => commands::run::run(&run, global),
        Command::Doctor => commands::doctor::run(global),
    }
}
