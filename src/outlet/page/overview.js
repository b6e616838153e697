// Topics with their rates, and the number of streams of each outlet.
import { element } from "./row.js";

const ASK_MS = 2000;
const OUTLETS = {
  sse: "Server-sent events",
  ndjson: "Lines of JSON",
  websocket: "WebSocket",
  grpc: "gRPC",
  poll: "Polls",
};

const byId = (id) => document.getElementById(id);

export class Overview {
  // Difference between the gateway's clock and the browser's, in milliseconds.
  offset = 0;
  #headers;
  #choose;
  #rows = new Map();
  #last;
  #timer;

  // `headers()` returns the headers of a request, and `choose(topic)` follows a topic.
  constructor(headers, choose) {
    this.#headers = headers;
    this.#choose = choose;
    document.addEventListener("visibilitychange", () => this.ask());
  }

  // Asks the gateway now, and then every ASK_MS while the page is visible. After a refusal, asks
  // again only at the next call.
  async ask() {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    try {
      const sent = Date.now();
      const response = await fetch("/page/overview", { headers: this.#headers(), cache: "no-store" });
      if (response.status === 401 || response.status === 403) return;
      if (response.ok) this.#show(await response.json(), sent);
    } catch {
      // The stream's own request says that the gateway cannot be reached.
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.ask(), ASK_MS);
  }

  #show(now, sent) {
    this.offset = Math.round(now.time_ms - (sent + Date.now()) / 2);
    const before = new Map(this.#last?.topics.map(({ topic, stored }) => [topic, stored]));
    const seconds = (now.time_ms - (this.#last?.time_ms ?? 0)) / 1000;
    const rate = ({ topic, stored }) => {
      if (stored === undefined || !this.#last || seconds <= 0) return "–";
      // A topic that the last answer did not list was one of the others, with an unknown count. If
      // there were no others, the topic is new and had no events.
      if (!before.has(topic) && 0 < this.#last.topics_more) return "–";
      // After a restart the counts begin again.
      const perSecond = Math.max(0, stored - (before.get(topic) ?? 0)) / seconds;
      return perSecond.toFixed(0 < perSecond && perSecond < 10 ? 1 : 0);
    };
    const topics = now.topics.map((counts) => [counts, rate(counts)]);
    this.#showTopics(topics);
    byId("topics-more").textContent =
      0 < now.topics_more
        ? `${now.topics_more.toLocaleString()} more topics have older events.`
        : "";
    this.#showStreams(now.streams);
    byId("publish-panel").hidden = !now.can_publish;
    this.#last = now;
  }

  // Changes the rows in place, so that the keyboard's focus stays where it is.
  #showTopics(topics) {
    const names = new Set(topics.map(([{ topic }]) => topic));
    for (const [topic, row] of this.#rows) {
      if (names.has(topic)) continue;
      row.remove();
      this.#rows.delete(topic);
    }
    let previous = null;
    for (const [{ topic, stored }, rate] of topics) {
      const row = this.#rows.get(topic) ?? this.#newRow(topic);
      row.cells[1].textContent = rate;
      row.cells[2].textContent = stored?.toLocaleString() ?? "–";
      const next = previous ? previous.nextSibling : byId("topics").firstChild;
      if (row !== next) byId("topics").insertBefore(row, next);
      previous = row;
    }
  }

  #newRow(topic) {
    const row = document.createElement("tr");
    const button = element("button", topic, "topic");
    button.type = "button";
    button.title = `Follow ${topic} only`;
    button.addEventListener("click", () => this.#choose(topic));
    row.insertCell().append(button);
    row.insertCell();
    row.insertCell();
    this.#rows.set(topic, row);
    return row;
  }

  #showStreams(streams) {
    const names = new Set([...Object.keys(OUTLETS), ...Object.keys(streams)]);
    const cells = [...names].flatMap((name) => [
      element("dt", OUTLETS[name] ?? name),
      element("dd", (streams[name] ?? 0).toLocaleString()),
    ]);
    byId("streams").replaceChildren(...cells);
  }
}
