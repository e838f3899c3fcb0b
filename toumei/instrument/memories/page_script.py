"""What the page of memories looks like and what it does when it is read."""

BODY = """
<div class="bar">
  <label>layer <select id="layer"></select></label>
  <label>neuron <input id="neuron" type="number" min="0" value="0"></label>
  <label>token <input id="token" placeholder="search a token"></label>
  <label>neurons by <select id="order">
    <option value="z">strongest trigger (z)</option>
    <option value="share">surest value</option>
    <option value="number">number</option>
  </select></label>
</div>
<!--heading-->
<h3 id="caption"></h3>
<div id="rates" class="rates"></div>
<div class="columns"><div id="list" class="list"></div><div id="detail"></div></div>
"""

STYLE = """
.bar { position: sticky; top: 0; background: var(--paper); padding: 8px 0; display: flex; flex-wrap: wrap;
  gap: 16px; border-bottom: 1px solid var(--line); margin-bottom: 12px; }
.bar input, .bar select { font: inherit; max-width: 260px; }
#neuron { width: 80px; }
.rates { display: flex; align-items: flex-end; gap: 3px; height: 90px; margin: 12px 0; }
.rates button { flex: 1; max-width: 46px; background: none; border: 0; padding: 0; color: inherit;
  font-size: 11px; cursor: pointer; }
.rates div { background: #0072B2; }
.rates .active div { background: #D55E00; }
.columns { display: grid; grid-template-columns: minmax(240px, 340px) 1fr; gap: 28px; align-items: start; }
.list { max-height: 75vh; overflow-y: auto; border: 1px solid var(--line); }
.list button { display: flex; width: 100%; gap: 8px; text-align: left; border: 0; background: none;
  font: inherit; color: inherit; padding: 2px 8px; cursor: pointer; }
.list button:hover, .list button.active { background: var(--chip); }
.list .id { flex: 0 0 72px; opacity: .7; }
.list p { margin: 6px 8px; }
.word { background: var(--chip); border-radius: 3px; padding: 0 4px; white-space: pre; }
table { border-collapse: collapse; }
td, th { padding: 2px 10px 2px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
mark { background: #F0E442; color: #000; white-space: pre-wrap; }
.after { opacity: .55; }
.words td:last-child { width: 220px; }
.words div { height: 9px; background: #009E73; }
@media (max-width: 760px) { .columns { grid-template-columns: 1fr; } .list { max-height: 30vh; } }
"""

