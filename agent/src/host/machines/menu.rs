//! The menus of machines that start from the network, and of the loader on their own disk. Pure.

use gatehouse_model::{NodeKernel, NodeName};

/// What a person at the machine sees things on.
pub const CONSOLES: &str = "console=tty0 console=ttyS0,115200";
/// The directory on a node's boot partition with the file that says whose it is.
pub const MARK: &str = "/gatehouse/node";

/// GRUB on the same.
const TERMINALS: &str =
    "serial --unit=0 --speed=115200\nterminal_input console serial\nterminal_output console serial\n";

/// The menu that all machines read first; each then reads its own.
pub(super) fn first(site: &str) -> String {
    format!(
        "{TERMINALS}echo \"gatehouse: started from the network by {site}\"\nconfigfile /grub/$net_default_mac.cfg\n"
    )
}

/// Where a node's passport is for its loader.
pub(super) fn passport_path(node: &NodeName) -> String {
    format!("machine/{node}.cpio")
}

/// Starts the installer.
pub(super) fn install(node: &NodeName, kernel: &NodeKernel) -> String {
    let archives: Vec<String> = kernel.initrd.iter().map(|file| format!("/{}", file.path)).collect();
    format!(
        "echo \"gatehouse: loading the installer of {node}\"\nlinux /{} {CONSOLES} loglevel=5\ninitrd {} /{}\nboot\n",
        kernel.kernel.path,
        archives.join(" "),
        passport_path(node)
    )
}

/// Starts the disk that the node is on. A test says nothing of what is not there, which `search` does.
pub(super) fn own_disk(node: &NodeName) -> String {
    format!(
        "for part in (*,gpt2); do\n  if [ -f \"$part{MARK}/{node}\" ]; then\n    \
         regexp --set=1:found '^\\((.*)\\)$' \"$part\"\n  fi\ndone\n\
         if [ -n \"$found\" ]; then\n  echo \"gatehouse: handing over to $found\"\n  set root=$found\n  \
         configfile ($found)/grub/grub.cfg\nfi\n\
         echo \"gatehouse: {node} is on no disk of this machine; to install it anew: gatectl node install {node}\"\n\
         sleep 30\nreboot\n"
    )
}

/// The menu on a node's own boot partition: goes on with what is on the node's root, or on a `/boot` of its own.
pub fn on_disk(part: usize, own_boot: bool) -> String {
    let dir = if own_boot { "/grub" } else { "/boot/grub" };
    format!(
        "{TERMINALS}regexp --set=1:disk '^([^,]+)' \"$root\"\nset root=\"$disk,gpt{part}\"\nconfigfile {dir}/grub.cfg\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatehouse_model::{Digest, FileRef};

    #[test]
    fn menus_name_the_node() {
        let node: NodeName = "wn".parse().expect("a name");
        let file = |path: &str| FileRef { path: path.into(), size: 1, sha256: Digest::of(b"") };
        let initrd = vec![file("a"), file("b")];
        let kernel = NodeKernel { kernel: file("machine/vmlinuz"), initrd, loader: None, modules: None };
        let text = install(&node, &kernel);
        assert!(text.contains("linux /machine/vmlinuz console=tty0"), "{text}");
        assert!(text.contains("\ninitrd /a /b /machine/wn.cpio\n"), "{text}");
        let text = own_disk(&node);
        assert!(text.contains("[ -f \"$part/gatehouse/node/wn\" ]"), "{text}");
        assert!(text.contains(r"'^\((.*)\)$'"), "{text}");
        assert!(on_disk(3, false).ends_with("set root=\"$disk,gpt3\"\nconfigfile /boot/grub/grub.cfg\n"));
    }
}
