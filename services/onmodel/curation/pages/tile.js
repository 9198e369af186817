// One picture in the grid.

import { icon, make } from "./dom.js";
import { NONE } from "./model.js";

export const SHORT = {
  close_up: "close-up",
  medium: "medium",
  full_body: "full body",
  far: "far",
  unclassified: "no shot type",
  multi_character: "multi",
  occlusion: "occluded",
  complex_background: "busy",
};

export function makeTile() {
  const image = make("img", { alt: "", decoding: "async", draggable: false });
  const tile = make(
    "div",
    { className: "tile", aria: { role: "gridcell" } },
    make(
      "div",
      { className: "frame" },
      image,
      make("span", { className: "gone", textContent: "gone or unreadable" }),
      make("button", { className: "pick", type: "button", tabIndex: -1, title: "Select (x)", aria: { label: "Select" } }, icon("check")),
      make("button", { className: "like", type: "button", tabIndex: -1, title: "Similar pictures (/)", aria: { label: "Similar pictures" } }, icon("like")),
      make("button", { className: "stack", type: "button", tabIndex: -1, title: "Open the stack (d)" }, icon("stack"), make("span")),
      make("span", { className: "score" }),
      make("span", { className: "mark" }),
    ),
    make("div", { className: "meta" }, make("p", { className: "kinds" }), make("p", { className: "size" }), make("p", { className: "words" })),
  );
  image.addEventListener("error", () => image.hasAttribute("src") && tile.classList.add("missing"));
  image.addEventListener("load", () => tile.classList.remove("missing"));
  return tile;
}

export function paintTile(tile, picture, look) {
  const { at, cursor, selected, under, score, metadata, side, quick } = look;
  const [frame, meta] = tile.children;
  const image = frame.firstChild;
  if (tile.shows !== picture.id) {
    tile.shows = picture.id;
    tile.id = `t-${picture.id}`;
    tile.classList.remove("missing");
    image.removeAttribute("src");
  }
  const source = `/thumbnail/${picture.id}?side=${side}`;
  if (!quick && image.getAttribute("src") !== source) image.src = source;
  tile.at = at;
  tile.classList.toggle("cursor", cursor);
  tile.classList.toggle("selected", selected);
  tile.classList.toggle("keep", picture.decision === "keep");
  tile.classList.toggle("reject", picture.decision === "reject");
  tile.classList.toggle("stacked", under > 0);
  tile.setAttribute("aria-selected", selected);
  tile.setAttribute("aria-label", spoken(picture, under));
  const decision = picture.decision ?? "";
  const mark = frame.lastChild;
  if (mark.dataset.decision !== decision) {
    mark.dataset.decision = decision;
    mark.replaceChildren(...(decision ? [icon(decision === "keep" ? "check" : "cross")] : []));
  }
  const stack = frame.querySelector(".stack");
  stack.hidden = under === 0;
  if (under) {
    stack.lastChild.textContent = under + 1;
    stack.setAttribute("aria-label", `Open the stack of ${under + 1}`);
  }
  const shown = frame.querySelector(".score");
  shown.hidden = score === undefined;
  if (score !== undefined) shown.textContent = score.toFixed(2);
  meta.hidden = !metadata;
  if (metadata) paintMeta(meta, picture);
}

function paintMeta(meta, picture) {
  const [kinds, size, words] = meta.children;
  const chip = (name, kind) => make("span", { className: `chip ${kind}`, textContent: SHORT[name] });
  kinds.replaceChildren(
    chip(picture.shotNow, picture.shotNow === NONE ? "none" : "shot"),
    ...picture.traits.map((name) => chip(name, "trait")),
    ...(picture.corrected ? [make("span", { className: "corrected", textContent: "corrected", title: "Labelled by a person" })] : []),
  );
  size.textContent = sizes(picture).join(" · ");
  words.textContent = picture.caption || picture.name;
}

export function sizes(picture) {
  const box = picture.main === null ? null : picture.boxes[picture.main];
  const others = picture.boxes.length - 1;
  return [
    picture.pose,
    others > 0 && `${others} other${others === 1 ? "" : "s"}`,
    box && `${Math.round((100 * (box[3] - box[1])) / picture.height)} % high`,
    `${picture.width}×${picture.height}`,
  ].filter(Boolean);
}

function spoken(picture, under) {
  const parts = [picture.name, SHORT[picture.shotNow], ...picture.traits.map((name) => SHORT[name])];
  if (picture.decision) parts.push(picture.decision === "keep" ? "kept" : "rejected");
  if (under) parts.push(`stack of ${under + 1} near-duplicates`);
  return parts.join(", ");
}
