// The client by itself: sockets are fake, and so is time.

import assert from "node:assert/strict";
import { test } from "node:test";

import { client, connected, FakeSocket, joined, kept, offsets, outcome, page, pass, settle, stopTheClock } from "./fake.mjs";

const jwt = (claims) => ["{}", JSON.stringify(claims), "signature"].map((part) => Buffer.from(part).toString("base64url")).join(".");
const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;
const delays = (fanfare) => fanfare.log.filter(([type]) => type === "close").map(([, { retryIn }]) => retryIn);
const message = (offset, more = {}) => ({ type: "message", from: "ben", room_id: "a", content: `${offset}`, offset, timestamp: 1, ...more });
const back = (room, more = {}) => ({ room_id: room.id, epoch: "e", offset: 10, recovered: true, ...more });

/** The line breaks and a new one is there, up to its welcome. */
async function comeBack(code = 1006) {
  const before = FakeSocket.all.length;
  await FakeSocket.last.end(code);
  await pass(20_000);
  assert.ok(FakeSocket.all.length > before, "comes back");
  await FakeSocket.last.welcome();
}

test("connects, says its states, and is closed for good by close()", async (context) => {
  stopTheClock(context);
  const fanfare = client(context);
  assert.equal(fanfare.state, "closed");
  const connecting = fanfare.connect();
  await settle();
  assert.equal(await outcome(connecting), "pending");
  assert.deepEqual(FakeSocket.last.protocols, ["fanfare.v1"]);
  assert.equal(FakeSocket.last.url.href, "ws://gateway.example/ws?user=ann");
  await FakeSocket.last.welcome();
  await connecting;
  fanfare.close();
  assert.equal(FakeSocket.last.closedWith, 1000);
  assert.deepEqual(fanfare.log, [["state", "connecting"], ["state", "open"], ["state", "closed"], ["close", { code: 1000, reason: "" }]]);
  await pass(60_000);
  assert.equal(FakeSocket.all.length, 1);
  fanfare.connect();
  await settle();
  assert.equal(FakeSocket.all.length, 2, "connect() begins again");
});

test("waits a random part of a bound that doubles, up to the greatest", async (context) => {
  stopTheClock(context, 0.5);
  const fanfare = client(context);
  fanfare.connect();
  await settle();
  for (let count = 0; count < 8; count += 1) {
    const attempts = FakeSocket.all.length;
    await FakeSocket.last.end();
    const delay = delays(fanfare).at(-1);
    await pass(delay - 1);
    assert.equal(FakeSocket.all.length, attempts);
    await pass(1);
    assert.equal(FakeSocket.all.length, attempts + 1);
  }
  assert.deepEqual(delays(fanfare), [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
});

test("a connection that lasted makes the next attempt the first, one that broke at once does not", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  await comeBack();
  await comeBack();
  assert.deepEqual(delays(fanfare), [250, 500]);
  await pass(6000);
  await comeBack();
  assert.deepEqual(delays(fanfare), [250, 500, 250]);
});

test("comes back after every close code but those that say not to", async (context) => {
  stopTheClock(context);
  for (const code of [1001, 1005, 1006, 1009, 1011, 1012, 1013, 3000, 4000, 4008, 4009, 4029, 4499, 5000]) {
    const fanfare = await connected(context);
    await FakeSocket.last.end(code, "why");
    assert.equal(fanfare.state, "waiting", code);
    fanfare.close();
  }
  for (const code of [1000, 1008, 4500, 4501, 4503, 4999]) {
    const fanfare = await connected(context);
    const waiting = await joined(fanfare, "a");
    await FakeSocket.last.end(code, "why");
    assert.deepEqual(fanfare.log.slice(-2), [["state", "closed"], ["close", { code, reason: "why" }]]);
    assert.equal(waiting.log.at(-1)[1].error.closeCode, code);
    await pass(60_000);
    assert.equal(FakeSocket.all.length, 1, code);
  }
});

test("a refusal while connecting for the first time tells connect() why", async (context) => {
  stopTheClock(context);
  const fanfare = client(context);
  const connecting = fanfare.connect();
  await settle();
  await FakeSocket.last.end(4503, "too many connections");
  await assert.rejects(connecting, { code: "closed", closeCode: 4503, message: /too many connections/ });
});

test("an attempt that leads to no welcome is given up", async (context) => {
  stopTheClock(context);
  const fanfare = client(context, { timeout: 1000 });
  fanfare.connect();
  await pass(3999);
  assert.equal(fanfare.state, "connecting");
  await pass(2);
  assert.equal(fanfare.state, "waiting");
});

test("comes back when the gateway has advised to, once everything sent is answered", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = await joined(fanfare, "a");
  const [old] = FakeSocket.all;
  old.say({ type: "reconnect", after_ms: 3000, reason: "restart" });
  await pass(2999);
  const early = room.publish("early");
  await pass(1);
  const late = room.publish("late");
  assert.equal(old.sent.filter(({ type }) => type === "message").length, 1);
  assert.equal(FakeSocket.all.length, 1);
  await old.answer("message", { offset: 11 });
  assert.equal((await early).offset, 11);
  await pass(1);
  assert.equal(old.closedWith, 1000);
  assert.equal(FakeSocket.all.length, 2);
  await FakeSocket.last.welcome();
  await FakeSocket.last.answer("resume", { resumed: true, rooms: [back(room)] });
  await FakeSocket.last.answer("message", { offset: 12 });
  assert.equal((await late).offset, 12);
});

