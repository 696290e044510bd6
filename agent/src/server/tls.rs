//! TLS with optional client certificates: who it is that asks.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use gatehouse_model::{Doing as _, Fault, NodeName, Site};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connections::Bounded;
use super::{Server, signer};

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many may shake hands at once; more wait in the kernel's queue.
const AT_ONCE: usize = 64;

/// The server's side of TLS: its certificate, and the authority that clients' certificates must be from.
pub(super) fn config(server: &Server, address: SocketAddr) -> Result<Arc<ServerConfig>, Fault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(server.authority.certificate_der()?).doing(|| "reading the authority's certificate")?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .doing(|| "preparing the check of clients' certificates")?;
    let site = &server.current.get().site;
    let mut addresses = vec![site.network.host];
    if let SocketAddr::V4(address) = address
        && !addresses.contains(address.ip())
        && !address.ip().is_unspecified()
    {
        addresses.push(*address.ip());
    }
    let (certificate, key) = server.authority.server_identity(&site.name, &addresses)?;
    let clock = Arc::new(Clock { epoch: site.epoch });
    let config = ServerConfig::builder_with_details(provider, clock)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)?;
    Ok(Arc::new(config))
}

/// The machine's clock, but never before the site's epoch.
#[derive(Debug)]
struct Clock {
    epoch: u64,
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(signer::now(self.epoch))))
    }
}

/// Connections whose handshake is done. Each shakes hands in a task of its own, so that one which says nothing
/// keeps no other waiting.
#[derive(Debug)]
pub(super) struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: std::io::Result<SocketAddr>,
}

impl TlsListener {
    /// Must be called within a runtime.
    pub(super) fn new(listener: TcpListener, config: Arc<ServerConfig>) -> Self {
        let (sender, ready) = mpsc::channel(AT_ONCE);
        let address = listener.local_addr();
        tokio::spawn(accept(listener, TlsAcceptor::from(config), sender));
        Self { ready, address }
    }
}

async fn accept(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // Axum's accept, which waits and goes on when the process has no file descriptor left.
        let (stream, peer) = Listener::accept(&mut listener).await;
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                // The other end is gone only when the server is.
                let _ = ready.send((stream, peer)).await;
            }
            drop(place);
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task is gone, as the runtime ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.address.as_ref().copied().map_err(|error| error.kind().into())
    }
}

/// The certificate that a client has shown, already checked to be from the site's authority.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Where it asks from.
    pub(super) from: SocketAddr,
    shown: Option<Arc<Shown>>,
}

/// A certificate, and once it was looked for, the name in it: a connection that stays asks many times.
#[derive(Debug)]
struct Shown {
    certificate: CertificateDer<'static>,
    name: OnceLock<Option<NodeName>>,
}

impl Connected<IncomingStream<'_, Bounded<TlsListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded<TlsListener>>) -> Self {
        let shown = stream.io().inner().get_ref().1.peer_certificates();
        let first = shown.and_then(|chain| chain.first());
        let shown = |certificate: &CertificateDer<'_>| Shown {
            certificate: certificate.clone().into_owned(),
            name: OnceLock::new(),
        };
        let shown = first.map(|certificate| Arc::new(shown(certificate)));
        Self { from: *stream.remote_addr(), shown }
    }
}

impl Peer {
    /// Which node of the site this is.
    pub(super) fn node(&self, site: &Site) -> Option<NodeName> {
        let shown = self.shown.as_ref()?;
        // A site may lose a node while its connection stays, and a node that is new to it connects anew.
        let name = shown.name.get_or_init(|| find(&shown.certificate, site)).as_ref()?;
        site.node(name.as_str()).map(|node| node.name.clone())
    }
}

/// Which node of a site a certificate names.
fn find(certificate: &CertificateDer<'_>, site: &Site) -> Option<NodeName> {
    let certificate = ParsedCertificate::try_from(certificate).ok()?;
    let is = |name: &NodeName| {
        let name = ServerName::try_from(format!("{name}.{}", site.domain));
        name.is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
    };
    site.nodes.iter().map(|node| &node.name).find(|name| is(name)).cloned()
}
