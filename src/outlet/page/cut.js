// "Cut my connection": closes the connection, opens it again, and reports whether events were lost.
import { storedAt } from "./row.js";
import { explain } from "./sentences.js";

const CUT_MS = 3000;
// Time after which the report is complete, in milliseconds: without a missed event or a control
// message.
const QUIET_MS = 500;

export class Cut {
  #connection;
  #report = document.getElementById("report");
  // Data of the last cut. Undefined after the report.
  #cut;

  constructor(connection, note) {
    this.#connection = connection;
    document.getElementById("cut").addEventListener("click", () => {
      clearTimeout(this.#cut?.timer);
      this.#cut = { after: connection.id, since: performance.now(), missed: 0 };
      this.#report.textContent = `The connection is cut. It opens again in ${CUT_MS / 1000} s.`;
      note("You have cut the connection.");
      connection.resume(CUT_MS);
    });
  }

  // Takes a control message of the stream. `now` is the time of the gateway.
  control(type, data, now) {
    if (!this.#cut) return;
    if (type === "stream-open") {
      this.#cut.opened ??= now;
      this.#cut.seconds ??= (performance.now() - this.#cut.since) / 1000;
      this.#cut.resumed = data.resumed;
    }
    if (type === "stream-gap") this.#cut.gap ??= explain(type, data);
    this.#wait();
  }

  event(event) {
    if (!this.#cut || this.#cut.opened <= storedAt(event.id)) return;
    this.#cut.missed++;
    this.#wait();
  }

  #wait() {
    clearTimeout(this.#cut.timer);
    if (this.#cut.opened !== undefined) this.#cut.timer = setTimeout(() => this.#finish(), QUIET_MS);
  }

  #finish() {
    const { after, seconds, resumed, gap, missed } = this.#cut;
    this.#cut = undefined;
    const where = resumed && after ? `The stream resumed after ${after}.` : "The stream began anew.";
    const events = missed === 1 ? "1 event" : `${missed.toLocaleString()} events`;
    const lost =
      gap ?? (after ? "No gap: nothing was lost." : "The page had no id to resume after: events may be missing.");
    this.#report.textContent =
      `The connection was cut for ${seconds.toFixed(1)} s. ${where} ` +
      `${events} of that time came afterwards. ${lost}`;
    this.#report.className = gap ? "gap" : "";
  }
}
