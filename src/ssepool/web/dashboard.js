/* The dashboard: the pool as its operator sees it, over one stream, and the means to change it. */

import { HubError, SSEPool } from "../ssepool.js";
import { $, attempt, clip, clock, element, number, say } from "../web/page.js";
import { PoolView } from "../web/pool.js";
import { Connections, bytes, duration } from "./connections.js";
import { History, Sparkline } from "./series.js";
import { Topics } from "./topics.js";

const LENGTH = 301; // seconds that are drawn, with the one that goes on
const QUIET = 2_000; // milliseconds without news after which the page asks
const SILENT = 5_000; // milliseconds without an answer after which nothing is known
const PATIENCE = 10_000;
const TROUBLE = ["peer_dead", "send_timeout", "lagged", "error"];

const hub = new SSEPool();
const seconds = () => performance.now() / 1000;
const decimal = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** A request to the hub: its JSON and the hub's clock. Rejects with HubError. */
async function call(method, path, { query = {}, body } = {}) {
  const url = new URL(path, hub.base);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  const init = { method, signal: AbortSignal.timeout(PATIENCE), cache: "no-store" };
  if (body !== undefined) Object.assign(init, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  let response, text;
  try {
    response = await fetch(url, init);
    text = await response.text();
  } catch {
    throw new HubError("the hub does not answer");
  }
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    if (response.ok) throw new HubError("what answers is not a hub", response.status);
  }
  if (response.ok) return { answer, date: Date.parse(response.headers.get("Date")) };
  throw new HubError(answer?.error?.message ?? `${response.status} ${response.statusText}`, response.status, answer?.error?.code);
}

/* The reports, from the stream or asked for */

const view = new PoolView({ highest: () => 256, largest: 64 });
const feed = hub.subscribe({ topics: ["ssepool/pool"], data: { page: "dashboard" } });
let latest = null;
let heardAt = -Infinity; // milliseconds, of performance.now()
let failing = null; // why the last question had no answer
let refused = false; // whether that was for want of rights

function report(news) {
  const now = performance.now();
  if (latest !== null && latest.node === news.node && latest.uptime <= news.uptime) {
    const past = heardAt / 1000;
    history.grown("delivered", past, now / 1000, news.events.delivered - latest.events.delivered);
    history.grown("bytes", past, now / 1000, news.bytes_sent - latest.bytes_sent);
  } else {
    watched.length = 0; // another hub, or the same one after a restart: its counters began anew
  }
  latest = news;
  heardAt = now;
  failing = null;
  refused = false;
  watch(news.pool.released);
  gauge();
  view.show(news);
  showPool();
  showNumbers();
  showReleased();
  showNotice();
}

async function ask() {
  if (feed.state === "open" && performance.now() - heardAt < QUIET) return;
  const before = heardAt;
  try {
    const { answer } = await call("GET", "pool");
    // A report that came meanwhile is newer. What is asked for lacks the cells, which have not changed if no report told so.
    if (heardAt === before) report(feed.state === "open" && latest?.cells ? { ...answer, cells: keep(answer) } : answer);
  } catch (problem) {
    failing = problem.message;
    refused = [401, 403].includes(problem.status);
    showNotice();
  }
}

/** The cells of the last report, if they still add up to the same counts. */
function keep({ pool }) {
  const { cells } = latest;
  const same = cells?.length === pool.size && cells.split("o").length - 1 === pool.open && cells.split("f").length - 1 === pool.free;
  return same ? cells : undefined;
}

async function asking() {
  await ask();
  setTimeout(asking, QUIET / 2);
}

const isFresh = () => performance.now() - heardAt < SILENT;

/* The connection */

const SAYS = {
  connecting: () => "Connecting",
  waiting: () => `Waiting, at place ${feed.position}`,
  open: () => "Live",
  reconnecting: () => "Not live",
  closed: () => "Not live",
};
let troubledSince = null;

function showState() {
  $("state").dataset.state = feed.state;
  say($("state"), SAYS[feed.state]());
  say($("own"), feed.connectionId ?? "no slot");
  if (feed.state === "open") {
    troubledSince = null;
    connections.refresh();
    topics.refresh();
  } else {
    troubledSince ??= performance.now();
  }
  showNotice();
}

