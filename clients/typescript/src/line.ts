import { FanfareError } from "./errors.js";
import type { WebSocketLike } from "./types.js";

/** An object as it goes over the wire. */
export type Wire = Record<string, any>;

export interface Request {
  /** An object without `id`, in JSON. */
  text: string;
  /** How it is rejected when the connection ends first; without it, it is asked again on the next. */
  unanswered?: "unconfirmed" | "disconnected";
  resolve(answer: any): void;
  reject(error: unknown): void;
}

interface Sent extends Request {
  timer: ReturnType<typeof setTimeout>;
}

export interface LineEvents {
  /** Everything that is not an answer. */
  message(message: Wire): void;
  /** A request has been answered or has waited long enough. */
  settled(): void;
  /** Once, when the connection is over. */
  lost(code: number, reason: string, unanswered: Request[]): void;
}

/** One connection, from the attempt to its loss: requests and their answers, and whether the other side still lives. */
export class Line {
  readonly #socket: WebSocketLike;
  readonly #events: LineEvents;
  readonly #timeout: number;
  readonly #pingDelay: number;
  readonly #sent = new Map<unknown, Sent>();
  #lastId = 0;
  #heardAt = 0;
  #quiet = 0;
  #asked = false;
  #watch: ReturnType<typeof setTimeout>;
  #held: string[] | undefined;
  #fault = "";
  #over = false;

  constructor(socket: WebSocketLike, events: LineEvents, timeout: number, pingDelay: number) {
    this.#socket = socket;
    this.#events = events;
    this.#timeout = timeout;
    this.#pingDelay = pingDelay;
    socket.onmessage = ({ data }) => {
      this.#heardAt = performance.now();
      if (this.#held) this.#held.push(data);
      else this.#receive(data);
    };
    socket.onerror = ({ message }) => {
      this.#fault = message ?? "";
    };
    socket.onclose = ({ code, reason }) => {
      while (this.#held) this.#release();
      this.#end(code, reason || this.#fault);
    };
    // Longer than for an answer: in a storm the gateway lets in one after the other, and who begins anew is the last again.
    this.#watch = setTimeout(() => this._drop("no welcome in time"), 4 * timeout);
  }

  /** From the welcome on: asks after so much silence whether the gateway is still there. */
  _watchOver(quiet: number): void {
    this.#quiet = quiet;
    this.#rest();
  }

  /** Asks at once. */
  _probe(): void {
    // Before the welcome another clock is running, and after a question that of its answer.
    if (this.#over || !this.#quiet || this.#asked) return;
    this.#asked = true;
    const askedAt = performance.now();
    this.#socket.send('{"type":"ping"}');
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => {
      if (this.#heardAt < askedAt) this._drop("nothing heard");
      else this.#rest();
    }, this.#pingDelay);
  }

  _send(request: Request): void {
    const id = ++this.#lastId;
    const sentAt = performance.now();
    const timer = setTimeout(() => {
      this.#sent.delete(id);
      request.reject(unanswered(request, "timeout"));
      // Not a word since then: it is the line that is dead, not the gateway that is slow.
      if (this.#heardAt < sentAt) this._drop("no answer");
      else this.#events.settled();
      // What moves this client in or out is given as long as the welcome: after a storm all come back at once.
    }, this.#timeout * (request.unanswered === "disconnected" ? 4 : 1));
    this.#sent.set(id, { ...request, timer });
    this.#socket.send(`${request.text.slice(0, -1)},"id":${id}}`);
  }

  /** False while too much waits in the socket, which has no bound of its own, and when it is closing. */
  get _writable(): boolean {
    return this.#socket.readyState === OPEN && this.#socket.bufferedAmount < BUFFERED_BYTES_MAX;
  }

  get _busy(): boolean {
    return this.#sent.size > 0;
  }

  /** What comes from here on waits until promises that are settled have been acted on: who has just joined begins to listen then. */
  _hold(): void {
    // Pages do so by themselves before each message; `ws` hands out all that has come in one go.
    if (!setImmediate || this.#held) return;
    this.#held = [];
    setImmediate(() => this.#release());
  }

  /** Ends the connection in good order, and returns what was not answered. */
  _close(): Request[] {
    this.#detach();
    this.#socket.close(1000);
    return this.#finish();
  }

  /** Gives the connection up, without waiting for the other side. */
  _drop(reason: string): void {
    if (this.#over) return;
    this.#detach();
    if (this.#socket.terminate) this.#socket.terminate();
    else this.#socket.close();
    this.#end(1006, reason);
  }

  #detach(): void {
    this.#socket.onmessage = this.#socket.onclose = null;
    // To close while connecting is an error for `ws`, and one that nobody listens to ends the process.
    this.#socket.onerror = () => {};
  }

  #rest(): void {
    this.#asked = false;
    clearTimeout(this.#watch);
    const left = this.#heardAt + this.#quiet - performance.now();
    if (left > 0) this.#watch = setTimeout(() => this.#rest(), left);
    else this._probe();
  }

  #receive(text: string): void {
    let message: Wire;
    try {
      message = JSON.parse(text);
    } catch {
      return this._drop("not JSON");
    }
    const request = this.#sent.get(message.id);
    if (!request) return this.#events.message(message);
    this.#sent.delete(message.id);
    clearTimeout(request.timer);
    if (message.type === "error") request.reject(new FanfareError(message.code, message.content));
    else request.resolve(message);
    this.#events.settled();
  }

  #release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const text of held) {
      // One among them may ask to hold those after it again.
      if (this.#held) (this.#held as string[]).push(text);
      else if (!this.#over) this.#receive(text);
    }
  }

  #end(code: number, reason: string): void {
    if (!this.#over) this.#events.lost(code, reason, this.#finish());
  }

  #finish(): Request[] {
    this.#over = true;
    clearTimeout(this.#watch);
    const requests = [...this.#sent.values()];
    this.#sent.clear();
    for (const { timer } of requests) clearTimeout(timer);
    return requests;
  }
}

/** Says of a request that got no answer what that means. */
export function unanswered(request: Request, otherwise: "timeout" | "disconnected"): FanfareError {
  const code = request.unanswered === "unconfirmed" ? "unconfirmed" : otherwise;
  return new FanfareError(code, `no answer${code === "unconfirmed" ? ": it may or may not have been published" : ""}`);
}

const { setImmediate } = globalThis as { setImmediate?: (run: () => void) => void };
const OPEN = 1;
/** Little, as the time for an answer begins here: the rest waits in the queue, where it is known to be unsent. */
const BUFFERED_BYTES_MAX = 1 << 16;
