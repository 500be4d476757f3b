// Puts the sections that the server sends into their places. The server escapes; here nothing is made of text.
"use strict";
(() => {
  const late = new Map(); // sections that came and are not shown yet
  const connection = document.getElementById("connection");
  const pause = document.getElementById("pause");
  let paused = false;

  const say = (words) => {
    if (connection.textContent !== words) connection.textContent = words;
  };

  // Whoever marks a command to copy it must not lose it under their hands.
  const marked = (place) => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && place.contains(selection.anchorNode);
  };

  const show = () => {
    if (paused) return;
    for (const [name, html] of late) {
      const place = document.getElementById(name);
      if (!place || marked(place)) continue;
      const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
      const scrolled = [...place.querySelectorAll(".scroll")].map((each) => [each.id, each.scrollLeft]);
      place.innerHTML = html;
      for (const [id, left] of scrolled) {
        const each = document.getElementById(id);
        if (each) each.scrollLeft = left;
      }
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
      late.delete(name);
    }
  };

  const connect = () => {
    const source = new EventSource("/api/live");
    source.addEventListener("open", () => say("live"));
    source.addEventListener("sections", (event) => {
      for (const [name, html] of Object.entries(JSON.parse(event.data))) late.set(name, html);
      show();
    });
    source.addEventListener("error", () => {
      say("connection lost; trying again");
      // Refused, not lost (too many pages, or a bridge that is away behind a proxy): the browser gives up, we do not.
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
    });
  };

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    show();
  });
  document.getElementById("live").hidden = false;
  connect();
})();