test("waits for what is left of the advised time when the gateway closes earlier", async (context) => {
  stopTheClock(context);
  const happens = page(context);
  const fanfare = await connected(context);
  FakeSocket.last.say({ type: "reconnect", after_ms: 3000, reason: "restart" });
  await pass(1000);
  await FakeSocket.last.end(1012);
  assert.deepEqual(delays(fanfare), [2000]);
  happens("online");
  await pass(1999);
  assert.equal(FakeSocket.all.length, 1);
  await pass(1);
  assert.equal(FakeSocket.all.length, 2);
});

test("one message joins all rooms again, each where it was", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const rooms = [await joined(fanfare, "a"), await joined(fanfare, 7, { epoch: "f", offset: 0, recovered: false })];
  FakeSocket.last.say(message(11));
  await FakeSocket.last.end();
  await pass(500);
  assert.equal(FakeSocket.last.url.search, "?user=ann&session=s1");
  await FakeSocket.last.welcome();
  assert.deepEqual(FakeSocket.last.sent, [
    {
      type: "resume",
      id: 1,
      session: "s1",
      rooms: [
        { room_id: "a", epoch: "e", offset: 11 },
        { room_id: 7, epoch: "f", offset: 0 },
      ],
    },
  ]);
  assert.equal(fanfare.state, "open");
  const connecting = fanfare.connect();
  assert.equal(await outcome(connecting), "pending", "not before the rooms are back");
  const { id } = FakeSocket.last.request("resume");
  FakeSocket.last.say({ type: "ack", id, resumed: true, rooms: [back(rooms[0], { offset: 13 }), { room_id: 7, epoch: "g", offset: 5, recovered: false }] });
  // In the same breath, as npm `ws` does it.
  for (const offset of [12, 13]) FakeSocket.last.say(message(offset));
  await pass(1);
  await connecting;
  assert.deepEqual(offsets(rooms[0]), [11, 12, 13]);
  assert.deepEqual(rooms[0].log[1], ["resumed", { epoch: "e", offset: 13, recovered: true }]);
  assert.deepEqual(rooms[1].log, [["resumed", { epoch: "g", offset: 5, recovered: false }]]);
  assert.deepEqual(rooms[1].position, { epoch: "g", offset: 5 });
});

test("so many rooms that one message would be too long are joined again by several, each once", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const rooms = [];
  for (let number = 0; number < 400; number += 1) rooms.push(await joined(fanfare, `${number}`.padStart(120, "x")));
  await comeBack();
  const asked = [];
  for (let count = 0; FakeSocket.last.request("resume") && count < 10; count += 1) {
    const { rooms: places, session } = FakeSocket.last.request("resume");
    asked.push([session, places.length]);
    FakeSocket.last.sent.forEach((message) => assert.ok(JSON.stringify(message).length < 60_000));
    const answer = FakeSocket.last.answer("resume", { resumed: true, rooms: places.map(({ room_id, epoch, offset }) => ({ room_id, epoch, offset, recovered: true })) });
    FakeSocket.last.sent.length = 0;
    await answer;
  }
  assert.equal(asked.reduce((sum, [, count]) => sum + count, 0), 400);
  // The last one names the session, when all of its rooms are joined.
  assert.deepEqual(asked.map(([session]) => session), ["", "", "", "s1"]);
  assert.ok(rooms.every(({ joined }) => joined));
});

test("a gateway that knows no resume is asked room by room", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = await joined(fanfare, "a");
  await comeBack();
  await FakeSocket.last.refuse("resume", "unknown_type");
  assert.deepEqual(FakeSocket.last.request("join"), { type: "join", room_id: "a", recover: { epoch: "e", offset: 10 }, id: 2 });
  await FakeSocket.last.answer("join", { epoch: "e", offset: 12, recovered: true });
  for (const offset of [11, 12]) FakeSocket.last.say(message(offset));
  assert.deepEqual(offsets(room), [11, 12]);
});

