// What moves on a page: server-sent events replace it once a second, while the page is visible.
"use strict";

(() => {
  const live = document.querySelector("[data-live]");
  const stale = document.querySelector("[data-stale]");
  let source = null;
  let last = 0;

  function show(html) {
    last = Date.now();
    if (stale) stale.hidden = true;
    const next = document.createElement("template");
    next.innerHTML = html;
    // Part by part, and only what differs: a focus or a selection in the rest stays.
    const before = live.children;
    const after = next.content.children;
    if (before.length !== after.length) {
      keepingFocus(() => live.replaceChildren(...next.content.childNodes));
      return;
    }
    for (let place = before.length - 1; place >= 0; place -= 1) {
      const replacement = next.content.children[place];
      if (!before[place].isEqualNode(replacement)) {
        keepingFocus(() => before[place].replaceWith(replacement.cloneNode(true)));
      }
    }
  }

  function keepingFocus(change) {
    const focused = document.activeElement;
    const href = live.contains(focused) ? focused.getAttribute("href") : null;
    change();
    if (href) live.querySelector(`[href="${CSS.escape(href)}"]`)?.focus({ preventScroll: true });
  }

  function open() {
    if (source || document.hidden) return;
    source = new EventSource(live.dataset.live);
    source.addEventListener("live", (event) => show(event.data));
    source.addEventListener("error", () => {
      // Closed for good: refused, or the session is over. A later attempt may succeed.
      if (source && source.readyState === EventSource.CLOSED) {
        close();
        setTimeout(open, 5000);
      }
    });
  }

  function close() {
    source?.close();
    source = null;
  }

  if (live) {
    last = Date.now();
    open();
    // A hidden page costs nothing, and a browser has few connections for all its tabs.
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    setInterval(() => {
      if (stale && !document.hidden) stale.hidden = Date.now() - last < 6000;
    }, 1000);
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => {
      const from = document.querySelector("[data-copy-from]");
      from.select();
      navigator.clipboard?.writeText(from.value);
    });
  }

  // A second click would send a form twice.
  document.addEventListener("submit", (event) => {
    for (const button of event.target.querySelectorAll("button[type=submit]")) {
      setTimeout(() => (button.disabled = true), 0);
    }
  });
  addEventListener("pageshow", () => {
    for (const button of document.querySelectorAll("form button:disabled")) button.disabled = false;
  });
})();
