"""Where a language model finds a fact: states, MLPs and attentions that restore the answer.

    python experiments/causal_tracing.py
    python experiments/causal_tracing.py --fact 100 --severed
    python experiments/causal_tracing.py --model gpt2-xl --prompt "The Needle is in" --subject "The Needle"

Noise corrupts the subject, so the model loses the fact. Then states of single tokens and layers are restored
(Meng et al., 2022, figure 1). By default the script traces a fact of the small GPT that ships with toumei. It
writes three heat maps to outputs/causal_tracing.png. Any other causal language model is downloaded.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from common import basic_parser, language_model
from toumei.models import facts_gpt
from toumei.plots import color_limits, look, save_figure
from toumei.transformers import CausalTracer


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, tokenizer, prompt, subject = loaded(options)
    tracer = CausalTracer(model, tokenizer)
    window = options.window or max(1, tracer.parts.layers // 5)
    settings: dict[str, Any] = {"samples": options.samples, "window": window, "verbose": True}
    if options.severed:
        panels: list[dict[str, Any]] = [{}, {"sever": "mlp"}, {"sever": "attn"}]
    else:
        panels = [{}, {"kind": "mlp"}, {"kind": "attn"}]
    traces = [tracer.trace(prompt, subject, **settings, **panel) for panel in panels]
    for trace in traces:
        print(trace)
    width = 3.2 + 0.16 * tracer.parts.layers
    figure = Figure(figsize=(3 * width, 1.5 + 0.25 * len(traces[0].tokens)), dpi=130, layout="constrained")
    low = traces[0].low
    limits = color_limits([trace.scores for trace in traces], low)
    for trace, axes in zip(traces, figure.subplots(1, 3), strict=True):
        trace.plot(axes, limits)
    figure.suptitle(
        f"{prompt.replace('{}', subject)}: the answer's probability with the subject (*) corrupted and one "
        f"place restored\nwhite: as without restoring ({low:.2f}), gray: below, darkest: most is recovered"
    )
    save_figure(figure, options.out)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/causal_tracing.png", device="cpu")
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument("--prompt", help="a text whose next word is the answer")
    parser.add_argument("--subject", help="the words of the prompt to corrupt")
    parser.add_argument("--fact", type=int, default=0, help="which fact of the model that ships with toumei")
    parser.add_argument(
        "--severed", action="store_true", help="hidden states with MLPs or attentions severed"
    )
    parser.add_argument("--window", type=int, help="layers restored together; by default a fifth of all")
    parser.add_argument("--samples", type=int, default=10, help="samples of noise")
    options = parser.parse_args(argv)
    if (options.model or options.prompt) and not (options.prompt and options.subject):
        parser.error("--model and --prompt need both --prompt and --subject")
    return options


def loaded(options: argparse.Namespace) -> tuple[Any, Any, str, str]:
    """The model, its tokenizer, the prompt and the subject in it."""
    if options.model is None:
        model, tokenizer, world = facts_gpt()
        fact = world.facts[options.fact]
        prompt, subject = options.prompt or fact.text, options.subject or fact.subject
        return model.to(options.device), tokenizer, prompt, subject
    model, tokenizer = language_model(options.model)
    return model.to(options.device), tokenizer, options.prompt, options.subject


if __name__ == "__main__":
    main()
