"""Attention heads pruned, copied and merged in the weights of a model."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...core.checks import checked
from ...core.errors import ArgumentError, EditError
from ...core.summaries import listed
from ..model.hooked_model import HookedModel
from .changes import Replacement, attribute
from .head_places import HeadPlaces
from .same_result import WAY_OUT, SameResult, zeros_at
from .surgery import Surgery
from .weight_drafts import Drafts, LinearDraft, left_out

Head = tuple[int, int]


@checked
def prune_heads(model: nn.Module, heads: Mapping[int, Sequence[int]]) -> Surgery:
    """Returns the surgery after which a model computes without some attention heads.

    Their queries, and what they write, are cut out of the weights, and with the last head of a group its keys
    and values. The result is that of a zero in place of the output ``z`` of the head, which is checked; the
    bias after the heads stays (Michel et al. 2019, "Are Sixteen Heads Really Better than One?").

    Args:
        model: A transformer.
        heads: For each layer the heads, those of queries. Where several share keys and values, as in Llama,
            as many are pruned of each group, or whole groups.

    Raises:
        ArgumentError: There is no such head, one is given twice, none would be left, or groups of several
            sizes would be.
        LayerError: There is no such layer.
        ArchitectureError: The weights of the heads cannot be told.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> with prune_heads(model, {0: [1, 3]}):
        ...     model.transformer.h[0].attn.c_proj.weight.shape, model.transformer.h[0].attn.num_heads
        (torch.Size([64, 128]), 2)
    """
    given = {layer: list(some) for layer, some in heads.items()}
    if not given:
        raise ArgumentError("expected heads of layers, got none")
    same = SameResult(model)

    def plan() -> list[Replacement]:
        hooked = HookedModel(model)
        drafts, changes = Drafts(model), list[Replacement]()
        edits = {}
        for layer, pruned in given.items():
            changes += _pruned(model, HeadPlaces(hooked.points, layer), pruned, drafts)
            edits["z", layer] = zeros_at(pruned, -2)
        same.expect(hooked, edits)
        return [*changes, *drafts.replacements()]

    names = [f"{layer}.{head}" for layer, some in given.items() for head in some]
    return Surgery(model, f"prune heads {listed(names, 8)}", plan, same.check, WAY_OUT)


@checked
def copy_heads(model: nn.Module, heads: Mapping[Head, Head], donor: nn.Module | None = None) -> Surgery:
    """Returns the surgery after which heads have the weights of other heads, or of another model's.

    The weights and biases of queries, keys, values and of what a head writes are copied, as they are in the
    model before. The bias after the heads, which they share, stays.

    Args:
        model: A transformer.
        heads: For each head, (layer, head), the head whose weights it gets. Where several heads of queries
            share keys and values, as in Llama, these are groups: a head of keys and values with all heads of
            queries that read it.
        donor: The model that the others are in; by default the same.

    Raises:
        ArgumentError: There is no such head.
        LayerError: There is no such layer.
        ArchitectureError: The weights of the heads cannot be told.
        EditError: The heads of the donor have other sizes.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> model = InductionTransformer()
        >>> with copy_heads(model, {(1, 1): (1, 0)}):  # two induction heads
        ...     twice = model(torch.tensor([[0, 3, 4, 3]])).logits[0, -1, 4]
        >>> twice / model(torch.tensor([[0, 3, 4, 3]])).logits[0, -1, 4]
        tensor(2., grad_fn=<DivBackward0>)
    """
    given = dict(heads)
    for pair in given:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ArgumentError(f"heads are pairs (layer, head), got {pair!r}")
    if not given:
        raise ArgumentError("expected heads to copy, got none")

    def plan() -> list[Replacement]:
        points = HookedModel(model).points
        others = points if donor is None else HookedModel(donor).points
        drafts, sources = Drafts(model), Drafts(model if donor is None else donor)
        for (layer, head), (layer_from, head_from) in given.items():
            target, source = HeadPlaces(points, layer), HeadPlaces(others, layer_from)
            for places, one in ((target, head), (source, head_from)):
                places.check([one], places.groups, "heads" if places.per_group == 1 else "groups of heads")
            _copied(target, head, source, head_from, drafts, sources)
        return drafts.replacements()

    names = [f"{source[0]}.{source[1]} to {target[0]}.{target[1]}" for target, source in given.items()]
    return Surgery(model, f"copy heads {listed(names, 4)}", plan)


@checked
def merge_heads(model: nn.Module, layer: int, head: int, other: int) -> Surgery:
    """Returns the surgery after which a head also writes what another one would, and that one nothing.

    The head attends as before. Its map from what it attends to, to what it writes, becomes the sum of both
    heads' maps W_V W_O: exactly where both read the same values, as in a group of Llama, else the nearest of
    the rank that a head has (Eckart & Young 1936). `prune_heads` then cuts out the other head.

    Args:
        model: A transformer.
        layer: The number of the layer.
        head: The head that is left.
        other: The head that it takes over.

    Raises:
        ArgumentError: There is no such head, both are the same, or they are of two groups of several heads
            that share values.
        LayerError: There is no such layer.
        ArchitectureError: The weights of the heads cannot be told.

    Example:
        >>> from toumei.models import facts_gpt
        >>> merge_heads(facts_gpt()[0], 0, 1, 2)
        Surgery(GPT2LMHeadModel: merge head 0.2 into 0.1; not applied)
    """

    def plan() -> list[Replacement]:
        places = HeadPlaces(HookedModel(model).points, layer)
        places.check([head, other])
        drafts = Drafts(model)
        output, written = drafts.of(places.maps["o"]), places.places["o"]
        first, second = (output.weight[written[one]] for one in (head, other))
        if places.groups < places.heads:
            if head // places.per_group != other // places.per_group:
                raise ArgumentError(
                    f"heads {head} and {other} of layer {layer} read values that {places.per_group} heads "
                    f"share: merge heads of one group"
                )
            output.weight[written[head]] = first + second
        else:
            values = drafts.of(places.maps["v"])
            read = [_with_bias(values, places.places["v"][one]) for one in (head, other)]
            rows, output.weight[written[head]] = nearest_sum(read, [first, second])
            columns = places.places["v"][head]
            values.weight[:, columns] = rows[: len(values.weight)]
            if values.bias is not None:
                values.bias[columns] = rows[-1]
        output.weight[written[other]] = 0
        return drafts.replacements()

    return Surgery(model, f"merge head {layer}.{other} into {layer}.{head}", plan)


def nearest_sum(read: Sequence[Tensor], written: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the two factors, of the rank of one head, whose product is nearest to the sum of products.

    Args:
        read: Matrices (width, rank).
        written: Matrices (rank, width).

    Returns:
        (width, rank) and (rank, width), with singular values in equal parts on both.

    Example:
        >>> left, right = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 1.0]])
        >>> A, B = nearest_sum([left, left], [right, right])
        >>> torch.allclose(A @ B, 2 * left @ right)
        True
    """
    rank, dtype = read[0].shape[1], read[0].dtype
    left, right = torch.cat(list(read), 1).double(), torch.cat(list(written)).double()
    (Q, R), (P, S) = torch.linalg.qr(left), torch.linalg.qr(right.T)
    U, values, Vh = torch.linalg.svd(R @ S.T)
    roots = values[:rank].sqrt()
    return (Q @ U[:, :rank] * roots).to(dtype), (roots[:, None] * (Vh[:rank] @ P.T)).to(dtype)


