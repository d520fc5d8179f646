// Puts the page together: an address becomes a search, a search becomes the wall, and every change becomes an address.

import * as api from "./api.js";
import { attach, attachments, drawChips, known, mediaIn } from "./box.js";
import { $, copy, h, icon, ownUrl, say } from "./dom.js";
import { Indexing, filesIn } from "./indexing.js";
import { Preview } from "./preview.js";
import { COUNTS, EMPTY, fromAddress, hasFilters, isAsked, toAddress, toRequest, withoutMinus } from "./state.js";
import { Wall } from "./wall.js";
import { drawing } from "./why.js";
import { KIND, duration, number, plural, titleOf } from "./words.js";

const SKELETON_MS = 120; // an answer that comes sooner needs no picture of waiting

let state = fromAddress(location.search, history.state);
let answer = null; // of the last search
let request = null; // that it was for
let searching = null; // AbortController of the search that runs
let library = null; // what the server says of it

// ---------------------------------------------------------------------------------------------- address and state

/** Ask for something else: the address changes, the controls follow, the search runs. */
function change(changes, { replace = false } = {}) {
  const before = state;
  state = { ...state, ...changes };
  if ("k" in changes === false && asks(before) !== asks(state)) state.k = EMPTY.k;
  if (preview.isOpen) preview.dialog.close();
  history[replace ? "replaceState" : "pushState"]({ media: state.media }, "", toAddress(state));
  apply(before);
}

const asks = (one) => JSON.stringify([one.q, one.like, one.not, one.media, one.library]);

function apply(before) {
  drawControls();
  if (before && state.library !== before.library) loadLibrary();
  if (isAsked(state)) search({ isMore: Boolean(before) && asks(before) === asks(state) && state.k > before.k && sameFilters(before) });
  else home();
}

const sameFilters = (before) => JSON.stringify([before.kinds, before.under, before.when, before.after, before.before]) === JSON.stringify([state.kinds, state.under, state.when, state.after, state.before]);

let isLeavingPreview = false;

addEventListener("popstate", (event) => {
  closeMenu();
  if (isLeavingPreview) {
    isLeavingPreview = false;
    history.replaceState({ media: state.media }, "", toAddress(state)); // what changed since the preview closed stays
    return;
  }
  if (event.state?.preview === undefined && preview.isOpen) preview.dialog.close();
  const now = fromAddress(location.search, event.state);
  if (JSON.stringify(now) === JSON.stringify(state)) return; // only the preview came or went
  const before = state;
  state = now;
  apply(before);
});

function drawControls() {
  $("q").value = state.q;
  document.title = state.q ? `${state.q} · Sightline` : "Sightline";
  drawChips(state, change);
  for (const button of document.querySelectorAll(".kinds .toggle")) button.setAttribute("aria-pressed", state.kinds.includes(button.dataset.kind));
  drawFolders();
  $("when").value = state.when;
  $("between").hidden = state.when !== "own";
  $("after").value = state.after;
  $("before").value = state.before;
  $("clear").hidden = !hasFilters(state);
  $("why").setAttribute("aria-pressed", state.why);
  $("k").value = String(state.k);
}

// ----------------------------------------------------------------------------------------------------- searching

async function search({ isMore = false } = {}) {
  searching?.abort();
  const mine = (searching = new AbortController());
  const missing = state.media.filter((id) => !attachments.has(id));
  if (missing.length) {
    state = { ...state, media: state.media.filter((id) => attachments.has(id)) };
    drawControls();
    if (!isAsked(state)) {
      home();
      say("The picture of this search is gone with the old page. Drop it again.");
      return;
    }
  }
  document.body.dataset.view = "results";
  $("heading").textContent = "Results";
  hide("notice", "more");
  if (!isMore) {
    $("count").textContent = "Searching…";
    hide("order");
  }
  const waiting = setTimeout(() => {
    if (!isMore) wall.skeletons(18);
    else $("count").textContent = "Searching…";
  }, SKELETON_MS);
  const asked = toRequest(state, attachments);
  try {
    const found = await api.search(asked, mine.signal);
    performance.mark("sightline-answer");
    clearTimeout(waiting);
    if (mine.signal.aborted) return;
    request = asked;
    answer = found;
    for (const hit of found.hits) known.set(hit.id, { title: titleOf(hit), kind: hit.kind });
    await draw(isMore);
  } catch (error) {
    clearTimeout(waiting);
    if (error.name === "AbortError") return;
    answer = null;
    wall.clear();
    hide("order");
    $("count").textContent = "";
    notice("alert", "That did not work", error.message, [["Try again", () => search()]], "alert");
  }
}

