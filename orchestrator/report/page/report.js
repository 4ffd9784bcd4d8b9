"use strict";
// Sorting of tables and choice of examples. Without it the page shows everything, in the order of the report.

function sortKey(row, place) {
  const cell = row.cells[place];
  const text = cell.dataset.sort ?? cell.textContent.trim();
  const number = Number(text);
  return text === "" ? null : Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortTable(heading, place) {
  const descending = heading.getAttribute("aria-sort") === "ascending";
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = heading.closest("table").tBodies[0];
  const rows = [...body.rows].map((row) => [sortKey(row, place), row]);
  rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : descending ? compare(b, a) : compare(a, b)));
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((heading, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortTable(heading, place));
    heading.append(button);
  });
}

const controls = document.querySelector(".controls");
if (controls) {
  const groups = [...document.querySelectorAll(".examples")];
  const cardsOf = new Map(groups.map((group) => [group, [...group.querySelectorAll(".card")]]));
  const orders = {
    right: (a, b) => (b.dataset.verdict === "right") - (a.dataset.verdict === "right"),
    wrong: (a, b) => (a.dataset.verdict === "right") - (b.dataset.verdict === "right"),
    hardest: (a, b) => a.dataset.solved - b.dataset.solved,
  };
  const update = () => {
    const { verdict, order, task, backbone } = Object.fromEntries(new FormData(controls));
    let shown = 0;
    let total = 0;
    for (const [group, cards] of cardsOf) {
      let any = false;
      for (const card of cards) {
        const fits = verdict === "all" || (verdict === "hardest" ? "hardest" in card.dataset : card.dataset.verdict === verdict);
        card.hidden = !(fits && (!task || task === group.dataset.task) && (!backbone || backbone === card.dataset.backbone));
        any ||= !card.hidden;
        shown += !card.hidden;
        total += 1;
      }
      group.hidden = !any;
      group.querySelector(".cards").append(...(order ? [...cards].sort(orders[order]) : cards));
    }
    controls.querySelector("output").textContent = `${shown} of ${total} examples`;
  };
  controls.addEventListener("change", update);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  controls.reset();
  update();
}
for (const details of document.querySelectorAll("details")) {
  addEventListener("beforeprint", () => { details.open = true; });
}