test("a room left while there was no connection is left where the gateway brings it back", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const [stays, goes] = [await joined(fanfare, "a"), await joined(fanfare, "b")];
  await FakeSocket.last.end();
  await goes.leave();
  await pass(500);
  await FakeSocket.last.welcome();
  assert.deepEqual(FakeSocket.last.request("resume").rooms.map(({ room_id }) => room_id), ["a"]);
  await FakeSocket.last.answer("resume", { resumed: true, rooms: [back(stays), back(goes)] });
  assert.equal(FakeSocket.last.request("leave").room_id, "b");
  FakeSocket.last.say(message(11, { room_id: "b" }));
  assert.deepEqual(offsets(goes), []);
});

test("a room that is refused when coming back is left with the reason, one that may be had later is tried again", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const [never, later] = [await joined(fanfare, "a"), await joined(fanfare, "b")];
  await comeBack();
  const refused = (room, code) => ({ room_id: room.id, code, content: "no" });
  await FakeSocket.last.answer("resume", { resumed: false, rooms: [refused(never, "forbidden"), refused(later, "unavailable")] });
  assert.equal(never.log.at(-1)[1].error.code, "forbidden");
  assert.equal(FakeSocket.last.request("join"), undefined);
  await pass(2000);
  assert.equal(FakeSocket.last.request("join").room_id, "b");
  await FakeSocket.last.refuse("join", "rate_limited");
  await pass(2000);
  assert.equal(FakeSocket.last.sent.filter(({ type }) => type === "join").length, 2);
  await FakeSocket.last.answer("join", { epoch: "e", offset: 10, recovered: true });
  assert.equal(later.joined, true);
  assert.equal(never.joined, false);
});

test("a join that is wished for without a connection is sent with the next, once", async (context) => {
  stopTheClock(context);
  const fanfare = client(context);
  const room = fanfare.room("a", { history: 5 });
  const joining = room.join();
  assert.equal(room.join(), joining);
  fanfare.connect();
  await settle();
  await FakeSocket.last.welcome();
  assert.deepEqual(FakeSocket.last.sent, [{ type: "join", room_id: "a", history: 5, id: 1 }]);
  await FakeSocket.last.end();
  await pass(500);
  await FakeSocket.last.welcome();
  assert.deepEqual(FakeSocket.last.sent, [{ type: "join", room_id: "a", history: 5, id: 1 }]);
  const { id } = FakeSocket.last.request("join");
  FakeSocket.last.say({ type: "ack", id, room_id: "a", epoch: "e", offset: 10, recovered: false });
  FakeSocket.last.say(message(9));
  FakeSocket.last.say(message(10));
  assert.deepEqual(await joining, { epoch: "e", offset: 10, recovered: false });
  // Right after the join, and yet in time for what came with the answer.
  const got = [];
  room.on("message", ({ offset }) => got.push(offset));
  await pass(1);
  assert.deepEqual(got, [9, 10]);
  assert.deepEqual(await room.join(), { epoch: "e", offset: 10, recovered: true }, "is in it already");
});

test("who asks for a room that is being joined again waits for that", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = await joined(fanfare, "a");
  await comeBack();
  await FakeSocket.last.refuse("resume", "unknown_type");
  const joining = room.join();
  await FakeSocket.last.answer("join", { epoch: "e", offset: 10, recovered: true });
  assert.equal(FakeSocket.last.sent.length, 2);
  assert.deepEqual(await joining, { epoch: "e", offset: 10, recovered: true });
});

test("a join without an answer ends the connection, and is sent again with the next", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context, { timeout: 1000 });
  const joining = fanfare.room("a").join();
  await pass(3900);
  FakeSocket.last.say({ type: "pong" });
  assert.equal(FakeSocket.all.length, 1);
  await pass(1000);
  assert.equal(FakeSocket.all.length, 2);
  await FakeSocket.last.welcome();
  await FakeSocket.last.answer("join", { epoch: "e", offset: 10, recovered: false });
  assert.equal((await joining).offset, 10);
});

test("a listener may close the client at any state", async (context) => {
  stopTheClock(context);
  for (const state of ["connecting", "open", "waiting"]) {
    const fanfare = client(context);
    fanfare.on("state", (now) => now === state && fanfare.close());
    fanfare.room("a").join().catch(() => {});
    fanfare.connect();
    await settle();
    if (state !== "connecting") await FakeSocket.last.welcome();
    if (state === "waiting") await FakeSocket.last.end();
    await pass(60_000);
    assert.equal(FakeSocket.all.length, state === "connecting" ? 0 : 1, state);
    assert.equal(fanfare.log.at(-1)[1].retryIn, undefined, state);
  }
});

