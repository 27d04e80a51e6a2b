import { Deferred } from "./deferred.js";
import { Emitter } from "./emitter.js";
import { FanfareError } from "./errors.js";
import { Line, unanswered, type Request, type Wire } from "./line.js";
import { Room } from "./room.js";
import { expiry, renewal } from "./token.js";
import type { Content, FanfareEvents, FanfareOptions, Id, PublishOptions, RoomOptions, State, Welcome, WebSocketLike } from "./types.js";

type Timer = ReturnType<typeof setTimeout>;

/** A client of the gateway that keeps itself connected. */
export class Fanfare extends Emitter<FanfareEvents> {
  /** Of the connection that is open, or was the last to be. */
  welcome: Welcome | undefined;
  /** Connected, and back in all rooms. @internal */
  _ready = false;
  readonly #url: URL;
  readonly #options;
  readonly #rooms = new Map<string, Room<any>>();
  readonly #queue: Request[] = [];
  #state: State = "closed";
  #opening: Deferred<void> | undefined;
  #line: Line | undefined;
  /** Which attempt it is: what was begun for an earlier one is void. */
  #attempt = 0;
  #failures = 0;
  #openedAt = 0;
  #comeBackAt: number | undefined;
  #moving = false;
  #timer: Timer | undefined;
  #renewTimer: Timer | undefined;
  #token: string | undefined;
  #refusedToken: string | undefined;
  #renewAt = Infinity;
  #listening: AbortController | undefined;

  /** `url` may be relative to the page's, and begin with http as well as with ws. */
  constructor(url: string | URL, options: FanfareOptions = {}) {
    super();
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    const { minReconnectDelay = 500, maxReconnectDelay = 20_000, timeout = 5000, maxServerPingDelay = 10_000, queue = {} } = options;
    const { max = 256, policy = "reject" } = queue;
    this.#options = { ...options, minReconnectDelay, maxReconnectDelay, timeout, maxServerPingDelay, queue: { max, policy } };
    if (options.token) this.#take(options.token);
  }

  get state(): State {
    return this.#state;
  }

  /** Resolves when the connection is open and all rooms are joined again; rejects only when the client gives up. */
  connect(): Promise<void> {
    const { signal } = this.#options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this._ready) return Promise.resolve();
    this.#opening ??= new Deferred();
    const { promise } = this.#opening;
    if (this.#state === "closed") {
      this.#failures = 0;
      this.#refusedToken = undefined;
      this.#listen();
      this.#dial();
    }
    return promise;
  }

