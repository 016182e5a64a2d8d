/* The demo: a chat room, a long job, notifications and the pool itself, all over one stream. */

import { SSEPool } from "../ssepool.js";

const MOST = { chat: 100, notices: 30, toasts: 3 };
const TOAST_TIME = 6_000; // milliseconds, as all times here
const FRESH = 15_000;
const STALLED = 10_000;
const POLL = 3_000;
const FLASH_TIME = 600;
const LONG_AGO = -Infinity; // performance.now() begins at 0

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const motion = matchMedia("(prefers-reduced-motion: no-preference)");
const randomId = () => crypto.getRandomValues(new Uint32Array(3)).reduce((id, n) => id + n.toString(36), "");

/** An element; strings among its children become text, so nothing that others sent is ever read as markup. */
function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Text from somebody else's data, whatever that holds, cut to a length. */
function clip(value, most) {
  const text = typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "");
  return text.slice(0, most);
}

/** What somebody published as an object: `{text: ...}` where it was a text or a number. */
const fields = (data, event) => (typeof data === "object" && data !== null ? data : { text: event.data });

/** The sender's clock where it can be believed, ours where not. */
function moment(at) {
  return Math.abs(Date.now() - at) < 86_400_000 ? Number(at) : Date.now();
}

/* What this tab remembers over a reload. The events shown and the id up to which they were received are written as
   one value, so that neither can be ahead of the other. */

const KEY = "ssepool.demo";
const memory = { tab: randomId(), sender: randomId(), name: "", lastEventId: "" };
Object.assign(memory, { chat: [], notices: [], job: null, gaps: 0 });
try {
  Object.assign(memory, JSON.parse(sessionStorage.getItem(KEY)));
} catch (error) {
  console.info("nothing can be remembered here:", error.message);
}
let saving = null;

function save() {
  clearTimeout(saving);
  saving = null;
  memory.lastEventId = feed.lastEventId === "earliest" ? "" : feed.lastEventId;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(memory));
  } catch {
    // Storage is full or forbidden: a reload then begins at the earliest event, which is what a new tab does.
  }
}

/* What was received but is not on the page yet: a replay of thousands of events must not lay the page out for each. */

const unseen = { chat: [...memory.chat], notices: [...memory.notices] };
let rendering = null;

/** Keep a message or a notification, unless it is here already; true if it was not. */
function remember(kind, item) {
  if (item.id && memory[kind].some((known) => known.id === item.id)) return false;
  for (const list of [memory[kind], unseen[kind]]) {
    list.push(item);
    if (list.length > MOST[kind]) list.shift();
  }
  return true;
}

/** To be called after each event: shows and stores what it changed, soon. */
function changed() {
  rendering ??= setTimeout(render, 16);
  saving ??= setTimeout(save, 250);
}

function render() {
  rendering = null;
  showChat(unseen.chat.splice(0));
  unseen.notices.splice(0).forEach(showNotice);
  $("last-event-id").textContent = feed.lastEventId === "earliest" ? "none" : feed.lastEventId;
  $("gaps").textContent = memory.gaps;
  $("gaps-fact").hidden = memory.gaps === 0;
}

addEventListener("pagehide", save);

/* The connection */

const pool = new SSEPool();
const feed = pool.subscribe({
  topics: ["demo/chat", "demo/notifications", `demo/jobs/${memory.tab}`, "ssepool/pool"],
  lastEventId: memory.lastEventId || "earliest",
});
const SAYS = {
  connecting: () => "Connecting",
  waiting: () => `Waiting for a slot, at place ${feed.position}`,
  open: () => "Connected",
  reconnecting: () => (feed.reason ? `Reconnecting (${feed.reason})` : "Reconnecting"),
  closed: () => (feed.reason === "client_closed" ? "Closed: you left" : `Closed: ${feed.reason}`),
};
let openedAt = Infinity;
let hinting = null;

function showState() {
  const { state } = feed;
  $("state").dataset.state = state;
  if ($("state").textContent !== SAYS[state]()) $("state").textContent = SAYS[state]();
  $("connection-id").textContent = feed.connectionId ?? "none";
  $("leave").textContent = state === "closed" ? "Come back" : "Leave";
  if (state === "open") openedAt = performance.now();
  clearTimeout(hinting);
  hinting = state === "open" || state === "closed" ? null : setTimeout(showHint, POLL);
  if (hinting === null) $("hint").hidden = true;
  if (state === "open") for (const error of document.querySelectorAll(".error")) error.hidden = true;
  showCell();
}

