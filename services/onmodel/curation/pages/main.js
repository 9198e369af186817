// Puts the page together: state, commands, and what follows when either this page or another one acts.

import { Queue, Refused, client, get, post } from "./api.js";
import { askGroup, askLabel, askWrite, openDialog, paintLarge, prepare } from "./dialogs.js";
import { find, make, plural } from "./dom.js";
import { Grid } from "./grid.js";
import { commandOf, paintKeys } from "./keys.js";
import { Model } from "./model.js";
import { paintGroups, paintMeter, paintPicked, paintTally, paintWork } from "./panel.js";
import { makeTile, paintTile } from "./tile.js";
import { View } from "./view.js";

const POLL_MS = 1200;
const TOAST_MS = 4000;
const LONG_PRESS_MS = 450;
const DECISIONS = [["all", "All"], ["open", "Undecided"], ["kept", "Kept"], ["rejected", "Rejected"]];
const META_HEIGHT = 80;
// Details need this much; narrower tiles would cut them off.
const META_WIDTH = 160;

class Page {
  cursor = null;
  anchor = null;
  selected = new Set();
  selecting = false;
  metadata = false;
  // The action of another page that the next undo would turn back, once that was said.
  armed = null;
  stacks = -1;

  constructor(model) {
    this.model = model;
    this.view = new View(model);
    this.queue = new Queue((off) => this.offline(off));
    this.news = new BroadcastChannel("onmodel-curate");
    this.news.onmessage = () => this.poll();
    this.grid = new Grid(find("#scroller"), find("#canvas"), makeTile, (tile, id, at, quick) => this.paint(tile, id, at, quick));
    this.metadata = model.options.show_metadata;
    const ratios = model.pictures.map((picture) => picture.width / picture.height).sort((a, b) => a - b);
    const narrow = matchMedia("(max-width: 760px)").matches;
    const wanted = Number(localStorage.getItem("onmodel-size")) || (narrow ? 110 : 190);
    find("#size").value = wanted;
    this.grid.shape({ wanted, aspect: Math.min(1.8, Math.max(0.75, ratios[ratios.length >> 1])), ...this.room() });
    if (model.options.filter_mode === "balanced") {
      this.view.decision = "open";
      this.view.setBalanced(true);
    }
    this.controls();
    this.rebuild();
    this.cursor = this.view.items[0] ?? null;
    this.everything();
    this.follow();
  }

  // ---- painting

  paint(tile, id, at, quick) {
    paintTile(tile, this.model.byId.get(id), {
      at,
      quick,
      cursor: id === this.cursor,
      selected: this.selected.has(id),
      under: this.view.under(id).length,
      score: this.view.found?.scores.get(id),
      metadata: this.metadata,
      side: this.grid.tileWidth * devicePixelRatio > 300 ? 512 : 256,
    });
  }

  // What the details ask of the grid.
  room() {
    return this.metadata ? { below: META_HEIGHT, least: META_WIDTH } : { below: 0, least: 0 };
  }

  rebuild() {
    const before = this.view.place(this.cursor);
    this.view.build();
    this.keepCursor(before);
    this.grid.set(this.view.items);
    const nothing = this.view.items.length === 0;
    find("#empty").hidden = !nothing;
    find("#scroller").hidden = nothing;
    if (nothing) find("#empty p").textContent = this.whyEmpty();
  }

  keepCursor(before) {
    const { items } = this.view;
    const at = this.view.place(this.cursor);
    if (at >= 0) this.cursor = items[at];
    else this.cursor = items[Math.min(Math.max(before, 0), items.length - 1)] ?? null;
  }

  whyEmpty() {
    const { open, kept } = this.model.tally();
    if (this.view.decision === "open" && open === 0) return `All is decided: ${plural(kept, "picture")} kept. “Write the set” makes a dataset of them.`;
    if (this.view.decision === "open") return "All is decided here. Other clusters or categories still hold undecided pictures.";
    return "No picture is both here and of this kind. Choose another cluster, category or decision.";
  }

