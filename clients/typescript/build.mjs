// Builds one file for bundlers to take in, and one that pages can load as it is.

import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** What both files have in common, for the test that builds them again. */
export const options = (minify) => ({
  entryPoints: [here("src/index.ts")],
  bundle: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  minify,
  // What begins with an underscore is between the classes and not for users.
  ...(minify && { mangleProps: /^_/ }),
});

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await build({ ...options(false), outfile: here("dist/fanfare.js") });
  // The tests ask whether the file that is committed is the one that would be built.
  if (!process.argv.includes("--keep-min")) await build({ ...options(true), outfile: here("dist/fanfare.min.js") });
}
