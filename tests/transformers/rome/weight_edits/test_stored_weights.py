"""Weights however they are stored: edited, and given back as the very same bits."""

import copy
import gc

import pytest
import torch
from architectures import build
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from toumei.core.errors import EditError
from toumei.core.fingerprint import fingerprint_of
from toumei.core.tensors import whole
from toumei.transformers.model.families import anatomy
from toumei.transformers.rome.editing import RankOneEditor
from toumei.transformers.rome.statistics import collect_statistics

# Tiny networks with random weights take few edits.
pytestmark = pytest.mark.filterwarnings("ignore:.*(did not take|took only weakly)")

ASK = {"prompt": "w9 w8 {}", "subject": "w3 w4 w5", "target": "w11", "layer": 1, "steps": 15}
TEXTS = [" ".join(f"w{(7 * i + k * k) % 64}" for k in range(12)) for i in range(80)]


class Int8(torch.Tensor):
    """Eight bits a value and a scale a row, as libraries for quantization store a weight."""

    @staticmethod
    def __new__(cls, codes, scale):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=scale.dtype)

    def __init__(self, codes, scale):
        self.codes, self.scale = codes, scale

    @classmethod
    def of(cls, weight):
        scale = weight.abs().amax(1, keepdim=True) / 127
        return cls((weight / scale).round().to(torch.int8), scale)

    def dequantize(self):
        return self.codes * self.scale

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is nn.functional.linear:
            inputs, weight, *bias = args
            return nn.functional.linear(inputs, weight.codes * weight.scale, *bias)
        return super().__torch_function__(function, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:
            return cls(args[0].codes, args[0].scale)
        raise NotImplementedError(f"{function} of a quantized weight")


def quantized(kind="llama"):
    model = copy.deepcopy(build(kind))
    for layer in range(anatomy(model).layers):
        down = model.get_submodule(anatomy(model).down(layer))
        down.weight = nn.Parameter(Int8.of(down.weight.detach()), requires_grad=False)
    return model


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([[9, 8, 3, 4, 5]])).logits


def probability(model):
    return float(logits(model)[0, -1].softmax(0)[11])


def test_a_quantized_weight_is_rebuilt_for_an_edit_and_comes_back_itself(tokenizer):
    model = quantized()
    down = model.model.layers[1].mlp.down_proj
    stored, before, mark = down.weight, logits(model), fingerprint_of(model)
    statistics = collect_statistics(model, tokenizer, TEXTS, [1], verbose=False)
    editor = RankOneEditor(model, tokenizer, statistics, contexts=())
    first, second = editor.edit(**ASK), editor.edit(**{**ASK, "subject": "w6 w7"})
    likely = probability(model)
    with first:
        assert probability(model) > likely + 0.1
        assert type(down.weight.data) is torch.Tensor and down.weight.dtype == torch.float32
        change = first.changes[1].dense.double()
        torch.testing.assert_close(down.weight.double(), stored.dequantize() + change)
        second.apply()
    second.revert()
    assert down.weight is stored and torch.equal(logits(model), before) and fingerprint_of(model) == mark


def test_an_edit_of_a_quantized_model_is_saved_and_loaded(tokenizer, tmp_path):
    model = quantized()
    editor = RankOneEditor(model, tokenizer, contexts=())
    with pytest.warns(UserWarning, match="identity"):
        edit = editor.edit(**ASK)
    edit.save(tmp_path / "edit.safetensors")
    with edit:
        edited = logits(model)
    with editor.load(tmp_path / "edit.safetensors"):
        assert torch.equal(logits(model), edited)
    down = model.model.layers[2].mlp.down_proj
    down.weight = nn.Parameter(Int8(down.weight.codes ^ 1, down.weight.scale), requires_grad=False)
    with pytest.raises(EditError, match="other weights"):
        editor.load(tmp_path / "edit.safetensors")


