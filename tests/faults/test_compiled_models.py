"""A network that is compiled, whole or in part, is the network that is looked at and edited."""

import copy
import warnings

import pytest
import torch
from test_wrapped_models import random_edit
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from toumei.attribution import DeepLift, GuidedBackprop
from toumei.cnns import Pipeline, parameterization
from toumei.core import hooked
from toumei.core.fingerprint import fingerprint_of
from toumei.models import ShapesCNN, facts_gpt
from toumei.transformers import logit_lens


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return torch.relu(self.second(torch.relu(self.first(x))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.block, self.head = nn.Conv2d(3, 3, 1), Block(), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.head(torch.relu(self.block(self.stem(x)))).mean((2, 3))


def block_in_place(net, backend):
    net.block.compile(backend=backend)


def block_wrapped(net, backend):
    net.block = torch.compile(net.block, backend=backend)


def part_in_place(net, backend):
    net.block.first.compile(backend=backend)


def forward_of_the_block(net, backend):
    net.block.forward = torch.compile(net.block.forward, backend=backend)


PARTLY = [block_in_place, block_wrapped, part_in_place, forward_of_the_block]
LAYERS = ["stem", "block", "block.first", "block.second", "block/relu#0", "block/relu", "/relu", "head"]


@pytest.mark.parametrize("compile_part", PARTLY)
def test_a_network_of_which_a_part_is_compiled_is_recorded_and_edited_everywhere(compile_part):
    torch._dynamo.reset()
    net, plain, x = Net().eval(), Net().eval(), torch.rand(2, 3, 8, 8)
    compile_part(net, "eager")
    with torch.no_grad():
        net(x)
        for layer in LAYERS:
            with hooked(net, record=[layer], edit={layer: lambda t: 2 * t}) as found:
                output = net(x)
            with hooked(plain, record=[layer], edit={layer: lambda t: 2 * t}) as expected:
                assert torch.allclose(plain(x), output), layer
            assert torch.allclose(found[layer], expected[layer]), layer
    assert fingerprint_of(net) == fingerprint_of(plain)


@pytest.mark.parametrize("compile_part", PARTLY)
def test_gradients_through_dead_units_do_not_compile_a_network_at_each_step(compile_part):
    torch._dynamo.reset()
    graphs, net, plain = [], Net().eval(), Net().eval()
    compile_part(net, lambda graph, inputs: graphs.append(graph) or graph.forward)

    def optimized(model):
        pictures = parameterization.PixelImage(1, 3, 8, 8, seed=0)
        return Pipeline(pictures, "head:1").attach(model).optimize(12, verbose=False, seed=0, redirect=8)

    assert torch.allclose(optimized(net).images, optimized(plain).images, atol=1e-5)
    assert len(graphs) <= 5


def test_a_compiled_network_is_compiled_a_few_times_while_a_picture_is_optimized():
    torch._dynamo.reset()
    graphs, net = [], ShapesCNN(pretrained=True).eval()
    net.compile(backend=lambda graph, inputs: graphs.append(graph) or graph.forward)
    pipeline = Pipeline(parameterization.FFTImage(1, 3, 32, 32, seed=0), "conv6:46").attach(net)
    begun = len(graphs)
    pipeline.optimize(12, verbose=False, seed=0)
    assert len(graphs) - begun <= 4


@pytest.mark.parametrize("compile_part", PARTLY)
@pytest.mark.parametrize("method", [DeepLift, GuidedBackprop])
def test_methods_that_intercept_functions_see_those_of_compiled_parts(compile_part, method):
    torch._dynamo.reset()
    net, plain, x = Net().eval(), Net().eval(), torch.rand(2, 3, 8, 8)
    compile_part(net, "eager")
    with torch.no_grad():
        net(x)
    torch.testing.assert_close(method(net)(x, 1).values, method(plain)(x, 1).values)


def test_a_user_who_compiles_goes_on_compiling_afterwards():
    torch._dynamo.reset()
    graphs, net, x = [], Net().eval(), torch.rand(1, 3, 8, 8)
    compiled = torch.compile(net, backend=lambda graph, inputs: graphs.append(graph) or graph.forward)
    with torch.no_grad():
        with hooked(compiled, record=["stem"]):
            compiled(x)
        assert not graphs
        compiled(x)
        assert graphs


def compile_all(model):
    return torch.compile(model, backend="eager")


def compile_in_place(model):
    model.compile(backend="eager")
    return model


def compile_body(model):
    model.transformer = torch.compile(model.transformer, backend="eager")
    return model


def compile_mlp(model):
    mlp = model.transformer.h[1].mlp
    model.transformer.h[1].mlp = torch.compile(mlp, backend="eager")
    return model


@pytest.mark.parametrize("compiling", [compile_all, compile_in_place, compile_body, compile_mlp])
def test_probes_and_edits_of_compiled_language_models(compiling):
    torch._dynamo.reset()
    torch.manual_seed(0)
    _, tokenizer, world = facts_gpt()
    fact = world.facts[0]
    plain = GPT2LMHeadModel(GPT2Config(vocab_size=443, n_embd=8, n_layer=2, n_head=2)).eval()
    done = compiling(copy.deepcopy(plain))
    ids = torch.tensor([tokenizer(fact.text)["input_ids"]])
    with torch.no_grad():
        done(ids)
    lenses = [logit_lens(one, tokenizer, fact.text, fact.target).probabilities for one in (done, plain)]
    torch.testing.assert_close(*lenses)
    with random_edit(done), random_edit(plain), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about what it cannot compile
        edited = done(ids).logits
        torch.testing.assert_close(edited, plain(ids).logits)
    with torch.no_grad():
        assert not torch.allclose(edited, plain(ids).logits)
