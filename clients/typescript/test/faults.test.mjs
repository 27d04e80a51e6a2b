// The client behind a line that breaks, with a real gateway: nothing is lost and nothing comes twice.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { WebSocket } from "ws";

import { Fanfare } from "../dist/fanfare.js";
import { inTime, start, until } from "./gateway.mjs";
import { chances, HARMS, Proxy, SEED } from "./proxy.mjs";

const HISTORIES = `
[[rooms]]
match = "short"
history = { messages = 20 }
[[rooms]]
match = "*"
history = { messages = 100000, age = "10m", bytes = "32MiB" }
`;
/** Everything quick, so that a test sees many losses. */
const QUICK = { websocket: WebSocket, minReconnectDelay: 5, maxReconnectDelay: 50, timeout: 150, maxServerPingDelay: 150 };

let gateway;
before(async () => {
  // Pings as often as it may be: the client asks after as much silence.
  gateway = await start([], { HEARTBEAT__PING: "1s", HEARTBEAT__TIMEOUT: "3s" }, { config: HISTORIES });
});
after(() => gateway?.stop());

async function open(context, url, options) {
  const client = new Fanfare(url, { ...QUICK, ...options });
  context.after(() => client.close());
  await inTime(client.connect(), "connect");
  return client;
}

/** A room through a proxy, what it is given, and what befalls it. */
async function watched(context, url, id, options) {
  const client = await open(context, url, options);
  const room = client.room(id);
  const seen = { client, room, offsets: [], contents: [], gaps: [], resumed: [] };
  room.on("message", ({ offset, content }) => {
    seen.offsets.push(offset);
    seen.contents.push(content);
  });
  room.on("gap", (gap) => seen.gaps.push(gap));
  room.on("resumed", (joined) => seen.resumed.push(joined));
  room.on("left", (left) => seen.gaps.push(left));
  await inTime(room.join(), "join");
  return seen;
}

async function proxied(context) {
  const proxy = await Proxy.before(gateway.url);
  context.after(() => proxy.stop());
  return proxy;
}

const upTo = (last) => Array.from({ length: last }, (_, at) => at + 1);

test(`each kind of break, again and again: all messages come, in order, each once (seed ${SEED})`, async (context) => {
  const chance = chances();
  const proxy = await proxied(context);
  const sender = await open(context, gateway.url, { timeout: 5000 });
  const source = sender.room("broken");
  await source.join();
  const reader = await watched(context, proxy.url, "broken");
  let harmed = 0;
  proxy.plan = () => ({ bytes: Math.floor(chance() ** 3 * 20_000), how: HARMS[harmed++ % HARMS.length] });
  proxy.harm("reset");
  let last = 0;
  const end = Date.now() + 60_000;
  while (proxy.accepted < 60 && Date.now() < end) {
    for (let count = Math.ceil(chance() * 20); count > 0; count -= 1) last = (await source.publish(`${last + 1}`)).offset;
    await pause(chance() * 10);
    // A stall is a matter of time, and the line may be idle.
    if (chance() < 0.05) proxy.harm(HARMS[harmed++ % HARMS.length]);
  }
  proxy.plan = () => undefined;
  proxy.harm("reset");
  last = (await source.publish("the last")).offset;
  await until(() => reader.offsets.at(-1) === last, "the last message");
  assert.deepEqual(reader.offsets, upTo(last));
  assert.deepEqual(reader.gaps, []);
  assert.ok(reader.resumed.length >= 10, `${reader.resumed.length} times`);
  assert.ok(reader.resumed.every(({ recovered }) => recovered));
  for (const harm of HARMS) assert.ok(proxy.done.get(harm) > 0, harm);
});

test(`what is published over such a line is there once, at most once when in doubt, and not at all when rejected (seed ${SEED})`, async (context) => {
  const chance = chances(SEED + 1);
  const proxy = await proxied(context);
  const judge = await watched(context, gateway.url, "published", { timeout: 5000 });
  const writer = await watched(context, proxy.url, "published", { queue: { max: 5 } });
  let harmed = 0;
  proxy.plan = () => ({ bytes: Math.floor(300 + chance() * 3000), how: HARMS[harmed++ % HARMS.length] });
  proxy.harm("reset");
  const outcomes = new Map();
  const all = [];
  for (let number = 1; proxy.accepted < 40 && number < 20_000; number += 1) {
    const text = `${number}`;
    all.push(
      writer.room.publish(text).then(
        ({ offset }) => outcomes.set(text, offset),
        ({ code }) => outcomes.set(text, code),
      ),
    );
    await pause(chance() * 10);
  }
  proxy.plan = () => undefined;
  proxy.harm("reset");
  await Promise.all(all);
  const { offset: last } = await judge.room.publish("the last");
  await until(() => judge.offsets.at(-1) === last && writer.offsets.at(-1) === last, "the last message");
  const times = new Map();
  for (const text of judge.contents) times.set(text, (times.get(text) ?? 0) + 1);
  for (const [text, outcome] of outcomes) {
    const found = times.get(text) ?? 0;
    if (typeof outcome === "number") assert.ok(found === 1 && judge.contents[judge.offsets.indexOf(outcome)] === text, `${text}: ${found}`);
    else if (outcome === "unconfirmed") assert.ok(found <= 1, `${text}: ${found}`);
    else assert.ok(outcome === "queue_full" && found === 0, `${text}: ${outcome}, ${found}`);
  }
  assert.ok([...outcomes.values()].includes("unconfirmed"));
  for (const seen of [judge, writer]) {
    assert.deepEqual(seen.offsets, upTo(last));
    assert.deepEqual(seen.gaps, []);
  }
});

