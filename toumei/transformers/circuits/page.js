"use strict";

const svgSpace = "http://www.w3.org/2000/svg";
const picture = document.getElementById("picture");
const slider = document.getElementById("count");
const details = document.getElementById("details");
const idle = document.getElementById("idle");
const inputs = { q: -0.22, k: 0, v: 0.22 };
const top_ = Math.max(...data.nodes.map((node) => node.y));
const right = Math.max(...data.nodes.map((node) => node.x));
const largest = Math.max(...data.lines.map((line) => Math.abs(line.score)), 1e-12);
let chosen = null;

function element(name, attributes, parent) {
  const made = document.createElementNS(svgSpace, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

// Layers go from bottom to top, where y is small.
const height = (y) => top_ - y;

function curve(line) {
  const from = data.nodes[line.from], to = data.nodes[line.to];
  const x = to.x + (inputs[line.input] ?? 0), y = height(to.y) + 0.18;
  const start = height(from.y) - 0.18, bend = Math.max(0.4, (start - y) / 3);
  return `M${from.x},${start} C${from.x},${start - bend} ${x},${y + bend} ${x},${y}`;
}

function drawEdges(lines) {
  for (const line of [...lines].reverse()) {
    const strength = Math.sqrt(Math.abs(line.score) / largest);
    const sign = line.score < 0 ? "negative" : "positive";
    const apart = chosen !== null && line.from !== chosen && line.to !== chosen;
    const path = element("path", {
      d: curve(line), class: `edge ${sign}${apart ? " faded" : ""}`,
      "stroke-width": 0.015 + 0.11 * strength, opacity: 0.3 + 0.6 * strength,
    }, picture);
    element("title", {}, path).textContent = `${data.edges[line.edge]}  ${line.score.toPrecision(3)}`;
  }
}

function drawNodes(used) {
  data.nodes.forEach((node, number) => {
    if (!used.has(number) && !idle.checked && number !== chosen) return;
    const state = (number === chosen ? " chosen" : "") + (used.has(number) ? "" : " idle");
    const group = element("g", { class: `node${state}`, tabindex: 0 }, picture);
    const width = node.kind === "head" || node.kind === "mlp" ? 0.8 : 1.6;
    const round = node.kind === "mlp" ? 0 : 0.12;
    element("rect", { x: node.x - width / 2, y: height(node.y) - 0.18, width, height: 0.36, rx: round }, group);
    const text = element("text", { x: node.x, y: height(node.y) }, group);
    text.textContent = node.label.replace(/^a(?=\d)/, "");
    const choose = () => { chosen = chosen === number ? null : number; draw(); };
    group.addEventListener("click", choose);
    group.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(); });
  });
}

function table(title, lines) {
  const rows = new Map(lines.map((line) => [line.edge, line]));
  const heading = document.createElement("h3");
  heading.textContent = `${title} (${rows.size})`;
  const made = document.createElement("table");
  for (const line of rows.values()) {
    const row = made.insertRow();
    row.insertCell().textContent = data.edges[line.edge];
    const cell = row.insertCell();
    cell.textContent = (line.score < 0 ? "" : "+") + line.score.toPrecision(3);
    cell.className = line.score < 0 ? "negative" : "positive";
  }
  details.append(heading, made);
}

function drawDetails(lines) {
  details.replaceChildren();
  if (chosen === null) {
    table("Strongest edges", lines.filter((line) => line.edge < 60));
    return;
  }
  const heading = document.createElement("h2");
  heading.textContent = data.nodes[chosen].label;
  details.append(heading);
  table("Edges into it", lines.filter((line) => line.to === chosen));
  table("Edges out of it", lines.filter((line) => line.from === chosen));
}

function draw() {
  const count = Number(slider.value);
  const lines = data.lines.filter((line) => line.edge < count);
  document.getElementById("shown").textContent = `${count} of ${data.edges.length}`;
  const used = new Set(lines.flatMap((line) => [line.from, line.to]));
  picture.replaceChildren();
  for (let layer = 0; layer < top_; layer++) {
    element("text", { x: -0.7, y: height(layer), class: "layer" }, picture).textContent = layer;
  }
  drawEdges(lines);
  drawNodes(used);
  drawDetails(lines);
}

picture.setAttribute("viewBox", `-1.4 -0.6 ${right + 2.6} ${top_ + 2.2}`);
picture.style.height = `${Math.max(320, Math.min(Math.max(46, 100 - 6 * top_) * (top_ + 2), 1400))}px`;
slider.max = data.edges.length;
slider.value = data.shown;
slider.addEventListener("input", draw);
idle.addEventListener("change", draw);
draw();
