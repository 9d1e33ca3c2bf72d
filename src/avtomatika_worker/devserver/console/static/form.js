// A form made from a JSON Schema. A field is {node, read(), write(value)}; `read` returns undefined if it is left out.
import { upload } from "./api.js";
import { el, fill, newId } from "./dom.js";
import { parse, write } from "./json.js";

const DEEPEST = 12;
const FILE_FORMATS = new Set(["path", "file-path", "s3-uri", "file", "uri", "url", "data-url"]);
const FILE_NAMES = /(^|_)(file|files|path|picture|image|photo|source|src|input|document|video|audio|url|uri)(_|$)/i;

/** A field for all of the params. */
export function formFor(schema, { files }) {
  const root = schema ?? {};
  return field(root, { root, name: "params", path: "$", required: true, depth: 0, files, top: true });
}

/** Whether the schema says no more about the params than that they are an object. */
const isUntyped = (schema) =>
  !Object.keys(schema.properties ?? {}).length && schema.additionalProperties !== false && !Object.keys(schema.additionalProperties ?? {}).length;

/** Return a schema with references and single alternatives resolved. */
export function resolved(schema, root, depth = 0) {
  if (schema === true || schema === undefined || schema === null) return {};
  if (typeof schema !== "object" || depth > DEEPEST) return { unknown: true };
  if (typeof schema.$ref === "string") {
    const { $ref, ...rest } = schema;
    const target = pointer(root, $ref);
    return target === undefined ? { unknown: true } : resolved({ ...target, ...rest }, root, depth + 1);
  }
  if (Array.isArray(schema.allOf) && schema.allOf.length === 1) {
    const { allOf, ...rest } = schema;
    return resolved({ ...resolved(allOf[0], root, depth + 1), ...rest }, root, depth + 1);
  }
  if (Array.isArray(schema.allOf)) {
    const { allOf, ...rest } = schema;
    const parts = allOf.map((each) => resolved(each, root, depth + 1));
    if (parts.every((each) => each.properties)) return merged([rest, ...parts]);
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(choices)) {
    const { anyOf, oneOf, ...rest } = schema;
    const others = choices.filter((each) => each?.type !== "null");
    const nullable = others.length < choices.length || rest.nullable;
    if (others.length === 1) return { ...resolved({ ...others[0], ...rest }, root, depth + 1), nullable };
    return { ...rest, choices: others, nullable };
  }
  if (Array.isArray(schema.type)) {
    const types = schema.type.filter((each) => each !== "null");
    const nullable = types.length < schema.type.length;
    if (types.length === 1) return { ...schema, type: types[0], nullable };
    const { type, ...rest } = schema;
    return { ...rest, choices: types.map((each) => ({ ...rest, type: each, title: each })), nullable };
  }
  return schema;
}

/** Merge schemas that must all hold into one. */
const merged = (parts) => ({
  ...Object.assign({}, ...parts),
  type: "object",
  properties: Object.assign({}, ...parts.map((each) => each.properties ?? {})),
  required: parts.flatMap((each) => each.required ?? []),
});

