//! The agent as a service: reads the site, starts the install server, and keeps every node going until it is stopped.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use gatehouse_model::site::{HTTP_PORT, LCFG_SERVER_PORT, VmmKind};
use gatehouse_model::{Depot, Digest, Doing as _, Fault, Lock, Refusal, Site, State};

use crate::control::board::Board;
use crate::control::socket::{self, Answerers, ControlSocket};
use crate::current::Current;
use crate::host::backup::desk::Desk;
use crate::host::backup::identity;
use crate::host::consoles;
use crate::host::evaluate::Evaluator;
use crate::host::keeper::{Keeper, KeeperMeans};
use crate::host::lifecycle::{Lifecycle, Means};
use crate::host::machines::Netboot;
use crate::host::mirror::watch;
use crate::host::report::outbox::Outbox;
use crate::host::report::queue::Queue;
use crate::paths::Paths;
use crate::server::approval::Approvals;
use crate::server::orders::Orders;
use crate::server::tokens::Tokens;
use crate::server::{Running, Server, ServerConfig};
use crate::vmm::kvm::Kvm;
use crate::vmm::uml::Uml;
use crate::vmm::xen::Xen;
use crate::vmm::{self, Vmm};

/// Where a trial's emulator takes the events, if there is one.
const EVENT_PORT: &str = "/dev/virtio-ports/gatehouse.events";

/// Where events go, a line each.
pub struct Sink {
    /// The lines.
    pub to: Box<dyn Write + Send>,
    /// With how far each step is, or only that it began and ended.
    pub progress: bool,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("progress", &self.progress).finish_non_exhaustive()
    }
}

/// Runs on an installed host until systemd stops it.
///
/// # Errors
/// The site or the depot cannot be read, or the server not be started.
pub fn run() -> Result<(), Fault> {
    let paths = Paths::host();
    // The journal keeps what it gets.
    let mut sinks = vec![Sink { to: Box::new(std::io::stdout()), progress: false }];
    if Path::new(EVENT_PORT).exists() {
        let port =
            OpenOptions::new().write(true).open(EVENT_PORT).doing(|| format!("opening {EVENT_PORT}"))?;
        sinks.push(Sink { to: Box::new(port), progress: true });
    }
    serve(&paths, sinks, wait_for_sigterm)
}

/// Serves a site until `until` returns, then stops the nodes in order.
///
/// # Errors
/// As [`run`].
pub fn serve(
    paths: &Paths,
    sinks: Vec<Sink>,
    until: impl FnOnce() -> Result<(), Fault>,
) -> Result<(), Fault> {
    let _only = lock(paths)?;
    let restored = identity::take_up(paths)?;
    let (site, lock) = read_site(&paths.site())?;
    let depot = read_depot(paths)?;
    let board = board(&site, sinks, paths);
    if restored {
        board.say("host", "restoring", State::Succeeded, "this machine is the host of the backup now");
    }
    let driver = driver(&site, paths, &depot, &board)?;
    let ack = site.server.ack_port;
    let current = Arc::new(Current::new(site, lock));
    let (tokens, approvals) = (Arc::new(Tokens::new()), Arc::new(Approvals::default()));
    let orders = Arc::new(Orders::default());
    let evaluations = Arc::new(Evaluator::new(&current, paths, &board, &orders));
    let server = board.phase("server", || {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Server::start(ServerConfig {
            current: Arc::clone(&current),
            paths: paths.clone(),
            depot: depot.clone(),
            board: Arc::clone(&board),
            tokens: Arc::clone(&tokens),
            approvals: Arc::clone(&approvals),
            orders: Arc::clone(&orders),
            http: any(HTTP_PORT),
            tls: any(LCFG_SERVER_PORT),
            ack: any(ack),
        })
    })?;
    let authority = server.authority_pem();
    let netboot = Arc::new(Netboot::new(paths, depot.machine.clone(), Arc::clone(&board)));
    let lifecycle = Lifecycle::start(Means {
        current: Arc::clone(&current),
        paths: paths.clone(),
        depot,
        board: Arc::clone(&board),
        tokens,
        approvals,
        netboot,
        driver,
        authority: authority.clone(),
    });
    let desk = Desk::open(&current, paths, &board, orders, &lifecycle, Digest::of(authority.as_bytes()));
    let keeper = Keeper::open(KeeperMeans {
        current: Arc::clone(&current),
        paths: paths.clone(),
        board: Arc::clone(&board),
        closures: server.closures(),
        lifecycle: Arc::clone(&lifecycle),
        agent: std::env::current_exe().doing(|| "finding this program's own file")?,
    });
    let reports = Arc::new(Outbox::new(Queue::of(&paths.state), current, Arc::clone(&board)));
    reports.start()?;
    let (board_of, steward) = (Arc::clone(&board), Arc::<Lifecycle>::clone(&lifecycle));
    let (changes, backups) = (Arc::new(keeper), Arc::new(desk));
    let answerers = Answerers { board: board_of, steward, changes, reports, evaluations, backups };
    let control = socket::listen(paths, answerers)?;
    until()?;
    stop(&board, &lifecycle, (control, server));
    Ok(())
}

