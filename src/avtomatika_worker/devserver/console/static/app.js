// The page: its parts, which of them are seen, and what the keys do.
import { listen } from "./api.js";
import { el, fill, setText } from "./dom.js";
import { startSkills } from "./skills.js";
import { on, state, takeAll, takeNews, touch } from "./store.js";
import { startTasks } from "./tasks.js";
import { setNow } from "./times.js";
import { startWorker } from "./worker.js";

const PARTS = [["skills", "Skills"], ["run", "Form"], ["tasks", "Tasks"], ["worker", "Worker"]];
const THEMES = { auto: "System", light: "Light", dark: "Dark" };
const $ = (id) => document.getElementById(id);

/** Show a part where there is room for one only. */
export function showPart(name) {
  document.body.dataset.part = name;
  for (const tab of $("tabs").children) tab.setAttribute("aria-pressed", String(tab.dataset.part === name));
}

function tabs() {
  fill($("tabs"), PARTS.map(([name, title]) => el("button.tab", { type: "button", "data-part": name, onclick: () => showPart(name) }, title)));
}

// ------------------------------------------------------------------------------------------------- theme

const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
const keep = (name, value) => { try { localStorage.setItem(name, value); } catch { /* private mode: for this page only */ } };

function theme() {
  const names = Object.keys(THEMES);
  let chosen = names.includes(kept("theme")) ? kept("theme") : "auto";
  const button = el("button.quiet", { type: "button", onclick: () => { chosen = names[(names.indexOf(chosen) + 1) % names.length]; keep("theme", chosen); apply(); } });
  const apply = () => {
    document.documentElement.dataset.theme = chosen;
    fill(button, el("span.wide", {}, "Colors: "), THEMES[chosen]);
    button.title = "Colors: as the system, light, dark";
    button.setAttribute("aria-label", `Colors: ${THEMES[chosen]}`);
  };
  apply();
  return button;
}

// ------------------------------------------------------------------------------------------------- keys

const KEYS = [
  ["Ctrl+Enter", "run the skill whose form is open"],
  ["/", "find a skill"],
  ["j, k", "next and previous task"],
  ["c", "cancel the task"],
  ["r", "run the task again"],
  ["e", "put the task's params into the form"],
  ["1 to 4", "skills, form, tasks, worker"],
  ["?", "this list"],
];

function help() {
  const dialog = el("dialog", { "aria-label": "Keys" }, el("h2", {}, "Keys"),
    el("dl.keys", {}, KEYS.map(([key, what]) => [el("dt", {}, key.split(/(, | to )/).map((part) => (/^(, | to )$/.test(part) ? part : el("kbd", {}, part)))), el("dd", {}, what)])),
    el("form", { method: "dialog" }, el("button", { autofocus: true, onclick: (event) => { event.preventDefault(); dialog.close(); } }, "Close")));
  document.body.append(dialog);
  return dialog;
}

function keys(dialog, tasks, skills) {
  const actions = {
    "/": () => { showPart("skills"); $("find")?.focus(); },
    "?": () => dialog.showModal(),
    j: () => tasks.step(1), k: () => tasks.step(-1),
    c: tasks.cancel, r: tasks.again, e: tasks.edit,
  };
  PARTS.forEach(([name], index) => {
    actions[String(index + 1)] = () => {
      showPart(name);
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

export function notice(text) {
  const place = $("notice");
  place.hidden = !text;
  fill(place, text, text ? el("button.quiet.small", { type: "button", onclick: () => notice("") }, "Close") : null);
}

tabs();
const skills = startSkills($("skills"), $("main"), { showPart, notice, started: (id) => tasks.select(id, { quietly: true }) });
const tasks = startTasks($("tasks"), { showPart, notice, edit: skills.open });
startWorker($("worker"), { notice });
const dialog = help();
fill($("tools"), theme(), el("button.quiet", { type: "button", "aria-label": "Keys", onclick: () => dialog.showModal() }, "?"));
keys(dialog, tasks, skills);
showPart(matchMedia("(max-width: 60rem)").matches ? "skills" : "run");
on(["link", "workers", "about"], linkView);
linkView();
listen({
  onAll: (all) => { setNow(all.now); takeAll(all); },
  onNews: (news) => { setNow(news.now); takeNews(news); },
  onLink: (linked) => { state.linked = linked; touch("link"); },
});