const HINTS = {
  waiting: "Every slot is taken. This window is let in as soon as one comes free, in order.",
  connecting:
    "No answer yet. The pool may be full, or this browser has six connections to this host already, " +
    "which is the most that it makes over HTTP/1.1.",
  reconnecting: "The server does not answer. This page goes on trying, and asks for what it missed when it is back.",
};

function showHint() {
  $("hint").textContent = HINTS[feed.state];
  $("hint").hidden = false;
}

feed.on("ssepool.state", showState);
feed.on("ssepool.gap", ({ requested, resumed, reason }) => {
  memory.gaps += 1;
  const on = resumed ? `went on at ${clip(resumed, 128)}` : "went on with what comes next";
  const asked = `asked to go on after ${clip(requested, 128)}`;
  remember("chat", { gap: `Events are missing here: ${asked}, ${on} (${clip(reason, 64)}).` });
  changed();
});
$("leave").addEventListener("click", () => (feed.state === "closed" ? feed.reconnect() : feed.close()));

/** Run a form's or a button's request; show under it what went wrong. */
async function attempt(control, error, action) {
  control.disabled = true;
  error.hidden = true;
  try {
    await action();
  } catch (problem) {
    error.textContent = `That did not work: ${problem.message}`;
    error.hidden = false;
  } finally {
    control.disabled = false;
  }
}

/* Chat */

const SWIMMERS = ["Otter", "Heron", "Newt", "Pike", "Teal", "Carp", "Swan", "Crab", "Seal", "Tern"];
const sentAt = new Map(); // our own messages under way -> performance.now()

function showChat(items) {
  if (!items.length) return;
  const log = $("chat-log");
  const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  log.append(...items.map(makeMessage));
  while (log.childElementCount > MOST.chat) log.firstElementChild.remove();
  if (follows || items.some((item) => item.from === memory.sender)) log.scrollTop = log.scrollHeight;
}

function makeMessage(item) {
  if (item.gap) return element("p", { class: "gap" }, item.gap);
  const time = element("time", { datetime: new Date(item.at).toISOString() }, clock.format(item.at));
  const who = element("div", { class: "who" }, element("b", {}, item.name), time);
  if (item.took !== undefined) who.append(element("span", { title: "from sending to receiving" }, `${item.took} ms`));
  const own = item.from === memory.sender ? "said own" : "said";
  return element("div", { class: own }, who, element("p", {}, item.text));
}

function heard(data, event) {
  const said = fields(data, event);
  const item = { id: event.lastEventId, name: clip(said.name, 32) || "somebody", from: clip(said.from, 64) };
  Object.assign(item, { text: clip(said.text, 2000), at: moment(said.at) });
  if (sentAt.has(said.n)) {
    item.took = Math.round(performance.now() - sentAt.get(said.n));
    sentAt.delete(said.n);
  }
  remember("chat", item);
  changed();
}
feed.on("chat", heard);
feed.on("message", heard);

memory.name ||= `${SWIMMERS[Math.floor(Math.random() * SWIMMERS.length)]} ${10 + Math.floor(Math.random() * 90)}`;
$("chat-name").value = memory.name;
$("chat-name").addEventListener("input", (event) => {
  memory.name = event.target.value;
  changed();
});
$("chat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = $("chat-text");
  const text = input.value.trim();
  if (!text) return;
  attempt(event.submitter ?? event.target.elements[0], $("chat-error"), async () => {
    const n = randomId();
    sentAt.set(n, performance.now());
    input.value = "";
    try {
      const said = { name: $("chat-name").value, from: memory.sender, text, at: Date.now(), n };
      await pool.publish("demo/chat", said, { type: "chat" });
    } catch (error) {
      sentAt.delete(n);
      input.value ||= text;
      throw error;
    }
  });
  input.focus();
});

/* The long job */

const isRunning = () => memory.job !== null && !memory.job.done;
const isStalled = () => isRunning() && feed.state === "open" && Date.now() - Math.max(memory.job.at, pageAt) > STALLED;
const pageAt = Date.now();
let resumed = isRunning();

