//! The bound that a gateway is measured against: a bare loop over sockets that accepts the
//! upgrade and writes every message it gets to everybody, one plain write each.
//!
//! No rooms, no sessions, no limits but one on what a slow reader may have waiting.

use std::io::{self, Cursor, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tungstenite::handshake::machine::TryParse as _;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

const LISTENER: Token = Token(usize::MAX);
const SCRATCH_BYTES: usize = 256 * 1024;
/// A reader that has more than this waiting is let go.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Bare broadcast loop: what gateways are compared with
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Gather up to so many messages of one turn into one write
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    coalesce: u32,
    /// Return each message to its sender only
    #[arg(long)]
    echo: bool,
}

fn main() -> ExitCode {
    match serve(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When standard error is gone as well, the exit code is all that is left to say.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct RawLoop {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Frames that everybody gets with the next write.
    gathered: Vec<u8>,
    messages: u32,
    coalesce: u32,
    echo: bool,
}

struct Connection {
    stream: TcpStream,
    upgraded: bool,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
}

fn serve(cli: &Cli) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let mut listener =
        TcpListener::bind(cli.listen).with_context(|| format!("listening on {}", cli.listen))?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    writeln!(io::stdout(), "listening public ws://{}/ws", listener.local_addr()?)?;
    let mut raw = RawLoop {
        poll,
        listener,
        connections: Vec::new(),
        free: Vec::new(),
        gathered: Vec::new(),
        messages: 0,
        coalesce: cli.coalesce,
        echo: cli.echo,
    };
    let mut scratch = vec![0; SCRATCH_BYTES];
    let mut events = Events::with_capacity(1024);
    loop {
        match raw.poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match event.token() {
                LISTENER => raw.accept()?,
                Token(number) => raw.handle(number, event.is_writable(), &mut scratch),
            }
        }
        raw.broadcast();
    }
}

impl RawLoop {
    fn accept(&mut self) -> Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("accept"),
            };
            stream.set_nodelay(true)?;
            let number = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(number), interest)?;
            let connection =
                Connection { stream, upgraded: false, inbound: Vec::new(), outbound: Vec::new() };
            self.connections[number] = Some(connection);
        }
    }

    fn handle(&mut self, number: usize, writable: bool, scratch: &mut [u8]) {
        let Some(connection) = self.connections[number].as_mut() else { return };
        if writable && !connection.outbound.is_empty() && connection.flush().is_err() {
            return self.drop_connection(number);
        }
        if self.read(number, scratch).is_err() {
            self.drop_connection(number);
        }
    }

    fn read(&mut self, number: usize, scratch: &mut [u8]) -> Result<()> {
        loop {
            let Some(connection) = self.connections[number].as_mut() else { return Ok(()) };
            let kept = connection.inbound.len();
            scratch[..kept].copy_from_slice(&connection.inbound);
            let filled = match connection.stream.read(&mut scratch[kept..]) {
                Ok(0) => bail!("closed, or a frame that does not fit"),
                Ok(read) => kept + read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let used = self.digest(number, &mut scratch[..filled])?;
            let Some(connection) = self.connections[number].as_mut() else { return Ok(()) };
            if used == filled {
                connection.inbound = Vec::new();
            } else {
                connection.inbound.clear();
                connection.inbound.extend_from_slice(&scratch[used..filled]);
            }
            if filled < scratch.len() {
                return Ok(());
            }
        }
    }

    /// Handles what is whole at the head of the bytes, and says how many they were.
    fn digest(&mut self, number: usize, bytes: &mut [u8]) -> Result<usize> {
        let Some(connection) = self.connections[number].as_mut() else { return Ok(0) };
        let mut used = 0;
        if !connection.upgraded {
            let Some((length, request)) = Request::try_parse(bytes)? else { return Ok(0) };
            let mut answer = Vec::new();
            write_response(&mut answer, &create_response(&request)?)?;
            connection.upgraded = true;
            connection.send(&answer)?;
            used = length;
        }
        loop {
            let mut cursor = Cursor::new(&bytes[used..]);
            let Some((header, length)) = FrameHeader::parse(&mut cursor)? else { return Ok(used) };
            let start = used + header.len(length);
            let Some(end) = usize::try_from(length).ok().and_then(|length| start.checked_add(length)) else {
                bail!("a frame of impossible length");
            };
            let Some(payload) = bytes.get_mut(start..end) else { return Ok(used) };
            unmask(payload, header.mask.context("an unmasked frame")?);
            used = end;
            match header.opcode {
                OpCode::Data(Data::Text) if header.is_final => self.text(number, payload)?,
                OpCode::Control(Control::Pong) => {}
                _ => bail!("closed, or a frame that a load test does not send"),
            }
        }
    }

    fn text(&mut self, number: usize, text: &[u8]) -> Result<()> {
        let Some(connection) = self.connections[number].as_mut() else { return Ok(()) };
        if memmem::find(text, b"\"type\":\"join\"").is_some() {
            let mut frame = Vec::new();
            write_frame(b"{\"type\":\"ack\",\"id\":1,\"timestamp\":0}", &mut frame)?;
            return connection.send(&frame);
        }
        if self.echo {
            let mut frame = Vec::new();
            write_frame(text, &mut frame)?;
            return connection.send(&frame);
        }
        write_frame(text, &mut self.gathered)?;
        self.messages += 1;
        if self.messages >= self.coalesce {
            self.broadcast();
        }
        Ok(())
    }

    fn broadcast(&mut self) {
        if self.messages == 0 {
            return;
        }
        for number in 0..self.connections.len() {
            let Some(connection) = self.connections[number].as_mut() else { continue };
            if connection.upgraded && connection.send(&self.gathered).is_err() {
                self.drop_connection(number);
            }
        }
        self.gathered.clear();
        self.messages = 0;
    }

    fn drop_connection(&mut self, number: usize) {
        if let Some(mut connection) = self.connections[number].take() {
            // Closing the socket takes it out of the poller in any case.
            let _ = self.poll.registry().deregister(&mut connection.stream);
            self.free.push(number);
        }
    }
}

impl Connection {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let written = if self.outbound.is_empty() { write_some(&mut self.stream, bytes)? } else { 0 };
        self.outbound.extend_from_slice(&bytes[written..]);
        if self.outbound.len() > WAITING_BYTES_MAX {
            bail!("the reader is too slow");
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        while !self.outbound.is_empty() {
            match write_some(&mut self.stream, &self.outbound)? {
                0 => break,
                written => drop(self.outbound.drain(..written)),
            }
        }
        Ok(())
    }
}

/// One write; 0 when the socket is full.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn write_frame(payload: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    header.format(payload.len() as u64, out)?;
    out.extend_from_slice(payload);
    Ok(())
}
