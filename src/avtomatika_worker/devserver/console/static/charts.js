// Charts: runs per minute, durations by skill, slots in use.
import { el, fill, setText } from "./dom.js";
import { on, state } from "./store.js";
import { duration, now } from "./times.js";

const MINUTES = 30;
const SECONDS = 300; // of the slots
const HEIGHT = 60;
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const chart = (width, label, ...children) => svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label, class: "chart" }, ...children);

/** A chart with its greatest value at the top left, and below it when it begins and ends. */
function plot(title, past) {
  const top = el("span.top");
  const place = el("div");
  const text = el("p.dim.note");
  const node = el("section.plot", {}, el("h3", {}, title), el("div.axes", { "aria-hidden": "true" }, top), place, el("p.dim.span", { "aria-hidden": "true" }, el("span", {}, past), el("span", {}, "now")), text);
  return {
    node,
    draw(most, words, width, ...shapes) {
      setText(top, String(most));
      setText(text, `${words}.`);
      fill(place, chart(width, words, ...shapes));
    },
  };
}

const times = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

export function startCharts(place) {
  const minutes = plot("Runs a minute", `${MINUTES} min ago`);
  const slots = plot("Slots in use", `${SECONDS / 60} min ago`);
  const skills = el("div");
  fill(place, minutes.node, slots.node, el("section", {}, el("h3", {}, "Durations by skill"), skills));

  function drawMinutes() {
    const first = Math.floor(now() / 60) - MINUTES + 1;
    const counts = state.figures.minutes.filter(([minute]) => minute >= first);
    const sum = (index) => counts.reduce((all, each) => all + each[index], 0);
    const most = Math.max(1, ...counts.map(([, good, bad]) => good + bad));
    const total = sum(1) + sum(2);
    const text = total ? `${times(total, "run", "runs")} in ${MINUTES} minutes, ${sum(2).toLocaleString("en")} without success; at most ${most.toLocaleString("en")} in one` : `No runs in ${MINUTES} minutes`;
    const bar = (minute, count, below, kind) => svg("rect", { x: (minute - first) * 10 + 1, width: 8, y: HEIGHT - ((below + count) / most) * HEIGHT, height: (count / most) * HEIGHT, class: kind });
    minutes.draw(most, text, MINUTES * 10, ...counts.flatMap(([minute, good, bad]) => [good && bar(minute, good, 0, "good"), bad && bar(minute, bad, good, "bad")].filter(Boolean)));
  }

  function drawSlots() {
    const until = now();
    const since = until - SECONDS;
    const seen = state.figures.slots;
    const steps = seen.map(([time, used], index) => [Math.max(time, since), used, seen[index + 1]?.[0] ?? until]).filter(([, , end]) => end > since);
    const [, used, all] = seen.at(-1) ?? [0, 0, 0];
    const most = Math.max(1, ...seen.map(([, running, total]) => Math.max(running, total)));
    const shape = ([begin, running, end]) => svg("rect", { x: begin - since, width: Math.max(0, end - begin), y: HEIGHT - (running / most) * HEIGHT, height: (running / most) * HEIGHT, class: "run" });
    slots.draw(most, `${used} of ${all} slots in use; at most ${Math.max(0, ...steps.map(([, running]) => running))} in ${SECONDS / 60} minutes`, SECONDS, ...steps.filter(([, running]) => running).map(shape));
  }

  function drawSkills() {
    const rows = state.figures.skills;
    const most = Math.max(...rows.map(([, , , p95]) => p95), 0.001);
    const bar = (seconds) => svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", class: "bar", "aria-hidden": "true" }, svg("rect", { width: Math.max(0.5, (seconds / most) * 100), height: 10, class: "run" }));
    const cell = (seconds) => el("td", {}, duration(seconds), bar(seconds));
    fill(skills, rows.length ? el("div.scroll", { tabindex: 0, role: "region", "aria-label": "Durations by skill" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "skill"), el("th.number", { scope: "col" }, "runs"), el("th", { scope: "col" }, "p50"), el("th", { scope: "col" }, "p95"))),
      el("tbody", {}, rows.map(([skill, count, p50, p95]) => el("tr", {}, el("td.name", {}, skill), el("td.number", {}, count.toLocaleString("en")), cell(p50), cell(p95)))))) : el("p.dim", {}, "No run has ended yet."));
  }

  const shown = () => Boolean(place.offsetParent); // not while another view is
  const drawPlots = () => { if (shown()) { drawMinutes(); drawSlots(); } };
  const draw = () => { drawPlots(); if (shown()) drawSkills(); };
  setInterval(drawPlots, 1000);
  on(["all", "figures"], draw);
  return { draw };
}
