export { Fanfare } from "./client.js";
export { FanfareError, type ClientErrorCode, type GatewayErrorCode } from "./errors.js";
export type { Room } from "./room.js";
export type * from "./types.js";
