// One result, large: the page, picture or moment, its words, and what to do with it.

import * as api from "./api.js";
import { $, h, icon, ownUrl } from "./dom.js";
import { folderOf, kindOf, marked, place, rangesIn, titleOf } from "./words.js";
import { facts } from "./why.js";

export class Preview {
  /** `on` takes like(hit), not(hit), label(hit, value), copy(hit), folder(path), closed(index), key(event). */
  constructor(on) {
    this.on = on;
    this.dialog = $("preview");
    this.hits = [];
    this.index = -1;
    this.library = "default";
    this.reading = null;
    $("preview-close").onclick = () => this.dialog.close();
    $("prev").onclick = () => this.step(-1);
    $("next").onclick = () => this.step(1);
    $("act-like").onclick = () => on.like(this.hit);
    $("act-not").onclick = () => on.not(this.hit);
    $("act-up").onclick = () => on.label(this.hit, this.hit.label > 0 ? 0 : 1);
    $("act-down").onclick = () => on.label(this.hit, this.hit.label < 0 ? 0 : -1);
    $("act-copy").onclick = () => on.copy(this.hit);
    $("act-folder").onclick = () => on.folder(folderOf(this.hit.path));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("close", () => {
      if (this.dialog.open) return; // told late: another one is open by now
      this.reading?.abort();
      $("stage").replaceChildren(); // stops a clip
      on.closed(this.index);
    });
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
  }

  get hit() {
    return this.hits[this.index];
  }

  get isOpen() {
    return this.dialog.open;
  }

  open(hits, index, library) {
    this.hits = hits;
    this.library = library;
    if (!this.dialog.open) this.dialog.showModal();
    this.#show(index);
    $("preview-title").focus();
  }

  step(by) {
    const to = this.index + by;
    if (to >= 0 && to < this.hits.length) this.#show(to);
  }

  /** A label has changed. */
  drawLabel() {
    $("act-up").setAttribute("aria-pressed", this.hit.label > 0);
    $("act-down").setAttribute("aria-pressed", this.hit.label < 0);
  }

  #show(index) {
    this.index = index;
    const hit = this.hit;
    const kind = kindOf(hit);
    $("preview-kind").replaceChildren(icon(kind.icon), ` ${hit.page ? `Page ${hit.page}` : kind.one}${place(hit) && !hit.page ? ` · ${place(hit)}` : ""} · result ${index + 1} of ${this.hits.length}`);
    $("preview-title").replaceChildren(h("bdi", {}, titleOf(hit)));
    // a button that has the focus is not switched off under it: the keyboard would be lost
    $("prev").setAttribute("aria-disabled", index === 0);
    $("next").setAttribute("aria-disabled", index === this.hits.length - 1);
    const media = ownUrl(hit.media);
    $("act-open").hidden = !media;
    if (media) $("act-open").href = media;
    else $("act-open").removeAttribute("href");
    $("facts").replaceChildren(...[["Path", hit.path], ...facts(hit)].flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, h("bdi", {}, value))]));
    this.drawLabel();
    $("stage").replaceChildren(...this.#stage(hit));
    $("stage").dataset.kind = hit.kind;
    this.#words(hit);
  }

  #stage(hit) {
    const kind = kindOf(hit);
    const media = ownUrl(hit.media);
    const gone = () => h("p", { class: "gone-note" }, icon("alert"), "The file cannot be shown. It may have been moved.");
    if (hit.kind === "text") return [h("div", { class: "sheet-of-text", dir: "auto", tabindex: "0", role: "region", "aria-label": "Passage" }, ...marked(hit.snippet || titleOf(hit), hit.matches))];
    if ((hit.kind === "moment" || hit.kind === "video") && media) {
      const video = h("video", { controls: true, playsinline: true, preload: "auto", "aria-label": titleOf(hit), poster: ownUrl(hit.thumbnail) });
      video.muted = true;
      video.onerror = () => video.replaceWith(this.#picture(hit, gone));
      video.src = hit.end_s === null ? media : `${media}#t=${hit.start_s ?? 0},${hit.end_s}`;
      if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => {});
      return [video];
    }
    return [ownUrl(hit.preview) ? this.#picture(hit, gone) : h("span", { class: "gone" }, icon(kind.icon))];
  }

  /** The small picture at once, the large one when it is there. A click shows it in full size. */
  #picture(hit, gone) {
    const image = h("img", { alt: `${kindOf(hit).one}: ${titleOf(hit)}`, draggable: "false" });
    const large = ownUrl(hit.preview);
    const small = ownUrl(hit.thumbnail);
    image.onerror = () => image.replaceWith(gone());
    image.src = small ?? large;
    if (small) {
      image.classList.add("small");
      const loader = new Image();
      loader.onload = () => { image.src = large; image.classList.remove("small"); };
      loader.src = large;
    }
    image.onclick = () => $("stage").classList.toggle("zoomed");
    $("stage").classList.remove("zoomed");
    return image;
  }

  /** The words of the whole item, which the answer of the search holds only a part of. */
  async #words(hit) {
    this.reading?.abort();
    this.reading = new AbortController();
    $("words-part").hidden = !hit.snippet || hit.kind === "text";
    $("words").replaceChildren(...marked(hit.snippet ?? "", hit.matches));
    let whole;
    try {
      whole = await api.item(this.library, hit.id, this.reading.signal);
    } catch {
      return; // the snippet stays
    }
    const text = whole?.text ?? "";
    if (hit !== this.hit || !text) return;
    const target = hit.kind === "text" ? $("stage").firstElementChild : $("words");
    target?.replaceChildren(...marked(text, rangesIn(text, hit.snippet ?? "", hit.matches)));
    $("words-part").hidden = hit.kind === "text";
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isIn = event.target.closest("video, .words, .sheet-of-text");
    if (event.key === "ArrowRight" && !isIn?.matches("video")) this.step(1);
    else if (event.key === "ArrowLeft" && !isIn?.matches("video")) this.step(-1);
    else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !isIn) this.step(event.key === "ArrowDown" ? 1 : -1);
    else {
      this.on.key(event, this.hit);
      return;
    }
    event.preventDefault();
  }
}
