// What is asked, as a value that lives in the address, so that back, forward, reload and bookmarks work.
// Pictures that were dropped or pasted are too large for an address: history.state names them, this page keeps them.

import { KIND_GROUPS } from "./words.js";

export const COUNTS = [20, 100, 1000, 5000];

/**
 * q: words. like: id of a hit. not: [{words} | {like}]. media: [attachment ids].
 * kinds: button names. under: folder. when, after, before: dates. k: results. why: order shown. library: id.
 */
export const EMPTY = Object.freeze({
  q: "", like: "", not: [], media: [], kinds: [], under: "", when: "", after: "", before: "", k: 20, why: false, library: "default",
});

export function fromAddress(search, kept) {
  const values = new URLSearchParams(search);
  const k = Number(values.get("k"));
  const date = (name) => (/^\d{4}-\d\d-\d\d$/.test(values.get(name) ?? "") ? values.get(name) : "");
  return {
    ...EMPTY,
    q: values.get("q") ?? "",
    like: values.get("like") ?? "",
    not: [...values.getAll("not").map((words) => ({ words })), ...values.getAll("notlike").map((like) => ({ like }))],
    media: Array.isArray(kept?.media) ? kept.media : [],
    kinds: (values.get("kind") ?? "").split(",").filter((kind) => Object.hasOwn(KIND_GROUPS, kind)),
    under: values.get("under") ?? "",
    when: /^(7|31|366|own)$/.test(values.get("when") ?? "") ? values.get("when") : "",
    after: date("after"),
    before: date("before"),
    k: COUNTS.includes(k) ? k : EMPTY.k,
    why: values.get("why") === "1",
    library: values.get("library") || EMPTY.library,
  };
}

export function toAddress(state) {
  const values = new URLSearchParams();
  if (state.q) values.set("q", state.q);
  if (state.like) values.set("like", state.like);
  for (const one of state.not) values.append(one.like ? "notlike" : "not", one.like ?? one.words);
  if (state.kinds.length) values.set("kind", state.kinds.join(","));
  if (state.under) values.set("under", state.under);
  if (state.when) values.set("when", state.when);
  if (state.when === "own" && state.after) values.set("after", state.after);
  if (state.when === "own" && state.before) values.set("before", state.before);
  if (state.k !== EMPTY.k) values.set("k", String(state.k));
  if (state.why) values.set("why", "1");
  if (state.library !== EMPTY.library) values.set("library", state.library);
  const text = values.toString();
  return text ? `/?${text}` : "/";
}

export const isAsked = (state) => Boolean(state.q.trim() || state.like || state.media.length);

export const hasFilters = (state) => Boolean(state.kinds.length || state.under || state.when);

/** Words with a minus before them, alone or in quotes, become what is not wanted. */
export function withoutMinus(text) {
  const not = [];
  const q = text.replace(/(^|\s)-(?:"([^"]+)"|([\p{L}\p{N}][^\s"]*))/gu, (_, before, quoted, word) => {
    not.push({ words: (quoted ?? word).trim() });
    return before;
  });
  return { q: q.replace(/\s+/g, " ").trim(), not: not.filter((one) => one.words) };
}

/** The request of /v1/search. `attachments` is a Map of what was dropped or pasted. */
export function toRequest(state, attachments, today = new Date()) {
  const request = { library: state.library, k: state.k };
  if (state.q.trim()) request.text = state.q.trim();
  if (state.like) request.like = state.like;
  for (const kind of ["image", "video"]) {
    const urls = state.media.map((id) => attachments.get(id)).filter((one) => one?.kind === kind).map((one) => one.dataUrl);
    if (urls.length) request[kind] = urls;
  }
  if (state.not.length) request.unlike = state.not.map((one) => (one.like ? { like: one.like } : one.words));
  const where = {};
  if (state.kinds.length) where.kind = state.kinds.flatMap((kind) => KIND_GROUPS[kind]);
  if (state.under) where.path = state.under;
  if (state.when === "own") {
    if (state.after) where.after = state.after;
    if (state.before) where.before = dayAfter(state.before); // the last day counts too
  } else if (state.when) {
    const first = new Date(today);
    first.setDate(first.getDate() - Number(state.when));
    where.after = isoDay(first);
  }
  if (Object.keys(where).length) request.where = where;
  return request;
}

const two = (part) => String(part).padStart(2, "0");
const isoDay = (date) => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;

function dayAfter(day) {
  const date = new Date(`${day}T12:00:00`);
  date.setDate(date.getDate() + 1);
  return isoDay(date);
}
