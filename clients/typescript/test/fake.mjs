// A gateway that says only what the test tells it to, and time that passes only when the test lets it.

import { mock } from "node:test";

import { Fanfare } from "../dist/fanfare.js";

/** Stops the clock for one test, and lets each random number be `random`. */
export function stopTheClock(context, random = 0.5) {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_800_000_000_000 });
  mock.method(Math, "random", () => random);
  const { now } = Date;
  mock.method(performance, "now", () => now.call(Date));
  context.after(() => {
    mock.timers.reset();
    mock.restoreAll();
  });
}

/** Events of a page, which Node has not. */
export function page(context) {
  const target = new EventTarget();
  globalThis.addEventListener = target.addEventListener.bind(target);
  context.after(() => delete globalThis.addEventListener);
  return (type) => target.dispatchEvent(new Event(type));
}

/** Lets everything run that is due, then that which follows from it. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Lets so many milliseconds pass. */
export async function pass(milliseconds) {
  await settle();
  const step = Math.max(1, Math.ceil(milliseconds / 200));
  for (let left = milliseconds; left > 0; left -= step) {
    mock.timers.tick(Math.min(step, left));
    await settle();
  }
}

export class FakeSocket {
  /** All that were opened since `client` was called last. */
  static all = [];
  /** Whether pings are answered. */
  static lively = false;
  readyState = 0;
  bufferedAmount = 0;
  sent = [];
  closedWith;

  constructor(url, protocols) {
    this.url = new URL(url);
    this.protocols = protocols;
    FakeSocket.all.push(this);
  }

  static get last() {
    return FakeSocket.all.at(-1);
  }

  send(text) {
    if (this.readyState === 0) throw new Error("sent before it was open");
    if (this.readyState !== 1) return;
    const message = JSON.parse(text);
    if (message.type === "ping" && FakeSocket.lively) queueMicrotask(() => this.say({ type: "pong", timestamp: 1 }));
    else this.sent.push(message);
  }

  close(code) {
    this.closedWith = code;
    this.readyState = 3;
  }

  /** A message from the gateway. */
  say(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  async welcome(more = {}) {
    this.readyState = 1;
    this.say({ type: "welcome", client_id: "c", user: "ann", heartbeat_seconds: 54, node: "n", session: `s${FakeSocket.all.length}`, ...more });
    await settle();
  }

  /** The request of this type that was sent last. */
  request(type) {
    return this.sent.findLast((message) => message.type === type);
  }

  /** Answers it. */
  async answer(type, answer = {}) {
    const { id, room_id } = this.request(type);
    this.say({ type: "ack", id, room_id, ...answer });
    await pass(1);
  }

  refuse(type, code) {
    return this.answer(type, { type: "error", code, content: "no" });
  }

  /** The connection ends. */
  async end(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
    await settle();
  }
}

/** A client with fake sockets that writes down what happens to it. */
export function client(context, options = {}) {
  FakeSocket.all = [];
  FakeSocket.lively = false;
  const fanfare = new Fanfare("ws://gateway.example/ws?user=ann", { websocket: FakeSocket, ...options });
  context.after(() => fanfare.close());
  fanfare.log = [];
  for (const type of ["state", "close", "error"]) fanfare.on(type, (event) => fanfare.log.push([type, event]));
  return fanfare;
}

/** A client that is connected. */
export async function connected(context, options) {
  const fanfare = client(context, options);
  const connecting = fanfare.connect();
  await settle();
  await FakeSocket.last.welcome();
  await connecting;
  return fanfare;
}

/** A room of it that is joined, and what it emits. */
export async function joined(fanfare, id, ack = { epoch: "e", offset: 10, recovered: false }, options = {}) {
  const room = fanfare.room(id, options);
  room.log = [];
  for (const type of ["message", "join", "leave", "gap", "resumed", "left"]) room.on(type, (event) => room.log.push([type, event]));
  const joining = room.join();
  await FakeSocket.last.answer("join", ack);
  await joining;
  return room;
}

/** What the room was given, by offset. */
export const offsets = (room) => room.log.filter(([type]) => type === "message").map(([, { offset }]) => offset);

/** A promise whose rejection is looked at later. */
export function kept(promise) {
  promise.catch(() => {});
  return promise;
}

/** What a promise has come to so far. */
export async function outcome(promise) {
  await settle();
  return Promise.race([
    promise.then(
      (value) => ({ value }),
      (error) => ({ error: error.code ?? error.name }),
    ),
    settle().then(() => "pending"),
  ]);
}
