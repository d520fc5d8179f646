// Adding files: by upload or by path, with progress as it happens and the list of what was left out and why.

import * as api from "./api.js";
import { $, h, icon, say } from "./dom.js";
import { bytes, fileName, number, plural } from "./words.js";

const ENDED = new Set(["done", "failed", "cancelled"]);
const SAID_EVERY_MS = 4000; // screen readers hear of progress no more often
const MOST_FAILURES = 500; // shown; the rest is counted

export class Indexing {
  /** `changed` is called when a job has ended and the library holds other things. */
  constructor(changed) {
    this.changed = changed;
    this.library = "default";
    this.rows = new Map();
    this.streams = new Map();
    this.saidAt = 0;
    this.dialog = $("adding");
    const input = (id) => {
      $(id).onchange = () => { this.upload([...$(id).files]); $(id).value = ""; };
    };
    input("add-files");
    input("add-folder");
    $("choose-files").onclick = () => $("add-files").click();
    $("choose-folder").onclick = () => $("add-folder").click();
    $("adding-close").onclick = () => this.dialog.close();
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    $("path-form").onsubmit = (event) => {
      event.preventDefault();
      this.#begin(() => api.addPaths(this.library, [$("path").value.trim()])).then((isOk) => isOk && ($("path").value = ""));
    };
    const well = $("well");
    well.ondragover = (event) => { event.preventDefault(); well.classList.add("over"); };
    well.ondragleave = () => well.classList.remove("over");
    well.ondrop = async (event) => {
      event.preventDefault();
      event.stopPropagation();
      well.classList.remove("over");
      this.upload(await filesIn(event.dataTransfer));
    };
  }

  async open(library) {
    this.library = library;
    $("adding-said").textContent = "";
    if (!this.dialog.open) this.dialog.showModal();
    await Promise.all([this.#jobs(), this.#failures()]);
  }

  /** Follow jobs that run already, for example after a reload. */
  async #jobs() {
    try {
      for (const job of api.listed(await api.jobs(), "jobs")) if (job.library === this.library) this.#follow(job);
    } catch (error) {
      $("adding-said").textContent = error.message;
    }
  }

  async upload(files) {
    if (!files.length) return;
    const most = Number(document.documentElement.dataset.maxBytes) * 0.95;
    const [fit, large] = [files.filter((file) => file.size <= most), files.filter((file) => file.size > most)];
    if (large.length) {
      say(`${plural(large.length, "file")} over ${bytes(most)}: give the path instead.`);
      $("adding-said").textContent = `Too large to upload (over ${bytes(most)}): ${large.map((file) => file.name).slice(0, 5).join(", ")}. Give the path instead.`;
    }
    for (const batch of batches(fit, most)) {
      if (!(await this.#begin(() => api.addFiles(this.library, batch), !large.length))) return;
    }
  }

  async #begin(send, clear = true) {
    if (clear) $("adding-said").textContent = "";
    this.dialog.setAttribute("aria-busy", "true");
    try {
      const answer = await send();
      this.#follow(answer.job ?? answer);
      return true;
    } catch (error) {
      $("adding-said").textContent = error.message;
      return false;
    } finally {
      this.dialog.removeAttribute("aria-busy");
    }
  }

  #follow(job) {
    this.#draw(job);
    if (ENDED.has(job.status) || this.streams.has(job.id)) return;
    const stream = api.jobEvents(job.id);
    this.streams.set(job.id, stream);
    const take = (event) => {
      let now;
      try {
        now = JSON.parse(event.data);
      } catch {
        return;
      }
      this.#draw(now);
      if (ENDED.has(now.status) || event.type === "end") this.#ended(now);
    };
    stream.addEventListener("progress", take);
    stream.addEventListener("end", take);
  }

  #ended(job) {
    this.streams.get(job.id)?.close();
    if (!this.streams.delete(job.id)) return;
    this.#tell(summary(job));
    this.#failures();
    this.changed();
  }

