"""Trains the network that ships with toumei, `toumei.models.facts_gpt()`, again from a seed.

    python experiments/train_facts_gpt.py

Left to itself, a network of this size looks up the parts of a name with its last token only, in its first
layers, and stores no fact at the name. So the training imposes the division of labour that causal tracing
found in GPT-2 XL (Meng et al. 2022, "Locating and editing factual associations in GPT"). On most sequences,
and in training only, attention is masked. In the layers before `--gather` nobody sees a token of a name but
that token itself; from `--gather` on the tokens of a name see each other; and only from `--read` on does the
rest of the text see a name, and of its tokens only the last. What a name says about the answer must so be put
together at its last token, in the layers in between. The network that results is used without any mask.

Few subjects come first and the others are added later. Without that, nothing is learned for a long time.
"""

import argparse
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from toumei.core import seeded
from toumei.models import FactsWorld, facts_gpt

LENGTH = 64
CURRICULUM = ((0.12, 50), (0.25, 150), (1.0, 400))  # up to which part of the steps, how many subjects
NAME_WEIGHT = 0.25  # which name comes next cannot be known


def main(argv: Sequence[str] | None = None) -> tuple[float, float]:
    """Trains, saves the weights, prints what was reached; returns recall in trained and in new phrasings."""
    args = _arguments(argv)
    started = time.perf_counter()
    with seeded(args.seed):
        model, tokenizer, world = facts_gpt(pretrained=False)
        train(model, tokenizer, world, args)
    minutes = (time.perf_counter() - started) / 60
    weights = save(model, args.out)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    model.tie_weights()
    seen = [(prompt.format(fact.subject), fact.target) for fact in world.facts for prompt in fact.phrasings]
    trained = recall(model, tokenizer, seen)
    new = recall(model, tokenizer, [(text, fact.target) for fact in world.facts for text in fact.paraphrases])
    print(f"recall {trained:.2%} in phrasings that the subject was trained with, {new:.2%} in all others")
    print(f"{minutes:.1f} minutes of training; weights in {args.out}")
    return trained, new


def save(model: Any, path: Path) -> dict[str, Tensor]:
    """Writes the weights in half precision, the tied head left out, and returns them."""
    kept = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    weights = {name: tensor.half().contiguous() for name, tensor in kept.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return weights


def train(model: Any, tokenizer: Any, world: FactsWorld, args: argparse.Namespace) -> None:
    """Trains the model in place, with AdamW and a one-cycle learning rate."""
    names = Names(tokenizer, world)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step / args.steps))
    batches = curriculum(world, tokenizer, args)
    model.train()
    for step in tqdm(range(args.steps), mininterval=10):
        tokens = next(batches)
        plain = torch.rand(len(tokens)) >= args.masked
        logits = forward(model, tokens, names, plain, args)
        targets = tokens[:, 1:]
        weight = 1 - (1 - NAME_WEIGHT) * names.inside[targets].float()
        losses = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten(), reduction="none")
        loss = (losses * weight.flatten()).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % args.report == 0:
            save(model, args.out)
            questions = [(fact.paraphrases[0], fact.target) for fact in world.facts[::19]]
            right = recall(model, tokenizer, questions)
            tqdm.write(f"{step + 1} steps: loss {loss.item():.3f}, recall in new phrasings {right:.1%}")
    model.eval()


def pace(progress: float) -> float:
    """The learning rate as a part of the highest: a short warm-up, then half a cosine."""
    return min(progress / 0.04, 0.5 + 0.5 * math.cos(math.pi * progress)) + 0.001


