// A client for browsers: follows topics of a gateway over server-sent events, or over a WebSocket where
// a proxy holds server-sent events back. Reconnects and resumes by itself, and says when events are gone.
//
//   const stream = follow("https://events.example.com", {
//     topics: ["orders"],
//     types: ["order-updated"],
//     token: () => fetch("/api/events-token").then((answer) => answer.text()),
//     onEvent: (event) => console.log(event.id, event.data),
//     onGap: () => location.reload(),
//   });
//   stream.close();

/** An event. The fields are those of `format=message`: see docs/reading.md. */
export interface StreamEvent {
  id: string;
  topic: string;
  /** The attribute `event` of the message, if there is one. */
  event?: string;
  /** A JSON value if the message's data is JSON, else a text. Absent if the data is not UTF-8. */
  data?: unknown;
  /** The data in base64, if it is not UTF-8. */
  data_base64?: string;
  message_id?: string;
  publish_time?: string;
  ordering_key?: string;
  attributes?: Record<string, string>;
}

/** Events that the client can no longer get: see docs/protocol.md. */
export interface Gap {
  reason: "evicted" | "restart" | "unknown-id" | "log-changed" | "fold-limit" | (string & {});
  topics?: string[];
  after?: string;
  upto?: string;
}

export type State =
  | { state: "connecting" }
  | { state: "open"; over: "sse" | "websocket" }
  | { state: "waiting"; reason: string; retryMs: number }
  | { state: "closed"; reason: string };

export interface Options {
  /** Topics, or prefixes such as `orders.*`. Without them: all that the token grants. */
  topics?: string[];
  filter?: string;
  /** Values of the attribute `event` to listen for. Events without one always come. */
  types?: string[];
  /** Resumes after this id, such as one from `localStorage`. */
  lastEventId?: string;
  /** Sends the cookies of the gateway's site. */
  withCredentials?: boolean;
  /** Returns a fresh token. The client exchanges it for a ticket before each connection, and renews the
   *  stream with a new one before it expires. */
  token?: () => Promise<string>;
  onEvent: (event: StreamEvent) => void;
  /** Events are gone: load the state again from its source. */
  onGap?: (gap: Gap) => void;
  onState?: (state: State) => void;
  /** The stream was renewed. It goes on for this number of seconds. */
  onRenewal?: (expiresInSeconds: number) => void;
}

// A proxy that buffers shows nothing of a stream for a minute or for ever.
const OPENS_WITHIN_MS = 10_000;
const RETRY_MS = 3_000;
const RETRY_MAX_MS = 60_000;
// Close codes of the gateway after which the same request would be refused again: docs/websocket.md.
const FINAL_CODES = new Set([1002, 1003, 1007, 1009, 4400, 4403, 4404]);

/** Follows a gateway until `close`. No function of `options` is called after that. */
export function follow(gateway: string | URL, options: Options): Follower {
  return new Follower(gateway, options);
}

export class Follower {
  /** Id of the newest event or control message: where the next stream resumes. */
  lastEventId: string;
  #gateway: URL;
  #options: Options;
  #close: () => void = () => {};
  #closed = false;
  #overWebSocket = false;
  #failures = 0;
  #stream = "";
  #renewing = false;

  constructor(gateway: string | URL, options: Options) {
    this.#gateway = new URL(gateway);
    this.#options = options;
    this.lastEventId = options.lastEventId ?? "";
    void this.#connect();
  }

