//! What is served over TLS: enrolment for strangers with a token, the rest for nodes known by their certificate.

use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRef, FromRequestParts, Json, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{RequestPartsExt as _, Router};
use gatehouse_model::evaluation::Figures;
use gatehouse_model::{Digest, Event, NodeName};

use super::authority::Authority;
use super::connections::Bounded;
use super::credentials::routes as credentials;
use super::tls::{Peer, TlsListener};
use super::{Server, files, status};
use crate::control::board::now_millis;
use crate::control::keeping::Seen;
use crate::wire::{Ack, EnrolAnswer, EnrolRequest, Failure, Milestone, Outcome, POOL_KEY_PATH};

/// The largest body that is read: a batch of progress lines.
const BODY: usize = 256 << 10;
/// The longest text of one event that is kept: a fault with the end of a program's stderr.
const TEXT: usize = 8 << 10;
/// The longest output of one failure that is kept, and how many failures and components of one acknowledgement.
const OUTPUT: usize = 4 << 10;
const MOST: usize = 64;

/// Serves until the runtime ends.
pub(super) async fn serve(listener: TlsListener, server: Arc<Server>) {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/enrol", post(enrol))
        .route("/depot.json", get(depot))
        .route(POOL_KEY_PATH, get(pool_key))
        .route("/profiles/{first}/{second}/XML/profile.xml", get(profile_in_domain))
        .route("/profiles/{first}/XML/profile.xml", get(profile_by_name))
        .route("/components/{digest}", get(program))
        .route("/progress", post(progress))
        .route("/ack", post(ack))
        .route("/credentials/certificate", post(credentials::certificate))
        .route("/credentials/authority", get(credentials::authority))
        .route("/credentials/secrets/{name}", get(credentials::secret))
        .route("/orders", get(order))
        .route("/orders/{id}", post(order_outcome))
        .route("/status.json", get(status::json))
        .route("/status", get(status::page))
        .route("/metrics", get(status::metrics))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(server);
    // It returns only if it cannot accept at all; the port is then closed, which every client sees.
    let routes = routes.into_make_service_with_connect_info::<Peer>();
    let _ = axum::serve(Bounded::new(listener), routes).await;
}

/// A refused or broken request: status and one line for the log of whoever asked.
pub(super) type Refused = (StatusCode, String);

pub(super) fn refuse(status: StatusCode, text: impl std::fmt::Display) -> Refused {
    (status, format!("{text}\n"))
}

/// The node that asks; a request without a certificate of one is answered 401.
#[derive(Debug)]
pub(super) struct Caller(pub(super) NodeName);

impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    Arc<Server>: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let server = Arc::<Server>::from_ref(state);
        let ConnectInfo(peer) = parts
            .extract::<ConnectInfo<Peer>>()
            .await
            .map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, error))?;
        let text = "this needs a node's certificate; enrol with its token first";
        let node = peer.node(&server.current.get().site);
        node.map(Self).ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, text))
    }
}

async fn enrol(
    ConnectInfo(peer): ConnectInfo<Peer>,
    State(server): State<Arc<Server>>,
    Json(request): Json<EnrolRequest>,
) -> Result<Response, Refused> {
    // Signed before the token is redeemed, so that a request that is none leaves the token good.
    let wrong = |fault| refuse(StatusCode::BAD_REQUEST, fault);
    let certificate = server.authority.issue(&request.csr, &request.node).map_err(wrong)?;
    let now = server.current.get();
    let node = now.site.node(request.node.as_str());
    let disk = node.and_then(|node| node.machine.clone());
    let why = match (&request.token, node, &disk) {
        (Some(token), Some(_), None) => {
            server.tokens.redeem(&request.node, token).err().map(|why| why.to_string())
        }
        (None, Some(_), Some(_)) => {
            let fingerprint = Authority::fingerprint_of(&request.csr).map_err(wrong)?;
            if !server.approvals.ask(&request.node, &fingerprint, peer.from.ip()) {
                return Ok(StatusCode::ACCEPTED.into_response());
            }
            None
        }
        (_, None, _) => Some("which is no node of the site".to_owned()),
        (None, Some(_), None) => Some("without a token".to_owned()),
        (Some(_), Some(_), Some(_)) => Some("with a token, and is to be approved".to_owned()),
    };
    if let Some(why) = why {
        let text = format!("{} asks to be {}, {why}", peer.from.ip(), request.node);
        server.refused(peer.from.ip(), "refusing an enrolment", &text);
        // Whoever asks is not told which of them it is.
        let text = "this token is wrong, used or too old; start the node's install again";
        return Err(refuse(StatusCode::FORBIDDEN, text));
    }
    Ok(Json(EnrolAnswer { certificate, disk }).into_response())
}

