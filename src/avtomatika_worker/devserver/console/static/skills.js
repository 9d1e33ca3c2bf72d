// The list of skills, and the page of the chosen one: its description and the form to run it.
import { address, setAddress } from "./addresses.js";
import { Refused, submit } from "./api.js";
import { COPIES } from "./copies.js";
import { el, fill } from "./dom.js";
import { formFor, rawField, showProblems } from "./form.js";
import { parse, write } from "./json.js";
import { sample } from "./sample.js";
import { draft, dropDraft, keepDraft } from "./storage.js";
import { on, state } from "./store.js";
import { copier, source } from "./values.js";

export function startSkills(list, page, { showPart, notice, started, opened, suggested }) {
  const find = el("input", { type: "search", id: "find", placeholder: "Find a skill", "aria-label": "Find a skill", autocomplete: "off" });
  const names = el("div.list");
  fill(list, el("h2", {}, "Skills"), find, names);
  let chosen = null;
  let shown = ""; // the skill as JSON: the form is rebuilt only if it has changed
  let form = null;
  let wanted = null; // what was chosen last, whether a worker has it now or not

  const skillOf = (name) => state.skills.find((each) => each.name === name);

  function drawList({ moved = false } = {}) {
    const text = find.value.trim().toLowerCase();
    const found = state.skills.filter((each) => `${each.name} ${each.description ?? ""}`.toLowerCase().includes(text));
    const focused = document.activeElement?.dataset?.skill;
    const groups = byCategory(found);
    fill(names, groups.map(([category, skills]) => [
      groups.length > 1 || category ? el("h3.category", {}, category || "Other") : null,
      skills.map(entry),
    ]),
    found.length ? null : el("p.dim", {}, state.skills.length ? "No skills match." : "No worker has registered a skill yet."));
    if (focused) names.querySelector(`[data-skill="${CSS.escape(focused)}"]`)?.focus();
    else if (moved) names.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  const entry = (each) => el("button.entry", {
    type: "button", "data-skill": each.name, "aria-current": each.name === chosen ? "true" : null,
    // Keyboard users continue in the form; on touch screens, the on-screen keyboard would cover it.
    onclick: (event) => { open(each.name); showPart("run"); if (event.detail === 0) focusForm(); },
  }, el("strong", {}, each.name), each.description ? el("span.dim", {}, firstLine(each.description)) : null);

  const focusForm = () => page.querySelector("form input:not(.picker), form textarea, form select, form button")?.focus();

  find.addEventListener("input", () => drawList());
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
    chosen = wanted = name;
    drawList({ moved: true });
    drawPage();
  }

  /** Choose a skill, and close the run that was shown. */
  function open(name) {
    choose(name);
    setAddress(["skill", name]);
    opened(name);
  }

  function drawPage() {
    const skill = skillOf(chosen);
    if (!skill) {
      shown = "";
      form = null;
      fill(page, el("p.dim.middle", {}, state.skills.length ? "Choose a skill to run it." : "A skill's form is shown here once a worker has registered one."));
      return;
    }
    const now = write(skill);
    if (now === shown) return;
    const typed = form?.skill === skill.name ? form.typed() : undefined;
    shown = now;
    form = skillForm(skill, { notice, started: (id) => { started(id); }, showPart });
    fill(page, about(skill), form.node, schemas(skill));
    if (typed !== undefined) form.write(typed); // the skill was edited while its form was open
  }

  on(["skills"], () => {
    let moved = false;
    if (!skillOf(chosen)) {
      const [kind, name] = address();
      chosen = [wanted, kind === "skill" ? name : null].find(skillOf) ?? byCategory(state.skills)[0]?.[1][0].name ?? null;
      suggested(chosen);
      moved = true;
    }
    drawList({ moved });
    drawPage();
  });

  return {
    run: () => form?.start(),
    get chosen() { return chosen; },
    /** Show a skill's form as it was left. */
    show(name) {
      wanted = name; // an address may name it before the skills have come
      if (skillOf(name) && name !== chosen) choose(name);
    },
    /** Open a skill's form with params in it. */
    edit(name, params) {
      if (!skillOf(name)) return notice(`No worker has the skill ${name} at the moment.`);
      if (name !== chosen) choose(name);
      form.write(params);
      showPart("run");
      focusForm();
      return undefined;
    },
  };
}

