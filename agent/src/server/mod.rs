//! The install server: authority, tokens, profiles, HTTP.
//!
//! [`Server::start`] opens two ports on a runtime of its own: plain HTTP for what is not secret and checked by digest
//! (layers, pool, agent), TLS for the rest. Who asks over TLS is known by the certificate got with a one-time token.

pub mod approval;
pub mod authority;
pub mod closure;
mod connections;
mod credentials;
mod files;
#[cfg(test)]
mod fixture;
mod holder;
mod http;
mod keep;
mod notify;
mod openpgp;
pub mod orders;
#[cfg(test)]
mod page_tests;
pub mod profiles;
#[cfg(test)]
mod profiles_tests;
mod refusals;
mod repository;
mod secure;
mod shelf;
mod signer;
mod sources;
mod status;
#[cfg(test)]
mod tests;
mod tls;
pub mod tokens;
pub mod view;
pub mod watch;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use gatehouse_model::{Depot, Doing as _, Fault, NodeName, State};
use tokio::runtime::{Builder, Runtime};

use self::approval::Approvals;
use self::authority::Authority;
use self::closure::Closures;
use self::credentials::{Store, routes};
use self::files::Files;
use self::openpgp::Sqop;
use self::orders::Orders;
use self::profiles::{Profiles, Refreshed};
use self::refusals::Refusals;
use self::repository::Repository;
use self::tokens::Tokens;
use self::view::ViewKey;
use self::watch::Watch;
use crate::control::board::{Board, now_millis};
use crate::control::keeping::Seen;
use crate::current::Current;
use crate::paths::Paths;

#[cfg(test)]
pub(crate) use self::fixture::{Place, sample_site};
pub(crate) use self::sources::is_component;

/// How often the sources are looked at where the kernel does not tell of changes.
const REFRESH: Duration = Duration::from_secs(2);
/// How often it is looked at which certificates end soon.
const HOUR: Duration = Duration::from_secs(3600);
/// How long a stop waits for answers under way.
const STOP: Duration = Duration::from_secs(1);
/// Sockets are waited on by few threads; file reads have threads of their own.
const THREADS: usize = 2;

/// What the server needs to start.
#[derive(Debug)]
pub struct ServerConfig {
    /// The site with its lock.
    pub current: Arc<Current>,
    /// Where site directory, state and depot are.
    pub paths: Paths,
    /// The depot's contents.
    pub depot: Depot,
    /// Where progress and acknowledgements go.
    pub board: Arc<Board>,
    /// The tokens that nodes may show.
    pub tokens: Arc<Tokens>,
    /// The machines that ask to be let in.
    pub approvals: Arc<Approvals>,
    /// What is ordered of nodes.
    pub orders: Arc<Orders>,
    /// Where plain HTTP is served; port 0 takes any that is free.
    pub http: SocketAddr,
    /// Where TLS is served; port 0 takes any that is free.
    pub tls: SocketAddr,
    /// Where signs of nodes are heard (UDP); port 0 takes any that is free.
    pub ack: SocketAddr,
}

/// What every request sees.
#[derive(Debug)]
pub struct Server {
    current: Arc<Current>,
    depot: String,
    files: Files,
    repository: Repository,
    board: Arc<Board>,
    tokens: Arc<Tokens>,
    approvals: Arc<Approvals>,
    orders: Arc<Orders>,
    authority: Authority,
    credentials: Store,
    refusals: Refusals,
    profiles: Profiles,
    view: ViewKey,
    /// The site directory.
    sources: PathBuf,
    /// The generation of the site that profiles are made for.
    generation: AtomicU64,
}

