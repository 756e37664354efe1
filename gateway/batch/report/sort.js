"use strict";
// Sorts the table of shots by the column whose heading is clicked. Shots without a value come last.
const table = document.getElementById("shots");
const headings = [...table.tHead.rows[0].cells];
const rows = [...table.tBodies[0].rows];

function compare(column, numbers, sign) {
  return (a, b) => {
    const [x, y] = [a.cells[column].dataset.v, b.cells[column].dataset.v];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (numbers ? x - y : x < y ? -1 : x > y ? 1 : 0);
  };
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
    table.tBodies[0].append(...rows.sort(compare(column, heading.dataset.kind === "number", sign)));
  });
});
