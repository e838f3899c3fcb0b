// Draws the heads of one text and answers to the pointer. A weight w is stored as the byte 255 sqrt(w).
const element = (id) => document.getElementById(id);
const heads = data.layers.flatMap(({ name, heads }, layer) => Array.from({ length: heads }, (_, head) => ({ layer, head, name })));
const state = { text: data.texts[0], head: heads.findIndex(({ layer, head }) => layer === data.head[0] && head === data.head[1]) };
state.shown = state.head; // the head under the pointer, else the chosen one
state.kept = state.place = null; // {query, key} of the token or the pair that is clicked, and of what is shown
let cell = 8, labels = { left: 0, top: 0 };

// ------------------------------------------------------------------ the weights
function unpack(text) {
  if (text.bytes) return;
  const letters = atob(text.weights);
  text.bytes = new Uint8Array(letters.length);
  for (let n = 0; n < letters.length; n++) text.bytes[n] = letters.charCodeAt(n);
}
function codesOf(text, head) {
  unpack(text);
  const rows = text.queries.length, columns = (text.keys || text.queries).length;
  const size = text.triangle ? (rows * (rows + 1)) / 2 : rows * columns;
  const packed = text.bytes.subarray(head * size, (head + 1) * size);
  if (!text.triangle) return packed;
  const codes = new Uint8Array(rows * columns);
  for (let query = 0, at = 0; query < rows; at += ++query) codes.set(packed.subarray(at, at + query + 1), query * columns);
  return codes;
}
const share = (code) => (code / 255) ** 2;
const written = (weight) => (weight === 0 ? "0" : weight < 0.001 ? "<.001" : weight < 0.0995 ? weight.toFixed(3) : weight.toFixed(2));
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const bytesOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const tinted = (name, code) => { const [r, g, b] = bytesOf(color(name)); return `rgba(${r},${g},${b},${code / 255})`; };