/// A server that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    server: Arc<Server>,
    closures: Arc<Closures>,
    http: SocketAddr,
    tls: SocketAddr,
    ack: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    /// Opens both ports, compiles the profiles and serves from then on in threads of its own.
    ///
    /// # Errors
    /// A port is taken, or state cannot be read or written. Sources that do not compile are no error: they are
    /// told on the board.
    pub fn start(config: ServerConfig) -> Result<Running, Fault> {
        Self::start_all(config).doing(|| "starting the install server")
    }

    fn start_all(config: ServerConfig) -> Result<Running, Fault> {
        let ServerConfig { current, paths, depot, board, tokens, approvals, orders, http, tls, ack } = config;
        // What these have of the site cannot change on a running machine.
        let now = current.get();
        let site = &now.site;
        let authority = Authority::open(&paths.state.join("authority"), &site.domain, site.epoch)?;
        let profiles = Profiles::open(site, &now.lock, &paths)?;
        let closures = Arc::new(Closures::new(&paths, &depot.pool.suite));
        let solver = Arc::clone(&closures);
        profiles.set_solver(Arc::new(move |wishes| solver.of(wishes)));
        let server = Arc::new(Self {
            depot: serde_json::to_string_pretty(&depot).doing(|| "writing depot.json")?,
            files: Files::new(&paths.depot, &depot),
            repository: Repository::new(&depot.pool, site.name.as_str(), site.epoch),
            generation: AtomicU64::new(now.generation),
            sources: paths.site(),
            current,
            board,
            tokens,
            approvals,
            orders,
            authority,
            credentials: Store::new(&paths),
            refusals: Refusals::default(),
            profiles,
            view: ViewKey::open(&paths)?,
        });
        let (plain, secure) = (bind(http)?, bind(tls)?);
        let tls_config = tls::config(&server, tls)?;
        let (http, tls) = (plain.local_addr()?, secure.local_addr()?);
        server.put_on_board(&paths);
        let watch = Watch::new(&paths.site()).ok();
        server.refresh(&BTreeSet::new(), &mut String::new());
        server.look_at_ends();
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("server")
            .enable_all()
            .build()
            .doing(|| "starting threads")?;
        let within = runtime.enter();
        let plain = tokio::net::TcpListener::from_std(plain)?;
        let secure = tls::TlsListener::new(tokio::net::TcpListener::from_std(secure)?, tls_config);
        runtime.spawn(http::serve(plain, Arc::clone(&server)));
        runtime.spawn(secure::serve(secure, Arc::clone(&server)));
        let socket = runtime.block_on(notify::open(&server, ack)).doing(|| "opening a port for notices")?;
        let ack = socket.local_addr()?;
        runtime.spawn(notify::listen(Arc::clone(&socket), Arc::clone(&server)));
        runtime.spawn(notify::follow(socket, Arc::downgrade(&server)));
        runtime.spawn(warn(Arc::downgrade(&server)));
        let watching = Arc::downgrade(&server);
        thread::Builder::new().name("sources".into()).spawn(move || follow(&watching, watch))?;
        let signing = Arc::clone(&server);
        runtime.spawn_blocking(move || signing.sign(&paths));
        drop(within);
        Ok(Running { server, closures, http, tls, ack, runtime: Some(runtime) })
    }

    /// Makes the pool a signed repository. Installs do without, so that a failure is told and ends nothing.
    fn sign(&self, paths: &Paths) {
        let name = format!("Gatehouse pool of {}", self.current.get().site.domain);
        let sqop = Sqop::find(paths.tools.as_deref());
        if let Err(fault) = self.repository.sign(&paths.state.join("pool"), &name, &sqop) {
            self.board.say("server", "signing the pool", State::Failed, fault.to_string());
        }
    }

    /// Puts what an earlier run has published on the board.
    fn put_on_board(&self, paths: &Paths) {
        for node in &self.current.get().site.nodes {
            let file = paths.state.join("profiles").join(format!("{}.xml", node.name));
            let written = file.metadata().and_then(|about| about.modified());
            let since =
                written.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            self.put_published(&node.name, u64::try_from(since.as_millis()).unwrap_or_default());
        }
    }

    fn put_published(&self, node: &NodeName, at: u64) {
        if let Some(page) = self.profiles.page(node) {
            let etag = page.etag.trim_matches('"').to_owned();
            self.board.of_profile(node, |profile| profile.published = Some(Seen { etag, at }));
        }
    }

    /// Tells that something was refused, unless too much was in a short time.
    fn refused(&self, from: IpAddr, action: &str, text: &str) {
        let Some(untold) = self.refusals.count(from) else { return };
        let more = if untold > 0 { format!(" ({untold} more before it)") } else { String::new() };
        self.board.say("server", action, State::Failed, format!("{text}{more}"));
    }

    /// Puts on the board which certificates end soon. On a Grid site the first look makes the Grid authority.
    fn look_at_ends(&self) -> Vec<String> {
        let now = self.current.get();
        let asks = |node: &NodeName, name: &str| routes::entitled(self, node).lists(name);
        let own = self.authority.validity();
        let warnings = own.and_then(|own| self.credentials.warnings(&now.site, own, asks));
        let warnings = warnings.unwrap_or_else(|fault| vec![fault.to_string()]);
        self.board.warn(&warnings);
        warnings
    }

    /// Publishes what changed in the sources and tells it; `last` keeps one fault from being told at every look.
    fn refresh(&self, touched: &BTreeSet<PathBuf>, last: &mut String) {
        let say = |state, message: String| self.board.say("server", "compiling profiles", state, message);
        let _steady = self.current.steady();
        let now = self.current.get();
        if self.generation.swap(now.generation, Ordering::SeqCst) != now.generation {
            self.profiles.set_site(&now.site, &now.lock);
        }
        match self.profiles.refresh_touched(touched) {
            Ok(None) => last.clear(),
            Ok(Some(done)) => {
                last.clear();
                for problem in done.told() {
                    say(State::Failed, problem.to_string());
                }
                let changed: Vec<&str> = done.changed.iter().map(gatehouse_model::NodeName::as_str).collect();
                if !changed.is_empty() {
                    say(State::Succeeded, format!("published {}", changed.join(", ")));
                }
                self.tell_board(&done);
            }
            Err(fault) => {
                let text = fault.to_string();
                if text != *last {
                    say(State::Failed, text.clone());
                    *last = text;
                }
            }
        }
    }

    fn tell_board(&self, done: &Refreshed) {
        for node in &done.changed {
            self.put_published(node, now_millis());
        }
        for node in &self.current.get().site.nodes {
            let problems =
                done.problems.get(&node.name).into_iter().flatten().map(ToString::to_string).collect();
            self.board.of_profile(&node.name, |profile| profile.problems = problems);
        }
    }
}