  /** Closes the connection for good. What waits is rejected; rooms are left, and keep their positions for another `join()`. */
  close(): void {
    if (this.#state === "closed") return;
    if (this.#line) this.#forget(this.#line._close());
    this.#stop(1000, "");
  }

  /** The room of this id, always the same object. The options count until it is joined for the first time. */
  room<Data = unknown>(id: Id, options: RoomOptions = {}): Room<Data> {
    let room = this.#rooms.get(String(id));
    if (!room) this.#rooms.set(String(id), (room = new Room(this, id, options)));
    return room;
  }

  /** Sends to every connection of a user; `delivered` is how many that were. */
  send<Data = unknown>(user: Id, data: Data | Content<Data>, options?: PublishOptions): Promise<{ delivered: number }> {
    return this._publish({ to: user }, data, options);
  }

  /** Sends to every connection, where the gateway allows that. */
  async broadcast<Data = unknown>(data: Data | Content<Data>, options?: PublishOptions): Promise<void> {
    await this._publish({}, data, options);
  }

  /** @internal */
  _publish(to: Wire, data: unknown, { signal, ...options }: PublishOptions = {}): Promise<any> {
    return this.#enqueue({ type: "message", ...to, ...content(data), ...options }, "unconfirmed", signal);
  }

  /** Asks something that may be asked twice. @internal */
  _ask(message: Wire): Promise<any> {
    return this.#enqueue(message);
  }

  /** Sends at once, on this connection only. @internal */
  _command(message: Wire): Promise<any> {
    const line = this.#line!;
    return new Promise((resolve, reject) => {
      line._send({
        text: JSON.stringify(message),
        unanswered: "disconnected",
        resolve(answer) {
          line._hold();
          resolve(answer);
        },
        reject: (error) => {
          reject(error);
          if ((error as FanfareError).code !== "timeout") return;
          // Where the two sides now stand is not known, and a line without answers has not lasted.
          this.#openedAt = Date.now();
          line._drop("no answer");
        },
      });
    });
  }

  /** @internal */
  async _leave(id: Id): Promise<void> {
    // While rooms are being joined again, those no longer wanted are left then.
    if (this._ready) await this._command({ type: "leave", room_id: id }).catch(() => {});
  }

  /** Full jitter: anything up to the bound that doubles with each failure. @internal */
  _delay(failures: number): number {
    const { minReconnectDelay, maxReconnectDelay } = this.#options;
    return Math.random() * Math.min(maxReconnectDelay, minReconnectDelay * 2 ** failures);
  }

  async #dial(): Promise<void> {
    const attempt = ++this.#attempt;
    const { timeout, maxServerPingDelay, getToken, websocket = globalThis.WebSocket } = this.#options;
    this.#comeBackAt = undefined;
    this.#change("connecting");
    // A listener may have closed the client.
    if (attempt !== this.#attempt) return;
    if (getToken && (!this.#token || Date.now() >= this.#renewAt)) {
      try {
        const token = await this.#getToken();
        if (attempt !== this.#attempt) return;
        this.#take(token);
      } catch (cause) {
        if (attempt !== this.#attempt) return;
        const error = new FanfareError("unauthorized", "no token", undefined, { cause });
        if (cause instanceof FanfareError && cause.code === "unauthorized") return this.#stop(1006, "no token", error);
        this._emit("error", error);
        // A listener may have closed the client.
        return attempt === this.#attempt ? this.#comeBack(1006, "no token") : undefined;
      }
    }
    const url = new URL(this.#url);
    if (this.welcome) url.searchParams.set("session", this.welcome.session);
    const protocols = ["fanfare.v1"];
    if (this.#token) protocols.push(`fanfare.token.${this.#token}`);
    let socket: WebSocketLike;
    try {
      socket = new websocket(url.href, protocols);
    } catch (cause) {
      return this.#stop(1006, String(cause), new FanfareError("closed", "this address or token cannot be connected with", undefined, { cause }));
    }
    this.#line = new Line(
      socket,
      {
        message: (message) => this.#receive(message),
        settled: () => this.#settled(),
        lost: (code, reason, unanswered) => this.#lost(code, reason, unanswered),
      },
      timeout,
      maxServerPingDelay,
    );
  }

  #receive(message: Wire): void {
    switch (message.type) {
      case "welcome":
        return void this.#open(message as Welcome);
      case "reconnect":
        this.#comeBackAt = Date.now() + message.after_ms;
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#move(), message.after_ms);
        return;
      case "error":
        return this._emit("error", new FanfareError(message.code, message.content));
      case "message":
      case "join":
      case "leave":
      case "gap":
        if (message.room_id !== undefined) this.#rooms.get(String(message.room_id))?._deliver(message);
        else this._emit("message", message as any);
    }
  }

  async #open(welcome: Welcome): Promise<void> {
    const line = this.#line!;
    const session = this.welcome?.session;
    this.welcome = welcome;
    this.#openedAt = Date.now();
    line._watchOver(Math.min(welcome.heartbeat_seconds * 1000, QUIET_MAX));
    this.#planRenewal();
    this.#change("open");
    this._emit("open", welcome);
    const known = [...this.#rooms.values()].filter((room) => room._wanted && (room._known || room.position));
    if (session && known.length) await this.#resume(session, known).catch(() => {});
    if (line !== this.#line) return;
    // The new ones, and all of them where the gateway knows no `resume`.
    for (const room of this.#rooms.values()) if (room._wanted && !room.joined) room._enter();
    this._ready = true;
    this.#opening?.resolve();
    this.#opening = undefined;
    this.#flush();
  }

  /** Joins all rooms again by one message, unless they are so many that it would be too long. */
  async #resume(session: string, known: Room<any>[]): Promise<void> {
    const places: Wire[] = [];
    let length = 0;
    for (const room of known) {
      places.push(room._place());
      length += JSON.stringify(room._place()).length;
      if (length < RESUME_LENGTH_MAX) continue;
      // In the name of no session: those that are not listed here would be joined without their positions.
      await this.#rejoin("", places.splice(0));
      length = 0;
    }
    await this.#rejoin(session, places);
  }

  async #rejoin(session: string, places: Wire[]): Promise<void> {
    const { rooms } = await this._command({ type: "resume", session, rooms: places });
    for (const entry of rooms as Wire[]) {
      const room = this.#rooms.get(String(entry.room_id));
      // The lost session was in it, and it has been left since.
      if (!room?._wanted) this._command({ type: "leave", room_id: entry.room_id }).catch(() => {});
      else if (entry.code) room._refused(new FanfareError(entry.code, entry.content));
      else if (!room.joined) room._entered(entry);
    }
  }

  /** The gateway is going to close: goes over to another connection once everything sent is answered. */
  #move(): void {
    this.#moving = true;
    this._ready = false;
    this.#settled();
  }

  #settled(): void {
    const line = this.#line;
    if (!this.#moving) this.#flush();
    else if (line && !line._busy) this.#lost(1012, "moved", line._close());
  }

  #lost(code: number, reason: string, unanswered: Request[]): void {
    const { getToken, minReconnectDelay } = this.#options;
    const opened = this.#openedAt > 0;
    if (opened && Date.now() - this.#openedAt > 10 * minReconnectDelay) this.#failures = 0;
    this.#forget(unanswered);
    if (getToken && code === 4500) {
      this.#refusedToken = this.#token;
      this.#token = undefined;
    } else if (isFinal(code)) {
      const error = new FanfareError("closed", `closed by the gateway: ${code} ${reason}`, code);
      return this.#stop(code, reason, error);
    } else if (getToken && !opened) {
      // Nothing tells a page whether its token was refused or the gateway is not there.
      this.#token = undefined;
    }
    this.#comeBack(code, reason);
  }

  /** Puts everything back that belonged to the connection. */
  #forget(requests: Request[]): void {
    this.#line = undefined;
    this._ready = this.#moving = false;
    this.#openedAt = 0;
    clearTimeout(this.#renewTimer);
    for (const room of this.#rooms.values()) room._lost();
    for (const request of requests) if (request.unanswered) request.reject(unanswered(request, "disconnected"));
    this.#queue.unshift(...requests.filter((request) => !request.unanswered));
  }

  #comeBack(code: number, reason: string): void {
    const retryIn = this.#comeBackAt === undefined ? this._delay(this.#failures++) : Math.max(0, this.#comeBackAt - Date.now());
    this.#change("waiting");
    if (this.#state === "waiting") this._emit("close", { code, reason, retryIn });
    this.#dialIn(retryIn);
  }

  #dialIn(delay: number): void {
    // A listener may have closed the client.
    if (this.#state !== "waiting") return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#dial(), delay);
  }

  /** Does not come back: of its own will, or because of `error`. */
  #stop(code: number, reason: string, error?: FanfareError): void {
    const attempt = ++this.#attempt;
    clearTimeout(this.#timer);
    this.#comeBackAt = undefined;
    this.#listening?.abort();
    const rejection = error ?? new FanfareError("closed", "closed by close()");
    this.#opening?.reject(rejection);
    this.#opening = undefined;
    for (const request of this.#queue.splice(0)) request.reject(rejection);
    this.#state = "closed";
    // Of the others only the loops end. Those that a listener joins anew are not meant.
    for (const room of [...this.#rooms.values()].filter((room) => room._wanted || room._end())) room._end(error);
    if (attempt === this.#attempt) this.#change("closed");
    this._emit("close", { code, reason });
  }

  #enqueue(message: Wire, unanswered?: "unconfirmed", signal?: AbortSignal): Promise<any> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      if (this.#state === "closed") return reject(new FanfareError("closed", "not connected: call connect() first"));
      // What is changed later is not what was published.
      const request: Request = { text: JSON.stringify(message), resolve, reject, ...(unanswered && { unanswered }) };
      const abort = () => {
        const at = this.#queue.indexOf(request);
        if (at >= 0) this.#queue.splice(at, 1);
        reject(signal!.reason);
      };
      signal?.addEventListener("abort", abort);
      const settled = (settle: (value: any) => void) => (value: any) => {
        signal?.removeEventListener("abort", abort);
        settle(value);
      };
      request.resolve = settled(resolve);
      request.reject = settled(reject);
      this.#queue.push(request);
      this.#flush();
      const { max, policy } = this.#options.queue;
      if (this.#queue.length <= max) return;
      if (policy === "drop-oldest") this.#queue.shift()!.reject(new FanfareError("dropped", "a newer message took its place in the queue"));
      else this.#queue.pop()!.reject(new FanfareError("queue_full", `${max} messages wait already`));
    });
  }

  #flush(): void {
    while (this._ready && this.#queue.length && this.#line!._writable) this.#line!._send(this.#queue.shift()!);
  }

  #take(token: string): void {
    this.#token = token;
    const expiresAt = expiry(token);
    this.#renewAt = expiresAt === undefined ? Infinity : Date.now() + renewal(expiresAt - Date.now());
  }

  async #getToken(): Promise<string> {
    const { getToken, timeout } = this.#options;
    let timer: Timer | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new FanfareError("timeout", "no token in time")), 4 * timeout);
    });
    const asked = (async () => getToken!())();
    const { signal } = this.#listening!;
    const stop = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
    };
    signal.addEventListener("abort", stop);
    const token = await Promise.race([asked, late]).finally(stop);
    if (!token || token === this.#refusedToken) throw new FanfareError("unauthorized", "no token to be had");
    return token;
  }

  #planRenewal(delay = this.#renewAt - Date.now()): void {
    clearTimeout(this.#renewTimer);
    if (!this.#options.getToken || delay === Infinity) return;
    this.#renewTimer = setTimeout(() => this.#renew(), Math.min(Math.max(delay, 1000), TIMER_MAX));
  }

  /** Gives the gateway a new token on the connection that is open. */
  async #renew(): Promise<void> {
    if (Date.now() < this.#renewAt) return this.#planRenewal();
    const line = this.#line;
    try {
      const token = await this.#getToken();
      if (line !== this.#line) return;
      const { expires_in } = await this._command({ type: "auth", token });
      this.#take(token);
      // Better than the token's own word, which is by another clock than ours.
      if (expires_in !== undefined) this.#renewAt = Date.now() + renewal(expires_in * 1000);
      this.#planRenewal();
    } catch (cause) {
      if (line !== this.#line) return;
      this._emit("error", new FanfareError("unauthorized", "the token could not be renewed", undefined, { cause }));
      if (line === this.#line) this.#planRenewal(RENEWAL_RETRY);
    }
  }

  #listen(): void {
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    this.#options.signal?.addEventListener("abort", () => this.close(), { signal });
    for (const type of ["online", "offline", "pageshow"]) globalThis.addEventListener?.(type, () => this.#wake(type), { signal });
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden || this.#wake("visible"), { signal });
  }

  /** Something has happened to the network or the page: does not wait for timers to find out what. */
  #wake(type: string): void {
    if (this.#state !== "waiting") this.#line?._probe();
    // The gateway's own word on when to come back stands.
    else if (type !== "offline" && this.#comeBackAt === undefined) this.#dialIn(this._delay(0));
  }

  #change(state: State): void {
    this.#state = state;
    this._emit("state", state);
  }
}

/** A string, an object that is meant as a message, or any data. */
function content(data: unknown): Wire {
  if (typeof data === "string") return { content: data };
  const keys = typeof data === "object" && data !== null ? Object.keys(data) : [];
  return keys.length && keys.every((key) => CONTENT_KEYS.has(key)) ? (data as Wire) : { data };
}

/** Closed in good order, for a fault of ours, or for a reason that stays until something changes. */
const isFinal = (code: number): boolean => code === 1000 || code === 1008 || (code >= 4500 && code < 5000);

const CONTENT_KEYS = new Set(["content", "data", "key"]);
/** Milliseconds of silence before a ping is sent, at most: a dead line is to be noticed sooner than the gateway would. */
const QUIET_MAX = 25_000;
/** Characters, of up to three bytes each; the gateway takes 64 KiB. */
const RESUME_LENGTH_MAX = 20_000;
/** Milliseconds until the next attempt to renew a token. */
const RENEWAL_RETRY = 10_000;
/** Milliseconds that setTimeout can count. */
const TIMER_MAX = 2 ** 31 - 1;
