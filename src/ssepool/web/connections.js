/* The table of connections: a page at a time, kept up to date in place, so that nothing moves under the pointer. */

import { $, clip, element, number } from "../web/page.js";

const LIMIT = 25;
const REFRESH = 5_000; // milliseconds
const MOST_DATA = 24; // characters that stand in the table as they are; what is longer opens
const MOST_TOPICS = 34;
const FILTERS = ["topic", "user", "ip"];

/** `call(method, path, query)` asks the hub; `own()` is the id of this page's connection; `kick(connection)` is called for a button. */
export class Connections {
  #call;
  #own;
  #kick;
  #rows = new Map(); // id -> Row
  #pages = [null]; // where each page up to this one begins
  #next = null;
  #filter = {};
  #skew = 0; // the hub's clock minus ours, in milliseconds
  #turn = 0;
  #timer = null;

  constructor({ call, own, kick }) {
    this.#call = call;
    this.#own = own;
    this.#kick = kick;
    const form = $("filter");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin(Object.fromEntries(FILTERS.map((name) => [name, form.elements[name].value]).filter(([, value]) => value)));
    });
    form.addEventListener("reset", () => this.#begin({}));
    $("previous").addEventListener("click", () => this.#turnTo(this.#pages.slice(0, -1)));
    $("next").addEventListener("click", () => this.#next && this.#turnTo([...this.#pages, this.#next]));
    const body = $("connections");
    for (const type of ["pointerleave", "focusout"]) body.addEventListener(type, () => queueMicrotask(() => this.#settle()));
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    this.refresh();
  }

  /** Ask for the page again. */
  async refresh() {
    clearTimeout(this.#timer);
    const turn = (this.#turn += 1);
    try {
      const after = this.#pages.at(-1);
      const query = { ...this.#filter, limit: LIMIT, ...(after === null ? {} : { after }) };
      const { answer, date } = await this.#call("GET", "connections", { query });
      if (turn !== this.#turn) return;
      if (!answer.connections.length && this.#pages.length > 1) return this.#turnTo(this.#pages.slice(0, -1));
      if (date) this.#skew = date - Date.now();
      this.#next = answer.next;
      this.#show(answer.connections);
      $("connections-error").hidden = true;
    } catch (problem) {
      if (turn !== this.#turn) return;
      $("connections-error").textContent = `The list is not up to date: ${problem.message}`;
      $("connections-error").hidden = false;
    } finally {
      if (turn === this.#turn) this.#timer = setTimeout(() => document.hidden || this.refresh(), REFRESH);
    }
  }

  /** Let the ages grow. */
  tick() {
    for (const row of this.#rows.values()) row.tick(Date.now() + this.#skew);
  }

  #begin(filter) {
    this.#filter = filter;
    this.#turnTo([null]);
  }

  #turnTo(pages) {
    if (!pages.length) return;
    this.#pages = pages;
    for (const row of this.#rows.values()) row.node.remove();
    this.#rows.clear();
    return this.refresh();
  }

  /** Whether somebody is about to press something in the table. */
  get #held() {
    return $("connections").matches(":hover") || $("connections").contains(document.activeElement);
  }

  #show(connections) {
    const found = new Set(connections.map(({ id }) => id));
    for (const [id, row] of this.#rows) {
      if (found.has(id)) continue;
      row.leave();
      if (!this.#held) this.#drop(id);
    }
    const held = this.#held && this.#rows.size > 0;
    let place = 0;
    for (const connection of connections) {
      let row = this.#rows.get(connection.id);
      if (!row && held) continue;
      if (!row) {
        row = new Row(connection, this.#own() === connection.id ? null : () => this.#kick(row.connection));
        this.#rows.set(connection.id, row);
        $("connections").insertBefore(row.node, $("connections").children[place] ?? null);
      }
      row.update(connection);
      place = [...$("connections").children].indexOf(row.node) + 1;
    }
    this.tick();
    this.#tell(connections.length);
  }

  #drop(id) {
    this.#rows.get(id).node.remove();
    this.#rows.delete(id);
  }

  #settle() {
    if (this.#held) return;
    for (const [id, row] of this.#rows) if (row.isGone) this.#drop(id);
    this.refresh();
  }

  #tell(count) {
    const page = this.#pages.length;
    const filtered = Object.keys(this.#filter).length > 0;
    $("none").hidden = count > 0;
    $("none").textContent = filtered ? "No connection has exactly this topic, user or address." : "Nobody is connected.";
    $("page").textContent = page > 1 || this.#next ? `Page ${page}` : "";
    $("previous").disabled = page === 1;
    $("next").disabled = !this.#next;
    const topics = new Set([...this.#rows.values()].flatMap(({ connection }) => [...connection.topics, ...connection.patterns]));
    $("topics").replaceChildren(...[...topics].sort().map((topic) => element("option", { value: topic })));
  }
}

class Row {
  #cells = {};
  #text = {};
  isGone = false;

  /** `kick` is called for the button; without it there is none. */
  constructor(connection, kick) {
    this.connection = connection;
    this.node = element("tr", { role: "row" });
    for (const name of ["id", "user", "ip", "topics", "age", "events", "bytes", "skipped", "data", "action"]) {
      const cell = element(name === "id" ? "th" : "td", { role: name === "id" ? "rowheader" : "cell", class: name });
      if (name === "id") cell.scope = "row";
      if (name !== "action") cell.dataset.label = name === "id" ? "connection" : name === "data" ? "own data" : name;
      this.#cells[name] = cell;
      this.node.append(cell);
    }
    if (kick) {
      const button = element("button", { type: "button", class: "quiet", "aria-label": `Kick ${connection.id}` }, "Kick");
      button.addEventListener("click", () => this.isGone || kick());
      this.#cells.action.append(button);
    } else {
      this.#cells.action.append(element("span", { class: "own" }, "this page"));
    }
  }

  update(connection) {
    this.connection = connection;
    this.isGone = false;
    this.node.classList.remove("gone");
    const { id, state, user, ip, topics, patterns, data } = connection;
    this.#put("id", state === "open" ? id : `${id} (${state})`);
    this.#put("user", user ?? "–");
    this.#put("ip", ip ?? "–");
    const names = [...topics, ...patterns];
    this.#long("topics", names.join(", "), MOST_TOPICS, names.join("\n"), names.length);
    this.#put("events", number.format(connection.events_sent));
    this.#put("bytes", bytes(connection.bytes_sent));
    this.#put("skipped", number.format(connection.events_skipped));
    this.#cells.skipped.classList.toggle("some", connection.events_skipped > 0);
    this.#cells.data.classList.toggle("empty", data === null);
    this.#long("data", data === null ? "–" : JSON.stringify(data), MOST_DATA);
  }

  /** The connection has ended; the row stays where it is until nobody points at the table. */
  leave() {
    this.isGone = true;
    this.node.classList.add("gone");
    this.#put("age", "gone");
  }

  tick(now) {
    if (!this.isGone) this.#put("age", duration(now / 1000 - this.connection.opened_at));
  }

  #put(name, text) {
    if (this.#text[name] === text) return;
    this.#text[name] = text;
    this.#cells[name].textContent = text;
  }

  /** What may be long; `count` says how many things it lists. */
  #long(name, text, most, whole = text, count = 1) {
    if (this.#text[name] === whole) return;
    this.#text[name] = whole;
    this.#cells[name].replaceChildren(long(text, most, whole, count));
  }
}

/** What may be long: text up to `most` characters, else its beginning, which opens to the whole of it. */
export function long(text, most, whole = text, count = 1) {
  if (text.length <= most) return text;
  const summary = element("summary", {}, element("span", {}, clip(text, 200)));
  if (count > 1) summary.append(element("b", {}, number.format(count)));
  return element("details", {}, summary, element("pre", { tabindex: "0" }, whole));
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** A number of bytes, in three digits or so. */
export function bytes(count) {
  let unit = 0;
  for (; count >= 1000 && unit < UNITS.length - 1; unit += 1) count /= 1024;
  return `${unit && count < 100 ? count.toFixed(1) : number.format(Math.round(count))} ${UNITS[unit]}`;
}

/** Seconds in the two largest units that they fill. */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [d, h, m, s] = [Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
}
