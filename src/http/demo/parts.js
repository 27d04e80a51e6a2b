// Small things that the page is made of.
//
// Text that comes from elsewhere goes into `textContent`; the page's policy allows nothing else.

const TICKS = 60;

/** Whether there is room for one person only, as the style says. */
export const narrow = matchMedia("(max-width: 45rem), (max-height: 28rem)");
export const at = (id) => document.getElementById(id);

/** The first element of a template, anew. */
export const made = (template) => at(template).content.firstElementChild.cloneNode(true);

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Sets text only where it differs: what does not change is neither laid out nor read out again. */
export function write(into, text) {
  if (into.textContent !== text) into.textContent = text;
}

/** What a button does: a word, and what may follow it where there is room. */
export function label(button, word, rest) {
  write(button.querySelector("b"), word);
  write(button.querySelector(".label span"), rest);
}

export const some = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** A letter on a colour that belongs to the name. */
export function dress(face, name) {
  let hash = 7;
  for (const sign of name) hash = (hash * 31 + sign.codePointAt(0)) % 997;
  face.style.setProperty("--hue", String((hash % 12) * 30 + 10));
  const letters = new Intl.Segmenter().segment(name.trim())[Symbol.iterator]().next();
  write(face, letters.done ? "?" : letters.value.segment.toLocaleUpperCase());
}

/** What went wrong, for people. */
export function told(error) {
  const code = error?.code ?? error?.name;
  const text = error?.content || error?.message;
  return code && text && text !== code ? `${text} (${code})` : String(text || code || error);
}

/** Moves between the tabs of a list by the keys that people expect. */
export function listen_to_arrows(list) {
  list.addEventListener("keydown", (event) => {
    const tabs = [...list.querySelectorAll('[role="tab"]')];
    const here = tabs.indexOf(document.activeElement);
    const next = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined || here < 0) return;
    event.preventDefault();
    const tab = tabs[(next + tabs.length) % tabs.length];
    tab.click();
    tab.focus();
  });
}

/** Marks one tab of a list as the chosen one. */
export function select(tab, chosen) {
  tab.setAttribute("aria-selected", String(chosen));
  tab.tabIndex = chosen ? 0 : -1;
}

export function draw_badge(tab, count) {
  let badge = tab.querySelector(".badge");
  if (count === 0) {
    badge?.remove();
    return;
  }
  if (!badge) {
    badge = element("span", "badge");
    tab.append(badge);
  }
  write(badge, count > 99 ? "99+" : String(count));
}

/** The last values of something, as a curve. */
export class Spark {
  #values = [];
  #least;

  constructor(svg, least) {
    [this.area, this.edge] = svg.querySelectorAll("path");
    this.#least = least;
  }

  push(value) {
    this.#values.push(value);
    if (this.#values.length > TICKS) this.#values.shift();
    const known = this.#values;
    const top = Math.max(this.#least, ...known.filter((value) => value !== null)) * 1.1;
    let edge = "";
    let area = "";
    let begun = null;
    const close = (x) => { if (begun !== null) area += `L${x} 20L${begun} 20Z`; };
    known.forEach((value, index) => {
      const x = index + TICKS - known.length + 1;
      if (value === null) {
        close(x - 1);
        begun = null;
        return;
      }
      const step = `${begun === null ? "M" : "L"}${x} ${(19.5 - (value / top) * 18).toFixed(2)}`;
      begun ??= x;
      edge += step;
      area += step;
    });
    close(TICKS);
    this.edge.setAttribute("d", edge);
    this.area.setAttribute("d", area);
  }
}