function showJob() {
  const percent = memory.job?.percent ?? 0;
  $("job-bar").setAttribute("aria-valuenow", percent);
  $("job-bar").style.setProperty("--percent", percent);
  $("job-start").disabled = isRunning() && !isStalled();
  $("job-start").textContent = memory.job === null || isRunning() ? "Start the job" : "Start again";
  // The bar tells its value itself; to have each step read out as well would leave no time for anything else.
  $("job-text").setAttribute("aria-live", $("job-start").disabled ? "off" : "polite");
  $("job-text").textContent = describeJob();
}

function describeJob() {
  if (!memory.job) return "Not started";
  const { percent, step, done } = memory.job;
  if (done) return "Done: 100 %";
  if (isStalled()) return `No news since ${percent} %. Was the server restarted?`;
  return `${percent} %, step ${step}${resumed ? ", resumed after the reload" : ""}`;
}

feed.on("progress", ({ job, percent, step, done }) => {
  const value = Math.min(100, Math.max(0, Math.round(percent) || 0));
  memory.job = { id: clip(job, 64), percent: value, step: Math.round(step) || 0, done: done === true, at: Date.now() };
  if (memory.job.done) resumed = false;
  showJob();
  changed();
});
$("job-start").addEventListener("click", (event) => {
  attempt(event.target, $("job-error"), async () => {
    const { job } = await pool.post("demo/jobs", { tab: memory.tab });
    // Its first event may have been quicker than this answer.
    if (memory.job?.id !== job) memory.job = { id: job, percent: 0, step: 0, done: false, at: Date.now() };
    resumed = false;
  }).then(showJob);
});
setInterval(() => isRunning() && showJob(), 2_000);

/* Notifications */

const LEVELS = { info: "Info", good: "Good news", warning: "Warning", alarm: "Alarm" };

function showNotice({ text, level, at }) {
  const time = element("time", { datetime: new Date(at).toISOString() }, clock.format(at));
  const mark = element("span", { class: `level ${level}` }, LEVELS[level]);
  $("notice-list").prepend(element("li", { class: "notice" }, mark, element("p", {}, text), time));
  while ($("notice-list").childElementCount > MOST.notices) $("notice-list").lastElementChild.remove();
}

function showToast({ text, level }) {
  const cross = element("span", { "aria-hidden": "true" }, "\u00d7");
  const close = element("button", { type: "button", class: "quiet", "aria-label": "Dismiss" }, cross);
  const title = element("span", { class: `level ${level}` }, LEVELS[level]);
  const toast = element("div", { class: `toast ${level}` }, title, element("p", {}, text), close);
  let timer;
  const wait = () => (timer = setTimeout(() => toast.remove(), TOAST_TIME));
  const hold = () => clearTimeout(timer);
  close.addEventListener("click", () => toast.remove());
  for (const name of ["mouseenter", "focusin"]) toast.addEventListener(name, hold);
  for (const name of ["mouseleave", "focusout"]) toast.addEventListener(name, wait);
  $("toasts").append(toast);
  if ($("toasts").childElementCount > MOST.toasts) $("toasts").firstElementChild.remove();
  wait();
}

feed.on("notification", (data, event) => {
  const sent = fields(data, event);
  const level = Object.hasOwn(LEVELS, sent.level) ? sent.level : "info";
  const notice = { id: event.lastEventId, text: clip(sent.text, 500), level, at: moment(sent.at) };
  changed();
  if (!remember("notices", notice)) return;
  // History is listed, but must not pop up again. Who sent no time is taken for new once history has had time to come.
  const isNew = sent.at === undefined ? performance.now() - openedAt > 1_000 : Date.now() - notice.at < FRESH;
  if (isNew) showToast(notice);
});
$("notice-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const notice = { text: $("notice-text").value.trim(), level: $("notice-level").value, at: Date.now() };
  if (!notice.text) return;
  const button = event.submitter ?? event.target.elements[0];
  attempt(button, $("notice-error"), () => pool.publish("demo/notifications", notice, { type: "notification" }));
});

/* The pool */

