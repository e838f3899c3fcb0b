// Draws what is open, and answers to the pointer, the keys and the search.
// ------------------------------------------------------------------ drawing
const svg = document.getElementById("graph"), view = document.getElementById("view");
const camera = { x: 0, y: 0, k: 1 };
let drawn = {}, litBy = new Map(), chosen = null, found = new Set(), shading = "";
function make(parent, tag, attributes, text) {
  const element = document.createElementNS(svg.namespaceURI, tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}
function curve(points, dx, dy) {
  const at = points.map(([x, y]) => [x + dx, y + dy]);
  let path = `M${at[0]}`;
  for (let n = 1; n < at.length; n++) {
    const [x, y] = at[n], [px, py] = at[n - 1], middle = (y + py) / 2;
    path += x === px ? `V${y}` : `C${px},${middle} ${x},${middle} ${x},${y}`;
  }
  return path;
}
function classOf(item) {
  const op = ops[item.op], names = ["item"];
  if (!op) names.push("module", item.repeats ? "row" : "", item.open ? "open" : "");
  else {
    const made = [...op.outputs];
    names.push(op.kind, op.inPlace ? "in_place" : "", made.length > 1 ? "several" : "");
    if (made.length && !op.inPlace && op.kind === "function" && made.every((id) => !tensors[id].nbytes)) names.push("view");
    if (data.error && op.id === ops.length - 1) names.push("last");
  }
  if (found.has(item.id)) names.push("found");
  if (chosen === item) names.push("chosen");
  return names.filter(Boolean).join(" ");
}
const measure = (item) => (shading === "time" ? item.seconds : item.nbytes);
const amount = (item) => (shading === "time" ? seconds(item.seconds) : bytes(item.nbytes));
function render() {
  view.textContent = "";
  drawn = {};
  litBy = new Map();
  inside(root, 0, 0);
  if (shading) {
    const closed = Object.keys(drawn).map((id) => items[id]).filter((item) => !item.open);
    const most = Math.max(1e-12, ...closed.map(measure));
    for (const item of closed) {
      const share = Math.round((100 * measure(item)) / most);
      drawn[item.id].querySelector(".box").style.fill = `color-mix(in srgb, var(--hot) ${share}%, var(--box))`;
    }
  }
  if (chosen) light(chosen);
  move();
}
function inside(item, x, y, parent = view) {
  const here = frame(item), level = item.level;
  item.at = [x, y];
  const edges = [];
  level.edges.forEach((one, n) => edges.push([one, curve(here.edges[n], x, y), isChild(level, one.end) && !here.inner[one.end - level.first]]));
  const lines = make(parent, "g", {});
  for (const [one, path, arrow] of edges) {
    const group = make(lines, "g", { class: "edge" });
    make(group, "path", { class: "line", d: path, ...(arrow ? { "marker-end": "url(#arrow)" } : {}) });
    const hit = make(group, "path", { class: "hit", d: path });
    make(hit, "title", {}, one.tensors.slice(0, 8).map((id) => `${tensors[id].name}  ${shapeOf(tensors[id])}`).join("\n"));
    group.tensors = hit.tensors = one.tensors;
    for (const id of one.tensors) litBy.has(id) ? litBy.get(id).push(group) : litBy.set(id, [group]);
  }
  here.corners.forEach(([dx, dy], node) => {
    if (isChild(level, node)) box(items[item.children[node - level.first]], x + dx, y + dy, parent);
    else if (item === root) end(level, node, x + dx, y + dy);
  });
}
function end(level, node, x, y) {
  const n = Math.min(node, level.first), group = make(view, "g", { class: "item end" });
  group.tensors = node < level.first ? level.ports[node] : level.edges.filter((one) => one.end === node).flatMap((one) => one.tensors);
  make(group, "rect", { class: "box", x, y, width: level.widths[n], height: S.end });
  make(group, "text", { class: "below", x: x + level.widths[n] / 2, y: y + 15, "text-anchor": "middle" }, level.names[n]);
}
function box(item, x, y, parent) {
  const group = make(parent, "g", { class: classOf(item) }), op = ops[item.op];
  drawn[item.id] = group;
  group.item = item;
  item.at = [x, y];
  const { width, height } = item.open ? item.frame : { width: item.width, height: S.height };
  if (item.repeats && !item.open) for (const back of [7, 3.5])
    make(group, "rect", { class: "box", x: x + back, y: y + back, width, height });
  make(group, "rect", { class: "box", x, y, width, height });
  make(group, "title", {}, op ? op.name : `${item.path} (${item.type})`);
  if (item.open) {
    inside(item, x, y, group);
    const text = make(group, "text", { class: "title", x: x + 20, y: y + 16 }, item.title + " ");
    make(text, "tspan", {}, item.below);
    make(group, "text", { class: "sign", x: x + 7, y: y + 16 }, "−");
    return;
  }
  const below = shading ? amount(item) : item.below;
  make(group, "text", { class: "title", x: x + width / 2, y: y + (below ? 16 : 23), "text-anchor": "middle" }, item.title);
  make(group, "text", { class: "below", x: x + width / 2, y: y + 30, "text-anchor": "middle" }, below);
  if (!op) make(group, "text", { class: "sign", x: x + 4, y: y + 13 }, "+");
}
function light(what) {
  const ids = what.tensors ?? (what.op >= 0 ? [...ops[what.op].inputs, ...ops[what.op].outputs, ...ops[what.op].views] : []);
  view.querySelectorAll(".lit").forEach((one) => one.classList.remove("lit"));
  for (const id of ids) for (const group of litBy.get(id) ?? []) group.classList.add("lit");
}

// ------------------------------------------------------------------ opening, moving
function setOpen(item, open) {
  item.open = open;
  for (let one = item; one; one = one.parent) one.frame = null;
}
function toggle(item) {
  const [x, y] = item.at;
  setOpen(item, !item.open);
  render();
  camera.x += (x - item.at[0]) * camera.k;
  camera.y += (y - item.at[1]) * camera.k;
  move();
}
function everything(open) {
  for (const item of items) if (item.children.length) { item.open = open || item === root; item.frame = null; }
  render();
  fit();
}
function move() { view.setAttribute("transform", `translate(${camera.x},${camera.y}) scale(${camera.k})`); }
function fit(least = 0) {
  const { width, height } = frame(root), room = svg.getBoundingClientRect();
  camera.k = Math.max(least, Math.min(1.25, (room.width - 40) / width, (room.height - 40) / height));
  camera.x = (room.width - width * camera.k) / 2;
  camera.y = Math.max(20, (room.height - height * camera.k) / 2);
  move();
}
function zoom(factor, x, y) {
  const k = Math.min(4, Math.max(0.02, camera.k * factor));
  camera.x = x - ((x - camera.x) * k) / camera.k;
  camera.y = y - ((y - camera.y) * k) / camera.k;
  camera.k = k;
  move();
}
function jump(item) {
  panel.hidden = false;  // it narrows the picture
  for (let one = item.parent; one; one = one.parent) if (!one.open) setOpen(one, true);
  chosen = item;
  render();
  const room = svg.getBoundingClientRect(), [x, y] = item.at;
  camera.k = Math.max(camera.k, 0.8);
  camera.x = room.width / 2 - (x + item.width / 2) * camera.k;
  camera.y = room.height / 3 - y * camera.k;
  move();
}
let drag = null;
svg.addEventListener("pointerdown", (event) => {
  drag = { x: event.clientX, y: event.clientY, moved: false, target: event.target };
});
window.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
  if (!drag.moved && Math.hypot(dx, dy) < 4) return;
  drag = { ...drag, x: event.clientX, y: event.clientY, moved: true };
  svg.classList.add("moving");
  camera.x += dx;
  camera.y += dy;
  move();
});
window.addEventListener("pointerup", () => {
  if (drag && !drag.moved) click(drag.target);
  drag = null;
  svg.classList.remove("moving");
});
function click(target) {
  const group = target.closest(".edge, .item");
  if (!group) { chosen = null; light({ tensors: [] }); mark(); return; }
  if (group.tensors) { chosen = { tensors: group.tensors }; mark(); showTensors(group.tensors); return; }
  chosen = group.item;
  showItem(group.item);
  if (group.item.children.length) toggle(group.item);
  else mark();
}
function mark() {
  for (const id in drawn) drawn[id].setAttribute("class", classOf(items[id]));
  light(chosen ?? { tensors: [] });
}
svg.addEventListener("pointerover", (event) => {
  const group = event.target.closest(".edge");
  if (group) light({ tensors: group.tensors });
});
svg.addEventListener("pointerout", (event) => {
  if (event.target.closest(".edge")) light(chosen ?? { tensors: [] });
});
svg.addEventListener("wheel", (event) => {
  if (window !== window.top && !document.hasFocus()) return;  // a page in a notebook scrolls until it is clicked
  event.preventDefault();
  const { left, top } = svg.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.clientX - left, event.clientY - top);
}, { passive: false });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { closePanel(); clearSearch(); }
  if (/INPUT|SELECT/.test(event.target.tagName) || event.ctrlKey || event.metaKey) return;
  const { width, height } = svg.getBoundingClientRect(), step = 60;
  const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
  if (moves) { camera.x += moves[0]; camera.y += moves[1]; move(); }
  else if (event.key === "/") { event.preventDefault(); document.getElementById("search").focus(); }
  else if (event.key === "+") zoom(1.25, width / 2, height / 2);
  else if (event.key === "-") zoom(0.8, width / 2, height / 2);
  else if (event.key === "f") fit();
});

