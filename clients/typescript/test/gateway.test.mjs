// The client with a real gateway.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { WebSocket } from "ws";

import { Fanfare } from "../dist/fanfare.js";
import { inTime, start, until } from "./gateway.mjs";
import { Proxy } from "./proxy.mjs";

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

test("who comes and goes is told, who only lost the line and is back is not", async (context) => {
  const proxy = await Proxy.before(gateway.url);
  context.after(() => proxy.stop());
  const ann = await open(context, "?user=ann");
  const room = ann.room("demo.presence");
  const told = [];
  for (const type of ["join", "leave"]) room.on(type, ({ from }) => told.push([type, from]));
  await room.join();
  const ben = new Fanfare(`${proxy.url}?user=7`, { websocket: WebSocket, minReconnectDelay: 20 });
  context.after(() => ben.close());
  await ben.connect();
  const his = ben.room("demo.presence");
  await his.join();
  await until(() => told.length > 0 && told.at(-1)[1] === 7, "the join");
  const { users, members } = await room.presence();
  assert.equal(users, 2);
  assert.deepEqual(members.map(({ user }) => user).sort(), [7, "ann"].sort());
  const page = await room.presence({ limit: 1 });
  assert.equal((await room.presence({ limit: 1, after: page.next })).members.length, 1);
  const resumed = new Promise((resolve) => his.on("resumed", resolve));
  proxy.harm("reset");
  await ann.broadcast("meanwhile");
  assert.equal((await inTime(resumed, "coming back")).recovered, true);
  await his.leave();
  await until(() => told.at(-1)[0] === "leave", "the leave");
  assert.deepEqual(told.filter(([, from]) => from === 7), [["join", 7], ["leave", 7]]);
});

test("a room that was left without a connection is left, though the gateway brings it back", async (context) => {
  const proxy = await Proxy.before(gateway.url);
  context.after(() => proxy.stop());
  const ann = await open(context, "?user=ann");
  const ben = new Fanfare(`${proxy.url}?user=ben`, { websocket: WebSocket, minReconnectDelay: 20 });
  context.after(() => ben.close());
  await ben.connect();
  const [stays, goes] = [ben.room("stays"), ben.room("goes")];
  await Promise.all([stays.join(), goes.join()]);
  const lost = new Promise((resolve) => ben.on("close", resolve));
  proxy.harm("reset");
  await inTime(lost, "noticing");
  await goes.leave();
  await inTime(ben.connect(), "coming back");
  assert.deepEqual([stays.joined, goes.joined], [true, false]);
  const left = ann.room("goes");
  await left.join();
  await until(async () => (await left.presence()).users === 1, "leaving");
});

test("who is taken out of a room by the application is told so", async (context) => {
  const client = await open(context, "?user=dora");
  const room = client.room("taken out");
  await room.join();
  const left = new Promise((resolve) => room.on("left", resolve));
  assert.equal((await gateway.post("/unsubscribe", { room_id: "taken out", user: "dora" })).status, 200);
  assert.equal((await inTime(left, "being told")).error.code, "unsubscribed");
  await assert.rejects(room.publish("x"), { code: "not_a_member" });
});

test("the last messages come with the join, and can be read back", async (context) => {
  const [ann, ben] = [await open(context), await open(context)];
  const room = ann.room("read back");
  await room.join();
  for (const text of ["1", "2", "3"]) await room.publish(text);
  const his = ben.room("read back", { history: 2 });
  const { offset, epoch } = await his.join();
  const got = [];
  // Only listens now, and yet in time.
  for await (const { content } of his) {
    got.push(content);
    if (got.length === 2) break;
  }
  assert.deepEqual(got, ["2", "3"]);
  assert.deepEqual(his.position, { epoch, offset });
  const first = await his.history({ since: { epoch, offset: 0 }, limit: 2 });
  assert.deepEqual([first.messages.map(({ content }) => content), first.complete, first.offset], [["1", "2"], true, 3]);
  const rest = await his.history({ since: { epoch, offset: first.messages.at(-1).offset } });
  assert.deepEqual(rest.messages.map(({ content }) => content), ["3"]);
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
  const again = await start([], {}, { listen: new URL(own.url).host });
  context.after(() => again.stop());
  await inTime(waiting, "the publication that waited");
  await until(() => got.length === 1, "the message");
  assert.deepEqual(resumed, [["one", false], [2, false]]);
  assert.deepEqual(got, ["sent while away"]);
});

const SECRET = "a secret for tests only, long enough";

