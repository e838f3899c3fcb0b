"""An error or an interrupt in the middle of any call leaves the model and torch as they were."""

import warnings
from collections import OrderedDict
from contextlib import contextmanager, suppress

import pytest
import torch
from architectures import TOKENS, build
from editing_helpers import ASK, CONTEXTS, corpus
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from transformers import PreTrainedTokenizerFast

import toumei.attribution as attribution
import toumei.cnns.objectives as objectives
import toumei.cnns.parameterization as parameterization
from toumei import cnns, misc
from toumei.core import hooked, run, survey
from toumei.transformers import (
    CausalTracer,
    EditCase,
    EditRequest,
    RankOneEditor,
    collect_statistics,
    evaluate_edits,
    logit_lens,
    revert_all,
)

IMAGES = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 3])
METHODS = {
    "LayerConductance": {"layer": "relu1", "steps": 3},
    "GradCam": {"layer": "relu2"},
    "GradCamPlusPlus": {"layer": "relu2"},
    "LayerCam": {"layer": "relu2"},
    "GuidedGradCam": {"layer": "relu2"},
    "Occlusion": {"window": 6, "stride": 6, "verbose": False},
    "IntegratedGradients": {"steps": 3, "tolerance": 10.0},
    "SmoothGrad": {"samples": 3},
    "VarGrad": {"samples": 3},
    "ExpectedGradients": {"samples": 3},
    "DeepLiftShap": {"samples": 3},
    "Rise": {"samples": 6, "verbose": False},
    "Lime": {"samples": 12, "verbose": False},
    "KernelShap": {"samples": 12, "verbose": False},
    "ShapleySampling": {"samples": 16, "verbose": False},
    "PartitionShap": {"samples": 12, "verbose": False},
    "ExactShapley": {"verbose": False},
}
QUARTERS = torch.arange(4).reshape(2, 2).repeat_interleave(6, 0).repeat_interleave(6, 1)
FEATURES = {"Lime", "KernelShap", "ShapleySampling", "PartitionShap", "ExactShapley"}


def attributed(name):
    kind = getattr(attribution, name)
    features = {"features": QUARTERS} if name in FEATURES else {}
    baseline = attribution.FromData(IMAGES) if name in ("ExpectedGradients", "DeepLiftShap") else 0.0
    options = METHODS.get(name, {}) | features
    return lambda model: kind(model, **options)(IMAGES[:2], CLASSES[:2], baseline)


def optimized(objective, **options):
    generator = parameterization.FFTImage(2, 3, 12, 12, seed=0)
    return lambda model: (
        cnns.Pipeline(generator, objective).attach(model).optimize(3, seed=0, verbose=False, **options)
    )


def saliency(model):
    return attribution.Saliency(model)


def values(model):
    return torch.ones_like(IMAGES)


SETTINGS = {"steps": 3, "verbose": False, "seed": 0}
VISION = {
    **{
        name: attributed(name)
        for name in attribution.__all__
        if isinstance(kind := getattr(attribution, name), type)
        and issubclass(kind, attribution.Method)
        and kind is not attribution.Method
    },
    "compare": lambda model: attribution.compare([saliency(model)], IMAGES, 1, samples=3, steps=2),
    "insertion": lambda model: attribution.insertion(model, IMAGES, values(model), 1, steps=2),
    "deletion": lambda model: attribution.deletion(model, IMAGES, values(model), 1, steps=2),
    "removals": lambda model: attribution.removals(model, IMAGES, values(model), 1, samples=3),
    "infidelity": lambda model: attribution.infidelity(model, IMAGES, values(model), 1, samples=3),
    "max_sensitivity": lambda model: attribution.max_sensitivity(saliency(model), IMAGES, 1, samples=3),
    "randomization": lambda model: attribution.randomization(saliency(model), IMAGES, 1),
    "pipeline of a unit": optimized(objectives.Channel("relu2:1")),
    "pipeline of a class": optimized(objectives.ClassLogit(1)),
    "pipeline of a sum": optimized(objectives.Channel("conv2:1") + 0.1 * objectives.Diversity("relu1")),
    "dataset_examples": lambda model: cnns.dataset_examples(
        model, ["relu2", "head"], [IMAGES[:2], IMAGES[2:]], k=2, verbose=False
    ),
    "activation_atlas": lambda model: cnns.activation_atlas(
        model,
        "relu2",
        [IMAGES, IMAGES],
        grid=2,
        min_count=1,
        layout="pca",
        logits="head",
        size=8,
        **SETTINGS,
    ),
    "group_channels": lambda model: cnns.group_channels(model, "relu1", IMAGES, 2, batch_size=2),
    "expanded_weights": lambda model: cnns.expanded_weights(model, "conv1", "conv2", IMAGES[:1]),
    "caricature": lambda model: cnns.caricature(model, IMAGES[0], "relu1", **SETTINGS),
    "invert": lambda model: cnns.invert(model, IMAGES[0], "relu1", **SETTINGS),
    "deep_dream": lambda model: cnns.deep_dream(model, IMAGES[0], "relu1", octaves=1, **SETTINGS),
    "sanity_check": lambda model: cnns.sanity_check(
        model, ["relu2:1"], IMAGES[:1], [IMAGES[1:]], [IMAGES[1:]], ["conv1", "relu2"]
    ),
    "correlation_graph": lambda model: misc.correlation_graph(
        model, ["relu1", "relu2"], IMAGES, batch_size=2
    ),
    "perturbation_sharpness": lambda model: misc.perturbation_sharpness(
        model, F.cross_entropy, IMAGES, CLASSES, samples=3
    ),
    "hessian_trace": lambda model: misc.hessian_trace(model, F.cross_entropy, IMAGES, CLASSES, samples=3),
    "top_eigenvalue": lambda model: misc.top_eigenvalue(model, F.cross_entropy, IMAGES, CLASSES, steps=3),
    "neural_tangent_kernel": lambda model: misc.neural_tangent_kernel(model, IMAGES, batch_size=2),
    "run": lambda model: run(model, IMAGES, record=["relu1", "head/linear"]),
    "hooked": lambda model: within(hooked(model, ["head"], {"conv1": torch.zeros_like}), model),
    "survey": lambda model: survey(model, ["relu2", "head"], lambda: model(IMAGES)),
    "redirected_relu": lambda model: within(cnns.redirected_relu(model), model),
    "relaxed_max_pool": lambda model: within(cnns.relaxed_max_pool(model), model),
}