// ------------------------------------------------------------------ the panel
const panel = document.getElementById("panel"), content = document.getElementById("content");
function node(tag, ...parts) {
  const element = document.createElement(tag);
  element.append(...parts);
  return element;
}
function link(text, action) {
  const element = node("a", text);
  element.addEventListener("click", action);
  return element;
}
function seconds(value) { return value < 1e-3 ? `${(value * 1e6).toFixed(0)} µs` : value < 1 ? `${(value * 1e3).toFixed(2)} ms` : `${value.toFixed(2)} s`; }
function bytes(value) {
  const unit = ["B", "kB", "MB", "GB", "TB"];
  let n = 0;
  for (; value >= 1000 && n < 4; n++) value /= 1000;
  return `${n ? value.toFixed(1) : value} ${unit[n]}`;
}
const shapeOf = (tensor) => tensor.shape.join("×") || "scalar";
const number = (value) => Number(value).toPrecision(4).replace(/\.?0+(e|$)/, "$1");
function showPanel(title, ...parts) {
  panel.hidden = false;
  const copy = node("button", "copy"), heading = node("h2", title);
  copy.addEventListener("click", () => {
    getSelection().selectAllChildren(heading);
    if (navigator.clipboard) navigator.clipboard.writeText(title).then(() => { copy.textContent = "copied"; }, () => document.execCommand("copy"));
    else document.execCommand("copy");
  });
  content.replaceChildren(heading, copy, ...parts.flat());
  panel.scrollTop = 0;
}
function table(rows) {
  const list = node("dl");
  for (const [key, value] of rows) if (value !== "" && value !== undefined && value !== null) list.append(node("dt", key), node("dd", value));
  return list;
}
function section(title, entries) { return entries.length ? [node("h3", title), node("ul", ...entries.map((one) => node("li", one)))] : []; }
function tensorLink(id) {
  const tensor = tensors[id];
  return node("span", link(tensor.name, () => showTensors([id])), node("small", `  ${shapeOf(tensor)} ${tensor.dtype}`));
}
const opLink = (op) => link(op.name, () => { jump(op.item); showItem(op.item); });
function showItem(item) { item.op >= 0 ? showOp(ops[item.op]) : showModule(item); }
const KINDS = { read: "Python read numbers of a tensor here", custom: "custom autograd function",
  untracked: "not seen by functions of torch" };
