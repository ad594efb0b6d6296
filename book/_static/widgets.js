/* What the pages need beyond the theme and the widget player. Nothing here draws or computes.

   1. The theme's FontAwesome would swap the Play widget's <i> for <svg> and break its links: let it
      convert the icons that are in the page at load, and leave later ones alone. */
if (window.FontAwesome) window.FontAwesome.config.observeMutations = false;

(() => {
  "use strict";
  const set = (element, name, value) => {
    // Writing only what differs keeps the observer below from waking itself for ever.
    if (element && value && element.getAttribute(name) !== value) element.setAttribute(name, value);
  };

  /* 2. Names for screen readers: the widgets draw sliders and buttons without any, and say a slider's
        position in the list of values where the reader sees the value. */
  const PLAY = ["Play or pause", "Back to the start", "Repeat"];
  const nameControls = () => {
    for (const slider of document.querySelectorAll(".widget-hslider, .widget-vslider")) {
      const handle = slider.querySelector(".noUi-handle");
      const readout = slider.querySelector(".widget-readout");
      set(handle, "aria-label", slider.querySelector(".widget-label")?.textContent.trim() || "slider");
      set(handle, "aria-valuetext", readout?.textContent.trim());
      // A list of values has nothing to type into; the widget lets one, and ignores what is typed.
      set(readout, "contenteditable", slider.closest(".companion-player") && "false");
    }
    for (const play of document.querySelectorAll(".widget-play"))
      play.querySelectorAll("button").forEach((button, i) => {
        set(button, "aria-label", PLAY[i]);
        set(button, "title", PLAY[i]);
      });
  };

  /* 3. The widgets ask MathJax 2 to set their labels, and the page has MathJax 3: they find nobody and stop
        with an error. The labels are plain text. (On load this runs before the player, which comes later.) */
  window.addEventListener("load", () => {
    if (window.MathJax && !window.MathJax.Hub) window.MathJax.Hub = { Queue() {} };
  });

  /* 5. An equation or a table wider than its column scrolls in its own box; say so, for as long as there is more to see. */
  const SCROLLED = ".table-box, .table-frame > .pst-scrollable-table-container";
  const cue = (box) => {
    const frame = box.parentElement, more = box.scrollWidth - box.clientWidth - box.scrollLeft;
    frame.classList.toggle("more", more > 4);
    frame.classList.toggle("more-before", box.scrollLeft > 4);
  };
  const markWide = () => {
    const all = [...document.querySelectorAll("mjx-container")];
    const inline = all.filter((box) => !box.hasAttribute("display"));
    for (const box of inline) box.parentElement.classList.remove("wide");
    // In a cell of a table the table scrolls.
    const column = (box) => (!box.closest("td, th") && box.closest("p, li, dd, div")?.clientWidth) || Infinity;
    const wide = inline.filter((box) => box.getBoundingClientRect().width > column(box));
    for (const box of wide) box.parentElement.classList.add("wide");
    for (const box of all) if (box.hasAttribute("display") || wide.includes(box)) cue(box);
    document.querySelectorAll(SCROLLED).forEach(cue);
  };
  let waiting = 0;
  const markLater = () => (waiting ||= requestAnimationFrame(() => ((waiting = 0), markWide())));
  window.addEventListener("load", () => {
    document.querySelectorAll(SCROLLED).forEach(cue);
    window.MathJax?.startup?.promise?.then(markWide);
  });
  window.addEventListener("resize", markLater);
  document.addEventListener("scroll", (event) => event.target.matches?.(`mjx-container, ${SCROLLED}`) && cue(event.target),
    { capture: true, passive: true });

  document.addEventListener("DOMContentLoaded", () => {
    /* 4. The search button's label hides the keys that it shows ("Search Ctrl+K"): let its text name it. */
    for (const button of document.querySelectorAll(".search-button-field")) button.removeAttribute("aria-label");

    /* 6. Wide tables scroll in a box of their own, which a keyboard must reach. */
    for (const box of document.querySelectorAll(".pst-scrollable-table-container")) {
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", "Table");
      const frame = document.createElement("div");
      frame.className = "table-frame";
      box.replaceWith(frame);
      frame.append(box);
    }

    /* 7. A comma or a full stop after an equation in the text stays on its line. */
    for (const span of document.querySelectorAll("p > span.math, li > span.math, dd > span.math, td > span.math")) {
      const after = span.nextSibling, mark = after?.nodeType === 3 && after.data.match(/^[,.;:!?)\]’”]+/);
      if (!mark) continue;
      const whole = document.createElement("span");
      whole.className = "with-mark";
      span.replaceWith(whole);
      whole.append(span, mark[0]);
      after.data = after.data.slice(mark[0].length);
    }

    new MutationObserver(nameControls).observe(document.body, {
      childList: true,
      subtree: true,
      attributes: true,
      attributeFilter: ["aria-valuetext", "contenteditable"],
    });
    nameControls();
  });
})();
