// Why a run failed: its code, whether it is retried, the source line, the traceback.
import { el, put } from "./dom.js";
import { clock } from "./times.js";
import { show } from "./values.js";

/** Show a job's latest error; `lines` are its log, which may contain the traceback. */
export function failureView(job, lines) {
  const { code, message, details, ...more } = job.error;
  const { path, problems, ...rest } = details && typeof details === "object" ? details : {};
  const others = { ...rest, ...more };
  const line = lines.findLast((each) => each.frames?.length);
  const at = line && (line.frames.findLast((each) => each.yours) ?? line.frames.at(-1));
  return [
    el("p", {}, el("strong.code", {}, code ?? "error"), path ? el("code.path", {}, path) : null, " ", el("span.verdict", {}, verdict(job))),
    message ? el("p.message", {}, message) : null,
    problems && Object.keys(problems).length ? show(problems) : null,
    Object.keys(others).length ? show(others, 1) : null,
    at ? el("div.at", {}, el("p", {}, el("code", {}, `${at.file}:${at.line}`), ` in ${at.function}`), at.source ? el("pre", { tabindex: 0, "aria-label": "Source line" }, at.source) : null) : null,
    line ? el("details.traceback", { open: true }, el("summary", {}, "Traceback"), el("pre", { tabindex: 0 }, line.text)) : null,
  ];
}

/** Say whether there is another attempt, which the job's state shows. */
function verdict(job) {
  if (job.state === "queued") return `Retrying: attempt ${job.attempts + 1} is queued.`;
  if (job.state === "running") return `Retrying: attempt ${job.attempts} is running.`;
  if (job.state === "quarantined") return job.attempts > 1 ? `Given up after ${job.attempts} attempts.` : "Not retried.";
  if (job.state === "failed") return "Not retried.";
  return job.state === "finished" ? "A later attempt succeeded." : "";
}

/** A line of the log; below it the frames of the user's code, and the whole traceback, collapsed. */
export function logLine(line) {
  const [first, ...more] = line.text.split("\n");
  const level = line.level.toLowerCase();
  const yours = (line.frames ?? []).filter((each) => each.yours);
  const node = el(`li.${level}`, { "data-level": level }, el("time", {}, clock(line.time)), " ", el("span.level", {}, line.level), " ", el("span", {}, first));
  if (yours.length) put(node, el("ol.frames", {}, yours.toReversed().map((each) => el("li", {}, el("code", {}, `${each.file}:${each.line}`), ` in ${each.function}`, each.source ? el("code.line", {}, each.source) : null))));
  if (more.length) put(node, el("details", {}, el("summary", {}, line.frames ? "Traceback" : `${more.length} more ${more.length === 1 ? "line" : "lines"}`), el("pre", { tabindex: 0 }, more.join("\n"))));
  return node;
}
