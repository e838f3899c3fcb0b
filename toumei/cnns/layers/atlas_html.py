"""The page of an activation atlas: one file that needs no other, with the cell under the pointer enlarged."""

from collections.abc import Sequence
from string import Template

from torch import Tensor

from ... import plots

_SIDE = 720  # pixels of the map on the screen
_SHOWN = 3  # classes that are named for a cell


def atlas_page(
    title: str,
    summary: str,
    picture: Tensor,
    *,
    grid: int,
    cells: Tensor,
    counts: Tensor,
    attributions: Tensor,
    categories: Sequence[str],
) -> str:
    """Returns the HTML page of an atlas: the map, and next to it the cell under the pointer.

    The picture is inline, there is a hover area for each cell, and the name of a class highlights the cells
    that add most to it.

    Args:
        title: Title of the page.
        summary: The line below the title.
        picture: The map, (3, H, W).
        grid: Cells in a row and in a column.
        cells: Column and row of each cell, (cells, 2).
        counts: Activations in each cell, (cells,).
        attributions: What a cell adds to each logit, (cells, classes).
        categories: Names of the classes.
    """
    ranking = attributions.argsort(1, descending=True)[:, :_SHOWN].tolist()
    described = zip(cells.tolist(), counts.tolist(), ranking, strict=True)
    areas = [_area(column, row, count, classes) for (column, row), count, classes in described]
    present = sorted({classes[0] for classes in ranking if classes})
    names = [(index, plots.escaped(categories[index])) for index in present]
    legend = [f'<li data-class="{index}" tabindex="0">{name}</li>' for index, name in names]
    tall = round(_SIDE * picture.shape[1] / picture.shape[2])
    return plots.page(
        title,
        _BODY.substitute(cells="\n".join(areas), legend="\n".join(legend)),
        summary=summary,
        style=_STYLE.substitute(image=plots.data_uri(picture), grid=grid, side=_SIDE, tall=tall),
        script=_SCRIPT,
        data={"names": categories, "grid": grid},
    )


def _area(column: int, row: int, count: int, classes: list[int]) -> str:
    first = classes[0] if classes else -1
    return (
        f'<div class="cell" tabindex="0" style="--x:{column};--y:{row}" data-count="{count}" '
        f'data-class="{first}" data-classes="{" ".join(map(str, classes))}"></div>'
    )


_STYLE = Template("""
body { display: flex; flex-wrap: wrap; gap: 24px; }
.picture { background-image: url($image); background-repeat: no-repeat; }
#map { position: relative; width: ${side}px; height: ${tall}px; background-size: 100% 100%; }
.cell { position: absolute; width: calc(100% / $grid); height: calc(100% / $grid);
  left: calc(100% / $grid * var(--x)); top: calc(100% / $grid * var(--y)); }
.cell:hover, .cell:focus { outline: 3px solid #111; z-index: 1; }
.cell.faded { background: rgba(255, 255, 255, 0.85); }
#zoom { width: 240px; height: calc(240px * $tall / $side); border: 1px solid var(--line); margin: 12px 0;
  background-size: calc(100% * $grid) calc(100% * $grid); }
#zoom.empty { background-image: none; }
#text { min-height: 100px; white-space: pre-line; }
ul { list-style: none; margin: 0; padding: 0; max-width: 240px; max-height: 240px; overflow: auto; }
li { display: inline-block; margin: 0 6px 6px 0; padding: 0 8px; background: var(--chip);
  border-radius: 9px; }
li:hover, li:focus { background: var(--chip-active); }
""")

_BODY = Template("""<div id="map" class="picture">
$cells
</div>
<div>
<!--heading-->
<div id="zoom" class="picture empty"></div>
<div id="text">Point at a cell.</div>
<ul>
$legend
</ul>
</div>""")

_SCRIPT = """const names = data.names, grid = data.grid;
const zoom = document.getElementById("zoom"), text = document.getElementById("text");
const cells = document.querySelectorAll(".cell");
const percent = (index) => (grid > 1 ? (100 * index) / (grid - 1) : 0) + "%";
function on(element, events, action) {
  for (const event of events) element.addEventListener(event, action);
}
for (const cell of cells) {
  on(cell, ["mouseenter", "focus"], () => {
    const at = (axis) => Number(cell.style.getPropertyValue(axis));
    zoom.classList.remove("empty");
    zoom.style.backgroundPosition = percent(at("--x")) + " " + percent(at("--y"));
    const classes = cell.dataset.classes ? cell.dataset.classes.split(" ") : [];
    const speaks = classes.length ? "\\nspeaks for: " + classes.map((index) => names[index]).join(", ") : "";
    text.textContent = "mean of " + cell.dataset.count + " activations" + speaks;
  });
}
for (const item of document.querySelectorAll("li")) {
  const fade = (yes) => cells.forEach((cell) =>
    cell.classList.toggle("faded", yes && cell.dataset.class !== item.dataset.class));
  on(item, ["mouseenter", "focus"], () => fade(true));
  on(item, ["mouseleave", "blur"], () => fade(false));
}"""
