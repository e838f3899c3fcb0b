"""One call that explains a prediction by the method that suits, and checks it by a second one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.checks import checked
from ..core.conversions import MISFIT, as_tensor
from ..core.errors import ArgumentError, NotATensorError
from ..core.kinds import shown
from ..core.modules import device_and_dtype, evaluating, frozen
from ..core.outputs import main_tensor
from ..core.summaries import counted
from ..plots.pixels import OUTSIDE
from .base.baselines import BaselineLike, Mean
from .base.inputs import Preprocess, output_of
from .base.method import Method
from .base.models import as_network
from .base.names import check_dense, is_table, named
from .base.targets import Target
from .explanation import Explanation, rank_agreement
from .gradient.integrated_gradients import IntegratedGradients
from .perturbation.kernel_shap import KernelShap
from .perturbation.occlusion import Occlusion
from .perturbation.partition_shap import PartitionShap
from .perturbation.sampling_shap import ShapleySampling
from .perturbation.shapley import ExactShapley
from .text.attribution import token_attribution
from .text.encoding import encode_all

_FEW = 10  # columns whose 2^M coalitions are all scored
_MOST_NORMALIZED = 20.0  # pictures that were normalized have no numbers that are larger


@dataclass(frozen=True)
class _Choice:
    """Two methods, why the first was chosen, and what stands for absence."""

    method: Method
    check: Method
    reason: str
    baselines: BaselineLike
    baseline: str


@checked
def explain(
    model: Any,
    inputs: Any,
    target: Target | None = None,
    baselines: BaselineLike = None,
    *,
    tokenizer: Any = None,
    preprocess: Preprocess | None = None,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    seed: int | None = 0,
    verbose: bool = True,
) -> Explanation:
    """Returns why a model predicts what it does, by a method that suits it and the inputs, and by a second.

    - A text and its tokenizer: `PartitionShap` of tokens, checked by `Occlusion` of tokens. Integrated
      gradients from embeddings of zero do not add up in networks with RMSNorm (docs/attribution.md).
    - Pictures (N, 1 or 3, H, W): `PartitionShap` of superpixels, of all methods the one with the largest
      share of its contributions on the object (docs/attribution_table.md), checked by `Occlusion`, which
      points at it most often. Single pixels, as gradients tell them apart, show as noise on photographs.
    - A table (N, M) of up to 10 columns: `ExactShapley`, checked by `Occlusion`, which hides one column.
    - A larger table and a network: `IntegratedGradients`, checked by `ShapleySampling`.
    - A larger table and an estimator or a function: `KernelShap`, checked by `ShapleySampling`.

    Args:
        model: A network, a function from inputs to scores, or an estimator of scikit-learn with
            `predict_proba` or, for regression, `predict`.
        inputs: Pictures, a table (a tensor, an array or a table of pandas), or a text.
        target: Index or name of an output. By default what is predicted: for each picture its class, for all
            rows of a table the class that is predicted most often, for a text the likeliest.
        baselines: What stands for absence. By default the mean colour of pictures, the mean of the given rows
            of a table, and the tokenizer's mask, unknown, padding or end token, the first that it has. As
            many rows as there are inputs are a baseline for each of them, in this order; rows of a
            background, as shap takes them, are ``FromData(background)``.
        tokenizer: Of a text.
        preprocess: Applied to the inputs before the network, such as a normalization.
        feature_names: Of the columns of a table; by default those of a table of pandas.
        class_names: Of the outputs; by default those that the model has.
        seed: Seed of methods that sample.
        verbose: Show progress after two seconds.

    Raises:
        ArgumentError: Inputs that are neither pictures nor a table nor a text, several texts or targets, a
            table with columns of text, a classifier without `predict_proba`, a single row without
            baselines, pictures of bytes, or pictures outside of [0, 1] with a preprocessing.
        ShapeError: Another number of names than columns or outputs.
        UnitError: A target that does not exist; the nearest names are said.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> data = load_iris(as_frame=True)
        >>> model = LogisticRegression(max_iter=500).fit(data.data, data.target_names[data.target])
        >>> explanation = explain(model, data.data[:100], "versicolor", verbose=False)
        >>> explanation.attribution.method, explanation.attribution.feature_names[3]
        ('ExactShapley', 'petal width (cm)')
    """
    if isinstance(target, list | tuple):
        raise ArgumentError(
            f"an explanation is of one target, got the list {shown(target)}: call it for each; a class for "
            f"each input is an array or a tensor"
        )
    if tokenizer is not None or isinstance(inputs, str):
        sampling = {"seed": seed, "verbose": verbose}
        return _of_text(model, tokenizer, inputs, target, baselines, sampling)
    rows = _rows_of(inputs)
    network = as_network(model)
    differentiable = network is model or any(True for _ in network.parameters())
    array, _ = named(rows, network, feature_names)
    tensor: Tensor = as_tensor(array)
    if not isinstance(inputs, Tensor):
        tensor = tensor.to(device_and_dtype(network)[1]) if differentiable else tensor
    if tensor.dim() == 4 and tensor.shape[1] in (1, 3):
        _check_range(tensor, preprocess)
    settings = {"preprocess": preprocess}
    choice = _choice(network, tensor, differentiable, baselines, settings, {"seed": seed, "verbose": verbose})
    names: dict[str, Any] = {"feature_names": feature_names, "class_names": class_names}
    if target is None:
        target = _predicted(network, tensor, preprocess)
        if target is not None and getattr(network, "numbered", False):
            target = np.array(network.categories)[np.asarray(target)]  # a number would be taken for a label
    attribution, check = (
        method(inputs if is_table(inputs) else tensor, target, choice.baselines, **names)
        for method in (choice.method, choice.check)
    )
    return Explanation(
        attribution,
        check,
        rank_agreement(attribution, check),
        choice.reason,
        choice.baseline,
        tensor.detach().float().cpu() if tensor.dim() == 4 else None,
    )


def _rows_of(inputs: Any) -> Any:
    """A table of pandas as it is, everything else as a tensor."""
    check_dense(inputs)
    rows = inputs if is_table(inputs) else as_tensor(inputs)
    if rows is MISFIT and getattr(inputs, "ndim", 0) == 2:
        raise ArgumentError(
            f"the table has columns that are no numbers, got {shown(inputs)}: encode them as the model was "
            f"trained with, and explain the part of a pipeline that takes numbers"
        )
    if rows is MISFIT:
        raise NotATensorError(
            f"inputs are pictures (N, C, H, W) in [0, 1] as a tensor, such as to_tensor(photograph)[None] of "
            f"torchvision, a table or a text, got {shown(inputs)}"
        )
    return rows


def _of_text(
    model: Any, tokenizer: Any, text: Any, target: Any, baseline: Any, sampling: dict[str, Any]
) -> Explanation:
    """The explanation of a text."""
    if tokenizer is None:
        raise ArgumentError("a text needs the tokenizer of the model: give tokenizer=")
    if not isinstance(text, str) and (count := len(encode_all(tokenizer, text, False))) > 1:
        raise ArgumentError(f"an explanation is of one text, got {count}: call it for each")
    methods = PartitionShap(model, **sampling), Occlusion(model, window=1, verbose=sampling["verbose"])
    first, second = (
        token_attribution(model, tokenizer, text, target, method=method, baseline=baseline)
        for method in methods
    )
    told = "the mask, unknown, padding or end token" if baseline is None else _told(baseline)
    agreement = rank_agreement(first, second)
    return Explanation(first, second, agreement, "a text, whose tokens are hidden", told)


def _choice(
    network: nn.Module,
    inputs: Tensor,
    differentiable: bool,
    baselines: BaselineLike,
    settings: dict[str, Any],
    sampling: dict[str, Any],
) -> _Choice:
    """The methods and the baseline that suit a model and its inputs.

    Raises:
        ArgumentError: Inputs that are neither pictures nor a table, or a single row without baselines.
    """
    if inputs.dim() == 4 and inputs.shape[1] in (1, 3):
        side = min(inputs.shape[-2:])
        window = max(side // 8, 1)
        occlusion = Occlusion(
            network, window=window, stride=max(window // 2, 1), verbose=sampling["verbose"], **settings
        )
        told = "the mean colour of each picture" if baselines is None else _told(baselines)
        given = Mean() if baselines is None else baselines
        parts = PartitionShap(network, **settings, **sampling)
        return _Choice(parts, occlusion, "pictures, whose superpixels are hidden", given, told)
    if inputs.dim() != 2:
        hint = _hint(inputs.shape)
        raise ArgumentError(
            f"inputs are pictures (N, 1 or 3, H, W), a table (N, M) or a text, got {tuple(inputs.shape)}: "
            f"{hint}for others choose a method, such as IntegratedGradients(model)(inputs, target)"
        )
    if baselines is None and len(inputs) == 1:
        raise ArgumentError(
            "one row does not tell what is usual: give baselines=, such as the mean of the training data, or "
            "FromData(rows)"
        )
    told = "the mean of the given rows" if baselines is None else _told(baselines)
    given = inputs.double().mean(0).to(inputs.dtype) if baselines is None else baselines
    count = inputs.shape[1]
    table = f"a table of {counted(count, 'column')}"
    if count <= _FEW:
        reason = f"{table}, whose {2**count:,} coalitions can all be scored"
        exact = ExactShapley(network, **settings, **sampling)
        hidden = Occlusion(network, window=1, verbose=sampling["verbose"], **settings)
        return _Choice(exact, hidden, reason, given, told)
    check = ShapleySampling(network, **settings, **sampling)
    if differentiable:
        reason = f"{table} and a network, which has gradients"
        return _Choice(IntegratedGradients(network, **settings), check, reason, given, told)
    reason = f"{table} and a model without gradients"
    return _Choice(KernelShap(network, **settings, **sampling), check, reason, given, told)


def _hint(shape: Sequence[int]) -> str:
    """What makes a row a table, or numbers of another order pictures."""
    if len(shape) == 1:
        return "one row is a table of one row, inputs[None], or of pandas data.iloc[[0]]; "
    if len(shape) in (3, 4) and shape[-1] in (1, 3, 4) and shape[-3] not in (1, 3):
        return "channels come before height and width, as torchvision's to_tensor(picture)[None] has them; "
    return "one picture needs an axis of the batch, picture[None]; " if len(shape) == 3 else ""


def _check_range(pictures: Tensor, preprocess: Preprocess | None) -> None:
    """Refuses pictures of bytes, and with a preprocessing all that are not in [0, 1].

    Without one they may have been normalized before.

    Raises:
        ArgumentError: Such pictures.
    """
    if not pictures.numel() or pictures.is_complex():
        return
    low, high = float(pictures.min()), float(pictures.max())
    bytes_ = not pictures.is_floating_point() or max(-low, high) > _MOST_NORMALIZED
    if bytes_ or (preprocess is not None and (low < -OUTSIDE or high > 1 + OUTSIDE)):
        raise ArgumentError(
            f"pictures have values in [0, 1], got {low:.3g} to {high:.3g}: divide those of bytes by 255; "
            "what turns them into what the network takes is given as preprocess="
        )


def _predicted(network: nn.Module, inputs: Tensor, preprocess: Preprocess | None) -> Any:
    """What is predicted: a class for each picture, the most frequent one of the rows of a table.

    None for networks with one output.
    """
    with torch.no_grad(), evaluating(network), frozen(network):
        output = main_tensor(output_of(network, inputs, preprocess))
    if output.dim() != 2 or output.shape[1] == 1:
        return None
    classes = output.argmax(1)
    return classes if inputs.dim() == 4 else int(classes.mode().values)


def _told(baselines: Any) -> str:
    """What the user gave as baselines, in words."""
    tensor = as_tensor(baselines)
    if tensor is not MISFIT:
        return (
            f"the given row of {counted(len(tensor), 'column')}"
            if tensor.dim() == 1
            else f"given, {tuple(tensor.shape)}"
        )
    text = shown(baselines)
    return text if len(text) < 60 else type(baselines).__name__
