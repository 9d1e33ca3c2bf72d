// The list of tasks, and all about the one that is selected.
import { cancel, job as fetchJob, submit } from "./api.js";
import { el, fill, put, setText } from "./dom.js";
import { write } from "./json.js";
import { ended, on, onNews, state } from "./store.js";
import { isChunk, streamView } from "./stream.js";
import { ago, clock, duration, now, whole } from "./times.js";
import { gallery, show, source } from "./values.js";

const MOST_ROWS = 200;
const WORDS = { queued: "queued", running: "running", finished: "done", failed: "failed", quarantined: "quarantined", cancelled: "cancelled" };

export function startTasks(place, { showPart, notice, edit }) {
  const list = el("div.list", { role: "list" });
  const count = el("span.dim");
  const details = el("div.details", { tabindex: -1 });
  fill(place, el("h2", {}, "Tasks ", count), list, details);
  const rows = new Map();
  let selected = null;
  let view = null;

  function drawList() {
    const jobs = [...state.jobs.values()].reverse().slice(0, MOST_ROWS);
    setText(count, state.jobs.size ? String(state.jobs.size) : "");
    const wanted = new Set(jobs.map((job) => job.job_id));
    for (const [id, row] of rows) if (!wanted.has(id)) { row.node.remove(); rows.delete(id); }
    if (!jobs.length) {
      if (!list.querySelector(".middle")) fill(list, el("p.dim.middle", {}, "No tasks yet. Run a skill, or send one with curl."));
      return;
    }
    list.querySelector(":scope > .middle")?.remove();
    jobs.forEach((job, index) => {
      let row = rows.get(job.job_id);
      if (!row) rows.set(job.job_id, (row = makeRow(job)));
      row.update(job, job.job_id === selected);
      if (list.children[index] !== row.node) list.insertBefore(row.node, list.children[index] ?? null);
    });
  }

  function makeRow(first) {
    const badge = el("span.badge");
    const time = el("span.dim.time");
    const bar = el("progress", { max: 1, "aria-label": "Progress" });
    const note = el("span.dim.note");
    const node = el("button.entry.task", { type: "button", role: "listitem", "data-job": first.job_id, onclick: () => select(first.job_id) },
      el("span.line", {}, badge, el("strong", {}, first.skill), time), el("span.line.dim.hint", {}, first.hint), bar, note);
    return {
      node,
      update(job, current) {
        badge.className = `badge ${job.state}`;
        setText(badge, stateWord(job));
        bar.hidden = job.state !== "running";
        bar.value = job.progress.progress;
        setText(note, noteOf(job));
        note.hidden = !note.textContent;
        setText(time, timeOf(job));
        if (current) node.setAttribute("aria-current", "true");
        else node.removeAttribute("aria-current");
      },
      job: first.job_id,
      time,
    };
  }

  async function select(id, { quietly = false } = {}) {
    selected = id;
    view = null;
    drawList();
    fill(details, el("p.dim", {}, "…"));
    place.classList.add("open");
    await load();
    if (!quietly) showPart("tasks");
  }

  let loading = 0;
  async function load() {
    const turn = ++loading;
    const id = selected;
    try {
      const job = await fetchJob(id);
      if (turn !== loading || id !== selected) return;
      if (view?.id !== id) view = taskView(details, { act, back });
      view.show(job);
    } catch (error) {
      if (turn === loading && id === selected) { view = null; fill(details, el("p.problem", {}, error.message)); }
    }
  }

  function back() {
    place.classList.remove("open");
    rows.get(selected)?.node.focus();
    selected = null;
    view = null;
    fill(details);
    drawList();
  }

  const act = {
    cancel: () => attempt(() => cancel(selected)),
    again: () => attempt(async () => {
      const job = view?.job ?? (await fetchJob(selected));
      const answer = await submit(job.skill, write(job.params), { check: false, priority: job.priority || undefined, metadata: job.metadata ?? undefined });
      await select(answer.job_id);
    }),
    edit: () => { if (view?.job) edit(view.job.skill, view.job.params); },
  };

  async function attempt(action) {
    if (!selected) return;
    try {
      await action();
      notice("");
    } catch (error) {
      notice(error.message);
    }
  }

  on(["jobs", "all"], drawList);
  on(["all"], () => { if (selected) load(); });
  onNews((news) => {
    if (!selected) return;
    const mine = (each) => each.job_id === selected;
    const row = (news.jobs ?? []).find(mine);
    if (row && (ended(row) || row.attempts !== view?.job?.attempts)) load();
    else if (view) view.add({ row, events: (news.events ?? []).filter(mine), lines: (news.logs ?? []).filter(mine) });
  });
  setInterval(() => {
    for (const row of rows.values()) {
      const job = state.jobs.get(row.job);
      if (job) setText(row.time, timeOf(job));
    }
    view?.tick();
  }, 250);

  return {
    select,
    step(by) {
      const ids = [...state.jobs.keys()].reverse();
      const next = ids[Math.max(0, Math.min(ids.length - 1, selected ? ids.indexOf(selected) + by : 0))];
      if (next) select(next).then(() => rows.get(next)?.node.scrollIntoView({ block: "nearest" }));
    },
    cancel: act.cancel, again: act.again, edit: act.edit,
  };
}