  everything() {
    const { model, view } = this;
    document.title = `${model.title} · OnModel curate`;
    find("#title").textContent = model.title;
    paintTally(find("#tally"), model);
    paintGroups(find("#groups"), model, view.group, (name) => this.filter({ group: name }));
    find("#target").textContent = `of ${model.target.total.toLocaleString("en")}, by ${model.target.name}`;
    paintMeter(find("#meter"), model, view.category, (name) => this.filter({ category: name }));
    paintWork(find("#work"), model);
    paintPicked(find("#picked"), this.selected.size);
    for (const input of find("#decisions").querySelectorAll("input")) input.checked = input.value === view.decision;
    find("#category").value = view.category;
    const press = (id, on) => find(id).setAttribute("aria-pressed", on);
    press("#balanced", view.balanced);
    press("#fold", view.folded);
    press("#metadata", this.metadata);
    press('[data-do="selecting"]', this.selecting);
    this.turnable("#undo", model.undo, "Undo");
    this.turnable("#redo", model.redo, "Redo");
    const met = model.meter().filter((goal) => goal.status !== "below").length;
    find("#goals").textContent = `${met} of ${model.target.goals.length} goals`;
    find("#searching").hidden = !view.found;
    document.body.classList.toggle("selecting", this.selecting);
    this.look();
  }

  turnable(id, action, word) {
    const button = find(id);
    button.disabled = !action;
    button.title = action ? `${word}: ${action.text} (${word === "Undo" ? "u" : "shift u"})` : `Nothing to ${word.toLowerCase()}`;
  }

  // What depends on the cursor alone.
  look() {
    this.grid.refresh();
    const scroller = find("#scroller");
    const tile = this.cursor && document.getElementById(`t-${this.cursor}`);
    if (tile && tile.shows === this.cursor) scroller.setAttribute("aria-activedescendant", tile.id);
    else scroller.removeAttribute("aria-activedescendant");
    const picture = this.model.byId.get(this.cursor);
    if (find("#viewing").open) {
      if (picture) paintLarge(this.model, picture, { metadata: this.metadata, at: this.view.place(this.cursor), count: this.view.items.length });
      else find("#viewing").close();
    }
  }

  toast(text, kind = "") {
    const toast = make("p", { className: kind, textContent: text });
    // Shown in the large view too, which covers the page.
    (find("#viewing[open]") ?? document.body).append(find("#toasts"));
    find("#toasts").append(toast);
    while (find("#toasts").children.length > 1) find("#toasts").firstChild.remove();
    setTimeout(() => toast.remove(), kind === "bad" ? 2 * TOAST_MS : TOAST_MS);
  }

  offline(off) {
    const alert = find("#alert");
    alert.hidden = !off;
    if (off) {
      const waiting = this.queue.waiting;
      alert.textContent = `The server does not answer. ${waiting ? `${plural(waiting, "action")} not saved yet; trying again.` : "Trying again."}`;
    }
  }

  // ---- what pictures a command is about

  // The selection, or the picture at the cursor; with what is folded under each.
  chosen() {
    const heads = this.selected.size ? this.view.items.filter((id) => this.selected.has(id)) : this.cursor ? [this.cursor] : [];
    return { heads, under: heads.flatMap((id) => this.view.under(id)) };
  }

  pictures() {
    const { heads, under } = this.chosen();
    return [...heads, ...under].map((id) => this.model.byId.get(id));
  }

  // ---- acting

  async act(kind, fields = {}) {
    const { heads, under } = this.chosen();
    if (!heads.length) return;
    const single = this.selected.size === 0;
    const deciding = kind !== "label";
    const body = kind === "keep" ? { kind, pictures: heads, duplicates: under } : { kind, pictures: [...heads, ...under], ...fields };
    if (deciding) {
      if (single) this.advance();
      this.selected.clear();
    }
    await this.send("/api/actions", () => ({ ...body, since: this.model.revision }));
  }

  advance() {
    const at = this.view.place(this.cursor);
    if (at + 1 < this.view.items.length) this.go(at + 1);
  }

  async send(path, body) {
    this.look();
    try {
      const changes = await this.queue.add(path, body);
      if (!changes) return;
      this.take(changes);
      this.news.postMessage(this.model.revision);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.toast(error.message || "The server refused this.", "bad");
      await this.poll();
    }
  }

  take(changes) {
    const fresh = this.model.apply(changes);
    for (const action of fresh) {
      this.toast(action.client === client ? capital(action.text) : `Another page: ${action.text}`);
    }
    if (fresh.length) {
      if (this.view.stale()) {
        this.view.weigh();
        this.toast("A category was met or is missing again: the order is renewed.");
      }
      this.rebuild();
      this.prune();
      this.everything();
      if (fresh.some((action) => action.client === client)) this.grid.reveal(this.view.place(this.cursor));
    } else {
      paintWork(find("#work"), this.model);
    }
  }

  // Selected pictures that are no longer shown would be acted on unseen.
  prune() {
    for (const id of this.selected) if (!this.view.index.has(id)) this.selected.delete(id);
  }

