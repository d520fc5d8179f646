// The wall of results. Heights are fixed by CSS and widths by kind, so nothing moves while pictures arrive.
// The cards stand in rows that are counted out here, some rows in a block: a block out of sight is not laid out
// (content-visibility), and one that comes near is laid out alone. In one long wrapping box every card that came had
// all 5,000 measured again, and every card was looked at in every frame.
// A long list is built a slice at a time.

import { $, h, icon, isMotionWanted, ownUrl } from "./dom.js";
import { kindOf, marked, number, place, titleOf } from "./words.js";
import { badge } from "./why.js";

const FIRST = 40; // cards before the first paint
const SLICE_MS = 32; // of building between two breaths after it
const REST_MS = 150; // after which a window that changes its width is taken to have its new one
// browsers that tell when a block comes near: "lazy" alone has them look at the place of every picture in every frame
const isRowTold = "ContentVisibilityAutoStateChangeEvent" in window;
const ROWS = 4; // in a block: more are a longer wait when they come near, fewer are more blocks to look at in each frame
const FEW = 200; // cards that are put into new rows at once
const LEAD = 14; // characters before the first match in a caption
const HOVER_MS = 140; // a pointer on its way to somewhere else plays nothing

export class Wall {
  /** `on` takes open(index), menu(index, button), key(event, index). */
  constructor(on) {
    this.on = on;
    this.hits = [];
    this.cards = new Map();
    this.list = []; // the cards in their order
    this.block = this.row = null; // the last ones
    this.used = 0; // width of the cards in the last row
    this.root = $("wall");
    this.run = 0;
    this.shape = "";
    this.rest = 0;
    new ResizeObserver(() => this.#resized()).observe(this.root);
    this.playing = null;
    this.root.addEventListener("click", (event) => this.#click(event));
    this.root.addEventListener("contentvisibilityautostatechange", (event) => event.skipped || load(event.target));
    this.root.addEventListener("contextmenu", (event) => this.#context(event));
    this.root.addEventListener("keydown", (event) => this.#key(event));
    this.root.addEventListener("focusin", (event) => this.#focus(event));
    this.root.addEventListener("focusout", () => this.#stop());
    this.root.addEventListener("pointerover", (event) => event.pointerType === "mouse" && this.#play(event.target.closest(".card")));
    this.root.addEventListener("pointerleave", () => this.#stop());
  }

  /** Show hits; cards of hits that were here already stay as they are. Resolves when all are built. */
  async show(hits, { why }) {
    this.run += 1;
    const run = this.run;
    this.hits = hits;
    this.#stop();
    this.root.removeAttribute("aria-busy");
    this.root.classList.toggle("with-why", why);
    const before = this.cards;
    this.cards = new Map();
    const build = (from, to) => hits.slice(from, to).map((hit, offset) => {
      const card = this.#same(before.get(hit.id), hit) ?? this.#card(hit);
      this.#place(card, from + offset, hit, why);
      this.cards.set(hit.id, card);
      return card;
    });
    this.#begin(build(0, FIRST));
    for (let from = FIRST; from < hits.length; ) {
      await new Promise((resolve) => setTimeout(resolve));
      if (run !== this.run) return;
      for (const end = performance.now() + SLICE_MS; from < hits.length && performance.now() < end; from += 10) this.#append(build(from, from + 10));
    }
  }

  skeletons(count) {
    this.run += 1;
    this.hits = [];
    this.cards = new Map();
    this.root.setAttribute("aria-busy", "true");
    const kinds = ["image", "page", "image", "text", "moment", "page", "image", "image", "text", "image", "page", "moment"];
    this.#begin(
      Array.from({ length: count }, (_, index) =>
        h("div", { class: "card skeleton", "data-kind": kinds[index % kinds.length], "aria-hidden": "true" },
          h("span", { class: "pane" }), h("span", { class: "line" }), h("span", { class: "line short" })),
      ),
    );
  }

  clear() {
    this.run += 1;
    this.hits = [];
    this.cards = new Map();
    this.root.removeAttribute("aria-busy");
    this.#begin([]);
  }

  /** Show these cards and no others. */
  #begin(cards) {
    this.shape = this.#measure();
    this.list = [];
    this.block = this.row = null;
    this.root.replaceChildren();
    this.#append(cards);
  }

  /** More cards: into the last row as far as they fit, then into new ones. */
  #append(cards) {
    const blocks = [];
    for (const card of cards) {
      const width = this.basis[card.dataset.kind] ?? this.basis.other;
      if (!this.row || this.used + this.gap + width > this.width) {
        this.row = h("div", { class: "wall-row", role: "presentation" });
        this.used = -this.gap;
        if (!this.block || this.block.childElementCount === ROWS) {
          this.block = h("div", { class: "wall-rows", role: "presentation" });
          blocks.push(this.block);
        }
        this.block.append(this.row);
      }
      this.used += this.gap + width;
      this.row.append(card);
      this.list.push(card);
    }
    this.root.append(...blocks);
  }

  /** How wide the wall and its cards are; the same text for the same rows. */
  #measure() {
    const style = getComputedStyle(this.root);
    const size = (name) => parseFloat(style.getPropertyValue(name));
    this.gap = size("column-gap");
    this.width = (this.root.clientWidth || innerWidth) - size("padding-left") - size("padding-right") + 0.5; // no row breaks for a rounding
    const pair = size("--pair"); // on a phone: two in each row
    this.basis = pair
      ? { other: (this.width - this.gap) / 2 - 1 }
      : { page: size("--w-page"), text: size("--w-text"), moment: size("--w-moment"), video: size("--w-moment"), other: size("--w") };
    return [this.width, pair].join();
  }

  /** A window of another width: few cards find their rows at once, many when it rests. */
  #resized() {
    clearTimeout(this.rest);
    if (this.list.length <= FEW) this.#again();
    else this.rest = setTimeout(() => this.#again(), REST_MS);
  }

  /** The same cards in rows of the width of now. What is seen and what has the focus stay where they are. */
  #again() {
    const shape = this.#measure();
    if (shape === this.shape || !this.list.length) return;
    this.shape = shape;
    const focused = this.root.contains(document.activeElement) ? document.activeElement : null;
    const top = (card) => card.getBoundingClientRect().top;
    const seen = scrollY > 0 && (focused?.closest(".card") ?? this.list.find((card) => top(card) >= 0));
    const before = seen && top(seen);
    const cards = this.list;
    this.#stop();
    this.list = [];
    this.block = this.row = null;
    this.root.replaceChildren();
    this.#append(cards);
    focused?.focus({ preventScroll: true });
    if (seen) scrollBy({ top: top(seen) - before, behavior: "instant" });
  }

  setWhy(why) {
    this.root.classList.toggle("with-why", why);
    for (const hit of this.hits) {
      const card = this.cards.get(hit.id);
      if (card) this.#why(card, hit, why);
    }
  }

  setLabel(hit) {
    const card = this.cards.get(hit.id);
    if (card) drawLabel(card, hit);
  }

  focus(index) {
    const button = this.list[index]?.querySelector(".open");
    if (!button) return;
    button.focus();
    button.scrollIntoView({ block: "nearest" });
  }

  #same(card, hit) {
    return card && card.dataset.shown === shown(hit) ? card : null;
  }

  #card(hit) {
    const kind = kindOf(hit);
    const title = titleOf(hit);
    const where = place(hit);
    const pane = h("span", { class: "pane" });
    const thumbnail = hit.kind === "text" ? null : ownUrl(hit.thumbnail);
    if (hit.kind === "text") {
      pane.append(h("span", { class: "passage", dir: "auto" }, ...marked(hit.snippet || title, hit.snippet ? hit.matches : [])));
    } else if (thumbnail) {
      const image = h("img", { alt: "", loading: "lazy", decoding: "async", draggable: "false" });
      image.onload = () => {
        const ratio = image.naturalWidth / image.naturalHeight;
        // a receipt is shown whole, a portrait from above its middle; the box stays as it is
        if (hit.kind === "image" && ratio < 1.1) image.classList.add(ratio < 0.85 ? "tall" : "upright");
        image.classList.add("here");
      };
      image.onerror = () => { image.remove(); pane.classList.add("gone"); pane.append(icon(kind.icon)); };
      if (isRowTold) image.dataset.src = thumbnail; // until its block comes near
      else image.src = thumbnail;
      pane.append(image);
    } else {
      pane.classList.add("gone");
      pane.append(icon(kind.icon));
    }
    if (hit.kind === "moment" || hit.kind === "video") pane.append(h("span", { class: "time" }, icon("moment"), where));
    if (hit.page) pane.append(h("span", { class: "time", "aria-hidden": "true" }, `p. ${number(hit.page)}`));
    const about = h("span", { class: "about" }, icon(kind.icon), h("span", { class: "unseen" }, `${kind.one}, `), where && hit.kind === "page" ? where : kind.one.toLowerCase());
    const words = hit.kind !== "text" && hit.snippet && hit.matches?.length ? h("span", { class: "snip", dir: "auto" }, ...fromFirstMatch(hit)) : null;
    const card = h(
      "div",
      { class: "card", role: "listitem", "data-kind": hit.kind, "data-shown": shown(hit) },
      h("button", { type: "button", class: "open", tabindex: "-1" }, pane, h("span", { class: "caption" }, h("bdi", { class: "title" }, title), words ?? about, words ? about : null)),
      h("button", { type: "button", class: "dots", tabindex: "-1", "aria-haspopup": "menu", "aria-label": `Actions for ${title}` }, icon("dots")),
      h("span", { class: "vote" }),
      h("span", { class: "why" }),
    );
    drawLabel(card, hit);
    return card;
  }

  #place(card, index, hit, why) {
    card.dataset.index = index;
    card.setAttribute("aria-posinset", index + 1);
    card.setAttribute("aria-setsize", this.hits.length);
    const tab = index === 0 ? "0" : "-1";
    for (const button of card.querySelectorAll("button")) button.setAttribute("tabindex", tab);
    this.#why(card, hit, why);
  }

