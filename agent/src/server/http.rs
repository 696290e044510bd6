//! Plain HTTP: what is not secret and is checked by its digest by whoever fetches it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::Server;
use super::connections::Bounded;

/// Serves until the runtime ends.
pub(super) async fn serve(listener: tokio::net::TcpListener, server: Arc<Server>) {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/{*path}", get(file))
        .with_state(server);
    // It returns only if it cannot accept at all; the port is then closed, which every client sees.
    let _ = axum::serve(Bounded::new(listener), routes).await;
}

/// The path comes without percent signs: apt writes `+` and `~` of package names with them.
async fn file(State(server): State<Arc<Server>>, Path(path): Path<String>, asked: HeaderMap) -> Response {
    let path = format!("/{path}");
    match server.repository.text(&path) {
        Some(text) => ([(header::CONTENT_TYPE, "text/plain")], text.to_owned()).into_response(),
        None => server.files.answer(&path, &asked).await,
    }
}
