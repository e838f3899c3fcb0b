"""What the experiments share: arguments, networks, photographs, and the choice of units."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import toumei
from toumei.core import evaluating, run
from toumei.models import Inception5h, ShapesCNN, facts_gpt, load_state_dict

SIZES = {"conv1": 12, "conv2": 20, "conv3": 28, "conv4": 36, "conv5": 48, "conv6": 64}
"""Size of the picture of a unit in each layer of `ShapesCNN`: a little more than its receptive field."""

SHIPPED = ("china.jpg", "flower.jpg")
"""The photographs of scikit-learn: a pagoda and a dahlia."""

# ---------------------------------------------------------------- arguments


def basic_parser(
    description: str | None,
    out: str | Path,
    *,
    steps: int | None = None,
    seed: int | None = None,
    device: str | None = None,
) -> argparse.ArgumentParser:
    """A parser with --out, and with --steps, --seed and --device where a default is given.

    The default device ``"auto"`` is an accelerator if there is one.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=type(out), default=out)
    if steps is not None:
        parser.add_argument("--steps", type=int, default=steps)
    if seed is not None:
        parser.add_argument("--seed", type=int, default=seed)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device is not None:
        parser.add_argument("--device", default=device)
    return parser


# ---------------------------------------------------------------- networks


def add_network(parser: argparse.ArgumentParser, *others: str) -> None:
    """Adds --model and --weights for `vision_network`."""
    names = ", ".join(["shapes", *others])
    parser.add_argument("--model", default="shapes", help=f"{names}, or a classifier of torchvision")
    parser.add_argument("--weights", help="DEFAULT to download the trained ones, or a file; else random ones")


def vision_network(options: argparse.Namespace, *others: str) -> tuple[nn.Module, nn.Module]:
    """The network of --model with --weights, on --device, and its preprocessing of RGB in [0, 1].

    Args:
        options: The parsed options of `add_network`.
        *others: Networks that are accepted besides shapes and the classifiers of torchvision.
    """
    path = None if options.weights in (None, "DEFAULT") else options.weights
    download = options.weights == "DEFAULT"
    model: nn.Module
    preprocess: nn.Module = nn.Identity()
    if options.model == "shapes":
        model = ShapesCNN(pretrained=path is None)
        if path is not None:
            model.load_state_dict(load_state_dict(path))
    elif options.model == "inception5h" and options.model in others:
        model = Inception5h(pretrained=download, weights=path)
        preprocess = toumei.cnns.robustness.preprocess("inception5h")
    else:
        model, preprocess = classifier(options.model, download, path, ("shapes", *others))
    return model.to(options.device), preprocess.to(options.device)


def classifier(
    name: str, download: bool, path: str | None, others: Sequence[str]
) -> tuple[nn.Module, nn.Module]:
    """A classifier of torchvision, with trained weights or those of a file, and its preprocessing."""
    import torchvision

    if name not in torchvision.models.list_models(torchvision.models):
        raise SystemExit(f"no model {name!r}: there are {', '.join(others)} and torchvision's classifiers")
    model: nn.Module = torchvision.models.get_model(name, weights="DEFAULT" if download else None)
    if path is not None:
        model.load_state_dict(load_state_dict(path))
    return model, toumei.cnns.robustness.preprocess(torchvision.models.get_model_weights(name).DEFAULT)


def language_model(name: str) -> tuple[Any, Any]:
    """A causal language model and its tokenizer: ``smollm2``, or a name or folder of Hugging Face."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if name == "smollm2":
        return toumei.models.smollm2()
    return AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)


def model_and_texts(
    options: argparse.Namespace, load: Callable[[str], tuple[Any, Any]] = language_model
) -> tuple[Any, Any, Iterable[str]]:
    """The model of --model, its tokenizer and the texts of --texts; by default the facts and their world.

    Args:
        options: With ``model``, ``texts`` and ``device``.
        load: Returns the model of a name and its tokenizer.
    """
    texts: Iterable[str]
    if options.model is None:
        model, tokenizer, world = facts_gpt()
        texts = world.texts(seed=0)
    else:
        model, tokenizer = load(options.model)
    if options.texts:
        texts = texts_in(options.texts)
    return model.to(options.device), tokenizer, texts


def map_layers(
    model: nn.Module, image: Tensor, shares: Sequence[float], axes: Sequence[int] = (4,)
) -> list[str]:
    """The layers at these shares of all layers with activations of so many axes.

    Args:
        model: The network.
        image: (1, 3, H, W).
        shares: From 0 for the first layer to 1 for the last.
        axes: 4 for maps, 3 for tokens.
    """
    names = [name for name, module in model.named_modules() if name and name.count(".") <= 1]
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        activations = run(model, image.to(device), record=names, stop=False)
    found = [name for name in names if name in activations and activations[name].dim() in axes]
    return list(dict.fromkeys(found[round(share * (len(found) - 1))] for share in shares))


# ---------------------------------------------------------------- photographs and pictures


def photograph(path: str) -> Tensor:
    """A photograph (3, H, W) in [0, 1]: a file, or one of scikit-learn by its name."""
    if path in SHIPPED:
        from sklearn.datasets import load_sample_image

        return torch.from_numpy(load_sample_image(path).copy()).permute(2, 0, 1) / 255
    from PIL import Image
    from torchvision.transforms import functional

    with Image.open(path) as image:
        picture: Tensor = functional.to_tensor(image.convert("RGB"))
    return picture


def resized(image: Tensor, height: int, width: int | None = None) -> Tensor:
    """An image (3, H, W) in another size, without a width in the same proportions."""
    width = round(image.shape[2] * height / image.shape[1]) if width is None else width
    smaller = nn.functional.interpolate(image[None], size=(height, width), mode="bilinear", antialias=True)
    return smaller[0].clamp(0, 1)


def small_views(size: int) -> nn.Module:
    """Random views for small pictures: jitter, scale, rotation, jitter."""
    from toumei.cnns.robustness import Jitter, Pad, Rotate, Scale, Views

    pixels = max(1, size // 16)
    turns = Scale([0.9, 0.95, 1, 1.05, 1.1]), Rotate(range(-5, 6))
    return Views(Pad(pixels), Jitter(pixels), *turns, Jitter(pixels))


def outstanding(responses: Tensor, count: int, best: int = 6, same: float = 0.5) -> list[int]:
    """The channels whose strongest images stand out most, without those that repeat a stronger channel.

    Args:
        responses: The response of each channel to each image, (images, channels).
        count: How many channels.
        best: How many images count as the strongest.
        same: Two channels count as the same from this absolute correlation of their responses on.
    """
    strongest = responses.topk(min(best, len(responses)), dim=0).values.mean(0)
    contrast = (strongest - responses.mean(0)) / (responses.std(0) + 1e-6)
    likeness = responses.T.corrcoef().abs().nan_to_num()
    chosen: list[int] = []
    for channel in contrast.argsort(descending=True).tolist():
        if len(chosen) < count and (likeness[channel, chosen] < same).all():
            chosen.append(channel)
    return chosen


def texts_in(path: str | Path) -> list[str]:
    """The texts of a file that has one on each line."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]
