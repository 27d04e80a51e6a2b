// One room in one pane: what is said there, and who is there.

import { draw_badge, dress, element, icon, made, some, told, write } from "/demo/parts.js";

const LINES_MAX = 400;
const HISTORY = 50;
const TOGETHER_MS = 120_000;    // what one person says within this time stands under one name
const PRESENCE_SHOWN = 100;
const ASK_MS = 300;             // who comes with whom is asked for once
const EARLY_MS = 400;           // after this, what comes is new

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });

/** One room in one pane. */
export class View {
  people = new Map();
  count = 0;
  unknown = false;
  unread = 0;
  #queue = [];
  #drawing = false;
  #follows = true;        // whether the end is looked at
  #top = 0;
  #below = 0;             // lines that came while somebody read further up
  #group = null;          // whose lines stand together at the end
  #early = null;          // what was said before this one came in: until which offset, and how much
  #position = null;       // the offset of the last thing that came
  #back = null;           // the return of the line: what is expected until which offset
  #waiting = new Set();   // what this pane said and the gateway has not confirmed
  #ask_timer = 0;
  #is_asking = false;
  #stops = [];

  constructor(pane, name) {
    this.pane = pane;
    this.name = name;
    this.root = made("view");
    this.root.id = `view-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
    this.log = this.root.querySelector(".log");
    this.lines = this.root.querySelector("ol");
    this.newest = this.root.querySelector(".newest");
    this.present = this.root.querySelector(".present");
    this.blank = element("li", "blank", "Nothing was said here yet. Say something; then cut the line of another, and see that nothing gets lost.");
    this.lines.append(this.blank);
    this.log.setAttribute("aria-label", `What is said in ${name}`);

    this.tab = element("button", "tab");
    this.tab.type = "button";
    this.tab.id = `tab-${this.root.id}`;
    this.tab.setAttribute("role", "tab");
    this.tab.setAttribute("aria-controls", this.root.id);
    this.tab.append(element("span", "tab-name", name));
    this.tab.title = name;
    this.tab.onclick = () => pane.choose(this);
    this.root.setAttribute("aria-labelledby", this.tab.id);
    this.newest.onclick = () => this.follow();
    this.log.onscroll = () => {
      const went_up = this.log.scrollTop < this.#top;
      this.#top = this.log.scrollTop;
      if (this.#is_at_end()) {
        this.#follows = true;
        this.#show_newest(0);
      } else if (went_up) {
        this.#follows = false;
      }
    };
    // A pane that changes its shape stays where it was: at the end.
    new ResizeObserver(() => { if (this.#follows) this.follow(); }).observe(this.log);
    this.draw_present();
  }

  /** Enters the room: what was said before, who is there, then what comes. */
  async enter() {
    const room = this.pane.client.room(this.name, { history: HISTORY });
    this.room = room;
    // Once left, it is entered as for the first time.
    room.position = undefined;
    this.#stops = [
      room.on("message", (message) => this.on_message(message)),
      room.on("join", (event) => this.on_presence(event, true)),
      room.on("leave", (event) => this.on_presence(event, false)),
      room.on("gap", (gap) => this.on_gap(gap)),
      room.on("resumed", (how) => this.on_resumed(how)),
      room.on("left", ({ error }) => { if (error) this.note(`You are out of this room: ${told(error)}`, "wrong"); }),
    ];
    await this.join();
  }

  /** Joins the room, also once more when the client had given up. */
  async join() {
    const again = this.#position !== null;
    try {
      const { offset } = await this.room.join();
      if (!again) {
        this.#position = offset;
        this.#early = { until: offset, count: 0 };
        setTimeout(() => this.#end_early(), EARLY_MS);
      }
    } catch { /* The room tells by `left`, or the pane that it is closed. */ }
    this.ask_present();
  }

  /** Nothing more of this room is shown. */
  end() {
    for (const stop of this.#stops) stop();
    clearTimeout(this.#ask_timer);
  }

  on_message(message) {
    if (this.#early !== null && message.offset <= this.#early.until) {
      this.#early.count += 1;
      this.#put({ kind: "said", message });
      return;
    }
    this.#end_early();
    this.pane.heard();
    const back = this.#step(message.offset);
    if (back) {
      this.#back.count += 1;
      this.pane.recovered += 1;
    }
    this.#put({ kind: "said", message, back });
    if (this.pane.view !== this || !this.pane.is_shown()) this.unread += 1;
  }

  /** All that was there before is there. */
  #end_early() {
    const count = this.#early?.count ?? 0;
    this.#early = null;
    if (count > 0) this.#put({ kind: "note", text: `${some(count, "earlier message")} above`, tone: "" });
  }

  on_presence({ from, offset }, came) {
    if (this.#early !== null && offset <= this.#early.until) return;
    this.#end_early();
    this.#step(offset);
    const user = String(from);
    if (came) this.people.set(user, this.people.get(user) ?? 1);
    else this.people.delete(user);
    if (user !== this.pane.user) this.note(`${user} ${came ? "came in" : "left"}`, "quiet");
    this.draw_present();
    clearTimeout(this.#ask_timer);
    this.#ask_timer = setTimeout(() => this.ask_present(), ASK_MS);
  }

  on_gap({ from_offset, to_offset, reason }) {
    const count = to_offset - from_offset + 1;
    this.pane.missed += count;
    if (this.#back !== null) this.#back.missed += count;
    this.#position = to_offset;
    const which = count === 1 ? `Message ${from_offset} is` : `Messages ${from_offset} to ${to_offset} are`;
    this.note(`${which} not there any more${reason ? ` (${reason})` : ""}`, "wrong");
  }

  /** The line is back, and with it the room. */
  on_resumed({ recovered, offset }) {
    const missed = this.#position === null ? 0 : offset - this.#position;
    if (!recovered && this.#position === null) {
      this.note("The line is back; this room keeps no history, and what was said meanwhile is lost", "wrong");
    } else if (!recovered) {
      this.#position = offset;
      if (missed > 0) this.pane.missed += missed;
      this.note(missed > 0 ? `The line is back, but ${some(missed, "message")} of this room cannot be had any more` : "The line is back", missed > 0 ? "wrong" : "");
    } else if (missed > 0) {
      this.#back = { until: offset, count: 0, missed: 0, note: this.note("The line is back, and what was said meanwhile follows", "good") };
    } else {
      this.note("The line is back, and nothing was said meanwhile", "good");
    }
    this.ask_present();
  }

  /** Takes note of where in the room's order something stands; true for what came while the line was cut. */
  #step(offset) {
    if (offset === undefined) {
      // A room without history counts, but does not tell.
      this.#position = null;
      return false;
    }
    if (this.#position !== null && offset > this.#position + 1) {
      this.on_gap({ from_offset: this.#position + 1, to_offset: offset - 1 });
    }
    this.#position = Math.max(this.#position ?? 0, offset);
    return this.#back !== null && offset <= this.#back.until;
  }

  /** Says something, and shows it as waiting until the gateway has it. */
  async say(content) {
    const waiting = this.#put({ kind: "waiting", content });
    this.follow();
    try {
      await this.room.publish({ content });
      waiting.done = true;
    } catch (error) {
      waiting.fault = error.maybePublished ? "not confirmed" : `not sent: ${told(error)}`;
    }
    this.#draw_soon();
  }

  /** A line that nobody said. */
  note(text, tone) {
    return this.#put({ kind: "note", text, tone });
  }

  /** Says what was not said in a room, but to this person or to everyone. */
  on_other(message) {
    this.#put({ kind: "said", message, to: message.to === undefined ? "to everyone" : "to you" });
  }

  async ask_present() {
    if (this.#is_asking || !this.room?.joined) return;
    this.#is_asking = true;
    try {
      const { members, users } = await this.room.presence({ limit: PRESENCE_SHOWN });
      this.people = new Map(members.map(({ user, connections }) => [String(user), connections]));
      this.count = users;
      this.unknown = false;
    } catch (error) {
      this.unknown = error.code === "unavailable" || error.code === "unknown_type";
    }
    this.#is_asking = false;
    this.draw_present();
  }

  draw_present() {
    const list = this.present.querySelector("ul");
    const people = [...this.people].sort(([one], [other]) => one.localeCompare(other));
    write(this.present.querySelector("b"), this.unknown ? "" : String(people.length < PRESENCE_SHOWN ? people.length : this.count));
    if (this.unknown) {
      list.replaceChildren(element("li", "none", "This room does not tell who is there."));
      return;
    }
    while (list.childElementCount > people.length) list.lastElementChild.remove();
    people.forEach(([user, connections], index) => {
      let entry = list.children[index];
      if (!entry || entry.className === "none") {
        const fresh = element("li");
        const face = element("span", "face");
        face.setAttribute("aria-hidden", "true");
        fresh.append(face, element("span"), element("small"));
        if (entry) entry.replaceWith(fresh);
        else list.append(fresh);
        entry = fresh;
      }
      const [face, name, mark] = entry.children;
      dress(face, user);
      write(name, user);
      name.title = user;
      write(mark, [user === this.pane.user ? "you" : "", connections > 1 ? `×${connections}` : ""].join(" ").trim());
    });
  }

  // Lines are drawn a frame at a time, however fast they come.

  #put(item) {
    this.#queue.push(item);
    // A page that was hidden after its frame was asked for gets none until it is looked at again.
    if (this.#queue.length > 2 * LINES_MAX) this.#queue.splice(0, LINES_MAX);
    this.#draw_soon();
    return item;
  }

  #draw_soon() {
    if (this.#drawing) return;
    this.#drawing = true;
    // A page that is not looked at has no frames.
    if (document.hidden) setTimeout(() => this.#draw(), 100);
    else requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#drawing = false;
    const fragment = document.createDocumentFragment();
    let added = 0;
    let is_blank = true;    // who came and went fills no room
    for (const item of this.#queue.splice(0)) {
      if (item.kind === "waiting") {
        if (!item.done) this.#waiting.add(item);
        is_blank = false;
      } else if (item.kind === "note") {
        item.line = element("li", `note ${item.tone}`);
        item.line.append(element("span", "", item.text));
        fragment.append(item.line);
        this.#group = null;
      } else {
        this.#group = this.#line_of(item, this.#group);
        fragment.append(this.#group.line);
        added += 1;
        is_blank = false;
      }
    }
    if (!is_blank) this.blank.remove();
    const first_waiting = [...this.#waiting].find((item) => item.line)?.line ?? null;
    this.lines.insertBefore(fragment, first_waiting);
    this.#draw_waiting();
    this.#draw_back();
    while (this.lines.childElementCount > LINES_MAX) this.lines.firstElementChild.remove();
    if (this.#follows) this.follow();
    else if (added > 0) this.#show_newest(this.#below + added);
    this.pane.draw_badges();
  }

  #line_of({ message, back = false, to = "" }, before) {
    const from = String(message.from);
    const when = (message.timestamp ?? Date.now() / 1000) * 1000;
    const line = made("line");
    const mine = from === this.pane.user;
    const first = before === null || before.from !== from || before.back !== back || to !== "" || when - before.when > TOGETHER_MS;
    line.classList.toggle("mine", mine);
    line.classList.toggle("back", back);
    line.classList.toggle("first", first);
    const [face, head, row] = line.children;
    const [bubble, mark] = row.children;
    if (first) {
      dress(face, from);
      write(head.querySelector("b"), mine ? "You" : from);
      write(head.querySelector("time"), `${to} ${clock.format(when)}`.trim());
    } else {
      head.remove();
    }
    const is_text = typeof message.content === "string";
    bubble.classList.toggle("data", !is_text);
    bubble.textContent = is_text ? message.content : JSON.stringify(message.data);
    if (back) mark.append(icon("again"), element("span", "unseen", "recovered, "));
    if (message.offset !== undefined) mark.append(`#${message.offset}`);
    mark.title = back ? "Came while the line was cut, and was recovered" : "Its place in the room's order";
    return { from: to === "" ? from : null, back, when, line };
  }