function pointer(root, ref) {
  if (ref === "#") return root;
  if (!ref.startsWith("#/")) return undefined;
  const parts = ref.slice(2).split("/").map((part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~"));
  return parts.reduce((value, part) => value?.[part], root);
}

function field(given, at) {
  const schema = resolved(given, at.root);
  if (at.depth > DEEPEST) return rawField(schema, at);
  if (schema.choices) return choiceField(schema, at);
  if (Array.isArray(schema.enum)) return enumField(schema.enum, schema, at);
  if ("const" in schema) return enumField([schema.const], schema, at);
  const type = schema.type ?? (schema.properties ? "object" : undefined);
  if (at.top && isUntyped(schema)) return rawField({ description: schema.description ?? "Any JSON object: the skill announces no fields.", default: schema.default ?? {} }, { ...at, rows: 8 });
  if (type === "object" && (schema.properties || at.top)) return objectField(schema, at);
  if (type === "object" && typeof schema.additionalProperties === "object") return mapField(schema, at);
  if (type === "array" && (schema.items || schema.prefixItems)) return arrayField(schema, at);
  if (type === "boolean") return booleanField(schema, at);
  if (type === "integer" || type === "number") return numberField(schema, at);
  if (type === "string") return textField(schema, at);
  return rawField(schema, at);
}

// ------------------------------------------------------------------------------------------------- around a field

/** Add the label above, the description and constraints below, and the place for problems. */
function framed(at, schema, control, extra) {
  const id = newId("f");
  const problem = el("p.problem", { id: `${id}-problem`, hidden: true });
  const text = notes(schema);
  const note = text ? el("p.note", { id: `${id}-note` }, text) : null;
  control.id = id;
  control.setAttribute("aria-describedby", [note && note.id, problem.id].filter(Boolean).join(" "));
  const label = el("label", { for: id }, title(at, schema), at.required ? el("span.required", { title: "required" }, "*") : null);
  return el("div.field", { "data-path": at.path }, label, extra ? el("div.row", {}, control, extra) : control, note, problem);
}

const title = (at, schema) => (at.index !== undefined ? `${at.index + 1}` : at.name ?? schema.title ?? "value");

/** The description and the constraints, as sentences. */
const notes = (schema) => [schema.description, constraints(schema)].map(sentence).filter(Boolean).join(" ");

function sentence(text) {
  const trimmed = (text ?? "").trim();
  return /[\p{L}\p{N})\]'"`]$/u.test(trimmed) ? `${trimmed}.` : trimmed;
}

const shortened = (text) => (text.length > 60 ? `${text.slice(0, 60)}…` : text);

function constraints(schema) {
  const parts = [];
  const between = (low, high, unit) => {
    if (low !== undefined && high !== undefined) parts.push(low === high ? `exactly ${low}${unit}` : `from ${low} to ${high}${unit}`);
    else if (low !== undefined) parts.push(`at least ${low}${unit}`);
    else if (high !== undefined) parts.push(`at most ${high}${unit}`);
  };
  between(schema.minimum, schema.maximum, "");
  if (schema.exclusiveMinimum !== undefined) parts.push(`more than ${schema.exclusiveMinimum}`);
  if (schema.exclusiveMaximum !== undefined) parts.push(`less than ${schema.exclusiveMaximum}`);
  if (schema.multipleOf !== undefined) parts.push(`multiples of ${schema.multipleOf}`);
  between(schema.minLength, schema.maxLength, " characters");
  between(schema.minItems, schema.maxItems, " items");
  if (schema.uniqueItems) parts.push("no duplicates");
  if (schema.pattern) parts.push(`matches ${schema.pattern}`);
  if (schema.format && !["path"].includes(schema.format)) parts.push(schema.format);
  if (schema.default !== undefined && schema.default !== null && typeof schema.default !== "object") {
    parts.push(`default ${schema.default === "" ? "empty" : shortened(String(schema.default))}`);
  }
  const all = parts.join(", ");
  return all && `${all[0].toUpperCase()}${all.slice(1)}.`;
}

// ------------------------------------------------------------------------------------------------- simple fields

function textField(schema, at) {
  const long = schema.maxLength === undefined || schema.maxLength > 120;
  const plain = schema.format || schema.pattern || !long || isFile(schema, at);
  const types = { date: "date", email: "email", color: "color", password: "password" };
  const control = plain
    ? el("input", { type: types[schema.format] ?? "text", pattern: usable(schema.pattern), autocomplete: "off" })
    : el("textarea", { rows: 1 });
  control.spellcheck = false;
  if (schema.minLength !== undefined) control.minLength = schema.minLength;
  if (schema.maxLength !== undefined && schema.maxLength < 2 ** 31) control.maxLength = schema.maxLength;
  control.required = Boolean(at.required && !schema.nullable && !allowsBlank(schema));
  if (schema.examples?.length) control.placeholder = String(schema.examples[0]);
  else if (at.required && !control.required) control.placeholder = schema.nullable ? "null" : "empty text";
  const self = {
    node: framed(at, schema, control, isFile(schema, at) && at.files ? filePicker(control, schema) : null),
    read: () => (control.value === "" ? empty(at, schema, "") : control.value),
    write: (value) => { control.value = value ?? ""; },
  };
  if (schema.default !== undefined) self.write(schema.default);
  return self;
}

/** Whether a schema explicitly allows the empty string: most that say nothing about it do not intend to. */
const allowsBlank = (schema) => schema.minLength === 0 || schema.default === "" || Boolean(schema.examples?.includes(""));

const isBase64 = (schema) => schema.contentEncoding === "base64" || schema.format === "byte";

const isFile = (schema, at) =>
  isBase64(schema) || FILE_FORMATS.has(schema.format) || (!schema.format && !schema.pattern && FILE_NAMES.test(at.name ?? ""));

/** A button that uploads a file and puts a reference to it into the control. */
function filePicker(control, schema) {
  const picker = el("input.picker", { type: "file", tabindex: -1, "aria-hidden": true });
  const button = el("button.quiet", { type: "button", onclick: () => picker.click() }, "Upload…");
  picker.addEventListener("change", async () => {
    const file = picker.files[0];
    if (!file) return;
    button.disabled = true;
    button.textContent = "Uploading…";
    try {
      control.value = isBase64(schema) ? await base64(file) : await uploaded(file, schema);
      control.dispatchEvent(new Event("input", { bubbles: true }));
      button.textContent = `Uploaded ${file.name}`;
    } catch (error) {
      button.textContent = "Upload…";
      showProblem(control.closest(".field"), error.message);
    }
    button.disabled = false;
    picker.value = "";
  });
  return el("span", {}, button, picker);
}

const uploaded = async (file, schema) => {
  const answer = await upload(file);
  return schema.format === "s3-uri" ? answer.uri : answer.value;
};

const base64 = (file) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => reject(new Error("the file cannot be read"));
  reader.readAsDataURL(file);
});

