/* The demo: a chat room, a long job, notifications and the pool itself, all over one stream. */

import { SSEPool } from "../ssepool.js";
import { $, attempt, clip, clock, element, number } from "../web/page.js";
import { PoolView } from "../web/pool.js";

const MOST = { chat: 100, notices: 30, toasts: 3 };
const TOAST_TIME = 6_000; // milliseconds, as all times here
const FRESH = 15_000;
const STALLED = 10_000;
const POLL = 3_000;

const randomId = () => crypto.getRandomValues(new Uint32Array(3)).reduce((id, n) => id + n.toString(36), "");

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
  showWhy();
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

const view = new PoolView();
let latest = null;

function showPool(news) {
  latest = news;
  view.show(news);
  showWhy();
  $("n-granted").textContent = number.format(news.pool.granted);
  $("n-published").textContent = number.format(news.events.published);
  $("n-delivered").textContent = number.format(news.events.delivered);
  const reasons = Object.entries(news.pool.released).sort(([a, n], [b, m]) => m - n || a.localeCompare(b));
  const rows = reasons.map(([reason, count]) => {
    const cells = [element("dt", {}, reason), element("dd", {}, number.format(count))];
    return element("div", count ? {} : { class: "none" }, ...cells);
  });
  $("released").replaceChildren(...rows);
}

/** Why the picture of the pool is not live, if it is not. */
function showWhy() {
  if (latest && !latest.cells) return view.explain(`Not live: asked for every ${POLL / 1000} s while this window has no slot`);
  view.explain(feed.state === "open" ? "" : "Not live: this is how it was when the connection ended");
}

feed.on("ssepool.pool", showPool);
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
