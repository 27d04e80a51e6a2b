// The demo page, used as people use it: by clicks and keys in Chromium.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { DEADLINE, inTime, launch, start } from "./support.mjs";

const DESK = { width: 1440, height: 900 };
const PHONE = { width: 390, height: 844 };
const HOSTILE = [
  "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script><b>bold</b>",
  "Trompete \u{1f3ba} ß 中文 עברית \u202e reversed \u0301\u0301\u0301",
  "x".repeat(3000),
];

let gateway;
let browser;
before(async () => {
  gateway = await start();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  assert.equal(await gateway?.stop(), 0);
});

let rooms = 0;
const new_room = () => `demo.test-${rooms++}`;

/** The page, and all that it complains about. */
async function open({ names = ["Ann", "Ben"], room = new_room(), viewport = DESK, colorScheme = "light", own = gateway, more = "" } = {}) {
  const context = await browser.newContext({ viewport, colorScheme, hasTouch: viewport === PHONE });
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE);
  page.faults = [];
  page.room = room;
  page.on("pageerror", (error) => page.faults.push(String(error)));
  page.on("console", (message) => page.faults.push(message.text()));
  page.on("requestfailed", (request) => page.faults.push(request.url()));
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => console.error(violatedDirective, blockedURI));
  });
  const query = [...names.map((name) => ["name", name]), ["room", room]];
  await page.goto(`${own.url.replace("ws:", "http:").replace("/ws", "/")}?${new URLSearchParams(query)}${more}`);
  page.pane = (name) => page.getByLabel(name, { exact: true }).and(page.locator(".pane"));
  for (const name of names) await is_in(page.pane(name), room);
  return page;
}

/** Waits until a pane is connected, and in the room. */
async function is_in(pane, room) {
  await pane.and(pane.page().locator('[data-state="open"]')).waitFor({ state: "attached" });
  const tab = pane.getByRole("tab", { name: room, includeHidden: true });
  const view = pane.page().locator(`#${await tab.getAttribute("aria-controls")}`);
  const own = await pane.getAttribute("aria-label");
  await view.locator(".present li", { hasText: own }).waitFor({ state: "attached" });
}

async function close(page) {
  assert.deepEqual(page.faults, []);
  assert.equal(await page.title(), "Fanfare");
  await page.context().close();
}

async function say(pane, text) {
  await pane.locator(".text").fill(text);
  await pane.locator(".text").press("Enter");
}

const bubble = (pane, text) => pane.locator(".line:not(.waiting) .bubble").getByText(text, { exact: true });

/** What a pane shows to have been said in the room that is looked at. */
const said = (pane) => pane.locator(".view:not([hidden]) .line").evaluateAll((lines) => lines.map((line) => ({
  text: line.querySelector(".bubble").textContent,
  back: line.classList.contains("back"),
  mine: line.classList.contains("mine"),
})));

const texts = async (pane) => (await said(pane)).map(({ text }) => text);

/** Waits until something is so. */
async function until(what, condition) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert.ok(Date.now() < end, what);
    await pause(50);
  }
}

test("two people talk, and each sees who is there", async () => {
  const page = await open();
  const [ann, ben] = [page.pane("Ann"), page.pane("Ben")];
  await say(ann, "Good morning");
  await bubble(ben, "Good morning").waitFor();
  await say(ben, "And to you");
  await bubble(ann, "And to you").waitFor();
  for (const [pane, mine] of [[ann, [true, false]], [ben, [false, true]]]) {
    assert.deepEqual((await said(pane)).map((line) => line.mine), mine);
    await until("both present", async () => (await pane.locator(".present li span:nth-child(2)").allTextContents()).join() === "Ann,Ben");
    assert.equal(await pane.locator(".present h2").textContent(), "Here 2");
  }
  await until("a round trip", async () => Number(await ann.locator(".trip b").textContent()) > 0);
  await close(page);
});

test("what others say is shown as text, whatever it is", async () => {
  const page = await open();
  const [ann, ben] = [page.pane("Ann"), page.pane("Ben")];
  for (const text of HOSTILE) {
    await say(ann, text);
    await bubble(ben, text).waitFor();
  }
  assert.deepEqual(await texts(ben), HOSTILE);
  assert.equal(await page.locator(".bubble *").count(), 0);
  await ben.locator(".name").fill("<b>Ben</b>");
  await ben.locator(".name").press("Enter");
  await is_in(page.pane("<b>Ben</b>"), page.room);
  await ann.locator(".present li", { hasText: "<b>Ben</b>" }).waitFor();
  assert.equal(await page.locator(".present b b, .person b").count(), 0);
  await close(page);
});

