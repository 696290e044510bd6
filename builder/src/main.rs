//! `gatehouse`: makes one bootable image from one site directory, tries it, writes it.

mod cache;
mod cli;
mod commands;
mod delivery;
mod depot;
mod fetch;
mod image;
mod interrupt;
mod lock;
mod parallel;
mod plan;
mod pool;
mod remembered;
mod root;
mod serve;
mod share;
mod site_dir;
mod term;
mod tool;
mod tools;
mod trial;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            interrupt::wait_if_seen();
            term::fail(&fault);
            ExitCode::from(fault.exit_status() as u8)
        }
    }
}
