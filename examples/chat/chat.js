// The page: shows a room, its lines, and who is in it.
import { Room } from "./room.js";

const LINES_MAX = 1000;
const page = new URLSearchParams(location.search);
const [join, say] = [document.getElementById("join"), document.getElementById("say")];
const [lines, members] = [document.getElementById("lines"), document.getElementById("members")];
const pending = new Map(); // Items of lines that are not confirmed, by id.
const present = new Set();
let anonymous = 0;

function item(className, ...content) {
  const shown = document.createElement("li");
  shown.className = className;
  // Text only, never HTML: anyone who can publish could run scripts here.
  shown.append(...content);
  const isAtEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
  lines.append(shown);
  if (lines.children.length > LINES_MAX) lines.firstChild.remove();
  if (isAtEnd) lines.scrollTop = lines.scrollHeight;
  return shown;
}

function bold(text) {
  const element = document.createElement("b");
  element.textContent = text;
  return element;
}

function showLine(record) {
  // The gateway sets the attribute to the subject of the publisher's token. Without tokens, the name
  // is what the publisher says.
  const sender = record.attributes?.publisher ?? record.data?.name ?? "someone";
  const text = record.data?.text ?? JSON.stringify(record.data) ?? "";
  const at = new Date(record.publish_time ?? Number(record.id.split("-")[0]));
  const time = document.createElement("time");
  time.dateTime = at.toISOString();
  time.textContent = at.toLocaleTimeString();
  const shown = item("line", time, bold(sender), String(text));
  shown.dataset.id = record.id;
}

function showMembers() {
  const names = [...present].sort((a, b) => a.localeCompare(b));
  if (anonymous) names.push(`${anonymous} without a name`);
  members.replaceChildren(...names.map((name) => {
    const shown = document.createElement("li");
    shown.textContent = name;
    return shown;
  }));
}

function changeMembers({ members: all, also = [], join: joined, leave: left, anonymous: unnamed }) {
  if (all) present.clear();
  for (const { subject } of [...(all ?? []), ...also]) present.add(subject);
  if (joined) present.add(joined);
  if (left) present.delete(left);
  anonymous = unnamed ?? anonymous;
  showMembers();
}

function enter(gateway, name, roomName) {
  join.hidden = true;
  document.getElementById("room").hidden = false;
  document.querySelector("h1").textContent = roomName;
  document.title = `${roomName} - Chat`;
  const room = new Room({ gateway, room: roomName, name });
  const on = (type, act) => room.addEventListener(type, ({ detail }) => act(detail));
  on("state", ({ state, reason = "" }) => {
    document.getElementById("state").textContent = `${state} ${reason}`.trim();
  });
  on("line", showLine);
  on("presence", changeMembers);
  on("gap", () => item("note", "Older lines are gone."));
  on("sent", ({ id }) => {
    pending.get(id)?.remove();
    pending.delete(id);
  });
  on("refused", ({ id, reason }) => {
    pending.get(id)?.classList.replace("pending", "note");
    pending.get(id)?.append(` (not sent: ${reason})`);
    pending.delete(id);
  });
  say.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = document.getElementById("text");
    pending.set(room.say(text.value), item("pending", bold(name), text.value));
    text.value = "";
  });
  document.getElementById("text").focus();
}

join.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = new FormData(join);
  enter(page.get("gateway") || location.origin, form.get("name").trim(), form.get("room").trim());
});
for (const key of ["room", "name"]) if (page.has(key)) join.elements[key].value = page.get(key);
if (page.has("room") && page.has("name")) join.requestSubmit();
