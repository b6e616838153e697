// Shows what arrives. Text is only ever set as text: event data is untrusted.
"use strict";

const ROWS_MAX = 500;
const DATA_MAX = 2000;
const state = document.getElementById("state");
const rows = document.getElementById("events");
const empty = document.getElementById("empty");
const filter = document.getElementById("filter");
let source;

function show(event, kind) {
  const data = event.data.length > DATA_MAX ? event.data.slice(0, DATA_MAX) + " …" : event.data;
  const row = document.createElement("tr");
  if (kind) row.className = kind;
  for (const text of [new Date().toLocaleTimeString(), event.lastEventId, event.type, data]) {
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

function follow() {
  if (source) source.close();
  const url = new URL("/events", location);
  const topic = filter.elements.topic.value.trim();
  if (topic) url.searchParams.set("topic", topic);
  source = new EventSource(url);
  source.onmessage = (event) => show(event);
  source.addEventListener("stream-open", (event) => {
    say("open", "open");
    show(event, "control");
  });
  source.addEventListener("stream-gap", (event) => show(event, "gap"));
  source.addEventListener("stream-end", (event) => show(event, "control"));
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) return say("reconnecting", "");
    // Any status but 200 makes EventSource give up for good: open it anew.
    say("refused, trying again", "closed");
    setTimeout(follow, 5000);
  };
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
