// What a server or a workload wrote, made fit to be shown. It reaches the page as text nodes alone.

// Control characters, and those that change the direction of text.
const UNSEEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Text with a visible sign in the place of each escape and other character that cannot be seen. */
export function visible(text) {
  return text.replace(UNSEEN, (char) => {
    const code = char.charCodeAt(0);
    // As a terminal names them: an escape is ^[.
    return code < 0x20 ? `^${String.fromCharCode(code + 0x40)}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

export function element(name, { text, className, ...attributes } = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = visible(String(text));
  if (className) made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A length of time as people say it. */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "";
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min`;
  return `${Math.floor(ms / 3_600_000)} h`;
}

export function age(ms) {
  return ms < 60_000 ? `${Math.max(0, Math.floor(ms / 1000))} s` : duration(ms);
}

export function time(iso) {
  const at = new Date(iso);
  return Number.isNaN(at.valueOf()) ? "" : at.toLocaleTimeString();
}

/** The phase, which is also the name of its colour. The names are few, so no other text becomes a class. */
const PHASES = new Set(["pending", "running", "succeeded", "failed", "killed", "torn_down"]);

export function phaseClass(phase) {
  return PHASES.has(phase) ? `phase ${phase}` : "phase";
}