  #why(card, hit, why) {
    const line = card.querySelector(".why");
    line.replaceChildren(...(why ? badge(hit) : []));
  }

  #index(node) {
    const card = node.closest?.(".card:not(.skeleton)");
    return card ? Number(card.dataset.index) : -1;
  }

  #click(event) {
    const index = this.#index(event.target);
    if (index < 0) return;
    const dots = event.target.closest(".dots");
    if (dots) this.on.menu(index, dots);
    else if (event.target.closest(".open")) this.on.open(index);
  }

  #context(event) {
    const index = this.#index(event.target);
    if (index < 0 || event.shiftKey) return; // with Shift: the browser's own menu
    event.preventDefault();
    this.on.menu(index, this.list[index].querySelector(".dots"), event);
  }

  #focus(event) {
    const index = this.#index(event.target);
    if (index < 0) return;
    for (const button of this.root.querySelectorAll('button[tabindex="0"]')) button.setAttribute("tabindex", "-1");
    for (const button of this.list[index].querySelectorAll("button")) button.setAttribute("tabindex", "0");
    if (event.target.matches(".open:focus-visible")) this.#play(this.list[index]);
  }

  #key(event) {
    const index = this.#index(event.target);
    if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = this.#target(event.key, index);
    if (to === null) {
      this.on.key(event, index);
      return;
    }
    event.preventDefault();
    this.focus(to);
  }

  /** The card that a key leads to from a card: null for other keys. Up and down go to the nearest in the next row. */
  #target(key, index) {
    const last = this.list.length - 1;
    if (key === "ArrowRight") return Math.min(index + 1, last);
    if (key === "ArrowLeft") return Math.max(index - 1, 0);
    if (key === "Home") return 0;
    if (key === "End") return last;
    if (key !== "ArrowDown" && key !== "ArrowUp") return null;
    const here = this.list[index];
    const row = beside(here.parentNode, key === "ArrowDown" ? 1 : -1);
    const middle = (card) => { const box = card.getBoundingClientRect(); return box.left + box.width / 2; };
    const away = (card) => Math.abs(middle(card) - middle(here));
    const best = row && [...row.children].reduce((near, card) => (away(card) < away(near) ? card : near));
    return best ? Number(best.dataset.index) : index;
  }

  /** A moment plays in its card, without sound, from its first second to its last, again and again. */
  #play(card) {
    if (this.playing?.card === card) return;
    this.#stop();
    const hit = card && this.hits[Number(card.dataset.index)];
    const media = hit && (hit.kind === "moment" || hit.kind === "video") ? ownUrl(hit.media) : null;
    if (!media || card.classList.contains("skeleton") || !isMotionWanted()) return;
    const start = hit.start_s ?? 0;
    const end = hit.end_s ?? Infinity;
    const timer = setTimeout(() => {
      const video = h("video", { "aria-hidden": "true", playsinline: true, preload: "auto", tabindex: "-1", disableremoteplayback: true });
      video.muted = true;
      video.addEventListener("playing", () => video.classList.add("here"), { once: true });
      const again = () => { video.currentTime = start; video.play().catch(() => {}); };
      video.addEventListener("timeupdate", () => video.currentTime >= end && again());
      video.addEventListener("ended", again);
      video.addEventListener("error", () => video.remove());
      video.src = Number.isFinite(end) ? `${media}#t=${start},${end}` : `${media}#t=${start}`;
      card.querySelector(".pane").append(video);
      video.play().catch(() => {});
    }, HOVER_MS);
    this.playing = { card, timer };
  }

  #stop() {
    if (!this.playing) return;
    clearTimeout(this.playing.timer);
    const video = this.playing.card.querySelector("video");
    if (video) {
      video.pause();
      video.removeAttribute("src");
      video.load(); // lets go of the connection
      video.remove();
    }
    this.playing = null;
  }
}

