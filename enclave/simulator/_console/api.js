// Requests to the control plane that serves this page, with the key that this tab was given.

const STORED = "enclave-api-key";
const MAX_BURST_MS = 50;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The key of the link's fragment, which then leaves the address, or the one that the tab already has. */
export function takeKey() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const key = fragment.get("key");
  if (key) {
    setKey(key);
    fragment.delete("key");
    history.replaceState(null, "", fragment.size ? `#${fragment}` : location.pathname);
  }
  return sessionStorage.getItem(STORED);
}

export function setKey(key) {
  sessionStorage.setItem(STORED, key);
}

export function forgetKey() {
  sessionStorage.removeItem(STORED);
}

async function send(method, path, { json, poll, signal } = {}) {
  const headers = { authorization: `Bearer ${sessionStorage.getItem(STORED)}` };
  if (json !== undefined) headers["content-type"] = "application/json";
  // The log of requests leaves out what no user asked for.
  if (poll) headers["x-enclave-poll"] = "1";
  const body = json === undefined ? undefined : JSON.stringify(json);
  const response = await fetch(path, { method, headers, body, signal, cache: "no-store", credentials: "omit" });
  if (response.ok) return response;
  const text = await response.text();
  let message = `status ${response.status}`;
  try {
    message = JSON.parse(text).message ?? message;
  } catch {
    // An answer that is no JSON has its status alone to show.
  }
  throw new ApiError(response.status, message);
}

export async function request(method, path, options) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

export function sessionPath(id, rest = "") {
  return `/sessions/${encodeURIComponent(id)}${rest}`;
}

/**
 * The frames of a session as they come, a list for each read. EventSource cannot send a credential, so the events are
 * taken apart here. A frame that cannot be read is left out: whoever tests for those uses a client.
 */
export async function* frames(id, signal) {
  const response = await send("GET", sessionPath(id, "/stream"), { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  let began = performance.now();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    // A CR at the end may be half of a CRLF, so it waits for the next read.
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    const batch = [];
    for (const line of lines) {
      if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
      else if (line === "" && data.length) {
        const frame = parse(data.join("\n"));
        if (frame) batch.push(frame);
        data = [];
      }
    }
    if (batch.length) yield batch;
    // Reads of what has arrived already give the browser no turn to draw in.
    if (performance.now() - began > MAX_BURST_MS) {
      await new Promise((resume) => setTimeout(resume));
      began = performance.now();
    }
  }
}

function parse(text) {
  try {
    const frame = JSON.parse(text);
    return frame && typeof frame === "object" ? frame : null;
  } catch {
    return null;
  }
}
