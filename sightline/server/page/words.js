// How things are called and numbers are written.

export const KIND = {
  image: { one: "Photo", icon: "image" },
  page: { one: "Page", icon: "page" },
  moment: { one: "Moment", icon: "moment" },
  video: { one: "Video", icon: "moment" },
  text: { one: "Text", icon: "text" },
};

export const kindOf = (hit) => KIND[hit.kind] ?? KIND.text;

/** Of the buttons: moments and whole videos are one. */
export const KIND_GROUPS = { image: ["image"], page: ["page"], moment: ["moment", "video"], text: ["text"] };

export const number = (value) => new Intl.NumberFormat("en").format(value);

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** Seconds as 0:07 or 1:02:03. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (part) => String(part).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** Where in its file a hit is: a page or a stretch of time. */
export function place(hit) {
  if (hit.page !== null && hit.page !== undefined) return `page ${hit.page}`;
  if (hit.start_s !== null && hit.start_s !== undefined) {
    return hit.end_s === null || hit.end_s === undefined ? clock(hit.start_s) : `${clock(hit.start_s)} – ${clock(hit.end_s)}`;
  }
  return "";
}

export const fileName = (path) => path.split(/[\\/]/).filter(Boolean).pop() ?? path;

export const folderOf = (path) => path.slice(0, Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\"), 0)) || "/";

export const titleOf = (hit) => hit.title || fileName(hit.path);

export const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

export const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB"];
  let size = count;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${size < 10 && unit ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

/** Text with ranges [[start, end], …] marked, as nodes. Ranges count characters as Python does, not UTF-16 units. */
export function marked(text, ranges) {
  const chars = Array.from(text);
  const nodes = [];
  let at = 0;
  for (const [start, end] of [...(ranges ?? [])].sort((a, b) => a[0] - b[0])) {
    if (!(start >= at && end > start && end <= chars.length)) continue;
    if (start > at) nodes.push(chars.slice(at, start).join(""));
    const mark = document.createElement("mark");
    mark.textContent = chars.slice(start, end).join("");
    nodes.push(mark);
    at = end;
  }
  nodes.push(chars.slice(at).join(""));
  return nodes;
}

/** Where the matched words of a snippet stand in a longer text. */
export function rangesIn(text, snippet, ranges) {
  const chars = Array.from(snippet);
  const terms = new Set((ranges ?? []).map(([start, end]) => chars.slice(start, end).join("").toLowerCase()));
  const found = [];
  let at = 0;
  for (const word of text.split(/([\p{L}\p{N}\p{M}_]+)/u)) {
    const length = Array.from(word).length;
    if (terms.has(word.toLowerCase())) found.push([at, at + length]);
    at += length;
  }
  return found;
}