// ------------------------------------------------------------------ tokens
const SIGNS = { " ": "·", "\n": "↵", "\t": "⇥", "\r": "␍" };
const INVISIBLE = /[ \n\t\r]|[\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200d\u2060\ufeff]/g;
const sign = (letter) => SIGNS[letter] || `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
const visible = (token) => token.replace(INVISIBLE, sign) || "∅";
function write(parent, token) {
  parent.textContent = "";
  let last = 0;
  const add = (text, faint) => {
    if (!text) return;
    const part = faint ? parent.appendChild(document.createElement("i")) : parent;
    part.append(text);
  };
  for (const { 0: letter, index } of token.matchAll(INVISIBLE)) {
    add(token.slice(last, index));
    add(sign(letter), true);
    last = index + letter.length;
  }
  add(token.slice(last));
  if (!token) add("∅", true);
}
function fill(id, tokens, side) {
  const strip = element(id);
  const newLine = () => strip.appendChild(document.createElement("br"));
  strip.textContent = "";
  tokens.forEach((token, n) => {
    if (/^\n+[^\n]/.test(token)) newLine();
    const one = strip.appendChild(document.createElement("span"));
    one.className = "token";
    one.dataset.at = n;
    write(one, token);
    one.onpointerenter = () => point(side(n));
    one.onpointerleave = () => point(null);
    one.onclick = () => keep(side(n));
    if (token.endsWith("\n")) newLine();
  });
}

// ------------------------------------------------------------------ drawing
function paint(canvas, codes, rows, columns, limit) {
  const height = Math.min(rows, limit), width = Math.min(columns, limit);
  const largest = new Uint8Array(height * width); // of the weights that share a pixel
  for (let query = 0; query < rows; query++) {
    const y = Math.floor((query * height) / rows);
    for (let key = 0; key < columns; key++) {
      const at = y * width + Math.floor((key * width) / columns), code = codes[query * columns + key];
      if (code > largest[at]) largest[at] = code;
    }
  }
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  const [r, g, b] = bytesOf(color("--attends"));
  for (let n = 0; n < largest.length; n++) image.data.set([r, g, b, largest[n]], 4 * n);
  context.putImageData(image, 0, 0);
}
function drawThumbnails() {
  const { text } = state, rows = text.queries.length, columns = (text.keys || text.queries).length;
  const most = Math.max(...data.layers.map((layer) => layer.heads));
  const side = Math.max(28, Math.min(96, Math.floor((0.36 * innerWidth) / most) - 3)), pixels = side * (window.devicePixelRatio || 1);
  const scale = side / Math.max(rows, columns);
  const grid = element("grid");
  grid.style.gridTemplateColumns = `auto repeat(${most}, ${side}px)`;
  grid.querySelectorAll("canvas").forEach((canvas, head) => {
    paint(canvas, codesOf(text, head), rows, columns, Math.floor(pixels));
    canvas.style.width = `${Math.max(8, columns * scale)}px`;
    canvas.style.height = `${Math.max(8, rows * scale)}px`;
  });
}
function drawMatrix() {
  const { text } = state, keys = text.keys || text.queries, rows = text.queries.length, columns = keys.length;
  const codes = codesOf(text, state.shown), sharp = window.devicePixelRatio || 1;
  const beside = innerWidth - element("grid").offsetWidth - 140, room = Math.min(600, beside < 250 ? innerWidth - 110 : beside);
  cell = Math.max(4, Math.min(22, Math.floor(room / Math.max(rows, columns))));
  const named = cell >= 8, most = (tokens) => Math.min(12, Math.max(...tokens.map((token) => visible(token).length)));
  const letter = Math.min(12, cell) - 0.5;
  labels = named ? { left: 22 + most(text.queries) * letter * 0.62, top: 20 + most(keys) * letter * 0.62 } : { left: 16, top: 16 };
  const canvas = element("canvas"), width = labels.left + columns * cell, height = labels.top + rows * cell;
  canvas.width = width * sharp;
  canvas.height = height * sharp;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(sharp, sharp);
  context.fillStyle = color("--cell");
  context.fillRect(labels.left, labels.top, columns * cell, rows * cell);
  const [r, g, b] = bytesOf(color("--attends")), gap = cell > 9 ? 0.5 : 0;
  codes.forEach((code, n) => {
    if (!code) return;
    context.fillStyle = `rgba(${r},${g},${b},${code / 255})`;
    context.fillRect(labels.left + (n % columns) * cell, labels.top + Math.floor(n / columns) * cell, cell - gap, cell - gap);
  });
  context.fillStyle = color("--muted");
  context.font = "11px system-ui, sans-serif";
  context.fillText("key →", labels.left, 10);
  context.save();
  context.rotate(-Math.PI / 2);
  context.textAlign = "right";
  context.fillText("← query", -labels.top, 10);
  context.restore();
  if (!named) return;
  const short = (token) => { const all = visible(token); return all.length > 12 ? `${all.slice(0, 11)}…` : all; };
  context.font = `${letter}px ui-monospace, monospace`;
  context.fillStyle = color("--ink");
  context.textBaseline = "middle";
  context.textAlign = "right";
  text.queries.forEach((token, n) => context.fillText(short(token), labels.left - 3, labels.top + (n + 0.5) * cell));
  context.textAlign = "left";
  context.rotate(-Math.PI / 2);
  keys.forEach((token, n) => context.fillText(short(token), 3 - labels.top, labels.left + (n + 0.5) * cell));
}
function band(id, from, horizontal) {
  const style = element(id).style, { text } = state;
  style.display = from === null ? "none" : "block";
  if (from === null) return;
  const long = (horizontal ? (text.keys || text.queries).length : text.queries.length) * cell;
  style.left = `${labels.left + (horizontal ? 0 : from * cell)}px`;
  style.top = `${labels.top + (horizontal ? from * cell : 0)}px`;
  style.width = `${horizontal ? long : cell}px`;
  style.height = `${horizontal ? cell : long}px`;
}

// ------------------------------------------------------------------ what is shown of a token
function shade() {
  const { text, place } = state, keys = text.keys || text.queries, rows = text.queries.length, columns = keys.length;
  const codes = codesOf(text, state.shown);
  const query = place ? place.query : null, asked = place && !place.pair ? place.key : null;
  const mean = (key) => {
    let sum = 0;
    for (let row = 0; row < rows; row++) sum += share(codes[row * columns + key]);
    return 255 * Math.sqrt(sum / rows);
  };
  const to = keys.map((_, key) => (!place ? mean(key) : query === null ? 0 : codes[query * columns + key]));
  const by = text.queries.map((_, row) => (asked === null ? 0 : codes[row * columns + asked]));
  const rowTokens = [...element("queries").querySelectorAll(".token")];
  const keyTokens = text.keys ? [...element("keys").querySelectorAll(".token")] : rowTokens;
  keyTokens.forEach((one, n) => { one.style.background = tinted("--attends", 0.7 * to[n]); });
  rowTokens.forEach((one, n) => { one.style.borderBottomColor = tinted("--attended", by[n]); });
  const at = place ? [rowTokens[query], keyTokens[asked]] : [];
  const other = place && place.pair ? keyTokens[place.key] : null;
  for (const one of new Set([...rowTokens, ...keyTokens])) {
    one.classList.toggle("at", at.includes(one));
    one.classList.toggle("other", one === other);
  }
  for (const one of [rowTokens[query], text.keys && place && keyTokens[place.key]]) if (one) reveal(one.closest(".strip"), one, 0);
  band("row", query, true);
  band("column", place ? place.key : null, false);
  list("to", query === null ? [] : to, keys, "--attends");
  list("by", asked === null ? [] : by, text.queries, "--attended");
  element("readout").textContent = words(codes) + (state.kept ? " (kept: click it again or press Escape to let go)" : "");
}
function list(id, codes, tokens, name) {
  const order = [...codes.keys()].filter((n) => share(codes[n]) >= 0.001).sort((a, b) => codes[b] - codes[a]).slice(0, 8);
  element(id).replaceChildren(...order.map((n) => {
    const item = document.createElement("li"), token = item.appendChild(document.createElement("span"));
    write(token, tokens[n]);
    const number = document.createElement("small");
    number.textContent = ` ${n}`;
    token.append(number);
    const percent = 100 * share(codes[n]);
    token.style.background = `linear-gradient(to right, ${tinted(name, 120)} ${percent}%, transparent ${percent}%)`;
    item.appendChild(document.createElement("b")).textContent = written(share(codes[n]));
    return item;
  }));
}
function words(codes) {
  const { text, place } = state, keys = text.keys || text.queries;
  if (!place) return "Blue: mean attention over all queries. Point at a token or at a head; a click keeps it.";
  const { query, key, pair } = place, name = (tokens, n) => `“${visible(tokens[n])}” (${n})`;
  if (query === null) return `key ${name(keys, key)}`;
  if (key === null) return `query ${name(text.queries, query)}`;
  const weight = written(share(codes[query * keys.length + key]));
  return pair ? `${name(text.queries, query)} attends to ${name(keys, key)}: ${weight}` : `${name(keys, key)}, to itself: ${weight}`;
}

// ------------------------------------------------------------------ the pointer and the keys
function point(place) {
  state.place = place || state.kept;
  shade();
}
function keep(place) {
  state.kept = JSON.stringify(place) === JSON.stringify(state.kept) ? null : place;
  point(state.kept);
}
function reveal(box, inside, above) { // scrollIntoView would move the notebook, too
  const top = inside.getBoundingClientRect().top - box.getBoundingClientRect().top, bottom = top + inside.offsetHeight;
  if (top < above) box.scrollTop += top - above - 3;
  else if (bottom > box.clientHeight) box.scrollTop += bottom - box.clientHeight + 3;
}
function show(head) {
  state.shown = head === null ? state.head : head;
  const { layer, head: number, name } = heads[state.shown];
  element("name").textContent = `layer ${data.layers[layer].name} · head ${number}`;
  drawMatrix();
  shade();
}
function choose(head) {
  const grid = element("grid");
  state.head = head;
  grid.querySelectorAll("button").forEach((button, n) => {
    button.classList.toggle("chosen", n === head);
    button.setAttribute("aria-pressed", n === head);
  });
  reveal(grid, grid.querySelectorAll("button")[head], grid.querySelector(".head").offsetHeight);
  show(null);
}
function cellAt(event) {
  const box = element("canvas").getBoundingClientRect(), { text } = state;
  const key = Math.floor((event.clientX - box.left - labels.left) / cell), query = Math.floor((event.clientY - box.top - labels.top) / cell);
  const inside = query >= 0 && key >= 0 && query < text.queries.length && key < (text.keys || text.queries).length;
  return inside ? { query, key, pair: true } : null;
}
function build() {
  const grid = element("grid");
  const add = (tag, names, words, column, row) => {
    const one = grid.appendChild(document.createElement(tag));
    one.className = names;
    one.textContent = words;
    one.style.gridArea = `${row} / ${column}`;
    return one;
  };
  add("span", "head", "layer \\ head", 1, 1);
  for (let n = 0; n < Math.max(...data.layers.map((layer) => layer.heads)); n++) add("span", "head", n, n + 2, 1);
  data.layers.forEach(({ name }, layer) => { add("span", "layer", name, 1, layer + 2).title = name; });
  heads.forEach(({ layer, head, name }, n) => {
    const button = add("button", "", "", head + 2, layer + 2);
    button.title = `layer ${name} head ${head}`;
    button.setAttribute("aria-label", button.title);
    button.appendChild(document.createElement("canvas"));
    button.onclick = () => choose(n);
    button.onpointerenter = () => show(n);
    button.onpointerleave = () => show(null);
  });
}
function counted(number, one, many = `${one}s`) { return `${number} ${number === 1 ? one : many}`; }
function open(text) {
  state.text = text;
  state.kept = state.place = null;
  const [queries, keys] = text.counts, blocks = [];
  if (text.block[0] > 1) blocks.push(text.keys ? `queries in blocks of ${text.block[0]}` : `in blocks of ${text.block[0]} tokens`);
  if (text.keys && text.block[1] > 1) blocks.push(`keys in blocks of ${text.block[1]}`);
  const sizes = text.keys ? `${counted(queries, "query", "queries")}, ${counted(keys, "key")}` : counted(queries, "token");
  const rule = blocks.length ? `, ${blocks.join(" and ")}: means over the queries of a block, sums over its keys` : "";
  element("summary").textContent = `${counted(heads.length, "head")} of ${counted(data.layers.length, "layer")}, ${sizes}${rule}. Colours show the square root of a weight.`;
  element("keys-strip").hidden = element("queries-title").hidden = !text.keys;
  element("queries-title").hidden = !text.keys;
  fill("queries", text.queries, (n) => ({ query: n, key: text.keys ? null : n }));
  if (text.keys) fill("keys", text.keys, (n) => ({ query: null, key: n }));
  drawThumbnails();
  choose(state.head);
}
element("canvas").onpointermove = (event) => point(cellAt(event));
element("canvas").onpointerleave = () => point(null);
element("canvas").onclick = (event) => { const place = cellAt(event); if (place) keep(place); };
document.onkeydown = (event) => {
  if (event.key === "Escape") { state.kept = null; point(null); }
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step || event.target.tagName === "SELECT") return;
  const { layer, head } = heads[state.head];
  const next = heads.findIndex((one) => one.layer === layer + step[0] && one.head === head + step[1]);
  if (next >= 0) choose(next);
  event.preventDefault();
};
element("choice").hidden = data.texts.length < 2;
data.texts.forEach(({ name }, n) => element("texts").add(new Option(name, n)));
element("texts").onchange = (event) => open(data.texts[event.target.value]);
const redraw = () => { drawThumbnails(); show(null); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", redraw); // a frame in a notebook may have no width yet when its page is read
build();
open(state.text);
