// The search box: words, chips of pictures and clips, and chips of what is not wanted.

import * as api from "./api.js";
import { $, h, icon, ownUrl, say } from "./dom.js";
import { bytes, titleOf } from "./words.js";

/** Attachments by id: {id, kind, name, dataUrl, url}. They live as long as the page. */
export const attachments = new Map();

/** What is known of hits by id, {title, kind}: chips name them. */
export const known = new Map();

const LARGE_PICTURE = 4e6; // bytes; a larger one is made smaller here, which also drops what its EXIF says
const LONGEST_SIDE = 2048; // pixels; models see fewer
let counter = 0;

/** Keep a picture or clip; null (and a message) when it cannot be used. */
export async function attach(file) {
  const kind = file.type.startsWith("image/") ? "image" : file.type.startsWith("video/") ? "video" : null;
  if (!kind) {
    say(`${file.name || "That"} is no picture or clip.`);
    return null;
  }
  const most = (Number(document.documentElement.dataset.maxBytes) - 65536) * 0.74; // base64 takes a third more
  let content = file;
  if (kind === "image" && file.size > Math.min(LARGE_PICTURE, most)) content = (await smaller(file)) ?? file;
  if (content.size > most) {
    say(`${file.name || "That"} is too large to send: at most ${bytes(most)}.`);
    return null;
  }
  counter += 1;
  const one = { id: `${Date.now()}-${counter}`, kind, name: file.name || "pasted picture", dataUrl: await dataUrl(content), url: URL.createObjectURL(file) };
  attachments.set(one.id, one);
  return one.id;
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function smaller(file) {
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(1, LONGEST_SIDE / Math.max(picture.width, picture.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(picture.width * scale));
    canvas.height = Math.max(1, Math.round(picture.height * scale));
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    picture.close();
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  } catch {
    return null; // a format that only the server can read
  }
}

/** Draw the chips of a state; `change` is called with what differs when one is taken away. */
export function drawChips(state, change) {
  const chips = [];
  for (const id of state.media) {
    const one = attachments.get(id);
    if (one) chips.push(chip("", picture(one), one.name, () => change({ media: state.media.filter((other) => other !== id) })));
  }
  if (state.like) chips.push(hitChip(state.library, state.like, "", () => change({ like: "" })));
  state.not.forEach((one, index) => {
    const remove = () => change({ not: state.not.filter((_, other) => other !== index) });
    chips.push(one.like ? hitChip(state.library, one.like, "not", remove) : chip("not", icon("not"), one.words, remove));
  });
  $("chips").replaceChildren(...chips);
  $("chips").hidden = !chips.length;
  $("q").placeholder = chips.length ? "Add words" : "Words, a picture, or both";
}

function chip(kind, front, name, remove) {
  const before = { not: "Not: ", like: "Like: " }[kind] ?? "";
  return h(
    "li",
    { class: `chip ${kind}`, title: before + name },
    front,
    h("span", { class: "chip-name" }, before ? h("span", { class: kind === "not" ? "unseen" : "chip-before" }, before) : null, h("bdi", {}, name)),
    h("button", {
      type: "button", class: "chip-x", "aria-label": `Remove ${before}${name}`,
      onclick: () => { remove(); $("q").focus(); },
    }, icon("close")),
  );
}

/** A chip of a hit. After a reload nothing is known of it but its id: the server is asked for the rest. */
function hitChip(library, id, kind, remove) {
  const draw = ({ title, kind: what }) => chip(kind || "like", what === "text" ? icon("text") : hitPicture(library, id), title, remove);
  if (known.has(id)) return draw(known.get(id));
  const waiting = chip(kind || "like", icon("like"), "…", remove);
  api.item(library, id).then((item) => {
    known.set(id, { title: titleOf({ title: item.title, path: item.path ?? "" }), kind: item.kind });
    waiting.replaceWith(draw(known.get(id)));
  }).catch(() => {}); // the search itself says that it is gone
  return waiting;
}

function picture(one) {
  if (one.kind === "image") {
    const image = h("img", { src: one.url, alt: "" });
    image.onerror = () => image.replaceWith(icon("image"));
    return image;
  }
  const clip = h("video", { src: `${one.url}#t=0.1`, "aria-hidden": "true", preload: "metadata", tabindex: "-1" });
  clip.muted = true;
  return clip;
}

function hitPicture(library, id) {
  const image = h("img", { src: ownUrl(api.thumbnail(library, id)), alt: "" });
  image.onerror = () => image.replaceWith(icon("text"));
  return image;
}

/** Pictures and clips in what was pasted or dropped. */
export const mediaIn = (transfer) =>
  [...(transfer?.files ?? [])].filter((file) => /^(image|video)\//.test(file.type));
