// Not run: the compiler is asked whether users get the types that they are promised.

import { Fanfare, FanfareError, type Message, type Position, type Room } from "@fanfare/client";

interface Note {
  text: string;
}

async function uses(socket: typeof WebSocket, kept: Position, stop: AbortSignal): Promise<void> {
  const client = new Fanfare("wss://example.org/ws", {
    getToken: async () => (await fetch("/token")).text(),
    queue: { policy: "drop-oldest" },
    websocket: socket,
    signal: stop,
  });
  const off: () => void = client.on("state", (state: "closed" | "connecting" | "open" | "waiting") => state);
  client.on("close", ({ code, retryIn }) => code + (retryIn ?? 0));
  // @ts-expect-error: there is no such event.
  client.on("stat", () => {});
  await client.connect();

  const room: Room<Note> = client.room<Note>("notes", { since: kept, history: 10 });
  room.on("message", ({ data }: Message<Note>) => data?.text);
  room.on("gap", ({ from_offset, to_offset }) => to_offset - from_offset);
  room.on("resumed", ({ recovered }: { recovered: boolean }) => recovered);
  const { recovered, epoch } = await room.join();
  const { offset } = await room.publish({ text: "x" }, { echo: false });
  await room.publish({ content: "x", data: { text: "y" }, key: "k" });
  // @ts-expect-error: not a Note.
  await room.publish({ txt: "x" });
  for await (const { data, from } of room) if (data?.text === String(from)) break;
  const { messages, complete } = await room.history({ since: { epoch, offset }, limit: 5 });
  const { members, next } = await room.presence({ limit: 5 });
  const { delivered } = await client.send("ann", "x");
  try {
    await client.broadcast({ any: "thing" });
  } catch (error) {
    if (error instanceof FanfareError && error.maybePublished) throw error;
  }
  await room.leave();
  client.close();
  off();
  void [recovered, messages, complete, members, next, delivered];
}
void uses;