function usable(pattern) {
  try {
    new RegExp(pattern, "v");
  } catch {
    return undefined; // of another dialect: the orchestrator checks it
  }
  return pattern && (pattern.startsWith("^") && pattern.endsWith("$") ? pattern : `.*(?:${pattern}).*`);
}

function numberField(schema, at) {
  const whole = schema.type === "integer";
  const control = el("input", { type: "text", inputmode: whole ? "numeric" : "decimal", autocomplete: "off" });
  control.required = Boolean(at.required);
  const problem = () => {
    const text = control.value.trim();
    if (text === "") return "";
    if (!(whole ? /^-?\d+$/ : /^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i).test(text)) return whole ? "A whole number, please." : "A number, please.";
    const value = Number(text);
    if (schema.minimum !== undefined && value < schema.minimum) return `At least ${schema.minimum}.`;
    if (schema.maximum !== undefined && value > schema.maximum) return `At most ${schema.maximum}.`;
    if (schema.exclusiveMinimum !== undefined && value <= schema.exclusiveMinimum) return `More than ${schema.exclusiveMinimum}.`;
    if (schema.exclusiveMaximum !== undefined && value >= schema.exclusiveMaximum) return `Less than ${schema.exclusiveMaximum}.`;
    return "";
  };
  control.addEventListener("input", () => control.setCustomValidity(problem()));
  control.addEventListener("keydown", (event) => {
    const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!step || event.ctrlKey || event.altKey || !/^-?\d+$/.test(control.value.trim())) return;
    event.preventDefault();
    control.value = String(BigInt(control.value.trim()) + BigInt(step));
    control.dispatchEvent(new Event("input", { bubbles: true }));
  });
  const self = {
    node: framed(at, schema, control),
    read: () => {
      const text = control.value.trim();
      if (text === "") return empty(at, schema, undefined);
      if (/^-?\d+$/.test(text)) return Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text);
      return Number.isNaN(Number(text)) ? text : Number(text);
    },
    write: (value) => { control.value = value === undefined || value === null ? "" : String(value); control.setCustomValidity(problem()); },
  };
  if (schema.default !== undefined) self.write(schema.default);
  return self;
}

function booleanField(schema, at) {
  const three = schema.nullable || (!at.required && schema.default === undefined);
  if (three) return enumField([true, false], { ...schema, labels: ["yes", "no"] }, at);
  const control = el("input", { type: "checkbox" });
  const node = framed(at, schema, control);
  node.classList.add("check");
  node.prepend(control);
  control.checked = schema.default === true;
  return { node, read: () => control.checked, write: (value) => { control.checked = value === true; } };
}

