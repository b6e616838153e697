// Script of the demo page: reads the stream and shows its events. It sets text as text and never as
// HTML, because event data is untrusted.
//
// It uses fetch and not EventSource: an EventSource delivers an event with a type only to listeners
// of that type, and this page shows events of all types.
"use strict";

const ROWS_MAX = 500;
// Characters of a text. A longer one is cut, so that ROWS_MAX texts fit into the page's memory.
const DATA_MAX = 100_000;
// A text with more characters or lines is shortened to one line.
const FOLD_CHARS = 200;
const FOLD_LINES = 3;
// Ids in one request for topics and attributes, which is the gateway's limit; and the time in
// milliseconds over which ids are collected for a request.
const ASK_MAX = 100;
const ASK_DELAY = 50;
const state = document.getElementById("state");
const rows = document.getElementById("events");
const empty = document.getElementById("empty");
const filter = document.getElementById("filter");
let following = new AbortController();

function show({ id, type, data }) {
  const isControl = type.startsWith("stream-");
  const row = document.createElement("tr");
  row.className = type === "stream-gap" ? "gap" : isControl ? "control" : "";
  row.insertCell().textContent = new Date().toLocaleTimeString();
  const topic = row.insertCell();
  row.insertCell().textContent = type;
  const sentence = isControl ? explain(type, data) : undefined;
  fill(row.insertCell(), data, sentence);
  const attributes = row.insertCell();
  row.insertCell().textContent = id;
  if (!isControl && id) askOrigin(id, { topic, attributes });
  rows.prepend(row);
  while (rows.rows.length > ROWS_MAX) rows.deleteRow(-1);
  empty.hidden = true;
}

// Puts a text into a cell. A long text, or one with a sentence, is shortened to its first characters or
// the sentence; a click or the Enter key opens it.
function fill(cell, data, sentence) {
  const more = data.length - DATA_MAX;
  const whole = more > 0 ? `${data.slice(0, DATA_MAX)}\n… and ${more} more characters` : data;
  const isLong = data.length > FOLD_CHARS || data.split("\n", FOLD_LINES + 1).length > FOLD_LINES;
  if (!isLong && sentence === undefined) {
    cell.textContent = data;
    return;
  }
  const fold = document.createElement("details");
  const line = document.createElement("summary");
  const label = document.createElement("span");
  label.textContent = sentence ?? data.slice(0, FOLD_CHARS).replaceAll("\n", " ");
  line.append(label);
  const text = document.createElement("pre");
  text.textContent = whole;
  // With the focus, the arrow keys scroll in it.
  text.tabIndex = 0;
  fold.append(line, text);
  cell.append(fold);
}

function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

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

// Returns a sentence that explains a control message of the gateway.
function explain(type, data) {
  const { topics = [], resumed, reason, expires_in, events } = parse(data);
  if (type === "stream-open") {
    const which = topics.length > 0 ? topics.join(", ") : "all topics";
    return `The stream is open for ${which}${resumed ? ", and resumes" : ""}.`;
  }
  if (type === "stream-auth") return `The token expires in ${expires_in} s.`;
  if (type === "stream-gap") return GAPS[reason] ?? `Some events are missing (${reason}).`;
  if (type === "stream-folded") return `${events} events are left out: newer ones of their keys follow.`;
  if (type === "stream-end") return ENDS[reason] ?? `The gateway ends the stream (${reason}).`;
  return `The gateway says ${type}.`;
}

// Cells that wait for their event's topic and attributes, by event id. Events on a stream do not name
// them: the page asks the gateway for those of many events at once.
const asking = new Map();
let askSoon;

function askOrigin(id, cells) {
  asking.set(id, cells);
  // The row of the oldest id is no longer in the table.
  if (asking.size > ROWS_MAX) asking.delete(asking.keys().next().value);
  askSoon ??= setTimeout(askOrigins, ASK_DELAY);
}

async function askOrigins() {
  const asked = [...asking].slice(-ASK_MAX);
  for (const [id] of asked) asking.delete(id);
  let origins = {};
  try {
    const response = await fetch(`/page/origins?ids=${asked.map(([id]) => id).join(",")}`);
    if (response.ok) origins = await response.json();
  } catch {
    // The topics stay unknown. The stream's own request says that the gateway cannot be reached.
  }
  for (const [id, cells] of asked) {
    const { topic = "(unknown)", attributes = {} } = origins[id] ?? {};
    cells.topic.textContent = topic;
    const pairs = Object.entries(attributes).map(([key, value]) => `${key}=${value}`);
    fill(cells.attributes, pairs.join("\n"));
  }
  askSoon = asking.size > 0 ? setTimeout(askOrigins, ASK_DELAY) : undefined;
}

function say(text, kind) {
  state.textContent = text;
  state.className = kind;
}

// Reads one block of the stream. The gateway ends lines with LF. Unknown fields are ignored.
function read(block, place) {
  let type = "message";
  const data = [];
  for (const line of block.split("\n")) {
    const [, name, value] = /^([a-z]+): ?([^]*)$/.exec(line) ?? [];
    if (name === "id") place.id = value;
    else if (name === "event") type = value;
    else if (name === "data") data.push(value);
    else if (name === "retry") place.retry = Number(value);
  }
  if (data.length > 0) show({ id: place.id, type, data: data.join("\n") });
}

// Returns an error whose text says why the gateway, or a proxy before it, refused a stream.
async function refusal(response) {
  const text = await response.text().catch(() => "");
  const { detail } = parse(text);
  const what = `The gateway answered ${response.status} ${response.statusText}`.trimEnd();
  const error = new Error(typeof detail === "string" ? `${what}: ${detail}.` : `${what}.`);
  // The same request would be refused again.
  error.isFinal = [400, 401, 403, 404, 405, 406].includes(response.status);
  return error;
}

async function stream(url, place, signal) {
  const headers = { Accept: "text/event-stream" };
  if (place.id) headers["Last-Event-ID"] = place.id;
  const response = await fetch(url, { headers, signal, cache: "no-store" });
  if (!response.ok) throw await refusal(response);
  say("open", "open");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) read(block, place);
  }
}

// Follows the topics of the form. Connects again when a stream ends, until the form is sent again.
async function follow() {
  following.abort();
  following = new AbortController();
  const { signal } = following;
  const url = new URL("/events", location);
  const topic = filter.elements.topic.value.trim();
  if (topic) url.searchParams.set("topic", topic);
  const place = { id: "", retry: 3000 };
  while (!signal.aborted) {
    try {
      await stream(url, place, signal);
      say("reconnecting", "");
    } catch (error) {
      if (signal.aborted) return;
      if (error.isFinal) return say(`${error.message} Change the topics, then press Follow.`, "closed");
      // Browsers say "Failed to fetch" or "network error" for every cause.
      const what = error instanceof TypeError ? "The gateway cannot be reached." : error.message;
      say(`${what} Trying again in ${Math.ceil(place.retry / 1000)} s.`, "closed");
    }
    await new Promise((resolve) => setTimeout(resolve, place.retry));
  }
}

filter.addEventListener("submit", (event) => {
  event.preventDefault();
  follow();
});
document.getElementById("url").textContent = location.origin;
document.getElementById("clear").addEventListener("click", () => {
  rows.replaceChildren();
  empty.hidden = false;
});
follow();
