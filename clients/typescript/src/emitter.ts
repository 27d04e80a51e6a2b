/** Listeners by type of event. */
export class Emitter<Events> {
  readonly #listeners = new Map<keyof Events, Set<(event: any) => void>>();

  /** Calls `listener` for each event of this type, until the function returned is called. */
  on<Type extends keyof Events>(type: Type, listener: (event: Events[Type]) => void): () => void {
    let listeners = this.#listeners.get(type);
    if (!listeners) this.#listeners.set(type, (listeners = new Set()));
    // Wrapped, so that a function that listens twice is two listeners.
    const own = (event: Events[Type]) => listener(event);
    listeners.add(own);
    return () => listeners.delete(own);
  }

  /** @internal */
  _emit<Type extends keyof Events>(type: Type, event: Events[Type]): void {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        // A fault of the listener is reported as one; the other listeners and the connection go on.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
