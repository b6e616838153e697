// Shows what arrives. Text is only ever set as text: event data is untrusted.
//
// Not an EventSource, since that gives events with a type only to those who know its name. This page
// wants all of them.
"use strict";

const ROWS_MAX = 500;
// A longer text is cut, so that ROWS_MAX of them fit into the page's memory.
const DATA_MAX = 100_000;
// A longer text, or one of more lines, is folded to one line.
const FOLD_CHARS = 200;
const FOLD_LINES = 3;
// As many as the gateway answers at once, and how long the page collects them, in milliseconds.
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
  row.insertCell().textContent = id;
  if (!isControl && id) askTopic(id, topic);
  rows.prepend(row);
  while (rows.rows.length > ROWS_MAX) rows.deleteRow(-1);
  empty.hidden = true;
}

// A long text is folded: a line of it, or `sentence`, that a click or the Enter key opens.
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
  // So that the arrow keys scroll in it.
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
};
const ENDS = {
  draining: "The gateway is shutting down.",
  "max-age": "The stream has reached its largest age.",
  expired: "The token has expired.",
  busy: "The gateway has as many streams as it allows.",
  unready: "The gateway cannot check tokens yet.",
};

// What a message of the gateway means, as a sentence.
function explain(type, data) {
  const { topics = [], resumed, reason, expires_in } = parse(data);
  if (type === "stream-open") {
    const which = topics.length > 0 ? topics.join(", ") : "all topics";
    return `The stream is open for ${which}${resumed ? ", and resumes" : ""}.`;
  }
  if (type === "stream-auth") return `The token expires in ${expires_in} s.`;
  if (type === "stream-gap") return GAPS[reason] ?? `Some events are missing (${reason}).`;
  if (type === "stream-end") return ENDS[reason] ?? `The gateway ends the stream (${reason}).`;
  return `The gateway says ${type}.`;
}

// Events do not name their topic: the page asks for it, for many events at once.
const asking = new Map();
let askSoon;

function askTopic(id, cell) {
  asking.set(id, cell);
  // The oldest rows have left the table.
  if (asking.size > ROWS_MAX) asking.delete(asking.keys().next().value);
  askSoon ??= setTimeout(askTopics, ASK_DELAY);
}

async function askTopics() {
  const cells = [...asking].slice(-ASK_MAX);
  for (const [id] of cells) asking.delete(id);
  try {
    const response = await fetch(`/page/topics?ids=${cells.map(([id]) => id).join(",")}`);
    const topics = response.ok ? await response.json() : {};
    for (const [id, cell] of cells) cell.textContent = topics[id] ?? "(unknown)";
  } catch {
    for (const [, cell] of cells) cell.textContent = "(unknown)";
  }
  askSoon = asking.size > 0 ? setTimeout(askTopics, ASK_DELAY) : undefined;
}

function say(text, kind) {
  state.textContent = text;
  state.className = kind;
}

// One block of the stream, as the gateway writes it: lines that end with LF. What is not known is ignored.
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

// Why the gateway, or a proxy before it, refused a stream: as a sentence.
async function refusal(response) {
  const text = await response.text().catch(() => "");
  const { detail } = parse(text);
  const what = `The gateway answered ${response.status} ${response.statusText}`.trimEnd();
  const error = new Error(typeof detail === "string" ? `${what}: ${detail}.` : `${what}.`);
  // Another request of this kind would be refused too.
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

// Over as many connections as it takes, until another filter is followed.
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
      // A browser says "Failed to fetch" or "network error", whatever the cause.
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
document.getElementById("clear").addEventListener("click", () => {
  rows.replaceChildren();
  empty.hidden = false;
});
follow();