test("a join that is refused rejects and is not tried again", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const joining = fanfare.room("a").join();
  await FakeSocket.last.refuse("join", "forbidden");
  await assert.rejects(joining, { code: "forbidden", message: "no" });
  await comeBack();
  assert.deepEqual(FakeSocket.last.sent, []);
});

test("a room that was left while its join was under way stays left, and can be joined anew", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = fanfare.room("a");
  const first = room.join();
  const leaving = room.leave();
  const second = room.join();
  const ids = FakeSocket.last.sent.map(({ type, id }) => [type, id]);
  assert.deepEqual(ids, [["join", 1], ["leave", 2], ["join", 3]]);
  FakeSocket.last.say({ type: "ack", id: 1, room_id: "a", epoch: "e", offset: 1, recovered: false });
  await pass(1);
  assert.equal(room.joined, false);
  FakeSocket.last.say({ type: "ack", id: 2, room_id: "a" });
  FakeSocket.last.say({ type: "ack", id: 3, room_id: "a", epoch: "e", offset: 5, recovered: false });
  await pass(1);
  await leaving;
  assert.deepEqual(await outcome(first), { error: "closed" });
  assert.equal((await second).offset, 5);
  assert.equal(room.joined, true);
});

test("what was seen is not given again, and a gap moves on", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = await joined(fanfare, "a");
  for (const offset of [10, 11, 11, 12, 9]) FakeSocket.last.say(message(offset));
  FakeSocket.last.say({ type: "gap", room_id: "a", from_offset: 13, to_offset: 15, reason: "slow" });
  for (const offset of [14, 15, 16]) FakeSocket.last.say(message(offset));
  FakeSocket.last.say({ type: "join", from: 7, room_id: "a", offset: 17, timestamp: 1 });
  FakeSocket.last.say({ type: "leave", from: 7, room_id: "a", offset: 17, timestamp: 1 });
  assert.deepEqual(offsets(room), [11, 12, 16]);
  assert.deepEqual(room.log.map(([type]) => type), ["message", "message", "gap", "message", "join"]);
  assert.deepEqual(room.position, { epoch: "e", offset: 17 });
});

test("what was published without an echo is not asked for after a loss either", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = await joined(fanfare, "a");
  const publish = async (offset) => {
    const answer = room.publish("mine", { echo: false });
    await FakeSocket.last.answer("message", { offset });
    await answer;
  };
  await publish(11);
  assert.equal(room.position.offset, 11, "nothing is missing before it");
  await publish(13);
  await publish(14);
  await publish(16);
  assert.equal(room.position.offset, 11, "12 has not come");
  FakeSocket.last.say(message(12));
  assert.equal(room.position.offset, 14);
  await comeBack();
  assert.equal(FakeSocket.last.request("resume").rooms[0].offset, 14);
  await FakeSocket.last.answer("resume", { resumed: true, rooms: [back(room, { offset: 17 })] });
  for (const offset of [15, 16, 17]) FakeSocket.last.say(message(offset));
  assert.deepEqual(offsets(room), [12, 15, 17]);
  assert.equal(room.position.offset, 17);
  for (let offset = 19; offset < 1000; offset += 2) await publish(offset);
  FakeSocket.last.say(message(18));
  FakeSocket.last.say(message(2000));
  assert.equal(room.position.offset, 2000);
});

test("begins after the position that is given", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = await joined(fanfare, "a", { epoch: "e", offset: 12, recovered: true }, { since: { epoch: "e", offset: 10 } });
  assert.deepEqual(FakeSocket.last.request("join").recover, { epoch: "e", offset: 10 });
  assert.deepEqual(room.log, [["resumed", { epoch: "e", offset: 12, recovered: true }]]);
  for (const offset of [11, 12]) FakeSocket.last.say(message(offset));
  assert.deepEqual(offsets(room), [11, 12]);
});

test("who is taken out of a room is told so, does not come back, and may join again", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = await joined(fanfare, "a");
  const loop = kept(
    (async () => {
      for await (const _ of room);
    })(),
  );
  await settle();
  FakeSocket.last.say({ type: "leave", room_id: "a", reason: "unsubscribed" });
  assert.deepEqual(await outcome(loop), { error: "unsubscribed" });
  assert.equal(room.log.at(-1)[1].error.code, "unsubscribed");
  await comeBack();
  assert.deepEqual(FakeSocket.last.sent, []);
  room.join();
  assert.deepEqual(FakeSocket.last.request("join").recover, { epoch: "e", offset: 10 });
});

