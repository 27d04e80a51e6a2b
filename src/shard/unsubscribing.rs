//! What an application does to a room's members: takes some out of it, or leaves one out of a message.

use crate::id::{ClientId, ClientKey, RoomId, RoomKey};
use crate::inbox::Whom;
use crate::metrics::SentType;
use crate::protocol;
use crate::ws::PreparedMessage;

use super::backlog::Lane;
use super::state::{Core, Notice};

impl Core {
    /// Takes the clients that are meant out of a room and tells them; returns how many.
    ///
    /// All members of the room are looked at.
    pub(super) fn unsubscribe(&mut self, room: &RoomId, whom: &Whom) -> usize {
        if let Whom::User(user) = whom {
            self.lobby.unsubscribe(room, user);
        }
        let Some(key) = self.names.get(room).copied() else { return 0 };
        let members = self.rooms[key].room.members().iter().map(|member| member.client);
        let meant: Vec<_> = members.filter(|client| self.clients[*client].is(whom)).collect();
        self.json.clear();
        protocol::write_unsubscribed(room.as_ref(), self.timestamp, &mut self.json);
        let message = PreparedMessage::text(&self.json);
        for client in &meant {
            self.exit(*client, key);
            // Behind what waits for the client: nothing of the room may come after it.
            self.notices.push_back(Notice::message(*client, Lane::Bulk, SentType::Leave, &message));
        }
        meant.len()
    }

    /// The member with this number, which is made ready to be left out of a message; none when it is not in the room.
    ///
    /// All members are looked at, as for every message.
    pub(super) fn exclude(&mut self, room: RoomKey, except: ClientId) -> Option<ClientKey> {
        let local = self.rooms.get_mut(room)?;
        let clients = &self.clients;
        let is_meant =
            |client: ClientKey| clients.get(client).is_some_and(|client| client.session.client() == except);
        let index = local.room.members().iter().position(|member| is_meant(member.client))?;
        let client = local.room.members()[index].client;
        local.room.set_personal(u32::try_from(index).expect("there are fewer members than that"));
        Some(client)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use super::*;
    use crate::hub::{Excluded, Said, Text};
    use crate::id::{ShardIndex, UserId};
    use crate::metrics::Source;

    fn said(exclude: Option<ClientId>) -> Said {
        let text = Text::Whole(PreparedMessage::text(b"hello"));
        let exclude = exclude.map(|id| (ShardIndex(0), Excluded::Id(id)));
        Said { text, key: None, exclude, source: Source::Api, read_at: 0 }
    }

    /// A room with these members, and its name.
    fn joined(world: &mut World, users: &[&str]) -> (RoomId, Vec<ClientKey>) {
        let clients: Vec<_> = users.iter().map(|user| world.enter(user)).collect();
        for client in &clients {
            world.say(*client, r#"{"type":"join","room_id":5}"#);
        }
        world.notices();
        (RoomId::from_u64(5), clients)
    }

    #[test]
    fn who_is_taken_out_of_a_room_is_told_and_gets_nothing_more_of_it() {
        let mut world = World::new();
        let (room, clients) = joined(&mut world, &["ann", "ben", "ann"]);

        let ann = Whom::User(UserId::parse("ann").unwrap());
        assert_eq!(world.shard.core.unsubscribe(&room, &ann), 2);
        world.hub.publish_to(&room, |_| said(None)).unwrap();

        let told = world.notices();
        assert_eq!(told.iter().map(|(client, _)| *client).collect::<Vec<_>>(), [clients[0], clients[2]]);
        let text = String::from_utf8_lossy(&told[0].1).into_owned();
        assert!(
            text.ends_with(r#"{"type":"leave","room_id":5,"reason":"unsubscribed","timestamp":0}"#),
            "{text}"
        );
        assert_eq!(world.deliver().iter().map(|(client, _)| *client).collect::<Vec<_>>(), [clients[1]]);
        assert_eq!(world.shard.core.unsubscribe(&room, &ann), 0, "once");
        assert_eq!(world.shard.core.unsubscribe(&room, &Whom::Client(ClientId(2))), 1);
        assert_eq!(world.hub.rooms(), 0, "the last member is out");
        assert_eq!(world.shard.core.unsubscribe(&room, &ann), 0, "a room that is no more");
        assert!(world.replies(clients[1], r#"{"type":"join","room_id":5,"id":1}"#).contains("ack"));
    }

    #[test]
    fn a_client_is_left_out_of_a_message_by_its_number() {
        let mut world = World::new();
        let (room, clients) = joined(&mut world, &["ann", "ben"]);

        for exclude in [Some(ClientId(1)), None, Some(ClientId(99))] {
            world.hub.publish_to(&room, |_| said(exclude)).unwrap();
        }

        let mut counts = [0, 0];
        for (client, bytes) in world.deliver() {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            counts[usize::from(client == clients[1])] += text.matches("hello").count();
        }
        assert_eq!(counts, [2, 3]);
    }
}
