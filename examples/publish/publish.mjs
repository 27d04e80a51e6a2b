#!/usr/bin/env node
// Publishes to a room from a back end, and checks that the gateway has it once.
//
//     node examples/publish/publish.mjs demo.lobby "hello from Node"
//     node examples/publish/publish.mjs demo.lobby one two three     # several in one request
//
// Needs nothing but Node 20. API_KEY is a key with the scopes `publish` and `read`, where the gateway asks for one;
// ADMIN is its admin listener.
import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";

/** The HTTP API on the admin listener of a gateway. */
class Gateway {
  constructor(admin, key) {
    this.base = `${admin.replace(/\/$/, "")}/api/v1`;
    this.headers = key ? { Authorization: `Bearer ${key}` } : {};
  }

  /** Publishes one message. To call it again with the same key, after a time-out for instance, does no harm. */
  async publish(message, idempotencyKey) {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": idempotencyKey };
    return JSON.parse(await this.#ask("/publish", { method: "POST", body: JSON.stringify(message), headers }));
  }

  /** Publishes in one request, in this order; gives the answer to each. */
  async publishMany(messages) {
    const body = messages.map((message) => `${JSON.stringify(message)}\n`).join("");
    const headers = { "Content-Type": "application/x-ndjson" };
    const answers = await this.#ask("/publish", { method: "POST", body, headers });
    return answers.trimEnd().split("\n").map((line) => JSON.parse(line));
  }

  /** The last messages of a room, where it keeps some. */
  async history(room, limit) {
    return JSON.parse(await this.#ask(`/rooms/${encodeURIComponent(room)}/history?limit=${limit}`)).messages;
  }

  async #ask(path, options = {}) {
    let response, text;
    try {
      response = await fetch(this.base + path, {
        ...options,
        headers: { ...this.headers, ...options.headers },
        signal: AbortSignal.timeout(10_000),
      });
      text = await response.text();
    } catch (error) {
      // Whether it was published is not known: send it again, with the same Idempotency-Key.
      fail(`${this.base}${path}: ${error.cause?.message ?? error.message}`);
    }
    // Errors are JSON as well; `message` says what to do. 503 comes with Retry-After.
    if (!response.ok) fail(`${options.method ?? "GET"} ${this.base}${path}: ${response.status} ${text.trim()}`);
    return text;
  }
}

function fail(why) {
  console.error(why);
  process.exit(1);
}

const [room, ...contents] = process.argv.slice(2);
if (contents.length === 0) fail("usage: publish.mjs ROOM TEXT...");
const gateway = new Gateway(process.env.ADMIN || "http://127.0.0.1:9090", process.env.API_KEY);

// A mark of this run, by which its messages are found again.
const run = randomUUID();
const messages = contents.map((content, number) => ({ room_id: room, from: "backend", content, data: { run, number } }));
let answers;
if (messages.length === 1) {
  answers = [await gateway.publish(messages[0], run)];
  const again = await gateway.publish(messages[0], run);
  if (!isDeepStrictEqual(answers[0], again)) {
    fail(`the same Idempotency-Key was answered ${JSON.stringify(answers[0])} and then ${JSON.stringify(again)}`);
  }
} else {
  answers = await gateway.publishMany(messages);
}
if (answers.length !== messages.length) fail(`${messages.length} messages had ${answers.length} answers`);
for (const [index, answer] of answers.entries()) {
  const { content } = messages[index];
  if (answer.error) fail(`'${content}' was refused: ${JSON.stringify(answer)}`);
  if (answer.offset === undefined) {
    console.log(`nobody is in ${room}, and it has no history: '${content}' was heard by nobody`);
    process.exit(0);
  }
  console.log(`published '${content}' to ${room} as offset ${answer.offset} of epoch ${answer.epoch}`);
}

const found = (await gateway.history(room, 1000)).filter((kept) => kept.data?.run === run);
if (!isDeepStrictEqual(found.map((kept) => kept.offset), answers.map((answer) => answer.offset))) {
  fail(`the history has ${JSON.stringify(found)} where ${JSON.stringify(answers)} were answered`);
}
console.log(`found ${found.length} of ${answers.length} in the history, each once and in this order`);
