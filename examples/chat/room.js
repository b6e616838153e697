// A room over one WebSocket: a room is a topic, and its lines are events.
//
// After a cut the room resumes after the last id that it received, so that no line is lost or shown
// twice. Lines that were not confirmed are sent again with the same id: the gateway stores each once.

// Close codes after which the same request would be refused again: see docs/websocket.md.
const FINAL = new Set([1002, 1003, 1007, 1009, 4400, 4401, 4403, 4404]);
const HISTORY = 50;

export class Room extends EventTarget {
  #gateway;
  #topic;
  #name;
  #socket;
  #lastId = "";
  #retryMs = 2000;
  #outbox = [];
  #isOpen = false;

  // Joins a room. Dispatches the events "state", "line", "gap", "presence", "sent" and "refused".
  constructor({ gateway, room, name }) {
    super();
    this.#gateway = gateway;
    this.#topic = room;
    this.#name = name;
    this.#connect();
  }

  // Sends a line. Returns its id. The event "sent" says that the gateway has stored it.
  say(text) {
    const line = { id: crypto.randomUUID(), data: { name: this.#name, text } };
    this.#outbox.push(line);
    // One at a time, so that lines keep their order: the next follows when this one is confirmed.
    if (this.#outbox.length === 1) this.#sendFirst();
    return line.id;
  }

  leave() {
    this.#outbox = [];
    this.#socket.onclose = null;
    this.#socket.close(1000);
  }

  #connect() {
    const url = new URL("/ws", this.#gateway);
    url.protocol = url.protocol.replace("http", "ws");
    const query = { topic: this.#topic, format: "message", presence: "on", name: this.#name };
    // The newest lines at first, and after a cut the lines that were missed.
    const start = this.#lastId ? { last_event_id: this.#lastId } : { rewind: HISTORY };
    for (const [key, value] of Object.entries({ ...query, ...start })) url.searchParams.set(key, value);
    this.#tell("state", { state: "connecting" });
    this.#socket = new WebSocket(url);
    this.#socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    this.#socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  #closed(code, reason) {
    this.#isOpen = false;
    if (FINAL.has(code)) {
      this.#tell("state", { state: "closed", reason: `${code} ${reason}` });
      return;
    }
    this.#tell("state", { state: "reconnecting" });
    setTimeout(() => this.#connect(), this.#retryMs);
  }

  #receive(record) {
    switch (record.type) {
      case "open":
        this.#isOpen = true;
        this.#tell("state", { state: "open" });
        this.#sendFirst();
        break;
      case "event":
        this.#tell("line", record);
        break;
      case "gap": // Lines are gone that were never received: the room is older than its history.
      case "presence":
        this.#tell(record.type, record);
        break;
      case "ok":
        this.#confirmed(record.ref);
        break;
      case "error":
        this.#failed(record);
        break;
      default: // "checkpoint", "auth", "end", and types that later versions add.
    }
    if (record.id) this.#lastId = record.id;
    if (record.retry && record.type !== "error") this.#retryMs = record.retry;
  }

  #sendFirst() {
    const line = this.#outbox[0];
    if (!line || !this.#isOpen) return;
    const { id, data } = line;
    this.#socket.send(JSON.stringify({ type: "publish", ref: id, topic: this.#topic, id, data }));
  }

  #confirmed(id) {
    if (this.#outbox[0]?.id !== id) return;
    this.#outbox.shift();
    this.#tell("sent", { id });
    this.#sendFirst();
  }

  #failed({ ref, retry, title, detail }) {
    if (this.#outbox[0]?.id !== ref) return;
    if (retry) {
      setTimeout(() => this.#sendFirst(), retry);
      return;
    }
    this.#outbox.shift();
    this.#tell("refused", { id: ref, reason: `${title}: ${detail}` });
    this.#sendFirst();
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