test("publishing says what kind of thing is published", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = await joined(fanfare, "a");
  const bodies = ["text", { content: "c", data: 1, key: "k" }, { content: "c", other: 1 }, {}, [1], null, 5, false];
  for (const body of bodies) room.publish(body, { echo: false }).catch(() => {});
  const sent = FakeSocket.last.sent.slice(1).map(({ id: _, type, room_id, echo, ...body }) => {
    assert.deepEqual([type, room_id, echo], ["message", "a", false]);
    return body;
  });
  assert.deepEqual(sent, [
    { content: "text" },
    { content: "c", data: 1, key: "k" },
    { data: { content: "c", other: 1 } },
    { data: {} },
    { data: [1] },
    { data: null },
    { data: 5 },
    { data: false },
  ]);
});

test("what is published is what it was then, and what JSON cannot say is refused", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  await assert.rejects(fanfare.send("ben", { data: 1n }), TypeError);
  await FakeSocket.last.end();
  const data = { x: 1 };
  kept(fanfare.send("ben", data));
  data.x = 2;
  await pass(500);
  await FakeSocket.last.welcome();
  assert.deepEqual(FakeSocket.last.sent, [{ type: "message", to: "ben", data: { x: 1 }, id: 1 }]);
});

test("a publication without an answer is said to be in doubt and is not repeated; a question is asked again", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = await joined(fanfare, "a");
  const [publication, question] = [kept(room.publish("x")), room.history({ limit: 5 })];
  await FakeSocket.last.end();
  await assert.rejects(publication, { code: "unconfirmed", maybePublished: true });
  const unsent = room.publish("y");
  await pass(500);
  await FakeSocket.last.welcome();
  await FakeSocket.last.answer("resume", { resumed: true, rooms: [back(room)] });
  assert.deepEqual(FakeSocket.last.sent.slice(1).map(({ type, content }) => content ?? type), ["history", "y"]);
  await FakeSocket.last.answer("history", { type: "history", messages: [], epoch: "e", offset: 10, complete: true });
  await FakeSocket.last.answer("message", { offset: 11 });
  assert.equal((await question).complete, true);
  assert.equal((await unsent).offset, 11);
});

test("an answer that does not come in time", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context, { timeout: 1000 });
  const room = await joined(fanfare, "a");
  const [publication, question] = [kept(room.publish("x")), kept(room.presence())];
  await pass(500);
  FakeSocket.last.say(message(11));
  await pass(600);
  assert.deepEqual([await outcome(publication), await outcome(question)], [{ error: "unconfirmed" }, { error: "timeout" }]);
  assert.equal(fanfare.state, "open", "something was heard meanwhile");
  const again = kept(room.publish("y"));
  await pass(1100);
  assert.deepEqual(await outcome(again), { error: "unconfirmed" });
  assert.equal(fanfare.state, "waiting", "nothing was heard: the line is dead");
});

test("a queue that is full rejects the newest, or drops the oldest", async (context) => {
  stopTheClock(context);
  for (const [policy, outcomes, sent] of [
    ["reject", ["pending", "pending", { error: "queue_full" }], ["1", "2"]],
    ["drop-oldest", [{ error: "dropped" }, "pending", "pending"], ["2", "3"]],
  ]) {
    const fanfare = await connected(context, { queue: { max: 2, policy } });
    await FakeSocket.last.end();
    const waiting = ["1", "2", "3"].map((text) => kept(fanfare.send("ben", text)));
    assert.deepEqual(await Promise.all(waiting.map(outcome)), outcomes);
    await pass(500);
    await FakeSocket.last.welcome();
    assert.deepEqual(FakeSocket.last.sent.map(({ content }) => content), sent);
  }
});

test("what a socket does not get rid of waits in the queue", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const first = fanfare.send("ben", "1");
  FakeSocket.last.bufferedAmount = 64 << 10;
  const second = fanfare.send("ben", "2");
  assert.equal(FakeSocket.last.sent.length, 1);
  FakeSocket.last.bufferedAmount = 0;
  await FakeSocket.last.answer("message", { delivered: 1 });
  assert.equal((await first).delivered, 1);
  assert.equal(FakeSocket.last.sent.length, 2);
  await FakeSocket.last.answer("message", { delivered: 0 });
  assert.equal((await second).delivered, 0);
});

test("what was not sent can be taken back, and is rejected when the client closes", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const sent = kept(fanfare.send("ben", "sent"));
  await FakeSocket.last.end();
  assert.deepEqual(await outcome(sent), { error: "unconfirmed" });
  const stop = new AbortController();
  const [first, second] = [kept(fanfare.send("ben", "1", { signal: stop.signal })), kept(fanfare.send("ben", "2"))];
  stop.abort();
  assert.deepEqual([await outcome(first), await outcome(second)], [{ error: 20 }, "pending"]);
  assert.deepEqual(await outcome(kept(fanfare.send("ben", "3", { signal: stop.signal }))), { error: 20 });
  fanfare.close();
  assert.deepEqual(await outcome(second), { error: "closed" });
  assert.deepEqual(await outcome(kept(fanfare.send("ben", "4"))), { error: "closed" });
});

