// What the theme's own scripts make is put right for those who hear pages, or use them without a mouse.
new MutationObserver(() => {
  // Each block's button is in a <nav>: dozens of landmarks without a name.
  for (const nav of document.querySelectorAll("nav.md-code__nav:not([role])")) nav.setAttribute("role", "none");
  for (const button of document.querySelectorAll("button.md-code__button:not([aria-label])")) {
    button.setAttribute("aria-label", button.title);
  }
  // A wide table scrolls in this element, which has to be reachable with Tab.
  for (const wrap of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) {
    if (wrap.scrollWidth > wrap.clientWidth) wrap.setAttribute("tabindex", "0");
  }
}).observe(document.documentElement, {childList: true, subtree: true});
