// Sentences for the control messages of the gateway.
const GAPS = {
  evicted: "Some events are gone: the gateway holds a limited number for a limited time.",
  restart: "Some events may be missing: the gateway was restarted.",
  "unknown-id": "The gateway does not know where this page was. It goes on with new events.",
  "log-changed": "Some events may be missing: Redis was restarted or replaced.",
  "fold-limit": "The oldest events are left out: the stream selected more events than it may hold.",
};
const ENDS = {
  draining: "The gateway is shutting down.",
  "max-age": "The stream has reached its largest age.",
  expired: "The token has expired.",
  busy: "The gateway has reached a limit of its streams.",
  unready: "The gateway cannot check tokens or ask its log right now.",
};

// Returns the sentence of a control message.
export function explain(type, data) {
  const { topics = [], resumed, reason, expires_in: seconds, events } = data;
  if (type === "stream-open") {
    const which = 0 < topics.length ? topics.join(", ") : "all topics";
    return `The stream is open for ${which}${resumed ? ", and resumes" : ""}.`;
  }
  if (type === "stream-auth") return `The token expires in ${seconds} s.`;
  if (type === "stream-gap") return `Gap. ${GAPS[reason] ?? `Some events are missing (${reason}).`}`;
  if (type === "stream-folded") return `${events} events are left out: newer ones of their keys follow.`;
  if (type === "stream-end") return ENDS[reason] ?? `The gateway ends the stream (${reason}).`;
  return `The gateway says ${type}.`;
}