SCRIPT = r"""
const at = name => document.getElementById(name);
const decode = (text, kind) => new kind(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
const INTEGERS = ["texts", "starts", "ends", "tokens", "following"], MOST = 300;
for (const layer of data.layers) {
  layer.mean = decode(layer.mean, Float32Array);
  layer.deviation = decode(layer.deviation, Float32Array);
  for (const tail of layer.tails) {
    for (const name of INTEGERS) tail[name] = decode(tail[name], Int32Array);
    tail.values = decode(tail.values, Float32Array);
    tail.z = decode(tail.z, Float32Array);
    if (tail.promoted) {
      tail.promoted.tokens = decode(tail.promoted.tokens, Int32Array);
      tail.promoted.shares = decode(tail.promoted.shares, Float32Array);
    }
  }
}
const characters = data.texts.map(() => null);  // a character can be two units of a string
const text = row => characters[row] ??= Array.from(data.texts[row]);
const word = token => data.vocabulary[token];

function node(name, content, kind) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (Array.isArray(content)) made.append(...content); else if (content != null) made.textContent = content;
  return made;
}
function agrees(tail, neuron) {
  const next = tail.following[neuron * tail.count];
  return next >= 0 && tail.promoted && tail.promoted.tokens[neuron * tail.promoted.count] === next;
}
function rate(layer) {
  const tail = layer.tails[0];
  let counted = 0, agreeing = 0;
  for (let neuron = 0; neuron < layer.neurons; neuron++) {
    counted += tail.following[neuron * tail.count] >= 0;
    agreeing += agrees(tail, neuron);
  }
  return counted ? agreeing / counted : 0;
}
const rates = data.layers.map(rate), highest = Math.max(...rates, 1e-9);

function showRates() {
  if (!data.layers[0].tails[0].promoted) return;
  at("caption").textContent = "Agreement rate of each layer";
  at("rates").replaceChildren(...rates.map((share, place) => {
    const bar = node("div");
    bar.style.height = `${Math.round(60 * share / highest)}px`;
    const made = node("button", [bar, node("span", place)], place === state.layer ? "active" : "");
    made.title = `${data.layers[place].name}: agreement rate ${(100 * share).toFixed(2)} %`;
    made.onclick = () => go(place, 0);
    return made;
  }));
}
function entry(place, neuron) {
  const tail = data.layers[place].tails[0], first = neuron * tail.count;
  const parts = [node("span", `${place}:${neuron}`, "id")];
  if (tail.texts[first] >= 0) parts.push(node("span", word(tail.tokens[first]), "word"));
  if (tail.promoted) {
    const token = tail.promoted.tokens[neuron * tail.promoted.count];
    parts.push(node("span", "\u2192"), node("span", word(token), "word"));
  }
  const made = node("button", parts, place === state.layer && neuron === state.neuron ? "active" : "");
  made.onclick = () => go(place, neuron, true);
  return made;
}
function ordered() {
  const layer = data.layers[state.layer], tail = layer.tails[0], by = at("order").value;
  const numbers = Array.from({length: layer.neurons}, (_, neuron) => neuron);
  const key = by === "z" ? n => tail.z[n * tail.count]
    : by === "share" && tail.promoted ? n => tail.promoted.shares[n * tail.promoted.count] : n => -n;
  return numbers.sort((a, b) => key(b) - key(a)).map(neuron => [state.layer, neuron]);
}
function found(wanted) {
  const tokens = new Set();
  data.vocabulary.forEach((one, token) => { if (one.trim().toLowerCase() === wanted) tokens.add(token); });
  const promoting = [], triggered = [];
  data.layers.forEach((layer, place) => {
    const tail = layer.tails[0], many = tail.promoted ? tail.promoted.count : 0;
    for (let neuron = 0; neuron < layer.neurons; neuron++) {
      const first = neuron * tail.count;
      if (tail.texts[first] >= 0 && tokens.has(tail.tokens[first])) triggered.push([place, neuron]);
      for (let rank = 0; rank < many; rank++) {
        const token = neuron * many + rank;
        if (tokens.has(tail.promoted.tokens[token])) {
          promoting.push([place, neuron, tail.promoted.shares[token]]);
          break;
        }
      }
    }
  });
  return [promoting.sort((a, b) => b[2] - a[2]), triggered];
}
function showList() {
  const wanted = at("token").value.trim().toLowerCase(), parts = [];
  const add = (title, neurons) => {
    const more = neurons.length > MOST ? `, the first ${MOST}` : "";
    parts.push(node("p", `${title}: ${neurons.length}${more}`));
    parts.push(...neurons.slice(0, MOST).map(([place, neuron]) => entry(place, neuron)));
  };
  if (wanted) {
    const [promoting, triggered] = found(wanted);
    add("promote it", promoting);
    add("most excited at it", triggered);
  } else add("neurons of the layer", ordered());
  at("list").replaceChildren(...parts);
}
function triggers(tail, neuron) {
  const rows = [node("tr", ["coefficient", "z", "text", "trigger"].map(name => node("th", name)))];
  for (let place = neuron * tail.count; place < (neuron + 1) * tail.count; place++) {
    const row = tail.texts[place];
    if (row < 0) continue;
    const all = text(row), cut = (from, to) => all.slice(from, to).join("");
    const covered = cut(tail.starts[place], tail.ends[place]), token = covered || word(tail.tokens[place]);
    const spaces = token.trim() ? token.length - token.trimStart().length : 0;  // some tokens are a space
    const content = [
      cut(0, tail.starts[place]) + token.slice(0, spaces), node("mark", token.slice(spaces)),
      node("span", cut(tail.ends[place]), "after"),
    ];
    rows.push(node("tr", [
      node("td", tail.values[place].toFixed(3), "number"), node("td", tail.z[place].toFixed(1), "number"),
      node("td", data.numbers[row], "number"), node("td", content),
    ]));
  }
  return node("table", rows);
}
function words(tail, neuron) {
  const many = tail.promoted.count, first = neuron * many, most = tail.promoted.shares[first];
  const rows = Array.from({length: many}, (_, rank) => {
    const share = tail.promoted.shares[first + rank], bar = node("div");
    bar.style.width = `${200 * share / most}px`;
    return node("tr", [
      node("td", [node("span", word(tail.promoted.tokens[first + rank]), "word")]),
      node("td", `${(100 * share).toPrecision(3)} %`, "number"), node("td", [bar]),
    ]);
  });
  return node("table", rows, "words");
}
function showDetail() {
  const layer = data.layers[state.layer], {neuron} = state, parts = [node("h2", `${layer.name} : ${neuron}`)];
  const spread = `${layer.mean[neuron].toFixed(3)} \u00b1 ${layer.deviation[neuron].toFixed(3)}`;
  parts.push(node("p", `coefficient ${spread} over all prefixes`));
  for (const tail of layer.tails) {
    const lowest = tail.name === "lowest";
    parts.push(node("h3", `${lowest ? "Lowest" : "Highest"} coefficients`), triggers(tail, neuron));
    if (!tail.promoted) continue;
    const note = agrees(tail, neuron) ? ": the first is what follows its strongest trigger" : "";
    parts.push(node("h3", `The ${lowest ? "negative " : ""}value promotes${note}`), words(tail, neuron));
  }
  at("detail").replaceChildren(...parts);
}
const state = {layer: 0, neuron: 0};
function go(layer, neuron, keep) {
  const wanted = Math.trunc(Number(neuron)) || 0;
  state.layer = layer;
  state.neuron = Math.min(Math.max(wanted, 0), data.layers[layer].neurons - 1);
  at("layer").value = layer;
  at("neuron").value = state.neuron;
  const scroll = at("list").scrollTop;
  showRates(); showList(); showDetail();
  if (keep) at("list").scrollTop = scroll;
}
data.layers.forEach((layer, place) => at("layer").append(new Option(`${place}  ${layer.name}`, place)));
at("layer").onchange = () => go(Number(at("layer").value), 0);
at("neuron").onchange = () => go(state.layer, at("neuron").value, true);
at("token").oninput = showList;
at("order").onchange = showList;
go(0, ordered()[0][1]);
"""
