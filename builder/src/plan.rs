//! `gatehouse plan`: how the image is laid out, and what the first boot would do with a machine. The agent decides
//! that, as it will on the machine itself: the builder only asks it.

use std::path::Path;
use std::process::Command;

use gatehouse_disk::Part;
use gatehouse_model::site::{InstallTo, VmmKind};
use gatehouse_model::{Doing as _, Exit, Fault, ImagePart, Site};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::interrupt::Fleeting;
use crate::share::Share;
use crate::{cli, commands, image};

/// What a first boot is told by its boot loader.
const FIRST_BOOT: &str = "root=PARTUUID=image-4 gatehouse.slot=a gatehouse.install-to=self";

/// `gatehouse plan`.
///
/// # Errors
/// Whatever building the image's parts ends with; the machine would be refused (exit 3).
pub fn run(global: &cli::Global, args: &cli::Plan) -> Result<(), Fault> {
    let prepared = commands::prepare(global, &args.site)?;
    let (layout, contents) = image::contents_of(&prepared)?;
    // As a trial means its own disk and a stick the rule's, where the site does not say.
    let by_default = args.facts.is_some() || prepared.site.disk.mirror;
    let default = if by_default { InstallTo::Rule } else { InstallTo::SelfDisk };
    let by_rule = prepared.site.install.to.unwrap_or(default) == InstallTo::Rule;
    let on_it = if by_rule { &[] } else { layout.parts() };
    let invented = match &args.facts {
        Some(_) => None,
        None => Some(invented(&prepared.site, on_it, layout.disk_bytes(), &prepared.cache)?),
    };
    let facts = args.facts.as_deref().or(invented.as_ref().map(Fleeting::path)).unwrap_or(Path::new(""));
    let list = Fleeting::new(prepared.cache.scratch("plan")?.join("contents.json"));
    std::fs::write(list.path(), contents).doing(|| "writing what the image installs")?;
    let plan = ask(&prepared.share, &args.site, facts, by_rule.then_some(list.path()), args.json)?;
    let parts: Vec<ImagePart> = layout.parts().iter().map(image_part).collect();
    if args.json {
        let plan: Value = serde_json::from_str(&plan).doing(|| "reading the agent's plan")?;
        let all =
            json!({ "image": { "bytes": layout.disk_bytes(), "partitions": parts }, "first-boot": plan });
        println!("{}", serde_json::to_string_pretty(&all).doing(|| "printing the plan")?);
        return Ok(());
    }
    println!("the image, {} MiB", layout.disk_bytes() >> 20);
    for part in parts {
        println!("  {:2} {:12} {:>6} MiB", part.number, part.name, part.length >> 20);
    }
    let machine =
        if args.facts.is_some() { "the recorded machine" } else { "a machine that is large enough" };
    println!("{} on {machine}; ! erases what was there", if by_rule { "install" } else { "first boot" });
    print!("{plan}");
    Ok(())
}

fn image_part(part: &Part) -> ImagePart {
    let (offset, length) = (part.start(image::SECTOR), part.bytes(image::SECTOR));
    ImagePart { number: part.number, name: part.name.clone(), offset, length, sha256: None }
}

/// Facts of a machine that the site fits: what `gatehouse try` would emulate.
fn invented(site: &Site, parts: &[Part], bytes: u64, cache: &Cache) -> Result<Fleeting, Fault> {
    let hardware = image::Hardware::of(site, bytes);
    let partitions = parts.iter().map(|part| {
        json!({
            "number": part.number, "name": part.name, "partuuid": format!("image-{}", part.number),
            "start": part.start(image::SECTOR), "bytes": part.bytes(image::SECTOR), "holds": [],
        })
    });
    let names = if site.disk.mirror { &["vda", "vdb"][..] } else { &["vda"] };
    let partitions = partitions.collect::<Vec<_>>();
    let disk = |name: &&str| {
        json!({
            "name": name, "bytes": hardware.disk, "sector-size": image::SECTOR, "serial": "TRIAL", "bus": "virtio",
            "paths": [], "partitions": partitions,
            "holds": if parts.is_empty() { json!([]) } else { json!(["partition table"]) },
        })
    };
    let disks: Vec<Value> = names.iter().map(disk).collect();
    let link = json!({
        "name": "eth0", "mac": hardware.mac, "driver": "virtio_net", "carrier": true, "speed": null, "path": null,
    });
    let (hypervisor, virtualisation) = match site.host.vmm {
        VmmKind::Xen => (json!("xen"), json!(["xen-3.0-x86_64"])),
        VmmKind::Kvm => (json!("kvm"), json!(["kvm"])),
        VmmKind::Uml => (Value::Null, json!([])),
    };
    let facts = json!({
        "disks": disks, "links": [link], "memory": hardware.memory, "cpus": hardware.processors,
        "firmware": "bios", "hypervisor": hypervisor, "virtualisation": virtualisation,
        "boot-disk": if parts.is_empty() { Value::Null } else { json!("vda") }, "boot-id": "plan",
    });
    let file = Fleeting::new(cache.scratch("facts")?.join("facts.json"));
    std::fs::write(file.path(), facts.to_string()).doing(|| "writing the machine's facts")?;
    Ok(file)
}

/// What the agent plans for a machine, as it prints it.
fn ask(
    share: &Share,
    site: &Path,
    facts: &Path,
    contents: Option<&Path>,
    json: bool,
) -> Result<String, Fault> {
    let mut command = Command::new(share.agent()?);
    command.arg("plan").arg("--site").arg(site).arg("--facts").arg(facts).args(["--cmdline", FIRST_BOOT]);
    if let Some(contents) = contents {
        command.arg("--contents").arg(contents);
    }
    if json {
        command.arg("--json");
    }
    let output = command.output().doing(|| "starting the agent")?;
    if output.status.success() {
        return String::from_utf8(output.stdout).doing(|| "reading the agent's plan");
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let (what, help) = words.trim_end().split_once("\nhelp: ").unwrap_or((words.trim_end(), ""));
    let exit = if output.status.code() == Some(Exit::Refusal as i32) { Exit::Refusal } else { Exit::Fault };
    let fault = Fault::new(what.trim_start_matches("error: ")).exit(exit);
    Err(if help.is_empty() { fault } else { fault.help(help) })
}
