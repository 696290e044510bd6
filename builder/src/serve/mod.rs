//! `gatehouse serve`: what a built `pxe/` has, for the machines of a LAN that start from the network. DHCP and TFTP are
//! dnsmasq's; files and events go by HTTP.

mod dnsmasq;
mod http;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use gatehouse_model::{Doing as _, Event, Fault, Problem, Refusal, State};

use crate::cli;
use crate::image::netboot;
use crate::interrupt::{self, Fleeting};
use crate::{term, tool};
use dnsmasq::{Config, Dhcp};
use http::Heard;

/// The program.
const DNSMASQ: &str = "dnsmasq";
/// The loaders, which TFTP serves.
const LOADERS: [&str; 2] = ["bios.0", "uefi.efi"];

/// `gatehouse serve`.
///
/// # Errors
/// There is no `pxe/`; a port is taken; dnsmasq does not start or ends.
pub fn run(args: &cli::Serve) -> Result<(), Fault> {
    let dir = open(&args.out)?;
    let (interface, address) = interface(args)?;
    tool::run(DNSMASQ, &["--version"]).map_err(|fault| fault.help("install dnsmasq-base"))?;
    let listener = TcpListener::bind(SocketAddrV4::new(address.0, args.http_port)).map_err(|error| {
        let what = format!("port {} of {} cannot be had: {error}", args.http_port, address.0);
        Fault::from(Refusal::new(what, "end what listens there, or name another with --http-port"))
    })?;
    let scratch = Fleeting::new(std::env::temp_dir().join(format!("gatehouse-serve-{}", std::process::id())));
    let config = configure(&dir, scratch.path(), args, &interface, address)?;
    let (sender, heard) = channel();
    http::serve(&dir, listener, sender.clone())?;
    let mut dnsmasq = start(&config, sender)?;
    let (how, port) = (if args.range.is_some() { "DHCP" } else { "proxy DHCP" }, args.http_port);
    term::say(&format!(
        "serving {} on {interface}: {how}, TFTP, http://{}:{port}; Ctrl-C ends it",
        dir.display(),
        address.0
    ));
    let ended = show(&heard, &mut dnsmasq);
    let _ = dnsmasq.kill();
    let _ = dnsmasq.wait();
    ended
}

/// The directory of a build with a `pxe/`, or that itself.
fn open(out: &Path) -> Result<PathBuf, Fault> {
    let dir =
        [out.join(netboot::PXE), out.to_owned()].into_iter().find(|dir| dir.join("contents.json").is_file());
    dir.ok_or_else(|| {
        let what =
            format!("there is no {}/; make it with `gatehouse build SITE -o OUT --format pxe`", netboot::PXE);
        Fault::of_problems(vec![Problem::at(out.display().to_string(), 0, what)])
    })
}

/// The interface that is served and its address; without a name the only one that has one.
fn interface(args: &cli::Serve) -> Result<(String, (Ipv4Addr, u8)), Fault> {
    let text = tool::run("ip", &["-json", "-4", "address", "show", "up", "scope", "global"])?;
    let links: serde_json::Value = serde_json::from_str(&text).doing(|| "reading the interfaces")?;
    let mut found = Vec::new();
    for link in links.as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().unwrap_or_default().to_owned();
        let info = link["addr_info"].as_array().and_then(|all| all.first());
        let address = info.and_then(|info| info["local"].as_str()?.parse().ok());
        let prefix = info.and_then(|info| u8::try_from(info["prefixlen"].as_u64()?).ok());
        if let (Some(address), Some(prefix)) = (address, prefix)
            && args.interface.as_ref().is_none_or(|wanted| *wanted == name)
        {
            found.push((name, (address, prefix)));
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        count => {
            let names: Vec<_> = found.into_iter().map(|(name, _)| name).collect();
            let what = format!("{count} interfaces with an address could be served: {}", names.join(", "));
            Err(Refusal::new(what, "name one with --interface").into())
        }
    }
}

/// The TFTP directory: the loaders, and a menu that knows the port; and dnsmasq's configuration.
fn configure(
    dir: &Path,
    scratch: &Path,
    args: &cli::Serve,
    interface: &str,
    address: (Ipv4Addr, u8),
) -> Result<PathBuf, Fault> {
    let doing = || format!("making {}", scratch.display());
    let grub = scratch.join("tftp/grub");
    fs::create_dir_all(&grub).doing(doing)?;
    let real = fs::canonicalize(dir).doing(doing)?;
    for loader in LOADERS {
        symlink(real.join("grub").join(loader), grub.join(loader)).doing(doing)?;
    }
    symlink(real.join("esp"), scratch.join("tftp/esp")).doing(doing)?;
    fs::write(grub.join("grub.cfg"), netboot::menu(dir, args.http_port)?).doing(doing)?;
    let dhcp = match args.range.as_deref() {
        Some(&[first, last]) => Dhcp::Full(first, last),
        _ => Dhcp::Proxy,
    };
    let config = Config { interface, address, dhcp, tftp: &scratch.join("tftp") };
    let path = scratch.join("dnsmasq.conf");
    fs::write(&path, config.text()).doing(doing)?;
    Ok(path)
}

/// Starts dnsmasq, which ends with this process however that ends; its log is read.
fn start(config: &Path, sender: Sender<Heard>) -> Result<Child, Fault> {
    let file = format!("--conf-file={}", config.display());
    // Whoever changes his group loses the signal at its parent's death.
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        DNSMASQ,
        "--keep-in-foreground",
        "--user=root",
        "--group=root",
        &file,
    ]);
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .doing(|| format!("starting {DNSMASQ}"))?;
    let log = child.stderr.take().ok_or_else(|| Fault::new("dnsmasq has no standard error"))?;
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            let said = if let Some((mac, said)) = dnsmasq::asks(&line) {
                term::say(&format!("{mac}: {said}"));
                None
            } else if let Some((file, to)) = dnsmasq::sent(&line) {
                Some(Heard::Fetches { from: to.to_owned(), path: file.to_owned() })
            } else {
                if line.contains("failed") || line.contains("cannot") || line.contains("error") {
                    term::say(&line);
                }
                None
            };
            if said.is_some_and(|said| sender.send(said).is_err()) {
                return;
            }
        }
    });
    Ok(child)
}

/// Shows every machine and how far it is, until Ctrl-C.
fn show(heard: &Receiver<Heard>, dnsmasq: &mut Child) -> Result<(), Fault> {
    let interrupted = interrupt::listen();
    loop {
        match heard.recv_timeout(Duration::from_millis(300)) {
            Ok(Heard::Fetches { from, path }) => term::say(&format!("{from}: fetches {path}")),
            Ok(Heard::Tells { machine, event }) => term::pass_on(&event, &line(&machine, &event)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        if interrupted.try_recv().is_ok() {
            return Ok(());
        }
        if let Some(status) = dnsmasq.try_wait().doing(|| "waiting for dnsmasq")? {
            return Err(Fault::new(format!("dnsmasq ended with {status}"))
                .help("run this as root; look whether another DHCP or TFTP server runs here"));
        }
    }
}

fn line(machine: &str, event: &Event) -> String {
    let state = match event.state {
        State::Started => " …",
        State::Progress => "",
        State::Succeeded => ": done",
        State::Failed => ": FAILED",
    };
    let percent = event.percent.map(|percent| format!(" {percent}%")).unwrap_or_default();
    let name = if event.host.is_empty() { String::new() } else { format!(" ({})", event.host) };
    format!("{machine}{name}: {}{state}{percent} {}", event.action, event.message).trim_end().to_owned()
}
