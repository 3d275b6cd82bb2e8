// The sessions, newest first. Rows are kept and changed, so that the focus stays where it is.

import { age, element, phaseClass } from "./text.js";

const MAX_ROWS = 500;
const SVG = "http://www.w3.org/2000/svg";

export class SessionList {
  #rows = new Map();
  #selected = null;
  #body = document.getElementById("rows");
  #note = document.getElementById("rows-note");
  #span = document.getElementById("span");
  #onSelect;

  constructor(onSelect) {
    this.#onSelect = onSelect;
    this.#body.addEventListener("keydown", (event) => this.#move(event));
  }

  select(id) {
    this.#selected = id;
    for (const [key, row] of this.#rows) row.mark(key === id);
    this.#roveFocus();
  }

  show(sessions) {
    const shown = sessions.slice(0, MAX_ROWS);
    const wanted = new Set(shown.map((session) => session.id));
    for (const [id, row] of this.#rows) {
      if (!wanted.has(id)) {
        row.element.remove();
        this.#rows.delete(id);
      }
    }
    const clock = { now: Date.now(), span: Number(this.#span.value) };
    let place = this.#body.firstElementChild;
    for (const session of shown) {
      let row = this.#rows.get(session.id);
      if (!row) {
        row = new Row(session.id, this.#onSelect);
        row.mark(session.id === this.#selected);
        this.#rows.set(session.id, row);
      }
      row.update(session, clock);
      if (row.element === place) place = place.nextElementSibling;
      else this.#body.insertBefore(row.element, place);
    }
    this.#roveFocus();
    this.#note.hidden = shown.length > 0 && sessions.length <= MAX_ROWS;
    if (sessions.length > MAX_ROWS) this.#note.textContent = `${sessions.length - MAX_ROWS} older sessions are not shown.`;
  }

  // One row of the table can be reached with Tab, and the others from there with the arrow keys.
  #roveFocus() {
    const buttons = [...this.#body.querySelectorAll("button")];
    const focused = buttons.includes(document.activeElement) ? document.activeElement : null;
    const entry = focused ?? this.#rows.get(this.#selected)?.button ?? buttons[0];
    for (const button of buttons) {
      const index = button === entry ? 0 : -1;
      if (button.tabIndex !== index) button.tabIndex = index;
    }
  }

  #move(event) {
    const buttons = [...this.#body.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const target = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || target === undefined || !buttons[target]) return;
    event.preventDefault();
    buttons[target].focus();
    this.#roveFocus();
  }
}

class Row {
  constructor(id, onSelect) {
    this.element = element("tr");
    this.button = element("button", { text: id, type: "button" });
    this.button.addEventListener("click", () => onSelect(id));
    this.phase = element("td");
    this.language = element("td", { className: "language" });
    this.age = element("td", { className: "number" });
    this.bar = document.createElementNS(SVG, "rect");
    this.bar.setAttribute("height", "60%");
    this.bar.setAttribute("y", "25%");
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("aria-hidden", "true");
    svg.append(this.bar);
    this.line = element("td", { className: "line" });
    this.line.append(svg);
    const name = element("td");
    name.append(this.button);
    this.element.append(name, this.phase, this.language, this.age, this.line);
  }

  mark(selected) {
    if (selected) this.element.setAttribute("aria-current", "true");
    else this.element.removeAttribute("aria-current");
  }

  update(session, { now, span }) {
    if (this.shownPhase !== session.phase) {
      this.shownPhase = session.phase;
      this.phase.textContent = session.phase;
      this.phase.className = phaseClass(session.phase);
      this.line.className = `line ${phaseClass(session.phase)}`;
      this.language.textContent = session.language ?? "";
    }
    const began = Date.parse(session.createdAt);
    const ended = session.finishedAt ? Date.parse(session.finishedAt) : now;
    const told = age(now - began);
    if (this.age.textContent !== told) this.age.textContent = told;
    const left = Math.max(0, 1 - (now - began) / span);
    const right = Math.max(0, 1 - (now - ended) / span);
    this.bar.setAttribute("x", `${(left * 100).toFixed(2)}%`);
    // A bar that began before the time line is cut at its left edge. One that is very short stays visible.
    this.bar.setAttribute("width", right <= 0 ? "0" : `${Math.max(1.5, (right - left) * 100).toFixed(2)}%`);
  }
}