test("a line that is cut comes back, and shows once and in order all that was said", async () => {
  const page = await open();
  const [ann, ben] = [page.pane("Ann"), page.pane("Ben")];
  await say(ann, "before");
  await bubble(ben, "before").waitFor();
  await ben.getByRole("button", { name: "Cut the line" }).click();
  await ben.getByText("Line cut, back in").waitFor();
  const meanwhile = Array.from({ length: 7 }, (_, index) => `meanwhile ${index}`);
  for (const text of meanwhile) {
    await say(ann, text);
    await bubble(ann, text).waitFor();
  }
  await say(ben, "said without a line");
  await ben.locator(".line.waiting").waitFor();
  assert.ok(!(await texts(ben)).includes("meanwhile 0"));
  await ben.and(page.locator('[data-state="open"]')).waitFor();
  await bubble(ann, "said without a line").waitFor();
  await say(ann, "after");
  await bubble(ben, "after").waitFor();
  const all = ["before", ...meanwhile, "said without a line", "after"];
  assert.deepEqual(await texts(ann), all);
  assert.deepEqual(await texts(ben), all);
  assert.deepEqual((await said(ben)).filter((line) => line.back).map((line) => line.text), meanwhile);
  assert.equal((await said(ann)).filter((line) => line.back).length, 0);
  await ben.getByText("The line is back: 7 messages recovered, none missed").waitFor();
  await until("the figures", async () => (await ben.locator(".faults dd").textContent()) === "7 0 missed");
  await until("nothing missed", async () => (await ann.locator(".faults dd").textContent()) === "0 0 missed");
  await close(page);
});

test("a line that is mended early comes back at once", async () => {
  const page = await open();
  const ben = page.pane("Ben");
  await ben.getByRole("button", { name: "Cut the line" }).click();
  await ben.getByRole("button", { name: "Mend the line" }).click();
  await ben.and(page.locator('[data-state="open"]')).waitFor();
  await ben.getByText("nothing was said meanwhile").waitFor();
  await close(page);
});

test("rooms are entered and left beside each other, and tell what is unread", async () => {
  const page = await open();
  const [ann, ben] = [page.pane("Ann"), page.pane("Ben")];
  const other = new_room();
  for (const pane of [ann, ben]) {
    await pane.getByRole("button", { name: "Enter another room" }).click();
    await pane.getByLabel("Room to enter").fill(other);
    await pane.getByLabel("Room to enter").press("Enter");
    await is_in(pane, other);
  }
  await ben.getByRole("tab", { name: page.room }).click();
  await say(ann, "in the other room");
  await ben.getByRole("tab", { name: other }).locator(".badge", { hasText: /^1$/ }).waitFor();
  assert.deepEqual(await texts(ben), []);
  await ben.getByRole("tab", { name: page.room }).press("ArrowRight");
  assert.deepEqual(await texts(ben), ["in the other room"]);
  assert.equal(await ben.locator(".badge").count(), 0);
  await ben.getByRole("button", { name: `Leave ${other}` }).click();
  await ann.getByText("Ben left").waitFor();
  assert.equal(await ben.getByRole("tab").count(), 1);
  await close(page);
});

test("who enters sees what was said before", async () => {
  const page = await open();
  const [ann, ben] = [page.pane("Ann"), page.pane("Ben")];
  for (const text of ["one", "two", "three"]) await say(ann, text);
  await bubble(ben, "three").waitFor();
  await page.getByRole("button", { name: "Add a person" }).click();
  const cleo = page.pane("Cleo");
  await is_in(cleo, page.room);
  await cleo.getByText("3 earlier messages above").waitFor();
  assert.deepEqual(await texts(cleo), ["one", "two", "three"]);
  assert.equal(await cleo.locator(".faults dd").textContent(), "0 0 missed");
  await ann.locator(".present li", { hasText: "Cleo" }).waitFor();
  // It may be typed at once.
  await page.keyboard.type("four");
  await page.keyboard.press("Enter");
  await bubble(ann, "four").waitFor();
  await page.getByRole("button", { name: "Remove Cleo" }).click();
  assert.equal(await page.locator(".pane").count(), 2);
  await ann.getByText("Cleo left").waitFor();
  await page.reload();
  for (const name of ["Ann", "Ben"]) {
    await is_in(page.pane(name), page.room);
    await until("the history", async () => (await texts(page.pane(name))).join() === "one,two,three,four");
  }
  await close(page);
});