function enumField(values, schema, at) {
  const control = el("select");
  const fixed = values.length === 1 && at.required;
  if (!fixed && (schema.nullable || !at.required || schema.default === undefined)) {
    control.append(el("option", { value: "" }, at.required && !schema.nullable ? "choose…" : "not set"));
  }
  values.forEach((value, index) => control.append(el("option", { value: index }, schema.labels?.[index] ?? label(value))));
  control.required = Boolean(at.required && !schema.nullable);
  const self = {
    node: framed(at, schema, control),
    read: () => (control.value === "" ? empty(at, schema, undefined) : values[Number(control.value)]),
    write: (value) => {
      const index = values.findIndex((each) => write(each) === write(value));
      control.value = index < 0 ? "" : String(index);
    },
  };
  self.write(schema.default);
  if (fixed) self.write(values[0]);
  return self;
}

const label = (value) => (typeof value === "string" ? value || "(empty)" : write(value));

/** The meaning of an empty control. */
function empty(at, schema, otherwise) {
  if (!at.required) return undefined;
  return schema.nullable ? null : otherwise;
}

/** A JSON text field, for what a form cannot show. */
export function rawField(schema, at) {
  const control = el("textarea.code", { rows: at.rows ?? 3, spellcheck: false, placeholder: at.required ? "JSON" : "JSON, or nothing" });
  const problem = () => {
    if (control.value.trim() === "") return at.required ? "JSON is needed here, such as null or {}." : "";
    try {
      parse(control.value);
      return "";
    } catch (error) {
      return `No JSON: ${error.message}`;
    }
  };
  control.addEventListener("input", () => control.setCustomValidity(problem()));
  const self = {
    node: framed(at, schema, control),
    read: () => {
      if (control.value.trim() === "") return undefined;
      try {
        return parse(control.value);
      } catch {
        return control.value;
      }
    },
    write: (value) => { control.value = value === undefined ? "" : write(value, 2); control.setCustomValidity(problem()); },
  };
  self.write(schema.default);
  return self;
}

// ------------------------------------------------------------------------------------------------- fields with parts

/** An optional fieldset, which a button adds. */
function optional(schema, at, make) {
  if (at.required) return make();
  const place = el("div.optional", { "data-path": at.path });
  let inner = null;
  const name = title(at, schema);
  const add = () => {
    inner = make();
    fill(place, inner.node, el("button.quiet.small", { type: "button", onclick: remove }, `Remove ${name}`));
    return inner;
  };
  const remove = () => {
    inner = null;
    fill(place, el("button.quiet", { type: "button", onclick: () => { add(); place.querySelector("input,select,textarea,button")?.focus(); } }, `Add ${name}`),
      schema.description ? el("p.note", {}, schema.description) : null);
  };
  remove();
  const self = {
    node: place,
    read: () => inner?.read(),
    write: (value) => { if (value === undefined || value === null) remove(); else add().write(value); },
  };
  if (schema.default !== undefined && schema.default !== null) self.write(schema.default);
  return self;
}

function objectField(schema, at) {
  return optional(schema, at, () => objectParts(schema, at));
}

function objectParts(schema, at) {
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {}).map(([name, each]) => [name, field(each, {
    ...at, name, index: undefined, top: false, path: `${at.path}.${name}`, required: required.has(name), depth: at.depth + 1,
  })]);
  const open = schema.additionalProperties !== false && (typeof schema.additionalProperties === "object" || (at.top && !fields.length));
  const rest = open ? otherFields(schema, at) : null;
  const nothing = at.top && !fields.length && !open ? el("p.dim", {}, "This skill takes no params.") : null;
  const parts = [...fields.map(([, each]) => each.node), rest?.node, nothing];
  const node = at.top
    ? el("div.fields", { "data-path": at.path }, parts)
    : el("fieldset", { "data-path": at.path }, el("legend", {}, title(at, schema)), schema.description ? el("p.note", {}, schema.description) : null, parts, el("p.problem", { hidden: true }));
  let unknown = {};
  return {
    node,
    read: () => {
      const value = { ...unknown, ...rest?.read() };
      for (const [name, each] of fields) {
        const part = each.read();
        if (part !== undefined) value[name] = part;
      }
      return value;
    },
    write: (value) => {
      const names = new Set(fields.map(([name]) => name));
      const others = Object.fromEntries(Object.entries(value ?? {}).filter(([name]) => !names.has(name)));
      if (rest) rest.write(others);
      else unknown = others; // what the form does not show is kept all the same
      for (const [name, each] of fields) each.write(value?.[name]);
    },
  };
}

