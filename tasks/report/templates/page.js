// The page works without this: it shows a chart's exact values at once, brushes the grid search, and opens what is
// folded before printing.
(() => {
  "use strict";
  const tip = document.body.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;

  // The browser's own tooltip comes late and never on a phone; its text moves into ours.
  const marks = [...document.querySelectorAll("svg .dot, svg .thread, svg .stroke, svg .limit, svg.interval")];
  for (const mark of marks) {
    const title = mark.querySelector("title");
    if (title) { mark.dataset.tip = title.textContent; title.remove(); }
  }
  let lit = null;
  function show(mark, x, y) {
    if (lit) lit.classList.remove("lit");
    lit = mark;
    tip.hidden = !mark;
    if (!mark) return;
    mark.classList.add("lit");
    tip.textContent = mark.dataset.tip;
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(x + 12, room))}px`;
    tip.style.top = `${y + 16 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 12 : y + 16}px`;
  }
  const marked = (event) => (event.target instanceof Element ? event.target.closest("[data-tip]") : null);
  addEventListener("pointermove", (event) => show(marked(event), event.clientX, event.clientY));
  addEventListener("pointerdown", (event) => show(marked(event), event.clientX, event.clientY));
  addEventListener("scroll", () => show(null), { passive: true });

  // A chart takes the focus as a whole; the arrow keys walk through its marks.
  for (const chart of document.querySelectorAll("svg.chart, svg.parallel")) {
    const own = marks.filter((mark) => chart.contains(mark));
    let at = -1;
    chart.setAttribute("tabindex", "0");
    chart.addEventListener("blur", () => { at = -1; show(null); });
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") show(null);
      if (!step || !own.length) return;
      event.preventDefault();
      at = (at + step + own.length + (at < 0 && step < 0 ? 1 : 0)) % own.length;
      const box = own[at].getBoundingClientRect();
      show(own[at], box.left + box.width / 2, box.top + box.height / 2);
    });
  }

  for (const chart of document.querySelectorAll("svg.parallel")) {
    const threads = [...chart.querySelectorAll(".thread")];
    const axes = [...chart.querySelectorAll(".brush")];
    const figure = chart.closest("figure");
    const reset = figure.querySelector(".reset");
    const kept = axes.map(() => null); // per axis: [low, high] of its values
    const rows = new Map([...document.querySelectorAll("tr[data-key]")].map((row) => [row.dataset.key, row]));
    const values = threads.map((thread) => thread.dataset.values.split(","));
    figure.classList.add("live");

    function apply() {
      threads.forEach((thread, number) => {
        const inside = kept.every((range, index) => !range || (values[number][index] !== ""
          && values[number][index] >= range[0] && values[number][index] <= range[1]));
        thread.classList.toggle("out", !inside);
        const row = rows.get(thread.dataset.key);
        if (row) row.classList.toggle("out", !inside);
      });
      reset.hidden = kept.every((range) => !range);
    }
    function height(event) {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
      return point.y;
    }
    axes.forEach((axis, index) => {
      // The box reaches six units beyond both ends of its axis, as it is drawn.
      const top = +axis.getAttribute("y") + 6;
      const room = +axis.getAttribute("height") - 12;
      const [low, high] = [+axis.dataset.low, +axis.dataset.high];
      const value = (y) => high - (Math.min(Math.max(y - top, -6), room + 6) / room) * (high - low);
      const drawn = axis.cloneNode();
      drawn.setAttribute("class", "brushed");
      drawn.setAttribute("height", "0");
      axis.before(drawn);
      let start = null;
      axis.addEventListener("pointerdown", (event) => { start = height(event); axis.setPointerCapture(event.pointerId); });
      axis.addEventListener("pointermove", (event) => {
        if (start === null) return;
        const ends = [start, height(event)].sort((a, b) => a - b);
        kept[index] = ends[1] - ends[0] < 3 ? null : [value(ends[1]), value(ends[0])];
        drawn.setAttribute("y", ends[0]);
        drawn.setAttribute("height", kept[index] ? ends[1] - ends[0] : 0);
        apply();
      });
      axis.addEventListener("pointerup", () => { start = null; });
      reset.addEventListener("click", () => { kept[index] = null; drawn.setAttribute("height", "0"); apply(); });
    });
    threads.forEach((thread) => {
      const row = rows.get(thread.dataset.key);
      if (!row) return;
      row.addEventListener("pointerenter", () => thread.classList.add("lit"));
      row.addEventListener("pointerleave", () => thread.classList.remove("lit"));
    });
  }

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((sections) => {
    for (const section of sections) {
      if (!section.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      const link = links.get(section.target.id);
      link.setAttribute("aria-current", "true");
      link.parentElement.parentElement.scrollTo({ left: link.offsetLeft - 40 });
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const id of links.keys()) seen.observe(document.getElementById(id));

  // A link to a section that is folded opens it.
  function unfold() {
    const target = document.getElementById(location.hash.slice(1));
    const folded = target && target.closest("details");
    if (folded && !folded.open) { folded.open = true; target.scrollIntoView(); }
  }
  addEventListener("hashchange", unfold);
  unfold();

  addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });
})();
