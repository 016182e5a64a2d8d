/* The pool as a picture: its slots, its counts, its queue. The page has the elements; their ids are the same everywhere. */

import { $, element, number } from "./page.js";

export const STATES = { f: "free", r: "reserved", o: "open", c: "closing" };
const GAUGES = [...Object.values(STATES), "size", "waiting"];
const MOST_DOTS = 48;
const FLASH_TIME = 600; // milliseconds
const LONG_AGO = -Infinity; // performance.now() begins at 0
const motion = matchMedia("(prefers-reduced-motion: no-preference)");

/** All of it. `highest(slots)` is how many pixels the tiles may take, `largest` the pixels of a tile at most. */
export class PoolView {
  #mosaic;
  #news = null;
  #silent = "";
  #pointed = -1;

  constructor({ highest = (slots) => (slots > 4_000 ? 440 : 340), largest = 36 } = {}) {
    this.#mosaic = new Mosaic($("cells"), highest, largest);
    $("cells").addEventListener("pointermove", (event) => this.#point(this.#mosaic.slotAt(event.clientX, event.clientY)));
    $("cells").addEventListener("pointerleave", () => this.#point(-1));
  }

  /** Show a report of the hub, as it comes over `ssepool/pool`, or without `cells` from GET /pool. */
  show(news) {
    this.#news = news;
    const { pool } = news;
    for (const name of GAUGES) $(`n-${name}`).textContent = number.format(pool[name]);
    const made = () => "ocrf".replace(/./g, (kind) => kind.repeat(pool[STATES[kind]]));
    this.#mosaic.show(news.cells ?? made(), "cells" in news);
    const counts = Object.values(STATES).map((name) => `${pool[name]} ${name}`);
    $("cells").setAttribute("aria-label", `${pool.size} slots: ${counts.join(", ")}`);
    const dots = Array.from({ length: Math.min(pool.waiting, MOST_DOTS) }, () => element("i"));
    const more = pool.waiting > MOST_DOTS ? [`and ${number.format(pool.waiting - MOST_DOTS)} more`] : [];
    $("queue").replaceChildren(...(dots.length ? [...dots, ...more] : ["nobody"]));
    this.#caption();
  }

  /** Why the picture is not live, or nothing if it is. */
  explain(why) {
    this.#silent = why;
    this.#caption();
  }

  #point(slot) {
    this.#pointed = slot;
    this.#caption();
  }

  #caption() {
    const { group } = this.#mosaic;
    const cells = this.#news?.cells;
    $("cell-text").textContent = !this.#news
      ? "No news from the pool yet"
      : this.#silent
        ? this.#silent
        : cells && this.#pointed >= 0 && group === 1
          ? `Slot ${number.format(this.#pointed)} is ${STATES[cells[this.#pointed]]}`
          : group > 1
            ? `One tile is ${group} slots`
            : "One tile is one slot";
  }
}

/** The slots as tiles on a canvas, each as large as fits; where there are too many, one tile stands for several. */
class Mosaic {
  #canvas;
  #highest;
  #largest;
  #cells = "";
  #group = 1;
  #width = 0;
  #columns = 1;
  #pitch = 4;
  #left = 0;
  #flashing = new Map(); // tile -> when its state changed
  #colours = {};
  #frame = null;

  constructor(canvas, highest, largest) {
    this.#canvas = canvas;
    this.#highest = highest;
    this.#largest = largest;
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
    const highest = this.#highest(slots);
    const fits = (pitch, tiles) => Math.ceil(tiles / Math.floor(width / pitch)) * pitch <= highest;
    let pitch = this.#largest;
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