  turn(kind) {
    let other = null;
    const body = () => {
      const action = this.model[kind];
      if (!action) return null;
      const unseen = action.client !== client && action.revision > this.model.loaded;
      if (unseen && this.armed !== action.revision) {
        other = action;
        return null;
      }
      return { target: action.revision, since: this.model.revision };
    };
    return this.send(`/api/${kind}`, body).then(() => {
      this.armed = other?.revision ?? null;
      if (other) this.toast(`The latest is another page's: ${other.text}. Press again to ${kind} it.`, "bad");
    });
  }

  trait(name) {
    const all = this.pictures().every((picture) => picture.traits.includes(name));
    return this.act("label", all ? { remove: [name] } : { add: [name] });
  }

  // ---- following other pages and the background

  async poll() {
    try {
      const changes = await get(`/api/changes?since=${this.model.revision}`);
      if (!this.queue.waiting) this.offline(false);
      this.take(changes);
      if (changes.background.stacks !== this.stacks) {
        const { version, stacks } = await get("/api/stacks");
        this.stacks = version;
        this.model.setStacks(stacks);
        this.rebuild();
        this.everything();
      }
    } catch (error) {
      if (error instanceof Refused) this.toast(error.message || `The server answered ${error.status}.`, "bad");
      else this.offline(true);
    }
  }

