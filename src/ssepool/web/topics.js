/* The table of the biggest topics: what is kept of each, who listens, and how often is published to it. */

import { $, element, number } from "../web/page.js";
import { bytes, long } from "./connections.js";

const LIMIT = 8;
const REFRESH = 10_000; // milliseconds
const MOST_NAME = 40; // characters that stand in the table as they are; what is longer opens
const decimal = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** `call(method, path, query)` asks the hub. The card is hidden from who may not see what is in it. */
export class Topics {
  #call;
  #rows = new Map(); // name -> Row
  #turn = 0;
  #timer = null;

  constructor({ call }) {
    this.#call = call;
    $("biggest-by").addEventListener("change", () => this.refresh());
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    this.refresh();
  }

  /** Ask for the topics again. */
  async refresh() {
    clearTimeout(this.#timer);
    const turn = (this.#turn += 1);
    let isRefused = false;
    try {
      const { answer } = await this.#call("GET", "topics", { query: { sort: $("biggest-by").value, limit: LIMIT } });
      if (turn !== this.#turn) return;
      this.#show(answer.topics);
      this.#tell(answer.missing.length ? `Without the subscribers of nodes that do not answer: ${answer.missing.join(", ")}` : "");
    } catch (problem) {
      if (turn !== this.#turn) return;
      isRefused = [401, 403].includes(problem.status);
      this.#tell(`The list is not up to date: ${problem.message}`);
    } finally {
      if (turn === this.#turn) {
        $("biggest").hidden = isRefused;
        // Who has no right to it is asked about again when the page comes back, and not all the time.
        if (!isRefused) this.#timer = setTimeout(() => document.hidden || this.refresh(), REFRESH);
      }
    }
  }

  #tell(problem) {
    $("biggest-error").textContent = problem;
    $("biggest-error").hidden = !problem;
  }

  #show(topics) {
    const rows = topics.map((topic) => {
      const row = this.#rows.get(topic.topic) ?? new Row(topic.topic);
      row.update(topic);
      return [topic.topic, row];
    });
    this.#rows = new Map(rows);
    const nodes = rows.map(([, row]) => row.node);
    const body = $("biggest-rows");
    if (nodes.length !== body.children.length || nodes.some((node, place) => node !== body.children[place])) {
      const focused = body.contains(document.activeElement) ? document.activeElement : null;
      body.replaceChildren(...nodes);
      if (focused?.isConnected) focused.focus({ preventScroll: true });
    }
    $("biggest-none").hidden = topics.length > 0;
  }
}

class Row {
  #cells = {};

  constructor(name) {
    const head = element("th", { role: "rowheader", scope: "row", class: "name" }, long(name, MOST_NAME));
    this.node = element("tr", { role: "row" }, head);
    for (const column of ["events", "bytes", "subscribers", "rate"]) {
      this.#cells[column] = element("td", { role: "cell", class: column, "data-label": column });
      this.node.append(this.#cells[column]);
    }
  }

  update({ events, bytes: size, subscribers, by_pattern: others, rate }) {
    const texts = {
      events: number.format(events),
      bytes: bytes(size),
      subscribers: others ? `${number.format(subscribers)} + ${number.format(others)}` : number.format(subscribers),
      rate: `${(rate < 10 ? decimal : number).format(rate < 10 ? rate : Math.round(rate))}/s`,
    };
    for (const [column, text] of Object.entries(texts)) this.#cells[column].textContent = text;
  }
}
