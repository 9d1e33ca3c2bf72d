// Short descriptions of a run.
import { ago, duration, now, whole } from "./times.js";

const WORDS = { queued: "queued", running: "running", finished: "done", failed: "failed", quarantined: "quarantined", cancelled: "cancelled" };

export const stateWord = (job) => (job.state === "finished" && job.status && job.status !== "success" ? job.status : WORDS[job.state] ?? job.state);
export const STATES = Object.entries(WORDS);

export function noteOf(job) {
  if (job.state === "running") {
    const again = job.attempts > 1 ? `attempt ${job.attempts}. ` : "";
    return `${again}${job.progress.progress ? `${Math.round(job.progress.progress * 100)} % ` : ""}${job.progress.message}`;
  }
  if (job.error && job.state !== "finished") return `${job.error.code}: ${job.error.message ?? ""}`;
  return "";
}

/** The approximate time left for a running task, by its progress; empty if unknown or overdue. */
export function leftOf(job) {
  const left = job.state === "running" && job.ends_at ? job.ends_at - now() : 0;
  return left > 0 ? `about ${whole(left)}` : "";
}

export function timeOf(job) {
  if (job.state === "running") return `${duration(now() - job.handed_out_at)}${leftOf(job) && ` · ${leftOf(job)} left`}`;
  if (job.handed_out_at && job.finished_at) return `${duration(Math.max(0, job.finished_at - job.handed_out_at))} · ${ago(job.finished_at)}`;
  return ago(job.finished_at ?? job.submitted_at);
}

export function durationOf(job) {
  if (!job.handed_out_at) return "";
  return duration(Math.max(0, (job.finished_at ?? now()) - job.handed_out_at));
}
