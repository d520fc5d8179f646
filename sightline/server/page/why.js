// Why a result stands where it stands: the place the first stage gave it, the place the second gave it, and the way between.

import { h, svg } from "./dom.js";
import { duration, number, score, titleOf } from "./words.js";

const LINES = 20; // of the drawing
const ROW = 30; // pixels between two of them

/** Both places and scores of a hit, and an arrow for how it moved. */
export function badge(hit) {
  const moved = hit.recall_rank - hit.rank;
  const arrow = moved > 0 ? `▲ ${number(moved)}` : moved < 0 ? `▼ ${number(-moved)}` : "=";
  const said = moved > 0 ? `up ${moved}` : moved < 0 ? `down ${-moved}` : "same place";
  return [
    h("span", { class: "stage-place" }, h("span", { class: "stage-name" }, "Found"), h("b", {}, number(hit.recall_rank)), h("span", {}, score(hit.recall_score))),
    h("span", { class: `moved ${moved > 0 ? "rose" : moved < 0 ? "fell" : ""}` }, h("span", { "aria-hidden": "true" }, arrow), h("span", { class: "unseen" }, said)),
    h("span", { class: "stage-place" }, h("span", { class: "stage-name" }, hit.rerank_score === null ? "Not judged" : "Judged"), h("b", {}, number(hit.rank)), h("span", {}, score(hit.rerank_score))),
  ];
}

/** The order of the first stage on the left, the final one on the right, a line for each result. */
export function drawing(hits, tookMs, open) {
  const shown = hits.slice(0, LINES);
  const byRecall = [...shown].sort((a, b) => a.recall_rank - b.recall_rank);
  const height = shown.length * ROW;
  const lines = shown.map((hit, to) => {
    const from = byRecall.indexOf(hit);
    const [y0, y1] = [from * ROW + ROW / 2, to * ROW + ROW / 2];
    const moved = hit.recall_rank - hit.rank;
    return svg("path", { d: `M0 ${y0} C 45 ${y0} 55 ${y1} 100 ${y1}`, class: moved > 0 ? "rose" : moved < 0 ? "fell" : "same", "data-id": hit.id });
  });
  const entry = (hit, rank, value) => h("li", { "data-id": hit.id },
    h("button", { type: "button", tabindex: "-1", onclick: () => open(hits.indexOf(hit)) }, h("b", {}, number(rank)), h("bdi", {}, titleOf(hit)), h("span", { class: "value" }, score(value))));
  const plot = svg("svg", { viewBox: `0 0 100 ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...lines);
  plot.style.height = `${height}px`;
  const judged = hits.filter((hit) => hit.rerank_score !== null).length;
  const isMixed = hits.some((hit) => hit.rerank_score !== null && Math.abs(hit.score - hit.rerank_score) > 1e-6);
  const root = h("div", { class: "order-inner" },
    h("p", { class: "order-text" },
      judged
        ? `The first stage finds by vectors and words (left). The reranker then reads the best ${number(judged)} beside your search and orders them again (right). ${isMixed ? "It is a small one, so its score and the first order are mixed." : ""}`
        : "Only the first stage was at work here: it finds by vectors and words. There is no reranker, so the order is its own.",
      tookMs ? h("span", { class: "took" }, ` Reading the search took ${duration(tookMs.embed ?? 0)}, finding ${duration(tookMs.recall ?? 0)}, judging ${duration(tookMs.rerank ?? 0)}.`) : null),
    h("div", { class: "slopes" },
      h("ol", { class: "left", "aria-label": "As found" }, ...byRecall.map((hit) => entry(hit, hit.recall_rank, hit.recall_score))),
      plot,
      h("ol", { class: "right", "aria-label": "As shown" }, ...shown.map((hit) => entry(hit, hit.rank, hit.rerank_score)))),
  );
  const light = (event) => {
    const id = event.target.closest("[data-id]")?.dataset.id;
    for (const node of root.querySelectorAll("[data-id]")) node.classList.toggle("lit", node.dataset.id === id);
  };
  root.addEventListener("pointerover", light);
  root.addEventListener("pointerleave", light);
  return root;
}

/** Facts for the preview. */
export const facts = (hit) => [
  ["Found", `place ${number(hit.recall_rank)}, score ${score(hit.recall_score)}`],
  ["Judged", hit.rerank_score === null ? "not by the reranker" : `place ${number(hit.rank)}, score ${score(hit.rerank_score)}`],
];

