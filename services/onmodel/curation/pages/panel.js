// The side panel: clusters, the target mix, and what works in the background.

import { find, make } from "./dom.js";

const number = (value) => value.toLocaleString("en");

export function paintGroups(list, model, current, choose) {
  const row = (name, title, count) => {
    const done = count.all ? 100 - (100 * count.open) / count.all : 0;
    const button = make(
      "button",
      { type: "button", className: "group", title: `${title}: ${count.kept} kept, ${count.open} undecided`, aria: { pressed: current === name } },
      make("span", { className: "name", textContent: title }),
      make("span", { className: "count", textContent: `${number(count.kept)} / ${number(count.all)}`, aria: { label: `${count.kept} of ${count.all} kept` } }),
      make("span", { className: "done", aria: { hidden: "true" } }),
    );
    button.lastChild.style.width = `${done}%`;
    button.addEventListener("click", () => choose(name));
    return make("li", {}, button);
  };
  const groups = [...model.groups()].filter(([, count]) => count.all > 0);
  const sum = { all: 0, kept: 0, open: 0 };
  for (const [, count] of groups) for (const key of Object.keys(sum)) sum[key] += count[key];
  list.closest("nav").hidden = groups.length < 2;
  list.replaceChildren(row(null, "All", sum), ...groups.map(([name, count]) => row(name, name, count)));
}

function verdict(goal) {
  if (goal.status === "below") return `${goal.low - goal.count} to go`;
  return goal.status === "above" ? `${goal.count - goal.high} too many` : "met";
}

export function paintMeter(list, model, category, choose) {
  const goals = model.meter();
  const top = Math.max(...goals.map((goal) => Math.max(goal.high ?? goal.low, goal.count, 1) * 1.15));
  list.replaceChildren(
    ...goals.map((goal) => {
      const range = goal.high === null ? `${goal.low}+` : goal.low === goal.high ? `${goal.low}` : `${goal.low}–${goal.high}`;
      const bar = make(
        "span",
        { className: "track", aria: { hidden: "true" } },
        make("span", { className: "band" }),
        make("span", { className: "fill" }),
      );
      const [band, fill] = bar.children;
      const end = goal.high ?? top;
      band.style.left = `${(100 * Math.min(goal.low, top)) / top}%`;
      band.style.width = `${Math.max(0, (100 * (Math.min(end, top) - goal.low)) / top)}%`;
      fill.style.width = `${(100 * goal.count) / top}%`;
      const button = make(
        "button",
        {
          type: "button",
          className: `goal ${goal.status}`,
          title: `${goal.count} kept, ${range} wanted, ${goal.open} undecided to choose from. Shows only these.`,
          aria: { pressed: category === goal.category },
        },
        make("span", { className: "name", textContent: goal.label }),
        make("span", { className: "count" }, make("b", { textContent: goal.count }), ` / ${range}`),
        bar,
        make("span", { className: "verdict", textContent: verdict(goal) }),
        make("span", { className: "share", textContent: goal.open ? `${number(goal.open)} undecided` : "none undecided" }),
      );
      button.addEventListener("click", () => choose(category === goal.category ? "" : goal.category));
      return make("li", {}, button);
    }),
  );
}

export function paintTally(element, model) {
  const { kept, rejected, open } = model.tally();
  element.replaceChildren(
    make("b", { textContent: number(kept) }), " kept ",
    make("b", { textContent: number(rejected) }), " rejected ",
    make("b", { textContent: number(open) }), " undecided",
  );
}

export function paintWork(element, model) {
  const { total, looked, embedded, note, embeds } = model.background;
  const lines = [];
  if (looked < total) lines.push([`Near-duplicates: ${number(looked)} of ${number(total)} looked at`, looked / total]);
  else if (embeds && embedded < total) {
    lines.push([`Similarity: ${number(embedded)} of ${number(total)} embedded; by picture hash until then`, embedded / total]);
  }
  if (note) lines.push([`Similarity goes by picture hash: ${note}`, null]);
  for (const sentence of model.notes) lines.push([sentence, null]);
  element.replaceChildren(
    ...lines.map(([text, part]) =>
      make("p", {}, text, part === null ? null : make("progress", { value: part, max: 1, aria: { label: text } })),
    ),
  );
}

export function paintPicked(element, count) {
  element.textContent = count ? `${number(count)} selected` : "";
  find("#actions").classList.toggle("picking", count > 0);
}
