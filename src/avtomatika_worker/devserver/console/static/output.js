// The pane on the right: the selected run, or the latest runs of the skill in the open form.
import { setAddress } from "./addresses.js";
import { cancel, job as fetchJob, submit } from "./api.js";
import { el, fill } from "./dom.js";
import { write } from "./json.js";
import { runView, TABS } from "./run_view.js";
import { stateWord, timeOf } from "./run_words.js";
import { ended, newestFirst, on, onNews, state, touch } from "./store.js";

const LATEST = 8;

export function startOutput(place, { showPart, notice, edit, found, back }) {
  const details = el("div.details", { tabindex: -1 });
  const latest = el("div");
  fill(place, latest, details);
  let selected = null;
  let skill = null;
  let view = null;
  let loading = 0;
  let wantedTab = null; // of a run that is being loaded

  /** Show a run; `found` is called with its job once it is known. */
  async function select(id, { tab = null, quietly = false } = {}) {
    selected = id;
    wantedTab = TABS.includes(tab) ? tab : null;
    view = null;
    setAddress(["run", id, tab]);
    touch("selected");
    fill(latest);
    fill(details, el("p.dim", {}, "…"));
    if (!quietly) showPart("output");
    await load();
  }

  async function load() {
    const turn = ++loading;
    const id = selected;
    try {
      const job = await fetchJob(id);
      if (turn !== loading || id !== selected) return;
      if (view?.id !== id) {
        view = runView(details, { act, back, chose: (tab) => setAddress(["run", id, tab], { replace: true }) });
        if (wantedTab) view.open(wantedTab);
        found(job);
      }
      view.show(job);
    } catch (error) {
      if (turn === loading && id === selected) { view = null; fill(details, el("p.problem", {}, error.message)); }
    }
  }

  /** Show the latest runs of a skill instead of one run. */
  function leave(name) {
    selected = null;
    view = null;
    skill = name;
    touch("selected");
    fill(details);
    drawLatest();
  }

  /** Set the skill whose latest runs are shown while none is selected. */
  function suggest(name) {
    skill = name;
    drawLatest();
  }

  function drawLatest() {
    if (selected) return;
    const jobs = newestFirst().filter((job) => job.skill === skill).slice(0, LATEST);
    fill(latest, el("h2", {}, "Output"), el("p.dim.beside-form", {}, "Run the skill to see its result here."), el("p.dim.beside-runs", {}, "Choose a run to see its result here."),
      jobs.length ? [el("h3.part", {}, `Latest runs of ${skill}`), el("div.list", {}, jobs.map((job) => el("button.entry.latest", { type: "button", onclick: () => select(job.job_id) },
        el(`span.badge.${job.state}`, {}, stateWord(job)), " ", job.hint || "no params", " ", el("span.dim", {}, timeOf(job)))))] : null);
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

  on(["all"], () => { if (selected) load(); });
  on(["jobs", "all"], drawLatest);
  onNews((news) => {
    if (!selected) return;
    const mine = (each) => each.job_id === selected;
    const row = (news.jobs ?? []).find(mine);
    const turned = row && (ended(row) || row.attempts !== view?.job?.attempts || row.state !== view?.job?.state);
    if (turned) load();
    else if (view) view.add({ row, events: (news.events ?? []).filter(mine), lines: (news.logs ?? []).filter(mine) });
  });
  setInterval(() => view?.tick(), 250);

  return {
    select, leave, suggest,
    get selected() { return selected; },
    cancel: act.cancel, again: act.again, edit: act.edit,
  };
}