test("a flood comes whole and in order, also over a line that is cut in it", async () => {
  const page = await open();
  const [ann, ben] = [page.pane("Ann"), page.pane("Ben")];
  await ann.getByRole("button", { name: "Flood" }).click();
  await ann.getByRole("button", { name: "Stop" }).waitFor();
  await until("a rate", async () => Number(await ben.locator(".rate b").textContent()) > 20);
  // For less than the history of the room holds.
  const count = (await texts(ann)).length;
  await ben.getByRole("button", { name: "Cut the line" }).click();
  await until("some more", async () => (await texts(ann)).length > count + 10);
  await ben.getByRole("button", { name: "Mend the line" }).click();
  const flood = Array.from({ length: 200 }, (_, index) => `Flood, ${index + 1} of 200`);
  for (const pane of [ann, ben]) {
    await bubble(pane, "Flood, 200 of 200").waitFor();
    assert.deepEqual(await texts(pane), flood);
  }
  assert.ok((await said(ben)).some((line) => line.back));
  await ann.getByRole("button", { name: "Flood" }).waitFor();
  assert.match(await ann.locator(".rate .edge").getAttribute("d"), /^M.*L/);
  await close(page);
});

test("messages that the history has forgotten are shown as missing", async (context) => {
  const own = await start([], { ROOMS: '[{match="demo.*",presence=true,history={messages=5}}]' });
  context.after(() => own.stop());
  const page = await open({ own });
  const [ann, ben] = [page.pane("Ann"), page.pane("Ben")];
  await ben.getByRole("button", { name: "Cut the line" }).click();
  for (let count = 0; count < 12; count += 1) await say(ann, `lost ${count}`);
  await ben.and(page.locator('[data-state="open"]')).waitFor();
  await ben.locator(".note.wrong").waitFor();
  await until("a count", async () => !(await ben.locator(".faults dd").textContent()).endsWith(" 0 missed"));
  await say(ann, "found");
  await bubble(ben, "found").waitFor();
  await close(page);
});

test("the page fits phones and desks, in the dark and in the light, and nothing jumps", async () => {
  for (const viewport of [PHONE, DESK, { width: 320, height: 568 }, { width: 844, height: 390 }]) {
    for (const colorScheme of ["light", "dark"]) {
      const page = await open({ viewport, colorScheme, names: ["Ann", "Ben", "A name of forty signs without an end...."] });
      await page.evaluate(() => {
        globalThis.jumps = 0;
        new PerformanceObserver((list) => {
          for (const entry of list.getEntries()) if (!entry.hadRecentInput) globalThis.jumps += entry.value;
        }).observe({ type: "layout-shift", buffered: true });
      });
      const ann = page.pane("Ann");
      for (const text of [...HOSTILE, "short"]) await say(ann, text);
      await bubble(ann, "short").waitFor();
      await pause(700);
      const wide = await page.evaluate(() => ["html", "body", ".panes", ".pane", ".log"].filter((selector) =>
        [...document.querySelectorAll(selector)].some((element) => element.scrollWidth > element.clientWidth)));
      assert.deepEqual(wide, [], JSON.stringify(viewport));
      const cut_off = await page.evaluate(() => [...document.querySelectorAll("button, input")].filter((element) => {
        const { width, left, right } = element.getBoundingClientRect();
        return width > 0 && !element.closest("[role=tablist]") && (left < 0 || right > innerWidth);
      }).length);
      assert.equal(cut_off, 0, JSON.stringify(viewport));
      assert.ok((await page.evaluate(() => globalThis.jumps)) < 0.05, "jumps");
      const [paper, ink] = await page.evaluate(() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]);
      const sum = (color) => color.match(/\d+/g).slice(0, 3).reduce((total, part) => total + Number(part), 0);
      assert.equal(sum(paper) > sum(ink), colorScheme === "light");
      await close(page);
    }
  }
});

