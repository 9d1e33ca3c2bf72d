// The worker as the orchestrator sees it, the faults that can be tried on it, and how its calls were answered.
import { addFault, clearFaults, restart } from "./api.js";
import { el, fill } from "./dom.js";
import { on, state } from "./store.js";
import { logLine } from "./tasks.js";
import { ago, clock } from "./times.js";

const PRESETS = [
  ["Lost reply to a result", { call: "result", kind: "drop_after" }],
  ["Result answered after 5 s", { call: "result", kind: "answer_late", delay: 5 }],
  ["Result refused: 429, wait 5 s", { call: "result", kind: "status", status: 429, retry_after: 5 }],
  ["Result refused: 503", { call: "result", kind: "status", status: 503 }],
  ["Poll refused: 429, wait 10 s", { call: "poll", kind: "status", status: 429, retry_after: 10 }],
  ["Task lost on its way to the worker", { call: "poll", kind: "drop_after" }],
  ["Heartbeat refused: 503", { call: "heartbeat", kind: "status", status: 503 }],
  ["A proxy's error page", { call: "any", kind: "html", status: 502 }],
  ["Connection reset", { call: "any", kind: "reset" }],
  ["Bytes that are not HTTP", { call: "any", kind: "garbage" }],
  ["Every call 2 s late", { call: "any", kind: "delay", delay: 2 }],
];
const CALLS = ["any", "poll", "result", "heartbeat", "event", "register", "token", "ws"];
const KINDS = ["status", "delay", "answer_late", "drop_before", "drop_after", "reset", "truncate", "garbage", "html"];

export function startWorker(place, { notice }) {
  const workers = el("div");
  const faults = el("div");
  const calls = el("ol.calls");
  const problems = el("div");
  const lines = el("ol.logs", { tabindex: 0, "aria-label": "Log of the worker" });
  const attempt = async (action) => {
    try {
      await action();
      notice("");
    } catch (error) {
      notice(error.message);
    }
  };
  fill(place, workers, el("section", {}, el("h3", {}, "Faults to try"), faultMenu(attempt), faults),
    problems,
    el("section", {}, el("h3", {}, "Calls"), el("p.dim.note", {}, "What the worker asked, newest first, and what was answered."), calls),
    el("details", {}, el("summary", {}, "Log of the worker"), lines));

  function drawWorkers() {
    fill(workers, state.workers.length ? state.workers.map(workerCard) : [el("h2", {}, "Worker"), el("p.dim", {}, "No worker is registered.")]);
  }

  function drawFaults() {
    fill(faults, state.faults.length ? [
      el("ul.faults", {}, state.faults.map((each) => el("li", {}, describe(each)))),
      el("button.quiet", { type: "button", onclick: () => attempt(clearFaults) }, "Clear faults"),
    ] : el("p.dim", {}, "Nothing will go wrong."));
  }

  function drawCalls() {
    fill(calls, [...state.calls].reverse().slice(0, 40).map((each) => el("li", {}, el("time", {}, clock(each.time)), " ", el("span.call", {}, each.call), " ",
      el(`span.${each.status > 0 && each.status < 400 ? "ok" : "no"}`, {}, each.status || "no answer"), each.fault ? el("span.fault", {}, ` ${each.fault}`) : null)));
  }

  function drawProblems() {
    fill(problems, state.problems.length ? el("section", {}, el("h3", {}, "Mistakes of the worker"),
      el("ul.problems", {}, [...state.problems].reverse().slice(0, 20).map((each) => el("li", {}, el("time", {}, clock(each.time)), ` ${each.call}: ${each.problem} `, el("span.dim", {}, `(answered ${each.status})`))))) : null);
  }

  on(["workers"], drawWorkers);
  on(["faults"], drawFaults);
  on(["calls"], drawCalls);
  on(["problems"], drawProblems);
  on(["lines"], () => fill(lines, [...state.lines].reverse().map(logLine)));
  setInterval(() => {
    for (const node of place.querySelectorAll("[data-time]")) node.textContent = ago(Number(node.dataset.time));
  }, 500);
  drawFaults();
  drawWorkers();
}

