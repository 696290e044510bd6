//! Plain HTTP: what is not secret and is checked by its digest by whoever fetches it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::get;

use super::Server;

/// Serves until the runtime ends.
pub(super) async fn serve(listener: tokio::net::TcpListener, server: Arc<Server>) {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/{*path}", get(file))
        .with_state(server);
    // It returns only if it cannot accept at all; the port is then closed, which every client sees.
    let _ = axum::serve(listener, routes).await;
}

async fn file(State(server): State<Arc<Server>>, uri: Uri, asked: HeaderMap) -> Response {
    server.files.answer(uri.path(), &asked).await
}