test("silence is asked about, and a line that stays silent is given up", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context, { maxServerPingDelay: 3000 });
  await pass(20_000);
  FakeSocket.last.say({ type: "message", from: 1, content: "x", timestamp: 1 });
  await pass(24_900);
  assert.deepEqual(FakeSocket.last.sent, []);
  await pass(200);
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ping" }]);
  FakeSocket.last.say({ type: "pong", timestamp: 1 });
  await pass(24_900);
  assert.equal(FakeSocket.last.sent.length, 1);
  await pass(200);
  assert.equal(FakeSocket.last.sent.length, 2);
  await pass(2000);
  assert.equal(fanfare.state, "open");
  await pass(1500);
  assert.equal(FakeSocket.all.length, 2);
});

test("a gateway with a quicker heartbeat is asked sooner", async (context) => {
  stopTheClock(context);
  const fanfare = client(context);
  fanfare.connect();
  await settle();
  await FakeSocket.last.welcome({ heartbeat_seconds: 2 });
  await pass(2100);
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ping" }]);
});

test("what is not JSON ends the connection, not the program", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  FakeSocket.last.onmessage({ data: "<html>" });
  assert.equal(fanfare.state, "waiting");
});

test("a listener that throws disturbs nobody else", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const thrown = new Promise((resolve) => process.prependOnceListener("uncaughtException", resolve));
  const others = process.rawListeners("uncaughtException").slice(1);
  for (const other of others) process.off("uncaughtException", other);
  const heard = [];
  fanfare.on("message", () => {
    throw new Error("mine");
  });
  fanfare.on("message", ({ content }) => heard.push(content));
  FakeSocket.last.say({ type: "message", from: 1, content: "x", timestamp: 1 });
  assert.equal((await thrown).message, "mine");
  for (const other of others) process.on("uncaughtException", other);
  assert.deepEqual(heard, ["x"]);
});

test("a token goes with the handshake, and is renewed before it expires", async (context) => {
  stopTheClock(context);
  const tokens = [];
  const getToken = async () => {
    tokens.push(jwt({ exp: inSeconds(100), n: tokens.length }));
    return tokens.at(-1);
  };
  const fanfare = await connected(context, { getToken });
  assert.deepEqual(FakeSocket.last.protocols, ["fanfare.v1", `fanfare.token.${tokens[0]}`]);
  FakeSocket.lively = true;
  await pass(74_000);
  assert.equal(FakeSocket.last.request("auth"), undefined);
  await pass(2000);
  assert.equal(FakeSocket.last.request("auth").token, tokens[1]);
  await FakeSocket.last.answer("auth", { expires_in: 1000 });
  await FakeSocket.last.end();
  await pass(500);
  assert.equal(tokens.length, 2, "the one there is will do");
  assert.equal(FakeSocket.last.protocols[1], `fanfare.token.${tokens[1]}`);
  await FakeSocket.last.end();
  await pass(1000);
  assert.equal(tokens.length, 3, "after a handshake that failed another is asked for");
  assert.equal(fanfare.state, "connecting");
});

test("a renewal that fails is told and tried again", async (context) => {
  stopTheClock(context);
  let count = 0;
  const getToken = () => {
    count += 1;
    if (count === 2) throw new Error("backend is down");
    return jwt({ exp: inSeconds(100), count });
  };
  const fanfare = await connected(context, { getToken });
  FakeSocket.lively = true;
  await pass(76_000);
  assert.equal(fanfare.log.at(-1)[1].code, "unauthorized");
  assert.match(fanfare.log.at(-1)[1].cause.message, /down/);
  await pass(10_500);
  assert.equal(count, 3);
  assert.equal(FakeSocket.last.sent.filter(({ type }) => type === "auth").length, 1);
});

test("a token that is no longer good: comes back with another, and stops when there is none", async (context) => {
  stopTheClock(context);
  let token = jwt({ exp: inSeconds(1000), n: 1 });
  const fanfare = await connected(context, { getToken: () => token });
  token = jwt({ exp: inSeconds(1000), n: 2 });
  await comeBack(4500);
  assert.equal(FakeSocket.last.protocols[1], `fanfare.token.${token}`);
  await FakeSocket.last.end(4500, "revoked");
  await pass(20_000);
  assert.equal(FakeSocket.all.length, 2);
  assert.equal(fanfare.state, "closed");
  token = null;
  await assert.rejects(fanfare.connect(), { code: "unauthorized" });
});

