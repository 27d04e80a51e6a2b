// What the gateway promises, asked of a running one through the npm package `ws`.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { DEADLINE, inTime, installed, start } from "./support.mjs";

const { WebSocket } = installed("ws");

class Client {
  constructor(socket) {
    this.socket = socket;
    this.queue = [];
    this.waiting = [];
    this.closed = new Promise((resolve) => socket.on("close", (code) => resolve(code)));
    socket.on("error", () => {});
    socket.on("message", (data) => {
      const message = JSON.parse(data.toString());
      const next = this.waiting.shift();
      if (next) next(message);
      else this.queue.push(message);
    });
  }

  static async open(url, protocols = [], options = {}) {
    const client = new Client(new WebSocket(url, protocols, { perMessageDeflate: false, ...options }));
    client.welcome = await client.next();
    assert.equal(client.welcome.type, "welcome");
    return client;
  }

  next() {
    const message = this.queue.shift();
    if (message) return Promise.resolve(message);
    return inTime(new Promise((resolve) => this.waiting.push(resolve)), "a message");
  }

  async nextOf(type) {
    for (;;) {
      const message = await this.next();
      if (message.type === type) return message;
    }
  }

  send(message) {
    this.socket.send(JSON.stringify(message));
  }

  async request(message) {
    const id = Math.trunc(Math.random() * 2 ** 40);
    this.send({ ...message, id });
    const before = [];
    for (;;) {
      const answer = await this.next();
      if (answer.id === id) {
        this.queue.unshift(...before);
        return answer;
      }
      before.push(answer);
    }
  }
}

/** Status of a refused upgrade. */
function refusal(url, protocols = [], options = {}) {
  const socket = new WebSocket(url, protocols, { perMessageDeflate: false, ...options });
  const status = new Promise((resolve, reject) => {
    socket.on("unexpected-response", (_, response) => {
      response.resume();
      resolve(response.statusCode);
      socket.terminate();
    });
    socket.on("open", () => reject(new Error("the upgrade was accepted")));
    socket.on("error", () => {});
  });
  return inTime(status, "a refusal");
}

let gateway;
before(async () => {
  gateway = await start(["--echo"]);
});
after(async () => {
  assert.equal(await gateway?.stop(), 0);
});

test("a client that offers compression is given long messages compressed, and is understood", async () => {
  const ann = await Client.open(`${gateway.url}?user=ann`, [], { perMessageDeflate: { threshold: 0 } });
  const bob = await Client.open(`${gateway.url}?user=bob`, [], { perMessageDeflate: true });
  assert.match(ann.socket.extensions, /^permessage-deflate/);
  await ann.request({ type: "join", room_id: "packed" });
  await bob.request({ type: "join", room_id: "packed" });
  for (const content of ["short", "long ".repeat(2000), "\u{1f3ba}".repeat(500)]) {
    assert.equal((await ann.request({ type: "message", room_id: "packed", content })).type, "ack");
    for (const client of [ann, bob]) assert.equal((await client.nextOf("message")).content, content);
  }
});

test("compression is understood with every combination of parameters", async () => {
  const echo = gateway.url.replace("/ws", "/echo");
  const noise = randomBytes(65_536);
  const messages = ["", "short", "Trompete \u{1f3ba} ".repeat(500), "x".repeat(65_536), noise, Buffer.alloc(65_536), noise.subarray(0, 1)];
  for (const serverMaxWindowBits of [undefined, 9, 12, 15]) {
    for (const clientMaxWindowBits of [undefined, true, 9, 15]) {
      for (const takeover of [undefined, true]) {
        const given = { serverMaxWindowBits, clientMaxWindowBits, serverNoContextTakeover: takeover, clientNoContextTakeover: takeover };
        const options = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
        const socket = new WebSocket(echo, { perMessageDeflate: { threshold: 0, ...options } });
        await inTime(once(socket, "open"), JSON.stringify(options));
        assert.match(socket.extensions, /^permessage-deflate/);
        for (const message of [...messages, ...messages]) {
          const got = once(socket, "message");
          socket.send(message);
          const [data, isBinary] = await inTime(got, "an echo");
          assert.ok(isBinary ? data.equals(message) : data.toString() === message, JSON.stringify(options));
        }
        const ended = once(socket, "close");
        socket.close(1000);
        assert.equal((await inTime(ended, "close"))[0], 1000);
      }
    }
  }
});

test("two clients talk in a room and hear of nothing else", async () => {
  const ann = await Client.open(`${gateway.url}?user=ann`, ["fanfare.v1"]);
  const bob = await Client.open(`${gateway.url}?user=5`);
  assert.equal(ann.socket.protocol, "fanfare.v1");
  assert.equal(bob.welcome.user, 5);
  for (const client of [ann, bob]) {
    assert.equal((await client.request({ type: "join", room_id: "5" })).room_id, 5);
  }
  const ack = await bob.request({ type: "message", room_id: 5, content: "hello", data: { a: [1, 2] } });
  assert.equal(ack.type, "ack");
  for (const client of [ann, bob]) {
    const message = await client.nextOf("message");
    assert.deepEqual([message.from, message.room_id, message.content, message.data], [5, 5, "hello", { a: [1, 2] }]);
  }
  const error = await bob.request({ type: "message", room_id: "elsewhere", content: "x" });
  assert.deepEqual([error.type, error.code], ["error", "not_a_member"]);
  ann.socket.close(1000);
  bob.socket.close(4000);
  assert.deepEqual(await inTime(Promise.all([ann.closed, bob.closed]), "closing"), [1000, 4000]);
});

