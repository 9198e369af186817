// Dialogs: move, label, write, help, and the large view.

import { find, make, plural, rectangle } from "./dom.js";
import { sizes } from "./tile.js";

export function prepare() {
  for (const dialog of document.querySelectorAll("dialog")) {
    for (const button of dialog.querySelectorAll("[data-close]")) button.addEventListener("click", () => dialog.close());
    // A click beside a dialog closes it.
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }
}

export const openDialog = () => find("dialog[open]");

// Asks for a cluster; `done(name)` is called with it.
export function askGroup(groups, count, done) {
  const dialog = find("#moving");
  const input = find("#moving-name");
  const list = find("#moving-list");
  let active = 0;
  let options = [];
  const paint = () => {
    const typed = input.value.trim();
    const near = groups.filter((name) => name.toLowerCase().includes(typed.toLowerCase()));
    options = typed && !groups.includes(typed) ? [...near, typed] : near;
    active = Math.min(active, Math.max(0, options.length - 1));
    list.replaceChildren(
      ...options.map((name, at) => {
        const fresh = !groups.includes(name);
        const option = make("li", { id: `group-${at}`, aria: { role: "option", selected: at === active } }, fresh ? make("small", { textContent: "new: " }) : null, name);
        option.addEventListener("click", () => finish(name));
        return option;
      }),
    );
    input.setAttribute("aria-activedescendant", options.length ? `group-${active}` : "");
    list.children[active]?.scrollIntoView({ block: "nearest" });
  };
  const finish = (name) => {
    dialog.close();
    if (name) done(name);
  };
  find("#moving-title").textContent = `Move ${plural(count, "picture")}`;
  input.value = "";
  input.oninput = () => {
    active = 0;
    paint();
  };
  input.onkeydown = (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      active = Math.max(0, Math.min(options.length - 1, active + (event.key === "ArrowDown" ? 1 : -1)));
      event.preventDefault();
      paint();
    }
  };
  find("form", dialog).onsubmit = (event) => {
    event.preventDefault();
    finish(options[active]);
  };
  paint();
  dialog.showModal();
}

// Shows the labels of some pictures and lets them be changed; `change(command, argument)` does it.
export function askLabel(model, pictures, change) {
  const dialog = find("#labelling");
  const paint = () => {
    const chosen = pictures();
    const choice = (kind, name, label, on) => {
      const button = make("button", { type: "button", textContent: label, aria: { pressed: on } });
      button.addEventListener("click", async () => {
        await change(kind, name);
        paint();
      });
      return button;
    };
    find("#labelling-title").textContent = chosen.length === 1 ? `Label ${chosen[0].name}` : `Label ${plural(chosen.length, "picture")}`;
    find("#shots").replaceChildren(
      ...model.shots.map(([name, label]) => choice("shot", name, label, chosen.every((picture) => picture.shotNow === name))),
    );
    find("#traits").replaceChildren(
      ...model.attributes.map(([name, label]) => choice("trait", name, label, chosen.every((picture) => picture.traits.includes(name)))),
    );
  };
  find("#as-detected").onclick = async () => {
    await change("reset");
    paint();
  };
  paint();
  dialog.showModal();
}

// Says what will be written and writes it; `write()` gives the server's answer.
export function askWrite(model, write) {
  const dialog = find("#writing");
  const text = find("#writing-text");
  const go = find("#writing-go");
  const { kept, open } = model.tally();
  const short = model.meter().filter((goal) => goal.status === "below");
  const lines = [
    kept ? `${plural(kept, "kept picture")} will be copied to ${model.output}, with captions, labels and where each came from. An earlier set there is replaced; the decisions stay.` : "Nothing is kept yet, so there is no set to write.",
  ];
  if (kept && open) lines.push(`${plural(open, "picture")} ${open === 1 ? "is" : "are"} undecided and will not be in it.`);
  if (kept && short.length) lines.push(`Still short: ${short.map((goal) => `${goal.label} ${goal.low - goal.count}`).join(", ")}.`);
  text.replaceChildren(...lines.map((line) => make("p", { textContent: line })));
  go.hidden = false;
  go.disabled = !kept;
  go.textContent = "Write";
  go.onclick = async () => {
    go.disabled = true;
    go.textContent = "Writing…";
    try {
      const done = await write();
      const listed = (counts, name) => counts.filter(([, count]) => count).map(([key, count]) => `${name(key)} ${count}`).join(", ");
      const groups = Object.entries(done.groups);
      text.replaceChildren(
        make("p", { className: "good", textContent: `${plural(done.kept, "picture")} written to ${done.output}.` }),
        ...(groups.length > 1 ? [make("p", { textContent: `Clusters: ${listed(groups, (name) => name)}.` })] : []),
        make("p", { textContent: `It holds: ${listed(Object.entries(done.counts), (name) => model.labels[name]) || "no known shot type"}.` }),
        ...done.skipped.map((sentence) => make("p", { className: "bad", textContent: `Left out: ${sentence}` })),
      );
      go.hidden = true;
    } catch (error) {
      text.replaceChildren(make("p", { className: "bad", textContent: error.message || "The server does not answer; nothing was written." }));
      go.textContent = "Try again";
      go.disabled = false;
    }
  };
  dialog.showModal();
  if (kept) go.focus();
}

export function paintLarge(model, picture, { metadata, at, count }) {
  const image = find("#large");
  const boxes = find("#boxes");
  if (image.dataset.id !== picture.id) {
    image.dataset.id = picture.id;
    image.src = picture.width * picture.height > 4e6 ? `/thumbnail/${picture.id}?side=1600` : `/picture/${picture.id}`;
  }
  image.alt = picture.caption || picture.name;
  const stage = find("#stage");
  stage.className = picture.decision ?? "";
  stage.style.setProperty("--ratio", picture.width / picture.height);
  boxes.setAttribute("viewBox", `0 0 ${picture.width} ${picture.height}`);
  boxes.replaceChildren(
    ...(metadata ? picture.boxes.map((box, index) => rectangle(box, index === picture.main ? "main" : "other")) : []),
    ...(metadata && picture.face ? [rectangle(picture.face, "face")] : []),
  );
  const row = (name, value) => (value ? [make("dt", { textContent: name }), make("dd", { textContent: value })] : []);
  const decision = { keep: "kept", reject: "rejected" }[picture.decision] ?? "undecided";
  find("#facts").replaceChildren(
    make("p", { className: "where" }, make("b", { textContent: picture.name }), make("span", { textContent: `${at + 1} of ${count}` })),
    make(
      "dl",
      {},
      ...row("Decision", decision),
      ...row("Cluster", picture.cluster),
      ...row("Shot", model.labels[picture.shotNow] + (picture.corrected ? ", corrected" : picture.reason ? `: ${picture.reason}` : "")),
      ...row("Context", picture.traits.map((name) => model.labels[name]).join(", ")),
      ...row("Size", sizes(picture).filter((part) => part !== picture.pose).join(" · ")),
      ...row("Pose", picture.pose),
      ...row("Likeness", picture.similarity === null ? "" : `${picture.similarity.toFixed(2)} to its cluster`),
      ...row("Caption", picture.caption),
    ),
  );
}
