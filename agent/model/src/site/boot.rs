//! `boot.cfg` on a site partition: what GRUB, which understands no TOML, must know of the site.

use std::fmt::Write as _;

use super::{InstallTo, Site};

/// The file's name, at the top of the site partition.
pub const BOOT_CFG: &str = "boot.cfg";

/// The text of `boot.cfg`. `site` is none where several sites share a medium: what runs is then known only once one of
/// them is chosen. `to` is where whoever starts from this medium is installed to; none: that is asked for.
pub fn boot_cfg(site: Option<&Site>, to: Option<InstallTo>) -> String {
    let mut text = String::from("# Written by gatehouse from site.toml, for the boot loader.\n");
    if let Some(site) = site {
        let (memory, vcpus) = (site.host.memory.as_mib(), site.host.vcpus);
        let _ = write!(text, "set dom0_mem={memory}M\nset dom0_vcpus={vcpus}\n");
    }
    let to = match to {
        Some(InstallTo::SelfDisk) => "self",
        Some(InstallTo::Rule) => "rule",
        None => "",
    };
    let _ = writeln!(text, "set to={to}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_sites_say_only_where_to() {
        let text = boot_cfg(None, Some(InstallTo::Rule));
        assert_eq!(text, "# Written by gatehouse from site.toml, for the boot loader.\nset to=rule\n");
        assert!(boot_cfg(None, None).ends_with("set to=\n"));
    }
}
