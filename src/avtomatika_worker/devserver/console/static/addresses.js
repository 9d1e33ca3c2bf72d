// The addresses of the page: #/skill/NAME, #/run/ID or #/run/ID/TAB, #/runs, #/worker and #/faults.

/** Return the parts of the current address, such as ["run", "4f1c", "logs"]. */
export function address() {
  return location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part; // a % of somebody's own
    }
  });
}

/** Set the address; the browser's Back button returns to the previous one, unless that is replaced. */
export function setAddress(parts, { replace = false } = {}) {
  const hash = `#/${parts.filter(Boolean).map(encodeURIComponent).join("/")}`;
  if (hash === location.hash) return;
  if (replace || !location.hash) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
}

/** Call `move` with the parts whenever the user changes the address. */
export const onAddress = (move) => addEventListener("hashchange", () => move(address()));