  async follow() {
    for (;;) {
      if (!document.hidden) await this.poll();
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  // ---- moving about

  go(at, extend = false) {
    const { items } = this.view;
    if (!items.length) return;
    const to = Math.max(0, Math.min(items.length - 1, at));
    if (extend) {
      const from = this.view.place(this.anchor ?? this.cursor);
      this.anchor = items[from];
      this.selected = new Set(items.slice(Math.min(from, to), Math.max(from, to) + 1));
      paintPicked(find("#picked"), this.selected.size);
    } else this.anchor = items[to];
    this.cursor = items[to];
    this.grid.reveal(to);
    this.look();
  }

  step(where, extend) {
    const at = this.view.place(this.cursor);
    const { columns, pageRows } = this.grid;
    // In the large view there are no rows: up and down are back and forth as well.
    const row = find("#viewing").open ? 1 : columns;
    const by = { left: -1, right: 1, above: -row, below: row, up: -pageRows * columns, down: pageRows * columns }[where];
    const last = this.view.items.length - 1;
    if (where === "first") this.go(0, extend);
    else if (where === "last") this.go(last, extend);
    else if (at + by >= 0 && at + by <= last) this.go(at + by, extend);
    else if (where === "up" || where === "down") this.go(at + by, extend);
    else if (where === "below" && Math.floor(at / columns) < Math.floor(last / columns)) this.go(last, extend);
  }

  filter(change) {
    this.view.found = null;
    Object.assign(this.view, change);
    if (this.view.balanced) this.view.weigh();
    this.selected.clear();
    this.rebuild();
    this.everything();
    find("#scroller").scrollTop = 0;
    this.go(0);
    this.panel(false);
  }

  async similar() {
    const id = this.cursor;
    if (!id) return;
    try {
      const got = await get(`/api/similar/${id}`);
      if (!this.view.found) this.back = { cursor: id, top: find("#scroller").scrollTop };
      this.view.found = { id, scores: new Map(got.pictures) };
      const by = got.by === "embedding" ? "the character’s CLIP embedding" : "picture hash";
      find("#found").textContent = `Most like ${this.model.byId.get(id).name}, by ${by}${got.note ? ` (${got.note})` : ""}`;
      this.selected.clear();
      find("#viewing").close();
      this.rebuild();
      this.everything();
      find("#scroller").scrollTop = 0;
      this.go(0);
    } catch (error) {
      this.toast(error.message || "The server does not answer.", "bad");
    }
  }

  leave() {
    this.view.found = null;
    this.rebuild();
    this.cursor = this.back?.cursor ?? this.cursor;
    this.keepCursor(0);
    this.everything();
    find("#scroller").scrollTop = this.back?.top ?? 0;
    this.go(this.view.place(this.cursor));
    find("#scroller").focus({ preventScroll: true });
  }

  panel(open) {
    document.body.classList.toggle("panel", open);
    find("#menu").setAttribute("aria-expanded", open);
    find("#veil").hidden = !open;
  }

  // ---- commands, by name

  commands = {
    keep: () => this.act("keep"),
    reject: () => this.act("reject"),
    clear: () => this.act("clear"),
    undo: () => this.turn("undo"),
    redo: () => this.turn("redo"),
    shot: (name) => this.act("label", { shot_type: name }),
    trait: (name) => this.trait(name),
    reset: () => this.act("label", { reset: true }),
    move: () => {
      if (this.cursor) askGroup([...this.model.groups().keys()], this.pictures().length, (name) => this.act("move", { group: name }));
    },
    label: () => {
      if (!this.cursor) return;
      // The same pictures stay meant while labels change, whatever the filter makes of them.
      const ids = this.pictures().map((picture) => picture.id);
      askLabel(this.model, () => ids.map((id) => this.model.byId.get(id)), (kind, name) => this.relabel(ids, kind, name));
    },
    select: () => this.toggle(this.cursor),
    selecting: () => {
      this.selecting = !this.selecting;
      if (!this.selecting) this.selected.clear();
      this.everything();
    },
    all: () => {
      this.selected = this.selected.size === this.view.items.length ? new Set() : new Set(this.view.items);
      this.everything();
    },
    escape: () => {
      if (document.body.classList.contains("panel")) this.panel(false);
      else if (this.selected.size || this.selecting) {
        this.selected.clear();
        this.selecting = false;
        this.everything();
      } else if (this.view.found) this.leave();
    },
    similar: () => this.similar(),
    enlarge: () => {
      if (!this.cursor) return;
      const dialog = find("#viewing");
      if (dialog.open) dialog.close();
      else {
        dialog.showModal();
        dialog.focus();
        this.look();
      }
    },
    open: () => this.openStack(this.cursor),
    fold: () => {
      Object.assign(this.view, { folded: !this.view.folded, opened: new Set() });
      this.selected.clear();
      this.rebuild();
      this.everything();
      this.grid.reveal(this.view.place(this.cursor));
    },
    metadata: () => {
      this.metadata = !this.metadata;
      this.grid.shape(this.room());
      this.everything();
      this.grid.reveal(this.view.place(this.cursor));
    },
    balanced: () => {
      this.view.setBalanced(!this.view.balanced);
      this.filter({});
    },
    next: () => {
      const at = DECISIONS.findIndex(([name]) => name === this.view.decision);
      this.filter({ decision: DECISIONS[(at + 1) % DECISIONS.length][0] });
    },
    cluster: (by) => {
      const names = [null, ...[...this.model.groups()].filter(([, count]) => count.all).map(([name]) => name)];
      const at = names.indexOf(this.view.group);
      this.filter({ group: names[(at + by + names.length) % names.length] });
    },
    zoom: (by) => {
      const wanted = Math.max(90, Math.min(420, this.grid.wanted + 30 * by));
      this.zoom(wanted);
      find("#size").value = wanted;
    },
    go: (where, extend) => this.step(where, extend),
    write: async () => {
      // What is still on its way belongs to the set.
      await this.queue.idle();
      if (!openDialog()) askWrite(this.model, () => post("/api/export", {}));
    },
    help: () => find("#helping").showModal(),
  };

  async relabel(ids, kind, name) {
    const all = ids.every((id) => this.model.byId.get(id).traits.includes(name));
    const fields = { shot: { shot_type: name }, trait: all ? { remove: [name] } : { add: [name] }, reset: { reset: true } }[kind];
    await this.send("/api/actions", () => ({ kind: "label", pictures: ids, ...fields, since: this.model.revision }));
  }

  zoom(wanted) {
    localStorage.setItem("onmodel-size", wanted);
    this.grid.shape({ wanted });
    this.everything();
    this.grid.reveal(this.view.place(this.cursor));
  }

  toggle(id) {
    if (!id) return;
    if (!this.selected.delete(id)) this.selected.add(id);
    this.anchor = id;
    this.everything();
  }

  openStack(id) {
    const stack = this.model.stackOf.get(id);
    if (!stack || !this.view.folded) return;
    if (!this.view.opened.delete(stack.number)) this.view.opened.add(stack.number);
    this.rebuild();
    this.everything();
    this.grid.reveal(this.view.place(this.cursor));
  }

  run([name, ...rest]) {
    return this.commands[name](...rest);
  }

  // ---- controls

  controls() {
    find("#decisions").replaceChildren(
      ...DECISIONS.map(([value, label]) => {
        const input = make("input", { type: "radio", name: "decision", value });
        input.addEventListener("change", () => this.filter({ decision: value }));
        return make("label", {}, input, make("span", { textContent: label }));
      }),
    );
    find("#category").replaceChildren(
      make("option", { value: "", textContent: "every category" }),
      ...[...this.model.shots, ...this.model.attributes].map(([value, textContent]) => make("option", { value, textContent })),
    );
    find("#category").addEventListener("change", (event) => this.filter({ category: event.target.value }));
    find("#size").addEventListener("input", (event) => this.zoom(Number(event.target.value)));
    for (const id of ["undo", "redo", "help", "write", "balanced", "fold", "metadata"]) {
      find(`#${id}`).addEventListener("click", () => this.run([id]));
    }
    for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => this.run([button.dataset.do]));
    for (const button of document.querySelectorAll("[data-go]")) {
      button.addEventListener("click", () => this.step(button.dataset.go === "1" ? "right" : "left"));
    }
    find("#leave").addEventListener("click", () => this.leave());
    for (const id of ["#menu", "#goals"]) {
      find(id).addEventListener("click", () => this.panel(!document.body.classList.contains("panel")));
    }
    find("#veil").addEventListener("click", () => this.panel(false));
    find("#viewing").addEventListener("close", () => find("#scroller").focus({ preventScroll: true }));
    paintKeys(find("#keys"));
    prepare();
    this.pointer();
    document.addEventListener("keydown", (event) => this.key(event));
    find("#scroller").focus({ preventScroll: true });
  }

  key(event) {
    const target = event.target;
    const dialog = openDialog();
    if (dialog && dialog.id !== "viewing") {
      if (dialog.id === "labelling") this.labelKey(event);
      return;
    }
    if (target.matches("input:not([type=range]), select, textarea")) {
      // Arrow keys and letters belong to the control; Escape gives the keys back to the grid.
      if (event.key === "Escape") find("#scroller").focus({ preventScroll: true });
      if (target.type !== "radio" || /^Arrow| /.test(event.key)) return;
    }
    if (target.matches("[type=range]") && event.key.startsWith("Arrow")) return;
    if (target.matches("button") && (event.key === " " || event.key === "Enter")) return;
    const command = commandOf(event);
    if (!command || (dialog && ["escape", "help", "all", "write"].includes(command[0]))) return;
    event.preventDefault();
    this.run(command);
  }

  labelKey(event) {
    const command = commandOf(event);
    if (!command || !["shot", "trait", "reset"].includes(command[0])) return;
    event.preventDefault();
    const inside = command[0] === "reset" ? find("#as-detected") : null;
    if (inside) inside.click();
    else {
      const list = command[0] === "shot" ? this.model.shots : this.model.attributes;
      find(command[0] === "shot" ? "#shots" : "#traits").children[list.findIndex(([name]) => name === command[1])].click();
    }
  }

  pointer() {
    const canvas = find("#canvas");
    const tileOf = (event) => event.target.closest(".tile");
    let held = 0;
    let pressed = false;
    let touch = false;
    canvas.addEventListener("pointerdown", (event) => {
      pressed = false;
      touch = event.pointerType !== "mouse";
      const tile = tileOf(event);
      if (!tile || event.pointerType === "mouse") return;
      held = setTimeout(() => {
        pressed = true;
        this.selecting = true;
        this.go(tile.at);
        this.toggle(tile.shows);
      }, LONG_PRESS_MS);
    });
    for (const kind of ["pointerup", "pointercancel", "pointerleave"]) canvas.addEventListener(kind, () => clearTimeout(held));
    canvas.addEventListener("contextmenu", (event) => pressed && event.preventDefault());
    canvas.addEventListener("click", (event) => {
      const tile = tileOf(event);
      if (!tile || pressed) return;
      find("#scroller").focus({ preventScroll: true });
      const again = tile.shows === this.cursor;
      if (event.shiftKey) return this.go(tile.at, true);
      this.go(tile.at);
      if (event.target.closest(".pick") || event.ctrlKey || event.metaKey || this.selecting) return this.toggle(tile.shows);
      if (event.target.closest(".like")) return this.similar();
      if (event.target.closest(".stack")) return this.openStack(tile.shows);
      // Without a mouse there is no double click: a second tap enlarges.
      if (again && touch) this.run(["enlarge"]);
    });
    canvas.addEventListener("dblclick", (event) => !touch && tileOf(event) && !event.target.closest("button") && this.run(["enlarge"]));
    let from = null;
    const stage = find("#stage");
    stage.addEventListener("touchstart", (event) => (from = event.touches[0].clientX), { passive: true });
    stage.addEventListener("touchend", (event) => {
      const by = event.changedTouches[0].clientX - (from ?? event.changedTouches[0].clientX);
      if (Math.abs(by) > 40) this.step(by < 0 ? "right" : "left");
    });
  }
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

try {
  window.page = new Page(new Model(await get("/api/everything")));
} catch (error) {
  const alert = find("#alert");
  alert.hidden = false;
  alert.textContent = error instanceof Refused ? error.message : `The page could not be loaded (${error.message}); reload it.`;
}
