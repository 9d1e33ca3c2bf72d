// The list of all runs that the orchestrator keeps; only visible rows are built.
import { el, fill, setText } from "./dom.js";
import { noteOf, STATES, stateWord, timeOf } from "./run_words.js";
import { newestFirst, on, state } from "./store.js";

const HEIGHT = 60; // of a row, as in style.css
const AROUND = 6; // rows beyond those in view

export function startRuns(place, { select, selected }) {
  const find = el("input", { type: "search", placeholder: "Skill, param, error or id", "aria-label": "Find runs", autocomplete: "off" });
  const states = el("select", { "aria-label": "State" });
  const skills = el("select", { "aria-label": "Skill" });
  const count = el("p.dim.totals", { role: "status" });
  const space = el("div.space");
  const list = el("div.list.runs", { role: "list", "aria-label": "Runs", tabindex: 0 }, space);
  const none = el("p.dim.middle");
  fill(place, el("h2", {}, "Runs"), count, el("div.filters", {}, find, states, skills), none, list);
  const rows = new Map();
  let jobs = [];

  const number = (value) => (value ?? 0).toLocaleString("en");

  function choices(select, first, names) {
    const key = names.map(([value, name]) => `${value} ${name}`).join("\n");
    if (select.dataset.key === key) return;
    const value = select.value;
    select.dataset.key = key;
    fill(select, el("option", { value: "" }, first), names.map(([each, name]) => el("option", { value: each }, name)));
    select.value = names.some(([each]) => each === value) ? value : "";
  }

  function draw() {
    const { submitted = 0, by_state: byState = {} } = state.totals;
    const known = STATES.filter(([name]) => byState[name]);
    choices(states, "any state", STATES);
    choices(skills, "any skill", [...new Set([...state.jobs.values()].map((job) => job.skill))].sort().map((name) => [name, name]));
    jobs = newestFirst().filter(matches());
    const parts = [`${number(submitted)} ${submitted === 1 ? "run" : "runs"}`, ...known.map(([name, word]) => `${number(byState[name])} ${word}`)];
    const kept = state.jobs.size < submitted ? `; the latest ${number(state.jobs.size)} are kept` : "";
    const matching = filtered() ? `; ${number(jobs.length)} match` : "";
    setText(count, submitted ? `${parts[0]}: ${parts.slice(1).join(", ")}${kept}${matching}` : "");
    none.hidden = jobs.length > 0;
    setText(none, jobs.length ? "" : filtered() ? "No runs match." : "No runs yet. Run a skill, or send one with curl.");
    drawRows();
  }

  const filtered = () => Boolean(find.value.trim() || states.value || skills.value);

  function matches() {
    const text = find.value.trim().toLowerCase();
    return (job) => (!states.value || job.state === states.value) && (!skills.value || job.skill === skills.value)
      && (!text || `${job.skill} ${job.job_id} ${job.hint} ${stateWord(job)} ${noteOf(job)}`.toLowerCase().includes(text));
  }

  function drawRows() {
    space.style.height = `${jobs.length * HEIGHT}px`;
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - AROUND);
    const last = Math.min(jobs.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + AROUND);
    const focused = document.activeElement;
    const wanted = new Set(jobs.slice(first, last).map((job) => job.job_id));
    for (const [id, row] of rows) if (!wanted.has(id)) { row.node.remove(); rows.delete(id); }
    for (let index = first; index < last; index++) {
      const job = jobs[index];
      let row = rows.get(job.job_id);
      if (!row) rows.set(job.job_id, (row = makeRow(job)));
      row.update(job, index, jobs.length);
      const place = space.children[index - first];
      if (place !== row.node) space.insertBefore(row.node, place ?? null);
    }
    if (focused !== document.activeElement && space.contains(focused)) focused.focus(); // moving a node blurs it
  }

  function makeRow(first) {
    const badge = el("span.badge");
    const time = el("span.dim.time");
    const hint = el("span.dim.hint");
    const bar = el("progress", { max: 1, "aria-label": "Progress" });
    const button = el("button.entry.task", { type: "button", "data-job": first.job_id, onclick: () => select(first.job_id) },
      el("span.line", {}, badge, el("strong", {}, first.skill), el("code.dim", {}, first.job_id.slice(0, 8)), time), hint, bar);
    const node = el("div.row", { role: "listitem" }, button);
    return {
      node, time,
      update(job, index, size) {
        node.style.top = `${index * HEIGHT}px`;
        node.setAttribute("aria-posinset", index + 1);
        node.setAttribute("aria-setsize", size);
        badge.className = `badge ${job.state}`;
        setText(badge, stateWord(job));
        bar.hidden = job.state !== "running";
        bar.value = job.progress.progress;
        setText(hint, noteOf(job) || job.hint);
        setText(time, timeOf(job));
        if (job.job_id === selected()) button.setAttribute("aria-current", "true");
        else button.removeAttribute("aria-current");
      },
    };
  }

  for (const control of [find, states, skills]) control.addEventListener("input", () => { list.scrollTop = 0; draw(); });
  list.addEventListener("scroll", drawRows, { passive: true });
  new ResizeObserver(drawRows).observe(list);
  on(["jobs", "all", "selected"], draw);
  setInterval(() => {
    for (const [id, row] of rows) if (state.jobs.has(id)) setText(row.time, timeOf(state.jobs.get(id)));
  }, 250);
  draw();

  return {
    /** Select the next or previous matching run. */
    step(by) {
      const at = jobs.findIndex((job) => job.job_id === selected());
      const index = Math.max(0, Math.min(jobs.length - 1, at < 0 ? 0 : at + by));
      if (!jobs.length) return;
      if (index * HEIGHT < list.scrollTop || (index + 1) * HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = index * HEIGHT - list.clientHeight / 2;
      select(jobs[index].job_id);
    },
    /** Focus a run's row. */
    focus: (id) => { (rows.get(id)?.node.querySelector("button") ?? list).focus(); },
  };
}
