//! The requests for credentials; each is answered by what the asking node's own profile says.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Json, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use gatehouse_model::{Fault, NodeName};

use super::authority::public_key;
use super::table::Entitled;
use crate::server::Server;
use crate::server::secure::{Caller, Refused, refuse};
use crate::server::tls::Peer;
use crate::wire::{CertificateAnswer, CertificateRequest};

/// The longest part of a name that is told of one who asks for what does not exist.
const SHOWN: usize = 64;

/// `POST /credentials/certificate`.
pub(in crate::server) async fn certificate(
    Caller(node): Caller,
    ConnectInfo(peer): ConnectInfo<Peer>,
    State(server): State<Arc<Server>>,
    Json(request): Json<CertificateRequest>,
) -> Result<Json<CertificateAnswer>, Refused> {
    let now = server.current.get();
    let what = format!("a certificate by the name {:?}", shown(&request.name));
    let refused = |why: String| refused(&server, &peer, &node, &what, &why);
    let holder = entitled(&server, &node).certificate(&now.site, &node, &request.name).map_err(refused)?;
    let key = public_key(&request.csr).map_err(|fault| refuse(StatusCode::BAD_REQUEST, fault))?;
    let working = Arc::clone(&server);
    let certificate = aside(move || {
        // The table gives nothing on a site that is none.
        let grid = now.site.grid.as_ref().ok_or_else(|| Fault::new("this is no Grid site"))?;
        let asked = (&node, request.name.as_str());
        let certificate = working.credentials.certify((&now.site, grid), asked, &holder, &key)?;
        working.look_at_ends();
        Ok(certificate)
    });
    Ok(Json(CertificateAnswer { certificate: certificate.await? }))
}

/// `GET /credentials/authority`.
pub(in crate::server) async fn authority(
    _: Caller,
    State(server): State<Arc<Server>>,
) -> Result<Response, Refused> {
    let now = server.current.get();
    let certificate = aside(move || server.credentials.authority(&now.site)).await?;
    let none =
        || refuse(StatusCode::NOT_FOUND, "the site has neither [grid] nor [[grid-user]] in its site.toml");
    let certificate = certificate.ok_or_else(none)?;
    Ok(([(header::CONTENT_TYPE, "application/x-pem-file")], certificate).into_response())
}

/// `GET /credentials/secrets/<name>`.
pub(in crate::server) async fn secret(
    Caller(node): Caller,
    ConnectInfo(peer): ConnectInfo<Peer>,
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let what = format!("the secret {:?}", shown(&name));
    let refused = |why: String| refused(&server, &peer, &node, &what, &why);
    entitled(&server, &node).secret(&name).map_err(refused)?;
    let working = Arc::clone(&server);
    let bytes = aside(move || working.credentials.secret(&name)).await?;
    let kept = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((kept, bytes).into_response())
}

/// What a node may have; nothing before its first profile.
pub(in crate::server) fn entitled(server: &Server, node: &NodeName) -> Entitled {
    let page = server.profiles.page(node);
    page.and_then(|page| page.profile()).map(|profile| Entitled::of(&profile)).unwrap_or_default()
}

/// Tells the board, and the node itself.
fn refused(server: &Server, peer: &Peer, node: &NodeName, what: &str, why: &str) -> Refused {
    let text = format!("{node} asks for {what}: {why}");
    server.refused(peer.from.ip(), "refusing credentials", &text);
    refuse(StatusCode::FORBIDDEN, text)
}

fn shown(name: &str) -> String {
    name.chars().take(SHOWN).collect()
}

/// Works with files where no other request waits for it.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    let broken = |text: String| refuse(StatusCode::INTERNAL_SERVER_ERROR, text);
    done.map_err(|error| broken(error.to_string()))?.map_err(|fault| broken(fault.to_string()))
}