/** Fields that the schema does not name, as rows of a name and a value. */
function otherFields(schema, at) {
  const values = typeof schema.additionalProperties === "object" ? schema.additionalProperties : {};
  return rows(values, { ...at, path: at.path }, "field");
}

function mapField(schema, at) {
  const inner = rows(schema.additionalProperties, at, "entry");
  const self = {
    node: el("fieldset", { "data-path": at.path }, el("legend", {}, title(at, schema)), schema.description ? el("p.note", {}, schema.description) : null, inner.node, el("p.problem", { hidden: true })),
    read: () => orNothing(inner.read(), schema, at),
    write: inner.write,
  };
  if (schema.default) self.write(schema.default);
  return self;
}

/** Leave out an empty list or map, unless it is required or differs from the default. */
function orNothing(value, schema, at) {
  const something = Object.keys(value).length > 0 || at.required || (schema.default !== undefined && schema.default !== null);
  return something ? value : undefined;
}

function rows(values, at, what) {
  const list = el("div.items");
  const items = [];
  const add = (name = "", value) => {
    const key = el("input", { type: "text", "aria-label": "Name", placeholder: "name", value: name, autocomplete: "off" });
    const inner = field(values, { ...at, name: "value", index: undefined, top: false, path: `${at.path}.${name || "?"}`, required: true, depth: at.depth + 1 });
    if (value !== undefined) inner.write(value);
    const item = { key, inner };
    const remove = el("button.quiet.small", { type: "button", "aria-label": `Remove ${what}`, onclick: () => { items.splice(items.indexOf(item), 1); node.remove(); } }, "Remove");
    const node = el("div.entry", {}, el("div.field", {}, el("label", {}, "name", key)), inner.node, remove);
    items.push(item);
    list.append(node);
    return key;
  };
  const clear = () => { items.length = 0; list.replaceChildren(); };
  return {
    node: el("div", {}, list, el("button.quiet", { type: "button", onclick: () => add().focus() }, `Add ${what}`)),
    read: () => Object.fromEntries(items.filter(({ key }) => key.value !== "").map(({ key, inner }) => [key.value, inner.read() ?? null])),
    write: (value) => { clear(); for (const [name, each] of Object.entries(value ?? {})) add(name, each); },
  };
}

function arrayField(schema, at) {
  const list = el("div.items");
  const items = [];
  const first = schema.prefixItems ?? [];
  const rest = typeof schema.items === "object" ? schema.items : schema.items === false || first.length ? null : {};
  const most = schema.maxItems ?? (rest ? Infinity : first.length);
  const least = at.required ? Math.min(schema.minItems ?? 0, 50) : 0;
  const adder = el("button.quiet", { type: "button", onclick: () => { add().node.querySelector("input,select,textarea,button")?.focus(); } }, "Add item");
  const add = (value) => {
    const index = items.length;
    const inner = field(first[index] ?? rest ?? {}, { ...at, index, top: false, path: `${at.path}[${index}]`, required: true, depth: at.depth + 1 });
    if (value !== undefined) inner.write(value);
    const remove = el("button.quiet.small", { type: "button", "aria-label": `Remove item ${index + 1}`, onclick: () => removeAt(item) }, "Remove");
    const item = { inner, node: el("div.item", {}, inner.node, remove) };
    items.push(item);
    list.append(item.node);
    adder.hidden = items.length >= most;
    return item;
  };
  const removeAt = (item) => {
    // The others are rebuilt, because their numbers and paths change.
    const values = items.filter((each) => each !== item).map((each) => each.inner.read() ?? null);
    self.write(values);
    adder.focus();
  };
  const self = {
    node: el("fieldset", { "data-path": at.path },
      el("legend", {}, title(at, schema), least > 0 ? el("span.required", { title: "required" }, "*") : null),
      notes(schema) ? el("p.note", {}, notes(schema)) : null,
      list, adder, el("p.problem", { hidden: true })),
    read: () => orNothing(items.map((each) => each.inner.read() ?? null), schema, at),
    write: (value) => {
      items.length = 0;
      list.replaceChildren();
      adder.hidden = false;
      for (const each of Array.isArray(value) ? value : []) add(each);
    },
  };
  if (Array.isArray(schema.default)) self.write(schema.default);
  while (items.length < least) add();
  return self;
}