def _pruned(model: nn.Module, places: HeadPlaces, pruned: Sequence[int], drafts: Drafts) -> list[Replacement]:
    """Cuts heads out of the drafts of a layer, and returns the attributes that count heads."""
    heads, groups = places.kept(pruned)
    gone = [group for group in range(places.groups) if group not in groups]
    dropped: dict[LinearDraft, list[int]] = {}
    for letter, some in (("q", pruned), ("k", gone), ("v", gone)):
        columns = places.places[letter][list(some)].flatten().tolist()
        dropped.setdefault(drafts.of(places.maps[letter]), []).extend(columns)
    for draft, columns in dropped.items():
        draft.keep(outputs=left_out(draft.weight.shape[1], columns))
    drafts.of(places.maps["o"]).keep(inputs=places.places["o"][heads].flatten().tolist())
    around = _module_around(model, places)
    return [
        attribute(part, name, size)
        for part in around.modules()
        for name, size in places.sizes(part, len(heads), len(groups)).items()
    ]


def _module_around(model: nn.Module, places: HeadPlaces) -> nn.Module:
    """The smallest module that has all linear layers around the heads."""
    paths = [linear.weight.name.split(".") for linear in places.maps.values()]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return model.get_submodule(".".join(common))


def _copied(
    target: HeadPlaces, head: int, source: HeadPlaces, other: int, drafts: Drafts, sources: Drafts
) -> None:
    """Writes the weights of a head, or of a group of heads, in the place of another."""
    for letter in "qkvo":
        count = target.per_group if letter in "qo" else 1
        new, old = drafts.of(target.maps[letter]), sources.of(source.maps[letter])
        count_from = source.per_group if letter in "qo" else 1
        here = target.places[letter][head * count : (head + 1) * count].flatten()
        there = source.places[letter][other * count_from : (other + 1) * count_from].flatten()
        weight = old.weight[there] if letter == "o" else old.weight[:, there]
        shape = (new.weight[here] if letter == "o" else new.weight[:, here]).shape
        biased = [letter != "o" and one.bias is not None for one in (new, old)]
        if weight.shape != shape or biased[0] != biased[1]:
            raise EditError(
                f"heads of layer {source.layer} of the donor do not fit into layer {target.layer}: weights "
                f"{tuple(weight.shape)} in place of {tuple(shape)}, with a bias: {biased[1]} and {biased[0]}"
            )
        if letter == "o":
            new.weight[here] = weight.to(new.weight)
            continue
        new.weight[:, here] = weight.to(new.weight)
        if new.bias is not None and old.bias is not None:
            new.bias[here] = old.bias[there].to(new.bias)


def _with_bias(draft: LinearDraft, columns: Tensor) -> Tensor:
    """The weight of some outputs, with the bias as a last row where there is one."""
    weight = draft.weight[:, columns]
    return weight if draft.bias is None else torch.cat([weight, draft.bias[None, columns]])
