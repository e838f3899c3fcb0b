"""DeepLift of toumei and of captum: how far contributions are from adding up, and what they cost.

For networks with random weights (and the batch statistics of noise, so that no signal dies), inputs in
[0, 1], baselines from N(0, 1), and the class whose score changes most between them. The gap is |sum of
contributions - (f(x) - f(b))| relative to |f(x) - f(b)|, or to 1e-3 where that is more. Times are medians of
ratios of rounds in turns: to captum, and to a forward and backward pass of both inputs at once, the standard
where captum fails (an exception, or a gap above 1e-3).

    python benchmarks/deep_lift.py [--models resnet18 vgg11] [--weights squeezenet1_1.safetensors]
"""

import argparse
import copy
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timing import REALDATA, SQUEEZENET, Call, basic_parser, describe, in_turns, ratios, squeezenet, write
from toumei.attribution import DeepLift

PICTURES = (
    *("resnet18", "vgg11", "alexnet", "squeezenet1_1", "densenet121", "googlenet", "mobilenet_v2"),
    *("efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t"),
)
TEXTS = {"GPT-2": "GPT2LMHeadModel", "Llama": "LlamaForCausalLM", "BERT": "BertForMaskedLM"}
REAL = "squeezenet1_1 (real)"
FAILED = 1e-3  # captum's gap from which its time is no standard
WANTED = {"gap": 1e-4, "to captum": 1.5, "to passes": 4.0}


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    print(
        f"{describe(device)}, torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds"
    )
    titles = f"{'gap':>9} {'captum gap':>22} {'to captum':>10} {'to 2 passes':>12}"
    print(f"{'network':22} {'f(x)-f(b)':>10} {titles}")
    rows = []
    for name in options.models:
        if name == REAL and not (options.weights.is_file() and options.photograph.is_file()):
            print(f"{name:22} skipped: no weights at {options.weights} or no {options.photograph}")
            continue
        model, x, x0 = build(name, options)
        rows.append(measure(name, model.to(device), x.to(device), x0.to(device), options.rounds))
        report(rows[-1])
    write(rows, options.json)
    return rows


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = basic_parser(__doc__, threads=2)
    names = [*PICTURES, *TEXTS, REAL]
    choice: dict[str, Any] = {"nargs": "+", "choices": names, "default": names, "metavar": "NAME"}
    parser.add_argument("--models", help=", ".join(names), **choice)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=224, help="of the pictures")
    parser.add_argument("--weights", type=Path, default=SQUEEZENET)
    parser.add_argument("--photograph", type=Path, default=REALDATA / "images" / "chelsea.png")
    return parser.parse_args(argv)


def build(name: str, options: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, an input and a baseline."""
    torch.manual_seed(0)
    if name in TEXTS:
        return Embedded(text_network(name)).eval(), torch.randn(1, 12, 64), torch.randn(1, 12, 64)
    import torchvision

    x, x0 = torch.rand(1, 3, options.side, options.side), torch.randn(1, 3, options.side, options.side)
    if name == REAL:
        return squeezenet(options.weights), photograph(options.photograph, options.side), x0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some say that their initialization is slow
        model = torchvision.models.get_model(name, weights=None)
    if name == "vit_b_16":
        nn.init.normal_(model.heads.head.weight, std=0.05)  # zeros by default
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the mean over what it sees
        with torch.no_grad():
            model.train()(torch.randn(4, 3, options.side, options.side))
    return model.eval(), x, x0


def text_network(name: str) -> nn.Module:
    import transformers

    transformers.logging.set_verbosity_error()
    shape: dict[str, Any] = dict(vocab_size=100, hidden_size=64, num_hidden_layers=4, num_attention_heads=4)
    kind: Any = getattr(transformers, TEXTS[name])
    if name == "GPT-2":
        result: nn.Module = kind(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0))
        return result
    shape["intermediate_size"] = 128
    if name == "Llama":
        shape["num_key_value_heads"] = 2
    config: Any = getattr(transformers, {"Llama": "LlamaConfig", "BERT": "BertConfig"}[name])
    result = kind(config(**shape))
    return result


class Embedded(nn.Module):
    """The logits of a language model, of the last token if there are several, from embeddings."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeddings: Tensor) -> Tensor:
        """The logits (N, classes)."""
        logits: Tensor = self.model(inputs_embeds=embeddings).logits
        return logits if logits.dim() == 2 else logits[:, -1]


def photograph(path: Path, side: int) -> Tensor:
    """The middle of a photograph as ImageNet networks take it."""
    from PIL import Image
    from torchvision.models import SqueezeNet1_1_Weights

    with Image.open(path) as image:
        transforms = SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms(crop_size=side)
        result: Tensor = transforms(image.convert("RGB"))[None]
        return result


def measure(name: str, model: nn.Module, x: Tensor, x0: Tensor, rounds: int) -> dict[str, Any]:
    with torch.no_grad():
        change = model(x)[0] - model(x0)[0]
    target = int(change.abs().argmax())
    moved = float(change[target])
    scale = max(abs(moved), 1e-3)
    gap = DeepLift(model)(x, target, x0).gap
    assert gap is not None
    row: dict[str, Any] = {"name": name, "change": moved, "gap": float(gap.abs()) / scale}
    both, theirs = torch.cat((x, x0)), captum_deep_lift(model, x, x0, target)

    def passes() -> Tensor:
        leaf = both.clone().requires_grad_()
        return torch.autograd.grad(model(leaf)[:, target].sum(), leaf)[0]

    contenders: dict[str, Call] = {"own": lambda: DeepLift(model)(x, target, x0), "passes": passes}
    try:
        row["captum"] = abs(float(theirs().double().sum()) - moved) / scale
        contenders["captum"] = theirs
    except Exception as error:  # whatever it raises is the finding
        row["captum"] = type(error).__name__
    times = in_turns(contenders, rounds, x.device, warm_up=1)
    row |= {f"to {key}": statistics.median(ratios(times, "own", key)) for key in times if key != "own"}
    row["captum fails"] = isinstance(row["captum"], str) or row["captum"] > FAILED
    row["holds"] = all(row[key] <= WANTED[key] for key in ("gap", standard(row)))
    return row


def captum_deep_lift(model: nn.Module, x: Tensor, x0: Tensor, target: int) -> Callable[[], Tensor]:
    from captum.attr import DeepLift as Peer

    peer = Peer(copy.deepcopy(model))  # hooks stay behind where it raises

    def contributions() -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Tensor = peer.attribute(x, x0, target=target).detach()
        return found

    return contributions


def standard(row: dict[str, Any]) -> str:
    """The time that ours is held against."""
    return "to passes" if row["captum fails"] else "to captum"


def report(row: dict[str, Any]) -> None:
    captum = row["captum"] if isinstance(row["captum"], str) else f"{row['captum']:.1e}"
    to_captum = f"{row['to captum']:.2f}" if "to captum" in row else "-"
    bars = f"at most {WANTED['gap']:.0e} and {WANTED[standard(row)]} {standard(row)}"
    print(
        f"{row['name']:22} {row['change']:>10.1e} {row['gap']:>9.1e} {captum:>22} {to_captum:>10} "
        f"{row['to passes']:>12.2f}  wanted {bars}{'' if row['holds'] else ': MORE'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
