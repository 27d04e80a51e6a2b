// Starts gateways for tests.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
export const BINARY = process.env.FANFARE_BIN ?? `${ROOT}target/debug/fanfare`;
const DEADLINE = 20_000;
const ROOMS = `
[[rooms]]
match = "demo.*"
history = {}
presence = true

[[rooms]]
match = "*"
history = {}
presence = "list"
`;

/** The promise, or a failure that says what did not come. */
export function inTime(promise, what, limit = DEADLINE) {
  const stop = new AbortController();
  const late = pause(limit, undefined, { signal: stop.signal }).then(() => {
    throw new Error(`${what}: not within ${limit} ms`);
  });
  late.catch(() => {});
  return Promise.race([promise, late]).finally(() => stop.abort());
}

/** Waits until `holds` returns something true, and returns that. */
export async function until(holds, what) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const value = await holds();
    if (value) return value;
    assert.ok(Date.now() < end, `${what}: not within ${DEADLINE} ms`);
    await pause(10);
  }
}

/** A running gateway, on a port of its own unless `listen` says which, with the text of a configuration file. */
export async function start(args = [], settings = {}, { listen = "127.0.0.1:0", config = ROOMS } = {}) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("FANFARE_")));
  for (const [key, value] of Object.entries({ DRAIN__WINDOW: "200ms", ...settings })) env[`FANFARE_${key}`] = value;
  const directory = await mkdtemp(path.join(tmpdir(), "fanfare-client-"));
  const file = path.join(directory, "fanfare.toml");
  await writeFile(file, config);
  const usual = ["--config", file, "--listen", listen, "--admin-listen", "127.0.0.1:0", "--shards", "2"];
  const child = spawn(BINARY, [...usual, ...args], { cwd: ROOT, env, stdio: ["ignore", "pipe", "ignore"] });
  const exited = once(child, "exit");
  exited.catch(() => {});
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const address = async (name) => {
    const { value } = await inTime(lines.next(), `listening ${name}`);
    assert.match(value ?? "", new RegExp(`^listening ${name} `), `${BINARY} (FANFARE_BIN) does not start`);
    return value.split(" ")[2];
  };
  const url = await address("public");
  const admin = await address("admin");
  await rm(directory, { recursive: true });
  return {
    url,
    admin,
    kill: () => child.kill("SIGKILL") && exited,
    async stop() {
      child.kill("SIGTERM");
      const [code] = await inTime(exited, "exit").catch((error) => {
        child.kill("SIGKILL");
        throw error;
      });
      return code;
    },
    post: (path, body) =>
      fetch(`${admin}/api/v1${path}`, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  };
}
