// Keeps what lives on the pages of dead letters as it is now. The server escapes; here nothing is made of text.
"use strict";
(() => {
  const EVERY = 3000;

  // Whoever marks text to copy it must not lose it under their hands.
  const marked = (place) => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && place.contains(selection.anchorNode);
  };

  const put = (place, fresh) => {
    if (place.innerHTML === fresh.innerHTML || marked(place)) return;
    const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...place.querySelectorAll(".scroll")].map((each) => [each.id, each.scrollLeft]);
    place.innerHTML = fresh.innerHTML;
    for (const [id, left] of scrolled) {
      const each = document.getElementById(id);
      if (each) each.scrollLeft = left;
    }
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  const look = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(10000) });
        if (answer.ok) {
          const page = new DOMParser().parseFromString(await answer.text(), "text/html");
          for (const place of document.querySelectorAll(".live")) {
            const fresh = page.getElementById(place.id);
            if (fresh) put(place, fresh);
          }
        }
      } catch {
        // The bridge is away: what is there stays, with its time, and is asked for again.
      }
    }
    setTimeout(look, EVERY);
  };
  setTimeout(look, EVERY);
})();
