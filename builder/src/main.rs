//! `gatehouse`: makes one bootable image from one site directory, tries it, writes it.

mod cache;
mod cli;
mod commands;
mod depot;
mod fetch;
mod image;
mod lock;
mod pool;
mod root;
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
            eprint!("{}", fault.render());
            ExitCode::from(fault.exit_status() as u8)
        }
    }
}
