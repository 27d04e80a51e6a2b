/** What the gateway answers to a request that it refuses. */
export type GatewayErrorCode =
  | "bad_message"
  | "unknown_type"
  | "missing_field"
  | "not_a_member"
  | "forbidden"
  | "too_many_rooms"
  | "rate_limited"
  | "message_too_big"
  | "unavailable"
  | "internal";

/** What this client finds out by itself. */
export type ClientErrorCode =
  /** A publication was sent, and no answer came: it may or may not have been published. It is not sent again. */
  | "unconfirmed"
  /** No answer to a question that changes nothing. */
  | "timeout"
  /** The connection was lost before the answer. */
  | "disconnected"
  /** The queue is full. It was not sent. */
  | "queue_full"
  /** It made room in the queue for a newer one. It was not sent. */
  | "dropped"
  /** The client is closed. It was not sent. */
  | "closed"
  /** There is no token, or none that the gateway takes. */
  | "unauthorized"
  /** The application took this client out of the room. */
  | "unsubscribed"
  /** A loop takes messages more slowly than they come. */
  | "overflow";

export class FanfareError extends Error {
  override readonly name = "FanfareError";

  constructor(
    readonly code: GatewayErrorCode | ClientErrorCode,
    message: string,
    /** With which the gateway closed the connection, where that is the cause. */
    readonly closeCode?: number,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** True when the publication may have been published all the same. */
  get maybePublished(): boolean {
    return this.code === "unconfirmed";
  }
}
