/**
 * The browser client of ssepool: an ES module, no build step, no dependency.
 *
 *     import { SSEPool } from "/ssepool.js";
 *
 *     const pool = new SSEPool();                        // the hub that this file came from; or new SSEPool("/sse/")
 *     const feed = pool.subscribe({
 *       topics: ["orders/42"],                           // exact names
 *       patterns: ["orders/:id"],                        // WHATWG URL Patterns over topic names
 *       lastEventId: "earliest",                         // where to begin; without it: at the next event; "latest": the newest of
 *                                                        // each topic; "last=20": the newest 20 of each
 *       data: { page: 3 },                               // this client's own data, at most 2 KiB of JSON
 *       ticket: () => ({ Authorization: "Bearer ..." }), // on another site: header fields to get a ticket with
 *     });
 *     const off = feed.on("update", (data, event) => {}) // data: parsed if it is JSON, else text; event.data: the text
 *     feed.on("removed", (key) => {});                   // of a state topic: nothing is there under this key (a text) any more
 *     feed.on("ssepool.state", (state) => {});           // whenever feed.state changes, or what belongs to it
 *     await feed.send({ typing: true });                 // to the server, over POST, while the state is "open"
 *     await pool.publish("orders/42", { paid: true }, { type: "update", id: "41-7" });
 *     await pool.publish("orders", { id: 7 }, { key: "7" }); // in the place of the one before it; undefined and
 *                                                        // { key: "7", removed: true }: nothing is there any more
 *     feed.close();                                      // for good; feed.reconnect() undoes it
 *
 * With a token that is not in a cookie: new SSEPool("/sse/", { token: () => currentToken() }), a text or a function, asked
 * for each request, which may return a promise. Streams are then read with fetch, since EventSource sends no such field.
 * For a cookie of another site's hub: new SSEPool("https://hub.example/", { withCredentials: true }).
 *
 * feed.state is one of
 *     "connecting"    the request is under way (a full pool may hold it back without a word)
 *     "waiting"       in the queue for a slot, at feed.position (only where the hub announces its queue)
 *     "open"          a slot is ours: feed.connectionId
 *     "reconnecting"  the connection ended; feed.reason says why if the hub did; the browser or this client comes back
 *     "closed"        it stays so: feed.reason is "client_closed" (close() was called), "kicked" or "revoked"
 *
 * An EventSource sends no header fields, and to another site only cookies that most browsers keep back. With `ticket`
 * this client asks for one before it connects: POST tickets with these fields, or with cookies if the function returns
 * nothing. A ticket counts once: the EventSource that comes back by itself is turned away with it, and this client then
 * makes a new one with a new ticket.
 *
 * feed.lastEventId is the id up to which events have been handed out. Keep it to go on after a reload. Who begins with
 * "latest" or "last=20" listens to the types that come: an EventSource keeps the ids of others to itself, and one that gave
 * up before anything was handed out begins with the newest again.
 *
 * A browser's EventSource comes back by itself after a lost connection, but gives up for good at any answer other
 * than 200, and does not tell which it was. This client then makes a new one, after a pause that doubles up to 30 s
 * and is spread at random, with one exception: a client that was told `ssepool.close` with reason `kicked` or `revoked`
 * and is then turned away for good (the hub answers 204 to a user whom it knows, 401 to what was revoked) stays away.
 * feed.on("ssepool.expiring", ({ seconds }) => {}) is the time to renew a cookie: the stream ends with what it was
 * opened with, and the browser comes back with what it has then. send() and publish() reject with a HubError.
 */

const FIRST_PAUSE = 1_000; // milliseconds
const LONGEST_PAUSE = 30_000;
const POST_TIMEOUT = 15_000;
const OWN_EVENTS = ["ssepool.open", "ssepool.queued", "ssepool.empty", "ssepool.close"];

/** A request that the hub refused: `status` (HTTP) and `code` (a word such as `invalid_topic`) beside the message. */
export class HubError extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    this.name = "HubError";
    this.status = status;
    this.code = code;
  }
}

/** One hub, at the URL `base`. */
export class SSEPool {
  #token;

  constructor(base = new URL(".", import.meta.url), { token, withCredentials = false } = {}) {
    this.#token = token;
    this.withCredentials = withCredentials;
    this.base = new URL(base, document.baseURI);
    if (!this.base.pathname.endsWith("/")) this.base.pathname += "/";
  }

  /** Open a stream of events. `topics` or `patterns` must name something. */
  subscribe(options) {
    return new Subscription(this, options);
  }