/** A token for this user that lasts so many seconds. */
function token(sub, seconds) {
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const body = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, iat: now, exp: now + seconds })}`;
  return `${body}.${createHmac("sha256", SECRET).update(body).digest("base64url")}`;
}

/** A gateway that asks for tokens. */
async function secured(context) {
  const own = await start([], { AUTH__MODE: "jwt", AUTH__SECRET: SECRET });
  context.after(() => own.stop());
  return own;
}

function clientOf(context, own, options) {
  const client = new Fanfare(own.url, { websocket: WebSocket, minReconnectDelay: 20, ...options });
  context.after(() => client.close());
  return client;
}

test("a token is renewed on the live connection, which outlives the first one", async (context) => {
  const own = await secured(context);
  let asked = 0;
  const client = clientOf(context, own, { getToken: () => ((asked += 1), token("ann", 3)) });
  const states = [];
  client.on("state", (state) => states.push(state));
  await inTime(client.connect(), "connect");
  assert.equal(client.welcome.user, "ann");
  await pause(5000);
  assert.deepEqual(states, ["connecting", "open"]);
  assert.ok(asked >= 2, `${asked} tokens`);
  await client.room("a").join();
});

test("a token that nobody renews ends the connection for good; with another one the client comes back by itself", async (context) => {
  const own = await secured(context);
  const fixed = clientOf(context, own, { token: token("ann", 2) });
  const closed = new Promise((resolve) => fixed.on("close", resolve));
  await inTime(fixed.connect(), "connect");
  assert.equal((await inTime(closed, "the end")).code, 4500);
  assert.equal(fixed.state, "closed");

  const revoked = clientOf(context, own, { getToken: () => token("ben", 3600) });
  await inTime(revoked.connect(), "connect");
  // A second that is not the revocation's, or the new token counts as an old one.
  const lost = new Promise((resolve) => revoked.on("close", resolve));
  await pause(1000 - (Date.now() % 1000));
  assert.equal((await own.post("/revoke", { user: "ben" })).status, 200);
  assert.equal((await inTime(lost, "the revocation")).code, 4500);
  await until(() => revoked.state === "open", "coming back");
});

test("a refused token is asked for anew until there is a good one", async (context) => {
  const own = await secured(context);
  let asked = 0;
  const client = clientOf(context, own, { getToken: () => ((asked += 1) < 3 ? "not.a.token" : token("ann", 3600)) });
  const reasons = [];
  client.on("close", ({ reason }) => reasons.push(reason));
  await inTime(client.connect(), "connect");
  assert.equal(asked, 3);
  assert.match(reasons[0], /401/);
});

test("who is disconnected by the application stays away and is told why", async (context) => {
  const client = await open(context, "?user=carl");
  const room = client.room("carl's");
  await room.join();
  const closed = new Promise((resolve) => client.on("close", resolve));
  const left = new Promise((resolve) => room.on("left", resolve));
  await gateway.post("/disconnect", { user: "carl", reason: "be gone" });
  assert.deepEqual(await inTime(closed, "the end"), { code: 4501, reason: "be gone" });
  assert.equal((await left).error.closeCode, 4501);
  await assert.rejects(room.publish("x"), { code: "closed" });
});

test("who is sent away by a drain comes back when it is told to, elsewhere, and into its rooms", async (context) => {
  const [old, other] = [await start([], { DRAIN__WINDOW: "500ms" }), await start()];
  context.after(() => Promise.all([old.stop(), other.stop()]));
  // As a load balancer does: who comes back is sent to another gateway.
  let host = new URL(old.url).host;
  let advice;
  const balanced = function (url, protocols) {
    const socket = new WebSocket(url.replace(new URL(old.url).host, host), protocols);
    socket.on("message", (text) => {
      const { type, after_ms } = JSON.parse(text);
      if (type === "reconnect") advice = { after_ms, at: Date.now() };
    });
    return socket;
  };
  const client = clientOf(context, old, { websocket: balanced });
  await inTime(client.connect(), "connect");
  const room = client.room("moving");
  await room.join();
  const closed = new Promise((resolve) => client.on("close", resolve));
  host = new URL(other.url).host;
  assert.equal((await old.post("/drain", {})).status, 200);
  assert.equal((await inTime(closed, "being sent away")).code, 1001);
  const heard = new Promise((resolve) => room.on("message", resolve));
  await inTime(room.publish("here"), "publishing");
  assert.ok(Date.now() >= advice.at + advice.after_ms, "not sooner than it was told to");
  assert.equal((await inTime(heard, "the message")).content, "here");
});