/** What the operator has to know about this page's connection; nothing while all is well. */
function trouble() {
  if (refused) return `You are not allowed to see this: ${failing}. The page takes credentials with the right to metrics, or the hub's Unix socket.`;
  if (feed.state === "open") return isFresh() || latest === null ? "" : "Nothing has come for a while: these numbers may be old.";
  if (performance.now() - troubledSince < QUIET / 2) return null;
  if (!isFresh()) {
    const since = latest === null ? "" : ` These numbers are from ${clock.format(Date.now() - performance.now() + heardAt)}.`;
    return failing === null && latest === null ? null : `The hub does not answer: the connection is lost.${since} The page goes on trying.`;
  }
  const { pool } = latest;
  const instead = `Until then the numbers are asked for every ${QUIET / 1000} seconds.`;
  if (pool.state !== "open") {
    return `The pool is ${poolState(pool)}, so this page has no slot either: the numbers are asked for every ${QUIET / 1000} seconds.`;
  }
  if (feed.reason === "kicked") return "This page's own connection was kicked. The numbers are asked for, not live.";
  if (pool.free === 0) {
    const how = feed.state === "waiting" ? `waits at place ${feed.position}` : feed.state === "connecting" ? "waits in the queue for one" : "tries again and again to get one";
    return `The pool is full. The dashboard itself needs a slot and ${how}. ${instead}`;
  }
  return feed.state === "connecting"
    ? `No stream yet. This browser may have six connections to this host already, the most that HTTP/1.1 gets. ${instead}`
    : `The stream was lost, though the hub answers. The page goes on trying. ${instead}`;
}

function showNotice() {
  const text = trouble();
  document.body.classList.toggle("stale", latest !== null && !isFresh());
  view.explain(feed.state === "open" || latest === null ? "" : "Not live: which slot is which cannot be told now");
  if (text === null) return;
  $("notice").hidden = !text;
  say($("notice-text"), text);
}

feed.on("ssepool.state", showState);
feed.on("ssepool.pool", report);
$("again").addEventListener("click", () => {
  feed.reconnect();
  ask();
});

/* The pool's state */

const poolState = ({ state, open, closing, reserved }) => (state !== "draining" ? state : open + closing + reserved ? "draining" : "drained");

function showPool() {
  const { pool } = latest;
  const taken = pool.size - pool.free;
  const share = (100 * taken) / Math.max(1, pool.size);
  // Only a pool without a free slot is full, whatever rounding says.
  const percent = taken < pool.size ? Math.min(99, Math.round(share)) : 100;
  say($("share"), `${percent} %`);
  say($("taken"), number.format(taken));
  $("meter").setAttribute("aria-valuenow", percent);
  for (const part of $("meter").children) part.style.setProperty("--share", pool[part.className] / Math.max(1, pool.size));
  say($("connected"), `${number.format(pool.open + pool.closing)} in all`);
  const state = poolState(pool);
  const isFull = state === "open" && pool.free === 0;
  say($("pool-state"), isFull ? "full" : state);
  $("pool-state").dataset.state = isFull ? "full" : state;
  const many = (count) => (count === 1 ? "1 client waits" : `${number.format(count)} clients wait`);
  say(
    $("pressure"),
    state === "drained"
      ? "Everybody has been sent away; only a restart opens it again."
      : state !== "open"
        ? `${number.format(taken)} still to be sent away`
        : isFull
          ? `${many(pool.waiting)}; the queue takes ${number.format(pool.max_waiting)}`
          : `${number.format(pool.free)} free`,
  );
  for (const control of [$("drain-open"), $("resize").querySelector("button"), $("size")]) control.disabled = state !== "open";
  if (!$("size").dataset.edited) $("size").value = pool.size;
  if (wanted !== null && pool.size <= wanted) tellSize();
}

/* Counters */

function numbers(id, list) {
  const nodes = Object.fromEntries(
    list.map(([name, title]) => {
      const value = element("dd", {}, "–");
      $(id).append(element("div", {}, element("dt", title ? { title } : {}, name), value));
      return [name, value];
    }),
  );
  return (values) => Object.entries(values).forEach(([name, value]) => say(nodes[name], value));
}

