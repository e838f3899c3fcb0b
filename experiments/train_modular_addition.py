"""Trains a network like the one that ships with toumei, `ModularAddition(pretrained=True)`, from a seed.

    python experiments/train_modular_addition.py

The recipe of Nanda et al. 2023 ("Progress measures for grokking via mechanistic interpretability",
arXiv:2301.05217): AdamW with a rate of 1e-3 and a weight decay of 1, all of 30 % of the pairs in each step.
The network knows these pairs by heart after 500 steps, and the rest of them after 8,500, when the weight
decay has left only the algorithm. At the end it is checked that the saved weights, in half precision, have
that algorithm: they are right on all pairs, a few frequencies hold the embedding and the map from neurons to
logits, and the logits are sums of cosines of these frequencies.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from common import basic_parser
from toumei.core import seeded
from toumei.models import ModularAddition

SHARE = 0.3  # of the pairs, in the training
KEY = 0.02  # smallest share of the embedding's variance at a key frequency


class Algorithm(NamedTuple):
    """What the trained network computes.

    Attributes:
        accuracy: On all pairs.
        frequencies: The key frequencies, the strongest in the embedding first.
        embedding: The share of the embedding's variance at these frequencies.
        neurons: The share of the variance of the map from neurons to logits.
        logits: The share of the variance of the logits that cosines of (a + b - c) explain.
    """

    accuracy: float
    frequencies: tuple[int, ...]
    embedding: float
    neurons: float
    logits: float


def main(argv: Sequence[str] | None = None) -> Algorithm:
    """Trains, saves the weights, prints and returns what was learned."""
    args = _arguments(argv)
    started = time.perf_counter()
    torch.set_flush_denormal(True)  # the gradients of tiny losses are so small that processors are slow
    with seeded(args.seed):
        model = train(args.prime, args.steps, args.report)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, args.out)
    found = algorithm(ModularAddition(args.out, args.prime))
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes; weights in {args.out}")
    print(
        f"{found.accuracy:.2%} of all pairs right; key frequencies {', '.join(map(str, found.frequencies))}"
    )
    print(f"they hold {found.embedding:.1%} of the embedding and {found.neurons:.1%} of the neuron-logit map")
    print(f"cosines of a + b - c at these frequencies explain {found.logits:.1%} of the logits")
    return found


def train(prime: int, steps: int, report: int) -> ModularAddition:
    """A network that was trained on 30 % of the pairs, drawn from torch's generator as the weights are."""
    model = ModularAddition(prime=prime).train()
    tokens, sums = model.pairs()
    order = torch.randperm(len(sums))
    chosen, others = order[: int(SHARE * len(order))], order[int(SHARE * len(order)) :]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1.0, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 10, 1))
    for step in tqdm(range(steps), mininterval=5):
        # single precision would round small losses to 0
        loss = F.cross_entropy(answers(model, tokens[chosen]).double(), sums[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % report == 0:
            with torch.no_grad():
                right = (answers(model, tokens[others]).argmax(1) == sums[others]).float().mean()
            tqdm.write(f"{step + 1} steps, loss {loss.item():.2e}, {right:.1%} of the other pairs right")
    return model.eval()


def answers(model: ModularAddition, tokens: Tensor) -> Tensor:
    """The logits (N, p) at the last position, in a third of the time of a pass of the model.

    Queries, keys and values are computed once for each number and place, not for each pair, and the MLP only
    at the last position.
    """
    body = model.model
    layer: Any = body.layers[0]
    attention = layer.self_attn
    vectors = body.embed_tokens.weight[None] + body.embed_positions.weight[:, None]
    keys, values = (
        projection(vectors).unflatten(2, (-1, attention.head_dim))
        for projection in (attention.k_proj, attention.v_proj)
    )
    last = vectors[2, model.prime]
    query = attention.q_proj(last).unflatten(0, (-1, attention.head_dim))
    places = torch.arange(3)
    scores = (keys * query).sum(3)[places, tokens] * attention.head_dim**-0.5
    mixed = (scores.softmax(1)[..., None] * values[places, tokens]).sum(1)
    stream = last + attention.o_proj(mixed.flatten(1))
    result: Tensor = model.lm_head(stream + layer.mlp(stream))
    return result


@torch.no_grad()
def algorithm(model: ModularAddition) -> Algorithm:
    """What a trained network computes, checked against the algorithm of Nanda et al."""
    prime = model.prime
    tokens, sums = model.pairs()
    logits = model(tokens).logits[:, -1]
    power = spectrum(model.model.embed_tokens.weight[:prime])
    frequencies = [int(k) for k in power.argsort(descending=True) if power[k] > KEY]
    layer: Any = model.model.layers[0]
    to_logits = spectrum(model.lm_head.weight @ layer.mlp.down_proj.weight)
    return Algorithm(
        accuracy=float((logits.argmax(1) == sums).float().mean()),
        frequencies=tuple(frequencies),
        embedding=float(power[frequencies].sum()),
        neurons=float(to_logits[frequencies].sum()),
        logits=explained(logits, sums, frequencies),
    )


def spectrum(table: Tensor) -> Tensor:
    """The share of the variance of a table (p, width) at each frequency along its rows, (p // 2 + 1,)."""
    power = torch.fft.rfft(table.double() - table.double().mean(0), dim=0).abs().square().sum(1)
    result: Tensor = power / power.sum()
    return result


def explained(logits: Tensor, sums: Tensor, frequencies: Sequence[int]) -> float:
    """The share of the logits' variance that sum_k alpha_k cos(2 pi k (a + b - c) / p) explains.

    Args:
        logits: (N, p), whose mean over the answers does not count.
        sums: (N,) a + b modulo p.
        frequencies: The values of k.
    """
    prime = logits.shape[1]
    centred = (logits - logits.mean(1, keepdim=True)).double()
    differences = (sums[:, None] - torch.arange(prime)) % prime
    angles = torch.arange(prime).double()[:, None] * torch.tensor(frequencies) * 2 * torch.pi / prime
    waves = angles.cos()[differences].flatten(0, 1)
    rest = centred.flatten() - waves @ torch.linalg.lstsq(waves, centred.flatten()[:, None]).solution[:, 0]
    return float(1 - rest.square().sum() / centred.square().sum())


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(
        __doc__, Path("modular_addition.safetensors"), steps=11_200, seed=0
    )
    parser.add_argument("--prime", type=int, default=113, help="what sums are taken modulo")
    parser.add_argument("--report", type=int, default=200, help="steps between two reports")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
