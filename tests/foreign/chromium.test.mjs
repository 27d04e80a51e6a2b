// What the gateway promises, asked of a running one by pages in Chromium.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { DEADLINE, inTime, launch, start } from "./support.mjs";

const SECRET = "a secret for tests only, long enough";

let gateway;
let browser;
before(async () => {
  gateway = await start(["--echo"]);
  // A page of another origin that is on this machine all the same.
  browser = await launch(["--host-resolver-rules=MAP elsewhere.example 127.0.0.1"]);
});
after(async () => {
  await browser?.close();
  assert.equal(await gateway?.stop(), 0);
});

/** A gateway that ends with its test, however that ends. */
async function start_for(context, args, settings) {
  const own = await start(args, settings);
  context.after(() => own.stop());
  return own;
}

const page_of = (own = gateway) => own.url.replace("ws:", "http:").replace("/ws", "/");

/** A page of the gateway, and `open` in it, by which a socket is spoken to, also of other gateways. */
async function open_page(address = page_of()) {
  const context = await browser.newContext({ bypassCSP: true });
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE);
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(error));
  await page.goto(address);
  await page.evaluate(() => {
    /** A socket whose messages and end can be waited for. */
    globalThis.open = (url, protocols = []) => {
      const socket = new WebSocket(url, protocols);
      socket.binaryType = "arraybuffer";
      const queue = [];
      const waiting = [];
      socket.onmessage = ({ data }) => (waiting.length ? waiting.shift()(data) : queue.push(data));
      socket.next = () => (queue.length ? Promise.resolve(queue.shift()) : new Promise((resolve) => waiting.push(resolve)));
      socket.opened = new Promise((resolve) => (socket.onopen = () => resolve(true)));
      socket.closed = new Promise((resolve) => {
        socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean });
      });
      return socket;
    };
  });
  return page;
}

test("long messages go both ways compressed, and come back as they were", async () => {
  const page = await open_page();
  const sizes = ["compression_input", "compression_output"].map((name) => `fanfare_${name}_bytes_total`);
  const wire = ["wire", "payload"].map((layer) => `fanfare_received_bytes_total{layer="${layer}"}`);
  const measure = async () => Promise.all([...sizes, ...wire].map(async (series) => (await gateway.metric(series)) ?? 0));
  const before = await measure();
  const { extensions, wrong, large } = await page.evaluate(async (url) => {
    const socket = open(url);
    await socket.opened;
    const noise = crypto.getRandomValues(new Uint8Array(65536));
    const texts = ["", "short", "Trompete \u{1f3ba} ".repeat(300), "x".repeat(65536), "\0\u2028\uffff".repeat(1000)];
    let wrong = 0;
    for (let round = 0; round < 3; round += 1) {
      for (const text of texts) {
        socket.send(text);
        if ((await socket.next()) !== text) wrong += 1;
      }
      for (const bytes of [noise, new Uint8Array(65536), noise.slice(0, 1), new Uint8Array(0)]) {
        socket.send(bytes);
        const back = new Uint8Array(await socket.next());
        if (back.length !== bytes.length || back.some((byte, at) => byte !== bytes[at])) wrong += 1;
      }
    }
    const { extensions } = socket;
    socket.send("x".repeat(65537));
    return { extensions, wrong, large: await socket.closed };
  }, gateway.url.replace("/ws", "/echo"));
  assert.match(extensions, /^permessage-deflate/);
  assert.equal(wrong, 0);
  assert.deepEqual([large.code, large.wasClean], [1009, true]);
  const room = await page.evaluate(async (url) => {
    const [ann, ben] = [open(`${url}?user=ann`), open(`${url}?user=ben`)];
    for (const socket of [ann, ben]) {
      await socket.next();
      socket.send(JSON.stringify({ type: "join", room_id: "packed", id: 1 }));
      await socket.next();
    }
    const content = "over the threshold ".repeat(3000);
    let right = 0;
    for (const socket of [ann, ben]) {
      socket.send(JSON.stringify({ type: "message", room_id: "packed", content }));
      for (const member of [ann, ben]) right += JSON.parse(await member.next()).content === content ? 1 : 0;
    }
    return right;
  }, gateway.url);
  assert.equal(room, 4);
  const end = Date.now() + DEADLINE;
  for (;;) {
    const [input, output, frames, payloads] = (await measure()).map((value, at) => value - before[at]);
    // What the gateway sent, and what it got: some of both is noise, which cannot be compressed.
    if (input > 3 * output && output > 0 && frames > 0 && frames < payloads) break;
    assert.ok(Date.now() < end, `${[input, output, frames, payloads]}`);
    await pause(50);
  }
  await page.context().close();
});