const stateWord = (job) => (job.state === "finished" && job.status && job.status !== "success" ? job.status : WORDS[job.state] ?? job.state);

function noteOf(job) {
  if (job.state === "running") {
    const again = job.attempts > 1 ? `attempt ${job.attempts}. ` : "";
    return `${again}${job.progress.progress ? `${Math.round(job.progress.progress * 100)} % ` : ""}${job.progress.message}`;
  }
  if (job.error && job.state !== "finished") return `${job.error.code}: ${job.error.message ?? ""}`;
  return "";
}

/** About how long a running task still takes, by its progress; nothing when that is unknown, or it is late. */
function leftOf(job) {
  const left = job.state === "running" && job.ends_at ? job.ends_at - now() : 0;
  return left > 0 ? `about ${whole(left)}` : "";
}

function timeOf(job) {
  if (job.state === "running") return `${duration(now() - job.handed_out_at)}${leftOf(job) && ` · ${leftOf(job)} left`}`;
  if (job.handed_out_at && job.finished_at) return `${duration(Math.max(0, job.finished_at - job.handed_out_at))} · ${ago(job.finished_at)}`;
  return ago(job.finished_at ?? job.submitted_at);
}

// ------------------------------------------------------------------------------------------------- one task

function taskView(place, { act, back }) {
  const badge = el("span.badge");
  const facts = el("dl.facts");
  const bar = el("progress", { max: 1, "aria-label": "Progress" });
  const note = el("p.dim.note");
  const cancelButton = el("button", { type: "button", onclick: act.cancel }, "Cancel");
  const error = el("div.error", { role: "alert" });
  const outcome = el("div.outcome");
  const events = el("ol.events");
  const eventsPart = el("section", {}, el("h4", {}, "Events"), events);
  const logs = el("ol.logs", { tabindex: 0, "aria-label": "Log" });
  const logsPart = el("section", {}, el("h4", {}, "Log"), logs);
  const results = el("section");
  const title = el("h3");
  const params = el("div");
  const stream = streamView();
  fill(place,
    el("div.head", {}, el("button.quiet.back", { type: "button", onclick: back }, "All tasks"), title, badge),
    bar, note,
    el("div.actions", {}, cancelButton, el("button", { type: "button", onclick: act.again }, "Run again"), el("button.quiet", { type: "button", onclick: act.edit }, "Edit and run")),
    error, stream.node, outcome, facts, eventsPart, logsPart, results, params);
  let job = null;
  let seen = new Set();
  let lastLine = 0;

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
      ["submitted", clock(job.submitted_at)],
      ["job", job.job_id],
    ].filter(([, value]) => value);
    const key = rows.map(([name]) => name).join();
    if (facts.dataset.key !== key) {
      facts.dataset.key = key;
      fill(facts, rows.map(([name]) => [el("dt", {}, name), el("dd", { "data-fact": name })]));
    }
    rows.forEach(([name, value]) => setText(facts.querySelector(`[data-fact="${name}"]`), value));
  }

  function drawOutcome() {
    fill(error);
    error.hidden = !job.error;
    if (job.error) fill(error, ...errorParts(job.error));
    fill(outcome);
    if (job.result !== null && job.result !== undefined) {
      put(outcome, el("h4", {}, "Result"), gallery(job.result), el("div.value", {}, show(job.result)), source(job.result, "Result as JSON"));
    }
    const costs = Object.entries(job.costs ?? {}).filter(([name]) => name !== "execution_time_seconds");
    if (costs.length) put(outcome, el("p.dim", {}, `costs: ${costs.map(([name, cost]) => `${name} ${typeof cost === "number" ? Number(cost.toPrecision(4)) : cost}`).join(", ")}`));
    if (Object.keys(job.data_metadata ?? {}).length) put(outcome, source(job.data_metadata, "Files of the result"));
    const earlier = job.results.filter((each) => each.answer !== "accepted" || job.results.length > 1);
    fill(results, earlier.length ? [el("h4", {}, "Results as they came"), el("ol.events", {}, job.results.map((each) => el("li", {},
      el("time", {}, clock(each.time)), " ", el("strong", {}, each.status ?? "success"), " ",
      each.answer === "accepted" ? "" : el("span.dim", {}, `ignored: ${each.reason} `), each.error ? `${each.error.code}: ${each.error.message ?? ""}` : "")))] : null);
    results.hidden = !earlier.length;
  }

  function addEvents(list) {
    for (const { event, time } of list) {
      if (seen.has(event.event_id)) continue;
      seen.add(event.event_id);
      if (event.event_type === "progress") continue;
      if (isChunk(event)) { stream.add(event.payload, time); continue; }
      events.append(el("li", {}, el("strong", {}, event.event_type), " ", show(event.payload ?? {}, 1)));
    }
    eventsPart.hidden = !events.childElementCount;
    stream.measure(job.handed_out_at);
  }

  function addLines(list) {
    const atEnd = logs.scrollHeight - logs.scrollTop - logs.clientHeight < 30;
    for (const line of list) {
      if (line.number <= lastLine) continue;
      lastLine = line.number;
      logs.append(logLine(line));
    }
    while (logs.childElementCount > 500) logs.firstChild.remove();
    logsPart.hidden = !logs.childElementCount;
    if (atEnd) logs.scrollTop = logs.scrollHeight;
  }

  return {
    get id() { return job?.job_id; },
    get job() { return job; },
    tick: () => { if (job && !ended(job)) tick(); },
    show(all) {
      job = all;
      setText(title, job.skill);
      draw();
      drawOutcome();
      addEvents(job.events.map((event, index) => ({ event, time: job.event_times?.[index] })));
      addLines(job.logs);
      fill(params, el("h4", {}, "Params"), Object.keys(job.params).length ? show(job.params) : el("p.dim", {}, "none"), source(job.params, "Params as JSON"));
    },
    add({ row, events: more, lines }) {
      if (row) { job = { ...job, ...row }; draw(); }
      addEvents(more);
      addLines(lines);
    },
  };
}

function durationOf(job) {
  if (!job.handed_out_at) return "";
  return duration(Math.max(0, (job.finished_at ?? now()) - job.handed_out_at));
}

function errorParts(error) {
  const { code, message, details, ...more } = error;
  const { path, problems, ...rest } = details && typeof details === "object" ? details : {};
  const others = { ...rest, ...more };
  return [
    el("p", {}, el("strong.code", {}, code ?? "error"), path ? el("code.path", {}, path) : null),
    message ? el("p.message", {}, message) : null,
    Array.isArray(problems) && problems.length ? show(problems) : problems ? show(problems) : null,
    Object.keys(others).length ? show(others, 1) : null,
  ];
}

export function logLine(line) {
  const [first, ...more] = line.text.split("\n");
  const level = line.level.toLowerCase();
  return el(`li.${level}`, {}, el("time", {}, clock(line.time)), " ", el("span.level", {}, line.level), " ", el("span", {}, first),
    more.length ? el("details", {}, el("summary", {}, `${more.length} more ${more.length === 1 ? "line" : "lines"}`), el("pre", {}, more.join("\n"))) : null);
}