async function draw(isMore) {
  const hits = answer.hits;
  const built = wall.show(hits, { why: state.why });
  performance.mark("sightline-results");
  painted().then(() => performance.mark("sightline-painted"));
  drawCount();
  drawOrder();
  const next = COUNTS.find((count) => count > state.k);
  $("more").hidden = !(next && hits.length >= state.k);
  if (next) $("more").textContent = `Show ${number(next)} results`;
  if (!hits.length) nothingFound();
  if (!isMore) scrollTo({ top: 0 });
  await built;
  performance.mark("sightline-built");
}

const painted = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

function drawCount() {
  const count = answer.hits.length;
  $("count").textContent = count ? `${count >= state.k ? "The best " : ""}${plural(count, "result")} in ${duration(answer.took_ms?.total ?? 0)}` : "No results";
}

function drawOrder() {
  const isShown = state.why && answer?.hits.length > 0;
  $("order").hidden = !isShown;
  $("order").replaceChildren(...(isShown ? [drawing(answer.hits, answer.took_ms, openAt)] : []));
}

function nothingFound() {
  const isEmpty = library && library.rows === 0;
  if (isEmpty) {
    emptyLibrary();
    return;
  }
  if (hasFilters(state)) notice("search", "Nothing here fits", "No result passes the filters.", [["Clear filters", clearFilters]]);
  else notice("search", "Nothing found", "Try other words, or a picture that comes close.", []);
}

function emptyLibrary() {
  notice("image", "This library is empty", "Add photos, PDF files, clips or notes. Then search them by what they show.", [["Add files", () => indexing.open(state.library)]]);
}

function notice(name, title, text, actions, role = "status") {
  const box = $("notice");
  box.setAttribute("role", role);
  box.hidden = false;
  box.dataset.kind = name;
  box.replaceChildren(
    icon(name), h("h2", {}, title), h("p", {}, h("bdi", {}, text)),
    ...(actions.length ? [h("p", { class: "row" }, ...actions.map(([label, act]) => h("button", { type: "button", class: "primary", onclick: act }, label)))] : []),
  );
}

function hide(...ids) {
  for (const id of ids) $(id).hidden = true;
}

function home() {
  searching?.abort();
  answer = null;
  document.body.dataset.view = "home";
  $("heading").textContent = "Sightline";
  wall.clear();
  $("count").textContent = "";
  hide("notice", "more", "order");
  if (library && library.rows === 0) emptyLibrary();
}

const clearFilters = () => change({ kinds: [], under: "", when: "", after: "", before: "" });

// ------------------------------------------------------------------------------------------------------- library

async function loadLibrary() {
  try {
    const found = await api.library(state.library);
    library = found.stats ? { ...found, ...found.stats } : found;
  } catch (error) {
    library = null;
    if (!isAsked(state)) notice("alert", "The library cannot be read", error.message, [], "alert");
    return;
  }
  drawFolders();
  const kinds = Object.entries(library.kinds ?? {}).filter(([kind, count]) => KIND[kind] && count);
  const names = { image: ["photo"], page: ["page"], moment: ["moment"], video: ["video"], text: ["text passage"] };
  $("stock").replaceChildren(...kinds.map(([kind, count]) => h("span", {}, icon(KIND[kind].icon), plural(count, ...names[kind]))));
  if (!isAsked(state)) home();
}

function drawFolders() {
  const roots = (library?.roots ?? []).map((root) => (typeof root === "string" ? root : root.path));
  const folders = state.under && !roots.includes(state.under) ? [...roots, state.under] : roots;
  const depth = (path) => path.split("/").filter(Boolean);
  const short = (path) => (depth(path).length > 2 ? `…/${depth(path).slice(-2).join("/")}` : path);
  $("under").replaceChildren(h("option", { value: "" }, "All folders"), ...folders.map((path) => h("option", { value: path, title: path }, short(path))));
  $("under").value = state.under;
}

async function loadLibraries() {
  try {
    const all = api.listed(await api.libraries(), "libraries");
    const ids = all.filter((one) => one.usable !== false).map((one) => one.id);
    if (!ids.includes(state.library)) ids.push(state.library);
    $("library-pick").hidden = ids.length < 2;
    $("library").replaceChildren(...ids.map((id) => h("option", { value: id }, id)));
    $("library").value = state.library;
  } catch {
    $("library-pick").hidden = true; // the library that is open says what is wrong
  }
}

// --------------------------------------------------------------------------------------------- what a hit can do

const like = (hit) => change({ q: "", media: [], not: [], like: hit.id });

const unlike = (hit) => {
  if (state.not.some((one) => one.like === hit.id)) return;
  change({ not: [...state.not, { like: hit.id }] });
  say("Results like that one are kept out");
};

