import type { Fanfare } from "./client.js";
import { Deferred } from "./deferred.js";
import { Emitter } from "./emitter.js";
import { FanfareError } from "./errors.js";
import type { Wire } from "./line.js";
import type { Content, History, Id, Joined, Members, Message, Position, PublishOptions, RoomEvents, RoomOptions } from "./types.js";

type Left = { error?: FanfareError };

/** A room as this client sees it. Once joined it is joined again after each loss of the connection, until `leave()`. */
export class Room<Data = unknown> extends Emitter<RoomEvents<Data>> implements AsyncIterable<Message<Data>> {
  /**
   * The last message given to listeners; give it as `since` to go on from there in another page or process.
   * Loops may be behind it: who uses one keeps `epoch` of here and `offset` of the last message that is dealt with.
   */
  position: Position | undefined;
  /** True while the gateway counts this connection among the members. */
  joined = false;
  /** The user's wish, which outlives connections. @internal */
  _wanted = false;
  /** It has been joined since it was wished for. @internal */
  _known = false;
  readonly #client: Fanfare;
  /** What ends the loops. */
  readonly #loops = new Set<(left: Left) => void>();
  readonly #history: number;
  #joining: Deferred<Joined> | undefined;
  #attempt = 0;
  /** Offsets of own messages that do not come here, after the position and in order. Where messages have no offsets it fills up to its bound, and nothing comes of it. */
  readonly #own = new Set<number>();
  #retry: ReturnType<typeof setTimeout> | undefined;

  /** @internal */
  constructor(client: Fanfare, readonly id: Id, options: RoomOptions) {
    super();
    this.#client = client;
    this.#history = options.history ?? 0;
    this.position = options.since;
  }

