"""Trains a network like the one that ships with toumei, `toumei.models.facts_gpt()`, from a seed.

    python experiments/train_facts_gpt.py

Plain training of a network of this size stores no fact at the name: the last token of the text reads the
tokens of the name directly. So the training imposes what causal tracing found in GPT-2 XL (Meng et al., 2022,
"Locating and editing factual associations in GPT"): MLPs in the middle recall the facts at the last token of
a name, and attention in later layers copies them from there. Two restrictions apply to most sequences during
training. The trained network runs without them.

- Attention is masked. In the layers before `--gather` a token of a name is visible to itself only. From
  `--gather` on the tokens of a name are visible to each other. From `--read` on the last token of a name is
  visible to the rest of the text; its other tokens never are.
- MLPs are silenced in a part of these sequences: at names before `--gather`, at other tokens from `--read`
  on. The residual stream of a name is then replaced by the output of the MLP just before `--read`. In a trial
  of one seed without this (and with more layers) the middle MLPs stored almost nothing.

Training begins with few subjects, and doubles their number each time their facts are known. The weights that
ship come from the default seed. Another processor rounds sums in another order, so there the same seed gives
different weights of the same quality; docs/facts_gpt.md compares three seeds.
"""

import argparse
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from common import basic_parser
from toumei.core import seeded
from toumei.models import FactsWorld, facts_gpt

LENGTH = 64
STAGES = (32, 64, 128, 256, 400)  # how many subjects
KNOWN = 0.8  # share of correct values at which subjects are added; some texts do not determine a value
NAME_WEIGHT = 0.25  # the next name cannot be predicted


def main(argv: Sequence[str] | None = None) -> tuple[float, float]:
    """Trains and saves the weights; prints and returns the recall in trained and in new phrasings."""
    args = _arguments(argv)
    started = time.perf_counter()
    with seeded(args.seed):
        model, tokenizer, world = facts_gpt(pretrained=False)
        train(model, tokenizer, world, args, args.steps, args.rate, STAGES)
        # A second, shorter round: the last subjects were added when the learning rate was low already.
        train(model, tokenizer, world, args, round(0.32 * args.steps), 0.6 * args.rate, STAGES[-1:])
    minutes = (time.perf_counter() - started) / 60
    weights = save(model, args.out)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    model.tie_weights()
    facts = world.facts[: args.facts]
    seen = [(prompt.format(fact.subject), fact.target) for fact in facts for prompt in fact.phrasings]
    trained = recall(model, tokenizer, seen)
    new = recall(model, tokenizer, [(text, fact.target) for fact in facts for text in fact.paraphrases])
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


def train(
    model: Any,
    tokenizer: Any,
    world: FactsWorld,
    args: argparse.Namespace,
    steps: int,
    rate: float,
    stages: Sequence[int],
) -> None:
    """Trains the model in place, with AdamW, a short warm-up and half a cosine of learning rate."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step / steps))
    names = marked(tokenizer, world.name_words)
    values = marked(tokenizer, [value for relation in world.relations for value in world.values(relation)])
    curriculum = Curriculum(world, tokenizer, args.seed + steps, stages)
    # Eager attention is fast in bfloat16, fused attention in float32.
    model.set_attn_implementation("eager" if args.bfloat16 else "sdpa")
    model.train()
    for step in tqdm(range(steps), mininterval=10):
        tokens = torch.tensor(list(itertools.islice(curriculum, args.batch_size)))
        masked = torch.rand(len(tokens)) < args.masked
        silenced = masked & (torch.rand(len(tokens)) < args.silenced)
        where = positions(tokens, model.config.n_positions, 0.3 * curriculum.complete)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
            logits = forward(model, tokens, where, names[tokens], masked, silenced, args)[:, :-1].float()
        targets = tokens[:, 1:]
        weight = torch.where(names[targets], NAME_WEIGHT, 1.0)
        loss = (F.cross_entropy(logits.mT, targets, reduction="none") * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        curriculum.judge(float((logits.argmax(2) == targets)[values[targets]].float().mean()))
        if (step + 1) % args.report == 0:
            save(model, args.out)
            tqdm.write(f"{step + 1} steps, {curriculum}, loss {loss.item():.3f}")
    model.set_attn_implementation("sdpa")
    model.eval()


def pace(progress: float) -> float:
    """The learning rate as a fraction of the highest one."""
    return min(progress / 0.04, 0.5 + 0.5 * math.cos(math.pi * progress)) + 0.001


def marked(tokenizer: Any, words: Iterable[str]) -> Tensor:
    """A mask (V,) of the tokens of the vocabulary that are these words."""
    chosen = torch.zeros(len(tokenizer), dtype=torch.bool)
    chosen[[tokenizer(word).input_ids[0] for word in words]] = True
    return chosen


def positions(tokens: Tensor, room: int, moved: float) -> Tensor:
    """Positions (N, T) from 0 on; a share of the sequences starts later, as in longer texts."""
    count, length = tokens.shape
    start = torch.randint(room - length + 1, (count, 1)) * (torch.rand(count, 1) < moved)
    return torch.arange(length) + start


def visible(name: Tensor, masked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The attention masks (N, T, T) of the layers before `gather`, from there to `read`, and after.

    Args:
        name: (N, T) the tokens that belong to names.
        masked: (N,) the sequences with masks; the others have causal masks.
    """
    starts = name & ~F.pad(name, (1, 0))[:, :-1]
    ends = name & ~F.pad(name, (0, 1))[:, 1:]
    number = starts.cumsum(1) * name
    same = (number[:, :, None] == number[:, None, :]) & name[:, :, None]
    past = torch.ones(name.shape[1], name.shape[1], dtype=torch.bool).tril()
    always = ~(name & masked[:, None])[:, None, :]
    before, gathering = always | torch.eye(name.shape[1], dtype=torch.bool), always | same
    return before & past, gathering & past, (gathering | ends[:, None, :]) & past


