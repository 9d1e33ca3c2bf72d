// What the browser stores for the page: the theme permanently, form drafts while the tab is open.

const memory = new Map(); // for browsers that keep nothing

function at(place, use) {
  try {
    return use(window[place]);
  } catch {
    return use({ getItem: (name) => memory.get(name) ?? null, setItem: (name, value) => memory.set(name, value), removeItem: (name) => memory.delete(name) });
  }
}

export const kept = (name) => at("localStorage", (place) => place.getItem(name));
export const keep = (name, value) => at("localStorage", (place) => place.setItem(name, value));

/** What was typed for a skill, as JSON text. Each tab, and each project on this port, has its own drafts. */
export const draft = (skill) => at("sessionStorage", (place) => place.getItem(`draft ${skill}`));
export const keepDraft = (skill, text) => at("sessionStorage", (place) => place.setItem(`draft ${skill}`, text));
export const dropDraft = (skill) => at("sessionStorage", (place) => place.removeItem(`draft ${skill}`));
