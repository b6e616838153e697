// Connects the parts of the page. README.md has a picture of it.
import { Connection } from "./connection.js";
import { copy, curl } from "./curl.js";
import { Cut } from "./cut.js";
import { Overview } from "./overview.js";
import "./publish.js";
import { kept, storedAt } from "./row.js";
import { explain } from "./sentences.js";
import { Tail } from "./tail.js";

const byId = (id) => document.getElementById(id);
const filter = byId("filter");
const tokenForm = byId("token");
// Reader's token. Neither the URL nor the browser's storage has it.
let token = "";
let requestedAt = 0;

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});
const now = () => Date.now() + overview.offset;
const note = (text, kind = "", data = undefined) => tail.note({ text, kind, data, arrived: now() });

const tail = new Tail();
const overview = new Overview(headers, (topic) => {
  filter.elements.topic.value = topic;
  follow();
});
const connection = new Connection(headers, {
  request: () => (requestedAt = now()),
  event(event, line) {
    cut.event(event);
    const isLive = requestedAt <= storedAt(event.id);
    tail.event({ ...kept(event, line), arrived: now(), isLive });
    showCursor();
  },
  control(type, data) {
    cut.control(type, data, now());
    showCursor();
    if (type === "stream-checkpoint") return;
    note(explain(type, data), type === "stream-gap" ? "gap" : "", data);
  },
  state(kind, text, status) {
    byId("state").className = kind;
    const isOld = byId("state").textContent === text;
    if (!isOld) byId("state").textContent = text;
    if (kind === "open") tokenForm.hidden = true;
    if (kind === "waiting" && !isOld) note(text);
    if (kind === "refused") refused(text, status);
  },
});
const cut = new Cut(connection, note);

function showCursor() {
  byId("cursor").textContent = connection.id;
}

function refused(text, status) {
  byId("state").textContent = `refused (${status})`;
  if (status === 401 || status === 403) {
    byId("token-reason").textContent = text;
    tokenForm.hidden = false;
    tokenForm.elements.token.focus();
    return;
  }
  byId("refusal").textContent = text;
  filter.elements.filter.setAttribute("aria-invalid", text.includes(": filter:"));
  filter.elements.topic.setAttribute("aria-invalid", text.includes(": topic:"));
}

// Opens the stream that the form describes, from its beginning.
function follow() {
  const { topic, filter: expression, begin } = filter.elements;
  const query = new URLSearchParams(begin.value);
  query.set("format", "message");
  if (topic.value.trim()) query.set("topic", topic.value.replace(/\s+/g, ""));
  if (expression.value.trim()) query.set("filter", expression.value.trim());
  byId("refusal").textContent = "";
  for (const input of [topic, expression]) input.removeAttribute("aria-invalid");
  byId("state").textContent = "connecting";
  byId("state").className = "connecting";
  tail.clear();
  connection.follow(query);
}

filter.addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  follow();
});
tokenForm.addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const given = tokenForm.elements.token.value.trim().replace(/^Bearer\s+/i, "");
  tokenForm.elements.token.value = "";
  if (!/^[\w.~+/=-]+$/.test(given)) {
    byId("token-reason").textContent = "This is no token: a token has letters, digits, dots and - _ only.";
    return;
  }
  token = given;
  connection.resume();
  overview.ask();
});
byId("copy").addEventListener("click", () => {
  copy(curl(location.origin, connection.query, connection.id, token !== ""));
});
// On a narrow screen the panels are above the events. They begin closed, so that the events are near the top.
if (matchMedia("(max-width: 60rem)").matches) {
  for (const panel of document.querySelectorAll("aside > details:not(#connection)")) panel.open = false;
}
overview.ask();
follow();