const showRequests = numbers("requests", [["asked"], ["granted"], ["queued"], ["timed out"], ["left the queue"], ["refused"], ["mean wait"], ["mean stay"]]);
const showEvents = numbers("events", [["published"], ["delivered"], ["skipped"], ["sent"]]);
const showHeld = numbers("held", [["feeds"], ["events kept"], ["bytes kept"], ["queue takes"]]);

function showNumbers() {
  const { pool, events, history: kept } = latest;
  const gone = Object.values(pool.released).reduce((sum, count) => sum + count, 0);
  showRequests({
    asked: number.format(pool.requests),
    granted: number.format(pool.granted),
    queued: number.format(pool.queued),
    "timed out": number.format(pool.timed_out),
    "left the queue": number.format(pool.cancelled),
    refused: number.format(pool.refused),
    "mean wait": pool.granted ? span(pool.wait_seconds / pool.granted) : "–",
    "mean stay": gone ? span(pool.open_seconds / gone) : "–",
  });
  showEvents({
    published: number.format(events.published),
    delivered: number.format(events.delivered),
    skipped: number.format(events.skipped),
    sent: bytes(latest.bytes_sent),
  });
  showHeld({
    feeds: number.format(latest.feeds),
    "events kept": number.format(kept.events),
    "bytes kept": bytes(kept.bytes),
    "queue takes": number.format(pool.max_waiting),
  });
  say($("topic-count"), `${number.format(kept.topics)} with events`);
  say($("node"), clip(latest.node, 32));
}

/** A mean time: one number and its unit. */
function span(time) {
  const [unit, size] = [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1], ["ms", 0.001]].find(([, size]) => time >= size) ?? ["ms", 0.001];
  return `${unit === "ms" ? Math.round(time / size) : decimal.format(time / size)} ${unit}`;
}

/* Reasons */

const watched = []; // [second, released] of the last minutes, one a second
const bars = new Map();

function watch(released) {
  const second = Math.floor(seconds());
  if (watched.at(-1)?.[0] !== second) watched.push([second, released]);
  while (watched.length > 1 && watched[1][0] <= second - LENGTH) watched.shift();
}

function showReleased() {
  const { released } = latest.pool;
  const most = Math.max(1, ...Object.values(released));
  for (const [reason, count] of Object.entries(released)) {
    if (!bars.has(reason)) bars.set(reason, bar(reason));
    const { row, fill, recent, total } = bars.get(reason);
    const news = count - (watched[0][1][reason] ?? 0);
    row.classList.toggle("none", count === 0);
    fill.style.setProperty("--share", count / most);
    say(recent, news ? `+${number.format(news)}` : "");
    say(total, number.format(count));
  }
}

function bar(reason) {
  const [fill, recent, total] = [element("i"), element("td", { class: "n" }), element("td", { class: "n" })];
  const row = element("tr", TROUBLE.includes(reason) ? { class: "trouble" } : {}, element("th", { scope: "row" }, reason), element("td", { class: "bar" }, fill), recent, total);
  $("released").append(row);
  return { row, fill, recent, total };
}

/* The last minutes */

const perSecond = (format) => (value) => `${format(value)}/s`;
const LINES = {
  open: { name: "Open", format: number.format, limit: () => latest.pool.size },
  waiting: { name: "Waiting", format: number.format },
  delivered: { name: "Delivered", format: perSecond((value) => (value < 10 ? decimal : number).format(value < 10 ? value : Math.round(value))), isRate: true, least: 5 },
  bytes: { name: "Sent", format: perSecond(bytes), isRate: true, least: 1024 },
};
const history = new History(Object.keys(LINES), LENGTH, seconds());
let pointed = null;

function gauge() {
  history.advance(seconds());
  history.gauge("open", latest.pool.open);
  history.gauge("waiting", latest.pool.waiting);
}

for (const [key, line] of Object.entries(LINES)) {
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries({ preserveAspectRatio: "none", role: "img", viewBox: "0 0 300 100" })) picture.setAttribute(name, value);
  line.value = element("b", {}, "–");
  line.most = element("span", { class: "soft" });
  $("lines").append(element("div", { class: `line-${key}` }, element("p", {}, element("span", {}, line.name), line.value, line.most), picture));
  line.picture = picture;
  line.spark = new Sparkline(picture);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    pointed = Math.min(LENGTH - 1, Math.max(0, Math.round(((event.clientX - box.left) / box.width) * (LENGTH - 1))));
    showPointed();
  });
  picture.addEventListener("pointerleave", () => {
    pointed = null;
    showPointed();
  });
}

