// Every key, what it does, and the help that is made from the same list.

import { make } from "./dom.js";

// [keys, what is shown, words, name of the command, its argument]
export const KEYS = [
  ["Decide"],
  [["k"], "K", "keep", "keep"],
  [["r", "Delete"], "R", "reject", "reject"],
  [["c"], "C", "undecided again", "clear"],
  [["m"], "M", "move to another cluster", "move"],
  [["u"], "U", "undo", "undo"],
  [["U"], "Shift U", "redo", "redo"],
  ["Correct a label"],
  [["1"], "1", "close-up", "shot", "close_up"],
  [["2"], "2", "medium shot", "shot", "medium"],
  [["3"], "3", "full body", "shot", "full_body"],
  [["4"], "4", "far / wide", "shot", "far"],
  [["5"], "5", "no shot type", "shot", "unclassified"],
  [["g"], "G", "multi-character (a group), on or off", "trait", "multi_character"],
  [["o"], "O", "occlusion, on or off", "trait", "occlusion"],
  [["b"], "B", "complex background, on or off", "trait", "complex_background"],
  [["0"], "0", "as detected", "reset"],
  [["l"], "L", "choose from a list", "label"],
  ["Select"],
  [["x"], "X", "select or not", "select"],
  [[], "Shift ← ↑ ↓ →", "select a range", null],
  [["a"], "A", "all that is shown", "all"],
  [["Escape"], "Esc", "nothing; leave a search", "escape"],
  ["Look"],
  [["/"], "/", "similar pictures", "similar"],
  [[" ", "Enter"], "Space", "enlarge", "enlarge"],
  [["d"], "D", "open or close a stack of near-duplicates", "open"],
  [["f"], "F", "fold near-duplicates", "fold"],
  [["i"], "I", "details", "metadata"],
  [["n"], "N", "pictures of missing categories first", "balanced"],
  [["t"], "T", "all, undecided, kept, rejected", "next"],
  [["["], "[", "previous cluster", "cluster", -1],
  [["]"], "]", "next cluster", "cluster", 1],
  [["-"], "−", "smaller pictures", "zoom", -1],
  [["+", "="], "+", "larger pictures", "zoom", 1],
  ["Go"],
  [[], "← ↑ ↓ →", "to the next picture", null],
  [["Home"], "Home", "to the first", "go", "first"],
  [["End"], "End", "to the last", "go", "last"],
  [["PageUp"], "Page ↑", "a window up", "go", "up"],
  [["PageDown"], "Page ↓", "a window down", "go", "down"],
  [["w"], "W", "write the set", "write"],
  [["?"], "?", "this help", "help"],
];

const COMMANDS = new Map(KEYS.flatMap(([keys, , , name, argument]) => (Array.isArray(keys) && name ? keys.map((key) => [key, [name, argument]]) : [])));
const ARROWS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "above", ArrowDown: "below" };

// The key as KEYS names it: caps lock changes nothing, and layouts without Latin letters or with digits behind shift
// are read by where the key lies.
function nameOf(event) {
  const { key, code, shiftKey } = event;
  if (key.length !== 1) return key;
  const letter = /^[a-z]$/i.test(key) ? key : code.startsWith("Key") ? code.slice(3) : "";
  if (letter) return shiftKey ? letter.toUpperCase() : letter.toLowerCase();
  return !COMMANDS.has(key) && code.startsWith("Digit") ? code.slice(5) : key;
}

// The command of a key event, or null. With Ctrl, Alt or ⌘ a key is the browser's.
export function commandOf(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return null;
  if (ARROWS[event.key]) return ["go", ARROWS[event.key], event.shiftKey];
  const found = COMMANDS.get(nameOf(event));
  return found ? [...found, event.shiftKey] : null;
}

export function paintKeys(element) {
  let list = null;
  const parts = [];
  for (const [keys, shown, words] of KEYS) {
    if (!Array.isArray(keys)) {
      list = make("dl");
      parts.push(make("section", {}, make("h3", { textContent: keys }), list));
      continue;
    }
    list.append(make("div", {}, make("dt", {}, ...shown.split(" ").map((key) => make("kbd", { textContent: key }))), make("dd", { textContent: words })));
  }
  element.replaceChildren(...parts);
}
