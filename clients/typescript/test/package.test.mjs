// What is shipped.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

import { options } from "../build.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const built = build({ ...options(true), write: false }).then(({ outputFiles }) => Buffer.from(outputFiles[0].contents));

test("is at most 5 KB, minified and compressed", async () => {
  const { length } = gzipSync(await built, { level: 9 });
  assert.ok(length <= 5 * 1024, `${length} bytes`);
});

test("the committed file is what the sources build to: run `npm run build` and commit it", async () => {
  assert.ok((await built).equals(await readFile(here("../dist/fanfare.min.js"))));
});

test("needs no other package", async () => {
  const { dependencies, sideEffects } = JSON.parse(await readFile(here("../package.json")));
  assert.equal(dependencies, undefined);
  assert.equal(sideEffects, false);
});

test("the lock file names no registry but npm's own", async () => {
  const { packages } = JSON.parse(await readFile(here("../package-lock.json")));
  for (const { resolved } of Object.values(packages)) assert.ok(!resolved || resolved.startsWith("https://registry.npmjs.org/"), resolved);
});