test("a getToken that fails or does not answer is asked again, later", async (context) => {
  stopTheClock(context);
  let asked = 0;
  const getToken = () => {
    asked += 1;
    if (asked === 1) throw new Error("down");
    return asked === 2 ? new Promise(() => {}) : "opaque";
  };
  const fanfare = client(context, { getToken });
  const connecting = fanfare.connect();
  await pass(500);
  assert.equal(asked, 2);
  await pass(20_600);
  assert.equal(asked, 3);
  await FakeSocket.last.welcome();
  await connecting;
});

test("an abort closes, and nothing can be begun after it", async (context) => {
  stopTheClock(context);
  const stop = new AbortController();
  const fanfare = client(context, { signal: stop.signal });
  const connecting = fanfare.connect();
  await settle();
  stop.abort();
  await assert.rejects(connecting, { code: "closed" });
  assert.equal(fanfare.state, "closed");
  await assert.rejects(fanfare.connect(), { name: "AbortError" });
});

test("a loop gives every message in order, ends with close(), and throws rather than to skip", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = await joined(fanfare, "a");
  const got = [];
  const loop = (async () => {
    for await (const { offset } of room) got.push(offset);
  })();
  const stuck = room[Symbol.asyncIterator]();
  const first = stuck.next();
  await settle();
  for (let offset = 11; offset <= 10_012; offset += 1) {
    FakeSocket.last.say(message(offset));
    if (offset % 1000 === 0) await settle();
  }
  await settle();
  assert.deepEqual(got, Array.from({ length: 10_002 }, (_, at) => at + 11));
  assert.equal((await first).value.offset, 11);
  await assert.rejects(stuck.next(), { code: "overflow" });
  fanfare.close();
  assert.deepEqual(await outcome(loop), { value: undefined });
});

test("a page that is shown again or online again does not wait, and looks whether its line still lives", async (context) => {
  stopTheClock(context);
  const happens = page(context);
  const fanfare = await connected(context, { minReconnectDelay: 10_000, maxServerPingDelay: 3000 });
  happens("pageshow");
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ping" }]);
  FakeSocket.last.say({ type: "pong" });
  await pass(1);
  await pass(3100);
  for (let count = 0; count < 4; count += 1) {
    happens("offline");
    await pass(1000);
  }
  assert.equal(fanfare.state, "waiting", "the line did not answer");
  await FakeSocket.last.end();
  await pass(5000);
  for (let count = 0; count < 4; count += 1) {
    await FakeSocket.last.end();
    await pass(1);
  }
  const attempts = FakeSocket.all.length;
  happens("online");
  await pass(5000);
  assert.equal(FakeSocket.all.length, attempts + 1);
  fanfare.close();
  happens("online");
  await pass(60_000);
  assert.equal(FakeSocket.all.length, attempts + 1, "listens no longer");
});

test("a listener may close the client, or begin anew, at an error and at a loss", async (context) => {
  stopTheClock(context);
  const getToken = () => {
    throw new Error("down");
  };
  for (const again of [false, true]) {
    const fanfare = client(context, { getToken });
    const stop = fanfare.on("error", () => {
      stop();
      fanfare.close();
      if (again) kept(fanfare.connect());
    });
    await assert.rejects(fanfare.connect(), { code: "closed" });
    await settle();
    assert.equal(fanfare.state, again ? "waiting" : "closed");
    if (!again) await pass(60_000);
    assert.equal(fanfare.log.filter(([type]) => type === "error").length, again ? 2 : 1);
    assert.equal(delays(fanfare).length, again ? 2 : 1);
  }
  for (const again of [false, true]) {
    const fanfare = await connected(context);
    const stop = fanfare.on("close", () => {
      stop();
      fanfare.close();
      if (again) kept(fanfare.connect());
    });
    await FakeSocket.last.end();
    await pass(10_000);
    assert.equal(fanfare.state, again ? "connecting" : "closed");
    assert.equal(FakeSocket.all.length, again ? 2 : 1);
  }
});

test("who closes the client when a renewal fails is asked for no token any more", async (context) => {
  stopTheClock(context);
  let count = 0;
  const getToken = () => {
    count += 1;
    if (count > 1) throw new Error("down");
    return jwt({ exp: inSeconds(100) });
  };
  const fanfare = await connected(context, { getToken });
  FakeSocket.lively = true;
  fanfare.on("error", () => fanfare.close());
  await pass(120_000);
  assert.equal(fanfare.state, "closed");
  assert.equal(count, 2);
});

test("a gateway that welcomes and does not answer is tried with growing pauses", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  FakeSocket.lively = true;
  await joined(fanfare, "a");
  await FakeSocket.last.end();
  for (const pause of [250, 500, 1000, 2000]) {
    assert.equal(delays(fanfare).at(-1), pause);
    await pass(pause);
    FakeSocket.last.readyState = 1;
    await FakeSocket.last.welcome();
    assert.ok(FakeSocket.last.request("resume"));
    await pass(19_900);
    assert.equal(fanfare.state, "open", "is given as long as for the welcome");
    await pass(100);
    assert.equal(fanfare.state, "waiting");
  }
  assert.deepEqual(delays(fanfare), [250, 500, 1000, 2000, 4000]);
});

