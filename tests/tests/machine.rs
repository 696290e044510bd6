//! The real image in an emulated machine: one rich boot that serves every check.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gatehouse_tests::{Try, gatehouse, has, outcome, site};

const BOOT: Duration = Duration::from_secs(1500);

fn trial(site: &Path, dir: &Path, more: &[&str]) -> Try {
    let mut command = Command::new(gatehouse());
    command
        .arg("try")
        .arg(site)
        .args(["--vmm", "xen", "--json", "--timeout", "1500", "--dir"])
        .arg(dir)
        .args(more);
    Try::start(&mut command, dir)
}

#[test]
fn the_image_installs_its_site_through_a_power_cut_and_boots_again() {
    if !has(&["qemu-system-x86_64", "ssh", "setpriv"]) {
        return;
    }
    let temp = tempfile::Builder::new().prefix("gatehouse-xen-").tempdir_in("/var/tmp").expect("a directory");
    let (site, dir) = (site("minimal", temp.path()), temp.path().join("trial"));

    let mut cut = trial(&site, &dir, &[]);
    cut.wait_for("unpacking layer", BOOT);
    cut.kill();

    let mut machine = trial(&site, &dir, &["--resume"]);
    machine.wait_for("running; log in", BOOT);
    assert!(!machine.saw("gh-vms (17.8 GiB) started"), "what was finished was done again");

    let mounted =
        "for at in / /etc /srv/vms /depot; do findmnt -no FSTYPE $at | tail -n 1; done; xl list | wc -l";
    let host = machine.ssh("minimal", mounted);
    assert_eq!(host.stdout, "erofs\noverlay\nxfs\nerofs\n3\n", "{host:?}");
    let nodes = machine.ssh("minimal", "gatectl node list");
    assert!(nodes.stdout.contains("node1") && nodes.stdout.contains("running"), "{nodes:?}");
    let node = machine.ssh("node1", "hostname; findmnt -no FSTYPE /; dpkg --audit");
    assert_eq!(node.stdout, "node1\next4\n", "{node:?}");
    let secrets = machine.ssh("minimal", "ls /srv/vms/node1/conf; stat -c %a /var/lib/gatehouse/authority");
    assert!(
        !secrets.stdout.contains("install-initrd"),
        "the initramfs with the token is still there: {secrets:?}"
    );
    assert!(secrets.stdout.ends_with("700\n"), "{secrets:?}");
    outcome(&machine.interrupt());

    // The boot above was already the second of this disk; a third shows that an installed node is only started.
    if std::env::var_os("GATEHOUSE_FULL").is_none() {
        return;
    }
    let again = trial(&site, &dir, &["--resume", "--exit"]).end();
    outcome(&again);
    assert!(!again.stderr.contains("installing started"), "an installed node was installed again");
}