/** The slots as tiles on a canvas, each as large as fits; where there are too many, one tile stands for several. */
class Mosaic {
  #canvas;
  #cells = "";
  #group = 1;
  #width = 0;
  #columns = 1;
  #pitch = 4;
  #left = 0;
  #flashing = new Map(); // tile -> when its state changed
  #colours = {};
  #frame = null;

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => canvas.clientWidth !== this.#width && this.#lay()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#lay());
  }

  get group() {
    return this.#group;
  }

  show(cells, flash = true) {
    const before = this.#cells;
    this.#cells = cells;
    if (before.length !== cells.length) return this.#lay();
    const since = flash && motion.matches ? performance.now() : LONG_AGO;
    for (let slot = 0; slot < cells.length; slot += 1) {
      if (before[slot] !== cells[slot]) this.#flashing.set(Math.floor(slot / this.#group), since);
    }
    this.#ask();
  }

  /** The slot under a point of the page, or -1. */
  slotAt(x, y) {
    const box = this.#canvas.getBoundingClientRect();
    const column = Math.floor((x - box.left - this.#left) / this.#pitch);
    if (column < 0 || column >= this.#columns) return -1;
    const slot = (Math.floor((y - box.top) / this.#pitch) * this.#columns + column) * this.#group;
    return slot >= 0 && slot < this.#cells.length ? slot : -1;
  }

  #lay() {
    const slots = Math.max(1, this.#cells.length);
    this.#width = this.#canvas.clientWidth;
    const width = Math.max(60, this.#width);
    const highest = slots > 4_000 ? 440 : 340;
    const fits = (pitch, tiles) => Math.ceil(tiles / Math.floor(width / pitch)) * pitch <= highest;
    let pitch = 36;
    while (pitch > 3 && !fits(pitch, slots)) pitch -= 1;
    this.#group = Math.ceil(slots / (Math.floor(width / pitch) * Math.floor(highest / pitch)));
    const tiles = Math.ceil(slots / this.#group);
    this.#pitch = pitch;
    this.#columns = Math.floor(width / pitch);
    this.#left = Math.floor((width - Math.min(this.#columns, tiles) * pitch + this.#gap) / 2);
    const height = Math.ceil(tiles / this.#columns) * pitch - this.#gap;
    this.#canvas.width = width * devicePixelRatio;
    this.#canvas.height = height * devicePixelRatio;
    this.#canvas.style.height = `${height}px`;
    const style = getComputedStyle(document.documentElement);
    const names = { f: "free", r: "reserved", o: "open", c: "closing", flash: "flash", mark: "card" };
    for (const [key, name] of Object.entries(names)) this.#colours[key] = style.getPropertyValue(`--${name}`);
    this.#flashing.clear();
    for (let tile = 0; tile < tiles; tile += 1) this.#flashing.set(tile, LONG_AGO);
    this.#draw(performance.now()); // at once: setting its size has wiped the canvas
  }

  get #gap() {
    return this.#pitch >= 20 ? 3 : this.#pitch >= 9 ? 2 : 1;
  }

  #ask() {
    this.#frame ??= requestAnimationFrame((now) => this.#draw(now));
  }

  #draw(now) {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    const pen = this.#canvas.getContext("2d");
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    for (const [tile, since] of this.#flashing) {
      const rest = 1 - (now - since) / FLASH_TIME;
      this.#drawTile(pen, tile, Math.min(1, Math.max(0, rest)));
      if (rest <= 0) this.#flashing.delete(tile);
    }
    if (this.#flashing.size) this.#ask();
  }

  #drawTile(pen, tile, flash) {
    const size = this.#pitch - this.#gap;
    const x = this.#left + (tile % this.#columns) * this.#pitch;
    const y = Math.floor(tile / this.#columns) * this.#pitch;
    const fill = (colour, alpha = 1) => {
      pen.fillStyle = colour;
      pen.globalAlpha = alpha;
      if (size > 7) {
        pen.beginPath();
        pen.roundRect(x, y, size, size, Math.min(4, size / 5));
        pen.fill();
      } else {
        pen.fillRect(x, y, size, size);
      }
      pen.globalAlpha = 1;
    };
    const slots = this.#cells.slice(tile * this.#group, (tile + 1) * this.#group);
    const state = slots.length > 1 ? "f" : slots;
    pen.clearRect(x, y, size, size);
    fill(this.#colours[state === "c" && size > 4 ? "f" : state] ?? this.#colours.f);
    if (slots.length > 1) {
      for (const kind of "ocr") fill(this.#colours[kind], (slots.split(kind).length - 1) / slots.length);
    } else if (state === "r" && size > 4) {
      pen.fillStyle = this.#colours.mark;
      pen.fillRect(x + size / 3, y + size / 3, size / 3, size / 3);
    } else if (state === "c" && size > 4) {
      pen.fillStyle = this.#colours.c;
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(x + size, y);
      pen.lineTo(x, y + size);
      pen.fill();
    }
    if (flash > 0) fill(this.#colours.flash, flash);
  }
}

const mosaic = new Mosaic($("cells"));
const STATES = { f: "free", r: "reserved", o: "open", c: "closing" };
const MOST_DOTS = 48;
let latest = null;
let pointed = -1;

function showPool(news) {
  latest = news;
  const { pool: now, events } = news;
  for (const name of ["free", "reserved", "open", "closing", "waiting", "size", "granted"]) {
    $(`n-${name}`).textContent = number.format(now[name]);
  }
  $("n-published").textContent = number.format(events.published);
  $("n-delivered").textContent = number.format(events.delivered);
  const made = () => "ocrf".replace(/./g, (kind) => kind.repeat(now[STATES[kind]]));
  mosaic.show(news.cells ?? made(), "cells" in news);
  const counts = Object.values(STATES).map((name) => `${now[name]} ${name}`);
  $("cells").setAttribute("aria-label", `${now.size} slots: ${counts.join(", ")}`);
  showCell();
  const dots = Array.from({ length: Math.min(now.waiting, MOST_DOTS) }, () => element("i"));
  const more = now.waiting > MOST_DOTS ? [`and ${number.format(now.waiting - MOST_DOTS)} more`] : [];
  $("queue").replaceChildren(...(dots.length ? [...dots, ...more] : ["nobody"]));
  const reasons = Object.entries(now.released).sort(([a, n], [b, m]) => m - n || a.localeCompare(b));
  const rows = reasons.map(([reason, count]) => {
    const cells = [element("dt", {}, reason), element("dd", {}, number.format(count))];
    return element("div", count ? {} : { class: "none" }, ...cells);
  });
  $("released").replaceChildren(...rows);
}

function showCell() {
  $("cell-text").textContent = describeCells();
}

function describeCells() {
  if (!latest) return "No news from the pool yet";
  if (!latest.cells) return `Not live: asked for every ${POLL / 1000} s while this window has no slot`;
  if (feed.state !== "open") return "Not live: this is how it was when the connection ended";
  if (mosaic.group > 1) return `One tile is ${mosaic.group} slots`;
  return pointed < 0 ? "One tile is one slot" : `Slot ${number.format(pointed)} is ${STATES[latest.cells[pointed]]}`;
}

feed.on("ssepool.pool", showPool);
$("cells").addEventListener("pointermove", (event) => {
  pointed = mosaic.slotAt(event.clientX, event.clientY);
  showCell();
});
$("cells").addEventListener("pointerleave", () => {
  pointed = -1;
  showCell();
});
async function poll() {
  if (feed.state === "open") return;
  try {
    const response = await fetch(new URL("pool", pool.base));
    const news = await response.json();
    if (feed.state !== "open" && response.ok) showPool(news);
  } catch {
    // The server is away; the connection's state says so already.
  }
}
setInterval(poll, POLL);

/* The foot */

const hub = pool.base.href;
$("curl-subscribe").textContent = `curl -N '${hub}events?topic=demo/chat&last_event_id=earliest'`;
$("curl-publish").textContent =
  `curl ${hub}events -H 'Content-Type: application/json' ` +
  `-d '{"topic": "demo/chat", "type": "chat", "data": {"name": "curl", "text": "Hello from a terminal"}}'`;
$("curl-many").textContent =
  "for i in $(seq 50); do curl -sN -m $((RANDOM % 15 + 5)) -o /dev/null " +
  `'${hub}events?topic=demo/chat' & sleep 0.1; done; wait`;
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard; // there is none on plain HTTP from another machine
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1_500);
  });
}

$("job-topic").textContent = `demo/jobs/${memory.tab}`;
$("chat-log").dataset.empty = "Nobody has said anything yet. Open a second window and talk to yourself.";
$("notice-list").dataset.empty = "None so far.";
showJob();
showState();
render();
// Replayed messages are not read out one by one; those that come later are.
setTimeout(() => $("chat-log").setAttribute("aria-live", "polite"), 1_500);