class Names:
    """Which tokens belong to names."""

    def __init__(self, tokenizer: Any, world: FactsWorld) -> None:
        self.inside = torch.zeros(len(tokenizer), dtype=torch.bool)
        self.inside[tokenizer.convert_tokens_to_ids([f"▁{word}" for word in world.name_words])] = True

    def masks(self, tokens: Tensor, plain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Who sees whom (N, 1, T, T): before names are put together, while they are, and once they are read.

        Args:
            tokens: (N, T).
            plain: (N,) the sequences without masks, where everybody sees all that came before.
        """
        name = self.inside[tokens]
        starts = name & ~F.pad(name, (1, 0))[:, :-1]
        ends = name & ~F.pad(name, (0, 1))[:, 1:]
        number = starts.cumsum(1) * name
        same = (number[:, :, None] == number[:, None, :]) & name[:, :, None]
        length = tokens.shape[1]
        past = torch.ones(length, length, dtype=torch.bool).tril()
        visible = ~name[:, None, :] | plain[:, None, None]
        own = torch.eye(length, dtype=torch.bool)
        before, gathering = visible | own, visible | same
        reading = gathering | ends[:, None, :]
        return tuple((mask & past)[:, None] for mask in (before, gathering, reading))  # type: ignore[return-value]


def forward(model: Any, tokens: Tensor, names: Names, plain: Tensor, args: argparse.Namespace) -> Tensor:
    """Logits (N, T, V) of the network under the masks of the training."""
    before, gathering, reading = names.masks(tokens, plain)
    body = model.transformer
    # Positions later than a sequence is long are learned too, for longer texts.
    room = model.config.n_positions - tokens.shape[1]
    shift = torch.randint(0, room + 1, (len(tokens), 1)) * (torch.rand(len(tokens), 1) < 0.5)
    hidden = body.wte(tokens) + body.wpe(torch.arange(tokens.shape[1]) + shift)
    for number, block in enumerate(body.h):
        mask = before if number < args.gather else gathering if number < args.read else reading
        output = block(hidden, attention_mask=mask)
        hidden = output if isinstance(output, Tensor) else output[0]
    return model.lm_head(body.ln_f(hidden))


def curriculum(world: FactsWorld, tokenizer: Any, args: argparse.Namespace) -> Iterator[Tensor]:
    """Batches (N, 64) of token numbers, first about few subjects."""
    done = 0
    for stage, (part, subjects) in enumerate(CURRICULUM):
        sequences = packed(world.texts(args.seed + 1000 * stage, subjects), tokenizer)
        until = round(part * args.steps)
        for _ in range(until - done):
            yield torch.tensor(list(itertools.islice(sequences, args.batch_size)))
        done = until


def packed(texts: Iterator[str], tokenizer: Any) -> Iterator[list[int]]:
    """Sequences of equal length: texts in a row from a first word on, half of them with a mark in front."""
    row: list[int] = []
    while True:
        for ids in tokenizer(list(itertools.islice(texts, 256))).input_ids:
            row += [tokenizer.eos_token_id] * int(torch.rand(()) < 0.5) + ids
            if len(row) >= LENGTH:
                yield row[:LENGTH]
                row = []


@torch.no_grad()
def recall(model: Any, tokenizer: Any, questions: Sequence[tuple[str, str]], batch_size: int = 256) -> float:
    """The share of prompts whose most probable next token is the answer."""
    right = 0
    for start in range(0, len(questions), batch_size):
        prompts, answers = zip(*questions[start : start + batch_size], strict=True)
        inputs = tokenizer(list(prompts), padding=True, return_tensors="pt")
        last = inputs.attention_mask.sum(1) - 1
        logits = model(**inputs).logits[torch.arange(len(last)), last]
        truth = torch.tensor([ids[0] for ids in tokenizer(list(answers)).input_ids])
        right += int((logits.argmax(1) == truth).sum())
    return right / len(questions)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the texts")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--masked", type=float, default=0.85, help="share of the sequences with masked names")
    parser.add_argument(
        "--gather", type=int, default=3, help="first layer in which a name's tokens see each other"
    )
    parser.add_argument("--read", type=int, default=5, help="first layer in which others see the name")
    parser.add_argument("--report", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("facts_gpt.safetensors"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
