"""Which areas of a network two kinds of text activate, layer by layer (LLM-MRI).

    python experiments/activation_areas.py
    python experiments/activation_areas.py --model distilbert-base-uncased --texts stories.txt articles.txt

The states of all texts in a layer are reduced to a map of N x N cells, and the cells of neighbouring layers
are joined by the texts that lie in both. The figure outputs/activation_areas.png shows the maps of both kinds
in three layers, the graph of both, how far apart their maps are, against shuffled kinds, and how well a
classifier tells the kinds apart. By default the network is the small GPT that ships with toumei, and the
texts ask in six ways where people live: the answer is one city for the first kind, another for the second,
and no word of a text says which. A group is one person. Any other network is downloaded; its texts are files
with one on each line.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from common import basic_parser, texts_in
from toumei.models import facts_gpt
from toumei.plots import look, save_figure
from toumei.transformers.areas import ActivationAreas, AreaComparison, AreaEvaluation, plot_graph


class Findings(NamedTuple):
    """What the experiment found."""

    areas: ActivationAreas
    comparison: AreaComparison
    evaluation: AreaEvaluation


@look()
def main(argv: Sequence[str] | None = None) -> Findings:
    options = parse_arguments(argv)
    started = time.perf_counter()
    areas = loaded(options)
    print(areas.process_activation_areas(), end="\n\n")
    first, second = areas.class_names
    comparison = areas.compare(first, second, options.permutations, options.seed)
    found = Findings(areas, comparison, areas.evaluate(seed=options.seed))
    print(found.comparison, found.evaluation, sep="\n\n")
    save_figure(drawn(found), options.out)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return found


def drawn(found: Findings) -> Figure:
    """The figure with all that was found."""
    areas, categories = found.areas.areas, found.areas.class_names
    layers = dict.fromkeys((1, len(areas.layers) // 2, len(areas.layers) - 1))
    figure = Figure(figsize=(14, 14), dpi=110, layout="constrained")
    maps, graph, curves = figure.subfigures(3, 1, height_ratios=(2, 1.4, 1))
    places = maps.subplots(2, len(layers), squeeze=False)
    for row, category in zip(places, categories, strict=True):
        for ax, layer in zip(row, layers, strict=True):
            areas.plot(layer, category, ax)
    plot_graph(found.areas.get_composed_graph(*categories), ax=graph.subplots())
    distances, accuracies = curves.subplots(1, 2)
    found.comparison.plot(distances)
    found.evaluation.plot(accuracies)
    return figure


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = basic_parser(__doc__, "outputs/activation_areas.png", seed=0, device="cpu")
    parser.add_argument("--model", help="a transformer to download, encoder or decoder, or a folder with one")
    parser.add_argument("--texts", nargs=2, help="two files with a text on each line")
    parser.add_argument("--count", type=int, default=500, help="most texts of each kind")
    parser.add_argument("--size", type=int, default=10, help="cells in a row of a map")
    parser.add_argument("--reduction", default="pca", help="pca, svd or umap")
    parser.add_argument("--bins", default="width", help="width or quantile")
    parser.add_argument("--pooling", help="last, mean or first")
    parser.add_argument("--permutations", type=int, default=999, help="shuffles of the kinds")
    options = parser.parse_args(argv)
    if bool(options.model) != bool(options.texts):
        parser.error("--model and --texts belong together")
    return options


def loaded(options: argparse.Namespace) -> ActivationAreas:
    """The areas of the network, before they are read."""
    settings: dict[str, Any] = {
        "map_dimension": options.size,
        "reduction": options.reduction,
        "bins": options.bins,
        "pooling": options.pooling,
    }
    if options.model is None:
        model, tokenizer, world = facts_gpt()
        texts, labels, people = answers(world, options.count)
        model = model.to(options.device)
        return ActivationAreas(model, texts, labels, tokenizer=tokenizer, groups=people, **settings)
    kinds = {Path(path).stem: texts_in(path)[: options.count] for path in options.texts}
    texts = [text for several in kinds.values() for text in several]
    labels = [name for name, several in kinds.items() for _ in several]
    return ActivationAreas(options.model, texts, labels, device=options.device, **settings)


def answers(world: Any, count: int) -> tuple[list[str], list[str], list[str]]:
    """Prompts whose answers are the two most frequent cities, the answers, and who is asked about."""
    facts = [fact for fact in world.facts if fact.relation == "residence"]
    cities = [city for city, _ in Counter(fact.target for fact in facts).most_common(2)]
    rows = []
    for city in cities:
        asked = [
            (prompt, city, fact.subject)
            for fact in facts
            if fact.target == city
            for prompt in (*(one.format(fact.subject) for one in fact.phrasings), *fact.paraphrases)
        ]
        rows += asked[:count]
    texts, labels, people = map(list, zip(*rows, strict=True))
    return texts, labels, people


if __name__ == "__main__":
    main()
