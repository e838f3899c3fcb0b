"""What to give in the place of words that other libraries take, and of arguments that they have."""

from collections.abc import Collection
from typing import Any

# By argument, what is given where others take a word.
_IN_PLACE_OF_WORDS = {
    "preprocess": "toumei.cnns.robustness.preprocess('imagenet'), the transforms() of torchvision's weights, "
    "or a function of yours",
    "optimizer": "a class of torch.optim, such as torch.optim.Adam",
    "autocast": "a dtype of torch, such as torch.bfloat16",
    "dtype": "a dtype of torch, such as torch.bfloat16",
    "method": "a method of toumei.attribution with its model, such as IntegratedGradients(model)",
    "features": "superpixels(images) of toumei.attribution, or a tensor with the number of its feature at "
    "every place",
    "generator": "a picture of toumei.cnns.parameterization, such as FFTImage(1, 3, 224, 224)",
    "tokenizer": "the object, such as transformers.AutoTokenizer.from_pretrained(name)",
    "model": "the object, such as torchvision.models.resnet18(weights='DEFAULT') or "
    "transformers.AutoModel.from_pretrained(name)",
    "loss": "a function of outputs and labels, such as torch.nn.functional.cross_entropy",
}
# What other libraries call an argument, and how it is called here.
_MEANT = {
    "transforms": ("views", "preprocess"),
    "transform": ("views", "preprocess"),
    "background": ("baselines",),
    "background_data": ("baselines",),
    "reference": ("baselines",),
}
_CHOSEN = "the method is chosen here; another is called by itself, such as IntegratedGradients(model)(inputs)"
_OF_PICTURE = "a picture has them: toumei.cnns.parameterization.Transform(picture, *transforms)"
# What to do in the place of an argument that does not exist, where the function has one of these.
_INSTEAD = {
    "device": (("model",), "the device is that of the model, model.to(device)"),
    "method": (("tokenizer",), _CHOSEN),
    "explainer": (("inputs",), _CHOSEN),
    "algorithm": (("inputs",), _CHOSEN),
    "transforms": (("generator", "height", "lr"), _OF_PICTURE),
    "transform": (("generator", "height", "lr"), _OF_PICTURE),
}


def in_place_of(name: str, value: Any) -> str:
    """Returns the end of a message that says what an argument takes where a word was given.

    Args:
        name: The argument.
        value: What was given.

    Example:
        >>> in_place_of("autocast", "bf16"), in_place_of("autocast", 16)
        (': give a dtype of torch, such as torch.bfloat16', '')
    """
    advice = _IN_PLACE_OF_WORDS.get(name, "") if isinstance(value, str) else ""
    return advice and f": give {advice}"


def meant_by(unknown: str, known: Collection[str]) -> list[str]:
    """Returns the arguments that are what other libraries call so.

    Example:
        >>> meant_by("background", ["inputs", "baselines"])
        ['baselines']
    """
    return [name for name in _MEANT.get(unknown, ()) if name in known]


def instead_of(unknown: str, known: Collection[str]) -> str:
    """Returns what to do in the place of an argument that does not exist, nothing if that is not known.

    Example:
        >>> instead_of("device", ["model", "samples"])
        'the device is that of the model, model.to(device)'
    """
    needed, advice = _INSTEAD.get(unknown, ((), ""))
    return advice if any(name in known for name in needed) else ""
