// The console: a list of sessions that is asked for again and again, one session in detail, and a box to run code.

import { ApiError, forgetKey, request, setKey, takeKey } from "./api.js";
import { Detail } from "./detail.js";
import { SessionList } from "./list.js";
import { visible } from "./text.js";

const POLL_MS = 1000;
const NARROW = matchMedia("(max-width: 60rem)");
const LIMITS = ["wallClockMs", "memoryMb", "cpuMillis", "pids"];
const EXAMPLES = {
  python: 'import time\n\nfor n in range(5):\n    print("line", n)\n    time.sleep(0.3)\nenclave.result({"answer": 42})\n',
  node: 'for (let n = 0; n < 5; n++) {\n  console.log("line", n);\n}\nenclave.result({ answer: 42 });\n',
};

const byId = (id) => document.getElementById(id);
const detail = new Detail(() => poll());
const list = new SessionList(open);
let timer = null;
let polling = false;
let again = false;

function open(id) {
  history.replaceState(null, "", `#${new URLSearchParams({ session: id })}`);
  list.select(id);
  detail.open(id);
  // Where the columns stand one below the other, what was asked for is out of sight.
  if (NARROW.matches) document.getElementById("detail").scrollIntoView();
  again = true;
  poll();
}

function opened() {
  return new URLSearchParams(location.hash.slice(1)).get("session");
}

function say(text) {
  // The status is read aloud when it changes, so it changes only where it says something else.
  if (byId("status").textContent !== text) byId("status").textContent = text;
}

function tell(sessions) {
  const live = sessions.filter((session) => session.phase === "running" || session.phase === "pending").length;
  say(`${sessions.length} ${sessions.length === 1 ? "session" : "sessions"}, ${live} live`);
}

async function poll() {
  if (polling) {
    again = true;
    return;
  }
  clearTimeout(timer);
  polling = true;
  do {
    again = false;
    try {
      const sessions = await request("GET", "/sessions", { poll: true });
      list.show(sessions);
      tell(sessions);
      const session = sessions.find((one) => one.id === opened());
      if (session) detail.seen(session);
      else if (opened()) detail.gone(opened());
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        polling = false;
        return askForKey("The simulator does not know this key.");
      }
      say(error instanceof ApiError ? visible(error.message) : "The simulator does not answer.");
    }
  } while (again);
  polling = false;
  schedule();
}

// A tab that nobody sees asks for nothing.
function schedule() {
  clearTimeout(timer);
  if (document.visibilityState === "visible") timer = setTimeout(poll, POLL_MS);
}

function askForKey(text) {
  forgetKey();
  detail.close();
  byId("console").hidden = true;
  byId("key-form").hidden = false;
  byId("key").focus();
  say(text);
}

function start() {
  byId("key-form").hidden = true;
  byId("console").hidden = false;
  const id = opened();
  if (id) {
    list.select(id);
    detail.open(id);
  }
  poll();
}

function requested() {
  const limits = {};
  for (const name of LIMITS) if (byId(name).value !== "") limits[name] = Number(byId(name).value);
  const allow = byId("allow").value.split(",").map((network) => network.trim()).filter(Boolean);
  return {
    code: byId("code").value,
    language: byId("language").value,
    limits,
    egress: allow.length ? { mode: "allowlist", allow } : { mode: "deny_all", allow: [] },
  };
}

async function run(event) {
  event?.preventDefault();
  const button = byId("run");
  if (button.disabled) return;
  button.disabled = true;
  byId("run-error").textContent = "";
  try {
    const session = await request("POST", "/sessions", { json: requested() });
    open(session.id);
  } catch (error) {
    byId("run-error").textContent = visible(error.message);
  }
  button.disabled = false;
}

byId("code").value = EXAMPLES.python;
byId("language").addEventListener("change", () => {
  const code = byId("code");
  if (Object.values(EXAMPLES).includes(code.value)) code.value = EXAMPLES[byId("language").value];
});
byId("code").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event);
});
byId("run-form").addEventListener("submit", run);
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key").value.trim());
  byId("key").value = "";
  start();
});
document.addEventListener("visibilitychange", () => (document.visibilityState === "visible" ? poll() : clearTimeout(timer)));
addEventListener("hashchange", () => location.reload()); // a new link was opened in this tab

if (takeKey()) start();
else askForKey("Open the link that the simulator printed, or give its key.");
