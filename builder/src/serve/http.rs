//! The HTTP side: files in ranges, and what machines tell of themselves.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use gatehouse_model::{Doing as _, Event, Fault};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tower_http::services::ServeDir;

/// The header by which machines tell who they are.
const MACHINE: &str = "x-gatehouse-machine";
/// More events at once are none of an installer.
const LONGEST: usize = 64 << 10;
/// How long to wait when a connection cannot be taken, as where too many files are open.
const PAUSE: Duration = Duration::from_secs(1);

/// Something that a machine asked for or told.
#[derive(Debug)]
pub enum Heard {
    /// It fetches a file.
    Fetches {
        /// Its address.
        from: String,
        /// The file.
        path: String,
    },
    /// It tells what it does.
    Tells {
        /// Its hardware address, or else its address.
        machine: String,
        /// What it does.
        event: Event,
    },
}

/// Serves a directory until the process ends, and in place of its files those of another that has them.
///
/// # Errors
/// The port is taken; no thread can be started.
pub fn serve(dir: &Path, instead: &Path, listener: TcpListener, heard: Sender<Heard>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .doing(|| "starting the HTTP server")?;
    listener.set_nonblocking(true).doing(|| "starting the HTTP server")?;
    let files = |dir| ServeDir::new(dir).append_index_html_on_directories(false);
    let router = Router::new()
        .route("/events", post(events))
        .fallback_service(files(instead).fallback(files(dir)))
        .layer(from_fn_with_state(heard.clone(), note))
        .with_state(heard);
    std::thread::spawn(move || runtime.block_on(answer(listener, router)));
    Ok(())
}

/// Answers every connection. GRUB started by UEFI HTTP boot knows `Content-Length` in that spelling only; it takes a
/// file without it for an empty one.
async fn answer(listener: TcpListener, router: Router) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(ConnectInfo(from))));
        tokio::spawn(async move {
            let mut connection = http1::Builder::new();
            connection.title_case_headers(true);
            // Machines hang up when they like.
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Notes who fetches what; a file in ranges is one fetch, and asking how long it is none.
async fn note(
    State(heard): State<Sender<Heard>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let begins = request.headers().get("range").is_none_or(|range| range.as_bytes().starts_with(b"bytes=0-"));
    if begins && request.method() == Method::GET {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let from = from.ip().to_string();
        // Nobody listens any more only when the program ends.
        let _ = heard.send(Heard::Fetches { from, path });
    }
    next.run(request).await
}

async fn events(
    State(heard): State<Sender<Heard>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) {
    let machine = headers.get(MACHINE).and_then(|value| value.to_str().ok());
    let machine = machine.map_or_else(|| from.ip().to_string(), str::to_owned);
    let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST)]).into_owned();
    for event in text.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok()) {
        let _ = heard.send(Heard::Tells { machine: machine.clone(), event });
    }
}