  #draw_waiting() {
    let group = null;
    for (const item of this.#waiting) {
      if (item.done) {
        item.line?.remove();
        this.#waiting.delete(item);
        continue;
      }
      if (!item.line) {
        item.group = this.#line_of({ message: { from: this.pane.user, content: item.content } }, group);
        item.line = item.group.line;
        item.line.classList.add("waiting");
        item.line.querySelector(".mark-of").textContent = "waiting";
        this.lines.append(item.line);
      }
      group = item.group;
      if (item.fault) {
        item.line.classList.replace("waiting", "failed");
        item.line.querySelector(".mark-of").textContent = item.fault;
        this.#waiting.delete(item);
      }
    }
  }

  #draw_back() {
    const back = this.#back;
    if (back === null || !back.note.line || this.#position < back.until) return;
    write(back.note.line.firstElementChild, `The line is back: ${some(back.count, "message")} recovered, ${back.missed || "none"} missed`);
    this.#back = null;
  }

  #is_at_end() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 48;
  }

  /** Goes to the end, and stays there. */
  follow() {
    this.#follows = true;
    this.log.scrollTop = this.log.scrollHeight;
    this.#show_newest(0);
  }

  #show_newest(count) {
    this.#below = count;
    this.newest.hidden = count === 0;
    if (count > 0) write(this.newest.lastElementChild, `${count} new`);
  }

  draw_tab() {
    draw_badge(this.tab, this.unread);
  }
}