/** The row after a row (1), or before it (-1), or none. */
function beside(row, step) {
  const [next, first] = step > 0 ? ["nextElementSibling", "firstElementChild"] : ["previousElementSibling", "lastElementChild"];
  return row[next] ?? row.parentNode[next]?.[first] ?? null;
}

/** The pictures of a block that comes near. */
function load(block) {
  for (const image of block.querySelectorAll("img[data-src]")) {
    image.src = image.dataset.src;
    delete image.dataset.src;
  }
}

/** All that a card shows of a hit and that can differ between two searches. */
const shown = (hit) => JSON.stringify([hit.kind, hit.title, hit.path, hit.page, hit.start_s, hit.snippet, hit.matches, hit.label]);

/** One line of the snippet that begins a little before its first match. */
function fromFirstMatch({ snippet, matches }) {
  const chars = Array.from(snippet);
  let start = Math.max(0, matches[0][0] - LEAD);
  while (start > 0 && start < matches[0][0] && !/\s/.test(chars[start - 1])) start += 1; // not in the middle of a word
  const moved = start ? 2 : 0; // the sign that something is left out
  const text = (start ? "… " : "") + chars.slice(start).join("");
  return marked(text, matches.map(([from, to]) => [from - start + moved, to - start + moved]));
}

function drawLabel(card, hit) {
  const vote = card.querySelector(".vote");
  vote.className = `vote ${hit.label > 0 ? "good" : hit.label < 0 ? "bad" : ""}`;
  vote.replaceChildren(
    ...(hit.label ? [icon(hit.label > 0 ? "up" : "down"), h("span", { class: "unseen" }, hit.label > 0 ? "marked as good" : "marked as bad")] : []),
  );
}
