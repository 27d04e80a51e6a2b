// A TCP proxy that breaks the connections that go through it, in all the ways in which lines break.

import { once } from "node:events";
import net from "node:net";

export const SEED = Number(process.env.FANFARE_SEED ?? Date.now() % 100_000);

/** Random numbers below 1, the same again from the same seed (mulberry32). */
export function chances(seed = SEED) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Ends a socket at once; by RST unless it has been told to end, when Node 20 would neither send one nor ever end by itself. */
const reset = (socket) => (socket.writableEnded ? socket.destroy() : socket.resetAndDestroy());

/**
 * How a connection may end: RST on both sides; the end of the stream on both; nothing forwarded any more, in either direction or in one, while
 * both sides stay open; the end of the stream in one direction alone.
 */
export const HARMS = ["reset", "close", "stall", "stall answers", "stall requests", "half-close answers", "half-close requests"];

export class Proxy {
  #links = new Set();
  /** Called for each new connection: says after how many bytes of answers it is harmed, and how. Nothing: not by itself. */
  plan = () => undefined;
  accepted = 0;
  /** How often each harm was done. */
  done = new Map();

  /** Stands before the gateway with this address, `ws://...`. */
  static async before(gateway) {
    const proxy = new Proxy();
    const { hostname, port } = new URL(gateway);
    // Both directions may end by themselves, as one of them does in a half-close.
    proxy.server = net.createServer({ allowHalfOpen: true, noDelay: true }, (client) => proxy.#serve(client, hostname, Number(port)));
    proxy.server.listen(0, "127.0.0.1");
    await once(proxy.server, "listening");
    proxy.url = gateway.replace(`:${port}`, `:${proxy.server.address().port}`);
    return proxy;
  }

  get open() {
    return this.#links.size;
  }

  /** Does it to all connections there are. */
  harm(how) {
    for (const link of [...this.#links]) link.harm(how);
  }

  async stop() {
    this.harm("reset");
    this.server.close();
    await once(this.server, "close");
  }

  #serve(client, host, port) {
    this.accepted += 1;
    const gateway = net.connect({ host, port, allowHalfOpen: true, noDelay: true });
    const plan = this.plan();
    let left = plan?.bytes ?? Infinity;
    const stalled = { answers: false, requests: false };
    const link = {
      harm: (how) => {
        this.done.set(how, (this.done.get(how) ?? 0) + 1);
        const [what, side] = how.split(" ");
        if (what === "reset") for (const socket of [client, gateway]) reset(socket);
        else if (what === "close") for (const socket of [client, gateway]) socket.end();
        else for (const way of side ? [side] : ["answers", "requests"]) stalled[way] = true;
        // What comes after the end of a stream goes nowhere.
        if (what === "half-close") (side === "answers" ? client : gateway).end();
      },
    };
    this.#links.add(link);
    let open = 2;
    const forward = (from, to, way) => {
      from.on("data", (piece) => {
        if (stalled[way]) return;
        if (way === "answers" && piece.length >= left) {
          // In the middle of a frame, or of the handshake.
          if (left > 0) to.write(piece.subarray(0, left));
          left = Infinity;
          // A stream that is reset at once would forget what was just written.
          return void setTimeout(() => link.harm(plan.how), 5), void (stalled[way] = true);
        }
        left -= way === "answers" ? piece.length : 0;
        if (!to.destroyed && !to.writableEnded) to.write(piece);
      });
      from.on("end", () => stalled[way] || to.end());
      from.on("error", () => to.destroy());
      from.on("close", () => {
        if (!stalled[way] && !to.destroyed) to.end();
        open -= 1;
        if (open === 0) this.#links.delete(link);
      });
    };
    forward(client, gateway, "requests");
    forward(gateway, client, "answers");
  }
}
