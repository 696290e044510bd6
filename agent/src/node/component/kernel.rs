//! `kernel`: kernel variables and modules.

use std::fmt::Write as _;
use std::fs;

use gatehouse_model::{Doing as _, Fault};

use super::work::Work;

const SYSCTLS: &str = "/etc/sysctl.d/90-gatehouse.conf";
const MODULES: &str = "/etc/modules-load.d/gatehouse.conf";

pub(super) fn configure(work: &mut Work<'_>) -> Result<(), Fault> {
    let mut lines = String::new();
    let mut variables = Vec::new();
    for tag in work.words("sysctls") {
        let (name, value) = (work.of("sysctl", tag), work.of("value", tag));
        if !is_variable(name) {
            return Err(work.wrong("sysctl", tag, "write a kernel variable such as net.ipv4.ip_forward"));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{name} = {value}");
        variables.push((name, value));
    }
    let modules = work.words("modules");
    let mut list = String::new();
    for module in &modules {
        let _ = writeln!(list, "{module}");
    }
    work.write_some(SYSCTLS, 0o644, &lines)?;
    work.write_some(MODULES, 0o644, &list)?;
    work.settle()?;
    if !work.is_running() {
        return Ok(());
    }
    if work.has_changed(MODULES) && !modules.is_empty() {
        work.target.run("modprobe", &[&["-a", "--"][..], &modules].concat())?;
    }
    // A variable that has left the list keeps its value until the next boot: nobody knows what it was before.
    for (name, value) in variables {
        let path = place(name);
        if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
            continue;
        }
        fs::write(&path, format!("{value}\n")).doing(|| format!("setting {name} to {value:?}"))?;
    }
    Ok(())
}

fn is_variable(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && part != ".."
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-:@".contains(&b))
    };
    name.contains(['.', '/']) && name.split(['.', '/']).all(plain)
}

/// Where the kernel has a variable. As in sysctl(8) the first separator counts: behind a slash dots are part of names.
fn place(name: &str) -> String {
    let slashes = name.find('/').is_some_and(|at| !name[..at].contains('.'));
    format!("/proc/sys/{}", if slashes { name.to_owned() } else { swap(name) })
}

fn swap(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c == '.' {
                '/'
            } else if c == '/' {
                '.'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named_as_sysctl_names_them() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/forwarding", "/proc/sys/net/ipv4/conf/eth0.1/forwarding"),
            ("net.ipv4.conf.eth0/1.forwarding", "/proc/sys/net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert!(is_variable(name), "{name}");
            assert_eq!(place(name), path);
        }
        for name in ["", "forward", "net..x", "../../etc/passwd", "a b.c", "net.ipv4."] {
            assert!(!is_variable(name), "{name}");
        }
    }
}