  /** What is to be heard at `url`: an EventSource, or what behaves as one and sends the token. */
  source(url) {
    if (this.#token !== undefined) return new TokenSource(url, () => this.authorization());
    return new EventSource(url, { withCredentials: this.withCredentials });
  }

  /** The header fields that show the token; none without one. */
  async authorization() {
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    return token === undefined ? {} : { Authorization: `Bearer ${token}` };
  }

  /** Publish one event; resolves to its id. With a key it takes the place of the one before it; removed ends that. */
  async publish(topic, data, { type, id, key, removed } = {}) {
    return (await this.post("events", { topic, type, id, data, key, removed })).ids[0];
  }

  /** POST JSON to a path below the base; resolves to the JSON that comes back, rejects with HubError. */
  async post(path, body, headers = {}, credentials = this.withCredentials ? "include" : "same-origin") {
    let response;
    try {
      response = await fetch(new URL(path, this.base), {
        method: "POST",
        headers: { "Content-Type": "application/json", ...(await this.authorization()), ...headers },
        body: JSON.stringify(body),
        credentials,
        signal: AbortSignal.timeout(POST_TIMEOUT),
      });
    } catch (error) {
      throw new HubError(`the hub cannot be reached: ${error.message}`);
    }
    const answer = parse(await response.text());
    if (response.ok) return answer;
    const { code = "", message = response.statusText } = answer?.error ?? {};
    throw new HubError(message, response.status, code);
  }
}

class Subscription {
  #pool;
  #options;
  #source = null;
  #listening = new Set(); // types that the source knows of
  #handlers = new Map(); // type -> Set of functions
  #token = null;
  #failures = 0;
  #timer = null;
  #attempt = null; // the ticket that is being asked for
  #comeBack = () => this.#timer !== null && this.reconnect();

  constructor(pool, { topics = [], patterns = [], lastEventId = "", data, ticket } = {}) {
    this.#pool = pool;
    this.#options = { topics, patterns, data, ticket };
    this.lastEventId = lastEventId;
    this.connectionId = null;
    this.position = null;
    this.reason = null;
    this.state = "closed";
    this.reconnect();
  }

  /**
   * Call `handler(data, event)` for each event of a type; those without one are of type "message". Returns a function
   * that undoes it.
   */
  on(type, handler) {
    if (!this.#handlers.has(type)) {
      this.#handlers.set(type, new Set());
      this.#listen(type);
    }
    this.#handlers.get(type).add(handler);
    return () => this.#handlers.get(type).delete(handler);
  }

  /** Send this client's own data to the server; it reaches the application's `on_message`. */
  async send(data) {
    if (this.state !== "open") throw new HubError(`not connected: the state is ${this.state}`);
    const path = `connections/${encodeURIComponent(this.connectionId)}/messages`;
    return this.#pool.post(path, data, { Authorization: `Bearer ${this.#token}` });
  }

  /** Leave for good. No handler is called afterwards but that of the state. */
  close() {
    this.#disconnect();
    this.#become("closed", { reason: "client_closed" });
  }

  /** Connect now, whatever the state: after close(), after a kick, or to cut a pause short. */
  reconnect() {
    this.#disconnect();
    addEventListener("online", this.#comeBack);
    if (this.#options.ticket === undefined) this.#connect();
    else this.#connectWithTicket();
    this.#become("connecting");
  }

  #connectWithTicket() {
    const attempt = (this.#attempt = {}); // whoever closes or reconnects meanwhile wants nothing of this one any more
    this.#newTicket().then(
      (ticket) => attempt === this.#attempt && this.#connect(ticket),
      () => attempt === this.#attempt && this.#pause(null),
    );
  }

  async #newTicket() {
    const { topics, patterns, ticket } = this.#options;
    const fields = await ticket();
    const answer = await this.#pool.post("tickets", { topics, patterns }, fields ?? {}, fields ? "omit" : "include");
    return answer.ticket;
  }

