"""Which heads repeat what came before: scores, ablation, and the path from one head to the other.

    python experiments/induction_heads.py
    python experiments/induction_heads.py --model HuggingFaceTB/SmolLM2-135M --low 1000 --high 40000

Random tokens twice: in the second half a model can know each next token from the first half alone. The figure
outputs/induction_heads.png shows which heads attend to the token after the earlier occurrence (Olsson et al.,
2022, arXiv:2209.11895), which ones attend to the previous token, what the loss gains when each head is
ablated, and through which heads the keys of the strongest induction head are made. By default the network is
the wired transformer that ships with toumei, whose circuit is known: head 0.0 and head 1.0.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from common import basic_parser, language_model
from toumei.core.errors import ArgumentError
from toumei.models import InductionTransformer
from toumei.plots import look, save_figure
from toumei.transformers import (
    HookedModel,
    PatchingResult,
    head_ablation,
    head_scores,
    logit_difference,
    path_patching,
    repeated_tokens,
)


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, tokens = loaded(options)
    _, cache = model.run_with_cache(tokens, "pattern")
    layers = sorted(model.points.attentions)
    scores = head_scores([cache["pattern", layer].detach() for layer in layers], tokens)
    costs = head_ablation(model, tokens, verbose=True)
    layer, head = (int(part) for part in scores.top("induction", 1)[0][0].split("."))
    paths = paths_to(model, tokens, layers[layer], head)
    for result in (scores, costs, paths):
        print(result, end="\n\n")
    figure = Figure(figsize=(12, 2.5 + 0.35 * len(layers)), dpi=130, layout="constrained")
    places = figure.subplots(1, 4)
    scores.plot("previous", places[0])
    places[0].set_title("attention to the previous token")
    scores.plot("induction", places[1])
    places[1].set_title("attention to what came next")
    costs.plot(places[2])
    if isinstance(paths, PatchingResult):
        paths.plot(places[3])
        places[3].set_title(f"paths to the keys of {layers[layer]}.{head}")
    else:
        places[3].set_axis_off()
    save_figure(figure, options.out)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


def paths_to(model: HookedModel, tokens: Tensor, layer: int, head: int) -> PatchingResult | str:
    """Through which heads the keys of a head are made, when it predicts the middle of the second half.

    In the corrupt sequences a new token stands before the one to predict, in the first half only.

    Returns:
        The effects, or why there are none: a model that does not repeat says the same in both.
    """
    length = tokens.shape[1] // 2
    end = tokens.shape[1] - length // 2  # the last token that is seen; its successor is known
    clean, corrupt = tokens[:, :end], tokens[:, :end].clone()
    earlier = end - 1 - length
    for row, given in zip(corrupt, tokens.tolist(), strict=True):
        row[earlier] = next((token for token in tokens.flatten().tolist() if token not in given), given[1])
    wrong = tokens[:, length]  # it occurs once, as the right one
    attention = model.points.attentions[layer]
    shared = attention.num_heads // attention.num_key_value_heads
    metric = logit_difference(tokens[:, end], wrong)
    try:
        return path_patching(model, clean, corrupt, metric, [(layer, head // shared, "k")], mlps="free")
    except ArgumentError as error:
        return str(error)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, "outputs/induction_heads.png", seed=0, device="cpu"
    )
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument("--count", type=int, default=8, help="sequences")
    parser.add_argument("--length", type=int, default=20, help="tokens that are repeated")
    parser.add_argument("--low", type=int, default=100, help="with --model: the smallest token to draw")
    parser.add_argument("--high", type=int, help="with --model: the first token that is not drawn any more")
    return parser.parse_args(argv)


def loaded(options: argparse.Namespace) -> tuple[HookedModel, Tensor]:
    """The model, and sequences of random tokens that repeat after a beginning token."""
    if options.model is None:
        network = InductionTransformer().to(options.device)
        return HookedModel(network), network.sequences(options.count, options.length, options.seed)
    model, tokenizer = language_model(options.model)
    high = options.high or len(tokenizer)
    bos = tokenizer.bos_token_id
    tokens = repeated_tokens(
        options.count, options.length, options.low, high, bos=0 if bos is None else bos, seed=options.seed
    )
    return HookedModel(model.to(options.device).eval(), tokenizer), tokens


if __name__ == "__main__":
    main()
