// Reads a stream with fetch() and prints it, and at last `end: clean` or `end: cut`.
const response = await fetch(process.argv[2]);
const text = new TextDecoder();
try {
  for await (const part of response.body) process.stdout.write(text.decode(part, { stream: true }));
  console.log("\nend: clean");
} catch {
  console.log("\nend: cut");
}
