// Shows what arrives. Text is only ever set as text: event data is untrusted.
//
// Not an EventSource, since that gives events with a type only to those who know its name. This page
// wants all of them.
"use strict";

const ROWS_MAX = 500;
const DATA_MAX = 2000;
const state = document.getElementById("state");
const rows = document.getElementById("events");
const empty = document.getElementById("empty");
const filter = document.getElementById("filter");
let following = new AbortController();

function show({ id, type, data }) {
  const kind = type === "stream-gap" ? "gap" : type.startsWith("stream-") ? "control" : "";
  const shown = data.length > DATA_MAX ? data.slice(0, DATA_MAX) + " …" : data;
  const row = document.createElement("tr");
  row.className = kind;
  for (const text of [new Date().toLocaleTimeString(), id, type, shown]) {
    row.insertCell().textContent = text;
  }
  rows.prepend(row);
  while (rows.rows.length > ROWS_MAX) rows.deleteRow(-1);
  empty.hidden = true;
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

async function stream(url, place, signal) {
  const headers = { Accept: "text/event-stream" };
  if (place.id) headers["Last-Event-ID"] = place.id;
  const response = await fetch(url, { headers, signal, cache: "no-store" });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
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
      say(`trying again: ${error.message}`, "closed");
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
