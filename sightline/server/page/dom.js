// Elements. Everything a file or a server says becomes text; no HTML is ever parsed.

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes by name, listeners as functions under onclick and the like, children as nodes or text. */
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `/static/icons.svg#${name}` }));
}

/** An address of this very server, or null: what an answer holds may not lead or load anywhere else. */
export function ownUrl(address) {
  if (typeof address !== "string" || !address) return null;
  try {
    const url = new URL(address, location.href);
    return url.origin === location.origin ? url.href : null;
  } catch {
    return null;
  }
}

let toastTimer = 0;

/** A short message at the foot of the page; screen readers are told too. */
export function say(text) {
  const toast = $("toast");
  if (toast.matches(":popover-open")) toast.hidePopover();
  toast.showPopover(); // again on top, also of a dialog
  toast.textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => toast.matches(":popover-open") && toast.hidePopover(), 3500);
}

export const isMotionWanted = () => !matchMedia("(prefers-reduced-motion: reduce)").matches;

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = h("textarea", { class: "unseen", readonly: true });
    field.value = text; // the clipboard is closed to pages without TLS on another machine
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  say("Path copied");
}
