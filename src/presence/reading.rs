//! Reading: the position of one reader in the changes of a topic.

use crate::{
    model::presence::{Member, MemberName, PresenceUpdate, Roster},
    presence::room::Room,
};

/// Largest number of bytes of the names in one message. A longer list has several messages.
const PART_MAX_BYTES: usize = 8 * 1024;
/// Bytes that each member takes beside its name, about.
const MEMBER_BYTES: usize = 32;

/// Position of a reader in the changes of one topic. The reader has no queue: it reads the room
/// when it can take more.
#[derive(Debug, Default)]
pub struct Reading {
    /// Number of changes that the reader knows.
    known: u64,
    list: List,
}

/// Part of the list that the reader was sent.
#[derive(Debug, Default)]
enum List {
    #[default]
    Nothing,
    /// Members up to this name. Changes of later names are in the parts that follow.
    Upto(MemberName),
    Whole,
}

impl Reading {
    /// Returns the next message for the reader. `None` if it knows everything.
    pub fn next(&mut self, room: &Room) -> Option<PresenceUpdate> {
        let changes = match self.list {
            List::Nothing => None,
            _ => room.changes_after(self.known),
        };
        let Some(changes) = changes else { return Some(self.begin_list(room)) };
        for change in changes {
            self.known += 1;
            let is_sent = match &self.list {
                List::Upto(last) => change.name <= *last,
                _ => true,
            };
            if is_sent {
                let name = change.name.clone();
                let join = PresenceUpdate::Join;
                return Some(if change.is_join { join(name) } else { PresenceUpdate::Leave(name) });
            }
        }
        let List::Upto(last) = &self.list else { return None };
        let last = last.clone();
        let part = self.next_part(room, Some(&last));
        (!part.is_empty()).then_some(PresenceUpdate::Also(part))
    }

    /// Returns true if a reader with the whole list knows all changes up to the number `changed`.
    pub fn is_current(&self, changed: u64) -> bool {
        matches!(self.list, List::Whole) && self.known == changed
    }

    /// Begins the list: at the start, and when changes that the reader does not know are not kept.
    fn begin_list(&mut self, room: &Room) -> PresenceUpdate {
        self.known = room.changed();
        let members = self.next_part(room, None);
        let (anonymous, more) = (room.anonymous(), room.has_more());
        PresenceUpdate::Members(Roster { members, anonymous, more })
    }

    /// Returns the members after `after` that fit into one message.
    fn next_part(&mut self, room: &Room, after: Option<&MemberName>) -> Vec<Member> {
        let mut bytes = 0;
        let mut rest = room.members_after(after).peekable();
        let mut part = Vec::new();
        while let Some(member) = rest.peek() {
            bytes += member.name.as_str().len() + MEMBER_BYTES;
            if PART_MAX_BYTES < bytes && !part.is_empty() {
                break;
            }
            part.extend(rest.next());
        }
        self.list = match (rest.peek(), part.last()) {
            (Some(_), Some(last)) => List::Upto(last.name.clone()),
            _ => List::Whole,
        };
        part
    }
}