async function label(hit, value) {
  const before = hit.label;
  const draw = (now) => {
    hit.label = now;
    wall.setLabel(hit);
    if (preview.isOpen && preview.hit === hit) preview.drawLabel();
  };
  draw(value);
  try {
    await api.label(state.library, request, hit.id, value);
    say(value > 0 ? "Kept as a good result" : value < 0 ? "Kept as a bad result" : "Mark taken back");
  } catch (error) {
    draw(before);
    say(error.message);
  }
}

const shortcuts = {
  m: like,
  n: unlike,
  g: (hit) => label(hit, hit.label > 0 ? 0 : 1),
  b: (hit) => label(hit, hit.label < 0 ? 0 : -1),
  c: (hit) => copy(hit.path),
};

function hitKey(event, hit) {
  const act = shortcuts[event.key.toLowerCase()];
  if (!act || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  event.preventDefault();
  event.stopPropagation();
  act(hit);
}

let menuButton = null;

function openMenu(index, button, at) {
  const hit = wall.hits[index];
  const menu = $("menu");
  const entry = (name, text, act) => h("button", { type: "button", role: "menuitem", tabindex: "-1", onclick: () => { closeMenu(); act(); } }, icon(name), text);
  const media = ownUrl(hit.media);
  menu.replaceChildren(
    entry("like", "More like this", () => like(hit)),
    entry("not", "Not this", () => unlike(hit)),
    entry("up", hit.label > 0 ? "Take the good mark back" : "Good result", () => label(hit, hit.label > 0 ? 0 : 1)),
    entry("down", hit.label < 0 ? "Take the bad mark back" : "Bad result", () => label(hit, hit.label < 0 ? 0 : -1)),
    entry("copy", "Copy path", () => copy(hit.path)),
    ...(media ? [h("a", { role: "menuitem", tabindex: "-1", href: media, target: "_blank", rel: "noopener noreferrer", onclick: () => closeMenu() }, icon("open"), "Open original")] : []),
  );
  menuButton = button;
  menu.showPopover();
  const box = button.getBoundingClientRect();
  const [x, y] = at ? [at.clientX, at.clientY] : [box.right - menu.offsetWidth, box.bottom + 4];
  menu.style.left = `${Math.max(8, Math.min(x, innerWidth - menu.offsetWidth - 8))}px`;
  menu.style.top = `${Math.max(8, y + menu.offsetHeight > innerHeight - 8 ? (at ? y : box.top) - menu.offsetHeight - 4 : y)}px`;
  menu.firstElementChild.focus();
}

function closeMenu() {
  if ($("menu").matches(":popover-open")) $("menu").hidePopover();
}

$("menu").addEventListener("toggle", (event) => {
  if (event.newState === "closed" && menuButton?.isConnected && (document.activeElement === document.body || $("menu").contains(document.activeElement))) menuButton.focus();
});
$("menu").addEventListener("keydown", (event) => {
  const entries = [...$("menu").children];
  const at = entries.indexOf(document.activeElement);
  const to = { ArrowDown: (at + 1) % entries.length, ArrowUp: (at - 1 + entries.length) % entries.length, Home: 0, End: entries.length - 1 }[event.key];
  if (event.key === "Tab") closeMenu();
  else if (event.key === "Escape") menuButton?.focus();
  if (to === undefined) return;
  event.preventDefault();
  entries[to].focus();
});

function openAt(index) {
  if (index < 0 || !wall.hits[index]) return;
  if (!history.state?.preview) history.pushState({ media: state.media, preview: true }, "");
  preview.open(wall.hits, index, state.library);
}

// --------------------------------------------------------------------------------------------- the parts, wired

const wall = new Wall({ open: openAt, menu: openMenu, key: (event, index) => hitKey(event, wall.hits[index]) });
const preview = new Preview({
  like, not: unlike, label, key: hitKey,
  copy: (hit) => copy(hit.path),
  folder: (path) => change({ under: path }),
  closed: (index) => {
    if (history.state?.preview) {
      isLeavingPreview = true;
      history.back(); // its entry in the history goes with it
    }
    wall.focus(index);
  },
});
const indexing = new Indexing(() => loadLibrary().then(() => isAsked(state) && !preview.isOpen && search({ isMore: true })));

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = withoutMinus($("q").value);
  const known = new Set(state.not.map((one) => one.words));
  const next = { q: typed.q, not: [...state.not, ...typed.not.filter((one) => !known.has(one.words))] };
  if (!isAsked({ ...state, ...next })) {
    if (next.not.length) say("Say also what to look for.");
    $("q").focus();
    return;
  }
  const isSame = next.q === state.q && next.not.length === state.not.length;
  change(next, { replace: isSame });
});

async function take(files) {
  const ids = (await Promise.all(files.map(attach))).filter(Boolean);
  if (!ids.length) return;
  const typed = withoutMinus($("q").value);
  change({ q: typed.q, not: [...state.not, ...typed.not], like: "", media: [...state.media, ...ids] });
}