/// Stops the nodes in order, and then what they talk to.
fn stop(board: &Board, lifecycle: &Lifecycle, served: (ControlSocket, Running)) {
    board.say("host", "stopping", State::Started, "");
    lifecycle.stop_all();
    drop(served);
    board.say("host", "stopping", State::Succeeded, "");
}

/// The board, with all that follow it.
fn board(site: &Site, sinks: Vec<Sink>, paths: &Paths) -> Arc<Board> {
    let board = Arc::new(Board::new(site));
    for sink in sinks {
        follow(&board, sink);
    }
    if let Some(issue) = &paths.issue {
        consoles::follow(Arc::clone(&board), issue.clone());
    }
    watch::start(&board);
    board
}

/// One agent at a time; it finds its directories.
fn lock(paths: &Paths) -> Result<nix::fcntl::Flock<File>, Fault> {
    for dir in [&paths.state, &paths.vms, &paths.run, &paths.log] {
        fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
    }
    let path = paths.run.join("agent.lock");
    let file = File::create(&path).doing(|| format!("opening {}", path.display()))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|_| {
        Fault::new(format!("another agent holds {}", path.display()))
            .exit(gatehouse_model::Exit::InUse)
            .help("stop it first")
    })
}

fn read_site(dir: &Path) -> Result<(Site, Lock), Fault> {
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))
    };
    let site = Site::parse(&read("site.toml")?).map_err(Fault::of_problems)?;
    let lock = Lock::parse(&read("site.lock")?).map_err(Fault::of_problems)?;
    Ok((site, lock))
}

fn read_depot(paths: &Paths) -> Result<Depot, Fault> {
    let path = paths.depot.join("depot.json");
    let bytes = fs::read(&path).doing(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes).doing(|| format!("reading {}", path.display()))
}

/// The driver of the site's vmm; a node that asks for what it lacks is a refusal.
fn driver(site: &Site, paths: &Paths, depot: &Depot, board: &Board) -> Result<Box<dyn Vmm>, Fault> {
    let driver: Box<dyn Vmm> = match site.host.vmm {
        VmmKind::Uml => Box::new(Uml::new(paths.clone())?),
        VmmKind::Xen => {
            let (xen, how) = Xen::new(paths.clone())?;
            board.say("host", "choosing how nodes run", State::Succeeded, how.to_owned());
            Box::new(xen)
        }
        VmmKind::Kvm => {
            let kernel = paths.depot.join(&depot.kernel(VmmKind::Kvm)?.kernel.path);
            let (kvm, how) = Kvm::new(paths.clone(), &kernel)?;
            board.say("host", "choosing how nodes run", State::Succeeded, how);
            Box::new(kvm)
        }
    };
    let lacks: Vec<String> =
        site.vms().flat_map(|node| vmm::check(driver.capabilities(), driver.kind(), node)).collect();
    if lacks.is_empty() {
        return Ok(driver);
    }
    Err(Refusal::new(lacks.join("\n"), "change the nodes, or host.vmm, in site.toml").into())
}

/// Writes every event as a line to a sink, until the sink is gone.
fn follow(board: &Board, sink: Sink) {
    let events = board.listen();
    let Sink { mut to, progress } = sink;
    std::thread::spawn(move || {
        for event in events.into_iter().filter(|event| progress || event.percent.is_none()) {
            if writeln!(to, "{}", event.to_line()).and_then(|()| to.flush()).is_err() {
                break;
            }
        }
    });
}

fn wait_for_sigterm() -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let kind = tokio::signal::unix::SignalKind::terminate();
        tokio::signal::unix::signal(kind).doing(|| "waiting for SIGTERM")?.recv().await;
        Ok(())
    })
}
