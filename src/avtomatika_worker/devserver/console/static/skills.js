// The list of skills, and the page of the one that is chosen: what it is, and the form to run it.
import { Refused, submit } from "./api.js";
import { el, fill } from "./dom.js";
import { formFor, rawField, showProblems } from "./form.js";
import { parse, write } from "./json.js";
import { on, state } from "./store.js";
import { source } from "./values.js";

export function startSkills(list, page, { showPart, notice, started }) {
  const find = el("input", { type: "search", id: "find", placeholder: "Find a skill", "aria-label": "Find a skill", autocomplete: "off" });
  const names = el("div.list");
  fill(list, el("h2", {}, "Skills"), find, names);
  let chosen = null;
  let shown = ""; // the skill as JSON: the form is built again only when it has changed
  let form = null;

  const skillOf = (name) => state.skills.find((each) => each.name === name);

  function drawList() {
    const wanted = find.value.trim().toLowerCase();
    const found = state.skills.filter((each) => `${each.name} ${each.description ?? ""}`.toLowerCase().includes(wanted));
    const focused = document.activeElement?.dataset?.skill;
    fill(names, found.map((each) => el("button.entry", {
      type: "button", "data-skill": each.name, "aria-current": each.name === chosen ? "true" : null,
      // With keys one goes on in the form; fingers would get a keyboard over it.
      onclick: (event) => { choose(each.name); showPart("run"); if (event.detail === 0) focusForm(); },
    }, el("strong", {}, each.name), each.description ? el("span.dim", {}, firstLine(each.description)) : null)),
    found.length ? null : el("p.dim", {}, state.skills.length ? "No skill matches." : "No worker has registered a skill yet."));
    if (focused) names.querySelector(`[data-skill="${CSS.escape(focused)}"]`)?.focus();
  }

  const focusForm = () => page.querySelector("form input:not(.picker), form textarea, form select, form button")?.focus();

  find.addEventListener("input", drawList);
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      const stops = [find, ...names.querySelectorAll("button")];
      stops[stops.indexOf(document.activeElement) + step]?.focus();
      event.preventDefault();
    } else if (event.key === "Enter" && event.target === find) {
      event.preventDefault(); // else it would be typed into the form, where the focus goes
      names.querySelector("button")?.click();
    }
  });

  function choose(name) {
    chosen = name;
    history.replaceState(null, "", `#/skill/${encodeURIComponent(name)}`);
    drawList();
    drawPage();
  }

  function drawPage() {
    const skill = skillOf(chosen);
    if (!skill) {
      shown = "";
      form = null;
      fill(page, el("p.dim.middle", {}, "Choose a skill to run it."));
      return;
    }
    const now = write(skill);
    if (now === shown) return;
    const typed = form?.skill === skill.name ? form.params() : undefined;
    shown = now;
    form = skillForm(skill, { notice, started: (id) => { started(id); }, showPart });
    fill(page, about(skill), form.node, schemas(skill));
    if (typed !== undefined) form.write(typed); // the skill was edited while its form was open
  }

  on(["skills"], () => {
    if (!skillOf(chosen)) chosen = fromAddress() ?? state.skills[0]?.name ?? null;
    drawList();
    drawPage();
  });

  const fromAddress = () => {
    const name = decodeURIComponent(location.hash.replace(/^#\/skill\//, ""));
    return skillOf(name) ? name : null;
  };

  return {
    run: () => form?.start(),
    /** Open a skill's form with params in it. */
    open(name, params) {
      if (!skillOf(name)) return notice(`No worker has the skill ${name} now.`);
      choose(name);
      form.write(params);
      showPart("run");
      focusForm();
      return undefined;
    },
  };
}

const firstLine = (text) => text.split("\n")[0];

function about(skill) {
  const facts = { version: skill.version, type: skill.type === skill.name ? undefined : skill.type, ...skill.properties };
  const statuses = skill.output_statuses ?? [];
  if (statuses.length) facts.statuses = statuses;
  const shown = Object.entries(facts).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return el("div.about", {}, el("h2", {}, skill.name), skill.description ? el("p.description", {}, skill.description) : null,
    shown.length ? el("dl.facts", {}, shown.map(([name, value]) => [el("dt", {}, name), el("dd", {}, Array.isArray(value) ? value.join(", ") : typeof value === "object" ? write(value) : String(value))])) : null);
}

function schemas(skill) {
  const events = Object.entries(skill.events_schema ?? {});
  return el("div.schemas", {},
    skill.input_schema ? source(skill.input_schema, "Input schema") : null,
    skill.output_schema ? source(skill.output_schema, "Output schema") : null,
    events.map(([name, schema]) => source(schema, `Event ${name}`)));
}

function skillForm(skill, { notice, started, showPart }) {
  let fields = formFor(skill.input_schema, { files: state.about.files });
  let raw = false;
  const place = el("div", {}, fields.node);
  const toggle = el("button.quiet", { type: "button", onclick: () => setRaw(!raw) }, "Edit as JSON");
  const check = el("input", { type: "checkbox", checked: true, id: "check" });
  const priority = el("input", { type: "number", step: "any", id: "priority", value: "0" });
  const deadline = el("input", { type: "number", min: "0", step: "any", id: "deadline", placeholder: "none" });
  const run = el("button.main", { type: "submit" }, "Run");
  const problem = el("p.problem.whole", { role: "alert", hidden: true });

  function setRaw(on) {
    const params = fields.read() ?? {};
    if (!on && (params === null || typeof params !== "object" || Array.isArray(params))) return say("The params are no JSON object, so the form cannot show them.");
    raw = on;
    const at = { name: "params", path: "$", required: true, rows: 12 };
    fields = raw ? rawField({}, at) : formFor(skill.input_schema, { files: state.about.files });
    fields.write(params);
    fill(place, fields.node);
    toggle.textContent = raw ? "Edit as form" : "Edit as JSON";
    return say("");
  }

  function reset() {
    raw = false;
    fields = formFor(skill.input_schema, { files: state.about.files });
    fill(place, fields.node);
    toggle.textContent = "Edit as JSON";
    say("");
  }

  function say(text) {
    problem.textContent = text;
    problem.hidden = !text;
  }

  async function start() {
    say("");
    showProblems(form, []);
    if (check.checked && !form.reportValidity()) return;
    const text = raw ? place.querySelector("textarea").value : write(fields.read() ?? {});
    const wait = Number(deadline.value);
    run.disabled = true;
    try {
      const answer = await submit(skill.name, text, {
        check: check.checked,
        priority: Number(priority.value) || undefined,
        deadline: deadline.value === "" ? undefined : Date.now() / 1000 + wait,
      });
      started(answer.job_id);
      showPart("tasks");
    } catch (error) {
      const left = error instanceof Refused && error.problems.length ? showProblems(form, error.problems) : [error.message];
      if (left.length) say(left.join("\n"));
    } finally {
      run.disabled = false;
    }
  }

  const form = el("form.run", { novalidate: true, onsubmit: (event) => { event.preventDefault(); start(); } },
    place,
    problem,
    el("details.options", {}, el("summary", {}, "Options"),
      el("div.field.check", {}, check, el("label", { for: "check" }, "Check params before they are sent"), el("p.note", {}, "Without it they go to the worker as they are, to see what it makes of them.")),
      el("div.field", {}, el("label", { for: "priority" }, "Priority")  , priority, el("p.note", {}, "Higher is more urgent.")),
      el("div.field", {}, el("label", { for: "deadline" }, "Deadline"), deadline, el("p.note", {}, "Seconds from now."))),
    el("div.actions", {}, run, toggle, el("button.quiet", { type: "button", onclick: reset }, "Reset")));
  return {
    skill: skill.name,
    node: form,
    start,
    params: () => fields.read(),
    write: (params) => fields.write(params),
  };
}
