// The items of the graph, and where everything stands: as in arrangement.py.
const S = data.sizes;
const items = data.items.map(([title, below, path, type, op, first, count, repeats, width, header], id) =>
  ({ id, title, below, path, type, op, repeats, width, header, parent: null, level: data.levels[id],
     children: Array.from({ length: count }, (_, n) => first + n), open: false, frame: null }));
for (const item of items) for (const child of item.children) items[child].parent = item;
const root = items[0];
const ops = data.ops.map(([name, fn, module, kind, inPlace, source, seconds, nbytes, inputs, outputs, views, text, value], id) =>
  ({ id, name, fn, module, kind, inPlace, source: data.sources[source], seconds, nbytes, inputs, outputs, views,
     text, value, item: null }));
const tensors = data.tensors.map(([name, kind, shape, dtype, device, nbytes], id) =>
  ({ id, name, kind, shape, dtype, device, nbytes, producer: null, takers: [] }));
for (const item of items) if (item.op >= 0) ops[item.op].item = item;
for (const op of ops) {
  for (const id of op.inputs) tensors[id].takers.push(op);
  for (const id of [...op.outputs, ...op.views]) tensors[id].producer = op;
}
items.reduceRight((_, item) => {  // sums of what is inside, children come after their parents
  const inside = item.children.map((child) => items[child]), op = ops[item.op];
  item.seconds = op ? op.seconds : inside.reduce((sum, one) => sum + one.seconds, 0);
  item.nbytes = op ? op.nbytes : inside.reduce((sum, one) => sum + one.nbytes, 0);
  item.count = op ? 1 : inside.reduce((sum, one) => sum + one.count, 0);
}, null);

const isChild = (level, node) => node >= level.first && node < level.first + level.count;
function cells(level, start, end) {
  const found = [];
  for (let row = level.rows[start] + 1; row < level.rows[end]; row++) {
    const column = level.bends[start][row];
    if (column !== undefined) found.push([row, column]);
  }
  return found;
}
function prepare(item) {
  const [sources, edges, leaves, rows, columns, bends, ports, names, widths] = item.level;
  const level = { sources, rows, columns, ports, names, widths, first: ports.length, count: item.children.length,
    size: rows.length, leaves, bends: bends.map((flat) => {
      const found = {};
      for (let n = 0; n < flat.length; n += 2) found[flat[n]] = flat[n + 1];
      return found;
    }) };
  level.edges = edges.map(([start, end, carried]) =>
    ({ start, end, tensors: carried, cells: cells(level, start, end) }));
  item.level = level;
}
function frame(item) {
  if (item.frame) return item.frame;
  if (Array.isArray(item.level)) prepare(item);
  const level = item.level, outermost = item === root, isEnd = (node) => !isChild(level, node);
  const inner = item.children.map((id) => (items[id].open ? frame(items[id]) : null));
  const sizes = level.rows.map((_, node) => {
    if (isEnd(node)) {
      const width = outermost ? level.widths[node < level.first ? node : level.first] : 0;
      return [width, outermost ? S.end : 0, width / 2];
    }
    const inside = inner[node - level.first], width = items[item.children[node - level.first]].width;
    return inside ? [inside.width, inside.height, inside.anchor] : [width, S.height, width / 2];
  });
  const { rows, columns } = level, left = [], right = [];
  const reserve = (column, before, after) => {
    while (left.length <= column) { left.push(S.lane); right.push(S.lane); }
    left[column] = Math.max(left[column], before);
    right[column] = Math.max(right[column], after);
  };
  columns.forEach((column, node) => {
    const [width, , anchor] = sizes[node];
    reserve(column, width ? anchor + S.margin : 0, width ? width - anchor + S.margin : 0);
  });
  for (const bends of level.bends) for (const column of Object.values(bends)) reserve(column, 0, 0);
  const needed = left.reduce((sum, one, n) => sum + one + right[n], 0), width = Math.max(needed, item.header - S.padding);
  let edge = S.padding + (width - needed) / 2;
  const centre = left.map((before, n) => { edge += before + right[n]; return edge - right[n]; });
  const heights = Array(Math.max(-1, ...rows) + 1).fill(0), bent = heights.slice();
  rows.forEach((row, node) => { heights[row] = Math.max(heights[row], sizes[node][1]); });
  for (const one of level.edges) {
    let before = columns[one.start];
    for (const [row, column] of [...one.cells, [rows[one.end], columns[one.end]]]) {
      bent[row] += column !== before;
      before = column;
    }
  }
  if (level.first && !outermost) heights[0] = S.header;
  let y = level.first ? 0 : S.header;
  const top = [], bottom = [];
  heights.forEach((height, row) => {
    if (row) y += Math.min(S.gap + S.bend * bent[row], S.most);
    top.push(y);
    y += height;
    bottom.push(y);
  });
  const x = columns.map((column) => centre[column]), last = level.size - 1;
  const result = { width: width + 2 * S.padding, height: y + (level.leaves ? 0 : S.padding), ports: {}, inner,
    anchor: level.leaves ? x[last] : x.length ? x[0] : width / 2 + S.padding, sizes,
    corners: x.map((at, node) => [at - sizes[node][2], top[rows[node]]]) };
  for (let port = 0; port < level.first; port++) result.ports[level.sources.length ? level.sources[port] : port] = x[port];
  const enters = entries(level, result, inner);
  result.edges = level.edges.map((one, n) => {
    const row = rows[one.start], points = [[x[one.start], top[row] + sizes[one.start][1]], [x[one.start], bottom[row]]];
    for (const [at, column] of one.cells) points.push([centre[column], top[at]], [centre[column], bottom[at]]);
    points.push([x[one.end] + enters[n], top[rows[one.end]]]);
    return points;
  });
  return (item.frame = result);
}
function entries(level, result, inner) {
  const entering = {}, found = Array(level.edges.length).fill(0);
  level.edges.forEach((one, n) => {
    const column = one.cells.length ? one.cells[one.cells.length - 1][1] : level.columns[one.start];
    (entering[one.end] ??= []).push([column, one.start, n]);
  });
  for (const [key, edges] of Object.entries(entering)) {
    const end = Number(key), inside = isChild(level, end) ? inner[end - level.first] : null;
    if (inside) {
      for (const [, start, n] of edges) found[n] = inside.ports[start] - inside.anchor;
      continue;
    }
    edges.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
    const step = Math.min(S.step, Math.max(result.sizes[end][0] / 2 - 8, 0) / edges.length);
    const before = edges.filter(([column]) => column < level.columns[end]);
    const after = edges.filter(([column]) => column > level.columns[end]);
    before.forEach(([, , n], k) => { found[n] = step * (k - before.length); });
    after.forEach(([, , n], k) => { found[n] = step * (k + 1); });
  }
  return found;
}

