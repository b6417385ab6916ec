// Sorts and searches the table of classes, opens a class to its thumbnails, and reloads the page
// while make_report.py --watch rebuilds it, at the reader's place.
"use strict";

const table = document.getElementById("class-table");
const body = table.tBodies[0];
const rows = [...body.rows];
const heads = [...table.tHead.rows[0].cells];
const search = document.getElementById("search");
const found = document.getElementById("found");
const scroller = table.parentElement;
const name = (row) => row.cells[0].textContent;
document.documentElement.classList.add("scripted");

// --- sorting -------------------------------------------------------------------------------------

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function value(row, column) {
  const number = parseFloat(row.cells[column].textContent.replaceAll(",", ""));
  return Number.isNaN(number) ? -Infinity : number;
}

function sort(column, direction) {
  const sign = direction === "ascending" ? 1 : -1;
  const byText = heads[column].dataset.by === "text";
  const compare = byText
    ? (a, b) => collator.compare(name(a), name(b))
    : (a, b) => value(a, column) - value(b, column);
  rows.sort((a, b) => sign * compare(a, b) || collator.compare(name(a), name(b)));
  heads.forEach((head, at) => head.setAttribute("aria-sort", at === column ? direction : "none"));
  const inOrder = rows.flatMap((row) => (row.strip ? [row, row.strip] : [row]));
  body.append(...inOrder);
}

heads.forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  head.replaceChildren(button);
  if (!head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", "none");
  button.addEventListener("click", () => {
    const first = head.dataset.by === "text" ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    sort(column, head.getAttribute("aria-sort") === first ? other : first);
  });
});

// --- searching -----------------------------------------------------------------------------------

function show() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const text = name(row).toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    if (row.strip) row.strip.hidden = row.hidden;
    if (!row.hidden) count += 1;
  }
  found.textContent = words.length ? `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")}` : "";
}

search.addEventListener("input", show);

// --- a class opens to a strip of thumbnails --------------------------------------------------------

let strips = null;

// The thumbnails of all classes are 1 to 2 MB of text, so they are parsed when a class is opened.
function picturesOf(row) {
  strips ??= new Map(Object.entries(JSON.parse(document.getElementById("strips").textContent)));
  return strips.get(name(row)) ?? [];
}

function toggle(row) {
  const button = row.cells[0].firstElementChild;
  if (row.strip) {
    row.strip.remove();
    row.strip = null;
    button.setAttribute("aria-expanded", "false");
    return;
  }
  const line = document.createElement("tr");
  const cell = line.insertCell();
  const strip = document.createElement("div");
  cell.colSpan = heads.length;
  strip.className = "strip";
  for (const [clip, source, width, height] of picturesOf(row)) {
    const image = new Image(width, height);
    image.src = source;
    image.alt = image.title = clip;
    strip.append(image);
  }
  cell.append(strip);
  row.strip = line;
  row.after(line);
  button.setAttribute("aria-expanded", "true");
}

for (const row of rows) {
  if (!("pictures" in row.dataset)) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  button.append(...row.cells[0].childNodes);
  row.cells[0].append(button);
  button.addEventListener("click", () => toggle(row));
}

// --- reload while watching: keep the reader's place, sorting and search ----------------------------

function place() {
  const sorted = heads.findIndex((head) => head.getAttribute("aria-sort") !== "none");
  return {
    x: window.scrollX,
    y: window.scrollY,
    top: scroller.scrollTop,
    search: search.value,
    focused: focusable().indexOf(document.activeElement),
    focusedClass: document.activeElement.closest("#class-table tbody tr")?.cells[0].textContent,
    column: sorted,
    direction: heads[sorted].getAttribute("aria-sort"),
    open: rows.filter((row) => row.strip).map(name),
  };
}

function focusable() {
  return [...document.querySelectorAll("a[href], button, input, [tabindex]")];
}

function restore(kept) {
  sort(kept.column, kept.direction);
  search.value = kept.search;
  for (const row of rows) {
    if (kept.open.includes(name(row)) && "pictures" in row.dataset) toggle(row);
  }
  show();
  const row = rows.find((each) => name(each) === kept.focusedClass);
  const target = row ? row.querySelector("button") : focusable()[kept.focused];
  if (target && kept.focused >= 0) target.focus({ preventScroll: true });
  if (target === search) search.setSelectionRange(search.value.length, search.value.length);
  scroller.scrollTop = kept.top;
  window.scrollTo(kept.x, kept.y);
}

const seconds = Number(document.documentElement.dataset.renew || 0);
if (seconds) {
  history.scrollRestoration = "manual";
  if (history.state?.kept) restore(history.state.kept);
  setTimeout(() => {
    history.replaceState({ kept: place() }, "");
    location.reload();
  }, seconds * 1000);
}
