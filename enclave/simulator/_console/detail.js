// One session: its facts, its output as it comes, its result and its trail.

import { ApiError, frames, request, sessionPath } from "./api.js";
import { duration, element, phaseClass, time, visible } from "./text.js";

const DRAW_MS = 100;
const MAX_OUTPUT_CHARS = 200_000;
const MAX_RESULT_CHARS = 64_000;
const MAX_TRAIL_ROWS = 500;
const RETRY_MS = 1000;

// The names of the phases after which nothing more happens to a workload.
const TERMINAL = new Set(["succeeded", "failed", "killed", "torn_down"]);

export class Detail {
  #id = null;
  #abort = new AbortController();
  #session = null;
  #pieces = []; // of output, not drawn yet
  #shownChars = 0;
  #wasCut = false;
  #trail = [];
  #trailShown = 0;
  #result;
  #timer = null;
  #parts = Object.fromEntries(
    ["detail", "detail-title", "detail-error", "facts", "output", "result", "trail", "trail-note", "tear-down"].map(
      (id) => [id, document.getElementById(id)],
    ),
  );

  constructor(onChange) {
    this.#parts["tear-down"].addEventListener("click", () => this.#tearDown(onChange));
  }

  open(id) {
    if (id === this.#id) return;
    this.close();
    this.#id = id;
    this.#abort = new AbortController();
    this.#parts["detail-title"].textContent = id;
    this.#parts.detail.hidden = false;
    this.#follow(id, this.#abort.signal);
  }

  close() {
    this.#abort.abort();
    clearTimeout(this.#timer);
    this.#timer = this.#id = this.#session = null;
    this.#clear();
    this.#parts.detail.hidden = true;
  }

  /** The session as the list shows it, which is newer than what the stream has told. */
  seen(session) {
    if (session.id !== this.#id) return;
    const before = this.#session;
    this.#session = session;
    // A session that is torn down after its end says so in its trail, and no more in its stream.
    if (session.phase === "torn_down" && before?.phase !== "torn_down") this.#loadTrail(session.id);
    if (!before || before.phase !== session.phase || !TERMINAL.has(session.phase)) this.#drawFacts();
  }

  gone(id) {
    if (id === this.#id) this.#fail("This session does not exist any more.");
  }

  #clear() {
    this.#pieces = [];
    this.#trail = [];
    this.#shownChars = this.#trailShown = 0;
    this.#wasCut = false;
    this.#result = undefined;
    for (const name of ["output", "result", "trail", "facts"]) this.#parts[name].replaceChildren();
    this.#parts["trail-note"].textContent = "";
    this.#fail("");
  }

  #fail(text) {
    this.#parts["detail-error"].textContent = visible(text);
  }

  async #follow(id, signal) {
    while (!signal.aborted) {
      try {
        let ended = false;
        for await (const batch of frames(id, signal)) {
          for (const frame of batch) {
            this.#take(frame);
            ended ||= frame.kind === "end";
          }
          this.#drawSoon();
        }
        if (ended) return;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && error.status < 500) return this.#fail(error.message);
      }
      // A stream that broke is read again from its first frame.
      await new Promise((resume) => setTimeout(resume, RETRY_MS));
      if (!signal.aborted) this.#clear();
    }
  }

  #take(frame) {
    if (frame.kind === "stdout" || frame.kind === "stderr") this.#takeOutput(frame.kind, String(frame.data));
    else if (frame.kind === "audit" && frame.event) this.#trail.push(frame.event);
    else if (frame.kind === "result") this.#result = frame.result;
  }

  #takeOutput(stream, text) {
    const last = this.#pieces.at(-1);
    if (last?.stream === stream) last.text += text;
    else this.#pieces.push({ stream, text });
    // What scrolled past the bound before it was drawn is never drawn.
    if (last && last.text.length > 2 * MAX_OUTPUT_CHARS) {
      this.#wasCut = true;
      last.text = last.text.slice(-MAX_OUTPUT_CHARS);
      this.#pieces = [last];
    }
    if (this.#pieces.length > 2000) {
      this.#wasCut = true;
      this.#pieces = this.#pieces.slice(-1000);
    }
  }

  #drawSoon() {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#drawOutput();
      this.#drawTrail();
      this.#drawResult();
    }, DRAW_MS);
  }

  #drawOutput() {
    const output = this.#parts.output;
    const atEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 30;
    for (const { stream, text } of this.#pieces) {
      output.append(element("span", { className: stream, text: text.slice(-MAX_OUTPUT_CHARS) }));
      this.#shownChars += output.lastChild.textContent.length;
    }
    this.#pieces = [];
    let oldest = output.querySelector("span:not(.note)");
    while (this.#shownChars > MAX_OUTPUT_CHARS && oldest && oldest !== output.lastChild) {
      this.#shownChars -= oldest.textContent.length;
      const next = oldest.nextSibling;
      oldest.remove();
      oldest = next;
      this.#wasCut = true;
    }
    if (this.#wasCut && !output.querySelector(".note")) {
      output.prepend(element("span", { className: "note", text: "Older output is not shown.\n" }));
    }
    if (atEnd) output.scrollTop = output.scrollHeight;
  }

  #drawTrail() {
    const room = MAX_TRAIL_ROWS - this.#trailShown;
    for (const event of this.#trail.slice(this.#trailShown, this.#trailShown + Math.max(0, room))) {
      const denied = event.type === "egress_denied";
      const row = element("tr", denied ? { className: "denied" } : {});
      const detail = Object.entries(event.detail ?? {}).map(([name, value]) =>
        `${name}: ${typeof value === "string" ? value : JSON.stringify(value, null, 1).replaceAll(/\n */g, " ")}`,
      );
      row.append(
        element("td", { className: "event", text: time(event.ts) }),
        element("td", { className: "event", text: denied ? `✕ ${event.type}` : event.type }),
        element("td", { text: detail.join(", ").slice(0, 500) }),
      );
      this.#parts.trail.append(row);
      this.#trailShown += 1;
    }
    const more = this.#trail.length - this.#trailShown;
    this.#parts["trail-note"].textContent = more > 0 ? `${more} more entries are not shown.` : "";
  }

  #drawResult() {
    const result = this.#result ?? this.#session?.result;
    const text = resultText(result, TERMINAL.has(this.#session?.phase));
    const shown = text.length > MAX_RESULT_CHARS ? `${text.slice(0, MAX_RESULT_CHARS)}\nThe rest is not shown.` : text;
    const drawn = visible(shown);
    if (this.#parts.result.textContent !== drawn) this.#parts.result.textContent = drawn;
  }

  #drawFacts() {
    const session = this.#session;
    const result = session.result ?? this.#result;
    const began = Date.parse(session.startedAt ?? session.createdAt);
    const ended = session.finishedAt ? Date.parse(session.finishedAt) : Date.now();
    const limits = Object.entries(session.limits ?? {}).map(([name, value]) => `${name} ${value}`);
    const egress = session.egress?.mode === "allowlist" ? (session.egress.allow ?? []).join(", ") : "all denied";
    const labels = Object.entries(session.labels ?? {}).map(([name, value]) => `${name}=${value}`);
    const facts = {
      Phase: session.phase,
      "Kill reason": session.killReason,
      "Exit code": result?.exitCode,
      Language: session.language,
      Created: time(session.createdAt),
      Duration: duration(ended - began),
      Limits: limits.join(", "),
      Egress: egress,
      Labels: labels.join(", "),
    };
    const list = this.#parts.facts;
    list.replaceChildren();
    for (const [name, value] of Object.entries(facts)) {
      if (value === undefined || value === null || value === "") continue;
      const pair = element("div");
      pair.append(element("dt", { text: name }), element("dd", { text: value, className: name === "Phase" ? phaseClass(value) : "" }));
      list.append(pair);
    }
    this.#parts["tear-down"].disabled = session.phase === "torn_down";
    this.#drawResult();
  }

  async #loadTrail(id) {
    try {
      const trail = await request("GET", sessionPath(id, "/audit"), { signal: this.#abort.signal });
      if (id !== this.#id) return;
      this.#trail = trail;
      this.#trailShown = 0;
      this.#parts.trail.replaceChildren();
      this.#drawTrail();
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error.message);
    }
  }

  async #tearDown(onChange) {
    const id = this.#id;
    this.#parts["tear-down"].disabled = true;
    try {
      await request("DELETE", sessionPath(id));
    } catch (error) {
      if (id === this.#id) {
        this.#fail(error.message);
        this.#parts["tear-down"].disabled = false;
      }
    }
    onChange();
  }
}

function resultText(result, ended) {
  if (!result) return ended ? "There is none." : "Not there yet.";
  return "json" in result ? JSON.stringify(result.json, null, 2) : "The code returned no value.";
}