  close(): void {
    if (this.#closed) return;
    this.#end("close() was called");
  }

  async #connect(): Promise<void> {
    this.#tell({ state: "connecting" });
    try {
      const url = await this.#url();
      if (this.#closed) return;
      if (this.#overWebSocket) this.#openWebSocket(url);
      else this.#openEventSource(url);
    } catch (error) {
      this.#retry(String(error));
    }
  }

  async #url(): Promise<URL> {
    const url = new URL(this.#overWebSocket ? "/ws" : "/events", this.#gateway);
    if (this.#overWebSocket) url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("format", "message");
    for (const topic of this.#options.topics ?? []) url.searchParams.append("topic", topic);
    if (this.#options.filter) url.searchParams.set("filter", this.#options.filter);
    if (this.lastEventId) url.searchParams.set("last_event_id", this.lastEventId);
    if (this.#options.token) url.searchParams.set("ticket", await this.#ticket(await this.#options.token()));
    return url;
  }

  // A ticket opens one stream, a token opens many. With tickets no token is in a URL or a log.
  async #ticket(token: string): Promise<string> {
    const answer = await this.#post("/ticket", token);
    return ((await answer.json()) as { ticket: string }).ticket;
  }

  async #post(path: string, token: string): Promise<Response> {
    const headers = { Authorization: `Bearer ${token}` };
    const answer = await fetch(new URL(path, this.#gateway), { method: "POST", headers });
    if (answer.status === 400 || answer.status === 403) this.#end(`${path}: ${answer.status} ${await answer.text()}`);
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer;
  }

  #openEventSource(url: URL): void {
    const source = new EventSource(url, { withCredentials: this.#options.withCredentials ?? false });
    const silence = setTimeout(() => {
      this.#overWebSocket = true;
      this.#retry(`nothing came within ${OPENS_WITHIN_MS} ms: a proxy may buffer the stream`, 0);
    }, OPENS_WITHIN_MS);
    this.#close = () => {
      clearTimeout(silence);
      source.close();
    };
    const on = (type: string, act: (data: any) => void): void =>
      source.addEventListener(type, (message) => {
        clearTimeout(silence);
        if (this.#closed) return;
        const { data, lastEventId } = message as MessageEvent<string>;
        act(JSON.parse(data));
        // After the callback: if that fails, the event is not taken as seen.
        this.lastEventId = lastEventId || this.lastEventId;
      });
    for (const type of ["message", ...(this.#options.types ?? [])]) {
      on(type, (event) => this.#options.onEvent(type === "message" ? event : { ...event, event: type }));
    }
    on("stream-open", (open) => this.#opened("sse", open.stream));
    on("stream-checkpoint", () => {});
    on("stream-gap", (gap) => this.#options.onGap?.(gap));
    on("stream-auth", ({ expires_in: seconds }) => this.#auth(seconds, (token) => this.#renew(token)));
    // EventSource would reconnect by itself, with a ticket that is already used. So the client reconnects.
    on("stream-end", ({ reason }) => this.#retry(reason));
    source.onerror = () => this.#retry("the connection broke, or was refused");
  }

  #openWebSocket(url: URL): void {
    const socket = new WebSocket(url);
    this.#close = () => {
      socket.onmessage = socket.onclose = null;
      socket.close(1000);
    };
    let retryMs: number | undefined;
    let opened = false;
    socket.onmessage = ({ data }: MessageEvent<string>) => {
      const { type, retry, ...record } = JSON.parse(data);
      retryMs = retry ?? retryMs;
      if (type === "open") {
        opened = true;
        this.#opened("websocket", record.stream);
      } else if (type === "event") this.#options.onEvent(record);
      else if (type === "gap") this.#options.onGap?.(record);
      else if (type === "auth") {
        this.#auth(record.expires_in, async (token) => socket.send(JSON.stringify({ type: "renew", token })));
      }
      this.lastEventId = record.id ?? this.lastEventId;
    };
    socket.onclose = ({ code, reason }) => {
      // No WebSocket gets through here. So the silence before may have had another cause than a buffer.
      this.#overWebSocket = opened;
      if (FINAL_CODES.has(code)) this.#end(`${code} ${reason}`);
      else this.#retry(`${code} ${reason}`, retryMs);
    };
  }

  #opened(over: "sse" | "websocket", stream: string): void {
    this.#renewing = false;
    this.#failures = 0;
    this.#stream = stream;
    this.#tell({ state: "open", over });
  }

  // The gateway says twice how long the token is valid: a minute before the token expires, and when the
  // stream was renewed. If the stream is not renewed, the gateway ends it, and the client opens another
  // with a new ticket.
  #auth(seconds: number, renew: (token: string) => Promise<unknown>): void {
    if (this.#renewing) {
      this.#renewing = false;
      this.#options.onRenewal?.(seconds);
    } else if (this.#options.token) {
      this.#renewing = true;
      this.#options.token().then(renew).catch(() => {});
    }
  }

  #renew(token: string): Promise<Response> {
    return this.#post(`/renew?stream=${encodeURIComponent(this.#stream)}`, token);
  }

  #retry(reason: string, given?: number): void {
    if (this.#closed) return;
    this.#close();
    this.#close = () => {};
    // Twice as long after each failure, and at a random time: not all pages at once.
    const limit = Math.min(RETRY_MS * 2 ** this.#failures++, RETRY_MAX_MS);
    const retryMs = given ?? limit * (0.5 + Math.random() / 2);
    this.#tell({ state: "waiting", reason, retryMs });
    const timer = setTimeout(() => void this.#connect(), retryMs);
    this.#close = () => clearTimeout(timer);
  }

  #end(reason: string): void {
    this.#tell({ state: "closed", reason });
    this.#closed = true;
    this.#close();
  }

  #tell(state: State): void {
    if (!this.#closed) this.#options.onState?.(state);
  }
}
