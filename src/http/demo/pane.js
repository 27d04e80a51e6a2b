// One person: a connection, and what it shows.

import { Fanfare } from "/fanfare.js";
import { Line } from "/demo/line.js";
import { Spark, draw_badge, dress, element, label, listen_to_arrows, made, narrow, select, told, write } from "/demo/parts.js";
import { View } from "/demo/view.js";

const CUT_MS = 6_000;
const FLOOD_PER_SECOND = 50, FLOOD_MESSAGES = 200;
const TICK_MS = 500;
const QUIET_PER_SECOND = 8;     // more than this is not read out
const PRESENCE_MS = 5_000;

/** One person: a connection, and what it shows. */
export class Pane {
  views = new Map();
  view = null;
  recovered = 0;
  missed = 0;
  #heard = 0;
  #heard_before = [];
  #flood = null;
  #closed = null;         // why the last connection ended, and when the next is tried
  #cut_until = null;
  #timers = [];

  constructor(page, name, rooms) {
    this.page = page;
    this.user = name;
    this.root = made("pane");
    this.root.id = `pane-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
    const part = (selector) => this.root.querySelector(selector);
    this.name = part(".name");
    this.text = part(".text");
    this.tabs = part(".tabs");
    this.cut_button = part(".cut");
    this.flood_button = part(".flood");
    this.enter_form = part(".enter");
    this.enter_name = part(".enter-name");
    this.leave_button = part(".leave");
    this.rate = new Spark(part(".rate .spark"), 4);
    this.trip = new Spark(part(".trip .spark"), 1);

    this.tab = element("button", "person");
    this.tab.type = "button";
    this.tab.setAttribute("role", "tab");
    this.tab.setAttribute("aria-controls", this.root.id);
    const face = element("span", "face");
    face.setAttribute("aria-hidden", "true");
    this.tab.append(face, element("span", "person-name"));
    this.tab.onclick = () => this.page.choose(this);
    this.dress();

    part(".say").onsubmit = (event) => { event.preventDefault(); this.say(); };
    this.name.onchange = () => this.rename(this.name.value.trim());
    this.name.onkeydown = (event) => { if (event.key === "Enter") this.text.focus(); };
    this.cut_button.onclick = () => (this.root.dataset.state === "closed" ? this.dial_again() : this.cut());
    this.flood_button.onclick = () => this.flood();
    part(".remove").onclick = () => this.page.remove(this);
    part(".open-enter").onclick = () => this.open_enter(this.enter_form.hidden);
    this.enter_form.onsubmit = (event) => { event.preventDefault(); this.enter(this.enter_name.value.trim()); };
    this.enter_form.onkeydown = (event) => {
      if (event.key !== "Escape") return;
      this.open_enter(false);
      part(".open-enter").focus();
    };
    this.leave_button.onclick = () => this.leave();
    listen_to_arrows(this.tabs);
    this.connect(rooms);
    this.#timers.push(setInterval(() => this.tick(), TICK_MS), setInterval(() => this.view?.ask_present(), PRESENCE_MS));
  }

  is_shown() {
    return !document.hidden && (!narrow.matches || this.page.chosen === this);
  }

  dress() {
    for (const face of [this.root.querySelector(".head .face"), this.tab.firstElementChild]) dress(face, this.user);
    this.name.value = this.user;
    write(this.tab.children[1], this.user);
    this.root.setAttribute("aria-label", this.user);
    this.root.querySelector(".remove").setAttribute("aria-label", `Remove ${this.user}`);
    this.root.querySelector(".remove").title = `Remove ${this.user}`;
  }

  /** Connects as who this is, and enters `rooms`. */
  connect(rooms) {
    this.line = new Line();
    const token = new URLSearchParams(location.search).get("token");
    const client = new Fanfare(`/ws?user=${encodeURIComponent(this.user)}`, { websocket: this.line.Socket, ...(token ? { token } : {}) });
    this.client = client;
    const on = (type, listener) => client.on(type, (event) => { if (this.client === client) listener(event); });
    on("state", () => this.draw_state());
    on("open", ({ user }) => this.on_open(String(user)));
    on("close", (how) => this.on_close(how));
    on("message", (message) => this.view.on_other(message));
    on("error", (error) => this.view.note(told(error), "wrong"));
    for (const room of rooms) this.enter(room);
    this.choose(this.views.values().next().value);
    this.dial();
  }

  dial() {
    this.client.connect().catch(() => { /* The state tells. */ });
  }

  /** Comes back after the client had given up. */
  dial_again() {
    this.dial();
    for (const view of this.views.values()) view.join();
  }

  close() {
    this.#flood = null;
    this.client.close();
    for (const timer of this.#timers) clearInterval(timer);
  }

  /** Somebody else from here on: another connection, in the same rooms. */
  rename(name) {
    if (name === "" || name === this.user) {
      this.name.value = this.user;
      return;
    }
    const rooms = [...this.views.keys()];
    this.#flood = null;
    this.#cut_until = null;
    this.#closed = null;
    this.client.close();
    for (const view of this.views.values()) this.drop(view);
    this.user = name;
    this.dress();
    this.connect(rooms);
    this.page.keep();
  }

  // The connection

  on_open(user) {
    this.#closed = null;
    if (user !== this.user) {
      // The token says who this is.
      this.user = user;
      this.name.readOnly = true;
      this.dress();
    }
    this.draw_state();
  }

  on_close({ code, reason, retryIn }) {
    this.#closed = { why: reason || `code ${code}`, retry_at: performance.now() + (retryIn ?? 0) };
    this.draw_state();
  }

  draw_state() {
    const seconds = (until = 0) => Math.max(1, Math.ceil((until - performance.now()) / 1000));
    const now = this.client.state;
    let [state, text, said] = ["connecting", "Connecting"];
    if (this.#cut_until !== null) {
      [state, text, said] = ["cut", `Line cut, back in ${seconds(this.#cut_until)} s`, "Line cut"];
    } else if (now === "open") {
      [state, text] = ["open", "Connected"];
    } else if (now === "waiting") {
      [state, text, said] = ["waiting", `Reconnecting in ${seconds(this.#closed?.retry_at)} s`, "Reconnecting"];
    } else if (now === "closed" && this.#closed) {
      [state, text] = ["closed", `Closed: ${this.#closed.why}`];
    }
    this.root.dataset.state = state;
    this.cut_button.classList.toggle("on", state === "cut");
    write(this.root.querySelector(".state-text"), text);
    this.root.querySelector(".state").title = text;
    write(this.root.querySelector(".state-said"), said ?? text);
    label(this.cut_button, ...(state === "closed" ? ["Connect", ""] : [state === "cut" ? "Mend" : "Cut", "the line"]));
    this.flood_button.disabled = state !== "open" && this.#flood === null;
  }

  /** Cuts the line for some seconds; the client library finds its way back by itself. */
  cut() {
    if (this.#cut_until !== null) {
      this.mend();
      return;
    }
    this.#cut_until = performance.now() + CUT_MS;
    this.root.style.setProperty("--cut", `${CUT_MS}ms`);
    for (const view of this.views.values()) view.note("Line cut", "");
    this.line.cut();
    this.draw_state();
    const until = this.#cut_until;
    setTimeout(() => { if (this.#cut_until === until) this.mend(); }, CUT_MS);
  }

  mend() {
    this.#cut_until = null;
    this.line.mend();
    this.draw_state();
  }

  // Rooms

  open_enter(open) {
    this.enter_form.hidden = !open;
    this.root.querySelector(".open-enter").setAttribute("aria-expanded", String(open));
    if (!open) return;
    this.enter_name.value = "demo.";
    this.enter_name.focus();
  }

  enter(name) {
    if (name === "") return;
    let view = this.views.get(name);
    if (!view) {
      view = new View(this, name);
      this.views.set(name, view);
      this.tabs.append(view.tab);
      this.root.querySelector(".views").append(view.root);
      view.enter();
      this.page.learn(name);
    }
    this.open_enter(false);
    this.choose(view);
    if (this.page.is_ready) this.text.focus();
    this.page.keep();
  }

  drop(view) {
    view.end();
    this.views.delete(view.name);
    view.root.remove();
    view.tab.remove();
  }

  leave() {
    const { view } = this;
    this.drop(view);
    view.room.leave();
    this.choose([...this.views.values()].at(-1));
    this.view.tab.focus();
    this.page.keep();
  }

  choose(view) {
    this.view = view;
    view.unread = 0;
    for (const other of this.views.values()) {
      other.root.hidden = other !== view;
      select(other.tab, other === view);
    }
    this.text.placeholder = `Message ${view.name}`;
    this.text.setAttribute("aria-label", `Message to ${view.name}, as ${this.user}`);
    this.leave_button.hidden = this.views.size < 2;
    this.leave_button.setAttribute("aria-label", `Leave ${view.name}`);
    this.leave_button.title = `Leave ${view.name}`;
    view.tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    view.follow();
    view.ask_present();
    this.draw_badges();
  }

  draw_badges() {
    if (this.view && this.is_shown()) this.view.unread = 0;
    let unread = 0;
    for (const view of this.views.values()) {
      unread += view.unread;
      view.draw_tab();
    }
    draw_badge(this.tab, unread);
  }

  // Talk

  say() {
    const content = this.text.value;
    if (content.trim() === "") return;
    this.text.value = "";
    this.view.say(content);
  }

  /** Many messages in a short time, or the end of it. */
  flood() {
    if (this.#flood !== null) {
      this.#flood = null;
      this.draw_flood(0);
      return;
    }
    const flood = { room: this.view.room, begun: performance.now(), sent: 0 };
    this.#flood = flood;
    const step = () => {
      if (this.#flood !== flood) return;
      const due = Math.min(FLOOD_MESSAGES, Math.ceil(((performance.now() - flood.begun) * FLOOD_PER_SECOND) / 1000));
      while (flood.sent < due) {
        flood.sent += 1;
        flood.room.publish({ content: `Flood, ${flood.sent} of ${FLOOD_MESSAGES}` }).catch((error) => {
          if (this.#flood !== flood) return;
          this.#flood = null;
          this.draw_flood(0);
          this.view.note(`The flood ended: ${told(error)}`, "wrong");
        });
      }
      this.draw_flood(flood.sent);
      if (flood.sent < FLOOD_MESSAGES) setTimeout(step, 1000 / FLOOD_PER_SECOND);
      else setTimeout(() => { if (this.#flood === flood) { this.#flood = null; this.draw_flood(0); } }, 300);
    };
    step();
  }

  draw_flood(sent) {
    label(this.flood_button, ...(sent > 0 ? ["Stop", String(sent)] : ["Flood", ""]));
    this.flood_button.classList.toggle("on", sent > 0);
    this.draw_state();
  }

  // Figures

  heard() {
    this.#heard += 1;
  }

  tick() {
    this.draw_state();
    const part = (selector) => this.root.querySelector(selector);
    // Over the last second, told twice in it.
    this.#heard_before.push(this.#heard);
    if (this.#heard_before.length > 1000 / TICK_MS + 1) this.#heard_before.shift();
    const rate = this.#heard - this.#heard_before[0];
    this.rate.push(rate);
    write(part(".rate b"), String(rate));
    write(part(".received"), this.#heard.toLocaleString("en"));
    write(part(".recovered"), this.recovered.toLocaleString("en"));
    write(part(".missed"), `${this.missed.toLocaleString("en")} missed`);
    part(".recovered").classList.toggle("some", this.recovered > 0);
    part(".missed").classList.toggle("some", this.missed > 0);
    for (const view of this.views.values()) view.log.setAttribute("aria-live", rate > QUIET_PER_SECOND ? "off" : "polite");
    this.measure();
  }

  async measure() {
    const trip = await this.line.measure();
    this.trip.push(trip);
    write(this.root.querySelector(".trip b"), trip === null ? "–" : trip.toFixed(trip < 10 ? 1 : 0));
  }
}
