// Rows of the list of events. Text is set as text and never as HTML: event data is untrusted.
import { lastMember, pretty } from "./json.js";

// Characters of an event's data that a row keeps, so that all rows fit into the page's memory.
const DATA_MAX = 100_000;
const PREVIEW_MAX = 200;
const TIME = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hourCycle: "h23",
});

// Returns an element with a text.
export function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Returns an element with a time of day. `time` is in Unix milliseconds.
function clock(time) {
  const made = element("time", TIME.format(time));
  made.title = made.dateTime = new Date(time).toISOString();
  return made;
}

// Returns the time at which the gateway stored an event, in Unix milliseconds.
export function storedAt(id) {
  return Number(id.split("-")[0]);
}

// Returns the time between two times in Unix milliseconds, as text.
function latency(from, to) {
  const time = Math.max(0, to - from);
  return time < 10_000 ? `${time} ms` : `${(time / 1000).toFixed(1)} s`;
}

// Returns a copy of a part of a longer text. The copy does not keep the longer text in memory.
function detached(text) {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(text));
}

// Returns what a row keeps of an event: the event without its data; the first characters of the
// data as text, and whether the text is JSON; and the number of characters that are left out.
export function kept({ data, data_base64: base64, ...event }, line) {
  const isJson = base64 === undefined && typeof data !== "string";
  const text = isJson ? lastMember(line, "data") ?? "" : data ?? `(base64) ${base64}`;
  const more = Math.max(0, text.length - DATA_MAX);
  return { event, isJson, text: detached(text.slice(0, DATA_MAX)), more };
}

// Returns the whole data of an event as text, with line ends.
function wholeText({ text, isJson, more }) {
  if (0 < more) return `${text}\n… and ${more.toLocaleString()} more characters`;
  return isJson ? pretty(text) : text;
}

// Returns the list of an event's ids and times.
function idsAndTimes(shown) {
  const { event, arrived, isLive } = shown;
  const stored = storedAt(event.id);
  const published = event.publish_time && Date.parse(event.publish_time);
  const list = document.createElement("dl");
  const add = (name, value) => {
    if (value === undefined || value === "") return;
    const cell = document.createElement("dd");
    cell.append(value);
    list.append(element("dt", name), cell);
  };
  add("Id", event.id);
  add("Message id", event.message_id);
  add("Ordering key", event.ordering_key);
  add("Published", published ? clock(published) : undefined);
  add("Stored", clock(stored));
  add("Arrived", clock(arrived));
  if (published) add("Publishing to storing", latency(published, stored));
  if (isLive) add("Storing to arrival", latency(stored, arrived));
  return list;
}

// Returns the list of an event's attributes.
function attributes(event) {
  const list = document.createElement("dl");
  for (const [name, value] of Object.entries(event.attributes ?? {})) {
    list.append(element("dt", name), element("dd", value));
  }
  return list;
}

// Returns what an open row shows: the whole data, the attributes, and the ids and times.
function whole(shown) {
  const box = element("div", "", "whole");
  const text = element("pre", wholeText(shown));
  // With the focus, the arrow keys scroll in it.
  text.tabIndex = 0;
  text.setAttribute("aria-label", "Data");
  box.append(text);
  if (shown.event.attributes) box.append(element("h3", "Attributes"), attributes(shown.event));
  box.append(element("h3", "Ids and times"), idsAndTimes(shown));
  return box;
}

// Returns the row of an event. `shown` has what `kept` returns, the time of the event's arrival, and
// `isLive`: whether the event was stored after the request for the stream.
export function eventRow(shown) {
  const { event, arrived, isLive } = shown;
  const row = element("li", "", "event");
  const fold = document.createElement("details");
  const line = document.createElement("summary");
  const from = event.publish_time ? Date.parse(event.publish_time) : storedAt(event.id);
  const preview = shown.text.slice(0, PREVIEW_MAX).replace(/\s+/g, " ");
  line.append(clock(isLive ? arrived : storedAt(event.id)), " ", element("b", event.topic), " ");
  if (event.attributes?.event) line.append(element("i", event.attributes.event), " ");
  line.append(element("span", preview, "data"), " ");
  line.append(element("small", isLive ? latency(from, arrived) : "replay"));
  fold.append(line);
  fold.addEventListener("toggle", () => {
    if (fold.open && fold.childElementCount === 1) fold.append(whole(shown));
  });
  row.append(fold);
  return row;
}

// Returns the row of a note: a control message, or a change of the connection.
export function noteRow({ text, kind, data, arrived }) {
  const row = element("li", "", `note ${kind}`);
  const line = element("span", text, "data");
  row.append(clock(arrived), " ", line);
  if (data === undefined) return row;
  const fold = document.createElement("details");
  const summary = document.createElement("summary");
  summary.append(...row.childNodes);
  const details = element("pre", JSON.stringify(data, null, 2));
  details.tabIndex = 0;
  details.setAttribute("aria-label", "Control message");
  fold.append(summary, details);
  row.append(fold);
  return row;
}
