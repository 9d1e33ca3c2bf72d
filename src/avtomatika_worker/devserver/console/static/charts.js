// What one would rather look at than read: runs a minute, durations by skill, slots in use.
import { el, fill, setText } from "./dom.js";
import { ended, on, state } from "./store.js";
import { duration, now } from "./times.js";

const MINUTES = 30;
const SAMPLES = 300; // of the slots, one a second
const HEIGHT = 60;
const SVG = "http://www.w3.org/2000/svg";

/** The value below which a share of sorted numbers lies (nearest rank). */
export const quantile = (sorted, share) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];

/** How many runs ended in each of the last minutes, oldest first: [good, bad]. */
export function perMinute(jobs, until, minutes = MINUTES) {
  const counts = Array.from({ length: minutes }, () => [0, 0]);
  for (const job of jobs) {
    if (!ended(job) || !job.finished_at) continue;
    const index = minutes - 1 - Math.floor((until - job.finished_at) / 60);
    if (index >= 0 && index < minutes) counts[index][job.state === "finished" && (job.status ?? "success") !== "failure" ? 0 : 1] += 1;
  }
  return counts;
}

/** The durations of each skill's ended runs: [skill, count, p50, p95], by name. */
export function durations(jobs) {
  const bySkill = new Map();
  for (const job of jobs) {
    if (!ended(job) || !job.handed_out_at || !job.finished_at) continue;
    bySkill.set(job.skill, [...(bySkill.get(job.skill) ?? []), Math.max(0, job.finished_at - job.handed_out_at)]);
  }
  return [...bySkill].sort(([one], [other]) => (one < other ? -1 : 1)).map(([skill, all]) => {
    all.sort((one, other) => one - other);
    return [skill, all.length, quantile(all, 0.5), quantile(all, 0.95)];
  });
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const chart = (width, label, ...children) => svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label, class: "chart" }, ...children);

export function startCharts(place) {
  const minutes = el("div");
  const minutesText = el("p.dim.note");
  const slots = el("div");
  const slotsText = el("p.dim.note");
  const skills = el("div");
  const samples = [];
  fill(place,
    el("section.plot", {}, el("h3", {}, "Runs a minute"), minutes, minutesText),
    el("section.plot", {}, el("h3", {}, "Slots in use"), slots, slotsText),
    el("section", {}, el("h3", {}, "Durations by skill"), skills));

  function drawMinutes() {
    const counts = perMinute(state.jobs.values(), now());
    const most = Math.max(1, ...counts.map(([good, bad]) => good + bad));
    const total = counts.reduce((sum, [good, bad]) => sum + good + bad, 0);
    const failed = counts.reduce((sum, [, bad]) => sum + bad, 0);
    const text = `${total} ${total === 1 ? "run" : "runs"} ended in the last ${MINUTES} minutes, ${failed} without success; at most ${most} in a minute`;
    fill(minutes, chart(MINUTES * 10, text, ...counts.flatMap(([good, bad], index) => {
      const bar = (count, below, kind) => svg("rect", { x: index * 10 + 1, width: 8, y: HEIGHT - ((below + count) / most) * HEIGHT, height: (count / most) * HEIGHT, class: kind });
      return [bar(good, 0, "good"), bar(bad, good, "bad")].filter((each) => Number(each.getAttribute("height")) > 0);
    })));
    setText(minutesText, total ? `${text}.` : "No run has ended in the last 30 minutes.");
  }

  function sample() {
    samples.push([state.workers.reduce((sum, each) => sum + each.running, 0), state.workers.reduce((sum, each) => sum + (Number(each.slots) || 0), 0)]);
    if (samples.length > SAMPLES) samples.shift();
  }

  function drawSlots() {
    const [used, all] = samples.at(-1) ?? [0, 0];
    const most = Math.max(1, ...samples.map(([running, total]) => Math.max(running, total)));
    const points = samples.map(([running], index) => `${index + SAMPLES - samples.length},${HEIGHT - (running / most) * HEIGHT}`);
    const first = SAMPLES - samples.length;
    const text = `${used} of ${all} slots in use`;
    fill(slots, chart(SAMPLES, text, svg("polygon", { points: `${first},${HEIGHT} ${points.join(" ")} ${SAMPLES},${HEIGHT}`, class: "run" })));
    setText(slotsText, `${text}; since this page was opened, at most ${Math.max(0, ...samples.map(([running]) => running))}.`);
  }

  function drawSkills() {
    const rows = durations(state.jobs.values());
    const most = Math.max(...rows.map(([, , , p95]) => p95), 0.001);
    const bar = (seconds) => svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", class: "bar", "aria-hidden": "true" }, svg("rect", { width: Math.max(0.5, (seconds / most) * 100), height: 10, class: "run" }));
    fill(skills, rows.length ? el("table", {}, el("thead", {}, el("tr", {}, ["skill", "runs", "p50", "p95"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows.map(([skill, count, p50, p95]) => el("tr", {}, el("td", {}, skill), el("td.number", {}, String(count)), el("td", {}, duration(p50), bar(p50)), el("td", {}, duration(p95), bar(p95)))))) : el("p.dim", {}, "No run has ended yet."));
  }

  function draw() {
    if (!place.offsetParent) return; // another view is shown
    drawMinutes();
    drawSlots();
    drawSkills();
  }

  setInterval(() => { sample(); draw(); }, 1000);
  on(["all"], () => { sample(); draw(); });
  return { draw };
}
