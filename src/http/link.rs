//! Reading and writing during a handshake, over TLS or without.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::transport::{Session, Transport, watch};

/// A connection that is tried first, and watched by the runtime only when it would block.
pub(super) struct Link<'a> {
    socket: &'a mio::net::TcpStream,
    tls: Option<&'a mut Session>,
    watch: Option<AsyncFd<BorrowedFd<'a>>>,
}

impl<'a> Link<'a> {
    pub(super) fn new(transport: &'a mut Transport) -> Self {
        let (socket, tls) = transport.parts();
        Self { socket, tls, watch: None }
    }

    /// Appends what has come; 0 means that the peer has ended its side. Safe to cancel.
    pub(super) async fn read(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            match self.read_now(into) {
                Err(error) => {
                    self.recover(error, self.interest()).await?;
                    self.flush_some()?;
                }
                Ok(count) => return Ok(count),
            }
        }
    }

    fn read_now(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        if let Some(tls) = &mut self.tls {
            let received = tls.read(self.socket, TLS_READ_BYTES, |plain| into.extend_from_slice(plain));
            return received.map(|received| received.bytes);
        }
        self.read_bare_now(READ_BYTES, into)
    }

    /// As [`read`](Self::read), past TLS, which comes behind what a proxy says; what is more than `most` bytes stays where
    /// it is.
    pub(super) async fn read_bare(&mut self, most: usize, into: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            match self.read_bare_now(most, into) {
                Err(error) => self.recover(error, Interest::READABLE).await?,
                Ok(count) => return Ok(count),
            }
        }
    }

    /// Goes through the stack, so that a connection that says nothing holds no buffer meanwhile.
    fn read_bare_now(&self, most: usize, into: &mut Vec<u8>) -> io::Result<usize> {
        let mut buffer = [0; READ_BYTES];
        let mut socket = self.socket;
        let count = socket.read(&mut buffer[..most.min(READ_BYTES)])?;
        into.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => self.recover(error, Interest::WRITABLE).await?,
            }
        }
        self.flush().await
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(tls) => tls.write(self.socket, &[IoSlice::new(bytes)]),
        }
    }

    /// Writes what TLS has waiting.
    async fn flush(&mut self) -> io::Result<()> {
        while let Some(tls) = &mut self.tls
            && let Err(error) = tls.flush(self.socket)
        {
            self.recover(error, Interest::WRITABLE).await?;
        }
        Ok(())
    }

    fn flush_some(&mut self) -> io::Result<()> {
        match self.tls.as_mut().map_or(Ok(()), |tls| tls.flush(self.socket)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    /// Ends our side and waits a little for the peer to end its own: closed earlier, a socket with unread bytes
    /// answers them with RST, and the peer may never see what was written last.
    pub(super) async fn linger(&mut self) {
        let ended = match &mut self.tls {
            None => self.socket.shutdown(Shutdown::Write),
            Some(tls) => tls.shutdown_write(self.socket),
        };
        if ended.is_ok() {
            let _ = timeout(LINGER, self.discard()).await;
        }
    }

    async fn discard(&mut self) {
        let mut total = 0;
        while total < LINGER_BYTES {
            let mut dropped = [0; READ_BYTES];
            match self.socket.read(&mut dropped) {
                Ok(0) => return,
                Ok(count) => total += count,
                Err(error) => {
                    let flushes =
                        self.flush_some().is_ok() && self.recover(error, self.interest()).await.is_ok();
                    if !flushes {
                        return;
                    }
                }
            }
        }
    }

    /// What to wait for before reading goes on: the peer may be waiting for the rest of what TLS has to say.
    fn interest(&self) -> Interest {
        let wants_flush = self.tls.as_ref().is_some_and(|tls| tls.wants_flush());
        if wants_flush { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
    }

    /// Waits until it is worth to try again.
    async fn recover(&mut self, error: io::Error, interest: Interest) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::Interrupted => {
                // The peer may go on like this for ever.
                yield_now().await;
                Ok(())
            }
            io::ErrorKind::WouldBlock => {
                let watch = match &mut self.watch {
                    Some(watch) => watch,
                    none => none.insert(watch(self.socket.as_fd(), Interest::READABLE | Interest::WRITABLE)?),
                };
                watch.ready(interest).await?.clear_ready();
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// A usual head, whole.
pub(super) const READ_BYTES: usize = 2048;

/// The largest record and a little, so that what comes behind the head is not read for long.
const TLS_READ_BYTES: usize = 48 << 10;

/// How long, and for how many bytes, a peer that was refused may go on sending. All that a sender may have on its way when
/// it is refused, and read within a millisecond, for the shard does nothing else meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;
