// A call by the worker, as a line in a list.
import { el } from "./dom.js";
import { clock } from "./times.js";

export const callLine = (each) => el("li", {}, el("time", {}, clock(each.time)), " ", el("span.call", {}, each.call), " ",
  el(`span.${each.status > 0 && each.status < 400 ? "ok" : "no"}`, {}, each.status || "no answer"), each.fault ? el("span.fault", {}, ` ${each.fault}`) : null);