$("attach").onclick = () => $("attach-files").click();
$("attach-files").onchange = () => { take([...$("attach-files").files]); $("attach-files").value = ""; };
addEventListener("paste", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const files = mediaIn(event.clipboardData);
  if (!files.length) return;
  event.preventDefault();
  take(files);
});
$("q").addEventListener("keydown", (event) => {
  if (event.key === "Backspace" && !$("q").value) $("chips").lastElementChild?.querySelector(".chip-x").click();
  if (event.key === "ArrowDown" && wall.hits.length && !event.isComposing) { event.preventDefault(); wall.focus(0); }
});

// dropping: two places, so that nobody has to guess what a drop will do
let dragDepth = 0;
const isFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files") && !document.querySelector("dialog[open]");
addEventListener("dragenter", (event) => { if (isFiles(event)) { dragDepth += 1; $("drop").hidden = false; } });
addEventListener("dragleave", (event) => { if (isFiles(event) && (dragDepth -= 1) <= 0) endDrag(); });
addEventListener("dragover", (event) => {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
  event.preventDefault(); // else the browser would leave the page for the file
  for (const zone of document.querySelectorAll(".drop-zone")) zone.classList.toggle("over", zone.contains(event.target));
});
addEventListener("drop", async (event) => {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
  event.preventDefault();
  const isAdding = event.target.closest?.("[data-drop]")?.dataset.drop === "add";
  const files = mediaIn(event.dataTransfer);
  const all = isAdding ? filesIn(event.dataTransfer) : null; // must be asked for before this event is over
  endDrag();
  if (document.querySelector("dialog[open]")) return;
  if (isAdding) {
    const found = await all;
    indexing.open(state.library);
    indexing.upload(found);
  } else if (files.length) take(files);
  else say("Only pictures and clips can be searched with.");
});
function endDrag() {
  dragDepth = 0;
  $("drop").hidden = true;
}

$("home-link").onclick = (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  change({ ...EMPTY, library: state.library });
  $("q").focus();
};
for (const button of document.querySelectorAll(".kinds .toggle")) {
  button.onclick = () => {
    const { kind } = button.dataset;
    change({ kinds: state.kinds.includes(kind) ? state.kinds.filter((one) => one !== kind) : [...state.kinds, kind] });
  };
}
$("under").onchange = () => change({ under: $("under").value });
$("when").onchange = () => change({ when: $("when").value });
$("after").onchange = () => change({ after: $("after").value });
$("before").onchange = () => change({ before: $("before").value });
$("clear").onclick = clearFilters;
$("k").onchange = () => change({ k: Number($("k").value) });
$("more").onclick = () => {
  const had = wall.hits.length;
  change({ k: COUNTS.find((count) => count > state.k) }, { replace: true });
  wall.focus(had - 1);
};
$("why").onclick = toggleWhy;
$("library").onchange = () => change({ ...EMPTY, q: state.q, library: $("library").value });
$("add-open").onclick = () => indexing.open(state.library);
$("keys-open").onclick = () => $("keys").showModal();
$("keys-close").onclick = () => $("keys").close();
$("keys").addEventListener("click", (event) => event.target === $("keys") && $("keys").close());

function toggleWhy() {
  state = { ...state, why: !state.why };
  history.replaceState({ media: state.media }, "", toAddress(state));
  $("why").setAttribute("aria-pressed", state.why);
  wall.setWhy(state.why);
  drawOrder();
}

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";
function drawTheme() {
  $("theme").setAttribute("aria-pressed", isDark());
  $("theme").replaceChildren(icon(isDark() ? "sun" : "moon"));
}
$("theme").onclick = () => {
  const theme = isDark() ? "light" : "dark";
  if ((theme === "dark") === systemDark.matches) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (document.documentElement.dataset.theme) localStorage.setItem("sightline-theme", theme);
    else localStorage.removeItem("sightline-theme");
  } catch {
    // not remembered, then
  }
  drawTheme();
};
systemDark.addEventListener("change", drawTheme);

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const isTyping = event.target.matches?.("input, textarea, select, [contenteditable]");
  if (event.key === "Escape" && event.target === $("q") && document.body.dataset.view === "results") wall.focus(0);
  if (isTyping || document.querySelector("dialog[open], [popover=auto]:popover-open, #menu:popover-open")) return;
  if (event.key === "/") { event.preventDefault(); $("q").focus(); $("q").select(); }
  else if (event.key === "?") { event.preventDefault(); $("keys").showModal(); }
  else if (event.key.toLowerCase() === "w" && answer) toggleWhy();
});

drawTheme();
apply(null);
loadLibraries();
loadLibrary();
if (!isAsked(state) && matchMedia("(hover: hover)").matches) $("q").focus();
document.documentElement.dataset.ready = "true";