test("a listener that begins anew at the end is not disturbed by it", async (context) => {
  stopTheClock(context);
  for (const type of ["state", "close", "left"]) {
    const fanfare = await connected(context);
    const [room, other] = [await joined(fanfare, "a"), fanfare.room("b")];
    let joining;
    const anew = (event) => {
      if (joining || (type === "state" && event !== "closed")) return;
      joining = Promise.all([fanfare.connect(), room.join(), other.join()]);
      joining.catch(() => {});
    };
    (type === "left" ? room : fanfare).on(type, anew);
    fanfare.close();
    await settle();
    assert.equal(fanfare.state, "connecting", type);
    assert.equal(await outcome(joining), "pending", type);
    await FakeSocket.last.welcome();
    for (const { id, room_id } of FakeSocket.last.sent) {
      FakeSocket.last.say({ type: "ack", id, room_id, epoch: "e", offset: 10, recovered: true, rooms: [back(room)] });
      await pass(1);
    }
    await pass(1);
    if (!other.joined) await FakeSocket.last.answer("join", { epoch: "e", offset: 1, recovered: false });
    await joining;
    assert.ok(room.joined && other.joined, type);
    assert.equal(fanfare.state, "open");
    assert.equal(room.log.filter(([type]) => type === "left").length, 1);
  }
});

test("a loop that waits can be stopped, and one over a room that was never joined ends with close()", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context);
  const room = await joined(fanfare, "a");
  const loop = room[Symbol.asyncIterator]();
  const [first, second] = [loop.next(), loop.next()];
  FakeSocket.last.say(message(11));
  assert.equal((await first).value.offset, 11);
  FakeSocket.last.say(message(12));
  FakeSocket.last.say(message(13));
  const third = loop.next();
  const fourth = loop.next();
  assert.deepEqual(await outcome(loop.return()), { value: { value: undefined, done: true } });
  assert.deepEqual([(await second).value.offset, (await third).value.offset], [12, 13]);
  assert.deepEqual(await outcome(fourth), { value: { value: undefined, done: true } });
  FakeSocket.last.say(message(14));
  assert.deepEqual(await outcome(loop.next()), { value: { value: undefined, done: true } });

  const other = fanfare.room("b")[Symbol.asyncIterator]().next();
  assert.equal(await outcome(other), "pending");
  fanfare.close();
  assert.deepEqual(await outcome(other), { value: { value: undefined, done: true } });
});

test("nothing is left of a client that is closed", async (context) => {
  stopTheClock(context);
  const stop = new AbortController();
  const listening = new Set();
  for (const [method, keep] of [["addEventListener", "add"], ["removeEventListener", "delete"]]) {
    const { [method]: original } = stop.signal;
    stop.signal[method] = (type, listener, options) => {
      listening[keep](listener);
      options?.signal?.addEventListener("abort", () => listening.delete(listener));
      original.call(stop.signal, type, listener, options);
    };
  }
  const timers = new Set();
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  globalThis.setTimeout = (...given) => {
    const timer = set(...given);
    timers.add(timer);
    return timer;
  };
  globalThis.clearTimeout = (timer) => {
    timers.delete(timer);
    clear(timer);
  };
  const fanfare = client(context, { signal: stop.signal, getToken: () => new Promise(() => {}) });
  kept(fanfare.connect());
  await settle();
  assert.deepEqual([listening.size, timers.size], [1, 1]);
  fanfare.close();
  assert.deepEqual([listening.size, timers.size], [0, 0]);
});

test("only what is new is refused by a full queue", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context, { queue: { max: 2 } });
  const room = await joined(fanfare, "a");
  const asked = [1, 2, 3].map(() => kept(room.history()));
  await FakeSocket.last.end();
  await assert.rejects(room.publish("x", { signal: AbortSignal.abort() }), { name: "AbortError" });
  await assert.rejects(room.publish("y"), { code: "queue_full" });
  assert.deepEqual(await Promise.all(asked.map(outcome)), ["pending", "pending", "pending"]);
});

test("a clock that is set back makes no line look dead", async (context) => {
  stopTheClock(context);
  const fanfare = await connected(context, { maxServerPingDelay: 3000 });
  await pass(26_000);
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ping" }]);
  const { now } = Date;
  context.mock.method(Date, "now", () => now.call(Date) - 3_600_000);
  FakeSocket.last.say({ type: "pong", timestamp: 1 });
  await pass(4000);
  assert.equal(fanfare.state, "open");
  assert.equal(FakeSocket.last.sent.length, 1);
});
