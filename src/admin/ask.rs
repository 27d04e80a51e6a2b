//! Asks the shards, and waits a bounded time for what they say.

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::inbox::Command;
use crate::inspect::Question;

use super::State;

/// What shards said.
#[derive(Debug)]
pub(super) struct Answers<T> {
    /// Their answers, in the order in which they were asked.
    pub(super) said: Vec<T>,
    /// Those that did not answer in time, or are gone.
    pub(super) missing: Vec<u16>,
}

/// Asks all shards the same, and waits at most so long as the options say, for all of them together.
pub(super) async fn ask_all<T>(
    state: &State,
    mut question: impl FnMut(oneshot::Sender<T>) -> Question,
) -> Answers<T> {
    ask(state, (0..).take(state.shards.len()), |_, answer| question(answer)).await
}

/// As [`ask_all`], but only these shards, each its own question.
pub(super) async fn ask<T>(
    state: &State,
    shards: impl Iterator<Item = u16>,
    mut question: impl FnMut(u16, oneshot::Sender<T>) -> Question,
) -> Answers<T> {
    command(state, shards, |shard, answer| Command::Ask(question(shard, answer))).await
}

/// As [`ask_all`], of a command that is answered. Who answers too late has done it all the same.
pub(super) async fn command_all<T>(
    state: &State,
    mut what: impl FnMut(oneshot::Sender<T>) -> Command,
) -> Answers<T> {
    command(state, (0..).take(state.shards.len()), |_, answer| what(answer)).await
}

/// As [`command_all`], of one shard.
pub(super) async fn command_one<T>(
    state: &State,
    shard: u16,
    mut what: impl FnMut(oneshot::Sender<T>) -> Command,
) -> Answers<T> {
    command(state, std::iter::once(shard), |_, answer| what(answer)).await
}

async fn command<T>(
    state: &State,
    shards: impl Iterator<Item = u16>,
    mut what: impl FnMut(u16, oneshot::Sender<T>) -> Command,
) -> Answers<T> {
    let mut asked = Vec::new();
    for shard in shards {
        let (answer, answered) = oneshot::channel();
        push(state, shard, what(shard, answer));
        asked.push((shard, answered));
    }
    let deadline = Instant::now() + state.options.answer;
    let mut answers = Answers { said: Vec::with_capacity(asked.len()), missing: Vec::new() };
    for (shard, answered) in asked {
        // Past the deadline, this still takes the answers that are there.
        match timeout_at(deadline, answered).await {
            Ok(Ok(said)) => answers.said.push(said),
            Ok(Err(_)) | Err(_) => answers.missing.push(shard),
        }
    }
    answers
}

/// Gives a shard a question that is not waited for.
pub(super) fn tell(state: &State, shard: u16, question: Question) {
    push(state, shard, Command::Ask(question));
}

/// As [`tell`], to all shards.
pub(super) fn tell_all(state: &State, mut question: impl FnMut() -> Question) {
    (0..).take(state.shards.len()).for_each(|shard| tell(state, shard, question()));
}

fn push(state: &State, shard: u16, command: Command) {
    if let Some(outlet) = state.shards.get(usize::from(shard)) {
        // A question may be refused, since too many wait, and is then as one that is not answered; nothing else is refused.
        let _ = outlet.push(command);
    }
}