test(`what a short history has forgotten is told, and nothing else is missing (seed ${SEED})`, async (context) => {
  const chance = chances(SEED + 3);
  const proxy = await proxied(context);
  const sender = await open(context, gateway.url, { timeout: 5000 });
  const source = sender.room("short");
  await source.join();
  const reader = await watched(context, proxy.url, "short");
  // Where the reader stands, and from where it was told to go on.
  const jumps = [];
  reader.room.on("resumed", ({ recovered, offset }) => recovered || jumps.push([reader.offsets.at(-1) ?? 0, offset + 1]));
  reader.room.on("gap", ({ from_offset, to_offset }) => jumps.push([from_offset - 1, to_offset + 1]));
  let harmed = 0;
  proxy.plan = () => ({ bytes: Math.floor(chance() ** 2 * 10_000), how: HARMS[harmed++ % HARMS.length] });
  proxy.harm("reset");
  while (proxy.accepted < 30) {
    for (let count = Math.ceil(chance() * 10); count > 0; count -= 1) await source.publish("x");
    await pause(chance() * 20);
    if (chance() < 0.1) proxy.harm(HARMS[harmed++ % HARMS.length]);
  }
  proxy.plan = () => undefined;
  proxy.harm("reset");
  // Only what comes after the last break shows where the reader is.
  const caughtUp = async () => {
    const { offset } = await source.publish("x");
    await pause(20);
    return reader.offsets.at(-1) === offset;
  };
  await until(caughtUp, "catching up");
  let before = 0;
  for (const offset of reader.offsets) {
    assert.ok(offset > before, `${offset} after ${before}`);
    if (offset > before + 1) assert.ok(jumps.some(([from, to]) => from <= before && to >= offset), `${before} to ${offset}: ${JSON.stringify(jumps)}`);
    before = offset;
  }
  assert.ok(jumps.length > 0);
});

test("a hundred rooms come back by one message", async (context) => {
  const proxy = await proxied(context);
  const sender = await open(context, gateway.url, { timeout: 5000 });
  const ids = upTo(100).map((number) => `many.${number}`);
  const sources = await Promise.all(
    ids.map(async (id) => {
      const room = sender.room(id);
      await room.join();
      return room;
    }),
  );
  const client = await open(context, proxy.url, { timeout: 5000 });
  const got = new Map();
  const rooms = await Promise.all(
    ids.map(async (id) => {
      const room = client.room(id);
      room.on("message", ({ offset }) => got.set(id, [...(got.get(id) ?? []), offset]));
      await room.join();
      return room;
    }),
  );
  const resumed = [];
  for (const room of rooms) room.on("resumed", ({ recovered }) => resumed.push(recovered));
  const sent = [];
  const send = WebSocket.prototype.send;
  context.mock.method(WebSocket.prototype, "send", function (text) {
    if (this.url.startsWith(proxy.url)) sent.push(JSON.parse(text).type);
    return send.call(this, text);
  });
  const lost = new Promise((resolve) => client.on("close", resolve));
  proxy.harm("close");
  await inTime(lost, "noticing");
  await Promise.all(sources.map((room) => room.publish("while away")));
  await inTime(client.connect(), "coming back");
  await until(() => got.size === 100, "all messages");
  assert.deepEqual(sent, ["resume"]);
  assert.deepEqual(resumed, Array(100).fill(true));
  for (const offsets of got.values()) assert.deepEqual(offsets, [1]);
});

test("a new client goes on where another one was", async (context) => {
  const first = await watched(context, gateway.url, "handed on");
  await first.room.publish("1");
  await until(() => first.offsets.length === 1, "a message");
  const since = first.room.position;
  first.client.close();
  const other = await open(context, gateway.url);
  const source = other.room("handed on");
  await source.join();
  for (const text of ["2", "3"]) await source.publish(text);
  const next = await open(context, gateway.url);
  const room = next.room("handed on", { since });
  const contents = [];
  assert.equal((await room.join()).recovered, true);
  room.on("message", ({ content }) => contents.push(content));
  await until(() => contents.length === 2, "what was missed");
  assert.deepEqual(contents, ["2", "3"]);
  const lastOne = await open(context, gateway.url);
  const brief = lastOne.room("handed on", { history: 2 });
  const { offset } = await brief.join();
  const heard = [];
  brief.on("message", (message) => heard.push(message.offset));
  await until(() => heard.length === 2, "the last two");
  assert.deepEqual(heard, [offset - 1, offset]);
  const { messages, complete, epoch } = await brief.history({ since: { epoch: since.epoch, offset: 0 }, limit: 2 });
  assert.deepEqual([messages.map(({ content }) => content), complete, epoch], [["1", "2"], true, since.epoch]);
});
