// A line that can be cut.

/**
 * Makes the sockets of one person. While it is cut, nothing comes or goes, and what dials gets no answer until it is
 * mended.
 */
export class Line {
  #is_cut = false;
  #sockets = new Set();
  #trips = 0;

  constructor() {
    const line = this;
    /** Stands in for `WebSocket` at the client library. */
    this.Socket = class {
      onmessage = null;
      onerror = null;
      onclose = null;
      #real = null;
      #ended = false;
      #trip = null;

      constructor(url, protocols) {
        this.url = url;
        this.protocols = protocols;
        line.#sockets.add(this);
        if (!line.#is_cut) this.dial();
      }

      get readyState() {
        return this.#ended ? WebSocket.CLOSED : (this.#real?.readyState ?? WebSocket.CONNECTING);
      }

      get bufferedAmount() {
        return this.#real?.bufferedAmount ?? 0;
      }

      send(text) {
        this.#real.send(text);
      }

      close(code, reason) {
        if (this.#real) this.#real.close(code, reason);
        else this.#end({ code: 1006, reason: "" });
      }

      /** Connects, unless that was done. */
      dial() {
        if (this.#real || this.#ended) return;
        this.#real = new WebSocket(this.url, this.protocols);
        this.#real.onmessage = (event) => {
          if (!this.#trip?.is_over(event.data)) this.onmessage?.(event);
        };
        this.#real.onerror = (event) => this.onerror?.(event);
        this.#real.onclose = (event) => this.#end(event);
      }

      /** Ends as a line does that breaks: without a word. */
      drop() {
        if (!this.#real) return;
        this.#real.onmessage = this.#real.onerror = this.#real.onclose = null;
        this.#real.close();
        this.#end({ code: 1006, reason: "" });
      }

      /** Milliseconds to the gateway and back; `null` where there is no answer. */
      measure(id) {
        this.#trip?.end(null);
        return new Promise((resolve) => {
          const begun = performance.now();
          this.#trip = {
            is_over: (text) => {
              if (!text.includes(id) || JSON.parse(text).type !== "pong") return false;
              this.#trip = null;
              resolve(performance.now() - begun);
              return true;
            },
            end: resolve,
          };
          this.#real.send(JSON.stringify({ type: "ping", id }));
        });
      }

      #end(how) {
        if (this.#ended) return;
        this.#ended = true;
        line.#sockets.delete(this);
        this.#trip?.end(null);
        this.onclose?.(how);
      }
    };
  }

  get is_cut() {
    return this.#is_cut;
  }

  cut() {
    this.#is_cut = true;
    for (const socket of [...this.#sockets]) socket.drop();
  }

  mend() {
    this.#is_cut = false;
    for (const socket of this.#sockets) socket.dial();
  }

  /** Milliseconds to the gateway and back; `null` when there is no way. */
  async measure() {
    const open = [...this.#sockets].find((socket) => socket.readyState === WebSocket.OPEN);
    return open ? open.measure(`trip-${++this.#trips}-${Math.random()}`) : null;
  }
}
