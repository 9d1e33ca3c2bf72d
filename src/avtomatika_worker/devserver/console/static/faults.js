// The faults page: make things go wrong between worker and orchestrator on purpose.
import { addFault, clearFaults, restart } from "./api.js";
import { callLine } from "./calls.js";
import { el, fill } from "./dom.js";
import { on, state } from "./store.js";

const PRESETS = [
  ["Lost reply to a result", { call: "result", kind: "drop_after" }],
  ["Result answered after 5 s", { call: "result", kind: "answer_late", delay: 5 }],
  ["Result refused: 429, wait 5 s", { call: "result", kind: "status", status: 429, retry_after: 5 }],
  ["Result refused: 503", { call: "result", kind: "status", status: 503 }],
  ["Poll refused: 429, wait 10 s", { call: "poll", kind: "status", status: 429, retry_after: 10 }],
  ["Task lost on the way to the worker", { call: "poll", kind: "drop_after" }],
  ["Heartbeat refused: 503", { call: "heartbeat", kind: "status", status: 503 }],
  ["A proxy's error page", { call: "any", kind: "html", status: 502 }],
  ["Connection reset", { call: "any", kind: "reset" }],
  ["Bytes that are not HTTP", { call: "any", kind: "garbage" }],
  ["Every call 2 s late", { call: "any", kind: "delay", delay: 2 }],
];
const CALLS = ["any", "poll", "result", "heartbeat", "event", "register", "token", "ws"];
const KINDS = ["status", "delay", "answer_late", "drop_before", "drop_after", "reset", "truncate", "garbage", "html"];

export function startFaults(place, { notice }) {
  const faults = el("div");
  const met = el("div");
  const attempt = async (action) => {
    try {
      await action();
      notice("");
    } catch (error) {
      notice(error.message);
    }
  };
  fill(place, el("h2", {}, "Faults to try"),
    el("p.dim", {}, "The next calls that the worker makes go wrong as you choose here, so that you can see what happens to your tasks."),
    faultMenu(attempt), el("h3", {}, "Waiting for a call"), faults, el("h3", {}, "Calls that met a fault"), met);

  function drawFaults() {
    fill(faults, state.faults.length ? [
      el("ul.faults", {}, state.faults.map((each) => el("li", {}, describe(each)))),
      el("button.quiet", { type: "button", onclick: () => attempt(clearFaults) }, "Clear faults"),
    ] : el("p.dim", {}, "No faults are pending."));
  }

  function drawCalls() {
    const calls = [...state.calls].reverse().filter((each) => each.fault);
    fill(met, calls.length ? el("ol.calls", {}, calls.map(callLine)) : el("p.dim", {}, "None of the latest calls."));
  }

  on(["faults"], drawFaults);
  on(["calls"], drawCalls);
  drawFaults();
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
      el("button.quiet", { type: "button", title: "The orchestrator forgets the worker and closes its WebSocket; tasks are kept", onclick: () => attempt(restart) }, "Restart the orchestrator")));
}

function describe(fault) {
  const what = {
    status: `answer ${fault.status}${fault.retry_after !== null ? `, Retry-After ${fault.retry_after}` : ""}`,
    html: `a page with ${fault.status}`, delay: `${fault.delay} s late`, answer_late: `answered ${fault.delay} s late`,
    drop_before: "no answer, not processed", drop_after: "processed, reply lost", reset: "connection reset", truncate: "reply cut short", garbage: "not HTTP",
  }[fault.kind] ?? fault.kind;
  return `next ${fault.left === 1 ? "" : `${fault.left ?? ""} `}${fault.call === "any" ? "call" : fault.call}${fault.left === 1 ? "" : "s"}: ${what}`;
}
