// Readable values: pictures as pictures, lists of similar objects as tables, anything else as collapsible JSON.
import { fileAt } from "./api.js";
import { el } from "./dom.js";
import { write } from "./json.js";

const PICTURE_NAME = /\.(png|jpe?g|gif|webp|avif|bmp|svg)$/i;
const PICTURE_DATA = /^data:image\/(png|jpeg|gif|webp|avif|bmp|svg\+xml)[;,]/i;
const MAGIC = [["iVBORw0KGgo", "png"], ["/9j/", "jpeg"], ["R0lGOD", "gif"], ["UklGR", "webp"]];
const MOST_ROWS = 200;
const MOST_PARTS = 200;
const LONG_TEXT = 300;

/** Show any value. `open` is how many levels are expanded. */
export function show(value, open = 2) {
  if (typeof value === "string") return text(value);
  if (value === null || typeof value !== "object") return el("span.scalar", {}, write(value));
  if (Array.isArray(value)) {
    if (isTable(value)) return table(value);
    if (isLine(value)) {
      const rest = value.length > MOST_PARTS ? el("span.dim", {}, ` and ${(value.length - MOST_PARTS).toLocaleString("en")} more`) : null;
      return el("span.scalar", {}, value.slice(0, MOST_PARTS).map((each) => (typeof each === "string" ? each : write(each))).join(", "), rest);
    }
  }
  return open < 2 && isShort(value) ? inline(value) : tree(value, open);
}

/** Whether a list reads well as one text: a few short values, or any number of numbers. */
const isLine = (list) => list.length > 0 && (list.every((each) => typeof each === "number" || typeof each === "bigint")
  || (list.length <= 20 && list.every(isScalar) && write(list).length < 120));

/** Whether an object is as short as a sentence. */
const isShort = (value) => {
  const entries = Object.entries(value);
  return !Array.isArray(value) && entries.length > 0 && entries.length <= 6
    && entries.every(([, each]) => isScalar(each) || (Array.isArray(each) && each.length > 0 && each.every(isScalar)))
    && write(value).length <= 120;
};

const isScalar = (value) => value === null || typeof value !== "object";

const inline = (value) => el("span.inline", {}, Object.entries(value).map(([name, each]) =>
  el("span", {}, el("span.key", {}, `${name} `), show(each, 0))));

/** The first pictures, at most eight, that a value refers to. */
export function pictures(value) {
  const found = [];
  let visits = 0;
  const look = (each, name) => {
    if (found.length >= 8 || ++visits > 5000) return;
    if (typeof each === "string") {
      const source = pictureSource(each);
      if (source) found.push({ source, name, uri: each });
    } else if (each && typeof each === "object") {
      for (const [key, part] of Object.entries(each).slice(0, 500)) look(part, name ? `${name}.${key}` : key);
    }
  };
  look(value, "");
  return found;
}

function pictureSource(text) {
  if (PICTURE_DATA.test(text)) return text;
  if (text.length > 200 && text.length % 4 === 0) {
    const kind = MAGIC.find(([start]) => text.startsWith(start));
    if (kind && /^[A-Za-z0-9+/]+={0,2}$/.test(text)) return `data:image/${kind[1]};base64,${text}`;
  }
  return isLocal(text) && PICTURE_NAME.test(text) ? fileAt(text) : null;
}

const isLocal = (text) => text.startsWith("file:///") || (text.startsWith("/") && text.length < 1000 && !text.includes("\n"));

export function gallery(value) {
  const found = pictures(value);
  if (!found.length) return null;
  return el("div.gallery", {}, found.map(({ source, name, uri }) => {
    const picture = el("img", { src: source, alt: name || "picture", loading: "lazy" });
    const figure = el("figure", {}, source.startsWith("data:") ? picture : el("a", { href: source, target: "_blank", rel: "noopener" }, picture), el("figcaption", {}, name || "picture"));
    // A file that is missing, or not below the worker's root, is shown only by its name in the data.
    picture.addEventListener("error", () => { figure.remove(); });
    figure.dataset.uri = uri.slice(0, 300);
    return figure;
  }));
}

