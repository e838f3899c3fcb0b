"""Causal tracing against one forward pass for each cell, as in the paper's code, interleaved.

A prompt of 12 tokens whose first 5 are the subject, 10 samples of noise, random weights. Prints how many
times faster `CausalTracer.trace` is (medians of ratios, of seconds and of processor seconds; other work on
the machine disturbs the latter less). Expected: at least 5 for hidden states and 3 for windows of 10; on a
quiet AMD processor with AVX-512 and two cores 11 and 8, because rows of a batch are multiplied by oneDNN.
Prints the largest difference in probability (expected: at most 1e-6), and the ratios that counted operations
allow:

- sweep: without the layers and positions before the restored state, and the head for the last position only;
- last block: the same, with the last block computed for the last position only;
- windows: the same, with windows that begin together computed once, as toumei does.

On a CPU the plain strategy is timed on some of the cells, before and after each trace, and scaled up.

    python benchmarks/causal_tracing.py [--shape gpt2 llama] [--device cuda] [--json times.json]
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from toumei.transformers import Anatomy, CausalTracer

SHAPES: dict[str, Callable[[], PretrainedConfig]] = {
    "gpt2": GPT2Config,
    "llama": lambda: LlamaConfig(
        hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12
    ),
    "gpt2-xl": lambda: GPT2Config(n_embd=1600, n_layer=48, n_head=25),
}
KINDS = ["hidden", "mlp", "attn"]
LENGTH, SUBJECT, SAMPLES, WINDOW = 12, 5, 10, 10


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["gpt2", "llama"])
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--cells", type=int, help="cells a round for the plain strategy; default: 16, on a GPU all"
    )
    parser.add_argument("--batch-size", type=int, help="rows that toumei computes at once")
    parser.add_argument("--json", type=Path, help="a file to write the results to")
    options = parser.parse_args(argv)
    results = {}
    for shape in options.shape:
        torch.manual_seed(0)
        config = SHAPES[shape]()
        model = AutoModelForCausalLM.from_config(config).eval().to(options.device)
        tracer = CausalTracer(model, words(config.vocab_size))
        print(f"{shape}, {options.device}, {torch.get_num_threads()} threads")
        for kind in options.kind:
            results[f"{shape} {kind}"] = compared(tracer, kind, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return results


def compared(tracer: CausalTracer, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Times both interleaved and prints the result."""
    numbers = random.Random(0).sample(range(1000), LENGTH)
    prompt, subject = (" ".join(f"t{number}" for number in some) for some in (numbers, numbers[:SUBJECT]))
    settings: dict[str, Any] = {"kind": kind, "window": WINDOW, "batch_size": options.batch_size}
    known = tracer.trace(prompt, subject, samples=1, **settings)  # chooses the strategy for this model
    ids = torch.tensor([known.ids], device=options.device)
    every = [(token, layer) for token in range(LENGTH) for layer in range(tracer.parts.layers)]
    count = options.cells or (len(every) if options.device != "cpu" else 16)
    plain = Plain(tracer.parts, ids, kind, known.answer_id)
    ours, theirs, differences = [], [], []
    for number in range(options.rounds):
        cells = random.Random(number).sample(every, min(count, len(every)))
        half = len(cells) // 2
        before, first = timed(plain.scores, cells[:half])
        mine, trace = timed(tracer.trace, prompt, subject, samples=SAMPLES, **settings)
        after, second = timed(plain.scores, cells[half:])
        ours.append(mine)
        theirs.append((before + after) * len(every) / len(cells))
        differences += [
            abs(one - float(trace.scores[cell])) for cell, one in zip(cells, first + second, strict=True)
        ]
    ratios = np.median(np.array(theirs) / np.array(ours), axis=0)
    limits = counted_limits(tracer.parts, kind)
    print(
        f"  {kind:6}  {np.median(theirs, axis=0)[0]:7.2f} s -> {np.median(ours, axis=0)[0]:6.2f} s: "
        f"{ratios[0]:5.2f} times faster, {ratios[1]:5.2f} in processor time ({trace.method}), differs by "
        f"{max(differences):.0e}; limits: "
        + ", ".join(f"{name} {limit:.2f}" for name, limit in limits.items())
    )
    return {
        "ratio": ratios[0],
        "processor ratio": ratios[1],
        "seconds": [list(times) for times in ours],
        "plain seconds": [list(times) for times in theirs],
        "difference": max(differences),
        "limits": limits,
    }