def test_what_took_the_place_of_a_rebuilt_weight_is_not_overwritten(tokenizer):
    model = quantized()
    with pytest.warns(UserWarning, match="identity"):
        edit = RankOneEditor(model, tokenizer, contexts=()).edit(**ASK)
    down = model.model.layers[1].mlp.down_proj
    edit.apply()
    with torch.no_grad():
        down.weight.mul_(2)
    with pytest.raises(EditError, match="changed by something else"):
        edit.revert()


class Opaque(Int8):
    def dequantize(self):
        raise NotImplementedError


class OwnLinear(nn.Linear):
    def forward(self, inputs):
        return inputs @ self.weight.dequantize().T


@pytest.mark.parametrize("how", ["opaque", "own forward", "offloaded"])
def test_weights_that_cannot_be_rebuilt_are_refused(how, tokenizer):
    model = copy.deepcopy(build("llama"))
    with pytest.warns(UserWarning, match="identity"):
        edit = RankOneEditor(model, tokenizer, contexts=()).edit(**ASK)
    layer = model.model.layers[1].mlp
    weight = layer.down_proj.weight.detach()
    if how == "offloaded":
        layer.down_proj.weight = nn.Parameter(weight.to("meta"))
    else:
        if how == "own forward":
            layer.down_proj.__class__ = OwnLinear
        kind = Opaque if how == "opaque" else Int8
        layer.down_proj.weight = nn.Parameter(kind.of(weight), requires_grad=False)
    stored = layer.down_proj.weight
    with pytest.raises(EditError, match="not in memory" if how == "offloaded" else "dequantize"):
        edit.apply()
    assert layer.down_proj.weight is stored and not edit.applied


@pytest.fixture
def mesh():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    gc.collect()  # the hooks of parallel layers go with their model
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:DTensor random operators")  # torch 2.6, which draws nothing here
def test_a_sharded_weight_is_edited_as_a_whole_one(mesh, tokenizer, tmp_path):
    plain = copy.deepcopy(build("llama"))
    model = copy.deepcopy(plain)
    plan = {
        f"model.layers.{layer}.mlp.{name}": style()
        for layer in range(3)
        for name, style in (
            ("gate_proj", ColwiseParallel),
            ("up_proj", ColwiseParallel),
            ("down_proj", RowwiseParallel),
        )
    }
    parallelize_module(model, mesh, plan)
    down = model.model.layers[1].mlp.down_proj
    stored, before = down.weight, whole(down.weight).clone()
    assert isinstance(stored, DTensor)
    statistics = collect_statistics(model, tokenizer, TEXTS, [1], verbose=False)
    edit = RankOneEditor(model, tokenizer, statistics, contexts=()).edit(**ASK)
    with edit:
        assert down.weight is stored and isinstance(stored, DTensor)
        torch.testing.assert_close(whole(stored), before + edit.changes[1].dense)
        edited = logits(model)
    assert down.weight is stored and torch.equal(whole(stored), before)
    # Its parts are those of the whole model, and so an edit of one fits the other.
    assert fingerprint_of(model) == fingerprint_of(plain)
    edit.save(tmp_path / "edit.safetensors")
    with RankOneEditor(plain, tokenizer).load(tmp_path / "edit.safetensors"):
        torch.testing.assert_close(logits(plain), edited)


def test_the_fingerprint_sees_every_element_and_not_the_device(language_model):
    model = language_model("gpt2")
    before = fingerprint_of(model)
    weight = model.transformer.wte.weight
    with torch.no_grad():
        old = weight[63, 31].clone()
        weight[63, 31] = torch.nextafter(old, old + 1)
    assert fingerprint_of(model) != before
    with torch.no_grad():
        weight[63, 31] = old
    assert fingerprint_of(model) == before
    swapped = copy.deepcopy(model)
    with torch.no_grad():
        weight = swapped.transformer.h[1].mlp.c_proj.weight
        weight[[0, 1]] = weight[[1, 0]]  # two neurons that change places
    assert fingerprint_of(swapped) != before
    other = copy.deepcopy(model)
    assert fingerprint_of(other) == before
