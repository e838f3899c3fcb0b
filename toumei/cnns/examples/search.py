"""Dataset examples: one pass over a dataset for the images that excite each unit most, and least."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, Subset

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.fingerprint import fingerprint_of
from ...core.hooks import run
from ...core.layout import Channels, channels_of, with_layouts_of
from ...core.modules import check_model, evaluating
from ...core.progress import tqdm
from ...core.repeats import check_layers_repeat
from ...core.summaries import counted
from ...core.surveys import Survey, survey
from ...core.targets import resolve
from ..inputs import as_input, batch_in, batches_of, images_by_index
from .checkpoint import SearchSettings, SearchState, name_of
from .ranking import Ranking, Responses, receptive_fields
from .result import DatasetExamples


@checked
@torch.no_grad()
def dataset_examples(
    model: nn.Module,
    layers: str | Iterable[str],
    loader: Iterable[Any],
    k: int = 9,
    *,
    lowest: bool = True,
    reduction: Literal["max", "mean"] = "max",
    preprocess: Callable[[Tensor], Tensor] | None = None,
    channel_axis: int | None = None,
    grid: tuple[int, int] | None = None,
    resume: str | Path | None = None,
    verbose: bool = True,
) -> DatasetExamples:
    """Returns the k images that excite each unit of some layers most, and the k that excite it least.

    A batch takes one forward pass, which ends after the deepest layer. Between batches only k numbers,
    indices and positions are kept for each unit. Among images that excite a unit equally the earlier ones are
    taken. Together with a picture they say more about a unit than the picture alone (Borowski et al. 2021,
    arXiv:2010.12606).

    Args:
        model: Any vision network.
        layers: One name or several, of maps (N, C, H, W), vectors (N, C) or tokens (N, T, C).
        loader: Batches of images (N, C, H, W), or tuples that begin with them, in the order of the dataset: a
            `DataLoader` without shuffling, all images in one tensor or array, or any iterable, whose images
            are then numbered in its order.
        k: How many images are found for each unit, and how many with the lowest activations.
        lowest: Also find the images with the lowest activations. After a ReLU most images have the lowest
            one, 0: name the layer before it.
        reduction: ``"max"`` takes the highest (for `lowest` the lowest) activation over all positions of a
            map or of tokens, ``"mean"`` their mean.
        preprocess: From the images of the loader to the input of the network, such as
            `robustness.preprocess("imagenet")`; it must not move pixels.
        channel_axis: The axis of the channels, where it cannot be told.
        grid: Height and width of the grid that tokens stand on, where it cannot be told.
        resume: A ``.safetensors`` file to keep the search in. A search that was killed goes on from there,
            and one that is finished is read from there.
        verbose: Show a progress bar.

    Raises:
        LayerError: A layer does not exist, or the forward pass does not reach it.
        ArgumentError: No layer, no images, fewer than k images, a loader that shuffles, an unknown reduction,
            or a file that holds another search.
        ShapeError: The batches are no floating-point images, or activations have no channels.
        NonFiniteError: Activations are NaN or infinite.

    Example:
        >>> from toumei.models import ShapesCNN, ShapesDataset
        >>> loader = DataLoader(ShapesDataset(size=20), batch_size=10)
        >>> examples = dataset_examples(ShapesCNN(pretrained=True), "conv4", loader, k=3, verbose=False)
        >>> examples.values("conv4:5").argmax(), examples.images("conv4:5").shape
        (tensor(0), torch.Size([3, 3, 64, 64]))
    """
    names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    check_model(model)
    resolve(model, names)
    _check(names, loader, k)
    laid_out = partial(channels_of, channel_axis=channel_axis, grid=grid)
    dataset = loader.dataset if _indexed(loader) else images_by_index(loader)
    examples = DatasetExamples(highest={}, lowest={}, fields={}, seen=0, dataset=dataset)
    found: Survey | None = None
    state = None
    if resume is not None:
        settings = SearchSettings(
            layers=names,
            k=k,
            lowest=lowest,
            reduction=reduction,
            channel_axis=channel_axis,
            grid=None if grid is None else list(grid),
            preprocess=name_of(preprocess),
            images=_size(loader),
            model=f"{type(model).__name__} {fingerprint_of(model)}",
        )
        state = SearchState(Path(resume), settings)
        examples = state.read(examples)
    try:
        with evaluating(model):
            for images in _images(loader, examples.seen, verbose):
                shown = as_input(images, model, preprocess)
                if found is None:
                    found = survey(model, names, partial(model, shown[:1]))
                    check_layers_repeat(model, shown[:1], found.names)
                tensors = run(model, shown, record=found.names, detach=True)
                activations = with_layouts_of(found.activations, tensors)
                if not examples.fields:
                    examples = _start(examples, activations, k, lowest, laid_out)
                    fields = receptive_fields(model, found, shown[:4], laid_out)
                    examples = replace(examples, fields=fields)
                examples = _after(examples, activations, len(images), reduction, laid_out)
                if state:
                    state.write_now_and_then(examples)
    finally:
        if state:
            state.write(examples)
    if examples.seen < k:
        raise ArgumentError(f"k is {k}, but the loader has {counted(examples.seen, 'image')}")
    return examples


def _start(
    examples: DatasetExamples,
    activations: Mapping[str, Tensor],
    k: int,
    lowest: bool,
    laid_out: Callable[..., Channels],
) -> DatasetExamples:
    """Examples with an empty ranking for each unit of these activations."""

    def empty() -> dict[str, Ranking]:
        units = {name: laid_out(activations, name).values for name in activations}
        return {name: Ranking.empty(tensor.shape[1], k, tensor.dtype) for name, tensor in units.items()}

    return replace(examples, highest=empty(), lowest=empty() if lowest else {})


def _after(
    examples: DatasetExamples,
    activations: Mapping[str, Tensor],
    count: int,
    reduction: str,
    laid_out: Callable[..., Channels],
) -> DatasetExamples:
    """The examples after a batch, in one step: what is saved never holds half a batch."""

    def merged(rankings: Mapping[str, Ranking], lowest: bool) -> dict[str, Ranking]:
        return {
            name: ranking.merged(Responses(laid_out(activations, name), reduction, lowest), examples.seen)
            for name, ranking in rankings.items()
        }

    for name, activation in activations.items():
        if len(activation) != count:
            raise ShapeError(
                f"layer {name!r} returns {tuple(activation.shape)} for {counted(count, 'image')}"
            )
    return replace(
        examples,
        highest=merged(examples.highest, False),
        lowest=merged(examples.lowest, True),
        seen=examples.seen + count,
    )


# ---------------------------------------------------------------- the loader


def _check(layers: list[str], loader: Iterable[Any], k: int) -> None:
    if not layers:
        raise ArgumentError("expected the name of at least one layer")
    if k < 1:
        raise ArgumentError(f"k is how many images to find, from 1 up, got {k}")
    size = _size(loader)
    if size is not None and k > size:
        raise ArgumentError(f"k is {k}, but the dataset has {counted(size, 'image')}")
    if _indexed(loader) and not _in_order(loader):
        raise ArgumentError(
            "the loader does not go through its dataset in order, so images cannot be found by their index: "
            "give shuffle=False and no sampler (a torch.utils.data.Subset chooses images)"
        )


def _indexed(loader: Any) -> TypeGuard[DataLoader[Any]]:
    """Whether images are numbered as in a dataset with an index."""
    return (
        isinstance(loader, DataLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and loader.batch_sampler is not None
    )


def _in_order(loader: DataLoader[Any]) -> bool:
    batches: Any = loader.batch_sampler
    in_order = type(batches) is BatchSampler and type(batches.sampler) is SequentialSampler
    return in_order and getattr(
        loader, "in_order", True
    )  # False lets workers return batches in another order


def _size(loader: Any) -> int | None:
    return len(loader.dataset) if _indexed(loader) else None  # type: ignore[arg-type]


def _images(loader: Iterable[Any], done: int, verbose: bool) -> Iterator[Tensor]:
    """The images of the batches, without the first `done`."""
    with tqdm(total=_size(loader), initial=done, desc="examples", unit="image", disable=not verbose) as bar:
        start = 0
        if done and _indexed(loader):
            loader, start = _rest(loader, done), done
        for batch in batches_of(loader):
            images = batch_in(batch)
            start += len(images)
            fresh = images[max(0, len(images) - (start - done)) :] if start > done else images[:0]
            if len(fresh):
                yield fresh
                bar.update(len(fresh))


def _rest(loader: DataLoader[Any], done: int) -> DataLoader[Any]:
    """The same loader without the first `done` images, which are not read again."""
    sampler: Any = loader.batch_sampler
    return DataLoader(
        Subset(loader.dataset, range(done, len(loader.dataset))),  # type: ignore[arg-type]
        batch_size=sampler.batch_size,
        drop_last=sampler.drop_last,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
