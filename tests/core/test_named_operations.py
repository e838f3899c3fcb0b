"""Operations inside modules by name: which call is meant, what is recorded, edited, stopped at."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from toumei.core import hooked, run
from toumei.core.errors import UnreachedLayerError


class Functional(nn.Module):
    """ReLUs, sums and pools that no module returns; a child that calls functions, too."""

    def __init__(self, in_place=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.next, self.in_place = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            in_place,
        )
        self.child = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1))

    def forward(self, x):
        first = F.relu(self.conv(x), inplace=self.in_place)
        second = self.child(self.next(first))
        second += first
        return torch.max_pool2d(second.relu(), 2)


def images(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(1))


def steps(model, x):
    """What each step of the forward pass returns, computed by hand."""
    first = model.conv(x).relu()
    added = model.child(model.next(first)) + first
    return {
        "/relu#0": first,
        "/add": added,
        "/relu#1": added.relu(),
        "/max_pool2d": F.max_pool2d(added.relu(), 2),
    }


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_operations_are_recorded_by_name_and_number(grad, in_place, watched):
    model, x = watched(Functional(in_place)), images(2, 3, 6, 8)
    with torch.set_grad_enabled(grad):
        wanted, plain = steps(model, x), model(x)
        with hooked(model, list(wanted)) as found:
            output = model(x)
        assert torch.equal(output, plain)
        for name, tensor in wanted.items():
            assert torch.equal(found[name], tensor), name
        assert torch.equal(run(model, x, record=["/relu"])["/relu"], wanted["/relu#1"])


def test_an_operation_belongs_to_the_innermost_module(watched):
    model, x = watched(Functional()), images(1, 3, 6, 8)
    found = run(model, x, record=["/relu", "child.0/relu", "conv/conv2d", "child.1/conv2d"])
    assert found.runs("/relu") == 2 and found.runs("child.0/relu") == 1
    assert torch.equal(found["conv/conv2d"], model.conv(x))
    with pytest.raises(UnreachedLayerError, match="no operation 'conv2d'.*add, max_pool2d, relu .2 times."):
        run(model, x, record=["/conv2d"])["/conv2d"]
    with pytest.raises(UnreachedLayerError, match=r"'/relu' ran 2 times in a forward pass, #0, #1"):
        run(model, x, record=["/relu#2"])["/relu#2"]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", ["/relu#0", "/add", "/relu", "/max_pool2d"])
def test_an_edit_of_an_operation_is_seen_by_what_follows(name, in_place, watched):
    model, x = watched(Functional(in_place)), images(1, 3, 6, 8)
    with torch.no_grad():
        with hooked(model, [name], {name: torch.neg}) as found:
            output = model(x)
        first = model.conv(x).relu()
        first = -first if name == "/relu#0" else first
        added = model.child(model.next(first)) + first
        added = -added if name == "/add" else added
        active = -added.relu() if name == "/relu" else added.relu()
        pooled = F.max_pool2d(active, 2)
    assert torch.equal(output, -pooled if name == "/max_pool2d" else pooled)
    assert torch.equal(found[name], -steps(model, x)["/relu#1" if name == "/relu" else name])


def test_gradients_flow_through_an_operation_that_works_in_place(watched):
    model, x = watched(Functional(in_place=True)), images(1, 3, 6, 8).requires_grad_()
    with hooked(model, ["/relu#0", "/add"]) as found:
        output = model(x)
    for name in ("/relu#0", "/add"):
        (through,) = torch.autograd.grad(output.sum(), found[name], retain_graph=True)
        assert through.abs().sum() > 0
    added = found["/add"].detach().requires_grad_()
    (expected,) = torch.autograd.grad(F.max_pool2d(added.relu(), 2).sum(), added)
    assert torch.equal(torch.autograd.grad(output.sum(), found["/add"])[0], expected)


def test_a_pass_ends_at_an_operation_with_a_number(watched):
    model, ran = watched(Functional()), []
    handle = model.child.register_forward_hook(lambda *args: ran.append(args))
    run(model, images(1, 3, 6, 8), record=["/relu#0"])
    handle.remove()
    assert not ran


def test_attention_weights_of_gpt2(watched):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=8, vocab_size=11, n_positions=16, attn_implementation="eager",
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = watched(GPT2LMHeadModel(config).eval())
    ids = torch.tensor([[1, 2, 3, 4]])
    name = "transformer.h.1.attn/softmax"
    found = run(model, ids, record=[name, "transformer.h.1.attn[1]"])
    assert found[name].shape == (1, 2, 4, 4) and torch.allclose(found[name].sum(3), torch.ones(1, 2, 4))
    assert torch.equal(found[name], found["transformer.h.1.attn[1]"])
    with torch.no_grad(), hooked(model, ["transformer.h.1.attn"], {name: torch.zeros_like}) as found:
        model(ids)
    projection = model.transformer.h[1].attn.c_proj
    assert torch.equal(found["transformer.h.1.attn"], projection.bias.expand(1, 4, 8))


def test_residual_sums_and_shared_relus_of_resnet(watched):
    torch.manual_seed(0)
    model, x = watched(torchvision.models.resnet18(num_classes=4).eval()), images(1, 3, 32, 48)
    names = ["layer3.0/add", "layer3.0.bn2", "layer3.0.downsample", "layer3.0.relu", "layer3.0.relu#0"]
    found = run(model, x, record=names)
    assert torch.equal(found["layer3.0/add"], found["layer3.0.bn2"] + found["layer3.0.downsample"])
    assert torch.equal(found["layer3.0.relu"], found["layer3.0/add"].relu())
    with torch.no_grad(), hooked(model, edit={"layer3.0.relu": torch.zeros_like}):
        by_module = model(x)
    with torch.no_grad(), hooked(model, edit={"layer3.0/add": torch.zeros_like}):
        by_operation = model(x)
    assert torch.equal(by_module, by_operation)


def test_nothing_stays_on_after_an_error_or_an_interrupt(watched):
    class Failing(nn.Module):
        def __init__(self, error):
            super().__init__()
            self.inner, self.error = nn.Linear(2, 2), error

        def forward(self, x):
            y = self.inner(x).relu()
            with torch.device("cpu"):
                if self.error is not None:
                    raise self.error
            return y

    x = images(1, 2)
    for error in (ZeroDivisionError(), KeyboardInterrupt(), None):
        model = watched(nn.Sequential(Failing(error)))
        try:
            with hooked(model, ["0/relu", "0.inner/linear"]) as found:
                model(x)
        except (ZeroDivisionError, KeyboardInterrupt):
            pass
        assert torch.equal(found["0/relu"], model[0].inner(x).relu())
        assert "forward" not in vars(model[0]) and torch.overrides._get_current_function_mode() is None


def test_parts_of_outputs_are_recorded_and_edited(watched):
    torch.manual_seed(0)
    lstm, x = watched(nn.LSTM(3, 4, batch_first=True)), images(2, 5, 3)
    output, (hidden, cell) = lstm(x)
    found = run(lstm, x, record=["", "[0]", "[1]", "[1][1]"])
    for name, tensor in {"": output, "[0]": output, "[1]": hidden, "[1][1]": cell}.items():
        assert torch.equal(found[name], tensor)
    with hooked(lstm, edit={"[1][1]": torch.zeros_like}):
        kept, (same, zeros) = lstm(x)
    assert torch.equal(kept, output) and torch.equal(same, hidden) and not zeros.any()


def test_parts_of_model_outputs(watched):
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, vocab_size=9
    )
    model = watched(nn.ModuleDict({"bert": BertModel(config).eval()}))
    ids = torch.tensor([[1, 2, 3]])
    plain = model["bert"](ids)
    with hooked(model, ["bert[pooler_output]", "bert"], {"bert[pooler_output]": torch.neg}) as found:
        edited = model["bert"](ids)
    assert torch.equal(edited.pooler_output, -plain.pooler_output) and type(edited) is type(plain)
    assert torch.equal(found["bert[pooler_output]"], -plain.pooler_output)
    assert torch.equal(found["bert"], plain.last_hidden_state)