async fn depot(_: Caller, State(server): State<Arc<Server>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], server.depot.clone()).into_response()
}

/// The pool's key, from a server that the site's authority vouches for.
async fn pool_key(State(server): State<Arc<Server>>) -> Response {
    let key = server.repository.text(POOL_KEY_PATH).map(ToOwned::to_owned);
    key.ok_or_else(|| refuse(StatusCode::SERVICE_UNAVAILABLE, "the pool is not signed yet")).into_response()
}

/// `/profiles/<domain>/<node>/XML/profile.xml`, the address that LCFG clients know.
async fn profile_in_domain(
    Caller(caller): Caller,
    State(server): State<Arc<Server>>,
    Path((domain, node)): Path<(String, String)>,
    asked: HeaderMap,
) -> Response {
    if domain == server.current.get().site.domain {
        profile(&server, &caller, &node, &asked)
    } else {
        refuse(StatusCode::NOT_FOUND, format!("this server has no domain {domain:?}")).into_response()
    }
}

/// The same by full or short name alone.
async fn profile_by_name(
    Caller(caller): Caller,
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    asked: HeaderMap,
) -> Response {
    let now = server.current.get();
    let short = name.strip_suffix(&now.site.domain).and_then(|rest| rest.strip_suffix('.'));
    profile(&server, &caller, short.unwrap_or(&name), &asked)
}

