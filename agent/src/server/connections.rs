//! The connections of a port: no more than the process has room for, and none for ever.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// How many a port has at once; more wait in the kernel's queue. The agent's unit allows as many files as that takes.
const MOST: usize = 4096;
/// After so long without a byte of an answer a connection is closed: nobody asks for anything, says what in time, or reads
/// what is said. Requests are short, and are answered at once.
const SILENCE: Duration = Duration::from_secs(120);

/// A listener of which only so many connections are open at the same time.
#[derive(Debug)]
pub(super) struct Bounded<L> {
    listener: L,
    places: Arc<Semaphore>,
    silence: Duration,
}

impl<L: Listener> Bounded<L> {
    /// The same listener, within these bounds.
    pub(super) fn new(listener: L) -> Self {
        Self::of(listener, MOST, SILENCE)
    }

    fn of(listener: L, most: usize, silence: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(most)), silence }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Nobody closes the semaphore, so that there is always a place in the end.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (io, from) = self.listener.accept().await;
        (Connection::new(io, place, self.silence), from)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that takes a place, and fails when it was silent for too long.
#[derive(Debug)]
pub(super) struct Connection<I> {
    io: I,
    /// Given back with the connection.
    _place: Option<OwnedSemaphorePermit>,
    silence: Duration,
    /// When a byte was written last.
    written: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl<I> Connection<I> {
    fn new(io: I, place: Option<OwnedSemaphorePermit>, silence: Duration) -> Self {
        let alarm = Box::pin(tokio::time::sleep(silence));
        Self { io, _place: place, silence, written: Instant::now(), alarm }
    }

    /// What it was made from.
    pub(super) fn inner(&self) -> &I {
        &self.io
    }

    /// Fails once it was silent for too long; until then whoever waits is woken when it will have been. The alarm is not
    /// set anew with each byte, but only when it goes off.
    fn listen(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let until = self.written + self.silence;
            if Instant::now() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.alarm.as_mut().reset(until);
        }
        Ok(())
    }

    fn in_time<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_pending() {
            self.listen(cx)?;
        }
        done
    }

    fn wrote(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(done, Poll::Ready(Ok(1..))) {
            self.written = Instant::now();
        }
        self.in_time(cx, done)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Connection<I> {
    /// What comes in does not count: a request may come byte by byte for ever.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.listen(cx)?;
        Pin::new(&mut self.io).poll_read(cx, bytes)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Connection<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
        self.wrote(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_flush(cx);
        self.in_time(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_shutdown(cx);
        self.in_time(cx, done)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{sleep, timeout};

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(20);

    fn pair() -> (Connection<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(64);
        (Connection::new(ours, None, SHORT), theirs)
    }

    async fn ends(mut connection: Connection<DuplexStream>) {
        let mut bytes = [0; 1];
        let read = async { while connection.read_exact(&mut bytes).await.is_ok() {} };
        timeout(LONG, read).await.expect("it ends");
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_is_answered_ends() {
        let (silent, _theirs) = pair();
        ends(silent).await;
        let (slow, mut theirs) = pair();
        let writing = tokio::spawn(async move {
            while theirs.write_all(b"x").await.is_ok() {
                sleep(SHORT / 20).await;
            }
        });
        ends(slow).await;
        writing.await.expect("no panic");
        // Nobody reads the answer.
        let (mut deaf, _theirs) = pair();
        let written = timeout(LONG, deaf.write_all(&[0; 1000])).await.expect("it ends");
        assert_eq!(written.expect_err("nobody reads").kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_answer_may_take_as_long_as_it_likes() {
        let (mut ours, mut theirs) = pair();
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.map(|_| all)
        });
        for _ in 0..20 {
            ours.write_all(b"x").await.expect("written");
            sleep(SHORT / 8).await;
        }
        drop(ours);
        assert_eq!(reading.await.expect("no panic").expect("read").len(), 20);
    }

    #[tokio::test]
    async fn one_too_many_waits_for_a_place() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let at = listener.local_addr().expect("an address");
        let mut bounded = Bounded::of(listener, 1, LONG);
        let (_first, _second) = (TcpStream::connect(at).await, TcpStream::connect(at).await);
        let (held, _) = bounded.accept().await;
        timeout(SHORT, bounded.accept()).await.expect_err("there is no place");
        drop(held);
        timeout(LONG, bounded.accept()).await.expect("a place");
    }
}
