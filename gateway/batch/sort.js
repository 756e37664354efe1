"use strict";
// Sorts the table of shots by the column whose heading is clicked. Shots without a value come last.
const table = document.getElementById("shots");
const body = table.tBodies[0];
const rows = [...body.rows];
const headings = [...table.tHead.rows[0].cells];

function sorted(column, numbers, sign) {
  const keyed = rows.map((row) => [row.cells[column].dataset.v, row]);
  const empty = keyed.filter(([key]) => key === "");
  const filled = keyed.filter(([key]) => key !== "");
  filled.sort(([a], [b]) => sign * (numbers ? a - b : a < b ? -1 : a > b ? 1 : 0));
  return [...filled, ...empty].map(([, row]) => row);
}

headings.forEach((heading, column) => {
  if (heading.dataset.kind === undefined) return;
  const button = document.createElement("button");
  button.append(...heading.childNodes);
  heading.append(button);
  button.addEventListener("click", () => {
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    body.remove(); // outside the page, thousands of rows move in a moment
    body.replaceChildren(...sorted(column, heading.dataset.kind === "number", sign));
    table.append(body);
  });
});
