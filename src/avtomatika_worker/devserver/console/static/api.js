// The calls of the page.
import { parse, write } from "./json.js";

/** An error response: its `status`, and `problems` with the paths of invalid params. */
export class Refused extends Error {
  constructor(status, answer) {
    super(answer.error ?? `the orchestrator answered ${status}`);
    this.status = status;
    this.problems = answer.problems ?? [];
  }
}

async function call(method, path, body, type = "application/json") {
  let response;
  try {
    response = await fetch(path, { method, body, headers: body === undefined ? {} : { "Content-Type": type } });
  } catch {
    throw new Error("the orchestrator cannot be reached: is worker dev still running?");
  }
  const text = await response.text();
  let answer = {};
  try {
    answer = parse(text);
  } catch { /* no JSON: a proxy's page */ }
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

/** Submit a job; `params` is JSON text, which is sent exactly as typed. */
export function submit(skill, params, { check, priority, deadline, metadata } = {}) {
  const more = { priority, deadline, metadata };
  const fields = Object.entries(more).filter(([, value]) => value !== undefined);
  const rest = fields.map(([name, value]) => `,${write(name)}:${write(value)}`).join("");
  return call("POST", `/api/jobs?validate=${check ? 1 : 0}`, `{"skill":${write(skill)},"params":${params}${rest}}`);
}

export const cancel = (id) => call("POST", `/api/jobs/${encodeURIComponent(id)}/cancel`);
export const job = (id) => call("GET", `api/jobs/${encodeURIComponent(id)}`);
export const addFault = (fault) => call("POST", "api/faults", write(fault));
export const clearFaults = () => call("DELETE", "api/faults");
export const restart = () => call("POST", "api/restart");
export const upload = (file) =>
  call("POST", `api/files?name=${encodeURIComponent(file.name)}`, file, "application/octet-stream");
export const fileAt = (uri, download) => `api/file?uri=${encodeURIComponent(uri)}${download ? "&download" : ""}`;

/** Listen to the stream: `onAll` gets the whole state, first and after each reconnect; `onNews` gets changes. */
export function listen({ onAll, onNews, onLink }) {
  const source = new EventSource("api/stream");
  source.addEventListener("all", (event) => { onLink(true); onAll(parse(event.data)); });
  source.addEventListener("news", (event) => onNews(parse(event.data)));
  source.addEventListener("error", () => {
    onLink(false);
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen({ onAll, onNews, onLink }), 1000);
  });
}
