//! A trial: the whole of a site on this machine, in namespaces of its own, without an image.
//!
//! Started as the first process of a process namespace (`unshare --pid --fork`), so that every node ends
//! with it. It ends when its standard input does: whoever started it holds the other end. As systemd does on a host, it
//! starts the agent anew when that dies, while the nodes go on.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use gatehouse_model::{Doing as _, Fault, Site};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use crate::host::daemon::{self, Sink};
use crate::host::lifecycle::BRIDGE;
use crate::paths::Paths;
use crate::tool;

/// `gatehouse-agent trial`.
#[derive(Clone, Debug, Args)]
pub struct TrialOptions {
    /// Directory of the trial
    #[arg(long)]
    dir: PathBuf,
    /// The depot
    #[arg(long)]
    depot: PathBuf,
    /// The site directory
    #[arg(long)]
    site: PathBuf,
    /// A tree with programs that this machine may lack
    #[arg(long)]
    tools: Option<PathBuf>,
    /// LISTEN:PORT=ADDRESS:PORT, a way into the trial's network
    #[arg(long)]
    forward: Vec<Forward>,
    /// Be the agent itself, in the namespaces of the trial's first process
    #[arg(long)]
    serve: bool,
}

/// The pause before the agent is started again.
const PAUSE: Duration = Duration::from_secs(1);
/// The exit status of a program that panicked.
const PANICKED: i32 = 101;

/// The trial's bridge, in a network of its own: any locally administered address will do.
const BRIDGE_MAC: &str = "02:67:68:00:00:01";

/// A port outside that leads to one inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Forward {
    outside: SocketAddr,
    inside: SocketAddr,
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').ok_or("write OUTSIDE:PORT=INSIDE:PORT")?;
        let address = |text: &str| text.parse().map_err(|error| format!("{text:?}: {error}"));
        Ok(Self { outside: address(parts.0)?, inside: address(parts.1)? })
    }
}

/// Runs a trial until standard input ends.
///
/// # Errors
/// The namespaces cannot be made; as [`daemon::serve`].
pub fn run(options: &TrialOptions) -> Result<(), Fault> {
    let mut paths = Paths::trial(&options.dir, &options.depot);
    paths.tools.clone_from(&options.tools);
    if options.serve {
        let sinks = vec![Sink { to: Box::new(io::stdout()), progress: true }];
        return daemon::serve(&paths, sinks, wait_for_end);
    }
    // A socket stays in the network that it was made in: these listen outside, whatever comes next.
    let mut listeners = Vec::new();
    for forward in &options.forward {
        let listener =
            TcpListener::bind(forward.outside).doing(|| format!("listening on {}", forward.outside))?;
        listeners.push((listener, forward.inside));
    }
    let site = import(&options.site, &paths)?;
    enter(&site)?;
    for (listener, inside) in listeners {
        std::thread::spawn(move || forward(&listener, inside));
    }
    keep_agent()
}

fn wait_for_end() -> Result<(), Fault> {
    io::copy(&mut io::stdin().lock(), &mut io::sink()).doing(|| "reading standard input")?;
    Ok(())
}

/// What is held of the agent: the end of its standard input tells it to end.
#[derive(Default)]
struct Held {
    over: bool,
    stdin: Option<ChildStdin>,
}

/// Runs the agent, and starts it anew when a signal or a panic ends it; ends as it ends otherwise.
fn keep_agent() -> Result<(), Fault> {
    let held = Arc::new(Mutex::new(Held::default()));
    let ending = Arc::clone(&held);
    std::thread::spawn(move || {
        // However it ends: nobody is there any more who wants the trial.
        let _ = wait_for_end();
        *ending.lock().unwrap_or_else(PoisonError::into_inner) = Held { over: true, stdin: None };
    });
    loop {
        let args = std::env::args_os().skip(1).chain(["--serve".into()]);
        let mut child = Command::new("/proc/self/exe")
            .args(args)
            .stdin(Stdio::piped())
            .spawn()
            .doing(|| "starting the agent")?;
        let stdin = child.stdin.take();
        let held = || held.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut now = held();
            now.stdin = stdin.filter(|_| !now.over);
        }
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
        match wait_for(pid)? {
            WaitStatus::Exited(_, code) if code != PANICKED => std::process::exit(code),
            ended if held().over => {
                return Err(Fault::new(format!("the agent ended while stopping: {ended:?}")));
            }
            ended => eprintln!("the agent has ended: {ended:?}; starting it again"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits for a process, and buries what others leave: this is the first process of its namespace.
fn wait_for(pid: Pid) -> Result<WaitStatus, Fault> {
    loop {
        match wait() {
            Ok(status) if status.pid() == Some(pid) => return Ok(status),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).doing(|| "waiting for the agent"),
        }
    }
}

/// The trial's site directory is the truth of this run: it takes the place that first boot imports into.
fn import(from: &Path, paths: &Paths) -> Result<Site, Fault> {
    let to = paths.site();
    if !to.exists() {
        std::fs::create_dir_all(&paths.state).doing(|| format!("making {}", paths.state.display()))?;
        std::os::unix::fs::symlink(from, &to).doing(|| format!("making {}", to.display()))?;
    }
    let path = to.join("site.toml");
    let text = std::fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
    Site::parse(&text).map_err(Fault::of_problems)
}

/// A network and mounts of its own, with the site's bridge and the host's address on it.
fn enter(site: &Site) -> Result<(), Fault> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .map_err(|error| Fault::from(error).help("start it through `gatehouse try`, or as root"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).doing(|| "making mounts private")?;
    // /sys shows the network devices of the namespace that it was mounted in.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).doing(|| "mounting /sys")?;
    // With the control groups, which that hides. Who may not have them is told what is not held without them.
    let _ = mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>);
    let address = format!("{}/{}", site.network.host, site.network.subnet.prefix);
    tool::run("ip", &["link", "set", "lo", "up"])?;
    tool::run("ip", &["link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
    // One of its own: else it takes the lowest of its ports', and changes it under the nodes as ports come and go.
    tool::run("ip", &["link", "set", BRIDGE, "address", BRIDGE_MAC])?;
    tool::run("ip", &["address", "add", &address, "dev", BRIDGE])?;
    tool::run("ip", &["link", "set", BRIDGE, "up"]).map(drop)
}

fn forward(listener: &TcpListener, inside: SocketAddr) {
    for outer in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || {
            // A node that is not up yet refuses; the caller sees its connection closed, and tries again.
            let Ok(inner) = TcpStream::connect(inside) else { return };
            let (Ok(outer_read), Ok(inner_read)) = (outer.try_clone(), inner.try_clone()) else { return };
            let back = std::thread::spawn(move || pump(inner_read, outer));
            pump(outer_read, inner);
            // The other direction ends by itself once its side is closed.
            drop(back.join());
        });
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    // A broken connection is as good an end as a closed one.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_forward_has_two_ends() {
        let forward: Forward = "127.0.0.1:4022=10.0.2.21:22".parse().expect("right");
        assert_eq!(forward.inside, SocketAddr::from((Ipv4Addr::new(10, 0, 2, 21), 22)));
        assert!("127.0.0.1:4022".parse::<Forward>().is_err());
    }
}
