//! A server that a machine was started from: plain HTTP, everything believed by digest only, continued where it broke.

use std::io::Read;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use gatehouse_model::{Digest, Doing as _, Event, Exit, Fault, FileRef, Mac};
use ureq::Agent;
use ureq::http::StatusCode;

use super::medium::Medium;
use crate::host::args::Origin;
use crate::host::import::{self, SiteFiles};
use crate::node::download::Source;

/// Longest time without a single byte before a connection is given up.
const SILENCE: Duration = Duration::from_secs(20);
/// The lists are fetched whole; more is no list.
const LONGEST: u64 = 64 << 20;
/// How often a list is asked for before the server counts as gone; with the pauses about two minutes, in which a server
/// starts anew.
const ATTEMPTS: u32 = 60;
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 2000 });
/// The header by which a server tells machines apart.
const MACHINE: &str = "X-Gatehouse-Machine";

/// What a server has for this machine.
#[derive(Debug)]
pub struct Served {
    url: String,
    agent: Agent,
    list: Vec<u8>,
    sites: SiteFiles,
}

impl Served {
    /// Fetches the lists that the kernel's command line names.
    ///
    /// # Errors
    /// The server does not answer, or its lists are not those that were named.
    pub fn open(origin: &Origin) -> Result<Self, Fault> {
        let (url, agent) = (origin.url.clone(), agent());
        let list = whole(&agent, &format!("{url}/contents.json"), origin.contents)?;
        let tar = whole(&agent, &format!("{url}/sites.tar"), origin.sites)?;
        let sites = import::from_tar(tar.as_slice())?;
        Ok(Self { url, agent, list, sites })
    }
}

impl Medium for Served {
    fn list(&self) -> &[u8] {
        &self.list
    }

    fn sites(&self) -> &SiteFiles {
        &self.sites
    }

    /// Files of the boot partition have a directory of their own there.
    fn piece(&self, piece: &FileRef) -> Result<Box<dyn Source>, Fault> {
        let place = if piece.path.starts_with("image/") { "" } else { "esp/" };
        let url = format!("{}/{place}{}", self.url, piece.path);
        Ok(Box::new(UrlSource { url, agent: self.agent.clone() }))
    }
}

fn agent() -> Agent {
    Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(5)))
        .timeout_per_read(Some(SILENCE))
        .timeout_per_write(Some(SILENCE))
        .input_buffer_size(1 << 20)
        .build()
        .new_agent()
}

/// A whole small file, which must have a digest.
fn whole(agent: &Agent, url: &str, wanted: Digest) -> Result<Vec<u8>, Fault> {
    let mut attempt = 0;
    let bytes = loop {
        attempt += 1;
        match get(agent, url) {
            Ok(bytes) => break bytes,
            Err(fault) if attempt == ATTEMPTS => {
                return Err(fault).doing(|| format!("fetching {url}")).map_err(|fault| {
                    fault.help("look at the server and the cable, then start this machine again")
                });
            }
            Err(_) => thread::sleep(PAUSE),
        }
    };
    let digest = Digest::of(&bytes);
    if digest == wanted {
        return Ok(bytes);
    }
    Err(Fault::new(format!("the digest of {url} is {digest}, not {wanted} as the boot loader said"))
        .help("let the boot loader's menu and the files come from the same build")
        .exit(Exit::Mismatch))
}

fn get(agent: &Agent, url: &str) -> Result<Vec<u8>, Fault> {
    let answer = agent.get(url).call()?;
    if answer.status() != StatusCode::OK {
        return Err(Fault::new(format!("the server answers {}", answer.status())));
    }
    Ok(answer.into_body().into_with_config().limit(LONGEST).read_to_vec()?)
}

/// A file of the server.
#[derive(Debug)]
struct UrlSource {
    url: String,
    agent: Agent,
}

impl Source for UrlSource {
    fn open(&self, from: u64) -> Result<Box<dyn Read + Send>, Fault> {
        let doing = || format!("fetching {}", self.url);
        let answer =
            self.agent.get(&self.url).header("Range", format!("bytes={from}-")).call().doing(doing)?;
        let status = answer.status();
        if status == StatusCode::PARTIAL_CONTENT || (status == StatusCode::OK && from == 0) {
            return Ok(Box::new(answer.into_body().into_with_config().limit(u64::MAX).reader()));
        }
        Err(Fault::new(format!("the server answers {status}"))).doing(doing)
    }
}

/// Has events told to the server as well, by a thread of its own: nothing waits for that, and what cannot be told is
/// not told.
pub fn tell(origin: &Origin, machine: Mac) -> Sender<Event> {
    let (sender, events) = channel::<Event>();
    let (url, agent) = (format!("{}/events", origin.url), agent());
    thread::spawn(move || {
        for event in events {
            let _ =
                agent.post(&url).header(MACHINE, machine.to_string()).send(format!("{}\n", event.to_line()));
        }
    });
    sender
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;
    use crate::host::bring::copy;

    /// A server that gives at most so many bytes of a file in one connection, and knows one file.
    fn server(file: Vec<u8>, most: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut asked = Vec::new();
                let mut byte = [0];
                while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    asked.push(byte[0]);
                }
                let asked = String::from_utf8(asked).unwrap().to_lowercase();
                let from = asked
                    .split_once("range: bytes=")
                    .map_or(0, |(_, rest)| rest.split('-').next().unwrap().parse::<usize>().unwrap());
                let status = if asked.contains("range:") { "206 Partial Content" } else { "200 OK" };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    file.len() - from
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&file[from..file.len().min(from + most)]).unwrap();
            }
        });
        url
    }

    #[test]
    fn what_breaks_goes_on_and_what_is_other_is_refused() {
        let file: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n % 253).unwrap()).collect();
        let url = server(file.clone(), 30_000);
        let piece = FileRef { path: "image/root-a".into(), size: 100_000, sha256: Digest::of(&file) };
        let source = UrlSource { url, agent: agent() };
        assert_eq!(copy::whole(&source, &piece).unwrap(), file);

        let url = server(b"list".to_vec(), 100);
        assert_eq!(whole(&agent(), &url, Digest::of(b"list")).unwrap(), b"list");
        let fault = whole(&agent(), &url, Digest::of(b"other")).unwrap_err();
        assert_eq!(fault.exit_status(), Exit::Mismatch);
    }
}