  /** Enters the room, as soon as there is a connection. Rejects when the gateway refuses. */
  join(): Promise<Joined> {
    this.#joining ??= new Deferred();
    const { promise } = this.#joining;
    if (this.joined) this.#settle({ recovered: true, ...this.position! });
    else if (!this._wanted) {
      this._wanted = true;
      if (this.#client._ready) this._enter();
    }
    return promise;
  }

  /** Publishes to the members. The answer says that the message has its place in the room's order. */
  publish(data: Data | Content<Data>, options?: PublishOptions): Promise<{ offset: number }> {
    const answer: Promise<{ offset: number }> = this.#client._publish({ room_id: this.id }, data, options);
    // What was not to come to this connection is not to come to the next one either.
    if (options?.echo === false) answer.then(({ offset }) => this.#skip(offset)).catch(() => {});
    return answer;
  }

  /** Reads back: the first messages after `since`, or the last ones. Long answers are cut; go on from the last message. */
  history(options: { since?: Position; limit?: number } = {}): Promise<History<Data>> {
    return this.#client._ask({ type: "history", room_id: this.id, ...options });
  }

  presence(options: { limit?: number; after?: Id } = {}): Promise<Members> {
    return this.#client._ask({ type: "presence", room_id: this.id, ...options });
  }

  /** Leaves the room; its loops end. To join it again is to begin anew. */
  async leave(): Promise<void> {
    if (!this._wanted) return;
    this._end();
    this.position = undefined;
    await this.#client._leave(this.id);
  }

  /** The messages from here on. Throws when it falls 10,000 messages behind, rather than to skip any. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message<Data>> {
    const readers: Deferred<IteratorResult<Message<Data>, undefined>>[] = [];
    let waiting: Message<Data>[] = [];
    let end: Left | undefined;
    const serve = () => {
      while (readers[0] && (waiting.length || end)) {
        const reader = readers.shift()!;
        const value = waiting.shift();
        if (value) reader.resolve({ value, done: false });
        else if (end!.error) {
          reader.reject(end!.error);
          end = {};
        } else reader.resolve({ value: undefined, done: true });
      }
    };
    const finish = (left: Left) => {
      end ??= left;
      stop();
      this.#loops.delete(finish);
      serve();
    };
    const stop = this.on("message", (message) => {
      if (waiting.push(message) > LOOP_MESSAGES_MAX) {
        waiting = [];
        finish({ error: new FanfareError("overflow", `the loop is ${LOOP_MESSAGES_MAX} messages behind`) });
      } else serve();
    });
    this.#loops.add(finish);
    return {
      next() {
        const reader = new Deferred<IteratorResult<Message<Data>, undefined>>();
        readers.push(reader);
        serve();
        return reader.promise;
      },
      async return() {
        waiting = [];
        end = {};
        finish(end);
        return { value: undefined, done: true };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** Where to go on, as `resume` lists it. @internal */
  _place(): Wire {
    return { room_id: this.id, ...this.position };
  }

  /** Joins by itself, without `resume`. @internal */
  async _enter(): Promise<void> {
    // Refused a moment ago, and to be tried again in its own time.
    if (this.#retry) return;
    const attempt = ++this.#attempt;
    const start = this.position ? { recover: this.position } : this.#history && !this._known ? { history: this.#history } : {};
    const isLast = () => attempt === this.#attempt;
    try {
      const ack = await this.#client._command({ type: "join", room_id: this.id, ...start });
      if (isLast()) this._entered(ack);
    } catch (error) {
      if (isLast()) this._refused(error as FanfareError);
    }
  }

  /** The gateway has let this client in. @internal */
  _entered(ack: Wire): void {
    const { epoch, offset, recovered } = ack as Joined;
    const again = this._known || this.position !== undefined;
    this.joined = this._known = true;
    // What follows begins at our own position, or with the last messages that were asked for.
    if (!recovered || !this.position) {
      this.position = { epoch, offset: again ? offset : Math.max(0, offset - this.#history) };
      this.#own.clear();
    }
    const joined = { epoch, offset, recovered };
    if (again) this._emit("resumed", joined);
    this.#settle(joined);
  }

  /** The gateway has not let this client in. @internal */
  _refused(error: FanfareError): void {
    if (this._known && TEMPORARY.has(error.code)) {
      this.#retry = setTimeout(() => {
        this.#retry = undefined;
        if (this.#client._ready && this._wanted && !this.joined) this._enter();
      }, this.#client._delay(3));
    } else this._end(error);
  }

  /** The connection is lost; the wish stays. @internal */
  _lost(): void {
    this.joined = false;
    this.#attempt++;
    clearTimeout(this.#retry);
    this.#retry = undefined;
  }

  /** This client is out of the room and does not come back by itself. @internal */
  _end(error?: FanfareError): void {
    const left = error ? { error } : {};
    for (const finish of this.#loops) finish(left);
    if (!this._wanted) return;
    this._lost();
    this._wanted = this._known = false;
    this.#joining?.reject(error ?? new FanfareError("closed", "the room was left"));
    this.#joining = undefined;
    this._emit("left", left);
  }

  /** Something from the gateway that belongs to this room. @internal */
  _deliver(message: Wire): void {
    if (!this.joined) return;
    // Who is taken out is told so by a `leave` that is from nobody.
    if (message.type === "leave" && message.from === undefined) return this._end(new FanfareError("unsubscribed", message.reason ?? ""));
    const offset: number | undefined = message.to_offset ?? message.offset;
    if (offset !== undefined && this.position) {
      if (offset > this.position.offset) this.#pass(offset);
      // Seen already; but what was missed is always told.
      else if (message.type !== "gap") return;
    }
    this._emit(message.type, message as any);
  }

  #skip(offset: number): void {
    if (!this.position || offset <= this.position.offset || this.#own.size >= OWN_MAX) return;
    this.#own.add(offset);
    this.#pass(this.position.offset);
  }

  /** Moves the position there, and on over own messages. */
  #pass(offset: number): void {
    for (const own of this.#own) {
      if (own > offset + 1) break;
      this.#own.delete(own);
      offset = Math.max(offset, own);
    }
    this.position = { epoch: this.position!.epoch, offset };
  }

  #settle(joined: Joined): void {
    this.#joining?.resolve(joined);
    this.#joining = undefined;
  }
}

const LOOP_MESSAGES_MAX = 10_000;
const OWN_MAX = 256;

/** Refusals that may be none a little later. */
const TEMPORARY = new Set(["unavailable", "rate_limited", "internal"]);
