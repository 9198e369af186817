// All pictures and what was decided, and what follows from both. Knows nothing of the page.

export const NONE = "unclassified";

export class Model {
  constructor(data) {
    Object.assign(this, {
      title: data.title,
      output: data.output,
      source: data.source,
      nested: data.nested,
      notes: data.notes,
      options: data.options,
      target: data.target,
      shots: data.shot_types,
      attributes: data.attributes,
    });
    this.labels = Object.fromEntries([...data.shot_types, ...data.attributes]);
    this.pictures = data.pictures;
    this.byId = new Map(this.pictures.map((picture) => [picture.id, picture]));
    this.pictures.forEach((picture, place) => {
      picture.place = place;
      picture.name = picture.file.slice(picture.file.lastIndexOf("/") + 1);
      this.#settle(picture, [null, null, null, null]);
    });
    this.sourceGroups = data.groups;
    // The stack each picture is folded into: its number, and the picture's place in it, the sharpest first.
    this.stackOf = new Map();
    this.loaded = data.revision;
    this.revision = data.revision;
    this.#take(data.states);
    this.#rest(data);
  }

  #settle(picture, [decision, group, shot, attributes]) {
    picture.decision = decision;
    picture.cluster = group ?? picture.group;
    picture.shotNow = shot ?? picture.shot;
    picture.traits = attributes ?? picture.attributes;
    picture.corrected = shot !== null || attributes !== null || picture.labelled;
    picture.categories = picture.shotNow === NONE ? picture.traits : [picture.shotNow, ...picture.traits];
  }

  #take(states) {
    for (const [id, state] of Object.entries(states)) {
      const picture = this.byId.get(id);
      if (picture) this.#settle(picture, state);
    }
  }

  #rest(data) {
    this.undo = data.undo;
    this.redo = data.redo;
    this.background = data.background;
  }

  // Takes in what the server says has happened; gives the actions that were new.
  apply(changes) {
    const fresh = changes.actions.filter((action) => action.revision > this.revision);
    for (const action of fresh) {
      this.#take(action.states);
      this.revision = action.revision;
    }
    if (changes.revision >= this.revision) this.#rest(changes);
    return fresh;
  }

  setStacks(stacks) {
    this.stackOf = new Map(stacks.flatMap((ids, number) => ids.map((id, rank) => [id, { number, rank }])));
  }

  // Names of the clusters with their counts: those of the folder in its order, then new ones.
  groups() {
    const counts = new Map(this.sourceGroups.map((name) => [name, { all: 0, kept: 0, open: 0 }]));
    for (const picture of this.pictures) {
      const count = counts.get(picture.cluster) ?? counts.set(picture.cluster, { all: 0, kept: 0, open: 0 }).get(picture.cluster);
      count.all += 1;
      if (picture.decision === "keep") count.kept += 1;
      if (picture.decision === null) count.open += 1;
    }
    return counts;
  }

  tally() {
    let kept = 0;
    let rejected = 0;
    for (const picture of this.pictures) {
      if (picture.decision === "keep") kept += 1;
      else if (picture.decision === "reject") rejected += 1;
    }
    return { kept, rejected, open: this.pictures.length - kept - rejected, all: this.pictures.length };
  }

  // Per category of the target: how many are kept, how many are wanted, how many are there to choose from.
  meter() {
    const kept = new Map();
    const open = new Map();
    let total = 0;
    for (const picture of this.pictures) {
      const into = picture.decision === "keep" ? kept : picture.decision === null ? open : null;
      if (picture.decision === "keep") total += 1;
      if (into === null) continue;
      for (const name of picture.categories) into.set(name, (into.get(name) ?? 0) + 1);
      if (picture.shotNow === NONE) into.set(NONE, (into.get(NONE) ?? 0) + 1);
    }
    const base = Math.max(this.target.total, total) / 100;
    return this.target.goals.map((goal) => {
      const counted = this.target.unit === "pictures";
      const low = counted ? goal.low : Math.ceil(goal.low * base - 1e-9);
      const high = counted ? goal.high : Math.max(low, Math.floor(goal.high * base + 1e-9));
      const count = kept.get(goal.category) ?? 0;
      const status = count < low ? "below" : high !== null && count > high ? "above" : "within";
      return { ...goal, low, high, count, status, open: open.get(goal.category) ?? 0, share: total ? (100 * count) / total : 0 };
    });
  }
}
