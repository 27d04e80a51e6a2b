// The demo page: people side by side, each with a connection of their own.

import { at, element, listen_to_arrows, narrow, select, write } from "/demo/parts.js";
import { Pane } from "/demo/pane.js";

const NAMES = ["Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gala", "Hugo", "Iris", "Jon", "Kim", "Lea", "Max", "Nia", "Oskar", "Pia"];
const FIRST_ROOM = "demo.lobby";
const KNOWN_ROOMS = [FIRST_ROOM, "demo.brass", "demo.strings", "demo.backstage"];
const PANES_MAX = 8;

const asked = new URLSearchParams(location.search);

/** All of it. */
const page = {
  panes: [],
  chosen: null,
  is_ready: false,

  start() {
    write(at("endpoint"), `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/ws`);
    at("add-pane").onclick = () => this.add(this.next_name(), undefined, true);
    listen_to_arrows(at("people"));
    narrow.onchange = () => this.arrange();
    document.addEventListener("visibilitychange", () => { for (const pane of this.panes) pane.draw_badges(); });
    for (const name of KNOWN_ROOMS) this.learn(name);
    for (const { name, rooms } of this.kept()) this.add(name, rooms);
    this.choose(this.panes[0]);
    this.is_ready = true;
    this.keep();
  },

  add(name, rooms = [...(this.chosen?.views.keys() ?? [FIRST_ROOM])].slice(0, 1), focus = false) {
    const pane = new Pane(this, name, rooms);
    this.panes.push(pane);
    at("panes").append(pane.root);
    at("people").append(pane.tab);
    this.arrange();
    if (focus) {
      this.choose(pane);
      pane.text.focus();
      this.keep();
    }
  },

  remove(pane) {
    pane.close();
    pane.root.remove();
    pane.tab.remove();
    this.panes = this.panes.filter((other) => other !== pane);
    this.arrange();
    if (this.chosen === pane) this.choose(this.panes[0]);
    this.panes[0].text.focus();
    this.keep();
  },

  choose(pane) {
    this.chosen = pane;
    for (const other of this.panes) {
      other.root.classList.toggle("chosen", other === pane);
      select(other.tab, other === pane);
      other.draw_badges();
    }
    pane.tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    pane.view?.follow();
  },

  arrange() {
    for (const pane of this.panes) {
      pane.root.querySelector(".remove").disabled = this.panes.length < 2;
      if (narrow.matches) pane.root.setAttribute("role", "tabpanel");
      else pane.root.removeAttribute("role");
      pane.draw_badges();
    }
    at("add-pane").disabled = this.panes.length >= PANES_MAX;
  },

  learn(name) {
    const known = [...at("known-rooms").children].some((option) => option.value === name);
    if (known) return;
    const option = element("option");
    option.value = name;
    at("known-rooms").append(option);
  },

  next_name() {
    const taken = new Set(this.panes.map((pane) => pane.user));
    const last = NAMES.indexOf(this.panes.at(-1)?.user ?? "");
    const free = [...NAMES.slice(last + 1), ...NAMES].find((name) => !taken.has(name));
    return free ?? `Guest ${this.panes.length + 1}`;
  },

  /** Who was here before in this window, whom the address names, or two that another window hardly has. */
  kept() {
    const rooms = asked.getAll("room").filter((name) => name !== "");
    const names = [...new Set(asked.getAll("name").map((name) => name.trim()).filter((name) => name !== ""))].slice(0, PANES_MAX);
    if (names.length > 0) return names.map((name) => ({ name, rooms: rooms.length > 0 ? rooms : [FIRST_ROOM] }));
    try {
      const kept = JSON.parse(sessionStorage.getItem("fanfare.panes"));
      const is_sound = ({ name, rooms }) => typeof name === "string" && Array.isArray(rooms) && rooms.length > 0 && rooms.every((room) => typeof room === "string");
      if (Array.isArray(kept) && kept.length > 0 && kept.every(is_sound)) return kept;
    } catch { /* Nothing was kept. */ }
    const first = 2 * Math.floor(Math.random() * (NAMES.length / 2));
    return [NAMES[first], NAMES[first + 1]].map((name) => ({ name, rooms: rooms.length > 0 ? rooms : [FIRST_ROOM] }));
  },

  keep() {
    if (!this.is_ready) return;
    const panes = this.panes.map((pane) => ({ name: pane.user, rooms: [...pane.views.keys()] }));
    try {
      sessionStorage.setItem("fanfare.panes", JSON.stringify(panes));
    } catch { /* A private window keeps nothing. */ }
  },
};

page.start();
