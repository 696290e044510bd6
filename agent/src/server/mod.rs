//! The install server: authority, tokens, profiles, HTTP.
//!
//! [`Server::start`] opens two ports on a runtime of its own: plain HTTP for what is not secret and checked by digest
//! (layers, pool, agent), TLS for the rest. Who asks over TLS is known by the certificate got with a one-time token.

pub mod authority;
mod files;
mod holder;
mod http;
mod keep;
mod openpgp;
#[cfg(test)]
mod page_tests;
pub mod profiles;
#[cfg(test)]
mod profiles_tests;
mod repository;
mod secure;
mod shelf;
mod sources;
mod status;
#[cfg(test)]
mod tests;
mod tls;
pub mod tokens;
pub mod view;
pub mod watch;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use gatehouse_model::{Depot, Doing as _, Fault, Lock, Site, State};
use tokio::runtime::{Builder, Runtime};

use self::authority::Authority;
use self::files::Files;
use self::openpgp::Sqop;
use self::profiles::Profiles;
use self::repository::Repository;
use self::tokens::Tokens;
use self::view::ViewKey;
use self::watch::Watch;
use crate::control::board::Board;
use crate::paths::Paths;

#[cfg(test)]
pub(crate) use self::tests::sample_site;

/// How often the sources are looked at where the kernel does not tell of changes.
const REFRESH: Duration = Duration::from_secs(2);
/// How long a stop waits for answers under way.
const STOP: Duration = Duration::from_secs(1);
/// Sockets are waited on by few threads; file reads have threads of their own.
const THREADS: usize = 2;

/// What the server needs to start.
#[derive(Debug)]
pub struct ServerConfig {
    /// The site.
    pub site: Site,
    /// The site's lock.
    pub lock: Lock,
    /// Where site directory, state and depot are.
    pub paths: Paths,
    /// The depot's contents.
    pub depot: Depot,
    /// Where progress and acknowledgements go.
    pub board: Arc<Board>,
    /// The tokens that nodes may show.
    pub tokens: Arc<Tokens>,
    /// Where plain HTTP is served; port 0 takes any that is free.
    pub http: SocketAddr,
    /// Where TLS is served; port 0 takes any that is free.
    pub tls: SocketAddr,
}

/// What every request sees.
#[derive(Debug)]
pub struct Server {
    site: Site,
    depot: String,
    files: Files,
    repository: Repository,
    board: Arc<Board>,
    tokens: Arc<Tokens>,
    authority: Authority,
    profiles: Profiles,
    view: ViewKey,
}

/// A server that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    server: Arc<Server>,
    http: SocketAddr,
    tls: SocketAddr,
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
        let ServerConfig { site, lock, paths, depot, board, tokens, http, tls } = config;
        let authority = Authority::open(&paths.state.join("authority"), &site.domain, site.epoch)?;
        let profiles = Profiles::open(&site, &lock, &paths)?;
        let server = Arc::new(Self {
            depot: serde_json::to_string_pretty(&depot).doing(|| "writing depot.json")?,
            files: Files::new(&paths.depot, &depot),
            repository: Repository::new(&depot.pool, site.name.as_str(), site.epoch),
            site,
            board,
            tokens,
            authority,
            profiles,
            view: ViewKey::open(&paths)?,
        });
        let (plain, secure) = (bind(http)?, bind(tls)?);
        let tls_config = tls::config(&server, tls)?;
        let (http, tls) = (plain.local_addr()?, secure.local_addr()?);
        let watch = Watch::new(&paths.site());
        server.refresh(&BTreeSet::new(), &mut String::new());
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
        let watching = Arc::downgrade(&server);
        thread::Builder::new().name("sources".into()).spawn(move || follow(&watching, watch))?;
        let signing = Arc::clone(&server);
        runtime.spawn_blocking(move || signing.sign(&paths));
        drop(within);
        Ok(Running { server, http, tls, runtime: Some(runtime) })
    }

    /// Makes the pool a signed repository. Installs do without, so that a failure is told and ends nothing.
    fn sign(&self, paths: &Paths) {
        let name = format!("Gatehouse pool of {}", self.site.domain);
        let sqop = Sqop::find(paths.tools.as_deref());
        if let Err(fault) = self.repository.sign(&paths.state.join("pool"), &name, &sqop) {
            self.board.say("server", "signing the pool", State::Failed, fault.to_string());
        }
    }

    /// Publishes what changed in the sources and tells it; `last` keeps one fault from being told at every look.
    fn refresh(&self, touched: &BTreeSet<PathBuf>, last: &mut String) {
        let say = |state, message: String| self.board.say("server", "compiling profiles", state, message);
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
}

impl Running {
    /// The authority's certificate (PEM), which a node's passport carries.
    pub fn authority_pem(&self) -> String {
        self.server.authority.certificate().to_owned()
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

/// Publishes what changes until the server is gone. Where the kernel cannot tell of changes, the files are looked at
/// every now and then.
fn follow(server: &Weak<Server>, watch: Result<Watch, Fault>) {
    let mut last = String::new();
    let mut watch = watch.ok();
    loop {
        let touched = match watch.as_mut().map(|watch| watch.wait(REFRESH)) {
            Some(Ok(Some(touched))) => Some(touched),
            Some(Ok(None)) => None,
            Some(Err(_)) | None => {
                watch = None;
                thread::sleep(REFRESH);
                Some(BTreeSet::new())
            }
        };
        let Some(server) = server.upgrade() else { return };
        if let Some(touched) = touched {
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