function text(value) {
  if (value === "") return el("span.scalar.dim", {}, "(empty)");
  if (value.startsWith("file:///") && !value.endsWith("/")) {
    return el("span", {}, value, " ", el("a.small", { href: fileAt(value, true), download: "" }, "download"));
  }
  if (value.length > LONG_TEXT || value.split("\n").length > 4) {
    const short = value.slice(0, 120).split("\n")[0];
    const size = `${value.length.toLocaleString("en")} characters`;
    return el("details.text", {}, el("summary", {}, `${short}… `, el("span.dim", {}, size)), el("pre", {}, value.slice(0, 200_000)));
  }
  return el("span.scalar.string", {}, value);
}

/** Whether a list reads better as a table: its items are objects with the same few fields. */
function isTable(list) {
  if (list.length < 2 || !list.every((each) => each && typeof each === "object" && !Array.isArray(each))) return false;
  const names = columns(list);
  return names.length > 0 && names.length <= 12;
}

const columns = (list) => [...new Set(list.slice(0, MOST_ROWS).flatMap((each) => Object.keys(each)))];

function table(list) {
  const names = columns(list);
  const rows = list.slice(0, MOST_ROWS).map((each) => el("tr", {}, names.map((name) => {
    const value = each[name];
    const numeric = typeof value === "number" || typeof value === "bigint";
    return el(numeric ? "td.number" : "td", {}, value === undefined ? "" : show(value, Math.max(0, open - 1)));
  })));
  const more = list.length > MOST_ROWS ? el("p.dim", {}, `and ${list.length - MOST_ROWS} more rows`) : null;
  return el("div.scroll", { tabindex: 0, role: "region", "aria-label": "Table" },
    el("table", {}, el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, rows)), more);
}

function tree(value, open) {
  const list = Array.isArray(value);
  const entries = Object.entries(value);
  if (!entries.length) return el("span.scalar.dim", {}, list ? "[ ]" : "{ }");
  const rows = () => {
    const shown = entries.slice(0, MOST_PARTS).map(([name, each]) => el("div.pair", {}, el("span.key", {}, name), show(each, open - 1)));
    return entries.length > MOST_PARTS ? [...shown, el("p.dim", {}, `and ${entries.length - MOST_PARTS} more`)] : shown;
  };
  if (open >= 2) return el("div.tree", {}, rows());
  const count = `${entries.length} ${list ? "item" : "field"}${entries.length === 1 ? "" : "s"}`;
  const names = list ? count : entries.slice(0, 5).map(([name]) => name).join(", ") + (entries.length > 5 ? ", …" : "");
  const summary = el("summary", {}, names);
  const node = el("details.tree", {}, summary);
  const unfold = () => {
    summary.textContent = node.open ? count : names; // the names stand below then
    if (node.open && node.childElementCount === 1) node.append(el("div.tree", {}, rows()));
  };
  node.addEventListener("toggle", unfold);
  if (open === 1) { node.open = true; unfold(); }
  return node;
}

/** A button that copies text and confirms it. */
export function copier(name, text, attributes = {}) {
  const button = el("button.quiet.small", { type: "button", ...attributes, onclick: async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = name; }, 1500);
    } catch (error) {
      button.textContent = error instanceof SyntaxError ? "The JSON is incomplete" : "Copying is not allowed";
    }
  } }, name);
  return button;
}

/** The whole value as JSON text, collapsed, with a button that copies it. */
export function source(value, name) {
  const node = el("details.source", {}, el("summary", {}, name));
  node.addEventListener("toggle", () => {
    if (!node.open || node.childElementCount > 1) return;
    const code = write(value, 2);
    const copy = copier("Copy", () => code);
    node.append(copy, el("pre", { tabindex: 0 }, code.length > 500_000 ? `${code.slice(0, 500_000)}\n…` : code));
  });
  return node;
}
