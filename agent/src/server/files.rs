//! Files of the depot over HTTP: only those that depot.json names, in pieces, with ranges (RFC 9110, section 14).

use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use gatehouse_model::{Depot, FileRef};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

/// Bytes read at once: large enough that the hops between threads do not show in the rate.
const CHUNK: usize = 1 << 20;

/// The files that may be served, by the path of their address.
#[derive(Debug)]
pub(super) struct Files {
    named: BTreeMap<String, Named>,
}

#[derive(Debug)]
struct Named {
    path: PathBuf,
    size: u64,
    etag: String,
}

impl Files {
    pub(super) fn new(dir: &Path, depot: &Depot) -> Self {
        let agent = [("/agent".to_owned(), &depot.agent)];
        let modules = depot.kernels.values().filter_map(|kernel| kernel.modules.as_ref());
        let layers =
            depot.layers.values().chain(modules).map(|layer| (format!("/{}", layer.file.path), &layer.file));
        let pool = depot.pool.index.iter().chain(depot.pool.packages.values());
        let pool = pool.map(|file| (format!("/{}", file.path), file));
        let loaders = depot.machine.iter().flat_map(|machine| [&machine.boot, &machine.core, &machine.efi]);
        let loaders = loaders.map(|file| (format!("/{}", file.path), file));
        let named = agent
            .into_iter()
            .chain(layers)
            .chain(pool)
            .chain(loaders)
            .filter(|(_, file)| is_below(&file.path));
        Self { named: named.map(|(address, file)| (address, Named::new(dir, file))).collect() }
    }

    /// Answers a request for a path. Paths are compared as they were written, never walked, so none leads outside.
    pub(super) async fn answer(&self, path: &str, asked: &HeaderMap) -> Response {
        match self.named.get(path) {
            Some(file) => file.answer(asked).await,
            None => (StatusCode::NOT_FOUND, "the depot has no such file\n").into_response(),
        }
    }
}

impl Named {
    fn new(dir: &Path, file: &FileRef) -> Self {
        Self { path: dir.join(&file.path), size: file.size, etag: format!("\"{}\"", file.sha256) }
    }

    async fn answer(&self, asked: &HeaderMap) -> Response {
        if is_current(asked, &self.etag) {
            return (StatusCode::NOT_MODIFIED, [(header::ETAG, self.etag.clone())]).into_response();
        }
        let piece = match piece(asked, self.size, &self.etag) {
            Piece::Whole => None,
            Piece::Part(range) => Some(range),
            Piece::Outside => {
                let range = [(header::CONTENT_RANGE, format!("bytes */{}", self.size))];
                return (StatusCode::RANGE_NOT_SATISFIABLE, range).into_response();
            }
        };
        let range = piece.clone().unwrap_or(0..self.size);
        let body = match self.open(&range).await {
            Ok(body) => body,
            Err(error) => {
                let text = format!("reading {}: {error}\n", self.path.display());
                return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
            }
        };
        let status = if piece.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let mut response = (status, self.headers(&range), body).into_response();
        if piece.is_some() {
            let text = format!("bytes {}-{}/{}", range.start, range.end - 1, self.size);
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
        }
        response
    }

    fn headers(&self, range: &Range<u64>) -> [(header::HeaderName, String); 4] {
        [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_LENGTH, (range.end - range.start).to_string()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::ETAG, self.etag.clone()),
        ]
    }

    async fn open(&self, range: &Range<u64>) -> std::io::Result<Body> {
        let mut file = tokio::fs::File::open(&self.path).await?;
        if file.metadata().await?.len() != self.size {
            return Err(std::io::Error::other("its size is not what depot.json says"));
        }
        file.set_max_buf_size(CHUNK);
        file.seek(SeekFrom::Start(range.start)).await?;
        let reader = file.take(range.end - range.start);
        Ok(Body::from_stream(ReaderStream::with_capacity(reader, CHUNK)))
    }
}

/// Which part of a file is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Whole,
    Part(Range<u64>),
    Outside,
}

/// Reads `Range`. What is not one range of bytes is answered with the whole file, as section 14.2 allows; so is a
/// range of a file that has changed since (`If-Range`).
fn piece(asked: &HeaderMap, size: u64, etag: &str) -> Piece {
    let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|known| known != etag) {
        return Piece::Whole;
    }
    let ends = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = ends else { return Piece::Whole };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Piece::Whole,
        (Ok(first), _) if first >= size => Piece::Outside,
        (Ok(first), Ok(last)) => Piece::Part(first..size.min(last.saturating_add(1))),
        (Ok(first), Err(_)) if last.trim().is_empty() => Piece::Part(first..size),
        (Err(_), Ok(tail)) if first.trim().is_empty() && (tail == 0 || size == 0) => Piece::Outside,
        (Err(_), Ok(tail)) if first.trim().is_empty() => Piece::Part(size.saturating_sub(tail)..size),
        _ => Piece::Whole,
    }
}

/// Whether `If-None-Match` names the version that would be sent (RFC 9110, section 13.1.2: weak comparison).
pub(super) fn is_current(asked: &HeaderMap, etag: &str) -> bool {
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

fn is_below(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        for (text, expected) in [
            ("bytes=0-0", Piece::Part(0..1)),
            ("bytes=2-", Piece::Part(2..10)),
            ("bytes=2-99", Piece::Part(2..10)),
            ("bytes=-3", Piece::Part(7..10)),
            ("bytes=-99", Piece::Part(0..10)),
            ("bytes=-0", Piece::Outside),
            ("bytes=10-", Piece::Outside),
            ("bytes=5-4", Piece::Whole),
            ("bytes=0-1,4-5", Piece::Whole),
            ("bytes=a-b", Piece::Whole),
            ("bytes=-", Piece::Whole),
            ("lines=1-2", Piece::Whole),
        ] {
            let mut asked = HeaderMap::new();
            asked.insert(header::RANGE, HeaderValue::from_static(text));
            assert_eq!(piece(&asked, 10, "\"x\""), expected, "{text}");
        }
    }

    #[test]
    fn a_range_of_a_changed_file_is_the_whole_file() {
        let mut asked = HeaderMap::new();
        asked.insert(header::RANGE, HeaderValue::from_static("bytes=2-"));
        asked.insert(header::IF_RANGE, HeaderValue::from_static("\"old\""));
        assert_eq!(piece(&asked, 10, "\"new\""), Piece::Whole);
        assert_eq!(piece(&asked, 10, "\"old\""), Piece::Part(2..10));
    }

    #[test]
    fn a_path_stays_below_the_depot() {
        assert!(is_below("layers/a.tar.zst"));
        for bad in ["", "/etc/passwd", "../x", "a/../../x"] {
            assert!(!is_below(bad), "{bad}");
        }
    }
}
