// The page's only script, known to its policy by hash: the viewer with its slider, and the filters. It reads what the
// page shows already and changes no text but its own; without it, everything else stands.
"use strict";
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);
  const viewer = one("viewer"), filters = one("filters");
  const figures = all("figure[data-place]");
  const models = all("#viewer-first option").map((option) => option.value);
  const places = [...new Set(figures.map((figure) => figure.dataset.place))];
  const at = (place, model) => figures.find((f) => f.dataset.place === place && f.dataset.model === model);
  let place = null, closing = false;

  function side(name, model) {
    const figure = at(place, model), shown = one(`viewer-${name}-picture`), source = figure && figure.querySelector("img");
    shown.hidden = !source;
    if (source) { shown.src = source.src; shown.alt = source.alt; }
    one(`viewer-${name}-caption`).textContent = figure ? figure.querySelector("figcaption").textContent : "no picture";
    one(`viewer-${name}-seen`).textContent = figure ? figure.querySelector("figcaption").title : "";
  }
  function draw() {
    const first = at(place, models[0]);
    one("viewer-prompt").textContent = first.closest(".prompt").querySelector("p").textContent;
    one("viewer-place").textContent = `${places.indexOf(place) + 1} of ${places.length}, variation ${+place.slice(5) + 1}`;
    side("first", one("viewer-first").value);
    side("second", one("viewer-second").value);
  }
  function slide() { one("viewer-stage").style.setProperty("--cut", `${one("viewer-cut").value}%`); }
  function show(next) {
    if (!places.includes(next)) return;
    place = next;
    draw();
    if (!viewer.open) viewer.showModal();
    if (location.hash !== `#${place}`) history.replaceState(null, "", `#${place}`);
  }
  function visible() { return places.filter((p) => at(p, models[0]).offsetParent !== null); }
  function step(by) {
    const among = visible().includes(place) ? visible() : places;
    show(among[(among.indexOf(place) + by + among.length) % among.length]);
  }

  function filter(remember = true) {
    const data = new FormData(filters), text = (data.get("text") || "").toString().toLowerCase().trim();
    const scenario = data.get("scenario"), outcome = data.get("outcome"), differs = data.has("differs");
    let count = 0;
    for (const group of all(".group")) {
      let left = 0;
      for (const prompt of all(".prompt", group)) {
        const fits = (!scenario || group.id === scenario) && (!differs || prompt.dataset.differs === "1")
          && (!outcome || prompt.dataset.outcomes.split("|").includes(outcome))
          && (!text || prompt.querySelector("p").textContent.toLowerCase().includes(text));
        prompt.hidden = !fits;
        left += fits;
      }
      group.hidden = !left;
      count += left;
    }
    const total = all(".prompt").length;
    one("filter-count").textContent = count === total ? `all ${total} prompts` : `${count} of ${total} prompts`;
    if (!remember) return;
    const kept = new URLSearchParams([...data].filter(([, value]) => value));
    history.replaceState(null, "", kept.toString() ? `#show?${kept}` : "#pictures");
  }
  function follow() {
    const hash = decodeURIComponent(location.hash.slice(1));
    if (places.includes(hash)) return show(hash);
    if (!location.hash.startsWith("#show?")) return;
    const kept = new URLSearchParams(location.hash.slice(6));
    for (const field of all("select, input", filters)) {
      if (field.type === "checkbox") field.checked = kept.has(field.name);
      else field.value = kept.get(field.name) || "";
    }
    filter(false);
    one("pictures").scrollIntoView();
  }

  filters.hidden = false;
  filters.addEventListener("input", () => filter());
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));
  for (const link of all("figure[data-place] > a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const figure = link.parentElement;
      // The clicked one on the right; beside it the first model, or the second where the first was clicked.
      one("viewer-second").value = figure.dataset.model;
      if (one("viewer-first").value === figure.dataset.model) {
        one("viewer-first").value = models.find((model) => model !== figure.dataset.model) || models[0];
      }
      show(figure.dataset.place);
    });
  }
  one("viewer-cut").addEventListener("input", slide);
  for (const name of ["first", "second"]) one(`viewer-${name}`).addEventListener("change", draw);
  one("viewer-before").addEventListener("click", () => step(-1));
  one("viewer-after").addEventListener("click", () => step(1));
  one("viewer-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => {
    const figure = place && at(place, models[0]);
    history.replaceState(null, "", "#pictures");
    if (figure && !closing) figure.querySelector("a").focus({ preventScroll: false });
  });
  viewer.addEventListener("keydown", (event) => {
    const inField = ["INPUT", "SELECT"].includes(event.target.tagName);
    if (inField || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    event.preventDefault();
    step(event.key === "ArrowLeft" ? -1 : 1);
  });
  addEventListener("hashchange", follow);
  addEventListener("beforeprint", () => { closing = true; if (viewer.open) viewer.close(); closing = false; });
  slide();
  filter(false);
  follow();
})();