test("a phone shows one person at a time", async () => {
  const page = await open({ viewport: PHONE });
  const [ann, ben] = [page.pane("Ann"), page.pane("Ben")];
  assert.deepEqual([await ann.isVisible(), await ben.isVisible()], [true, false]);
  await say(ann, "psst");
  const people = page.getByRole("tablist", { name: "People" });
  await people.getByRole("tab", { name: "Ben" }).locator(".badge").waitFor();
  await people.getByRole("tab", { name: "Ben" }).tap();
  assert.deepEqual([await ann.isVisible(), await ben.isVisible()], [false, true]);
  await bubble(ben, "psst").waitFor();
  assert.equal(await people.locator(".badge").count(), 0);
  await close(page);
});

test("keys alone are enough, and show where one is", async () => {
  const page = await open();
  const reached = [];
  for (let count = 0; count < 40; count += 1) {
    await page.keyboard.press("Tab");
    const [name, outlined] = await page.evaluate(() => {
      const element = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      const name = element.getAttribute("aria-label") ?? element.textContent.trim().replace(/\s+/g, " ");
      return [`${element.closest(".pane")?.getAttribute("aria-label") ?? "page"}: ${name}`, outlineStyle !== "none" && outlineWidth !== "0px"];
    });
    if (name.startsWith("page: ") && reached.length > 0 && name !== reached[0]) break;
    assert.ok(outlined, name);
    reached.push(name);
  }
  const room = page.room;
  const of = (who) => ["Name", "Cut the line", "Flood", `Remove ${who}`, room, "Enter another room", `What is said in ${room}`, `Message to ${room}, as ${who}`, "Send"].map((name) => `${who}: ${name}`);
  assert.deepEqual(reached, ["page: Add a person", ...of("Ann"), ...of("Ben")]);
  await close(page);
});

test("the page says how it is with its connections, also without a gateway", async (context) => {
  const own = await start();
  context.after(() => own.stop().catch(() => {}));
  const page = await open({ own });
  const ann = page.pane("Ann");
  assert.equal(await ann.locator(".state-text").textContent(), "Connected");
  assert.equal(await ann.getByRole("status").textContent(), "Connected");
  assert.equal(await own.stop(), 0);
  await ann.getByText(/^Reconnecting in \d+ s$/).waitFor();
  await say(ann, "later");
  await ann.locator(".line.waiting").waitFor();
  // That the gateway cannot be reached is said in the console by the browser.
  page.faults = page.faults.filter((fault) => !fault.includes("ERR_CONNECTION_REFUSED"));
  await close(page);
});

test("who is sent away is told why, and may come back", async () => {
  const page = await open();
  const [ann, ben] = [page.pane("Ann"), page.pane("Ben")];
  await say(ann, "before");
  await bubble(ben, "before").waitFor();
  const asked = { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"user":"Ben","reason":"a break"}' };
  assert.equal((await fetch(`${gateway.admin}/api/v1/disconnect`, asked)).status, 200);
  await ben.locator(".state-text", { hasText: "Closed: a break" }).waitFor();
  await say(ann, "meanwhile");
  await bubble(ann, "meanwhile").waitFor();
  await ben.getByRole("button", { name: "Connect" }).click();
  await is_in(ben, page.room);
  await bubble(ben, "meanwhile").waitFor();
  await say(ben, "after");
  await bubble(ann, "after").waitFor();
  assert.deepEqual(await texts(ben), ["before", "meanwhile", "after"]);
  await close(page);
});

test("a window begins with two people, and keeps its own when it is loaded anew", async () => {
  const page = await open({ names: [] });
  const names = () => page.locator(".pane").evaluateAll((panes) => panes.map((pane) => pane.getAttribute("aria-label")));
  const [one, other, ...more] = await names();
  assert.equal(more.length, 0);
  assert.notEqual(one, other);
  for (const name of [one, other]) await is_in(page.pane(name), page.room);
  await page.getByRole("button", { name: "Add a person" }).click();
  await until("three", async () => (await names()).length === 3);
  const kept = await names();
  await page.reload();
  await until("the same", async () => (await names()).join() === kept.join());
  for (const name of kept) await is_in(page.pane(name), page.room);
  await close(page);
});

test("a token in the address of the page is handed on", async () => {
  const page = await open({ names: ["Ann"] });
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Network.enable");
  const offered = inTime(new Promise((resolve) => {
    devtools.on("Network.webSocketWillSendHandshakeRequest", ({ request }) => resolve(request.headers["Sec-WebSocket-Protocol"]));
  }), "a handshake");
  await page.goto(`${page.url()}&token=a.b.c`);
  assert.equal(await offered, "fanfare.v1, fanfare.token.a.b.c");
  await is_in(page.pane("Ann"), page.room);
  await close(page);
});
