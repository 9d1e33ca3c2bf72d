// The worker as the orchestrator sees it: slots, link, heartbeats, calls, mistakes and log.
import { callLine } from "./calls.js";
import { startCharts } from "./charts.js";
import { el, fill } from "./dom.js";
import { logLine } from "./failure.js";
import { on, state } from "./store.js";
import { ago, clock } from "./times.js";

export function startWorker(place) {
  const workers = el("div.cards");
  const limits = el("p.dim.note");
  const charts = el("div.charts");
  const calls = el("ol.calls", { tabindex: 0, "aria-label": "Calls of the worker" });
  const problems = el("div");
  const lines = el("ol.logs", { tabindex: 0, "aria-label": "Worker log" });
  fill(place, workers, limits, charts, problems,
    el("div.columns", {},
      el("section", {}, el("h3", {}, "Calls"), el("p.dim.note", {}, "Newest first, with the status of the answer."), calls),
      el("section", {}, el("h3", {}, "Log of the worker"), el("p.dim.note", {}, "Newest first."), lines)));

  const { draw } = startCharts(charts);

  function drawWorkers() {
    fill(workers, state.workers.length ? state.workers.map(workerCard) : [el("h2", {}, "Worker"), el("p.dim", {}, "No worker is registered.")]);
  }

  function drawCalls() {
    fill(calls, [...state.calls].reverse().map(callLine));
  }

  function drawProblems() {
    fill(problems, state.problems.length ? el("section", {}, el("h3", {}, "Worker mistakes"),
      el("ul.problems", {}, [...state.problems].reverse().slice(0, 20).map((each) => el("li", {}, el("time", {}, clock(each.time)), ` ${each.call}: ${each.problem} `, el("span.dim", {}, `(answered ${each.status})`))))) : null);
  }

  on(["workers"], drawWorkers);
  on(["about"], () => fill(limits, state.about.limits ? "Orchestrator limits are on, as in production." : ["Orchestrator limits are off: ", el("code.command", {}, "worker dev --production-like"), " turns them on."]));
  on(["calls"], drawCalls);
  on(["problems"], drawProblems);
  on(["lines"], () => fill(lines, [...state.lines].reverse().map(logLine)));
  setInterval(() => {
    for (const node of place.querySelectorAll("[data-time]")) node.textContent = ago(Number(node.dataset.time));
  }, 500);
  drawWorkers();
  return { shown: draw };
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
    ["commands", worker.connected ? "by WebSocket" : "with heartbeats"],
    ["polls", `${worker.polls} waiting`],
    ["registered", el("span", {}, el("span", { "data-time": worker.registered_at }, ago(worker.registered_at)), worker.registered_count > 1 ? `, ${worker.registered_count} times` : "")],
    usage.cpu_load_percent !== undefined ? ["load", `CPU ${Math.round(usage.cpu_load_percent)} %, memory ${Number(usage.ram_used_gb).toFixed(1)} GiB`] : null,
    worker.hot_skills.length ? ["hot skills", worker.hot_skills.join(", ")] : null,
    worker.hot_cache.length ? ["hot cache", worker.hot_cache.join(", ")] : null,
    worker.available_skills.length < worker.skills.length ? ["not available", worker.skills.filter((each) => !worker.available_skills.includes(each)).join(", ")] : null,
  ].filter(Boolean);
  return el("div.card", {}, el("h2", {}, "Worker ", el("span.dim", {}, worker.worker_id)), el("dl.facts", {}, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}
