// One run: its state, its attempts, and the tabs Output, Stream, Logs and Params.
import { el, fill, put, setText } from "./dom.js";
import { failureView, logLine } from "./failure.js";
import { durationOf, leftOf, noteOf, stateWord } from "./run_words.js";
import { ended } from "./store.js";
import { isChunk, streamView } from "./stream.js";
import { clock, duration } from "./times.js";
import { gallery, show, source } from "./values.js";

export const TABS = ["output", "stream", "logs", "params"];
const TITLES = { output: "Output", stream: "Stream", logs: "Logs", params: "Params" };
const MOST_LINES = 500;
const LEVELS = ["debug", "info", "warning", "error", "critical"];

/** Show a run in `place`; `act` has the actions of its buttons, `chose` is called with the name of an opened tab. */
export function runView(place, { act, back, chose }) {
  const badge = el("span.badge");
  const facts = el("dl.facts.wideways");
  const bar = el("progress", { max: 1, "aria-label": "Progress" });
  const note = el("p.dim.note");
  const cancelButton = el("button", { type: "button", onclick: act.cancel }, "Cancel");
  const attempts = el("ol.timeline", { "aria-label": "Attempts" });
  const error = el("div.error", { role: "alert" });
  const outcome = el("div.outcome");
  const events = el("ol.events");
  const eventsPart = el("section", {}, el("h3.part", {}, "Events"), events);
  const title = el("h2");
  const params = el("div");
  const stream = streamView();
  const logs = logsView();
  const panels = {
    output: [error, outcome, eventsPart],
    stream: [stream.node, el("p.dim.none", {}, "This run streamed nothing.")],
    logs: [logs.node],
    params: [params],
  };
  const tabs = tabsView(panels, chose);
  fill(place,
    el("div.head", {}, el("button.quiet.back", { type: "button", onclick: back }, "All runs"), title, badge),
    bar, note,
    el("div.actions", {}, cancelButton, el("button", { type: "button", onclick: act.again }, "Run again"), el("button.quiet", { type: "button", onclick: act.edit }, "Edit and run")),
    facts, attempts, tabs.node);
  let job = null;
  const seen = new Set();

  function draw() {
    badge.className = `badge ${job.state}`;
    setText(badge, stateWord(job));
    cancelButton.disabled = ended(job);
    bar.hidden = job.state !== "running" && !(job.state !== "finished" && job.progress.progress > 0);
    bar.value = job.progress.progress;
    setText(note, job.state === "running" ? noteOf(job) : "");
    note.hidden = !note.textContent;
    tick();
  }

  function tick() {
    if (!job) return;
    const rows = [
      ["duration", durationOf(job)],
      ["left", leftOf(job)],
      ["waited", job.handed_out_at && job.handed_out_at - job.submitted_at >= 0.1 ? duration(job.handed_out_at - job.submitted_at) : ""],
      ["attempts", job.attempts > 1 ? String(job.attempts) : ""],
      ["priority", job.priority ? String(job.priority) : ""],
      ["deadline", job.deadline ? clock(job.deadline) : ""],
      ["job", job.job_id],
    ].filter(([, value]) => value);
    const key = rows.map(([name]) => name).join();
    if (facts.dataset.key !== key) {
      facts.dataset.key = key;
      fill(facts, rows.map(([name]) => el("div", {}, el("dt", {}, name), el("dd", { "data-fact": name }))));
    }
    rows.forEach(([name, value]) => setText(facts.querySelector(`[data-fact="${name}"]`), value));
  }

  function drawError() {
    fill(error);
    error.hidden = !job.error;
    if (job.error) put(error, failureView(job, logs.lines));
  }

  function drawOutcome() {
    fill(outcome);
    if (job.result !== null && job.result !== undefined) {
      put(outcome, gallery(job.result), el("div.value", {}, show(job.result)), source(job.result, "Result as JSON"));
    } else if (!job.error) {
      put(outcome, el("p.dim", {}, ended(job) ? "No result." : "No result yet."));
    }
    const costs = Object.entries(job.costs ?? {}).filter(([name]) => name !== "execution_time_seconds");
    if (costs.length) put(outcome, el("p.dim", {}, `costs: ${costs.map(([name, cost]) => `${name} ${typeof cost === "number" ? Number(cost.toPrecision(4)) : cost}`).join(", ")}`));
    if (Object.keys(job.data_metadata ?? {}).length) put(outcome, source(job.data_metadata, "Result files"));
  }

  function addEvents(list) {
    for (const { event, time } of list) {
      if (seen.has(event.event_id)) continue;
      seen.add(event.event_id);
      if (event.event_type === "progress") continue;
      if (isChunk(event)) { stream.add(event.payload, time); tabs.suggest("stream"); continue; }
      events.append(el("li", {}, el("strong", {}, event.event_type), " ", show(event.payload ?? {}, 1)));
    }
    eventsPart.hidden = !events.childElementCount;
    panels.stream[1].hidden = !stream.node.hidden;
    stream.measure(job.handed_out_at);
  }

  function addLines(list) {
    if (logs.add(list) && job.error) drawError(); // its traceback came after it
  }

  return {
    get id() { return job?.job_id; },
    get job() { return job; },
    tick: () => { if (job && !ended(job)) tick(); },
    open: (tab) => tabs.open(tab),
    show(all) {
      job = all;
      setText(title, job.skill);
      draw();
      attempts.classList.toggle("long", job.results.some((each) => each.error));
      fill(attempts, timeline(job));
      drawOutcome();
      addEvents(job.events.map((event, index) => ({ event, time: job.event_times?.[index] })));
      logs.add(job.logs);
      drawError();
      if (job.error) tabs.suggest("output");
      fill(params, Object.keys(job.params).length ? show(job.params) : el("p.dim", {}, "none"), source(job.params, "Params as JSON"));
    },
    add({ row, events: more, lines }) {
      if (row) { job = { ...job, ...row }; draw(); }
      addEvents(more);
      addLines(lines);
    },
  };
}

