// Connection to GET /events. It reads lines of JSON, connects again when the stream ends, and resumes
// after the newest id that was read.
//
// It uses fetch and not EventSource: fetch can send a token in a header.
import { lines } from "./lines.js";

// Statuses with which the gateway would refuse the same request again: the page does not repeat it.
const FINAL = [400, 401, 403, 404, 405, 406];
// Longest time in milliseconds for which lines are read without a pause for the page's other work.
const TURN_MS = 10;

export class Connection {
  // Id after which the stream resumes. Empty before the first one.
  id = "";
  // Query of the stream.
  query = new URLSearchParams();
  #headers;
  #on;
  #retry = 3000;
  #following = new AbortController();

  // `headers()` returns the headers of a request. `on` has the functions `event(event, line)`,
  // `control(type, data)`, `request()` before each request, and `state(kind, text, status)`.
  constructor(headers, on) {
    this.#headers = headers;
    this.#on = on;
  }

  // Opens the stream of a query from its beginning: forgets the id to resume after.
  follow(query) {
    this.id = "";
    this.query = query;
    this.resume();
  }

  // Opens the stream again after `delay` milliseconds, and resumes.
  resume(delay = 0) {
    this.#following.abort();
    this.#following = new AbortController();
    this.#run(this.#following.signal, delay);
  }

  async #run(signal, delay) {
    for (let wait = delay; ; wait = this.#retry) {
      if (0 < wait) await new Promise((resolve) => setTimeout(resolve, wait));
      if (signal.aborted) return;
      try {
        await this.#read(signal);
        if (!signal.aborted) this.#on.state("waiting", "The stream has ended. It opens again soon.");
      } catch (error) {
        if (signal.aborted) return;
        if (FINAL.includes(error.status)) return this.#on.state("refused", error.message, error.status);
        // Browsers say "Failed to fetch" or "network error" for every cause.
        const what = error instanceof TypeError ? "The gateway cannot be reached." : error.message;
        this.#on.state("waiting", `${what} Trying again in ${Math.ceil(this.#retry / 1000)} s.`);
      }
    }
  }

  async #read(signal) {
    const headers = { ...this.#headers(), Accept: "application/x-ndjson" };
    if (this.id) headers["Last-Event-ID"] = this.id;
    this.#on.request();
    const response = await fetch(`/events?${this.query}`, { headers, signal, cache: "no-store" });
    if (!response.ok) throw await this.#refusal(response);
    this.#on.state("open", "open");
    let turn = performance.now();
    for await (const group of lines(response.body)) {
      for (const line of group) {
        if (signal.aborted) return;
        // An empty line is a keep-alive.
        if (line) this.#take(line);
        if (performance.now() - turn < TURN_MS) continue;
        await new Promise((resolve) => setTimeout(resolve));
        turn = performance.now();
      }
    }
  }

  // Takes a line: an event, or a control message, which is an object with one member.
  #take(line) {
    const object = JSON.parse(line);
    const [type] = Object.keys(object);
    if (!type?.startsWith("stream-")) {
      this.id = object.id;
      return this.#on.event(object, line);
    }
    const data = object[type];
    if (typeof data.id === "string") this.id = data.id;
    if (0 < data.retry) this.#retry = data.retry;
    this.#on.control(type, data);
  }

  // Returns an error whose text says why the gateway, or a proxy before it, refused the stream.
  async #refusal(response) {
    const after = Number(response.headers.get("Retry-After"));
    if (0 < after) this.#retry = after * 1000;
    return refusal(response);
  }
}

// Returns an error with the status of a refused request, and with its reason as text.
export async function refusal(response) {
  const { detail } = await response.json().catch(() => ({}));
  const what = `The gateway answered ${response.status} ${response.statusText}`.trimEnd();
  const error = new Error(typeof detail === "string" ? `${what}: ${detail}` : what);
  error.status = response.status;
  return error;
}