/** Skills below their categories, both in the order of the worker's code. */
function byCategory(skills) {
  const groups = new Map();
  for (const each of skills) {
    const category = typeof each.properties?.category === "string" ? each.properties.category : "";
    groups.set(category, [...(groups.get(category) ?? []), each]);
  }
  return [...groups];
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
  const run = el("button.main", { type: "submit", "aria-keyshortcuts": "Control+Enter Meta+Enter" }, "Run");
  const problem = el("p.problem.whole", { role: "alert", hidden: true });

  function setRaw(on) {
    const params = fields.read() ?? {};
    if (!on && (params === null || typeof params !== "object" || Array.isArray(params))) return say("The params are not a JSON object, so the form cannot show them.");
    useFields(on);
    fields.write(params);
    return say("");
  }

  function useFields(asJson) {
    raw = asJson;
    const at = { name: "params", path: "$", required: true, rows: 12 };
    fields = raw ? rawField({}, at) : formFor(skill.input_schema, { files: state.about.files });
    fill(place, fields.node);
    toggle.textContent = raw ? "Edit as form" : "Edit as JSON";
  }

  function reset() {
    useFields(false);
    dropDraft(skill.name);
    say("");
  }

  /** Put params into the form or the JSON, whichever is open. */
  function writeParams(params) {
    fields.write(params);
    keepNow();
  }

  const paramsAsText = () => (raw ? place.querySelector("textarea").value : write(fields.read() ?? {}));
  const untouched = paramsAsText();
  const keepNow = () => {
    if (!raw && paramsAsText() === untouched) dropDraft(skill.name); // so that a default changed in the code shows
    else keepDraft(skill.name, write({ raw, text: paramsAsText() }));
  };

  /** Restore what was typed before, if the skill is unchanged. */
  function takeUp() {
    const left = draft(skill.name);
    if (left === null) return;
    try {
      const { raw: asJson, text } = parse(left);
      const params = asJson ? text : parse(text);
      if (typeof params !== "string") return fields.write(params);
      if (asJson) useFields(true);
      place.querySelector("textarea").value = params; // perhaps not yet complete JSON
    } catch {
      dropDraft(skill.name);
    }
  }

  function say(text) {
    problem.textContent = text;
    problem.hidden = !text;
  }

  async function start() {
    say("");
    showProblems(form, []);
    if (check.checked && !form.reportValidity()) return;
    const text = paramsAsText();
    const wait = Number(deadline.value);
    run.disabled = true;
    try {
      const answer = await submit(skill.name, text, {
        check: check.checked,
        priority: Number(priority.value) || undefined,
        deadline: deadline.value === "" ? undefined : Date.now() / 1000 + wait,
      });
      started(answer.job_id);
      showPart("output");
    } catch (error) {
      const left = error instanceof Refused && error.problems.length ? showProblems(form, error.problems) : [error.message];
      if (left.length) say(left.join("\n"));
    } finally {
      run.disabled = false;
    }
  }

  const copies = Object.entries(COPIES).map(([name, code]) => copier(name, () => code(skill.name, raw ? parse(paramsAsText() || "{}") : fields.read() ?? {}), { title: `Copy as ${name}` }));
  const form = el("form.run", { novalidate: true, onsubmit: (event) => { event.preventDefault(); start(); }, oninput: keepNow, onclick: () => { if (document.contains(form)) keepNow(); } },
    place,
    problem,
    el("details.options", {}, el("summary", {}, "Options"),
      el("div.field.check", {}, check, el("label", { for: "check" }, "Check params before sending"), el("p.note", {}, "Otherwise they are sent to the worker unchecked, to see how it handles them.")),
      el("div.field", {}, el("label", { for: "priority" }, "Priority")  , priority, el("p.note", {}, "Higher is more urgent.")),
      el("div.field", {}, el("label", { for: "deadline" }, "Deadline"), deadline, el("p.note", {}, "Seconds from now."))),
    el("p.copies.dim", {}, "Copy as ", copies),
    el("div.actions.sticky", {}, run, el("kbd.wide", { "aria-hidden": "true" }, "Ctrl+Enter"), toggle,
      el("button.quiet", { type: "button", onclick: () => writeParams(sample(skill.input_schema ?? {})) }, "Sample values"),
      el("button.quiet", { type: "button", onclick: (event) => { event.stopPropagation(); reset(); } }, "Reset")));
  takeUp();
  return {
    skill: skill.name,
    node: form,
    start,
    /** The params as typed; undefined if nothing was. */
    typed: () => (!raw && paramsAsText() === untouched ? undefined : fields.read()),
    write: writeParams,
  };
}
