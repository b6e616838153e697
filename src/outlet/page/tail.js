// List of the newest events, newest first. Rows are made only for events that are shown: when more
// events arrive than the list holds, the page only counts the others.
import { eventRow, noteRow } from "./row.js";

const ROWS_MAX = 300;
// Shortest time between two changes of the list, and between two announcements, in milliseconds.
const SHOW_MS = 100;
const ANNOUNCE_MS = 5000;

const byId = (id) => document.getElementById(id);
const plural = (count, word) => `${count.toLocaleString()} ${word}${count === 1 ? "" : "s"}`;

export class Tail {
  #list = byId("events");
  #pause = byId("pause");
  #waiting = [];
  #waitingEvents = 0;
  #seen = 0;
  #announced = 0;
  #isPaused = false;
  #timer;
  #shownAt = 0;

  constructor() {
    this.#pause.addEventListener("click", () => this.#toggle());
    byId("clear").addEventListener("click", () => this.clear());
    setInterval(() => this.#announce(), ANNOUNCE_MS);
  }

  // Adds an event: see `eventRow`.
  event(shown) {
    this.#seen++;
    this.#waitingEvents++;
    this.#add(() => eventRow(shown));
  }

  // Adds a note, which is no event: see `noteRow`.
  note(shown) {
    this.#add(() => noteRow(shown));
  }

  clear() {
    this.#waiting = [];
    this.#waitingEvents = 0;
    this.#list.replaceChildren();
    this.#schedule();
  }

  #add(makeRow) {
    this.#waiting.push(makeRow);
    if (2 * ROWS_MAX < this.#waiting.length) this.#waiting.splice(0, ROWS_MAX);
    this.#schedule();
  }

  #schedule() {
    const wait = Math.max(0, this.#shownAt + SHOW_MS - performance.now());
    this.#timer ??= setTimeout(() => requestAnimationFrame(() => this.#show()), wait);
  }

  #show() {
    this.#timer = undefined;
    this.#shownAt = performance.now();
    byId("seen").textContent = `${this.#seen.toLocaleString()} seen`;
    if (this.#isPaused) {
      this.#pause.textContent = `Continue (${this.#waitingEvents.toLocaleString()} new)`;
    } else {
      const rows = this.#waiting.slice(-ROWS_MAX).map((makeRow) => makeRow());
      this.#waiting = [];
      this.#waitingEvents = 0;
      this.#list.prepend(...rows.reverse());
      this.#trim();
      this.#list.start = this.#list.childElementCount;
    }
    byId("empty").hidden = this.#list.hasChildNodes();
  }

  // Removes the oldest rows, except one that has the keyboard's focus.
  #trim() {
    const focused = document.activeElement?.closest?.("#events > li");
    for (let row = this.#list.lastElementChild; ROWS_MAX < this.#list.childElementCount; ) {
      const newer = row.previousElementSibling;
      if (row !== focused) row.remove();
      row = newer;
    }
  }

  #toggle() {
    this.#isPaused = !this.#isPaused;
    this.#pause.textContent = this.#isPaused ? "Continue" : "Pause";
    this.#schedule();
  }

  // Tells screen readers the number of new events, and not each event.
  #announce() {
    const count = this.#seen - this.#announced;
    if (0 < count) byId("news").textContent = `${plural(count, "new event")}.`;
    this.#announced = this.#seen;
  }
}