/** What happened to a job, in order. */
function timeline(job) {
  const several = new Set(job.hand_outs.map((each) => each.worker_id)).size > 1;
  const steps = [
    [job.submitted_at, 0, "submitted"],
    ...job.hand_outs.map((each, index) => [each.time, 1, [el("strong", {}, `attempt ${index + 1}`), several ? ` on ${each.worker_id}` : ""]]),
    ...job.results.map((each) => [each.time, 2, [el("strong", {}, each.status ?? "success"), each.error ? el("span", { title: each.error.message ?? "" }, ` ${each.error.code}: ${each.error.message ?? ""}`) : "",
      each.answer === "accepted" ? "" : el("span.dim", {}, ` ignored: ${each.reason}`)]]),
  ];
  if (ended(job) && job.state !== "finished") steps.push([job.finished_at, 3, stateWord(job)]);
  steps.sort(([one, first], [other, second]) => one - other || first - second);
  return steps.map(([time, , what]) => el("li", {}, el("time", {}, clock(time)), " ", el("span.step", {}, what)));
}

function tabsView(panels, chose) {
  let chosenByUser = false;
  const tab = (name) => el("button.tab", {
    type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`,
    onclick: () => { open(name); chose(name); },
  }, TITLES[name]);
  const buttons = TABS.map(tab);
  const places = TABS.map((name) => el("div.panel", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, tabindex: 0 }, panels[name]));
  const list = el("div.tablist", { role: "tablist", "aria-label": "About this run", onkeydown: (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
  } }, buttons);

  function show(name) {
    TABS.forEach((each, index) => {
      buttons[index].setAttribute("aria-selected", String(each === name));
      buttons[index].tabIndex = each === name ? 0 : -1;
      places[index].hidden = each !== name;
    });
  }

  function open(name) {
    chosenByUser = true;
    show(name);
  }

  show("output");
  return { node: el("div", {}, list, places), open, suggest: (name) => { if (!chosenByUser) show(name); } };
}

function logsView() {
  const list = el("ol.logs", { tabindex: 0, "aria-label": "Log" });
  const none = el("p.dim", {}, "Nothing was logged.");
  const level = el("select", { "aria-label": "Least level", onchange: () => { list.dataset.least = level.value; } }, LEVELS.map((each) => el("option", { value: each }, each === "debug" ? "all levels" : `${each} and above`)));
  list.dataset.least = "debug";
  const controls = el("div.filters", {}, level);
  const lines = [];
  let last = 0;

  /** Add new lines; return whether any of them has a traceback. */
  function add(more) {
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
    const fresh = more.filter((line) => line.number > last);
    for (const line of fresh) {
      last = line.number;
      lines.push(line);
      list.append(logLine(line));
    }
    while (list.childElementCount > MOST_LINES) { list.firstChild.remove(); lines.shift(); }
    list.hidden = controls.hidden = !lines.length;
    none.hidden = Boolean(lines.length);
    if (atEnd) list.scrollTop = list.scrollHeight;
    return fresh.some((line) => line.frames?.length);
  }

  return { node: el("section", {}, controls, list, none), add, lines };
}
