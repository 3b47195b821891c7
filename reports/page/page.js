"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  const axis = { labelColor: of("--muted"), titleColor: of("--ink"), gridColor: of("--line"),
    domainColor: of("--muted"), tickColor: of("--muted"), titleFontWeight: "normal" };
  return { background: "transparent", view: { stroke: "transparent" }, axis: axis,
    legend: { labelColor: of("--ink"), titleColor: of("--muted") } };
}

function drawAll() {
  document.querySelectorAll(".chart").forEach((place) => {
    const spec = JSON.parse(place.parentElement.querySelector("script").textContent);
    spec.autosize = { type: "fit-x", contains: "padding" };
    vegaEmbed(place, spec, { config: colours(), actions: false, renderer: "svg" })
      .catch((error) => { place.textContent = String(error); console.error(error); });
  });
}

function sortable(table) {
  const heads = [...table.querySelectorAll("th")];
  const body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => {
      const cell = row.cells[column];
      return { row, text: cell.textContent, number: cell.dataset.v === undefined ? NaN : Number(cell.dataset.v) };
    });
    rows.sort((a, b) => {
      const empty = (a.text === "") - (b.text === "");
      if (empty) return empty;
      const difference = a.number - b.number;
      return sign * (Number.isNaN(difference) ? a.text.localeCompare(b.text, "en", { numeric: true }) : difference);
    });
    body.append(...rows.map((item) => item.row));
  }));
}

function filterable(grid) {
  const input = grid.querySelector("input[type=search]");
  if (!input) return;
  const rows = [...grid.querySelectorAll("tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const count = grid.querySelector(".count");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, n) => {
      row.hidden = !words.every((word) => texts[n].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = words.length ? `${shown} of ${rows.length}` : "";
  });
}

document.querySelectorAll("table").forEach(sortable);
document.querySelectorAll(".grid").forEach(filterable);
drawAll();
dark.addEventListener("change", drawAll);
