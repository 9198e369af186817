// Which pictures are shown, in which order, and which of them stand for a folded stack.

import { NONE } from "./model.js";

export class View {
  group = null;
  decision = "all";
  category = "";
  folded = true;
  // Numbers of the stacks that were opened one by one.
  opened = new Set();
  // What a similarity search gave: { id, by, note, scores: Map }.
  found = null;
  items = [];

  constructor(model) {
    this.model = model;
    this.balanced = false;
    this.#weights = new Map();
    this.build();
  }

  #weights;

  setBalanced(on) {
    this.balanced = on;
    if (on) this.weigh();
  }

  // The order holds still while a person works, and is renewed when a category is met or is missing again.
  lacking() {
    return this.model.meter().filter((goal) => goal.status === "below");
  }

  weigh() {
    this.#weights = new Map(this.lacking().map((goal) => [goal.category, 1 - goal.count / goal.low]));
    for (const goal of this.model.meter()) if (goal.status === "above") this.#weights.set(goal.category, -0.5);
    this.lackingThen = this.lacking().map((goal) => goal.category).join();
  }

  // Whether `weigh` would change the order.
  stale() {
    return this.balanced && this.lackingThen !== this.lacking().map((goal) => goal.category).join();
  }

  #score(picture) {
    let score = picture.decision === null ? 0 : -100;
    for (const name of picture.categories) score += this.#weights.get(name) ?? 0;
    return picture.shotNow === NONE ? score - 1 : score;
  }

  #shown(picture) {
    if (this.group !== null && picture.cluster !== this.group) return false;
    if (this.decision === "open" && picture.decision !== null) return false;
    if (this.decision === "kept" && picture.decision !== "keep") return false;
    if (this.decision === "rejected" && picture.decision !== "reject") return false;
    if (this.category === NONE) return picture.shotNow === NONE;
    return this.category === "" || picture.categories.includes(this.category);
  }

  build() {
    this.members = new Map();
    this.itemOf = new Map();
    if (this.found) {
      this.items = [...this.found.scores.keys()].filter((id) => this.model.byId.has(id));
    } else {
      const shown = this.model.pictures.filter((picture) => this.#shown(picture));
      if (this.balanced) {
        const scores = new Map(shown.map((picture) => [picture, this.#score(picture)]));
        shown.sort((a, b) => scores.get(b) - scores.get(a) || a.place - b.place);
      }
      this.items = this.folded ? this.#fold(shown) : shown.map((picture) => picture.id);
    }
    this.index = new Map(this.items.map((id, at) => [id, at]));
  }

  #fold(shown) {
    const stacks = new Map();
    const items = [];
    for (const picture of shown) {
      const stack = this.model.stackOf.get(picture.id);
      if (stack === undefined || this.opened.has(stack.number)) {
        items.push([picture]);
        continue;
      }
      // A picture that was moved away is no duplicate in its new place.
      const key = `${stack.number} ${picture.cluster}`;
      const found = stacks.get(key);
      if (found) found.push(picture);
      else {
        stacks.set(key, [picture]);
        items.push(stacks.get(key));
      }
    }
    return items.map((pictures) => {
      const rank = (p) => (p.decision === "keep" ? -1 : p.decision === "reject" ? 1e6 : 0) + (this.model.stackOf.get(p.id)?.rank ?? 0);
      const [best, ...rest] = pictures.length > 1 ? [...pictures].sort((a, b) => rank(a) - rank(b)) : pictures;
      if (rest.length) this.members.set(best.id, rest.map((picture) => picture.id));
      for (const picture of rest) this.itemOf.set(picture.id, best.id);
      return best.id;
    });
  }

  // Near-duplicates that are folded under a picture.
  under(id) {
    return this.members.get(id) ?? [];
  }

  place(id) {
    return this.index.get(id) ?? this.index.get(this.itemOf.get(id)) ?? -1;
  }
}