test("close codes and reasons are seen as they were sent, on both sides", async (context) => {
  const own = await start_for(context, ["--echo"]);
  const page = await open_page(page_of(own));
  const seen = await page.evaluate(async (url) => {
    const seen = {};
    const end = async (name, act, path = "/ws") => {
      const socket = open(url.replace("/ws", path));
      await socket.opened;
      act(socket);
      seen[name] = await socket.closed;
    };
    await end("binary", (socket) => socket.send(new Uint8Array(1)));
    await end("nonsense", (socket) => { for (let count = 0; count < 100; count += 1) socket.send("nonsense"); });
    await end("own", (socket) => socket.close(4321, "bye \u{1f3ba}"));
    await end("usual", (socket) => socket.close(1000));
    await end("none", (socket) => socket.close(), "/echo");
    globalThis.last = open(url);
    await last.opened;
    return seen;
  }, own.url);
  const codes = Object.fromEntries(Object.entries(seen).map(([name, { code, wasClean }]) => [name, wasClean ? code : `not clean: ${code}`]));
  assert.deepEqual(codes, { binary: 1003, nonsense: 1008, own: 4321, usual: 1000, none: 1005 });
  assert.notEqual(seen.binary.reason, "");
  const stopped = own.stop();
  const last = await inTime(page.evaluate(() => globalThis.last.closed), "the last close");
  assert.deepEqual([last.code, last.wasClean], [1001, true]);
  assert.equal(await stopped, 0);
  await page.context().close();
});

test("a page of another origin is refused, and one of an allowed origin is not", async (context) => {
  const refusals = 'fanfare_handshake_failures_total{reason="origin"}';
  const elsewhere = page_of().replace("127.0.0.1", "elsewhere.example");
  const listed = await start_for(context, [], { ORIGINS: new URL(elsewhere).origin });
  const page = await open_page(elsewhere);
  const attempt = (url) => page.evaluate((url) => {
    const socket = open(url);
    return Promise.race([socket.opened, socket.closed]);
  }, url);
  const before = await gateway.metric(refusals);
  assert.deepEqual(await attempt(gateway.url), { code: 1006, reason: "", wasClean: false });
  assert.equal(await gateway.metric(refusals), before + 1);
  assert.equal(await attempt(listed.url), true);
  assert.equal(await attempt(gateway.url.replace("127.0.0.1", "elsewhere.example")), true, "its own host");
  await page.context().close();
});

test("a token comes as a subprotocol, as pages can set no header", async (context) => {
  const secured = await start_for(context, [], { AUTH__MODE: "jwt", AUTH__SECRET: SECRET, ORIGINS: new URL(page_of()).origin });
  const { createHmac } = await import("node:crypto");
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const body = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: "ann", exp: Math.floor(Date.now() / 1000) + 60 })}`;
  const token = `${body}.${createHmac("sha256", SECRET).update(body).digest("base64url")}`;
  const page = await open_page();
  const got = await page.evaluate(async ([url, token]) => {
    const good = open(url, ["fanfare.v1", `fanfare.token.${token}`]);
    const user = JSON.parse(await good.next()).user;
    const bad = await open(url, ["fanfare.v1", `fanfare.token.${token}x`]).closed;
    return [user, good.protocol, bad.code];
  }, [secured.url, token]);
  assert.deepEqual(got, ["ann", "fanfare.v1", 1006]);
  await page.context().close();
});

test("a page answers pings by itself and stays, and is told when the gateway sends it away", async (context) => {
  const quick = await start_for(context, [], { HEARTBEAT__PING: "100ms", HEARTBEAT__TIMEOUT: "400ms" });
  const page = await open_page(page_of(quick));
  await page.evaluate(async (url) => {
    globalThis.last = open(`${url}?user=ann`);
    await last.next();
  }, quick.url);
  await pause(1500);
  const answer = await page.evaluate(async () => {
    last.send('{"type":"ping","id":"still here"}');
    return JSON.parse(await last.next());
  });
  assert.deepEqual([answer.type, answer.id], ["pong", "still here"]);
  assert.equal(await quick.metric("fanfare_ping_timeouts_total"), 0);
  const stopped = quick.stop();
  const closed = await inTime(page.evaluate(() => globalThis.last.closed), "the close");
  assert.deepEqual([closed.code, closed.wasClean], [1001, true]);
  assert.equal(await stopped, 0);
  await page.context().close();
});