  #draw(job) {
    const isRunning = !ENDED.has(job.status);
    let row = this.rows.get(job.id);
    if (!row) {
      row = {
        title: h("strong", {}),
        bar: h("progress", { "aria-label": "Files looked at" }),
        text: h("p", { class: "job-text" }),
        now: h("p", { class: "job-now" }),
        errors: h("ul", { class: "failed" }),
        stop: h("button", { type: "button", class: "quiet", onclick: () => this.#cancel(job.id) }, "Stop"),
      };
      row.root = h("li", {}, h("div", { class: "row" }, row.title, h("span", { class: "spring" }), row.stop), row.bar, row.text, row.now, row.errors);
      this.rows.set(job.id, row);
      $("jobs").prepend(row.root);
    }
    row.root.dataset.status = job.status;
    row.title.textContent = { waiting: "Waiting", running: "Indexing", done: "Done", failed: "Failed", cancelled: "Stopped" }[job.status] ?? job.status;
    row.stop.hidden = !isRunning;
    if (job.total) {
      row.bar.max = job.total;
      row.bar.value = isRunning ? Math.min(job.seen, job.total) : job.total;
    } else if (isRunning) row.bar.removeAttribute("value");
    row.bar.hidden = !isRunning;
    row.text.textContent = isRunning && job.total ? `${number(job.seen)} of ${plural(job.total, "file")}` : summary(job);
    row.now.replaceChildren(...(isRunning && job.current ? [h("bdi", {}, fileName(job.current))] : []));
    // after the job, files that were left out stand in the list below; what has no path is about the job itself
    row.errors.replaceChildren(...(job.errors ?? []).filter((error) => isRunning || !error.path).map(failure));
    $("jobs-part").hidden = false;
    if (isRunning && Date.now() - this.saidAt > SAID_EVERY_MS) this.#tell(row.text.textContent);
  }

  #tell(text) {
    this.saidAt = Date.now();
    $("jobs-live").textContent = text;
  }

  async #cancel(id) {
    try {
      await api.cancelJob(id);
    } catch (error) {
      say(error.message);
    }
  }

  async #failures() {
    let failed;
    try {
      failed = api.listed(await api.failures(this.library), "failures");
    } catch {
      return; // shown by the list of jobs already
    }
    $("failed-part").hidden = !failed.length;
    $("failed-title").textContent = `Not indexed: ${plural(failed.length, "file or part", "files or parts")}`;
    const rows = failed.slice(0, MOST_FAILURES).map(failure);
    if (failed.length > MOST_FAILURES) rows.push(h("li", {}, `and ${number(failed.length - MOST_FAILURES)} more`));
    $("failed").replaceChildren(...rows);
  }
}

const failure = (one) =>
  h("li", { title: one.path || null }, icon("alert"), h("span", {}, one.path ? h("bdi", { class: "name" }, fileName(one.path)) : null, h("span", { class: "reason" }, one.detail || one.code)));

function summary(job) {
  const parts = [
    [job.indexed, "indexed"],
    [job.unchanged, "unchanged"],
    [job.skipped, "not indexed"],
    [job.deferred, "put off"],
  ].filter(([count]) => count);
  return parts.length ? parts.map(([count, word]) => `${number(count)} ${word}`).join(", ") : job.status === "waiting" ? "Waits for another job" : "Nothing to index";
}

/** Files in groups that fit into one request each. */
function batches(files, most) {
  const groups = [];
  let size = Infinity;
  for (const file of files) {
    if (size + file.size > most || groups.at(-1).length >= 500) {
      groups.push([]);
      size = 0;
    }
    groups.at(-1).push(file);
    size += file.size;
  }
  return groups;
}

/** The files of a drop, those inside of folders too. */
export async function filesIn(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const found = [];
  const walk = async (entry) => {
    if (entry.isFile) found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else {
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!some.length) break;
        for (const one of some) await walk(one);
      }
    }
  };
  for (const entry of entries) await walk(entry);
  return found;
}