/** Alternatives: a choice, and the field for the chosen one. */
function choiceField(schema, at) {
  const names = distinct(schema.choices.map((each, index) => choiceName(each, at.root) ?? `form ${index + 1}`));
  const select = el("select", { "aria-label": `Kind of ${title(at, schema)}` });
  const none = !at.required || schema.nullable;
  if (none) select.append(el("option", { value: "" }, "not set"));
  names.forEach((name, index) => select.append(el("option", { value: index }, name)));
  const place = el("div.choice");
  let inner = null;
  const choose = (index) => {
    select.value = index === "" ? "" : String(index);
    inner = index === "" ? null : field(schema.choices[Number(index)], { ...at, name: "value", index: undefined, top: false, required: true, depth: at.depth + 1 });
    fill(place, inner?.node);
  };
  select.addEventListener("change", () => choose(select.value));
  choose(none ? "" : 0);
  const self = {
    node: el("fieldset", { "data-path": at.path }, el("legend", {}, title(at, schema)), schema.description ? el("p.note", {}, schema.description) : null, select, place, el("p.problem", { hidden: true })),
    read: () => (inner ? inner.read() : empty(at, schema, undefined)),
    write: (value) => {
      if (value === undefined || value === null) return choose(none ? "" : 0);
      const index = schema.choices.findIndex((each) => fits(value, resolved(each, at.root), at.root));
      choose(index < 0 ? 0 : index);
      return inner.write(value);
    },
  };
  if (schema.default !== undefined && schema.default !== null) self.write(schema.default);
  return self;
}

/** The name of an alternative: its title, or else the name of its definition, of its marking constant, or of its type. */
function choiceName(each, root) {
  const one = resolved(each, root);
  const ref = typeof each?.$ref === "string" ? each.$ref.split("/").pop() : undefined;
  const mark = Object.values(one.properties ?? {}).map((part) => resolved(part, root)).find((part) => typeof part.const === "string");
  if (one.title ?? ref ?? mark) return one.title ?? ref ?? mark.const;
  if ("const" in one) return label(one.const);
  if (one.enum) return one.enum.slice(0, 4).map(label).join(", ");
  return one.type;
}

/** Names, numbered where one occurs more than once. */
const distinct = (names) => names.map((name, index) => (names.indexOf(name) === names.lastIndexOf(name) ? name : `${name} ${names.slice(0, index + 1).filter((each) => each === name).length}`));

/** Whether a value looks like it matches a schema, well enough to choose an alternative. */
function fits(value, schema, root) {
  if ("const" in schema) return write(value) === write(schema.const);
  if (schema.enum) return schema.enum.some((each) => write(each) === write(value));
  const type = Array.isArray(value) ? "array" : value === null ? "null" : typeof value;
  const wanted = schema.type ?? (schema.properties ? "object" : undefined);
  if (wanted === "integer") return type === "bigint" || Number.isInteger(value);
  if (wanted && wanted !== type) return false;
  if (type !== "object") return true;
  const properties = schema.properties ?? {};
  return (schema.required ?? []).every((name) => name in value)
    && Object.entries(properties).every(([name, each]) => !(name in value) || !("const" in resolved(each, root)) || fits(value[name], resolved(each, root), root));
}

// ------------------------------------------------------------------------------------------------- what is wrong

export function showProblem(node, text) {
  const place = node?.querySelector(":scope > .problem");
  if (!place) return false;
  place.textContent = text;
  place.hidden = !text;
  node.querySelector(":scope > input, :scope > select, :scope > textarea, :scope > .row > input")?.setAttribute("aria-invalid", text ? "true" : "false");
  return true;
}

/** Show problems next to their fields; return those without a field. */
export function showProblems(form, problems) {
  for (const node of form.querySelectorAll("[data-path]")) showProblem(node, "");
  const left = [];
  let first = null;
  for (const { path, problem } of problems) {
    const node = [...form.querySelectorAll("[data-path]")].find((each) => each.dataset.path === path && each.querySelector(":scope > .problem"));
    if (showProblem(node, problem)) first ??= node;
    else left.push(`${path}: ${problem}`);
  }
  first?.querySelector("input,select,textarea,button")?.focus();
  return left;
}
