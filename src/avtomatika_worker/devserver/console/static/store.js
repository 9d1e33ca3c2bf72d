// The page's state. Views subscribe to what they show and are called at most once per frame.
const FINAL = new Set(["finished", "failed", "quarantined", "cancelled"]);
const CALLS = 60;
const LINES = 300;

export const ended = (job) => FINAL.has(job.state);

export const state = {
  linked: null, about: {}, skills: [], workers: [], faults: [], calls: [], problems: [], lines: [], problem: null,
  jobs: new Map(), // by id: all that the orchestrator keeps
  totals: {}, // how many there ever were, by state
  figures: { minutes: [], slots: [], skills: [] }, // of the charts
};

/** The jobs, newest first. */
export const newestFirst = () => [...state.jobs.values()].sort((one, other) => other.number - one.number);

const listeners = [];
let changed = new Set();

/** Call `view` when one of the topics has changed. */
export function on(topics, view) { listeners.push([topics, view]); }

export function touch(...topics) {
  if (!changed.size) {
    // A page in the background draws no frames and need not be updated.
    requestAnimationFrame(() => {
      const now = changed;
      changed = new Set();
      for (const [wanted, view] of listeners) if (wanted.some((topic) => now.has(topic))) view();
    });
  }
  for (const topic of topics) changed.add(topic);
}

const newsListeners = [];
/** Call `take` with each message of the stream. */
export const onNews = (take) => newsListeners.push(take);

export function takeAll(all) {
  state.jobs = new Map(all.jobs.map((job) => [job.job_id, job]));
  state.about = all.about;
  state.problem = null;
  state.problems = all.problems;
  state.lines = all.logs.slice(-LINES);
  state.calls = [];
  merge(all);
  touch("all", "jobs", "about", "problems", "lines", "skills", "workers", "faults", "calls", "problem");
}

export function takeNews(news) {
  for (const job of news.jobs ?? []) state.jobs.set(job.job_id, job);
  for (const id of news.forgotten ?? []) state.jobs.delete(id);
  if (news.jobs || news.forgotten) touch("jobs");
  if (news.problems) { state.problems = [...state.problems, ...news.problems].slice(-50); touch("problems"); }
  const own = (news.logs ?? []).filter((line) => !line.job_id);
  if (own.length) { state.lines = [...state.lines, ...own].slice(-LINES); touch("lines"); }
  merge(news);
  for (const take of newsListeners) take(news);
}

function merge(news) {
  for (const topic of ["skills", "workers", "faults"]) if (news[topic]) { state[topic] = news[topic]; touch(topic); }
  if ("problem" in news) { state.problem = news.problem; touch("problem"); }
  if (news.figures) { state.figures = news.figures; touch("figures"); }
  if (news.totals) { state.totals = news.totals; touch("jobs"); }
  if (news.calls) { state.calls = [...state.calls, ...news.calls].sort((one, other) => one.time - other.time).slice(-CALLS); touch("calls"); }
}
