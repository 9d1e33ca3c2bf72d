// The page: its parts, which of them are visible, and the keyboard shortcuts.
import { address, onAddress, setAddress } from "./addresses.js";
import { listen } from "./api.js";
import { el, fill, setText } from "./dom.js";
import { startFaults } from "./faults.js";
import { startOutput } from "./output.js";
import { startRuns } from "./runs.js";
import { startSkills } from "./skills.js";
import { keep, kept } from "./storage.js";
import { on, state, takeAll, takeNews, touch } from "./store.js";
import { setNow } from "./times.js";
import { startWorker } from "./worker.js";

// The form and the output get tabs of their own only if there is room for just one part.
const PARTS = [["skills", "Skills"], ["run", "Form"], ["output", "Output"], ["runs", "Runs"], ["worker", "Worker"], ["faults", "Faults"]];
const BESIDE = new Set(["skills", "run", "output"]);
const narrow = matchMedia("(max-width: 60rem)");
const THEMES = { auto: "System", light: "Light", dark: "Dark" };
const $ = (id) => document.getElementById(id);

/** Show a part, along with its neighbors if there is room: skills, form and output; runs and output. */
function showPart(wanted) {
  const now = document.body.dataset.part;
  const name = wanted === "output" && !narrow.matches ? (now === "runs" ? "runs" : "run") : wanted;
  document.body.dataset.part = name;
  for (const tab of $("tabs").children) {
    const same = tab.dataset.part === name || (!narrow.matches && tab.dataset.part === "skills" && BESIDE.has(name));
    tab.setAttribute("aria-pressed", String(same));
  }
  if (name === "worker") worker.shown();
}

/** Show a part, and put its address into the address bar. */
function openPart(name) {
  showPart(name);
  if (!BESIDE.has(name)) setAddress([name]);
  else if (output.selected) setAddress(["run", output.selected]);
  else if (skills.chosen) setAddress(["skill", skills.chosen]);
}

function tabs() {
  fill($("tabs"), PARTS.map(([name, title]) => el(name === "run" || name === "output" ? "button.tab.narrow" : "button.tab", { type: "button", "data-part": name, onclick: () => openPart(name) }, title)));
}

/** Show what an address refers to. */
function show([kind, name, tab]) {
  if (kind === "run" && name) output.select(name, { tab });
  else if (kind === "skill" && name) { skills.show(name); output.leave(name); showPart("run"); }
  else if (["runs", "worker", "faults"].includes(kind)) showPart(kind);
}

// ------------------------------------------------------------------------------------------------- theme

function theme() {
  const names = Object.keys(THEMES);
  let chosen = names.includes(kept("theme")) ? kept("theme") : "auto";
  const button = el("button.quiet", { type: "button", onclick: () => { chosen = names[(names.indexOf(chosen) + 1) % names.length]; keep("theme", chosen); apply(); } });
  const apply = () => {
    document.documentElement.dataset.theme = chosen;
    fill(button, el("span.wide", {}, "Colors: "), THEMES[chosen]);
    button.title = "Colors: system, light, dark";
    button.setAttribute("aria-label", `Colors: ${THEMES[chosen]}`);
  };
  apply();
  return button;
}

// ------------------------------------------------------------------------------------------------- keys

const KEYS = [
  ["Ctrl+Enter", "run the skill in the open form"],
  ["/", "find a skill"],
  ["j, k", "next and previous run"],
  ["c", "cancel the run"],
  ["r", "run it again"],
  ["e", "put its params into the form"],
  ["1 to 6", "skills, form, output, runs, worker, faults"],
  ["?", "this list"],
];

function help() {
  const dialog = el("dialog", { "aria-label": "Keys" }, el("h2", {}, "Keys"),
    el("dl.keys", {}, KEYS.map(([key, what]) => [el("dt", {}, key.split(/(, | to )/).map((part) => (/^(, | to )$/.test(part) ? part : el("kbd", {}, part)))), el("dd", {}, what)])),
    el("form", { method: "dialog" }, el("button", { autofocus: true, onclick: (event) => { event.preventDefault(); dialog.close(); } }, "Close")));
  document.body.append(dialog);
  return dialog;
}

function keys(dialog) {
  const actions = {
    "/": () => { showPart("skills"); $("find")?.focus(); },
    "?": () => dialog.showModal(),
    j: () => runs.step(1), k: () => runs.step(-1),
    c: output.cancel, r: output.again, e: output.edit,
  };
  PARTS.forEach(([name], index) => {
    actions[String(index + 1)] = () => {
      openPart(name);
      document.querySelector(`#parts > [data-part="${name}"]`).querySelector("input:not(.picker),textarea,button")?.focus();
    };
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !dialog.open) {
      event.preventDefault();
      skills.run();
    }
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    if (event.target.closest("input,textarea,select,dialog")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const action = actions[event.key];
    if (action) {
      event.preventDefault();
      action();
    }
  });
}

// ------------------------------------------------------------------------------------------------- start

function linkView() {
  const link = $("link");
  if (state.linked === null) return setText(link, "connecting…");
  link.className = state.linked ? "good" : "bad";
  if (!state.linked) return setText(link, "connection lost, trying again…");
  const workers = state.workers.length;
  return setText(link, workers ? `protocol ${state.about.protocol}` : "no worker is registered");
}

function notice(text) {
  const place = $("notice");
  place.hidden = !text;
  fill(place, text, text ? el("button.quiet.small", { type: "button", onclick: () => notice("") }, "Close") : null);
}

/** Cover the page while the worker's program fails to start; tasks wait until it does. */
function brokenView() {
  const place = $("broken");
  place.hidden = !state.problem;
  fill(place, state.problem ? el("div.sheet", {}, el("h2", {}, "The worker failed to start"),
    el("p.dim", {}, "It restarts when a Python file changes. Tasks and forms are kept."),
    el("pre", { tabindex: 0 }, state.problem),
    el("button", { type: "button", onclick: () => { place.hidden = true; } }, "Show the page")) : null);
}

tabs();
const output = startOutput($("output"), {
  showPart, notice,
  edit: (name, params) => skills.edit(name, params),
  found: (job) => skills.show(job.skill),
  back: () => { const id = output.selected; openPart("runs"); runs.focus(id); },
});
const skills = startSkills($("skills"), $("main"), { showPart, notice, started: (id) => output.select(id, { quietly: true }), opened: output.leave, suggested: output.suggest });
const runs = startRuns($("runs"), { select: (id) => output.select(id), selected: () => output.selected });
const worker = startWorker($("worker"));
startFaults($("faults"), { notice });
const dialog = help();
fill($("tools"), theme(), el("button.quiet", { type: "button", "aria-label": "Keys", onclick: () => dialog.showModal() }, "?"));
keys(dialog);
showPart(narrow.matches ? "skills" : "run");
show(address());
onAddress(show);
narrow.addEventListener("change", () => showPart(document.body.dataset.part));
on(["link", "workers", "about"], linkView);
linkView();
on(["problem"], brokenView);
listen({
  onAll: (all) => { setNow(all.now); takeAll(all); },
  onNews: (news) => { setNow(news.now); takeNews(news); },
  onLink: (linked) => { state.linked = linked; touch("link"); },
});