class Plain:
    """The paper's code: a clean row before the noisy rows, and a pass of the whole model for each cell."""

    def __init__(self, parts: Anatomy, ids: Tensor, kind: str, answer: int) -> None:
        self.parts, self.ids, self.kind, self.answer = parts, ids, kind, answer
        self.embedding = parts.module(parts.embedding)
        self.rows = ids.expand(SAMPLES + 1, -1)
        with torch.no_grad():
            embedded = self.embedding(ids[:, :SUBJECT])
        drawn = np.random.RandomState(1).randn(SAMPLES, *embedded.shape[1:])
        noise = torch.from_numpy(3 * embedded.double().std().item() * drawn)
        self.noise = noise.to(ids.device, torch.float32)

    def scores(self, cells: Sequence[tuple[int, int]]) -> list[float]:
        """The scores of some cells."""
        return [self.score(token, layer) for token, layer in cells]

    def score(self, token: int, layer: int) -> float:
        """The mean probability of the answer when the states of one cell are restored."""
        handles = [self.embedding.register_forward_hook(self.corrupt)]
        restore = self.restoring(token)
        handles += [module.register_forward_hook(restore) for module in self.restored(layer)]
        try:
            with torch.no_grad():
                logits = self.parts.model(input_ids=self.rows, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        return float(logits[1:, -1].softmax(-1)[:, self.answer].mean())

    def restored(self, layer: int) -> list[nn.Module]:
        """The modules whose outputs a cell restores."""
        if self.kind == "hidden":
            return [self.parts.module(self.parts.block(layer))]
        part = self.parts.mlp if self.kind == "mlp" else self.parts.attention
        window = range(max(0, layer - WINDOW // 2), min(self.parts.layers, layer + WINDOW // 2))
        return [self.parts.module(part(index)) for index in window]

    def corrupt(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """The hook of the embedding."""
        output[1:, :SUBJECT] += self.noise
        return output

    def restoring(self, token: int) -> Callable[[nn.Module, Any, Any], Any]:
        """The hook of a restored module."""

        def restore(module: nn.Module, inputs: Any, output: Any) -> Any:
            states = output[0] if isinstance(output, tuple) else output
            states[1:, token] = states[0, token]
            return output

        return restore


def counted_limits(parts: Anatomy, kind: str) -> dict[str, float]:
    """The multiply-adds of the plain strategy over those that are needed, without attention scores."""
    block_module = parts.module(parts.blocks[0])
    block = matrix_sizes(block_module)
    projections = matrix_sizes(block_module, "c_attn", "q_proj", "k_proj", "v_proj")
    head = parts.module(parts.head).weight.numel()  # type: ignore[operator]
    layers, cells = parts.layers, LENGTH * parts.layers
    plain = cells * LENGTH * (SAMPLES + 1) * (layers * block + head)
    runs = (SAMPLES + 1) * LENGTH * layers * block
    positions = LENGTH * (LENGTH + 1) / 2  # of all suffixes together
    first = [cell + 1 if kind == "hidden" else max(0, cell - WINDOW // 2) for cell in range(layers)]
    blocks = sum(layers - layer for layer in first)
    heads = SAMPLES * cells * head
    sweep = runs + heads + SAMPLES * blocks * positions * block
    rows = layers - 1 if kind == "hidden" else layers
    saved = SAMPLES * rows * (positions - LENGTH) * (block - projections)
    limits = {"sweep": plain / sweep, "last block": plain / (sweep - saved)}
    if kind != "hidden":
        full, single = shared_blocks(layers)
        shared = SAMPLES * (full * positions + single * LENGTH) * block
        limits["windows"] = plain / (runs + heads + shared - saved)
    return limits


def shared_blocks(layers: int) -> tuple[int, int]:
    """The number of rows of all windows of a token that pass through a block, and that begin in one."""
    full = single = 0
    for layer in range(layers):
        histories = set()
        for cell in range(layers):
            window = range(max(0, cell - WINDOW // 2), cell + WINDOW // 2)
            touched = tuple(index for index in window if index <= layer)
            histories.add(touched)
        begun = {history for history in histories if history == (layer,)}
        full += len(histories - begun - {()})
        single += len(begun)
    return full, single


def matrix_sizes(module: nn.Module, *names: str) -> int:
    """The number of weights of the matrices of a module, or of its parts with these names."""
    return sum(
        parameter.numel()
        for name, parameter in module.named_parameters()
        if parameter.dim() == 2 and (not names or name.split(".")[-2] in names)
    )


def words(count: int) -> PreTrainedTokenizerFast:
    """A tokenizer that knows t0, t1, ..."""
    tokenizer = Tokenizer(models.WordLevel({f"t{index}": index for index in range(count)}, "t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="t0")


def timed(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[np.ndarray, Any]:
    """Seconds and processor seconds of a call, and its result."""
    start = np.array([time.perf_counter(), time.process_time()])
    result = call(*args, **kwargs)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()]) - start, result


if __name__ == "__main__":
    main()
