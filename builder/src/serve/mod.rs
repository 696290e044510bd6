//! `gatehouse serve`: what a built `pxe/` has, for the machines of a LAN that start from the network. DHCP and TFTP are
//! dnsmasq's; files and events go by HTTP.

mod dnsmasq;
mod http;
mod interface;
mod silent;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddrV4, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use gatehouse_model::{Doing as _, Event, Fault, Problem, Refusal, State};

use crate::cli;
use crate::image::netboot::{self, Told};
use crate::interrupt::{self, Fleeting};
use crate::{term, tool};
use dnsmasq::{Config, Dhcp};
use http::Heard;
use interface::Interface;
use silent::Silent;

/// The program.
const DNSMASQ: &str = "dnsmasq";

/// `gatehouse serve`.
///
/// # Errors
/// There is no `pxe/`; a port is taken; dnsmasq does not start or ends.
pub fn run(args: &cli::Serve) -> Result<(), Fault> {
    let dir = open(&args.out)?;
    let text = tool::run("ip", &["-json", "address", "show"])?;
    let interface = interface::choose(&text, args.interface.as_deref())?;
    let dhcp = match args.range.as_deref() {
        Some(&[first, last]) => interface.check(first, last).map(|()| Dhcp::Full(first, last))?,
        _ => Dhcp::Proxy,
    };
    tool::run(DNSMASQ, &["--version"]).map_err(|fault| fault.help("install dnsmasq-base"))?;
    let server = SocketAddrV4::new(interface.address, args.http_port);
    let listener = TcpListener::bind(server).map_err(|error| {
        let what = format!("port {} of {} cannot be had: {error}", server.port(), server.ip());
        Fault::from(Refusal::new(what, "end what listens there, or name another with --http-port"))
    })?;
    let scratch = scratch()?;
    let (tftp, instead) = (scratch.path().join("tftp"), scratch.path().join("http"));
    lay_out(&dir, &tftp, &instead, server)?;
    let config = Config { interface: &interface, dhcp, tftp: &tftp, http_port: server.port() };
    let path = scratch.path().join("dnsmasq.conf");
    fs::write(&path, config.text()).doing(|| format!("writing {}", path.display()))?;
    let (sender, heard) = channel();
    http::serve(&dir, &instead, listener, sender.clone())?;
    let mut dnsmasq = start(&path, tftp, sender)?;
    let how = if dhcp == Dhcp::Proxy { "proxy DHCP" } else { "DHCP" };
    let Interface { name, .. } = &interface;
    term::say(&format!("serving {} on {name}: {how}, TFTP, http://{server}; Ctrl-C ends it", dir.display()));
    let ended = show(&heard, &mut dnsmasq, server);
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

/// A directory of this process's own, whose name nobody can know before.
fn scratch() -> Result<Fleeting, Fault> {
    let made = tempfile::Builder::new().prefix("gatehouse-serve-").tempdir();
    Ok(Fleeting::new(made.doing(|| "making a temporary directory")?.keep()))
}

/// What TFTP serves, and what HTTP serves in place of the directory's own: loaders and menus that name this server.
fn lay_out(dir: &Path, tftp: &Path, instead: &Path, server: SocketAddrV4) -> Result<(), Fault> {
    let told = Told::of(dir, server)?;
    for (to, files) in [(tftp, told.tftp), (instead, told.http)] {
        let doing = || format!("making {}", to.display());
        fs::create_dir_all(to.join("grub")).doing(doing)?;
        files.iter().try_for_each(|(path, bytes)| fs::write(to.join(path), bytes)).doing(doing)?;
    }
    let linked = fs::canonicalize(dir).and_then(|real| symlink(real.join("esp"), tftp.join("esp")));
    linked.doing(|| format!("making {}", tftp.display()))
}

/// Starts dnsmasq, which ends with this process however that ends; its log is read.
fn start(config: &Path, tftp: PathBuf, sender: Sender<Heard>) -> Result<Child, Fault> {
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
                let path = Path::new(file).strip_prefix(&tftp).unwrap_or(Path::new(file));
                Some(Heard::Fetches { from: to.to_owned(), path: path.display().to_string() })
            } else {
                if dnsmasq::is_trouble(&line) {
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
fn show(heard: &Receiver<Heard>, dnsmasq: &mut Child, server: SocketAddrV4) -> Result<(), Fault> {
    let interrupted = interrupt::listen();
    let mut silent = Silent::default();
    loop {
        match heard.recv_timeout(Duration::from_millis(300)) {
            Ok(Heard::Fetches { from, path }) => {
                term::say(&format!("{from}: fetches {path}"));
                silent.heard(&from, &path, Instant::now());
            }
            Ok(Heard::Tells { machine, event }) => term::pass_on(&event, &line(&machine, &event)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        for (from, loader) in silent.overdue(Instant::now()) {
            term::say(&format!(
                "{from}: has {loader} and asks for no menu; see that Secure Boot is off there, and that nothing filters \
                 UDP (TFTP) and port {} of {}",
                server.port(),
                server.ip()
            ));
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
