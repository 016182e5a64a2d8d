// Clients of language models, each as its own documentation uses it: `node models.mjs CLIENT URL`. Prints a JSON line
// for what arrives, and one for how it ended.

const [client, url] = process.argv.slice(2);
const print = (what) => console.log(JSON.stringify(what));

const CLIENTS = {
  async openai() {
    const { default: OpenAI } = await import("openai");
    const openai = new OpenAI({ apiKey: "none", baseURL: url, maxRetries: 0, defaultQuery: { final: "[DONE]" } });
    const messages = [{ role: "user", content: "hello" }];
    const stream = await openai.chat.completions.create({ model: "m", messages, stream: true });
    for await (const chunk of stream) print({ text: chunk.choices[0].delta.content });
  },

  async ai() {
    const { transport, chat } = await useChat();
    const messages = [{ id: "m1", role: "user", parts: [{ type: "text", text: "hello" }] }];
    await read(await transport.sendMessages({ ...chat, messages, trigger: "submit-message" }));
  },

  // The page was reloaded: what useChat({ resume: true }) does.
  async "ai resume"() {
    const { transport, chat } = await useChat();
    const stream = await transport.reconnectToStream(chat);
    if (stream) await read(stream);
    else print({ nothing: 204 });
  },

  async "ag-ui"() {
    const { HttpAgent } = await import("@ag-ui/client");
    const agent = new HttpAgent({ url });
    agent.messages = [{ id: "m1", role: "user", content: "hello" }];
    await agent.runAgent({}, { onTextMessageContentEvent: ({ event }) => print({ text: event.delta }) });
  },
};

async function useChat() {
  const { DefaultChatTransport } = await import("ai");
  const prepareReconnectToStreamRequest = () => ({ api: url });
  return { transport: new DefaultChatTransport({ api: url, prepareReconnectToStreamRequest }), chat: { chatId: "c1" } };
}

async function read(stream) {
  const { readUIMessageStream } = await import("ai");
  let text = "";
  for await (const message of readUIMessageStream({ stream, terminateOnError: true })) {
    const whole = message.parts.map((part) => part.text ?? "").join("");
    if (whole !== text) print({ text: whole.slice(text.length) });
    text = whole;
  }
}

// One of them leaves a promise behind that nobody can wait for.
process.on("unhandledRejection", (error) => {
  print({ end: "failed", error: String(error) });
  process.exit();
});

try {
  await CLIENTS[client]();
  print({ end: "completed" });
} catch (error) {
  print({ end: "failed", error: String(error) });
}
