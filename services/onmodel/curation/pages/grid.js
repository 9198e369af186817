// A grid of which only the rows near the window exist. Rows are reused, tiles are painted when their picture changes.

const GAP = 8;
const PAD = 12;
const OVERSCAN = 2;
// Scrolling faster than this many windows a second, pictures are not asked for: they would be gone before they came.
const FAST = 6;
const SETTLE_MS = 70;

export class Grid {
  items = [];
  columns = 1;
  rowHeight = 1;
  wanted = 180;
  aspect = 1;
  below = 0;
  least = 0;
  #rows = new Map();
  #spare = [];
  #frame = 0;
  #settle = 0;
  #last = { top: 0, time: 0 };
  #version = 0;

  // `make()` gives an empty tile; `paint(tile, id, at, quick)` fills it; quick = without asking for its picture.
  constructor(scroller, canvas, make, paint) {
    Object.assign(this, { scroller, canvas, make, paint });
    scroller.addEventListener("scroll", () => this.#schedule(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(scroller);
  }

  // `below` is the height of what stands under each picture, `least` the width that it needs.
  shape({ wanted = this.wanted, aspect = this.aspect, below = this.below, least = this.least }) {
    Object.assign(this, { wanted, aspect, below, least });
    this.layout();
  }

  layout() {
    const width = this.scroller.clientWidth - 2 * PAD;
    if (width <= 0) return;
    const top = Math.floor(this.scroller.scrollTop / this.rowHeight) * this.columns;
    const most = Math.floor((width + GAP) / (this.least + GAP));
    this.columns = Math.max(1, Math.min(most, Math.round((width + GAP) / (this.wanted + GAP))));
    this.tileWidth = (width - GAP * (this.columns - 1)) / this.columns;
    this.rowHeight = Math.round(this.tileWidth / this.aspect) + this.below + GAP;
    this.scroller.style.setProperty("--columns", this.columns);
    this.scroller.style.setProperty("--tile-height", `${this.rowHeight - GAP}px`);
    this.scroller.style.setProperty("--picture-height", `${this.rowHeight - GAP - this.below}px`);
    this.#clear();
    this.#size();
    this.scroller.scrollTop = Math.floor(top / this.columns) * this.rowHeight;
    this.render();
  }

  get rowCount() {
    return Math.ceil(this.items.length / this.columns);
  }

  #size() {
    this.canvas.style.height = `${this.rowCount * this.rowHeight + 2 * PAD - GAP}px`;
    this.scroller.setAttribute("aria-rowcount", this.rowCount);
    this.scroller.setAttribute("aria-colcount", this.columns);
  }

  set(items) {
    this.items = items;
    this.#size();
    this.refresh();
  }

  // Paints again what is on screen.
  refresh() {
    this.#version += 1;
    this.render();
  }

  #clear() {
    for (const row of this.#rows.values()) row.remove();
    this.#rows.clear();
    this.#spare = [];
  }

  #schedule() {
    if (!this.#frame) this.#frame = requestAnimationFrame(() => this.#scrolled());
  }

  #scrolled() {
    this.#frame = 0;
    const now = performance.now();
    const top = this.scroller.scrollTop;
    const speed = Math.abs(top - this.#last.top) / this.scroller.clientHeight / Math.max((now - this.#last.time) / 1000, 1e-3);
    this.#last = { top, time: now };
    clearTimeout(this.#settle);
    if (speed > FAST) this.#settle = setTimeout(() => this.refresh(), SETTLE_MS);
    this.render(speed > FAST);
  }

  render(quick = false) {
    const { scroller, rowHeight, columns } = this;
    if (!this.tileWidth) return;
    const first = Math.max(0, Math.floor((scroller.scrollTop - PAD) / rowHeight) - OVERSCAN);
    const last = Math.min(this.rowCount - 1, Math.ceil((scroller.scrollTop + scroller.clientHeight) / rowHeight) + OVERSCAN);
    for (const [at, row] of this.#rows) {
      if (at >= first && at <= last) continue;
      this.#rows.delete(at);
      this.#spare.push(row);
    }
    for (let at = first; at <= last; at += 1) {
      let row = this.#rows.get(at);
      if (!row) {
        row = this.#spare.pop() ?? this.#newRow();
        row.style.transform = `translateY(${at * rowHeight + PAD}px)`;
        row.setAttribute("aria-rowindex", at + 1);
        row.hidden = false;
        row.version = -1;
        this.#rows.set(at, row);
      }
      if (row.version === this.#version && row.quick === quick) continue;
      if (row.version === this.#version && !row.quick) continue;
      row.version = this.#version;
      row.quick = quick;
      for (let column = 0; column < columns; column += 1) {
        const tile = row.children[column];
        const id = this.items[at * columns + column];
        tile.hidden = id === undefined;
        if (id !== undefined) this.paint(tile, id, at * columns + column, quick);
      }
    }
    for (const row of this.#spare) row.hidden = true;
  }

  #newRow() {
    const row = document.createElement("div");
    row.className = "row";
    row.setAttribute("role", "row");
    for (let column = 0; column < this.columns; column += 1) {
      const tile = this.make();
      tile.setAttribute("aria-colindex", column + 1);
      row.append(tile);
    }
    this.canvas.append(row);
    return row;
  }

  // Scrolls so that an item is wholly seen.
  reveal(at) {
    if (at < 0 || !this.tileWidth) return;
    const top = Math.floor(at / this.columns) * this.rowHeight;
    const height = this.scroller.clientHeight;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + this.rowHeight + 2 * PAD > this.scroller.scrollTop + height) {
      this.scroller.scrollTop = top + this.rowHeight + 2 * PAD - GAP - height;
    }
    this.render();
  }

  get pageRows() {
    return Math.max(1, Math.floor(this.scroller.clientHeight / this.rowHeight));
  }
}
