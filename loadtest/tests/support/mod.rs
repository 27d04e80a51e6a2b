//! A hub that speaks Fanfare's messages, and does one thing wrong if it is told to.

#![expect(clippy::unwrap_used, reason = "a hub that cannot serve fails its test")]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket, accept};

/// What the hub does wrong, with the message of this number and one of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Lose,
    /// Loses two, and says so.
    LoseAndTell,
    /// Says that two are missing, which come all the same.
    TellFalsely,
    Double,
    Swap,
    /// Gives a member what is for another room.
    Mix,
    /// Everything waits for so long.
    Stall(Duration),
    /// Closes a member's connection with 1011.
    Close,
    /// Ends it without a word.
    Vanish,
    RefuseJoins,
    /// Answers upgrades with 503.
    Full,
}

/// The message from which on something goes wrong.
const AT: usize = 20;

type Members = Arc<Mutex<HashMap<String, Vec<Member>>>>;

struct Member {
    socket: WebSocket<TcpStream>,
    held: Option<Message>,
}

/// Starts a hub on a port of its own; it ends with the test's process.
pub(crate) fn hub(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let members = Members::default();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (members, stream) = (Arc::clone(&members), stream.unwrap());
            thread::spawn(move || serve(stream, fault, &members));
        }
    });
    format!("ws://{address}/ws")
}

fn serve(mut stream: TcpStream, fault: Fault, members: &Members) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    if fault == Fault::Full {
        let _ = stream.read(&mut [0; 4096]);
        return stream.write_all(b"HTTP/1.1 503 Full\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n").ok();
    }
    let mut socket = accept(stream.try_clone().ok()?).ok()?;
    let mut published = 0;
    loop {
        let text = match socket.read().ok()? {
            Message::Text(text) => text,
            Message::Close(_) => return socket.flush().ok(),
            _ => continue,
        };
        let request: Value = serde_json::from_str(&text).ok()?;
        let room = request["room_id"].as_str().unwrap_or_default().to_owned();
        if request["type"] == "join" {
            let answer = if fault == Fault::RefuseJoins {
                r#"{"type":"error","id":1,"code":"forbidden","content":"no"}"#.to_owned()
            } else {
                r#"{"type":"ack","id":1,"room_id":"x"}"#.to_owned()
            };
            let mut members = members.lock().unwrap();
            socket.send(Message::text(answer)).ok()?;
            let socket = WebSocket::from_raw_socket(stream.try_clone().ok()?, Role::Server, None);
            members.entry(room).or_default().push(Member { socket, held: None });
        } else {
            published += 1;
            if let Fault::Stall(time) = fault
                && published == AT
            {
                thread::sleep(time);
            }
            publish(members, &room, &text, published, fault);
        }
    }
}

fn publish(members: &Members, room: &str, text: &str, number: usize, fault: Fault) {
    let mut members = members.lock().unwrap();
    let rooms: Vec<String> = members.keys().cloned().collect();
    let Some(all) = members.get_mut(room) else { return };
    for (index, member) in all.iter_mut().enumerate() {
        let message = Message::text(text);
        let mut send = |message: Message| drop(member.socket.send(message));
        if index != 1 || number < AT {
            send(message);
            continue;
        }
        let gap =
            format!(r#"{{"type":"gap","room_id":"{room}","from_offset":1,"to_offset":2,"reason":"slow"}}"#);
        match (fault, number - AT) {
            (Fault::Lose | Fault::LoseAndTell, 0) => {}
            (Fault::LoseAndTell, 1) => send(Message::text(gap)),
            (Fault::TellFalsely, 0) => {
                send(Message::text(gap));
                send(message);
            }
            (Fault::Double, 0) => {
                send(message.clone());
                send(message);
            }
            (Fault::Swap, 0) => member.held = Some(message),
            (Fault::Swap, 1) => {
                send(message);
                if let Some(held) = member.held.take() {
                    drop(member.socket.send(held));
                }
            }
            (Fault::Mix, 0) => {
                let other = rooms.iter().find(|other| *other != room).map_or(room, |other| other);
                let stamp =
                    |room: &str| format!("lt#{}:", room.trim_start_matches("load-").parse::<u32>().unwrap());
                send(Message::text(text.replace(&stamp(room), &stamp(other))));
                send(message);
            }
            (Fault::Close, 0) => send(Message::Close(Some(tungstenite::protocol::CloseFrame {
                code: 1011.into(),
                reason: "broken".into(),
            }))),
            (Fault::Vanish, 0) => drop(member.socket.get_ref().shutdown(std::net::Shutdown::Both)),
            _ => send(message),
        }
    }
}

/// Runs the load test to its end.
pub(crate) fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fanfare-loadtest")).args(arguments).output().unwrap()
}

/// Runs a preset, and returns its exit code and its result.
pub(crate) fn run(url: &str, arguments: &[&str]) -> (i32, Value) {
    let output = loadtest(&[&["run", url, "--json", "--quiet", "--warmup", "0"], arguments].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let result = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), result)
}
