"""A network that draws random numbers, or counts its passes, is noticed, and its draws can be fixed."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

import toumei.attribution as attribution
from toumei import cnns
from toumei.attribution import (
    Attribution,
    DeepLift,
    DeepLiftShap,
    ExactShapley,
    ExpectedGradients,
    FromData,
    GradCam,
    GradCamPlusPlus,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerCam,
    LayerConductance,
    Lime,
    Method,
    Occlusion,
    PartitionShap,
    Rise,
    Saliency,
    ShapleySampling,
    SmoothGrad,
    VarGrad,
    deletion,
    infidelity,
    insertion,
    max_sensitivity,
    randomization,
    removals,
)
from toumei.core import hooked, seeded_passes
from toumei.core.errors import ToumeiError
from toumei.misc import (
    correlation_graph,
    hessian_trace,
    neural_tangent_kernel,
    perturbation_sharpness,
    top_eigenvalue,
)
from toumei.models import facts_gpt
from toumei.transformers import CausalTracer, HookedModel, RankOneEditor, collect_statistics, logit_lens

SAYS = "two passes of the same row differ|the first row is another one when it passes alone"


class Drawing(nn.Module):
    """Draws or counts in its forward pass, whatever mode it is in."""

    def __init__(self, change):
        super().__init__()
        torch.manual_seed(5)
        self.first, self.last, self.change = nn.Linear(5, 24), nn.Linear(24, 3), change
        self.passes, self.generator = 0, torch.Generator().manual_seed(1)

    def forward(self, x):
        self.passes += 1
        return self.last(self.change(self, F.relu(self.first(x))))


CHANGES = {
    "dropout": lambda net, x: F.dropout(x),
    "noise": lambda net, x: x + 1e-3 * torch.randn_like(x),
    "generator of its own": lambda net, x: x * torch.rand(x.shape, generator=net.generator),
    "numpy": lambda net, x: x * float(np.random.rand()),
    "random": lambda net, x: x * random.random(),
    "counter": lambda net, x: x * (1 + 0.1 * net.passes),
    "every other pass": lambda net, x: x * (1 + net.passes % 2),
}


def drawing(change="dropout"):
    return Drawing(CHANGES[change]).eval(), torch.randn(3, 5, generator=torch.Generator().manual_seed(2))


def pictures():
    class Dropping(nn.Sequential):
        def forward(self, x):
            return F.dropout(super().forward(x))

    torch.manual_seed(1)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    return Dropping(*layers).eval(), torch.rand(2, 3, 8, 8)


METHODS = {
    Saliency: {},
    InputXGradient: {},
    GuidedBackprop: {},
    SmoothGrad: {"samples": 4},
    VarGrad: {"samples": 4},
    IntegratedGradients: {"steps": 4},
    ExpectedGradients: {"samples": 4},
    DeepLiftShap: {"samples": 4},
    LayerConductance: {"layer": "first", "steps": 4},
    ExactShapley: {},
    KernelShap: {},
    ShapleySampling: {"samples": 16},
    PartitionShap: {"samples": 8},
    Lime: {"samples": 20},
    Occlusion: {},
    Rise: {"samples": 20},
}
OF_PICTURES = {GradCam: {}, GradCamPlusPlus: {}, LayerCam: {}, GuidedGradCam: {}}


def test_these_are_all_methods():
    every = {
        one for one in vars(attribution).values() if isinstance(one, type) and issubclass(one, Method)
    } - {Method, DeepLift, attribution.LRP}
    assert every == {*METHODS, *OF_PICTURES}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:contributions of")
def test_every_method_notices(method):
    net, x = drawing("random" if method is DeepLiftShap else "dropout")
    baseline = FromData(torch.randn(6, 5)) if method in (ExpectedGradients, DeepLiftShap) else None
    with pytest.warns(UserWarning, match=SAYS):
        result = method(net, **METHODS[method])(x, 1, baseline)
    assert result.repeat_gap > 0 and "passes differ by" in repr(result)


@pytest.mark.parametrize("method", OF_PICTURES)
def test_maps_notice(method):
    net, x = pictures()
    with pytest.warns(UserWarning, match=SAYS):
        assert method(net, "0")(x, 1).repeat_gap > 0


@pytest.mark.filterwarnings("ignore:contributions of DeepLift")
def test_deep_lift_notices():
    with pytest.raises(ToumeiError, match="no rule for 'dropout' at work"):
        DeepLift(drawing()[0])(torch.randn(3, 5), 1)
    net, x = drawing("random")
    with pytest.warns(UserWarning, match=SAYS):
        assert DeepLift(net)(x, 1).repeat_gap > 0


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_draws_or_counts_is_noticed(change, rows):
    net, x = drawing(change)
    with pytest.warns(UserWarning, match=SAYS):
        result = Saliency(net)(x[:rows], [0, 1])
    assert result.repeat_gap > 0 and result[1].repeat_gap == result.repeat_gap


@pytest.mark.parametrize("layer", ["first", "last"])
def test_draws_before_and_after_a_layer_are_noticed(layer):
    net, x = drawing()
    with pytest.warns(UserWarning, match=SAYS):
        Saliency(net, layer)(x, 1)
    with pytest.warns(UserWarning, match=SAYS):
        KernelShap(net, layer, samples=60)(x, "last:1")


def test_rows_that_depend_on_each_other_are_noticed():
    class Batch(nn.Module):
        def forward(self, x):
            return (x - x.mean(0)) / (1 + x.std(0, correction=0))

    x = torch.randn(4, 5)
    with pytest.warns(UserWarning, match="rows of a batch depend on each other"):
        Occlusion(Batch())(x, 1)


def test_metrics_notice():
    net, x = drawing()
    values = torch.randn(3, 5)
    calls = (
        lambda: insertion(net, x, values, 1, steps=3),
        lambda: deletion(net, x, values, 1, steps=3),
        lambda: removals(net, x, values, 1, samples=4),
        lambda: infidelity(net, x, values, 1, samples=4),
        lambda: max_sensitivity(Saliency(net), x, 1, samples=2),
        lambda: randomization(Saliency(net), x, 1),
    )
    for call in calls:
        with pytest.warns(UserWarning, match=SAYS):
            call()


def test_curvature_notices():
    net, x = drawing()
    given = (net, F.cross_entropy, x, torch.tensor([0, 1, 2]))
    with pytest.warns(UserWarning, match=SAYS):
        perturbation_sharpness(*given, samples=2)
    for function, options in ((hessian_trace, {"samples": 2}), (top_eigenvalue, {"steps": 2})):
        counting = Drawing(CHANGES["counter"]).eval()
        with pytest.warns(UserWarning, match=SAYS):
            function(counting, *given[1:], **options)
    with pytest.warns(UserWarning, match=SAYS):
        neural_tangent_kernel(Drawing(CHANGES["counter"]).eval(), x)


IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
OF_IMAGES = {
    "examples": lambda net: cnns.dataset_examples(net, "0", [IMAGES], k=1, verbose=False),
    "samples": lambda net: cnns.sample_activations(net, "0", [IMAGES], 4, verbose=False),
    "groups": lambda net: cnns.group_channels(net, "0", IMAGES, 2, iterations=2),
    "weights": lambda net: cnns.expanded_weights(net, "0.0", "1", IMAGES[:1], [0]),
    "sanity": lambda net: cnns.sanity_check(net, "1:0", IMAGES[:1], IMAGES, IMAGES, ["0"]),
    "graph": lambda net: correlation_graph(net, ["0", "1"], IMAGES),
}


@pytest.mark.filterwarnings("ignore:there is no score")
@pytest.mark.parametrize("name", OF_IMAGES)
def test_what_looks_at_pictures_notices(name):
    class Dropping(nn.Sequential):
        def forward(self, x):
            return F.dropout(super().forward(x))

    torch.manual_seed(1)
    inner = Dropping(nn.Conv2d(3, 8, 3), nn.ReLU())
    with pytest.warns(UserWarning, match=SAYS):
        OF_IMAGES[name](nn.Sequential(inner, nn.Conv2d(8, 4, 1), nn.ReLU()).eval())
    quiet = nn.Sequential(nn.Sequential(*inner), nn.Conv2d(8, 4, 1), nn.ReLU()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "there is no score")
        OF_IMAGES[name](quiet)


def language_model(draws):
    """A tiny language model, with an activation function that draws, and its tokenizer."""
    _, tokenizer, _ = facts_gpt()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=443, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()

    class Noisy(nn.Module):
        def forward(self, x):
            return F.dropout(F.gelu(x))

    if draws:
        model.transformer.h[0].mlp.act = Noisy()
    return model, tokenizer


OF_TEXTS = {
    "trace": lambda *given: CausalTracer(*given).trace("lives in", "lives", samples=1),
    "lens": lambda *given: logit_lens(*given, "lives in", "in"),
    "editor": lambda *given: RankOneEditor(*given, contexts=()),
    "statistics": lambda *given: collect_statistics(*given, ["lives in"] * 3, [0], verbose=False),
    "hooked": lambda *given: HookedModel(*given),
}


@pytest.mark.parametrize("name", OF_TEXTS)
def test_what_reads_language_models_notices(name):
    with pytest.warns(UserWarning, match=SAYS):
        OF_TEXTS[name](*language_model(True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OF_TEXTS[name](*language_model(False))


@pytest.mark.parametrize("change", ["dropout", "noise", "numpy", "random"])
@pytest.mark.parametrize("method", [Saliency, Occlusion])
def test_passes_with_a_seed_repeat(change, method, watched):
    net, x = drawing(change)
    state, of_numpy, of_python = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with seeded_passes(watched(net), seed=3) as same, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same is net
        first, second = (method(net, batch_size=1)(x, 1) for _ in range(2))
    assert torch.equal(first.values, second.values) and first.repeat_gap == 0
    assert torch.equal(torch.get_rng_state(), state) and random.getstate() == of_python
    assert (np.random.get_state()[1] == of_numpy).all()


def test_seeded_passes_are_those_of_the_seed():
    net, x = drawing()
    torch.manual_seed(9)
    expected = net(x)
    with seeded_passes(net, seed=9):
        assert torch.equal(net(x), expected)
        copied = copy.deepcopy(net)
        nn.init.zeros_(copied.last.weight)
        assert torch.equal(copied(x), copied.last.bias.expand(3, 3))
        with hooked(net, ["first"]) as activations:
            assert torch.equal(net(x), expected)
        assert torch.equal(activations["first"], net.first(x))
        with pytest.raises(RuntimeError):
            net(x[:, :2])
        assert torch.equal(net(x), expected)
        with seeded_passes(net, seed=8):
            assert not torch.equal(net(x), expected)
    assert not torch.equal(net(x), net(x))


def test_networks_that_do_not_draw_are_not_warned_of(tmp_path, small_cnn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = Saliency(small_cnn)(torch.rand(5, 3, 12, 9), 1)
        Saliency(small_cnn.double())(1e6 * torch.rand(5, 3, 12, 9).double(), 1)
    small_cnn.float()
    assert result.repeat_gap == 0 and "passes" not in repr(result)
    net, x = drawing()
    with pytest.warns(UserWarning, match=SAYS):
        result = Saliency(net)(x, 1)
    result.save(tmp_path / "drawn.safetensors")
    assert Attribution.load(tmp_path / "drawn.safetensors").repeat_gap == result.repeat_gap