function moduleType(op) {
  for (let one = op.item; one; one = one.parent) if (one.path === op.module && one.type && !one.repeats) return one.type;
  return "";
}
function showOp(op) {
  const drawnInputs = op.inputs.filter((id) => !stored(id)), parameters = op.inputs.filter(stored);
  showPanel(op.name, table([
    ["function", op.fn], ["kind", KINDS[op.kind]], ["read", op.kind === "read" ? op.value : ""],
    ["what it is", op.kind === "untracked" ? op.value : ""],
    ["module", op.module ? node("span", link(op.module, () => jumpModule(op)), ` ${moduleType(op)}`) : moduleType(op)],
    ["in place", op.inPlace ? "overwrites a tensor" : ""], ["source", op.source], ["arguments", op.text],
    ["time", seconds(op.seconds)], ["memory", bytes(op.nbytes)]]),
    section("inputs", drawnInputs.map(tensorLink)), section("outputs", op.outputs.map(tensorLink)),
    section("views that change with it", op.views.map(tensorLink)),
    section("parameters, buffers, constants", parameters.map(tensorLink)),
    op.outputs.filter((id) => data.histograms[id]).slice(0, 4).flatMap(histogram));
}
const stored = (id) => !["result", "input"].includes(tensors[id].kind);
function jumpModule(op) {
  let item = op.item;
  while (item.parent && item.parent.path.length >= op.module.length) item = item.parent;
  jump(item);
  showItem(item);
}
function showModule(item) {
  const parameters = new Map();
  (function collect(one) {
    if (one.op >= 0) for (const id of ops[one.op].inputs) if (tensors[id].kind === "parameter") parameters.set(id, tensors[id].shape.reduce((a, b) => a * b, 1));
    one.children.forEach((id) => collect(items[id]));
  })(item);
  const total = [...parameters.values()].reduce((a, b) => a + b, 0);
  showPanel(item.path || item.title || "model", table([
    ["type", item.type], ["operations", item.count], ["time", seconds(item.seconds)], ["memory", bytes(item.nbytes)],
    ["parameters", `${total.toLocaleString("en")} in ${parameters.size} tensor${parameters.size === 1 ? "" : "s"}`]]),
    section("inside", item.children.slice(0, 100).map((id) => {
      const child = items[id];
      return node("span", link(child.title, () => { jump(child); showItem(child); }), node("small", `  ${child.below}`));
    })));
}
function showTensors(ids) {
  if (ids.length > 1) return showPanel(`${ids.length} tensors`, section("tensors", ids.map(tensorLink)));
  const tensor = tensors[ids[0]];
  showPanel(tensor.name, table([
    ["kind", tensor.kind], ["shape", shapeOf(tensor)], ["dtype", tensor.dtype], ["device", tensor.device],
    ["memory", tensor.nbytes ? bytes(tensor.nbytes) : "that of another tensor"]]),
    section("made by", tensor.producer ? [opLink(tensor.producer)] : []),
    section("taken by", tensor.takers.slice(0, 200).map(opLink)), histogram(ids[0]));
  chosen = { tensors: ids };
  mark();
}
function histogram(id) {
  const stats = data.histograms[id];
  if (!stats) return [];
  const [count, mean, std, least, most, zeros, nan, infinite, bars] = stats, tall = Math.max(...bars, 1);
  const chart = make(document.createDocumentFragment(), "svg", { class: "bars", viewBox: "0 0 300 92", width: "100%" });
  bars.forEach((bar, n) => make(chart, "rect", { x: n * 10, y: 76 - (74 * bar) / tall, width: 9, height: (74 * bar) / tall }));
  if (bars.length) {
    make(chart, "text", { x: 0, y: 88 }, number(least));
    make(chart, "text", { x: 300, y: 88, "text-anchor": "end" }, number(most));
  }
  const known = (value) => (value === null ? "" : number(value));
  return [node("h3", `values of ${tensors[id].name}`), chart, table([
    ["numbers", count.toLocaleString("en")], ["mean", known(mean)], ["std", known(std)], ["min", known(least)],
    ["max", known(most)], ["zeros", `${number(100 * zeros)} %`], ["NaN", nan.toLocaleString("en")],
    ["infinite", infinite ? infinite.toLocaleString("en") : ""]])];
}
function closePanel() { panel.hidden = true; chosen = null; mark(); }