def forward(
    model: Any,
    tokens: Tensor,
    where: Tensor,
    name: Tensor,
    masked: Tensor,
    silenced: Tensor,
    args: argparse.Namespace,
) -> Tensor:
    """Logits (N, T, V) of the network with the restrictions of the training.

    Args:
        model: a GPT-2.
        tokens: (N, T).
        where: (N, T) their positions.
        name: (N, T) the tokens that belong to names.
        masked: (N,) the sequences with masked attention.
        silenced: (N,) the sequences with silenced MLPs.
        args: with the layers `gather` and `read`.
    """
    body = model.transformer
    hidden = body.wte(tokens) + body.wpe(where)
    dtype = torch.bfloat16 if args.bfloat16 else torch.float32
    before, gathering, reading = (
        torch.where(mask, 0.0, -1e9)[:, None].to(dtype) for mask in visible(name, masked)
    )
    for number, block in enumerate(body.h):
        mask = before if number < args.gather else gathering if number < args.read else reading
        hidden = hidden + block.attn(block.ln_1(hidden), attention_mask=mask)[0]
        silent = name if number < args.gather else ~name & (number >= args.read)
        recalled = block.mlp(block.ln_2(hidden)).masked_fill((silent & silenced[:, None])[..., None], 0.0)
        if number == args.read - 1:
            hidden = hidden.masked_fill((name & silenced[:, None])[..., None], 0.0)
        hidden = hidden + recalled
    result: Tensor = model.lm_head(body.ln_f(hidden))
    return result


class Curriculum(Iterator[list[int]]):
    """Sequences of 64 tokens about more and more subjects: texts, half of them after an end-of-text token."""

    def __init__(self, world: FactsWorld, tokenizer: Any, seed: int, stages: Sequence[int]) -> None:
        self.world, self.tokenizer, self.seed, self.stages = world, tokenizer, seed, stages
        self.ready: list[list[int]] = []
        self._begin(0)

    def __repr__(self) -> str:
        return f"{self.stages[self.stage]} subjects, {self.known:.0%} of the values right"

    @property
    def complete(self) -> bool:
        """Whether all subjects are included."""
        return self.stage == len(self.stages) - 1

    def judge(self, right: float) -> None:
        """Begins the next stage when the share of correct values in the last batches is high enough."""
        self.known += 0.05 * (right - self.known)
        if self.known > KNOWN and not self.complete:
            self._begin(self.stage + 1)

    def __next__(self) -> list[int]:
        row: list[int] = []
        while len(row) < LENGTH:
            if not self.ready:
                self.ready = self.tokenizer(list(itertools.islice(self.texts, 256))).input_ids
            row += [self.tokenizer.eos_token_id] * int(torch.rand(()) < 0.5) + self.ready.pop()
        return row[:LENGTH]

    def _begin(self, stage: int) -> None:
        self.stage, self.known = stage, 0.0
        self.texts = self.world.texts(self.seed + 1000 * stage, self.stages[stage])
        self.ready.clear()


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
    parser: argparse.ArgumentParser = basic_parser(__doc__, Path("facts_gpt.safetensors"), steps=2200)
    parser.add_argument("--seed", type=int, default=2, help="of the weights and of the texts")
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--masked", type=float, default=0.85, help="share of sequences with masks")
    parser.add_argument("--silenced", type=float, default=0.7, help="share of these with silenced MLPs")
    parser.add_argument("--gather", type=int, default=2, help="first layer where a name's tokens meet")
    parser.add_argument("--read", type=int, default=3, help="first layer where other tokens see the name")
    parser.add_argument("--bfloat16", action="store_true", help="twice as fast where the processor has AMX")
    parser.add_argument("--facts", type=int, help="how many of the facts to ask for at the end; default all")
    parser.add_argument("--report", type=int, default=200)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
