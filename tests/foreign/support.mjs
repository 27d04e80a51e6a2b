// Starts gateways, for tests that drive them through Node.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const MODULES = process.env.FANFARE_FOREIGN ?? path.join(ROOT, "target/foreign");

/** A package that scripts/test has installed. */
export const installed = createRequire(path.join(MODULES, "package.json"));

const BINARY = process.env.FANFARE_BIN ?? path.join(ROOT, "target/debug/fanfare");
export const DEADLINE = 20_000;

/** The promise, or a failure that says what did not come. */
export function inTime(promise, what) {
  const stop = new AbortController();
  const late = pause(DEADLINE, undefined, { signal: stop.signal }).then(() => {
    throw new Error(`${what}: not within ${DEADLINE} ms`);
  });
  late.catch(() => {});
  return Promise.race([promise, late]).finally(() => stop.abort());
}

/** Chromium, with nothing that would speak to the world outside. */
export function launch(more = []) {
  return installed("playwright-core").chromium.launch({
    executablePath: process.env.FANFARE_CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--headless",
      "--disable-gpu",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--no-proxy-server",
      ...more,
    ],
  });
}

/** A running gateway on ports of its own. */
export async function start(args = [], settings = {}) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("FANFARE_")));
  for (const [key, value] of Object.entries({ DRAIN__WINDOW: "200ms", ...settings })) env[`FANFARE_${key}`] = value;
  const listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--shards", "2"];
  const child = spawn(BINARY, [...listen, ...args], { cwd: ROOT, env, stdio: ["ignore", "pipe", "ignore"] });
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const address = async (name) => {
    const { value } = await inTime(lines.next(), `listening ${name}`);
    assert.match(value ?? "", new RegExp(`^listening ${name} `));
    return value.split(" ")[2];
  };
  const url = await address("public");
  const admin = await address("admin");
  return {
    url,
    admin,
    async stop() {
      child.kill("SIGTERM");
      const [code] = await inTime(exited, "exit").catch((error) => {
        child.kill("SIGKILL");
        throw error;
      });
      return code;
    },
    async metric(series) {
      const text = await (await fetch(`${admin}/metrics`)).text();
      const line = text.split("\n").find((line) => line.startsWith(`${series} `));
      return line === undefined ? undefined : Number(line.slice(series.length + 1));
    },
  };
}
