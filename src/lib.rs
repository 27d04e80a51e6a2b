//! Fanfare, a sharded WebSocket gateway: rooms, direct messages and broadcasts for very many connections.
//!
//! The way of a message: a socket is read on the shard that owns it, the bytes are decoded ([`ws`]) and parsed
//! ([`protocol`]), the client's [`session`] says what it asks for, the [`hub`] gives a publication its place in the
//! room's order and puts it into the [`inbox`] of every shard with members, and each [`shard`] writes one shared
//! buffer to all of them. `ARCHITECTURE.md` has the map.

pub mod admission;
pub mod clock;
pub mod egress;
pub mod history;
pub mod id;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod percent;
pub mod presence;
pub mod readiness;
pub mod ws;

pub mod auth;
pub mod drain;
pub mod inbox;
pub mod inspect;
pub mod protocol;
pub mod session;
pub mod transport;
pub mod webhooks;

pub mod http;
pub mod hub;
pub mod shard;

pub mod admin;
pub mod jwks;
pub mod listener;
pub mod watchdog;

pub mod cli;
pub mod config;
pub mod server;
