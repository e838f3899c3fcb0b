"""Masks and lengths say how other inputs are read: they are no players, unless they are made some."""

from itertools import product
from math import factorial

import pytest
import torch
from torch import nn

from toumei import attribution as ta
from toumei.attribution import FromData
from toumei.attribution.plots import plot_attribution
from toumei.core.errors import ArgumentError, ShapeError, ToumeiError

HIDING = [
    ta.ExactShapley,
    ta.KernelShap,
    ta.ShapleySampling,
    ta.PartitionShap,
    ta.Lime,
    ta.Occlusion,
    ta.Rise,
]
FOLLOWING = [ta.IntegratedGradients, ta.DeepLift, ta.ExpectedGradients, ta.DeepLiftShap, ta.Saliency]


class Reader(nn.Module):
    """Reads tokens where a mask is set, as an encoder with attention does: a mask of zeros changes it all."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(12, 4), nn.Linear(4, 2)

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None):
        hidden = self.embed(input_ids)
        if token_type_ids is not None:
            hidden = hidden * (1 + token_type_ids[..., None])
        weights = attention_mask[..., None].to(hidden.dtype)
        mean = (hidden * weights).sum(1) / (1 + weights.sum(1))
        return self.head(torch.tanh(mean))


IDS = torch.tensor([[2, 7, 9, 11], [5, 1, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def shapley(score, players):
    """By the definition: the mean over orders of how much a player adds."""
    worth = {kept: score(kept) for kept in product([False, True], repeat=players)}
    values = []
    for player in range(players):
        total = 0.0
        for kept in worth:
            if not kept[player]:
                more = (*kept[:player], True, *kept[player + 1 :])
                size = sum(kept)
                share = factorial(size) * factorial(players - size - 1) / factorial(players)
                total = total + share * (worth[more] - worth[kept])
        values.append(total)
    return torch.stack(values, -1)


@torch.no_grad()
def wanted(net, mask, token):
    return shapley(lambda kept: net(torch.where(torch.tensor(kept), IDS, token), mask)[:, 1], 4)


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float])
@pytest.mark.parametrize("method", [ta.ExactShapley, ta.KernelShap], ids=lambda one: one.__name__)
def test_tokens_have_the_values_of_the_game_in_which_the_mask_stays(method, dtype):
    net, mask = Reader(), MASK.to(dtype)
    as_dict = method(net)({"input_ids": IDS, "attention_mask": mask}, 1, {"input_ids": 6})
    as_tuple = method(net)((IDS, mask), 1, (6, None))
    swapped = method(net)({"attention_mask": mask, "input_ids": IDS}, 1, {"input_ids": 6})
    for values in (as_dict.values["input_ids"], as_tuple.values[0], swapped.values["input_ids"]):
        assert torch.allclose(values, wanted(net, mask, 6), atol=1e-4)
    assert not as_dict.values["attention_mask"].any() and not as_tuple.values[1].any()
    assert as_dict.values["attention_mask"].shape == MASK.shape and as_dict.features.shape == (2, 4)
    assert torch.allclose(as_dict.baseline_output, net(torch.full_like(IDS, 6), mask)[:, 1].detach())


@pytest.mark.parametrize("method", HIDING, ids=lambda one: one.__name__)
def test_no_method_that_hides_parts_hides_the_mask(method):
    net, options = Reader(), {"samples": 30} if method in (ta.Rise, ta.ShapleySampling) else {}
    given = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": torch.tensor([[0, 0, 1, 1]] * 2)}
    result = method(net, **options)(given, [1, 0], {"input_ids": 6})
    assert result.values["input_ids"].any() and not result.values["attention_mask"].any()
    assert not result.values["token_type_ids"].any()


def test_what_stays_is_not_what_is_shown():
    given = {"attention_mask": MASK, "input_ids": IDS}
    result = ta.ExactShapley(Reader())(given, 1, {"input_ids": 6})
    parts = (
        result.plot(),
        *(plot_attribution(result.values[name][None]) for name in ("input_ids", "attention_mask")),
    )
    shown, words, mask = ([patch.get_facecolor() for patch in axes.patches] for axes in parts)
    assert shown == words and shown != mask


def test_occlusion_hides_each_token_and_not_the_mask():
    net = Reader()
    result = ta.Occlusion(net)({"input_ids": IDS, "attention_mask": MASK}, 1, {"input_ids": 6})
    for place in range(4):
        hidden = IDS.clone()
        hidden[:, place] = 6
        drop = (net(IDS, MASK) - net(hidden, MASK))[:, 1].detach()
        assert torch.allclose(result.values["input_ids"][:, place], drop, atol=1e-5)


class Packed(nn.Module):
    """A recurrent network that packs its input: lengths below 1 would be an error."""

    def __init__(self, name="lengths"):
        super().__init__()
        torch.manual_seed(0)
        self.core, self.head = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.flatten(), True, enforce_sorted=False)
        return self.head(self.core(packed)[1][-1])


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
@pytest.mark.parametrize("method", HIDING, ids=lambda one: one.__name__)
def test_lengths_stay(method, shape):
    net, x, lengths = Packed(), torch.randn(2, 5, 2), torch.tensor([3, 5]).reshape(shape)
    options = {"samples": 30} if method in (ta.Rise, ta.ShapleySampling) else {}
    result = method(net, **options)((x, lengths), 1)
    assert result.values[1].shape == lengths.shape and not result.values[1].any()
    assert result.values[0][0, :3].any() and (method is ta.Rise or result.values[0][0, 3:].abs().max() < 1e-3)


@pytest.mark.parametrize(
    "name",
    [
        "mask",
        "attention_mask",
        "src_key_padding_mask",
        "padding_mask",
        "pixel_mask",
        "masks",
        "attnmask",
        "bool_masked_pos",
        "pad",
    ],
)
def test_names_of_masks(name):
    net = Reader()
    net.forward = eval(f"lambda x, {name}: Reader.forward(net, x, {name})", {"Reader": Reader, "net": net})
    for given in ((IDS, MASK), {"x": IDS, name: MASK}):
        values = ta.ExactShapley(net)(given, 1).values
        assert not (values[name] if isinstance(given, dict) else values[1]).any()


@pytest.mark.parametrize(
    "name", ["lengths", "length", "seq_len", "seq_lens", "input_lengths", "x_len", "seqlens"]
)
def test_names_of_lengths(name):
    class Mean(nn.Module):
        def forward(self, x, count):
            kept = torch.arange(x.shape[1]) < count[:, None]
            return (x * kept).sum(1) / count

    net = Mean()
    net.forward = eval(f"lambda x, {name}: Mean.forward(net, x, {name})", {"Mean": Mean, "net": net})
    x, count = torch.rand(3, 4), torch.tensor([4, 2, 3])
    for given in ((x, count), {"x": x, name: count}):
        result = ta.ExactShapley(net)(given)
        first, second = result.values.values() if isinstance(given, dict) else result.values
        assert not second.any() and torch.allclose(result.sums.float(), net(x, count), atol=1e-5)
        assert first.shape == x.shape


def test_lengths_may_be_shares_of_the_longest():
    class Speech(nn.Module):
        def forward(self, wav, wav_lens):
            kept = torch.arange(wav.shape[1]) < (wav_lens * wav.shape[1])[:, None]
            return (wav * kept).sum(1) / wav_lens

    result = ta.ExactShapley(Speech())((torch.rand(2, 4), torch.tensor([1.0, 0.5])))
    assert not result.values[1].any() and result.gap.abs().max() < 1e-5


def test_what_only_sounds_like_a_mask_or_a_length_counts():
    class Flower(nn.Module):
        def forward(self, petal_length, sepal_lens, unmasking, flags):
            return petal_length + 2 * sepal_lens[:, 0] + 3 * unmasking + flags.sum(1)

    ones = torch.ones(2)
    given = 1.5 * ones, torch.full((2, 1), 30), ones, torch.tensor([[True], [True]])
    result = ta.ExactShapley(Flower())(given)
    assert [float(part.flatten()[0]) for part in result.values] == pytest.approx([1.5, 60, 3, 1])
    alone = ta.ExactShapley(nn.Flatten())(torch.ones(2, 1, dtype=torch.bool), lambda out: out[:, 0].float())
    assert alone.values.eq(1).all()

    class Only(nn.Module):
        def forward(self, mask):
            return mask.float().sum(1)

    assert ta.ExactShapley(Only())(MASK).values[0].eq(1).all()
    assert ta.Saliency(Only())(MASK.float()).values.eq(1).all()


def test_booleans_of_arguments_without_names_are_masks_where_they_have_positions():
    class Nameless(nn.Module):
        def forward(self, *given):
            tokens, mask = given
            return (tokens * mask).sum(1)

    x, mask = torch.rand(2, 4), MASK.bool()
    first, second = ta.ExactShapley(Nameless())((x, mask)).values
    assert torch.allclose(first, x * mask, atol=1e-6) and not second.any()
    named = ta.ExactShapley(Nameless(), preprocess=lambda x, gates: (x, gates))((x, mask)).values[1]
    assert named.any()  # where they have another name they count


def test_a_mask_of_pictures_stays_and_pictures_have_superpixels():
    class Masked(nn.Module):
        def forward(self, x, mask):
            return (x * mask[:, None]).sum((1, 2, 3))

    x, mask = torch.rand(1, 3, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool)
    mask[:, 8:] = False
    result = ta.KernelShap(Masked(), samples=300)((x, mask))
    assert result.features.shape[1] < 100 and not result.values[1].any()
    assert abs(result.sums.item() - x[:, :, :8].sum().item()) < 1e-3


# ---------------------------------------------------------------- masks that are made players


def test_a_baseline_of_its_own_makes_a_mask_a_player():
    net = Reader()
    for given, baselines in (
        ({"input_ids": IDS, "attention_mask": MASK}, {"input_ids": 6, "attention_mask": 0}),
        ((IDS, MASK), (6, 0)),
        ((IDS, MASK), (FromData(torch.full((3, 4), 6)), FromData(torch.zeros(3, 4).long()))),
    ):
        result = ta.ExactShapley(net)(given, 1, baselines)
        values = result.values["attention_mask"] if isinstance(given, dict) else result.values[1]
        assert values[0].any() and result.features.shape == (2, 8)
        hidden = net(torch.full_like(IDS, 6), 0 * MASK)[:, 1].detach()
        assert torch.allclose(result.baseline_output, hidden, atol=1e-6)


@pytest.mark.parametrize("method", HIDING, ids=lambda one: one.__name__)
def test_features_say_what_is_hidden(method):
    net, options = Reader(), {"samples": 200} if method in (ta.Rise, ta.ShapleySampling) else {}
    given = {"input_ids": IDS, "attention_mask": MASK}
    words = torch.tensor([0, 0, 1, 2])
    result = method(net, features={"input_ids": words}, **options)(given, 1, {"input_ids": 6})
    assert result.features.shape == (2, 3) and not result.values["attention_mask"].any()
    assert torch.allclose(result.values["input_ids"][:, 0] * 2, result.features[:, 0], atol=1e-6)
    alone = method(net, features=words, **options)(given, 1, {"input_ids": 6})
    assert torch.allclose(alone.features, result.features)
    called = method(net, features=lambda inputs: {"input_ids": words}, **options)(given, 1, {"input_ids": 6})
    assert torch.allclose(called.features, result.features)
    both = method(net, features={"input_ids": words, "attention_mask": words}, **options)(given, 1)
    assert both.features.shape == (2, 3) and both.values["attention_mask"].any()
    only = method(net, features=(None, words), **options)((IDS, MASK), 1)
    assert not only.values[0].any() and only.values[1].any()
    with pytest.raises(ArgumentError, match=r"features for \['ids'\], the inputs have"):
        method(net, features={"ids": words}, **options)(given, 1)
    with pytest.raises(ShapeError, match="do not broadcast"):
        method(net, features={"input_ids": torch.arange(3)}, **options)(given, 1)


def test_drops_and_mean_scores_of_features_by_hand():
    net, words = Reader(), torch.tensor([0, 0, 1, 2])
    given = {"input_ids": IDS, "attention_mask": MASK}
    drops = ta.Occlusion(net, features={"input_ids": words})(given, 1, {"input_ids": 6})

    def hide(kept):
        return net(torch.where(torch.tensor(kept)[words], IDS, 6), MASK)[:, 1].detach()

    full = hide((True, True, True))
    for word in range(3):
        kept = tuple(other != word for other in range(3))
        assert torch.allclose(drops.features[:, word], full - hide(kept), atol=1e-6)
    means = ta.Rise(net, samples=4000, features={"input_ids": words})(given, 1, {"input_ids": 6})
    for word in range(3):
        games = [kept for kept in product([False, True], repeat=3) if kept[word]]
        mean = torch.stack([hide(kept) for kept in games]).mean(0)
        assert ((means.features[:, word] - mean).abs() < 0.02).all()
    assert means.standard_error["input_ids"].max() < 0.01


def test_features_and_windows_exclude_each_other():
    with pytest.raises(ArgumentError, match="give either features or a window"):
        ta.Occlusion(Reader(), features=torch.arange(4), window=2)
    pictures = ta.Occlusion(nn.Sequential(nn.Flatten(), nn.Linear(768, 1)), features=ta.superpixels)(
        torch.rand(1, 3, 16, 16)
    )
    assert pictures.values.shape == (1, 3, 16, 16) and pictures.features.shape[1] > 1


# ---------------------------------------------------------------- methods that follow gradients


class Embedded(nn.Module):
    def forward(self, inputs_embeds, attention_mask):
        weights = attention_mask[..., None].to(inputs_embeds.dtype)
        return ((inputs_embeds * weights).sum(1) / (1 + weights.sum(1))).square().sum(1)


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float])
@pytest.mark.parametrize("method", FOLLOWING, ids=lambda one: one.__name__)
def test_masks_of_every_dtype_stay_on_a_path(method, dtype):
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    result = method(Embedded())((x, MASK.to(dtype)))
    assert not result.values[1].any() and result.values[0].any()
    if result.baseline_output is not None:
        assert result.baseline_output.abs().max() == 0
        if result.standard_error is None:
            assert result.gap.abs().max() < 1e-2 * result.output.max()


def test_a_path_of_a_mask_is_refused_or_taken():
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    for mask in (MASK, MASK.bool()):
        with pytest.raises(ArgumentError, match="the baseline of whole numbers would not be used"):
            ta.IntegratedGradients(Embedded())((x, mask), baselines=(0.0, 0))
    moved = ta.IntegratedGradients(Embedded())((x, MASK.float()), baselines=(x[0], 0.0))
    assert moved.values[1].any()


@pytest.mark.parametrize("method", [ta.IntegratedGradients, ta.DeepLift, ta.ExactShapley, ta.KernelShap])
def test_the_mask_stays_where_a_layer_is_attributed_to(method):
    net = Reader()
    features = (
        {} if method in (ta.IntegratedGradients, ta.DeepLift) else {"features": torch.arange(4)[:, None]}
    )
    given = {"input_ids": IDS, "attention_mask": MASK}
    result = method(net, layer="embed", **features)(given, 1, {"input_ids": 6})
    gone = (net(IDS, MASK) - net(torch.full_like(IDS, 6), MASK))[:, 1].detach()
    assert torch.allclose(result.sums.float(), gone, atol=2e-3)
    head = method(net, layer="head")(given, 1, {"input_ids": 6})
    assert torch.allclose(head.sums.float(), gone, atol=1e-4)


def test_baselines_for_names_that_do_not_exist_are_refused():
    for method in (ta.ExactShapley, ta.Occlusion):
        with pytest.raises(ToumeiError, match=r"baselines for \['ids'\]"):
            method(Reader())({"input_ids": IDS, "attention_mask": MASK}, 1, {"ids": 3})
