// The file that pages load, in Chromium, with a real gateway, through a line that breaks.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import http from "node:http";
import { after, before, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { chromium } from "playwright-core";

import { inTime, start, until } from "./gateway.mjs";
import { chances, HARMS, Proxy, SEED } from "./proxy.mjs";

const DEADLINE = 20_000;

let site;
let gateway;
let browser;
before(async () => {
  const script = await readFile(new URL("../dist/fanfare.min.js", import.meta.url));
  site = http.createServer((request, response) => {
    const isScript = request.url === "/fanfare.min.js";
    response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
    response.end(isScript ? script : "<!doctype html><title>Test</title>");
  });
  site.listen(0, "127.0.0.1");
  await once(site, "listening");
  site.origin = `http://127.0.0.1:${site.address().port}`;
  const config = `
[[rooms]]
match = "*"
history = { messages = 100000, age = "10m", bytes = "32MiB" }
`;
  gateway = await start([], { HEARTBEAT__PING: "1s", HEARTBEAT__TIMEOUT: "3s", ORIGINS: site.origin }, { config });
  browser = await chromium.launch({
    executablePath: process.env.FANFARE_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"],
  });
});
after(async () => {
  await browser?.close();
  await gateway?.stop();
  site?.close();
});

/** A page with a client in a room, `client` and `room`, that writes down what it sees in `seen`. */
async function open(context, url, id, options = {}) {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(DEADLINE);
  context.after(() => page.context().close());
  const faults = [];
  page.on("pageerror", (error) => faults.push(error));
  page.faults = faults;
  await page.goto(site.origin);
  const entering = page.evaluate(
    async ([url, id, options]) => {
      const { Fanfare } = await import("/fanfare.min.js");
      const client = new Fanfare(url, options);
      const room = client.room(id);
      const seen = { offsets: [], contents: [], states: [], gaps: 0, recovered: [] };
      client.on("state", (state) => seen.states.push(state));
      room.on("message", ({ offset, content }) => {
        seen.offsets.push(offset);
        seen.contents.push(content);
      });
      room.on("gap", () => (seen.gaps += 1));
      room.on("resumed", ({ recovered }) => seen.recovered.push(recovered));
      Object.assign(globalThis, { client, room, seen });
      await client.connect();
      await room.join();
    },
    [url, id, options],
  );
  await inTime(entering, "joining");
  return page;
}

const seen = (page) => page.evaluate(() => globalThis.seen);
const publish = (page, text) => page.evaluate((text) => globalThis.room.publish(text), text);

test("two pages talk, and one closes", async (context) => {
  const [ann, ben] = [await open(context, `${gateway.url}?user=ann`, "talk"), await open(context, `${gateway.url}?user=ben`, "talk")];
  await publish(ann, "hello \u{1f3ba}");
  await publish(ben, "and back");
  for (const page of [ann, ben]) {
    await until(async () => (await seen(page)).offsets.length === 2, "both");
    assert.deepEqual((await seen(page)).contents, ["hello \u{1f3ba}", "and back"]);
  }
  await ann.evaluate(() => globalThis.client.close());
  assert.deepEqual((await seen(ann)).states, ["connecting", "open", "closed"]);
  assert.deepEqual([...ann.faults, ...ben.faults], []);
});

test(`each kind of break, again and again: all messages come, in order, each once (seed ${SEED})`, async (context) => {
  const chance = chances(SEED + 2);
  const proxy = await Proxy.before(gateway.url);
  context.after(() => proxy.stop());
  const quick = { minReconnectDelay: 5, maxReconnectDelay: 50, timeout: 300, maxServerPingDelay: 300 };
  const reader = await open(context, proxy.url, "broken page", quick);
  const writer = await open(context, gateway.url, "broken page");
  let harmed = 0;
  proxy.plan = () => ({ bytes: Math.floor(chance() ** 3 * 20_000), how: HARMS[harmed++ % HARMS.length] });
  proxy.harm("reset");
  let last = 0;
  const end = Date.now() + 60_000;
  while (proxy.accepted < 40 && Date.now() < end) {
    const count = Math.ceil(chance() * 30);
    const publishAll = async ([first, count]) => {
      let last;
      for (let at = 0; at < count; at += 1) last = await globalThis.room.publish(`${first + at}`);
      return last.offset;
    };
    last = await writer.evaluate(publishAll, [last + 1, count]);
    await pause(chance() * 10);
    if (chance() < 0.05) proxy.harm(HARMS[harmed++ % HARMS.length]);
  }
  proxy.plan = () => undefined;
  proxy.harm("reset");
  last = (await publish(writer, "the last")).offset;
  await until(async () => (await seen(reader)).offsets.at(-1) === last, "the last message");
  const { offsets, gaps, recovered } = await seen(reader);
  assert.deepEqual(offsets, Array.from({ length: last }, (_, at) => at + 1));
  assert.equal(gaps, 0);
  assert.ok(recovered.length >= 10 && recovered.every(Boolean), `${recovered}`);
  assert.deepEqual([...reader.faults, ...writer.faults], []);
});

test("a page that was offline is back at once when it is online, with what it missed", async (context) => {
  const ann = await open(context, gateway.url, "offline", { minReconnectDelay: 60_000, maxReconnectDelay: 60_000, maxServerPingDelay: 500 });
  const ben = await open(context, gateway.url, "offline");
  await ann.evaluate(() => {
    // The longest wait there is: who comes back sooner does so because of the event.
    Math.random = () => 0.99;
  });
  await ann.context().setOffline(true);
  await ann.waitForFunction(() => globalThis.client.state === "waiting");
  await publish(ben, "while away");
  await ann.evaluate(() => {
    Math.random = () => 0.001;
  });
  await ann.context().setOffline(false);
  await until(async () => (await seen(ann)).contents.includes("while away"), "what was missed");
  assert.deepEqual((await seen(ann)).offsets, [1]);
});
