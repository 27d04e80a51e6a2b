// The client with a real gateway.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { WebSocket } from "ws";

import { Fanfare } from "../dist/fanfare.js";
import { inTime, start, until } from "./gateway.mjs";

let gateway;
before(async () => {
  gateway = await start();
});
after(() => gateway?.stop());

/** A client that is connected, and closed when its test ends. */
async function open(context, query = "", options = {}) {
  const client = new Fanfare(`${gateway.url}${query}`, { websocket: WebSocket, minReconnectDelay: 20, ...options });
  context.after(() => client.close());
  await inTime(client.connect(), "connect");
  return client;
}

test("two clients talk in a room", async (context) => {
  const [ann, ben] = [await open(context, "?user=ann"), await open(context, "?user=5")];
  assert.equal(ann.state, "open");
  assert.equal(ben.welcome.user, 5);
  const [hers, his] = [ann.room("talk"), ben.room("talk")];
  const got = [];
  hers.on("message", ({ from, content, data, key }) => got.push({ from, content, data, key }));
  await Promise.all([hers.join(), his.join()]);
  const { offset } = await his.publish("hello");
  assert.equal((await his.publish({ x: 1 })).offset, offset + 1);
  await his.publish({ content: "both", data: [2], key: "k" });
  await until(() => got.length === 3, "three messages");
  assert.deepEqual(got, [
    { from: 5, content: "hello", data: undefined, key: undefined },
    { from: 5, content: undefined, data: { x: 1 }, key: undefined },
    { from: 5, content: "both", data: [2], key: "k" },
  ]);
});

test("direct messages and those to all arrive at the client", async (context) => {
  const [ann, ben] = [await open(context, "?user=ann"), await open(context, "?user=ben")];
  const got = [];
  ben.on("message", ({ to, content }) => got.push([to, content]));
  assert.deepEqual((await ann.send("ben", "psst")).delivered, 1);
  assert.deepEqual((await ann.send("nobody", "psst")).delivered, 0);
  assert.equal(await ann.broadcast("hear ye"), undefined);
  await until(() => got.length === 2, "both");
  assert.deepEqual(got.sort(), [["ben", "psst"], [undefined, "hear ye"]].sort());
});

test("what the gateway refuses is a typed error, and the connection stays", async (context) => {
  const ann = await open(context);
  await assert.rejects(ann.room("elsewhere").publish("x"), { name: "FanfareError", code: "not_a_member", maybePublished: false });
  assert.equal(ann.state, "open");
});

test("a loop ends when the room is left", async (context) => {
  const ann = await open(context);
  const room = ann.room("loop");
  await room.join();
  const got = [];
  const loop = (async () => {
    for await (const { content } of room) got.push(content);
  })();
  for (const text of ["1", "2", "3"]) await room.publish(text);
  await until(() => got.length === 3, "three messages");
  await room.leave();
  await inTime(loop, "the end of the loop");
  assert.deepEqual(got, ["1", "2", "3"]);
});

test("is back in its rooms after the gateway was killed and has come again", async (context) => {
  const own = await start();
  const ann = new Fanfare(own.url, { websocket: WebSocket, minReconnectDelay: 20 });
  context.after(() => ann.close());
  await ann.connect();
  const rooms = [ann.room("one"), ann.room(2)];
  await Promise.all(rooms.map((room) => room.join()));
  const resumed = [];
  for (const room of rooms) room.on("resumed", ({ recovered }) => resumed.push([room.id, recovered]));
  await own.kill();
  await until(() => ann.state === "waiting", "noticing");
  const waiting = rooms[0].publish("sent while away");
  const got = [];
  rooms[0].on("message", ({ content }) => got.push(content));
  const again = await start([], {}, new URL(own.url).host);
  context.after(() => again.stop());
  await inTime(waiting, "the publication that waited");
  await until(() => got.length === 1, "the message");
  assert.deepEqual(resumed, [["one", false], [2, false]]);
  assert.deepEqual(got, ["sent while away"]);
});