function workerCard(worker) {
  const slots = Number(worker.slots) || 0;
  const usage = worker.usage ?? {};
  const used = Math.min(slots, worker.running);
  const boxes = slots && slots <= 64 ? el("span.slots", { "aria-hidden": "true" }, Array.from({ length: slots }, (_, index) => el(index < used ? "i.used" : "i"))) : null;
  const rows = [
    ["status", el("span", {}, el(`span.badge.${worker.status}`, {}, worker.status))],
    ["slots", el("span", {}, `${worker.running} of ${slots || "?"} used `, boxes)],
    ["last seen", el("span", { "data-time": worker.last_seen }, ago(worker.last_seen))],
    ["heartbeats", String(worker.heartbeats)],
    ["commands", worker.connected ? "WebSocket is open" : "no WebSocket, with heartbeats"],
    ["polls", `${worker.polls} waiting`],
    ["registered", el("span", {}, el("span", { "data-time": worker.registered_at }, ago(worker.registered_at)), worker.registered_count > 1 ? `, ${worker.registered_count} times` : "")],
    usage.cpu_load_percent !== undefined ? ["load", `CPU ${Math.round(usage.cpu_load_percent)} %, memory ${Number(usage.ram_used_gb).toFixed(1)} GiB`] : null,
    worker.hot_skills.length ? ["hot skills", worker.hot_skills.join(", ")] : null,
    worker.hot_cache.length ? ["hot cache", worker.hot_cache.join(", ")] : null,
    worker.available_skills.length < worker.skills.length ? ["not available", worker.skills.filter((each) => !worker.available_skills.includes(each)).join(", ")] : null,
  ].filter(Boolean);
  return el("div.card", {}, el("h2", {}, "Worker ", el("span.dim", {}, worker.worker_id)), el("dl.facts", {}, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

function faultMenu(attempt) {
  const preset = el("select", { id: "preset" }, PRESETS.map(([name], index) => el("option", { value: index }, name)), el("option", { value: "own" }, "Something else…"));
  const times = el("input", { type: "number", min: 1, max: 1000000, value: 1, id: "times" });
  const call = el("select", { id: "fault-call" }, CALLS.map((each) => el("option", { value: each }, each)));
  const kind = el("select", { id: "fault-kind" }, KINDS.map((each) => el("option", { value: each }, each)));
  const status = el("input", { type: "number", min: 400, max: 599, value: 503, id: "fault-status" });
  const retry = el("input", { type: "number", min: 0, step: "any", id: "fault-retry", placeholder: "none" });
  const delay = el("input", { type: "number", min: 0, max: 600, step: "any", value: 0, id: "fault-delay" });
  const labelled = (text, control) => el("div.field", {}, el("label", { for: control.id }, text), control);
  const own = el("div.own", { hidden: true }, labelled("Call", call), labelled("What happens", kind), labelled("Status", status), labelled("Retry-After, s", retry), labelled("Delay, s", delay));
  preset.addEventListener("change", () => { own.hidden = preset.value !== "own"; });
  const chosen = () => (preset.value === "own"
    ? { call: call.value, kind: kind.value, status: Number(status.value), retry_after: retry.value === "" ? null : Number(retry.value), delay: Number(delay.value) }
    : PRESETS[Number(preset.value)][1]);
  return el("form.faults", { onsubmit: (event) => { event.preventDefault(); attempt(() => addFault({ ...chosen(), times: Number(times.value) })); } },
    labelled("Fault", preset), own, labelled("How many calls", times),
    el("div.actions", {}, el("button", { type: "submit" }, "Inject"),
      el("button.quiet", { type: "button", title: "It forgets the worker and ends its WebSocket; tasks are kept", onclick: () => attempt(restart) }, "Restart the orchestrator")));
}

function describe(fault) {
  const what = {
    status: `answer ${fault.status}${fault.retry_after !== null ? `, Retry-After ${fault.retry_after}` : ""}`,
    html: `a page with ${fault.status}`, delay: `${fault.delay} s late`, answer_late: `answered ${fault.delay} s late`,
    drop_before: "no answer, not processed", drop_after: "processed, reply lost", reset: "connection reset", truncate: "reply cut short", garbage: "no HTTP",
  }[fault.kind] ?? fault.kind;
  return `next ${fault.left === 1 ? "" : `${fault.left ?? ""} `}${fault.call === "any" ? "call" : fault.call}${fault.left === 1 ? "" : "s"}: ${what}`;
}
