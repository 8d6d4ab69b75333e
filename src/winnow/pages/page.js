// All that a page does: a table sorts by the column that is clicked, the search box leaves the rows and pales the marks
// that do not hold its words, and a mark tells its title at once. Without scripts the page is whole, and a browser shows
// the titles itself.
"use strict";
const value = (row, column) => {
  const cell = row.cells[column], shown = cell ? cell.dataset.value ?? cell.textContent.trim() : "";
  const text = shown === "–" ? "" : shown; // no number
  const number = Number(text.replaceAll(",", "").replace("−", "-").replace(/%$| times$/, ""));
  return text === "" || Number.isNaN(number) ? text : number;
};
for (const head of document.querySelectorAll("table.sorts thead th")) {
  head.tabIndex = 0;
  const sort = () => {
    const down = head.getAttribute("aria-sort") === "ascending", body = head.closest("table").tBodies[0];
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [value(row, head.cellIndex), row]);
    rows.sort(([a], [b]) => (a === "") - (b === "") || (down ? -1 : 1) * (a < b ? -1 : a > b ? 1 : 0));
    body.append(...rows.map(([, row]) => row));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
}
const marks = [...document.querySelectorAll("svg.plot title")].map((title) => {
  const mark = title.parentNode;
  mark.dataset.title = title.textContent;
  title.remove();
  return mark;
});
const search = document.querySelector("#search");
search?.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/);
  const without = (text) => !words.every((word) => text.toLowerCase().includes(word));
  for (const row of document.querySelectorAll("table.sorts tbody tr")) row.hidden = without(row.textContent);
  for (const mark of marks) mark.classList.toggle("pale", without(mark.dataset.title));
});
const tip = document.body.appendChild(document.createElement("div"));
tip.className = "tip";
document.addEventListener("pointerover", (event) => {
  const mark = event.target.closest("[data-title]");
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.dataset.title;
  tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 10)}px`;
});
