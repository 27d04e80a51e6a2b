import type { FanfareError } from "./errors.js";

/** Of a room or a user. `5` and `"5"` are the same. */
export type Id = number | string;

/** Where a reader stands in a room's history. */
export interface Position {
  epoch: string;
  offset: number;
}

export interface Message<Data = unknown> {
  type: "message";
  from: Id;
  to?: Id;
  room_id?: Id;
  content?: string;
  data?: Data;
  key?: string;
  offset?: number;
  /** Unix seconds, by the gateway's clock. */
  timestamp: number;
}

/** A user has come into the room or is gone from it. */
export interface Presence {
  type: "join" | "leave";
  from: Id;
  room_id: Id;
  offset?: number;
  timestamp: number;
}

/** Messages that this client was not given, both ends included. */
export interface Gap {
  type: "gap";
  room_id: Id;
  from_offset: number;
  to_offset: number;
  reason: string;
  timestamp: number;
}

export interface Joined {
  epoch: string;
  /** The newest message when the room was joined. */
  offset: number;
  /** True when everything since the last position follows. */
  recovered: boolean;
}

export interface Welcome {
  client_id: string;
  user: Id;
  heartbeat_seconds: number;
  node: string;
  session: string;
  timestamp: number;
}

export interface Closed {
  /** 1006 when the line broke without a word. */
  code: number;
  reason: string;
  /** Milliseconds until the next attempt; without it the client does not come back. */
  retryIn?: number;
}

/** A string is published as `content`, an object of these keys only as it says, everything else as `data`. */
export interface Content<Data = unknown> {
  content?: string;
  data?: Data;
  /** A newer message of the same key may replace this one for readers that are behind. */
  key?: string;
}

export interface PublishOptions {
  /** False: all but this connection get it. */
  echo?: boolean;
  /** Takes it back while it waits in the queue; once sent, only stops waiting for the answer. */
  signal?: AbortSignal;
}

export interface RoomOptions {
  /** Begin after this position, such as the one that `room.position` was when the page was left. */
  since?: Position;
  /** Begin with the last so many messages. */
  history?: number;
}

export interface History<Data = unknown> extends Position {
  /** False when something after `since` is no longer there. */
  complete: boolean;
  /** Oldest first. */
  messages: Message<Data>[];
}

export interface Members {
  users: number;
  connections: number;
  members: { user: Id; connections: number }[];
  /** There are more: ask again with it as `after`. */
  next?: Id;
}

export type State = "closed" | "connecting" | "open" | "waiting";

export interface FanfareEvents {
  state: State;
  open: Welcome;
  close: Closed;
  /** Direct messages and those to everyone. */
  message: Message;
  /** What went wrong without belonging to a request, such as a token that could not be had. */
  error: FanfareError;
}

export interface RoomEvents<Data> {
  message: Message<Data>;
  join: Presence;
  leave: Presence;
  gap: Gap;
  /** The room was joined again after the connection was lost, or `since` a position. */
  resumed: Joined;
  /** This client is no longer in the room; without an error because of `leave()` or `close()`. */
  left: { error?: FanfareError };
}

/** What is used of a WebSocket. */
export interface WebSocketLike {
  readonly readyState: number;
  readonly bufferedAmount: number;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
  /** Closes without a closing handshake, where there is such a thing. */
  terminate?(): void;
}

export interface FanfareOptions {
  /** Given at the handshake, as a subprotocol. */
  token?: string;
  /** Asked for a token when there is none or it is about to expire. Nothing (`null`) means: none is to be had, stop. */
  getToken?: () => Promise<string | null | undefined> | string | null | undefined;
  /** Milliseconds; the n-th attempt waits between 0 and min * 2^n. 500. */
  minReconnectDelay?: number;
  /** Milliseconds that no attempt waits longer than. 20,000. */
  maxReconnectDelay?: number;
  /** Milliseconds for an answer; four times as long for a connection. 5,000. */
  timeout?: number;
  /** Milliseconds for the answer to a ping, which is sent when nothing else comes. 10,000. */
  maxServerPingDelay?: number;
  /** What waits to be sent: at most `max` (256); above that the new one is rejected, or the oldest. */
  queue?: { max?: number; policy?: "reject" | "drop-oldest" };
  /** A WebSocket class, where there is no global one: `ws` in Node 20. */
  websocket?: new (url: string, protocols: string[]) => WebSocketLike;
  /** Closes the client when aborted. */
  signal?: AbortSignal;
}
