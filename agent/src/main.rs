//! `gatehouse-agent`; called as `gatectl` it is the control program, called as `init` the installer.

use std::process::ExitCode;

fn main() -> ExitCode {
    match gatehouse_agent::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprint!("{}", fault.render());
            ExitCode::from(fault.exit_status() as u8)
        }
    }
}