  #connect(ticket) {
    const url = new URL("events", this.#pool.base);
    for (const topic of this.#options.topics) url.searchParams.append("topic", topic);
    for (const pattern of this.#options.patterns) url.searchParams.append("pattern", pattern);
    if (this.#options.data !== undefined) url.searchParams.set("data", JSON.stringify(this.#options.data));
    if (this.lastEventId) url.searchParams.set("last_event_id", this.lastEventId);
    if (ticket !== undefined) url.searchParams.set("ticket", ticket);
    this.#source = this.#pool.source(url);
    this.#source.onerror = (event) => {
      if (!(event instanceof MessageEvent)) this.#lost();
    };
    for (const type of [...OWN_EVENTS, ...this.#handlers.keys()]) this.#listen(type);
  }

  #disconnect() {
    this.#attempt = null;
    clearTimeout(this.#timer);
    this.#timer = null;
    removeEventListener("online", this.#comeBack);
    if (this.#source?.lastEventId) this.lastEventId = this.#source.lastEventId;
    this.#source?.close();
    this.#source = null;
    this.#listening.clear();
  }

  #listen(type) {
    const source = this.#source;
    if (source === null || this.#listening.has(type)) return;
    this.#listening.add(type);
    source.addEventListener(type, (event) => {
      // An event of type "open" or "error" must not be taken for EventSource's own, nor the other way round.
      if (source !== this.#source || !(event instanceof MessageEvent)) return;
      if (event.lastEventId) this.lastEventId = event.lastEventId;
      const data = type === "removed" ? removed(event.data) : parse(event.data);
      this.#own(type, data);
      this.#hand(type, data, event);
    });
  }

  #own(type, data) {
    if (type === "ssepool.open") {
      this.#failures = 0;
      this.#token = data.token;
      this.#become("open", { connectionId: data.connection });
    } else if (type === "ssepool.queued") {
      this.#become("waiting", { position: data.position });
    } else if (type === "ssepool.close") {
      this.reason = data.reason;
    }
  }

  #lost() {
    const reason = this.reason;
    if (this.#source.readyState !== EventSource.CLOSED) return this.#become("reconnecting", { reason });
    if (reason === "kicked" || reason === "revoked") {
      this.#disconnect();
      return this.#become("closed", { reason });
    }
    this.#pause(reason);
  }

  #pause(reason) {
    const pause = this.#source?.retry ?? Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#failures++) * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.reconnect(), pause);
    this.#become("reconnecting", { reason });
  }

  #become(state, { connectionId = null, position = null, reason = null } = {}) {
    Object.assign(this, { state, connectionId, position, reason });
    if (state !== "open") this.#token = null;
    this.#hand("ssepool.state", state, null);
  }

  #hand(type, data, event) {
    for (const handler of this.#handlers.get(type) ?? []) {
      try {
        handler(data, event);
      } catch (error) {
        reportError(error); // one handler's fault must not keep the event from the others
      }
    }
  }
}

/**
 * An EventSource over fetch, as far as a Subscription needs one: the only way to send a token in a header field. It does not
 * come back by itself: its `retry` says after how many milliseconds, where the stream has said so.
 */
class TokenSource extends EventTarget {
  readyState = EventSource.CONNECTING;
  retry = null;
  lastEventId = ""; // of events that nobody listens to as well, as a browser's EventSource keeps it to itself
  onerror = null;
  #leave = new AbortController();

  constructor(url, fields) {
    super();
    this.#run(url, fields).catch((error) => {
      // The network's own are TypeErrors, and no more than a lost connection.
      if (!this.#leave.signal.aborted && !(error instanceof TypeError)) reportError(error);
    }).finally(() => {
      this.readyState = EventSource.CLOSED;
      if (!this.#leave.signal.aborted) this.onerror?.(new Event("error"));
    });
  }

  close() {
    this.#leave.abort();
    this.readyState = EventSource.CLOSED;
  }

  async #run(url, fields) {
    const headers = { Accept: "text/event-stream", ...(await fields()) };
    const answer = await fetch(url, { headers, cache: "no-store", signal: this.#leave.signal });
    if (answer.status !== 200 || !answer.headers.get("content-type")?.startsWith("text/event-stream")) {
      await answer.body?.cancel();
      return;
    }
    this.readyState = EventSource.OPEN;
    await this.#read(answer.body.pipeThrough(new TextDecoderStream()).getReader());
  }

  /** Read events as the WHATWG HTML standard has it, 9.2.6. */
  async #read(reader) {
    const event = { type: "", data: [], id: "" };
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/); // a \r at the end may be half of a \r\n
      rest = lines.pop();
      for (const line of lines) this.#take(line, event);
    }
  }

  #take(line, event) {
    if (line === "") {
      const { type, data, id } = event;
      this.lastEventId = id;
      if (data.length) this.dispatchEvent(new MessageEvent(type || "message", { data: data.join("\n"), lastEventId: id }));
      Object.assign(event, { type: "", data: [] });
      return;
    }
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (name === "data") event.data.push(value);
    else if (name === "event") event.type = value;
    else if (name === "id" && !value.includes("\0")) event.id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
  }
}

/** What a tombstone carries is its row's key, a text as it was published ("7", not 7), unless its publisher gave it an object. */
function removed(text) {
  const data = parse(text);
  return typeof data === "object" && data !== null ? data : text;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
