// Follows a stream of events. Node 18.3 or newer, no packages: Node has fetch, but no EventSource yet.
//
//   node examples/node.mjs [URL] [--count N]
//
// Prints a line for each event: its id, its type and its data as a JSON string, with tabs between.
// Exits after N events, or never. URL is http://127.0.0.1:8080/events if it is left out.
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

// The gateway writes something at least every 15 s (--keep-alive), so a longer silence is a connection
// that died without a word, as after a laptop's sleep or a NAT's time-out.
const SILENCE_MAX_MS = 60_000;
// The wait before the next try doubles from the server's `retry` up to this while tries fail.
const WAIT_MAX_MS = 30_000;

// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
class EventStreamParser {
  // What survives a connection: where to go on, and how long to wait before.
  lastEventId = "";
  retry = 3000;

  // A connection begins. What an incomplete block left is dropped: the server sends all of it again,
  // since its id does not count before its end.
  begin() {
    this.decoder = new TextDecoder(); // Drops a BOM at the start, and waits for split characters.
    this.line = "";
    this.afterCr = false;
    this.id = this.lastEventId;
    this.type = "";
    this.data = "";
  }

  // Yields the events that end in this chunk.
  *feed(bytes) {
    let text = this.decoder.decode(bytes, { stream: true });
    if (text === "") return;
    // A line ends with CR, LF or CRLF. A CR ends it at once, without a look at what follows, which
    // may not come for long; so an LF that comes in the next chunk belongs to that line end.
    if (this.afterCr && text.startsWith("\n")) text = text.slice(1);
    this.afterCr = text.endsWith("\r");
    const lines = text.split(/\r\n|\n|\r/);
    const rest = lines.pop();
    for (const line of lines) {
      const whole = this.line + line;
      this.line = "";
      if (whole !== "") this.field(whole);
      else yield* this.endOfBlock();
    }
    this.line += rest;
  }

  field(line) {
    // A comment is a line with an empty name.
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1); // One space; a second one is data.
    if (name === "data") this.data += value + "\n";
    else if (name === "event") this.type = value;
    else if (name === "id" && !value.includes("\0")) this.id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
  }

  *endOfBlock() {
    // A block without data is no event, but its id counts: the gateway moves us past events that are
    // not for us. An empty event has data: one empty line.
    this.lastEventId = this.id;
    const { id, type, data } = this;
    this.type = this.data = "";
    if (data !== "") yield { id, type: type || "message", data: data.slice(0, -1) };
  }
}

// A refusal that will be the same at the next try.
class Refused extends Error {}

async function* read(url, parser) {
  const silence = new AbortController();
  const reason = new Error(`silence for ${SILENCE_MAX_MS} ms`);
  const timer = setTimeout(() => silence.abort(reason), SILENCE_MAX_MS);
  try {
    // With this Accept the gateway turns us away, when it must, with a stream that says when to retry.
    const headers = { Accept: "text/event-stream" };
    if (parser.lastEventId) headers["Last-Event-ID"] = parser.lastEventId;
    const response = await fetch(url, { headers, cache: "no-store", signal: silence.signal });
    if (response.status !== 200) {
      const problem = `${response.status} ${await response.text()}`;
      // These pass: a proxy in front of the gateway, for one, while the gateway restarts.
      const passes = response.status >= 500 || [408, 429].includes(response.status);
      throw passes ? new Error(problem) : new Refused(problem);
    }
    const type = response.headers.get("content-type") ?? "nothing";
    if (!type.startsWith("text/event-stream")) throw new Refused(`not an event stream: ${type}`);
    parser.begin();
    for await (const chunk of response.body) {
      timer.refresh();
      yield* parser.feed(chunk);
    }
  } finally {
    clearTimeout(timer);
  }
}

// All events from now on, over as many connections as it takes.
async function* follow(url) {
  const parser = new EventStreamParser();
  for (let failures = 0; ; failures += 1) {
    try {
      for await (const event of read(url, parser)) {
        failures = 0;
        yield event;
      }
    } catch (error) {
      if (error instanceof Refused) throw error;
      console.error(`connection lost: ${error.cause?.code ?? error.message}`);
    }
    const wait = Math.min(parser.retry * 2 ** failures, WAIT_MAX_MS);
    await sleep(Math.max(wait, parser.retry));
  }
}

const { values, positionals } = parseArgs({
  options: { count: { type: "string", default: "Infinity" } },
  allowPositionals: true,
});
const url = positionals[0] ?? "http://127.0.0.1:8080/events";
let left = Number(values.count);
if (!/^https?:\/\//i.test(url) || !(left >= 1)) {
  console.error("usage: node node.mjs [http://HOST/events] [--count N], N from 1 up");
  process.exit(2);
}
process.stdout.on("error", () => process.exit()); // Whoever read our lines is gone.

try {
  for await (const { id, type, data } of follow(url)) {
    if (type === "stream-gap") {
      // Events are gone before we could read them. What was built from events is no longer right:
      // an application loads its state from where it is kept, then goes on with what follows.
      console.error(`events were missed: ${data}`);
    }
    // The gateway's own. New ones may come: ignore those you do not know.
    if (type.startsWith("stream-")) continue;
    // An application that keeps its state over its own restarts stores the id together with what it
    // did for the event, and begins with it: URL?last_event_id=ID.
    console.log(`${id}\t${type}\t${JSON.stringify(data)}`);
    if (--left <= 0) break;
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