// ------------------------------------------------------------------ search
const search = document.getElementById("search"), results = document.getElementById("results");
const entriesToFind = [
  ...items.slice(1).map((item) => ({ item, name: item.op >= 0 ? ops[item.op].name : item.path, text: item.op >= 0 ? "" : item.type })),
  ...tensors.filter((one) => !one.producer || one.name !== one.producer.name).map((tensor) => ({ tensor, name: tensor.name, text: tensor.kind }))];
let hits = [], at = -1;
function clearSearch() { search.value = ""; look(); }
function look() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  hits = words.length ? entriesToFind.filter(({ name, text }) => words.every((word) => `${name} ${text}`.toLowerCase().includes(word))) : [];
  at = -1;
  found = new Set();
  for (const { item } of hits) if (item) found.add(item.id);
  results.replaceChildren(...hits.slice(0, 60).map((hit, n) => {
    const entry = link(hit.name, () => { visit(n); results.replaceChildren(); });
    entry.append(node("small", ` ${hit.text}`));
    return entry;
  }));
  if (words.length) results.append(node("div", hits.length ? `${hits.length} found, Enter goes to the next` : "nothing found"));
  mark();
}
function visit(n) {
  at = n;
  const { item, tensor } = hits[n];
  if (item) { jump(item); showItem(item); }
  else {
    const op = tensor.producer ?? tensor.takers[0];
    if (op) jump(op.item);
    showTensors([tensor.id]);
  }
  [...results.children].forEach((one, k) => one.classList.toggle("at", k === n));
}
search.addEventListener("input", look);
search.addEventListener("focus", () => { if (search.value) look(); });
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && hits.length) visit((at + (event.shiftKey ? hits.length - 1 : 1)) % hits.length);
});
svg.addEventListener("pointerdown", () => results.replaceChildren());

// ------------------------------------------------------------------ beginning
document.getElementById("fit").addEventListener("click", () => fit());
document.getElementById("open").addEventListener("click", () => everything(true));
document.getElementById("close").addEventListener("click", () => everything(false));
document.getElementById("hide").addEventListener("click", closePanel);
document.getElementById("shading").addEventListener("change", (event) => { shading = event.target.value; render(); });
for (const id of data.opened) items[id].open = true;
render();
fit(0.8);
if (data.focus) {
  const [kind, id] = data.focus, tensor = tensors[id], op = kind === "tensor" ? tensor.producer ?? tensor.takers[0] : ops[id];
  if (op) jump(op.item);
  kind === "tensor" ? showTensors([id]) : showItem(op.item);
}
