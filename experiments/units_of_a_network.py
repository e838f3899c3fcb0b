"""A page with a picture of every unit of three layers, beside the images that excite it most.

    python experiments/units_of_a_network.py
    python experiments/units_of_a_network.py --jobs 2 --limit 16
    python experiments/units_of_a_network.py --model resnet18 --weights DEFAULT --images photographs --jobs -1

By default it looks into all units of three layers of `ShapesCNN`. Pictures are optimized in batches of 16,
several batches at once with --jobs, and kept beside the page: a run that was killed goes on where it was. On
a cluster, start it inside of `joblib.parallel_config("dask")` (docs/cluster.md). The page,
outputs/units_of_a_network.html, is written after each layer. A click on a unit enlarges it.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feature_viz import BEST, Subject, exciting_images, looked_into, responses
from torch import Tensor

from common import add_network, basic_parser
from toumei.cnns import unit_pictures
from toumei.plots import data_uri, montage, page, save_page

STYLE = """
nav { position: sticky; top: 0; background: var(--paper); padding: 10px 0; display: flex; gap: 8px;
  flex-wrap: wrap; align-items: center; }
nav button, nav select, nav input { font: inherit; color: inherit; background: var(--chip); padding: 3px 10px;
  border: 1px solid var(--line); border-radius: 6px; }
nav button.on { background: var(--chip-active); font-weight: 600; }
#units { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 12px; }
figure { margin: 0; padding: 8px; border: 1px solid var(--line); border-radius: 8px; cursor: zoom-in; }
figure > div { display: flex; gap: 8px; height: 104px; }
figure img { display: block; height: 104px; image-rendering: auto; border-radius: 4px; }
figcaption { font-size: 13px; margin-top: 6px; display: flex; justify-content: space-between; }
figcaption span { opacity: 0.7; }
dialog { border: 1px solid var(--line); border-radius: 10px; background: var(--paper); color: var(--ink); }
dialog figure { border: 0; cursor: zoom-out; }
dialog figure > div, dialog figure img { height: min(60vh, 26vw); }
dialog::backdrop { background: rgba(0, 0, 0, 0.6); }
"""

SCRIPT = """
const grid = document.getElementById("units"), large = document.querySelector("dialog");
const order = document.querySelector("select"), search = document.querySelector("input");
const buttons = [...document.querySelectorAll("nav button")];
let layer = "";
function figure(unit) {
  const one = document.createElement("figure"), row = document.createElement("div");
  const images = [[unit.picture, "optimized for "], [unit.images, "images that excite "]];
  for (const [src, words] of images) {
    const title = words + unit.name;
    if (src) row.append(Object.assign(new Image(), {src, title, alt: title}));
  }
  const words = document.createElement("figcaption"), name = document.createElement("b");
  const number = document.createElement("span");
  name.textContent = unit.name;
  number.textContent = unit.contrast === null ? "" : "stands out by " + unit.contrast.toFixed(1);
  words.append(name, number);
  one.append(row, words);
  return one;
}
function show() {
  const text = search.value.trim();
  const chosen = data.filter(unit => (!layer || unit.layer === layer) && unit.name.includes(text));
  if (order.value === "contrast") chosen.sort((a, b) => b.contrast - a.contrast);
  grid.replaceChildren(...chosen.map(unit => {
    const one = figure(unit);
    one.onclick = () => { large.replaceChildren(figure(unit)); large.showModal(); };
    return one;
  }));
  document.getElementById("count").textContent = chosen.length + " units";
}
for (const button of buttons) button.onclick = () => {
  layer = button.value;
  buttons.forEach(each => each.classList.toggle("on", each === button));
  show();
};
large.onclick = () => large.close();
order.onchange = search.oninput = show;
buttons[0].click();
"""


def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    subject, out = looked_into(options), Path(options.out)
    units: list[dict[str, Any]] = []
    for layer, size in subject.layers.items():
        found = unit_pictures(
            subject.model,
            layer,
            None if options.limit is None else range(options.limit),
            objective=subject.objective,
            size=size,
            steps=options.steps,
            tv_loss=subject.smoothness,
            views=subject.views(size),
            preprocess=subject.preprocess,
            seed=options.seed,
            jobs=options.jobs,
            folder=out.with_suffix(""),
        )
        units += [card(subject, unit, image) for unit, image in zip(found.titles, found.images, strict=True)]
        save_page(gallery(type(subject.model).__name__, units), out)
        print(f"{layer}: {found}")
    print(f"{len(units)} units in {out}, {time.perf_counter() - started:.0f} s")
    return out


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, "outputs/units_of_a_network.html", steps=128, seed=0, device="auto"
    )
    add_network(parser, "inception5h")
    parser.add_argument("--images", help="a folder of images to show beside the pictures")
    parser.add_argument("--size", type=int, help="height and width of the pictures")
    parser.add_argument("--limit", type=int, help="only so many units of each layer")
    parser.add_argument("--jobs", type=int, default=1, help="batches of units at once; -1 for one a core")
    options = parser.parse_args(argv)
    if Path(options.out).is_dir():
        parser.error(f"--out is the file of the page, and {options.out} is a folder")
    return options


def card(subject: Subject, unit: str, image: Tensor) -> dict[str, Any]:
    """What the page shows of a unit."""
    layer, channel = unit.rsplit(":", 1)
    shown: dict[str, Any] = {"name": unit, "layer": layer, "picture": data_uri(image)}
    if subject.images is None:
        return shown | {"images": None, "contrast": None}
    response = responses(subject, layer)[0][:, int(channel)]
    best = response.topk(min(BEST, len(response))).values
    contrast = (best.mean() - response.mean()) / response.std().clamp(min=1e-6)
    images = montage(exciting_images(subject, unit), columns=3, gap=2)
    return shown | {"images": data_uri(images), "contrast": float(contrast)}


def gallery(network: str, units: Sequence[dict[str, Any]]) -> str:
    """The page."""
    layers = list(dict.fromkeys(unit["layer"] for unit in units))
    buttons = "".join(f'<button value="{layer}">{layer}</button>' for layer in layers)
    body = (
        f'<!--heading--><nav><button value="">all</button>{buttons}'
        f'<select><option value="">by channel</option>'
        f'<option value="contrast">by how much they stand out</option></select>'
        f'<input placeholder="find, such as {units[0]["name"]}"><span id="count"></span></nav>'
        f'<div id="units"></div><dialog></dialog>'
    )
    summary = (
        "Left: the picture optimized for the unit. Right: the images that excite it most, and how far they "
        "are above the mean of all images, in standard deviations."
    )
    if units[0]["images"] is None:
        summary = "The picture optimized for each unit."
    return page(
        f"What {len(units)} units of {network} look for",
        body,
        summary=summary,
        style=STYLE,
        script=SCRIPT,
        data=list(units),
    )


if __name__ == "__main__":
    main()
