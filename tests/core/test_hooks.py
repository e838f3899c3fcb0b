"""The life cycle of the hook engine: what it records, edits and stops, and that nothing is left behind."""

import gc
from weakref import ref

import pytest
import torch
from torch import nn

from toumei.core import hooked, run
from toumei.core.errors import (
    ArchitectureError,
    ArgumentError,
    LayerError,
    OutputError,
    OverwrittenError,
    ShapeError,
    UnreachedLayerError,
)


def hook_count(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def image(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    """Returns its result the way that `kind` says."""

    def __init__(self, kind):
        super().__init__()
        self.linear, self.kind = nn.Linear(3, 3), kind

    def forward(self, x):
        y = self.linear(x)
        return {"tensor": y, "tuple": (y, "cache"), "list": [None, y], "dict": {"mask": 1, "hidden": y}}[
            self.kind
        ]


class Wrapper(nn.Module):
    """Unpacks what its block returns; runs a shared layer twice and one layer never."""

    def __init__(self, kind="tensor"):
        super().__init__()
        self.block, self.shared, self.never = Block(kind), nn.Linear(3, 3), nn.ReLU()

    def forward(self, x):
        y = self.block(x)
        y = {"tensor": lambda: y, "tuple": lambda: y[0], "list": lambda: y[1], "dict": lambda: y["hidden"]}[
            self.block.kind
        ]()
        return self.shared(self.shared(y))


def test_n_hooks_inside_and_none_outside(small_cnn):
    with hooked(small_cnn, record=["conv1", "relu1"], edit={"conv2": torch.abs}):
        assert hook_count(small_cnn) == 3
        small_cnn(image(1, 3, 8, 8))
    assert hook_count(small_cnn) == 0


def test_one_hook_a_module_when_it_is_recorded_edited_and_tied(watched):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model.add_module("alias", model[0])
    watched(model)
    with hooked(model, record=["0", "alias"], edit={"0": torch.abs}):
        assert hook_count(model) == 1
        model(image(1, 2))


@pytest.mark.parametrize("where", ["body", "forward", "edit"])
def test_clean_after_an_exception(small_cnn, where):
    def fail(tensor):
        raise ZeroDivisionError

    with (
        pytest.raises((ZeroDivisionError, RuntimeError)),
        hooked(small_cnn, ["conv1"], {"conv2": fail if where == "edit" else torch.abs}),
    ):
        if where == "body":
            raise ZeroDivisionError
        small_cnn(torch.zeros(1, 7, 8, 8) if where == "forward" else torch.zeros(1, 3, 8, 8))
    assert hook_count(small_cnn) == 0


def test_a_wrong_name_is_found_before_any_hook_is_registered(small_cnn, monkeypatch):
    registered = []
    monkeypatch.setattr(nn.Module, "register_forward_hook", lambda *args: registered.append(args))
    with pytest.raises(LayerError, match=r"no layer 'conv'.*did you mean conv1, conv2"):
        with hooked(small_cnn, record=["conv1", "conv", "conv2"]):
            pass
    assert not registered


def test_clean_when_registration_itself_fails(small_cnn, monkeypatch):
    register = nn.Module.register_forward_hook

    def failing(module, hook, **options):
        if module is small_cnn.conv2:
            raise MemoryError
        return register(module, hook, **options)

    monkeypatch.setattr(nn.Module, "register_forward_hook", failing)
    with pytest.raises(MemoryError), hooked(small_cnn, record=["conv1", "conv2", "relu2"]):
        pass
    assert hook_count(small_cnn) == 0


def test_nested_blocks_keep_to_themselves(small_cnn):
    x = image(1, 3, 8, 8)
    with hooked(small_cnn, ["conv2"]) as outer:
        with hooked(small_cnn, ["conv2"], {"conv1": torch.zeros_like}) as inner:
            small_cnn(x)
        assert hook_count(small_cnn) == 1
        zeroed = inner["conv2"]
        assert torch.equal(outer["conv2"], zeroed)
        small_cnn(x)
    assert torch.equal(inner["conv2"], zeroed)
    assert not torch.equal(outer["conv2"], zeroed)


def test_an_inner_stop_ends_the_inner_block_only(small_cnn):
    with hooked(small_cnn, ["conv1", "head"]) as outer:
        with hooked(small_cnn, ["relu1#0"], stop=True):
            small_cnn(image(1, 3, 8, 8))
        after_inner = True
        assert "conv1" in outer and "head" not in outer
    assert after_inner


def test_an_outer_stop_ends_both_blocks(small_cnn):
    with hooked(small_cnn, ["conv1#0"], stop=True) as outer:
        with hooked(small_cnn, ["head"]) as inner:
            small_cnn(image(1, 3, 8, 8))
        raise AssertionError("the pass was not stopped")
    assert "conv1#0" in outer and "head" not in inner
    assert hook_count(small_cnn) == 0


def test_recording_is_the_prefix_of_the_network(small_cnn):
    x = image(2, 3, 9, 6)
    with hooked(small_cnn, record=["relu1", "pool", ""]) as activations:
        output = small_cnn(x)
    assert torch.equal(activations["relu1"], small_cnn.conv1(x).relu())
    assert torch.equal(activations[""], output)
    assert list(activations) == ["relu1", "pool", ""] and len(activations) == 3


def test_a_recording_sees_the_edit_of_its_layer_and_so_does_the_rest(small_cnn):
    x = image(1, 3, 8, 8)
    with hooked(small_cnn, ["conv1", "conv2"], {"conv1": lambda t: t.mul_(2)}) as activations:
        small_cnn(x)
    plain = small_cnn.conv1(x)
    assert torch.equal(activations["conv1"], 2 * plain)
    torch.testing.assert_close(activations["conv2"], small_cnn.conv2((2 * plain).relu()))


def test_an_edit_in_place_leaves_what_was_recorded_before(small_cnn):
    model = nn.Sequential(nn.Linear(2, 2), nn.Identity())
    x = image(1, 2)
    with hooked(model, ["0"], {"1": lambda t: t.zero_()}, clone=False) as activations:
        assert torch.equal(model(x), torch.zeros(1, 2))
    assert torch.equal(activations["0"], model[0](x))


def test_the_model_may_write_into_what_an_edit_expanded():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            y = self.linear(x)
            y += x
            return y

    model, x, value = InPlace(), torch.randn(4, 3), torch.randn(3)
    with hooked(model, edit={"linear": lambda y: value.expand_as(y)}):
        assert torch.equal(model(x), value + x)


def test_an_edit_of_another_shape_is_refused(small_cnn):
    with pytest.raises(ShapeError, match=r"'conv1' must return \(1, 6, 8, 8\), got \(1, 3, 8, 8\)"):
        with hooked(small_cnn, edit={"conv1": lambda t: t[:, :3]}):
            small_cnn(image(1, 3, 8, 8))


@pytest.mark.parametrize("kind", ["tensor", "tuple", "list", "dict"])
def test_outputs_of_every_kind_are_recorded_and_edited(kind, watched):
    model = watched(Wrapper(kind))
    x = image(2, 3)
    with hooked(model, ["block"], {"block": lambda t: -t}) as activations:
        output = model(x)
    y = -model.block.linear(x)
    assert torch.equal(activations["block"], y)
    assert torch.equal(output, model.shared(model.shared(y)))


def test_model_outputs_of_transformers(watched):
    from transformers import GPT2Config, GPT2Model

    model = watched(
        GPT2Model(GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=11, n_positions=16)).eval()
    )
    tokens = torch.tensor([[1, 2, 3]])
    with hooked(model, ["", "h.0", "h.1.attn"]) as activations:
        plain = model(tokens)
    assert torch.equal(activations[""], plain.last_hidden_state)
    assert activations["h.0"].shape == activations["h.1.attn"].shape == (1, 3, 8)
    with hooked(model, edit={"": lambda t: t + 1}):
        edited = model(tokens)
    assert type(edited) is type(plain) and torch.equal(edited.last_hidden_state, plain.last_hidden_state + 1)
    assert edited[0] is edited.last_hidden_state and edited.past_key_values is not None


def test_an_output_without_a_tensor_is_named():
    class Text(nn.Module):
        def forward(self, x):
            return "text"

    model = nn.Sequential(Text())
    with (
        pytest.raises(OutputError, match="a tensor, or a tuple, list, mapping or dataclass.*got str"),
        hooked(model, ["0"]),
    ):
        model(1)


def test_tied_modules_are_found_by_both_names(watched):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model.add_module("tied", model[0])
    watched(model)
    x = image(1, 2)
    with hooked(model, ["0", "tied"], every=True) as activations:
        model(x)
    first, second = activations.calls("tied")
    assert torch.equal(first, model[0](x)) and torch.equal(second, model[0](model[0](x).relu()))
    assert torch.equal(activations["0"], second)


def test_the_last_call_wins_unless_every_one_is_asked_for(watched):
    model = watched(Wrapper())
    x = image(1, 3)
    with hooked(model, ["shared"]) as last, hooked(model, ["shared"], every=True) as every:
        output = model(x)
    assert len(last.calls("shared")) == 1 and torch.equal(last["shared"], output)
    once = model.shared(model.block.linear(x))
    assert [t.equal(o) for t, o in zip(every.calls("shared"), (once, output), strict=True)] == [True, True]


def test_a_stopped_pass_runs_nothing_behind_the_last_needed_layer(small_cnn):
    ran = []
    handle = small_cnn.conv2.register_forward_hook(lambda *args: ran.append(args))
    with hooked(small_cnn, record={"relu": "relu1#0", "conv": "conv1#0"}, stop=True) as activations:
        small_cnn(image(1, 3, 8, 8))
        ran.append("the rest of the block")
    handle.remove()
    assert not ran and set(activations) == {"conv", "relu"}


def test_a_stopping_block_without_a_forward_pass(small_cnn):
    with hooked(small_cnn, record=["conv1"], stop=True) as activations:
        pass
    assert len(activations) == 0


def test_a_name_without_a_number_means_the_last_run_and_a_number_picks_one(watched):
    model, x = watched(Wrapper()), image(1, 3)
    once = model.shared(model.block.linear(x))
    found = run(model, x, record=["shared", "shared#0", "shared#1"])
    assert torch.equal(found["shared#0"], once)
    assert torch.equal(found["shared"], model.shared(once)) and torch.equal(
        found["shared"], found["shared#1"]
    )
    assert found.runs("shared") == 2


def test_a_run_that_does_not_exist_says_how_many_there_are(watched):
    model = watched(Wrapper())
    with hooked(model, ["shared#2"]) as found:
        model(image(1, 3))
    with pytest.raises(UnreachedLayerError, match=r"'shared' ran 2 times in a forward pass, #0, #1"):
        found["shared#2"]
    with pytest.raises(UnreachedLayerError, match=r"'block' ran 1 time in a forward pass, #0"):
        with hooked(model, edit={"block#1": torch.abs}):
            model(image(1, 3))


def test_runs_are_counted_anew_in_each_pass(watched):
    model, x = watched(Wrapper()), image(1, 3)
    with hooked(model, ["shared#0", "shared"], {"shared#1": torch.zeros_like}) as found:
        for _ in range(3):
            assert torch.equal(model(x), torch.zeros(1, 3))
    assert torch.equal(found["shared#0"], model.shared(model.block.linear(x)))
    assert found.runs("shared") == 2


@pytest.mark.parametrize("name", ["shared", "shared#1"])
def test_an_edit_is_of_the_last_run_unless_a_number_picks_one(name, watched):
    model, x, seen = watched(Wrapper()), image(1, 3), []

    def double(tensor):
        seen.append(tensor.clone())
        return tensor * 2

    with hooked(model, ["shared"], {name: double}) as found:
        first, second = model(x), model(x)
    plain = model(x)
    assert torch.equal(first, 2 * plain) and torch.equal(second, 2 * plain)
    assert torch.equal(found["shared"], 2 * plain) and torch.equal(seen[-1], plain)


def test_every_edits_all_runs(watched):
    model, x = watched(Wrapper()), image(1, 3)
    with hooked(model, edit={"shared": torch.abs}, every=True):
        output = model(x)
    assert torch.equal(output, model.shared(model.shared(model.block.linear(x)).abs()).abs())


def test_the_last_run_is_not_edited_where_the_pass_cannot_be_begun_again(watched):
    class Cached(Wrapper):
        def forward(self, x, cache):
            return super().forward(x)

    model = watched(Cached())
    with pytest.raises(ArchitectureError, match="'shared' ran 2 times.*'shared#0'"):
        with hooked(model, edit={"shared": torch.abs}):
            model(image(1, 3), object())


def test_an_edit_that_never_ran_is_an_error(watched):
    model = watched(Wrapper())
    with pytest.raises(UnreachedLayerError, match="'never'.*never reached"):
        with hooked(model, edit={"never": torch.abs}):
            model(image(1, 3))


def test_stopping_waits_for_the_run_that_is_asked_for():
    relu, ran = nn.ReLU(), []
    model = nn.Sequential(nn.Linear(3, 3), relu, nn.Linear(3, 3), relu, nn.Linear(3, 3))
    handles = [
        layer.register_forward_hook(lambda *args: ran.append(args[0])) for layer in dict.fromkeys(model)
    ]
    run(model, image(1, 3), record=["1#0"])
    assert ran == [model[0], relu]
    ran.clear()
    stopped = run(model, image(1, 3), record=["1#1"])["1#1"]
    assert ran == list(model[:4])[: len(ran)] and model[4] not in ran
    assert torch.equal(stopped, model[:4](image(1, 3)))
    for handle in handles:
        handle.remove()


def test_what_follows_recorded_layers_may_fail(small_cnn):
    broken = nn.Sequential(small_cnn.conv1, nn.Linear(7, 2))
    x = image(1, 3, 8, 8)
    assert torch.equal(run(broken, x, record=["0"])["0"], small_cnn.conv1(x))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(broken, x, record=["0", "1"])


def test_gradients_flow_through_a_recorded_tensor(small_cnn):
    x = image(1, 3, 8, 8).requires_grad_()
    with hooked(small_cnn, ["conv1"]) as activations:
        output = small_cnn(x)
    (through,) = torch.autograd.grad(output.sum(), activations["conv1"], retain_graph=True)
    tail = small_cnn[1:]
    leaf = activations["conv1"].detach().requires_grad_()
    (expected,) = torch.autograd.grad(tail(leaf.clone()).sum(), leaf)
    torch.testing.assert_close(through, expected)
    (from_recorded,) = torch.autograd.grad(activations["conv1"].sum(), x)
    assert from_recorded.abs().sum() > 0


@pytest.mark.parametrize("name", ["relu1", "relu1/relu", "relu1#0"])
def test_what_was_recorded_is_freed_with_the_activations_at_once(name, small_cnn):
    gc.disable()
    try:
        with torch.no_grad(), hooked(small_cnn, [name], edit={"conv1": torch.abs}) as activations:
            small_cnn(image(1, 3, 8, 8))
        recorded = ref(activations[name])
        del activations
        assert recorded() is None
    finally:
        gc.enable()


def test_detached_recordings_have_no_graph(small_cnn):
    with hooked(small_cnn, ["conv1"], detach=True) as activations:
        output = small_cnn(image(1, 3, 8, 8))
    assert not activations["conv1"].requires_grad and output.requires_grad


@pytest.mark.parametrize("detach", [False, True])
def test_a_relu_in_place_behind_a_recorded_layer_does_not_corrupt_it(small_cnn, detach):
    x = image(1, 3, 8, 8)
    with hooked(small_cnn, ["conv1"], detach=detach) as activations:
        small_cnn(x)
    assert torch.equal(activations["conv1"], small_cnn.conv1(x)) and activations["conv1"].min() < 0


def test_an_overwritten_recording_by_reference_is_an_error_never_a_wrong_value(small_cnn):
    with hooked(small_cnn, ["conv1", "pool"], clone=False) as activations:
        small_cnn(image(1, 3, 8, 8))
    assert activations["pool"].shape == (1, 5, 1, 1)
    with pytest.raises(OverwrittenError, match=r"'conv1'.*clone=True"):
        activations["conv1"]


def test_a_layer_that_is_never_reached_says_so(watched):
    model = watched(Wrapper())
    with hooked(model, ["never", "block"]) as activations:
        model(image(1, 3))
    assert "never" not in activations and "block" in activations
    with pytest.raises(UnreachedLayerError, match="'never'.*never reached"):
        activations["never"]
    with pytest.raises(LayerError, match="'shared' is not recorded: recorded are never, block"):
        activations["shared"]


def test_hooking_twice_gives_the_same_and_changes_nothing(small_cnn):
    x = image(1, 3, 8, 8)
    plain = small_cnn(x)
    with hooked(small_cnn, [name for name, _ in small_cnn.named_modules()]):
        assert torch.equal(small_cnn(x), plain)
    assert torch.equal(small_cnn(x), plain)


def test_what_a_layer_is_given_is_recorded_and_its_output_left_alone(small_cnn):
    picture = image(2, 3, 8, 8)
    with torch.no_grad(), hooked(small_cnn, ["conv2", "head"], inputs=True) as given:
        output = small_cnn(picture)
    with torch.no_grad(), hooked(small_cnn, ["relu1", "flatten"]) as returned:
        small_cnn(picture)
    assert torch.equal(given["conv2"], returned["relu1"]) and torch.equal(given["head"], returned["flatten"])
    assert torch.equal(output, small_cnn(picture))


@pytest.mark.parametrize(
    ("model", "error", "match"),
    [
        ("a name", ArgumentError, "expected a torch.nn.Module as the model, got str"),
        (lambda x: x, ArgumentError, "expected a torch.nn.Module as the model, got function"),
        (nn.DataParallel(nn.Linear(2, 2)), ArchitectureError, "DataParallel.*give model.module"),
    ],
)
def test_models_inside_which_no_hooks_run_are_refused(model, error, match):
    with pytest.raises(error, match=match), hooked(model, ["0"]):
        pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_and_exported_models_are_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(ArchitectureError, match="TorchScript.*give the module that was scripted"):
        run(torch.jit.trace(model, torch.zeros(1, 2)), torch.zeros(1, 2), record=["0"])
    with pytest.raises(ArgumentError, match=r"got ExportedProgram: give its .module\(\)"):
        run(torch.export.export(model, (torch.zeros(1, 2),)), torch.zeros(1, 2), record=["0"])


@pytest.mark.filterwarnings("ignore:Guards may run slower")  # on Python 3.13.0
@pytest.mark.parametrize("how", ["wrapped", "in place", "a part"])
@torch.no_grad()
def test_compiled_models_are_run_as_they_were_written(how, watched):
    torch._dynamo.reset()
    model = watched(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    x = image(1, 3)
    seen = model
    if how == "wrapped":
        seen = torch.compile(model, backend="eager")
    else:
        (model if how == "in place" else model[1]).compile(backend="eager")
    plain = seen(x)
    with hooked(seen, ["1"], {"0": torch.zeros_like}) as found:
        output = seen(x)
    assert torch.equal(output[0], model[2].bias) and torch.equal(found["1"], torch.zeros(1, 4))
    assert torch.equal(seen(x), plain)
