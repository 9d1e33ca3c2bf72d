// What a skill yields, combined as it arrives; the individual chunks are collapsed.
import { el, fill, setText } from "./dom.js";
import { duration } from "./times.js";
import { show } from "./values.js";

const MOST_TEXT = 200_000;
const MOST_RAW = 500;

/** Whether an event is part of a stream, judging by its payload. */
export function isChunk({ event_type: type, payload }) {
  return type === "chunk" && Number.isInteger(payload?.attempt) && Number.isInteger(payload?.index) && "data" in payload;
}

export function streamView() {
  const figures = el("p.dim.note");
  const cut = el("p.dim.note", { hidden: true }, `Only the first ${MOST_TEXT.toLocaleString("en")} characters are shown.`);
  const text = el("pre.stream", { tabindex: 0, "aria-label": "Stream" });
  const raw = el("ol.chunks");
  const unfold = el("details.source", {}, el("summary", {}, "Chunks as received"), raw);
  const node = el("section", { hidden: true }, el("h3.part", {}, "Joined"), figures, text, cut, unfold);
  let attempt = 0;
  let next = 0;
  let parts = [];
  let times = [];
  let length = 0;

  function add(payload, time) {
    if (payload.attempt < attempt) return; // late, of an attempt that is lost
    if (payload.attempt > attempt) { attempt = payload.attempt; next = payload.index; parts = []; times = []; length = 0; fill(text); }
    if (payload.index !== next) return;
    next += 1;
    parts.push(payload.data);
    if (time) times.push([time, payload.count ?? 1]);
    const more = typeof payload.data === "string" ? payload.data : payload.data.map?.((each) => JSON.stringify(each)).join("\n") + "\n";
    const room = MOST_TEXT - length;
    if (room > 0) text.append(document.createTextNode(more.slice(0, room)));
    length += more.length;
    cut.hidden = length <= MOST_TEXT;
    text.scrollTop = text.scrollHeight;
    raw.append(el("li", {}, el("strong", {}, String(payload.index)), " ", show(payload.data, 1)));
    while (raw.childElementCount > MOST_RAW) raw.firstChild.remove();
    node.hidden = false;
  }

  /** Show the rate: `began` is when the task was handed out. */
  function measure(began) {
    if (!times.length) return;
    const first = times[0][0];
    const last = times[times.length - 1][0];
    const count = times.slice(1).reduce((sum, [, size]) => sum + size, 0);
    const rate = last > first ? ` · ${(count / (last - first)).toFixed(1)} items/s` : "";
    const wait = began ? `first chunk after ${duration(Math.max(0, first - began))} · ` : "";
    setText(figures, `${wait}${parts.length} ${parts.length === 1 ? "chunk" : "chunks"}${rate}`);
  }

  return { node, add, measure };
}
