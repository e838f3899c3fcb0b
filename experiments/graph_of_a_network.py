"""Every operation of a network, as a page to click through, as a picture and as text for Graphviz.

    python experiments/graph_of_a_network.py
    python experiments/graph_of_a_network.py --model swin_t --level features.1.0
    python experiments/graph_of_a_network.py --model HuggingFaceTB/SmolLM2-135M --level model.layers.0

By default the script takes ResNet-18 with random weights and the small GPT that ships with toumei. For each
it writes a page with the histogram of every tensor, a picture of one level, and text for Graphviz.
Classifiers of torchvision have random weights; other names are causal language models, downloaded or folders.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common import SHIPPED, basic_parser, language_model, photograph, resized
from toumei.core import evaluating
from toumei.instrument import instrument
from toumei.models import facts_gpt
from toumei.plots import look, save_figure

LEVELS = {"resnet18": "layer2.0", "facts_gpt": "transformer.h.0"}
"""The modules that are drawn by default."""


@look()
def main(argv: Sequence[str] | None = None) -> list[Path]:
    options = parse_arguments(argv)
    names = [options.model] if options.model else list(LEVELS)
    return [path for name in names for path in write_graph(name, options)]


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, Path("outputs"), seed=0)
    parser.add_argument("--model", help="facts_gpt, a classifier of torchvision, or a causal language model")
    parser.add_argument("--level", help="the module of the picture; by default the whole model")
    parser.add_argument("--depth", type=int, default=2, help="levels of modules that are open in the picture")
    parser.add_argument("--prompt", default="The Eiffel Tower is in the city of", help="for language models")
    return parser.parse_args(argv)


def write_graph(name: str, options: argparse.Namespace) -> list[Path]:
    """Writes the page, the picture and the text of a network, and returns their paths."""
    torch.manual_seed(options.seed)
    model, inputs = loaded(name, options.prompt)
    with evaluating(model), torch.no_grad(), instrument(model) as probe, probe.track() as tracker:
        model(**inputs)
    graph = tracker.build_graph()
    print(graph)
    start = Path(options.out) / f"graph_{Path(name).name}"
    paths = [start.with_name(start.name + ending) for ending in (".html", ".png", ".dot")]
    started = time.perf_counter()
    graph.save_html(paths[0], tensors=tracker.build_map())
    seconds = time.perf_counter() - started
    axes = graph.plot(module=options.level or LEVELS.get(name, ""), depth=options.depth)
    figure = axes.get_figure(root=True)
    assert figure is not None
    save_figure(figure, paths[1])
    graph.save_dot(paths[2])
    print(f"{paths[0]} ({paths[0].stat().st_size / 1e6:.1f} MB, {seconds:.1f} s), {paths[1]}, {paths[2]}")
    return paths


def loaded(name: str, prompt: str) -> tuple[nn.Module, Mapping[str, Any]]:
    """A network and what it is run on."""
    import torchvision

    if name in torchvision.models.list_models(torchvision.models):
        return torchvision.models.get_model(name), {"x": resized(photograph(SHIPPED[0]), 224, 224)[None]}
    if name == "facts_gpt":
        model, tokenizer, world = facts_gpt()
        prompt = world.facts[0].text
    else:
        model, tokenizer = language_model(name)
    return model, {"input_ids": tokenizer(prompt, return_tensors="pt")["input_ids"]}


if __name__ == "__main__":
    main()