def edited(editor):
    with editor.edit(**ASK, layer=1):
        return editor.model(torch.tensor([[1, 2, 3]]))


def within(context, model):
    with context:
        return model(IMAGES)


LANGUAGE = {
    "trace": lambda editor: CausalTracer(editor.model, editor.tokenizer).trace(
        "w9 w3 w4 w5", "w3 w4", samples=2
    ),
    "logit_lens": lambda editor: logit_lens(editor.model, editor.tokenizer, "w9 w3 w4", "w5"),
    "collect_statistics": lambda editor: collect_statistics(
        editor.model, editor.tokenizer, corpus(6), [1], verbose=False
    ),
    "token_attribution": lambda editor: attribution.token_attribution(
        editor.model,
        editor.tokenizer,
        "w9 w3 w4",
        "w5",
        method=attribution.IntegratedGradients(editor.model, steps=2, tolerance=10.0),
    ),
    "edit": lambda editor: edited(editor),
    "evaluate_edits": lambda editor: evaluate_edits(
        editor, [EditCase(EditRequest(*ASK.values()), "w12")], layer=1, verbose=False
    ),
}


class Stop(RuntimeError):
    """The error that is injected."""


@contextmanager
def failing(module, at, error):
    """Raises an error at a call of a module or a copy of it; a call of 0 only counts."""
    calls, kind = [0], type(module)
    original = kind.forward

    def forward(self, *args, **kwargs):
        ours = self.extra_repr() == module.extra_repr()
        calls[0] += ours
        if ours and calls[0] == at:
            raise error
        return original(self, *args, **kwargs)

    kind.forward = forward
    try:
        yield calls
    finally:
        kind.forward = original


def state(model):
    """All that a call could leave behind: on the model, and in torch."""
    hooks = [
        (name, key)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if (key.endswith("hooks") and value) or key == "forward"
    ]
    flags = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    torch_state = (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        len(_get_current_function_mode_stack()),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_rng_state().tolist(),
    )
    weights = OrderedDict((name, tensor.clone()) for name, tensor in model.state_dict().items())
    return weights, hooks, flags, [m.training for m in model.modules()], torch_state


def check_same(before, after):
    for name, tensor in before[0].items():
        assert torch.equal(tensor, after[0][name]), f"{name} was changed"
    for what, first, second in zip(("hooks", "flags", "modes", "torch"), before[1:], after[1:], strict=True):
        assert first == second, what


def injected(model, module, call):
    """Calls once to count, then with an error at the first, second, middle and last call of a module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = state(model)
        with failing(module, 0, None) as calls:
            call()
        check_same(before, state(model))
        assert calls[0], "the module did not run"
        places = sorted({1, min(2, calls[0]), (calls[0] + 1) // 2, calls[0]})
        for at in places:
            for error in (Stop("injected"), KeyboardInterrupt()):
                with failing(module, at, error), suppress(Stop, KeyboardInterrupt):
                    call()
                check_same(before, state(model))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", VISION)
def test_an_error_inside_a_network_for_images_changes_nothing(name, training, small_cnn):
    small_cnn.train(training)
    small_cnn.conv1.weight.requires_grad_(False)
    try:
        injected(small_cnn, small_cnn.conv2, lambda: VISION[name](small_cnn))
    finally:
        small_cnn.train()
        small_cnn.conv1.weight.requires_grad_(True)


@pytest.fixture(scope="module")
def editor():
    """An editor of a tiny GPT-2 with statistics; its tokenizer knows the words w0 to w63."""
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(TOKENS)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer, model = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0"), build("gpt2")
    statistics = collect_statistics(model, tokenizer, corpus(20), [0, 1, 2], verbose=False)
    return RankOneEditor(model, tokenizer, statistics, contexts=CONTEXTS)


@pytest.mark.parametrize("name", LANGUAGE)
def test_an_error_inside_a_language_model_changes_nothing(name, editor):
    def call():
        try:
            LANGUAGE[name](editor)
        finally:
            revert_all(editor.model)

    injected(editor.model, editor.model.transformer.h[2].attn, call)