impl Running {
    /// The authority's certificate (PEM), which a node's passport carries.
    pub fn authority_pem(&self) -> String {
        self.server.authority.certificate().to_owned()
    }

    /// Who finds the packages that site.lock does not have.
    pub fn closures(&self) -> Arc<Closures> {
        Arc::clone(&self.closures)
    }

    /// The published profiles.
    pub fn profiles(&self) -> &Profiles {
        &self.server.profiles
    }

    /// Where plain HTTP is served.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where TLS is served.
    pub fn tls(&self) -> SocketAddr {
        self.tls
    }

    /// Where signs of nodes are heard.
    pub fn ack(&self) -> SocketAddr {
        self.ack
    }

    /// Compiles what has changed without waiting for the next look.
    #[cfg(test)]
    pub(crate) fn refresh_now(&self) {
        self.server.refresh(&BTreeSet::new(), &mut String::new());
    }

    /// Ends serving; answers under way get a moment.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(STOP);
        }
    }
}

/// Looks every hour which certificates end soon, and tells it once a day, until the server is gone.
async fn warn(server: Weak<Server>) {
    for hour in 0_u64.. {
        let Some(server) = server.upgrade() else { return };
        let looked = tokio::task::spawn_blocking(move || {
            let warnings = server.look_at_ends();
            if hour.is_multiple_of(24) && !warnings.is_empty() {
                let text = warnings.join("\n");
                server.board.say("server", "looking at certificates", State::Failed, text);
            }
        });
        // What broke off is looked at again.
        let _ = looked.await;
        tokio::time::sleep(HOUR).await;
    }
}

/// Publishes what changes until the server is gone. Where the kernel cannot tell of changes, the files are looked at
/// every now and then.
fn follow(server: &Weak<Server>, mut watch: Option<Watch>) {
    let mut last = String::new();
    let mut generation = 0;
    loop {
        let touched = if let Some(Ok(touched)) = watch.as_mut().map(|watch| watch.wait(REFRESH)) {
            touched
        } else {
            watch = None;
            thread::sleep(REFRESH);
            Some(BTreeSet::new())
        };
        let Some(server) = server.upgrade() else { return };
        // Another site directory has taken the place of the one that was watched.
        let now = server.current.get().generation;
        if now != generation {
            watch = Watch::new(&server.sources).ok();
            generation = now;
            server.refresh(&BTreeSet::new(), &mut last);
        } else if let Some(touched) = touched {
            server.refresh(&touched, &mut last);
        }
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, Fault> {
    let open = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok::<_, std::io::Error>(listener)
    };
    open().doing(|| format!("listening at {address}")).map_err(|fault| {
        match holder::of_port(address.port()) {
            Some(holder) => fault.help(format!("stop {holder}, which holds port {}", address.port())),
            None => fault,
        }
    })
}
