// The theme puts each block's button into a <nav>: dozens of landmarks with no name. They are groups of buttons.
new MutationObserver(() => {
  for (const nav of document.querySelectorAll("nav.md-code__nav:not([role])")) {
    nav.setAttribute("role", "group");
    nav.setAttribute("aria-label", "Code");
    for (const button of nav.querySelectorAll("button[title]")) button.setAttribute("aria-label", button.title);
  }
}).observe(document.documentElement, {childList: true, subtree: true});
