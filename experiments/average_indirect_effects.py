"""Which states carry facts, averaged over many of them, by the role of the token.

    python experiments/average_indirect_effects.py
    python experiments/average_indirect_effects.py --model gpt2-xl --facts known_1000.json --device cuda

Traces many facts (Meng et al., 2022, section 2.2 and figure 7). The figure
outputs/average_indirect_effects.png shows the average indirect effects of hidden states, MLPs and attentions
over the layers, with a line and a 95 % confidence interval for each role of a token. By default the facts are
those of the small GPT that ships with toumei. Finished facts are kept in outputs/, so a run that was killed
continues where it was.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from common import basic_parser, language_model
from toumei.models import facts_gpt
from toumei.plots import look, save_figure
from toumei.transformers import AverageEffects, CausalTracer
from toumei.transformers.model import ROLES
from toumei.transformers.rome.tracing import Kind

KINDS: tuple[Kind, ...] = ("hidden", "mlp", "attn")


@look()
def main(argv: Sequence[str] | None = None) -> dict[Kind, AverageEffects]:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, tokenizer, facts = loaded(options)
    tracer = CausalTracer(model, tokenizer)
    out = Path(options.out)
    settings: dict[str, Any] = {
        "window": options.window or max(1, tracer.parts.layers // 5),
        "samples": options.samples,
        "jobs": options.jobs,
        "verbose": True,
    }
    averages = {
        kind: tracer.trace_many(facts, kind=kind, folder=out.with_suffix("") / kind, **settings)
        for kind in KINDS
    }
    figure = Figure(figsize=(13, 3.6), dpi=130, layout="constrained")
    for number, (average, axes) in enumerate(
        zip(averages.values(), figure.subplots(1, 3, sharey=True), strict=True)
    ):
        average.plot(axes)
        axes.label_outer()
        axes.get_legend().set_visible(number == 1)  # where the curves leave room
        average.save(out.with_name(f"{out.stem}_{average.kind}.safetensors"))
    save_figure(figure, out)
    for average in averages.values():
        report(average)
    print(f"{out}, {time.perf_counter() - started:.0f} s")
    return averages


def report(average: AverageEffects) -> None:
    """Prints where the effects are largest."""
    print(average)
    for role, mean, width in zip(ROLES, average.mean, average.half_width, strict=True):
        if not mean.isnan().all():
            layer = int(mean.argmax())
            print(f"  {role:22} most in layer {layer}: {mean[layer]:.3f} +- {width[layer]:.3f}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, "outputs/average_indirect_effects.png", device="cpu"
    )
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument("--network", help="other weights of the small GPT, from train_facts_gpt.py")
    parser.add_argument("--facts", help="a JSON list of facts with prompt, subject and attribute")
    parser.add_argument("--count", type=int, default=60, help="how many facts, drawn at random")
    parser.add_argument("--window", type=int, help="layers restored together; by default a fifth of all")
    parser.add_argument("--samples", type=int, default=10, help="samples of noise")
    parser.add_argument("--jobs", type=int, default=1, help="facts traced at once")
    options = parser.parse_args(argv)
    if options.model and not options.facts:
        parser.error("--model needs --facts")
    return options


def loaded(options: argparse.Namespace) -> tuple[Any, Any, list[Any]]:
    """The model, its tokenizer and the facts."""
    model: Any
    tokenizer: Any
    facts: list[Any]
    if options.model is None:
        model, tokenizer, world = facts_gpt(options.network or True)
        facts = list(world.facts)
    else:
        model, tokenizer = language_model(options.model)
    if options.facts:
        facts = json.loads(Path(options.facts).read_text(encoding="utf-8"))
    chosen = random.Random(0).sample(facts, min(options.count, len(facts)))
    return model.to(options.device), tokenizer, chosen


if __name__ == "__main__":
    main()
