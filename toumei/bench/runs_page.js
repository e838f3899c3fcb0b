"use strict";
const byId = name => document.getElementById(name);
const runs = data.runs;
let order = { key: "started", up: false };
let chosen = { a: null, b: null };

const columns = [
  { key: "experiment", name: "experiment", text: run => run.experiment },
  { key: "version", name: "version", text: run => run.version },
  { key: "started", name: "begin", text: run => new Date(run.started * 1000).toLocaleString("sv-SE"), value: run => run.started },
  { key: "status", name: "status", text: run => run.status },
  { key: "seconds", name: "seconds", text: run => run.seconds === null ? "" : run.seconds.toPrecision(3), value: run => run.seconds },
  { key: "arguments", name: "arguments", text: run => pairs(run.arguments) },
  { key: "results", name: "numbers of the result", text: run => pairs(run.results) },
];

function pairs(values) {
  return Object.entries(values).map(([name, value]) => `${name}=${short(value)}`).join(", ");
}

function short(value) {
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : String(value);
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

for (const run of runs) run.words = columns.map(column => column.text(run)).join(" ").toLowerCase();

function visible() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const experiment = byId("experiment").value, status = byId("status").value;
  const column = columns.find(one => one.key === order.key);
  const value = column.value || column.text;
  return runs
    .filter(run => (!experiment || run.experiment === experiment) && (!status || run.status === status))
    .filter(run => words.every(word => run.words.includes(word)))
    .sort((x, y) => {
      const [first, second] = [value(x), value(y)];
      return (first < second ? -1 : first > second ? 1 : 0) * (order.up ? 1 : -1);
    });
}

function drawList() {
  const table = byId("runs"), found = visible(), head = element("tr");
  table.replaceChildren();
  for (const name of ["A", "B"]) head.append(element("th", name));
  for (const column of columns) {
    const mark = column.key === order.key ? (order.up ? " ▲" : " ▼") : "";
    const cell = element("th", column.name + mark);
    cell.onclick = () => { order = { key: column.key, up: column.key === order.key && !order.up }; drawList(); };
    head.append(cell);
  }
  table.append(head);
  for (const run of found) table.append(rowOf(run));
  byId("count").textContent = `${found.length} of ${runs.length} run${runs.length === 1 ? "" : "s"}`;
}

function rowOf(run) {
  const row = element("tr", undefined, run.id === chosen.a || run.id === chosen.b ? "chosen" : "");
  for (const which of ["a", "b"]) {
    const cell = element("td", undefined, "pick"), radio = element("input");
    Object.assign(radio, { type: "radio", name: which, checked: run.id === chosen[which] });
    radio.setAttribute("aria-label", `compare as ${which.toUpperCase()}`);
    radio.onclick = event => { event.stopPropagation(); choose(which, chosen[which] === run.id ? null : run.id); };
    cell.append(radio);
    row.append(cell);
  }
  for (const column of columns) {
    const cell = element("td", column.text(run), column.key === "seconds" ? "number" : "text");
    if (column.key === "version") cell.replaceChildren(element("span", run.version, "chip"));
    if (column.key === "status") cell.classList.add(run.status);
    cell.title = cell.textContent;
    row.append(cell);
  }
  row.onclick = () => choose("a", run.id);
  return row;
}

function choose(which, id) {
  chosen[which] = id;
  const parts = Object.entries(chosen).filter(([, one]) => one).map(([name, one]) => `${name}=${one}`);
  history.replaceState(null, "", "#" + parts.join("&"));
  drawList();
  drawDetails();
}

function drawDetails() {
  const place = byId("details");
  place.replaceChildren();
  const [first, second] = ["a", "b"].map(which => runs.find(run => run.id === chosen[which]));
  if (first) place.append(sectionOf(first, second, "A"));
  if (second) place.append(sectionOf(second, first, "B"));
  const shown = first || second;
  if (!shown) return;
  const code = element("section", undefined, "wide");
  if (first && second && data.sources[first.version] !== data.sources[second.version]) {
    code.append(element("h2", "Source: from A to B"), diff(data.sources[first.version], data.sources[second.version]));
  } else {
    code.append(element("h2", first && second ? "Source, the same for both" : "Source"), element("pre", data.sources[shown.version]));
  }
  place.append(code);
}

function sectionOf(run, other, name) {
  const section = element("section");
  section.append(element("h2", other ? `${name}: ${run.experiment}` : run.experiment));
  section.append(element("div", `version ${run.version}, run ${run.id}, ${run.status}`, run.status));
  const addTable = (title, key) => {
    if (Object.keys(run[key]).length) section.append(element("h3", title), tableOf(run[key], other && other[key]));
  };
  addTable("Arguments", "arguments");
  addTable("Numbers of the result", "results");
  for (const [place, source] of Object.entries(run.figures)) {
    const figure = element("figure"), image = element("img");
    Object.assign(image, { src: source, alt: place });
    figure.append(image, element("figcaption", place));
    section.append(figure);
  }
  const unkept = Object.entries(run.unkept).map(([place, why]) => `${place}: ${why}`).join("\n");
  for (const [title, text] of [["Result", run.printed], ["Not kept", unkept], ["Error", run.error]]) {
    if (text) section.append(element("h3", title), element("pre", text));
  }
  addTable("Kept with it", "facts");
  return section;
}

function tableOf(values, others) {
  const table = element("table");
  for (const [name, value] of Object.entries(values)) {
    const row = element("tr");
    row.append(element("td", name), element("td", short(value), others && others[name] !== value ? "other" : ""));
    table.append(row);
  }
  return table;
}

// The longest common subsequence of lines, by dynamic programming from the end.
function diff(before, after) {
  const old = before.split("\n"), now = after.split("\n");
  const length = Array.from({ length: old.length + 1 }, () => new Uint16Array(now.length + 1));
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = now.length - 1; j >= 0; j--) {
      length[i][j] = old[i] === now[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  const made = element("pre");
  let i = 0, j = 0;
  while (i < old.length || j < now.length) {
    if (i < old.length && j < now.length && old[i] === now[j]) {
      made.append(element("span", "  " + old[i++], "same"));
      j++;
    } else if (i < old.length && (j === now.length || length[i + 1][j] >= length[i][j + 1])) {
      made.append(element("span", "- " + old[i++], "del"));
    } else {
      made.append(element("span", "+ " + now[j++], "add"));
    }
  }
  return made;
}

function fill(name, all, values) {
  const options = [["", all], ...[...new Set(values)].sort().map(value => [value, value])];
  for (const [value, text] of options) byId(name).append(new Option(text, value));
  byId(name).onchange = drawList;
}

fill("experiment", "all experiments", runs.map(run => run.experiment));
fill("status", "all that happened", runs.map(run => run.status));
byId("filter").oninput = drawList;
for (const part of location.hash.slice(1).split("&")) {
  const [which, id] = part.split("=");
  if (which in chosen && runs.some(run => run.id === id)) chosen[which] = id;
}
if (!chosen.a && runs.length) chosen.a = runs[runs.length - 1].id;
drawList();
drawDetails();
