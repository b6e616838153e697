//! Records that are not events.

use super::proto::stream_events::{
    Auth, Checkpoint, End, Folded, Gap, KeepAlive, Member, Members, Open, Presence, Record,
    presence::Update, record::Record as Kind,
};
use crate::{
    model::{
        control::Control,
        presence::{self, PresenceUpdate, Roster},
    },
    outlet::format::control::{FoldedData, GapData},
};

/// Returns the record of a control message of the stream `sub`.
pub(super) fn of_control(sub: String, control: &Control) -> Record {
    let kind = match control {
        Control::Open(open) => Kind::Open(Open {
            id: open.id.to_string(),
            stream: open.stream.clone(),
            topics: open.topics.iter().map(ToString::to_string).collect(),
            resumed: open.resumed,
            retry_ms: open.retry_ms,
        }),
        Control::Gap(gap) => Kind::Gap(gap_of(GapData::of(gap))),
        Control::Folded(folded) => Kind::Folded(folded_of(FoldedData::of(folded))),
        Control::Presence(presence) => Kind::Presence(presence_of(presence)),
        Control::Auth(left) => Kind::Auth(Auth { expires_in: left.as_secs() }),
        Control::Checkpoint(id) => Kind::Checkpoint(Checkpoint { id: id.to_string() }),
        Control::KeepAlive | Control::Waiting => Kind::KeepAlive(KeepAlive {}),
        Control::End(end) => {
            Kind::End(End { reason: end.reason.as_str().to_owned(), retry_ms: end.retry_ms })
        }
    };
    Record { sub, record: Some(kind) }
}

fn gap_of(gap: GapData<'_>) -> Gap {
    Gap {
        reason: gap.reason.to_owned(),
        topics: gap.topics.iter().map(|topic| (*topic).to_owned()).collect(),
        topics_more: number(gap.topics_more.unwrap_or_default()),
        after: gap.after.unwrap_or_default(),
        upto: gap.upto,
    }
}

fn folded_of(folded: FoldedData<'_>) -> Folded {
    Folded {
        events: folded.events,
        after: folded.after,
        upto: folded.upto,
        keys: folded.keys.iter().map(|(key, events)| ((*key).to_owned(), *events)).collect(),
        keys_more: number(folded.keys_more.unwrap_or_default()),
    }
}

fn presence_of(presence: &presence::Presence) -> Presence {
    let update = match &presence.update {
        PresenceUpdate::Members(roster) => Update::Members(members(roster)),
        PresenceUpdate::Also(also) => Update::Also(Members {
            members: also.iter().map(member).collect(),
            ..Members::default()
        }),
        PresenceUpdate::Join(name) => Update::Join(name.to_string()),
        PresenceUpdate::Leave(name) => Update::Leave(name.to_string()),
    };
    Presence { topic: presence.topic.as_str().to_owned(), update: Some(update) }
}

/// Returns the members of a topic.
pub(super) fn members(roster: &Roster) -> Members {
    Members {
        members: roster.members.iter().map(member).collect(),
        anonymous: number(roster.anonymous),
        more: roster.more,
    }
}

fn member(member: &presence::Member) -> Member {
    Member { subject: member.name.to_string(), streams: number(member.streams) }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
