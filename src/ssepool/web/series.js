/* The last minutes, one value a second: kept and drawn in the page. */

const SVG = "http://www.w3.org/2000/svg";

/** Values by second. Gauges keep the highest of a second; counters are spread over the time in which they grew. */
export class History {
  #length;
  #now; // the second that goes on
  #series = new Map();

  constructor(names, length, now) {
    this.#length = length;
    this.#now = Math.floor(now);
    for (const name of names) this.#series.set(name, new Float64Array(length).fill(NaN));
  }

  get length() {
    return this.#length;
  }

  /** Let time pass; seconds that nothing is told of stay unknown. */
  advance(now) {
    const to = Math.floor(now);
    for (let second = Math.max(this.#now, to - this.#length) + 1; second <= to; second += 1) {
      for (const values of this.#series.values()) values[second % this.#length] = NaN;
    }
    this.#now = Math.max(this.#now, to);
  }

  gauge(name, value) {
    const values = this.#series.get(name);
    const place = this.#now % this.#length;
    values[place] = Math.max(value, Number.isNaN(values[place]) ? value : values[place]);
  }

  /** A counter grew by `amount` between two moments, in seconds. */
  grown(name, from, to, amount) {
    const values = this.#series.get(name);
    const begin = Math.max(from, this.#now - this.#length + 1);
    for (let second = Math.floor(begin); second < to && to > from; second += 1) {
      const share = (Math.min(to, second + 1) - Math.max(from, second)) / (to - from);
      const place = second % this.#length;
      values[place] = (Number.isNaN(values[place]) ? 0 : values[place]) + amount * share;
    }
  }

  /** The values of whole seconds, the oldest first; those from the second `until` on are not complete yet. */
  values(name, until = Infinity) {
    const values = this.#series.get(name);
    const first = this.#now - this.#length;
    return Array.from({ length: this.#length }, (_, place) => {
      const second = first + place;
      return second < 0 || second >= until || place === 0 ? NaN : values[second % this.#length];
    });
  }
}

/** A line over the last minutes, as SVG that fills its element. `limit` is a value that the line is measured against. */
export class Sparkline {
  #node;
  #area = draw("path", { class: "area" });
  #line = draw("path", { class: "line" });
  #limit = draw("path", { class: "limit" });
  #mark = draw("path", { class: "mark" });
  #values = [];
  #top = 1;

  constructor(node) {
    this.#node = node;
    node.replaceChildren(this.#area, this.#limit, this.#line, this.#mark);
  }

  get values() {
    return this.#values;
  }

  show(values, { limit = NaN, least = 1 } = {}) {
    this.#values = values;
    const highest = Math.max(least, ...values.filter((value) => !Number.isNaN(value)));
    // The limit is drawn where the line comes near it; else the line would lie flat on the ground.
    const near = limit <= highest * 2;
    this.#top = Math.max(highest, near ? limit : 0) * 1.08;
    this.#node.setAttribute("viewBox", `0 0 ${values.length - 1} 100`);
    this.#limit.setAttribute("d", near ? `M0 ${this.#y(limit)}H${values.length - 1}` : "");
    const runs = this.#runs();
    this.#line.setAttribute("d", runs.map((run) => `M${run.join("L")}${run.length === 1 ? "h1" : ""}`).join(""));
    const ground = (run) => `M${run[0].split(" ")[0]} 100L${run.join("L")}L${run.at(-1).split(" ")[0]} 100Z`;
    this.#area.setAttribute("d", runs.map(ground).join(""));
  }

  /** Mark one of the values, or none. */
  point(place) {
    this.#mark.setAttribute("d", place === null ? "" : `M${place} 0V100`);
  }

  #y(value) {
    return (100 - (100 * value) / this.#top).toFixed(2);
  }

  /** Points that follow each other, apart from those before and after an unknown value. */
  #runs() {
    const runs = [];
    let last = NaN;
    this.#values.forEach((value, place) => {
      if (!Number.isNaN(value)) {
        if (Number.isNaN(last)) runs.push([]);
        runs.at(-1).push(`${place} ${this.#y(value)}`);
      }
      last = value;
    });
    return runs;
  }
}

function draw(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