test("every kind of message comes back from /echo, fragments in one piece", async () => {
  const socket = new WebSocket(gateway.url.replace("/ws", "/echo"), { perMessageDeflate: false });
  await inTime(once(socket, "open"), "open");
  const back = async (send) => {
    const got = once(socket, "message");
    send();
    const [data, isBinary] = await inTime(got, "an echo");
    return isBinary ? data : data.toString();
  };
  assert.equal(await back(() => socket.send("")), "");
  assert.equal(await back(() => socket.send("Trompete \u{1f3ba}")), "Trompete \u{1f3ba}");
  assert.deepEqual(await back(() => socket.send(Buffer.from([0, 255]))), Buffer.from([0, 255]));
  const whole = await back(() => {
    socket.send("one, ", { fin: false });
    socket.ping("between");
    socket.send("two", { fin: true });
  });
  assert.equal(whole, "one, two");
  const pong = once(socket, "pong");
  socket.ping("data");
  assert.equal((await inTime(pong, "a pong"))[0].toString(), "data");
  socket.close();
});

test("a message over the limit is answered with 1009, a binary one with 1003", async () => {
  const big = await Client.open(gateway.url);
  big.socket.send("x".repeat(70_000));
  assert.equal(await inTime(big.closed, "close"), 1009);
  const binary = await Client.open(gateway.url);
  binary.socket.send(Buffer.from([1]));
  assert.equal(await inTime(binary.closed, "close"), 1003);
});

test("what is not allowed in gets its status", async () => {
  assert.equal(await refusal(gateway.url.replace("/ws", "/other")), 404);
  assert.equal(await refusal(gateway.url, [], { origin: "https://elsewhere.example" }), 403);
  assert.equal((await fetch(gateway.url.replace("ws:", "http:"))).status, 426);
  const secured = await start([], { AUTH__MODE: "jwt", AUTH__SECRET: "a secret for tests only, long enough" });
  try {
    assert.equal(await refusal(secured.url), 401);
    assert.equal(await refusal(`${secured.url}?token=a.b.c`), 401);
  } finally {
    assert.equal(await secured.stop(), 0);
  }
});

test("the client answers pings by itself and stays", async () => {
  const quick = await start([], { HEARTBEAT__PING: "100ms", HEARTBEAT__TIMEOUT: "500ms" });
  try {
    const polite = await Client.open(quick.url);
    const silent = await Client.open(quick.url, [], { autoPong: false });
    let pings = 0;
    polite.socket.on("ping", () => (pings += 1));
    assert.equal(await inTime(silent.closed, "close"), 4009);
    polite.send({ type: "ping", id: 1 });
    assert.equal((await polite.nextOf("pong")).id, 1);
    assert.ok(pings >= 2, `${pings} pings`);
  } finally {
    assert.equal(await quick.stop(), 0);
  }
});

test("a hundred members hear a hundred messages in one order", async () => {
  const members = await Promise.all(Array.from({ length: 100 }, (_, n) => Client.open(`${gateway.url}?user=${n}`)));
  await Promise.all(members.map((member) => member.request({ type: "join", room_id: "crowd" })));
  for (const [n, member] of members.entries()) member.send({ type: "message", room_id: "crowd", data: n });
  const heard = await Promise.all(
    members.map(async (member) => {
      const order = [];
      while (order.length < members.length) order.push((await member.nextOf("message")).data);
      return order;
    }),
  );
  for (const order of heard) assert.deepEqual(order, heard[0]);
  assert.equal(new Set(heard[0]).size, members.length);
  for (const member of members) member.socket.terminate();
});

test("gauges are back at zero after aborts, and the counters know", async () => {
  const own = await start();
  try {
    const clients = await Promise.all(Array.from({ length: 50 }, () => Client.open(own.url)));
    await Promise.all(clients.map((client) => client.request({ type: "join", room_id: "brief" })));
    assert.equal(await own.metric('fanfare_connections_opened_total{transport="ws",compression="none"}'), 50);
    for (const client of clients) client.socket.terminate();
    const end = Date.now() + DEADLINE;
    for (const gauge of ['fanfare_connections{transport="ws"}', "fanfare_rooms", "fanfare_room_memberships"]) {
      while ((await own.metric(gauge)) !== 0) {
        assert.ok(Date.now() < end, `${gauge} is not 0`);
        await pause(20);
      }
    }
  } finally {
    assert.equal(await own.stop(), 0);
  }
});

test("SIGTERM closes with 1001 and exits with 0", async () => {
  const own = await start();
  const clients = await Promise.all(Array.from({ length: 10 }, () => Client.open(own.url)));
  const code = own.stop();
  const codes = await inTime(Promise.all(clients.map((client) => client.closed)), "closing");
  assert.deepEqual(new Set(codes), new Set([1001]));
  assert.equal(await code, 0);
});