function showLines() {
  for (const line of Object.values(LINES)) {
    const key = Object.keys(LINES).find((name) => LINES[name] === line);
    const values = history.values(key, line.isRate ? Math.floor(heardAt / 1000) : Infinity);
    line.spark.show(values, { limit: line.limit && latest ? line.limit() : NaN, least: line.least });
    const known = values.filter((value) => !Number.isNaN(value));
    line.highest = known.length ? Math.max(...known) : NaN;
    line.now = known.length && isFresh() ? known.at(-1) : NaN;
    const told = (value) => (Number.isNaN(value) ? "unknown" : line.format(value));
    line.picture.setAttribute("aria-label", `${line.name}: now ${told(line.now)}, highest in five minutes ${told(line.highest)}`);
  }
  showPointed();
}

function showPointed() {
  for (const line of Object.values(LINES)) {
    const value = pointed === null ? line.now : line.spark.values[pointed];
    say(line.value, Number.isNaN(value) ? "–" : line.format(value));
    say(line.most, Number.isNaN(line.highest) ? "" : `highest ${line.format(line.highest)}`);
    line.spark.point(pointed);
  }
  say($("moment"), pointed === null ? "" : `${duration(LENGTH - 1 - pointed)} ago`);
}

function tick() {
  history.advance(seconds());
  if (latest !== null && isFresh()) gauge();
  say($("uptime"), latest === null ? "–" : duration(latest.uptime + (isFresh() ? seconds() - heardAt / 1000 : 0)));
  if (!document.hidden) showLines();
  connections.tick();
  showNotice();
}

/* Changing it */

let wanted = null; // slots that a resize asked for and that are not there yet

function tellSize() {
  const { size } = latest.pool;
  const note = size > wanted ? `Shrinking to ${number.format(wanted)}: ${number.format(size - wanted)} more go as their clients leave.` : `The pool has ${number.format(size)} ${size === 1 ? "slot" : "slots"} now.`;
  say($("resize-note"), note);
  if (size <= wanted) wanted = null;
}

$("size").addEventListener("input", () => ($("size").dataset.edited = "yes"));
$("resize").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt($("resize").querySelector("button"), $("resize-error"), async () => {
    const size = Number($("size").value);
    const { answer } = await call("PATCH", "pool", { body: { size } });
    wanted = size;
    delete $("size").dataset.edited;
    report({ ...answer, cells: keep(answer) });
    if (wanted !== null) tellSize();
  });
});

/** A dialog that asks before something is done. `act(seconds)` does it. */
function question(dialog, act) {
  const form = dialog.querySelector("form");
  const error = dialog.querySelector(".error");
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await attempt(form.querySelector("[type=submit]"), error, () => act(Number(form.elements.seconds.value)))) dialog.close();
  });
  return () => {
    error.hidden = true;
    dialog.showModal();
  };
}

let victim = null;
const askKick = question($("kick"), async (away) => {
  try {
    await call("DELETE", `connections/${encodeURIComponent(victim.id)}`, { query: { seconds: away } });
  } catch (problem) {
    if (problem.status !== 404) throw problem; // it has left by itself
  }
  connections.refresh();
});
const topics = new Topics({ call });
const connections = new Connections({
  call,
  own: () => feed.connectionId,
  kick: (connection) => {
    victim = connection;
    const facts = { connection: connection.id, user: connection.user, ip: connection.ip, topics: [...connection.topics, ...connection.patterns].join(", ") };
    const known = Object.entries(facts).filter(([, value]) => value);
    $("kick-who").replaceChildren(...known.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, clip(value, 160)))));
    askKick();
  },
});

const askDrain = question($("drain"), async (spread) => {
  await call("POST", "pool/drain", { body: { seconds: spread } });
  await ask();
});
$("drain-open").addEventListener("click", () => {
  const { open, waiting } = latest.pool;
  say($("drain-count"), `${number.format(open)} ${open === 1 ? "client is" : "clients are"} sent away${waiting ? ` and ${number.format(waiting)} in the queue refused` : ""}`);
  askDrain();
});

showState();
asking();
setInterval(tick, 1_000);
