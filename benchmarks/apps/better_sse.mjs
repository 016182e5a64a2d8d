// better-sse as its documentation has it: a session for each subscriber, registered with the channel of its topic.

import { createServer } from "node:http";
import { createChannel, createSession } from "better-sse";

const channels = new Map();
let published = 0;

function channel(topic) {
  let found = channels.get(topic);
  if (!found) channels.set(topic, (found = createChannel()));
  return found;
}

const server = createServer(async (request, response) => {
  if (request.method === "GET") {
    const topic = new URL(request.url, "http://localhost").searchParams.get("topic") ?? "";
    channel(topic).register(await createSession(request, response));
    return;
  }
  const parts = [];
  for await (const part of request) parts.push(part);
  const { topic, data } = JSON.parse(Buffer.concat(parts).toString());
  published += 1;
  channel(topic).broadcast(data, "message", { eventId: String(published) });
  response.writeHead(202).end();
});
server.keepAliveTimeout = 60_000;
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
