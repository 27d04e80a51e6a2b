#!/usr/bin/env node
// Issues a token (JWT, HS256) for a client, as a back end does when somebody logs in.
//
//     FANFARE_AUTH__SECRET=... node examples/tokens/token.mjs --user 7 --ttl 3600 --rooms 5,lobby
//
// The token is on standard output, what it says on standard error. Needs nothing but Node 20.
import assert from "node:assert/strict";
import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { parseArgs } from "node:util";

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const signature = (signed, secret) => createHmac("sha256", secret).update(signed).digest();

/** The token that says this. `secret` is that of `auth.secret`. */
function issue(claims, secret) {
  const signed = `${base64url({ alg: "HS256", typ: "JWT" })}.${base64url(claims)}`;
  return `${signed}.${signature(signed, secret).toString("base64url")}`;
}

const { values } = parseArgs({
  options: { user: { type: "string" }, ttl: { type: "string", default: "3600" }, rooms: { type: "string" } },
});
const secret = process.env.FANFARE_AUTH__SECRET ?? "";
if (values.user === undefined || Buffer.byteLength(secret) < 32) {
  console.error("usage: token.mjs --user USER [--ttl SECONDS] [--rooms ROOM,...]");
  console.error("FANFARE_AUTH__SECRET must be the gateway's secret, of at least 32 bytes");
  process.exit(2);
}

const now = Math.floor(Date.now() / 1000);
// `iat` and `jti` are what a token can be revoked by: all of a user's up to a moment, or this one.
const claims = { sub: values.user, iat: now, exp: now + Number(values.ttl), jti: randomUUID() };
if (values.rooms !== undefined) claims.rooms = values.rooms.split(",");
const token = issue(claims, secret);

// What the gateway will do: read it back, and compare the signature.
const [head, body, end] = token.split(".");
assert.deepEqual(JSON.parse(Buffer.from(body, "base64url").toString()), claims);
assert(timingSafeEqual(Buffer.from(end, "base64url"), signature(`${head}.${body}`, secret)));
console.error(`a token for ${values.user}, ${values.ttl} s long: ${JSON.stringify(claims)}`);
console.log(token);