fn profile(server: &Server, caller: &NodeName, node: &str, asked: &HeaderMap) -> Response {
    if caller.as_str() != node {
        return refuse(StatusCode::FORBIDDEN, format!("{caller} may fetch its own profile only"))
            .into_response();
    }
    let Some(page) = server.profiles.page(caller) else {
        let problems: Vec<String> =
            server.profiles.problems(caller).iter().map(ToString::to_string).collect();
        let text = format!("{caller} has no profile yet\n{}", problems.join("\n"));
        return refuse(StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let seen = Seen { etag: page.etag.trim_matches('"').to_owned(), at: now_millis() };
    server.board.of_profile(caller, |profile| profile.fetched = Some(seen));
    let tag = [(header::ETAG, page.etag.clone())];
    if files::is_current(asked, &page.etag) {
        return (StatusCode::NOT_MODIFIED, tag).into_response();
    }
    (tag, [(header::CONTENT_TYPE, "application/xml")], page.xml()).into_response()
}

/// A component's program, to the nodes whose own profile names it.
async fn program(
    Caller(caller): Caller,
    State(server): State<Arc<Server>>,
    Path(digest): Path<String>,
) -> Result<Response, Refused> {
    // One answer for what is not there and for what is another's, so that nothing can be learned by asking.
    let refused = || refuse(StatusCode::NOT_FOUND, format!("the profile of {caller} names no such program"));
    let digest: Digest = digest.parse().map_err(|_| refused())?;
    if !server.profiles.programs(&caller).contains(&digest) {
        return Err(refused());
    }
    let read = tokio::fs::read(server.profiles.program(&digest)).await;
    let bytes = read.map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

async fn progress(
    Caller(caller): Caller,
    State(server): State<Arc<Server>>,
    body: String,
) -> Result<StatusCode, Refused> {
    let lines = body.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let events: Result<Vec<Event>, Refused> = lines
        .map(|(number, line)| {
            serde_json::from_str(line)
                .map_err(|error| refuse(StatusCode::BAD_REQUEST, format!("line {}: {error}", number + 1)))
        })
        .collect();
    for event in events? {
        server.board.tell(told_by(&caller, &event));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A node's event as it goes on the board: it speaks of itself only, and in text that a terminal can show.
fn told_by(node: &NodeName, event: &Event) -> Event {
    Event {
        host: node.to_string(),
        phase: format!("node/{node}"),
        action: plain(&event.action),
        message: plain(&event.message),
        ts: event.ts,
        state: event.state,
        percent: event.percent.map(|percent| percent.min(100)),
    }
}

fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c };
    text.chars().take(TEXT).map(shown).collect()
}

async fn order(Caller(caller): Caller, State(server): State<Arc<Server>>) -> Response {
    server
        .orders
        .of(&caller)
        .map_or_else(|| StatusCode::NO_CONTENT.into_response(), |it| Json(it).into_response())
}

async fn order_outcome(
    Caller(caller): Caller,
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    Json(outcome): Json<Outcome>,
) -> Result<StatusCode, Refused> {
    if server.orders.answer(&caller, &id, in_plain(outcome)) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(refuse(StatusCode::NOT_FOUND, format!("nobody waits for this answer of {caller}")))
}

/// An outcome in text that a terminal can show.
fn in_plain(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Evaluated(tests) => {
            let figures =
                |it: Figures| Figures { label: plain(&it.label), failure: plain(&it.failure), ..it };
            Outcome::Evaluated(tests.into_iter().take(MOST).map(figures).collect())
        }
        Outcome::Failed(text) => Outcome::Failed(plain(&text)),
        Outcome::Frozen | Outcome::Thawed(_) => outcome,
    }
}

async fn ack(Caller(caller): Caller, State(server): State<Arc<Server>>, Json(ack): Json<Ack>) -> StatusCode {
    let ack = shown(ack);
    if let Some((state, text)) = applied(&ack) {
        server.board.say(&format!("node/{caller}"), "applying its profile", state, text);
    }
    server.board.acknowledge(&caller, ack);
    StatusCode::NO_CONTENT
}

/// An acknowledgement as it goes on the board: no longer than it need be, and in text that a terminal can show.
fn shown(ack: Ack) -> Ack {
    let failure = |failure: Failure| Failure {
        component: plain(&failure.component),
        method: plain(&failure.method),
        output: plain(&failure.output).chars().take(OUTPUT).collect(),
    };
    Ack {
        profile: plain(&ack.profile),
        changed: ack.changed.iter().take(MOST).map(|name| plain(name)).collect(),
        failed: ack.failed.into_iter().take(MOST).map(failure).collect(),
        ..ack
    }
}

/// What is told of a profile that was applied; nothing where it changed nothing.
fn applied(ack: &Ack) -> Option<(gatehouse_model::State, String)> {
    if ack.milestone != Milestone::Applied {
        return None;
    }
    let failed: Vec<&str> = ack.failed.iter().map(|failure| failure.component.as_str()).collect();
    let mut parts = Vec::new();
    if !ack.changed.is_empty() {
        parts.push(format!("configured {}", ack.changed.join(", ")));
    }
    let packages = &ack.packages;
    let counts = [
        ("installed", packages.installed),
        ("upgraded", packages.upgraded),
        ("downgraded", packages.downgraded),
        ("removed", packages.removed),
    ];
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    parts.extend(counts.map(|(verb, count)| format!("packages {verb}: {count}")));
    if failed.is_empty() {
        return (!parts.is_empty()).then(|| (gatehouse_model::State::Succeeded, parts.join("; ")));
    }
    parts.push(format!("failed: {}", failed.join(", ")));
    Some((gatehouse_model::State::Failed, parts.join("; ")))
}
