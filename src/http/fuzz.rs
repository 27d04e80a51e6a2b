//! The door for the fuzzing target: the whole way from bytes to an answer, without a socket.

use std::net::{Ipv4Addr, SocketAddr};

use super::Shared;
use super::arrival::Caller;
use super::head::HeadFinder;
use super::upgrade::{answer, print};

/// What a connection of this machine is answered that sends `input` in pieces of so many bytes, and how many bytes of it
/// were its head, where one was found. `None` while more of it has to come.
pub fn answer_to(input: &[u8], piece_len: usize, shared: &Shared) -> Option<(Vec<u8>, Option<usize>)> {
    let mut finder = HeadFinder::default();
    let ends = (piece_len..input.len()).step_by(piece_len).chain([input.len()]);
    let found = ends.map(|end| finder.find(&input[..end], &shared.options)).find_map(Result::transpose)?;
    let answered = found.and_then(|end| {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let (answer, _) = answer(&input[..end], shared, &mut Caller::new(peer, None, shared))?;
        Ok((answer, end))
    });
    Some(match answered {
        Ok((answer, end)) => (answer, Some(end)),
        Err(refusal) => (print(&shared.parser, &refusal, input), None),
    })
}
