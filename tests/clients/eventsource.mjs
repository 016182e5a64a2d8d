// The npm package `eventsource` for a test: `eventsource.mjs URL TYPE...` prints a line of JSON for all that happens.

import { EventSource } from "eventsource";

const [url, ...types] = process.argv.slice(2);
const source = new EventSource(url);
const print = (value) => console.log(JSON.stringify(value));
const received = ({ type, data, lastEventId }) => print({ type, data, lastEventId });

source.onopen = () => print({ state: "open" });
source.onerror = ({ code }) => print({ state: source.readyState === source.CLOSED ? "closed" : "connecting", code });
source.onmessage = received;
for (const type of types) source.addEventListener(type, received);
