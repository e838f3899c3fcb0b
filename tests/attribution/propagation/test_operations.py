from itertools import combinations

import pytest
import torch
from adding_up import ROWS, WEIGHT, check
from torch import nn
from torch.nn import functional as F

from toumei.attribution.propagation.decompositions import DECOMPOSITIONS
from toumei.attribution.propagation.operations import LINEAR, RULES, UNSEEN
from toumei.core.functions import canonical_name

ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.LogSigmoid, nn.Softsign),
    *(nn.Tanhshrink, nn.Hardshrink, nn.Softshrink, nn.PReLU, nn.GLU),
)


@pytest.mark.parametrize("kind", ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_activation_modules(kind):
    check(kind().double().requires_grad_(False))


@pytest.mark.parametrize(
    "kind", [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.ELU, nn.LeakyReLU, nn.SELU]
)
def test_activations_in_place(kind):
    check(lambda x: kind(inplace=True)(F.linear(x, WEIGHT)))
    check(kind(inplace=True))  # on the input itself


def test_a_threshold_in_place():
    check(lambda x: nn.Threshold(0.1, 2.0, inplace=True)(x * 1))


FUNCTIONS = {
    "relu by position in place": lambda x: F.relu(x + 0, True),
    "relu_": lambda x: torch.relu_(x + 0),
    "method relu_": lambda x: (x + 0).relu_(),
    "tanh_": lambda x: (x + 0).tanh_(),
    "mul_": lambda x: (x + 0).mul_(x.sin()),
    "imul": lambda x: _in_place(x, "*="),
    "idiv": lambda x: _in_place(x, "/="),
    "iadd": lambda x: _in_place(x, "+="),
    "ipow": lambda x: _in_place(x, "**="),
    "in place after a pool": lambda x: _relu_after_pool(x),
    "a functional activation, twice": lambda x: F.gelu(F.gelu(x) @ WEIGHT),
    "product": lambda x: x * x.roll(1, 1),
    "product by name": lambda x: torch.mul(input=x, other=x.sigmoid()),
    "product of three": lambda x: x * x.roll(1, 1) * x.tanh(),
    "product with a constant": lambda x: x * WEIGHT[:ROWS] @ WEIGHT,
    "matrix product": lambda x: x @ x.T,
    "batched": lambda x: torch.bmm(x[None], x.T[None]),
    "outer": lambda x: torch.outer(x[0], x[1]),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x.tanh()),
    "einsum of a list": lambda x: torch.einsum("ij,kj->ik", [x, x.tanh()]),
    "addmm": lambda x: torch.addmm(x[:, :ROWS], x, x.T, beta=0.5, alpha=2),
    "addmm with a parameter": lambda x: torch.addmm(WEIGHT[0], x.tanh(), nn.Parameter(WEIGHT, False)),
    "product with a parameter": lambda x: nn.Parameter(WEIGHT[:ROWS], False) * x.tanh(),
    "baddbmm": lambda x: torch.baddbmm(x[None, :, :ROWS], x[None], x.T[None]),
    "addmm by name": lambda x: torch.addmm(x[:, :ROWS], mat1=x, mat2=x.T.sin(), beta=0.5, alpha=2),
    "addmv by name": lambda x: torch.addmv(input=x[:, 0], mat=x, vec=x[0], alpha=2),
    "baddbmm by name": lambda x: x[None, :, :ROWS].baddbmm(batch1=x[None], batch2=x.T[None], beta=0.5),
    "a product with nothing added": lambda x: torch.addmm(x[:, :ROWS] * torch.nan, x, x.T, beta=0),
    "numbers and their product": lambda x: torch.addcmul(x, x.sin(), x.cos(), value=0.5),
    "numbers and their product, in place": lambda x: x.sin().addcmul_(x, tensor2=x.cos()),
    "numbers and their quotient": lambda x: torch.addcdiv(x, x.sin(), x.square() + 1, value=2),
    "bilinear": lambda x: F.bilinear(x, x[:, :4].sin(), WEIGHT.view(2, 8, 4), x[0, :2]),
    "bilinear without a bias": lambda x: F.bilinear(x, x[:, :4].sin(), WEIGHT.view(2, 8, 4)),
    "quotient": lambda x: x / (x.roll(1, 1).square() + 1),
    "quotient by a constant": lambda x: x / WEIGHT[:ROWS],
    "a number by it": lambda x: 2 / (x.square() + 1),
    "constant by it": lambda x: WEIGHT[:ROWS] / (x.square() + 1),
    "power of a number": lambda x: 2**x,
    "powers": lambda x: x**3 + x.pow(2) + torch.pow(2.0, x),
    "difference from a number": lambda x: 3 - x.square(),
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "round": lambda x: x.round() + x.sign() + x.floor(),
    "maximum": lambda x: torch.maximum(x, x.roll(1, 1)),
    "minimum": lambda x: torch.minimum(x, x.roll(1, 1)),
    "max of two": lambda x: torch.max(x, x.roll(1, 1)),
    "max of two by name": lambda x: torch.max(x, other=x.roll(1, 1)),
    "max": lambda x: x.max(),
    "max of an axis": lambda x: x.max(dim=1).values,
    "max of an axis, kept": lambda x: x.max(-1, keepdim=True)[0] + x,
    "amax": lambda x: x.amax((0, 1)),
    "amax of an axis": lambda x: x.amax(0, keepdim=True) * x,
    "softmax": lambda x: F.softmax(x, dim=-1),
    "softmax of columns": lambda x: x.softmax(0),
    "softmax in another precision": lambda x: F.softmax(x.float(), dim=-1, dtype=torch.float64),
    "softmax in another precision by place": lambda x: x.float().softmax(-1, torch.float64),
    "softmin": lambda x: F.softmin(x, dim=0) + F.softmin(x.float(), dim=1, dtype=torch.float64),
    "log-softmax": lambda x: F.log_softmax(x, dim=1),
    "logsumexp": lambda x: x.logsumexp(1, keepdim=True) - x,
    "variance": lambda x: x.var(1) + torch.var(x, (0, 1)) + x.var(1, unbiased=False),
    "standard deviation": lambda x: x.std(1, keepdim=True) + torch.std(x, dim=0, correction=0),
    "norm": lambda x: x.norm() + torch.linalg.vector_norm(x, dim=1) + x.norm(dim=1),
    "variance of all, biased": lambda x: x.var(False) + torch.var(x, ()),
    "standard deviation and mean": lambda x: (
        sum(torch.std_mean(x, 1)) + sum(torch.std_mean(x, unbiased=False))
    ),
    "variance and mean": lambda x: torch.cat(torch.var_mean(x, dim=0, correction=0, keepdim=True)),
    "norm of other powers": lambda x: (
        x.norm(p=3, dim=1) + x.norm(1) + torch.linalg.vector_norm(x, torch.inf, 1)
    ),
    "norm of linear algebra": lambda x: torch.linalg.norm(x) + torch.linalg.norm(x, dim=1, ord=1),
    "norm of matrices": lambda x: torch.linalg.norm(x.view(2, 3, 4), "fro", (1, 2)),
    "cosine": lambda x: F.cosine_similarity(x[:, None], x.sin(), dim=-1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "parts": lambda x: torch.cat([part * k for k, part in enumerate(x.chunk(4, 1))], 1)[:, ::2],
    "written into": lambda x: _written_into(x),
    "chosen by a constant": lambda x: torch.where(WEIGHT[:ROWS] > 0, x.tanh(), x),
    "masked by a constant": lambda x: x.tanh().masked_fill(WEIGHT[:ROWS] > 0, 3.0),
    "gathered": lambda x: x.square().index_select(1, torch.tensor([1, 1, 2])),
    "some of the way": lambda x: torch.lerp(x.sin(), x.cos(), 0.3) + torch.lerp(x, x.cos(), x.sigmoid()),
    "some of the way in place": lambda x: x.sin().lerp_(x.cos(), weight=x.sigmoid()),
    "weights that depend on it": lambda x: F.linear(x, x.tanh()),
    "weights and biases that do": lambda x: F.linear(x, weight=x.tanh(), bias=x[:, 0]),
    "weights that do, of a constant": lambda x: F.linear(WEIGHT, x.tanh(), x[:, 0].exp()),
    "weights of a buffer": lambda x: F.linear(x.tanh(), WEIGHT, x[0].exp()),
    "kernels that depend on it": lambda x: F.conv2d(
        x[None, None], x[:2, :4].sin().reshape(2, 1, 2, 2), x[0, :2]
    ),
    "kernels that do, one axis": lambda x: F.conv1d(x, x[:, None, :3].tanh(), x[0, :3], groups=ROWS),
    "transposed kernels that do": lambda x: F.conv_transpose2d(
        x[None, None], x[:2, :4].reshape(1, 2, 2, 2), x[0, :2]
    ),
    "sampled": lambda x: F.grid_sample(x.tanh()[None, None], WEIGHT.reshape(1, 8, 4, 2), align_corners=True),
    "residual": lambda x: x + F.relu(x @ WEIGHT) + F.relu(x @ WEIGHT.T),
    "absolute": lambda x: torch.absolute(x) + x.sin().absolute_(),
    "clip": lambda x: x.clip(-0.5, 0.7) + torch.clip(x.sin(), max=0.3) + x.cos().clip_(0.2),
    "expit": torch.special.expit,
    "other names of elementwise functions": lambda x: (
        torch.special.exp2(x) + x.tanh().arcsin() + torch.arctan(x) + x.arcsinh() + torch.fix(x)
    ),
    "divide": lambda x: torch.divide(x, x.exp()) + x.true_divide(2) + x.sin().divide_(x.cosh()),
    "multiply and subtract": lambda x: torch.multiply(x, x.sin()) - x.subtract(1).multiply_(x.cos()),
    "powers in double precision": lambda x: torch.float_power(x.cosh(), 1.5),
    "other names of layouts": lambda x: torch.concatenate([x.swapaxes(0, 1), x.T.moveaxis(0, 1).mT], 1),
    "other names of products": lambda x: torch.linalg.matmul(x, x.T.sin()) + torch.ger(x[0], x[1]).sum(),
    "indices by torch": lambda x: torch.max_pool1d_with_indices(x, 2)[0],
}


def _in_place(x, operator):
    y = F.linear(x, WEIGHT)
    if operator == "*=":
        y *= x.sin()
    elif operator == "/=":
        y /= x.square() + 1
    elif operator == "**=":
        y **= 2
    else:
        y += x.sin()
    return y


def _relu_after_pool(x):
    y = F.linear(x, WEIGHT)[:, None]
    pooled = F.max_pool1d(y, 2)
    return pooled.sum() + y.relu_().square().sum()


def _written_into(x):
    y = torch.zeros_like(x)
    y[:, 1:] = x[:, :-1].tanh()
    y[:, 0] = x[:, 0] * x[:, 1]
    return y


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_add_up(name):
    check(FUNCTIONS[name])


@pytest.mark.parametrize("function", [torch.log, torch.sqrt, torch.rsqrt, torch.reciprocal, torch.log1p])
def test_functions_of_positive_numbers(function):
    check(function, positive=True)


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize("kind", [nn.Softmax, nn.LogSoftmax, nn.Softmin])
@pytest.mark.parametrize("shape", [(8,), (3, 8), (3, 4, 5), (2, 3, 4, 5)])
def test_softmaxes_along_the_axis_that_torch_chooses(kind, shape):
    check(kind(), *shape)


POOLS = {
    "pool": nn.MaxPool2d(2),
    "overlapping": nn.MaxPool2d(3, 2, 1),
    "rounded up": nn.MaxPool2d(3, 2, ceil_mode=True),
    "dilated": nn.MaxPool2d(2, 1, dilation=2),
    "adaptive": nn.AdaptiveMaxPool2d(3),
    "next to ReLU": nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
    "of powers": lambda x: (
        F.lp_pool2d(x, 2, 2) + F.lp_pool2d(x.abs(), 3.0, (2, 3), 2, ceil_mode=True)[..., :4, :4]
    ),
    "of one picture": lambda x: F.max_pool2d(x[0], 3, 2) + F.adaptive_max_pool2d(x[1], 4),
    "with indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "average": nn.Sequential(nn.Tanh(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)),
    "convolution": nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2, padding=1), nn.SiLU(), nn.ConvTranspose2d(6, 2, 3)
    ),
    "enlarged": lambda x: F.interpolate(x.tanh(), scale_factor=2, mode="bilinear"),
    "shuffled": nn.Sequential(nn.Tanh(), nn.PixelShuffle(2), nn.ZeroPad2d(1)),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools_and_maps_add_up(name):
    module = POOLS[name]
    check(module.double().requires_grad_(False) if isinstance(module, nn.Module) else module, 2, 4, 9, 9)


def test_pools_of_one_and_three_axes():
    check(nn.MaxPool1d(3, 2), 2, 4, 9)
    check(nn.LPPool1d(2, 3), 2, 4, 9)
    check(nn.LPPool3d(2, 2, 1), 2, 4, 3, 4, 5)
    check(nn.MaxPool3d(2, 1), 2, 4, 3, 4, 5)


NORMS = {
    "batch": nn.BatchNorm2d(4),
    "layer": nn.LayerNorm((6, 5)),
    "layer, nothing learned": nn.LayerNorm(5, elementwise_affine=False),
    "root mean square": nn.RMSNorm(5),
    "group": nn.GroupNorm(2, 4),
    "local response": nn.LocalResponseNorm(3, alpha=0.5),
    "local response of signals": nn.Sequential(nn.Flatten(2), nn.LocalResponseNorm(2, 0.5, 0.6, 0.7)),
    "instance": nn.InstanceNorm2d(4, affine=True),
    "instance with statistics": nn.InstanceNorm2d(4, track_running_stats=True),
    "dropouts that rest": nn.Sequential(nn.Tanh(), nn.Dropout(0.5), nn.Dropout2d(0.5), nn.Identity()),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalizations_add_up(name):
    module = NORMS[name].double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(2)
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    check(module, 2, 4, 6, 5)


ATTENTIONS = {
    "plain": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.7},
    "boolean mask": {"attn_mask": torch.ones(6, 6, dtype=torch.bool).tril(1)},
    "additive mask": {
        "attn_mask": torch.zeros(6, 6, dtype=torch.float64).masked_fill(torch.eye(6) > 0, -torch.inf)
    },
    "grouped": {"enable_gqa": True},
    "a query with nothing to attend to": {"attn_mask": torch.ones(6, 6, dtype=torch.bool).tril(-1)},
    "the same, additive": {
        "attn_mask": torch.zeros(6, 6, dtype=torch.float64).masked_fill(
            torch.ones(6, 6).triu() > 0, -torch.inf
        )
    },
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_adds_up(name):
    options = ATTENTIONS[name]

    def attention(x):
        query, key, value = x.chunk(3, -1)
        if options.get("enable_gqa"):
            key, value = key[:, :2], value[:, :2]
        return F.scaled_dot_product_attention(query, key.tanh(), value, **options)

    check(attention, 2, 4, 6, 9)


def test_attention_to_constants_and_with_scores_that_depend_on_the_input_adds_up():
    constant = WEIGHT.repeat(2, 1, 1)
    check(lambda x: F.scaled_dot_product_attention(constant[:, :5], x, x.sin(), x[..., :5].mT), 2, 6, 8)
    check(lambda x: F.scaled_dot_product_attention(x, constant, attn_mask=x, value=constant), 2, 6, 8)


@pytest.mark.parametrize("masked", ["", "attn_mask", "key_padding_mask", "both", "per head"])
def test_multi_head_attention_adds_up(masked):
    module = nn.MultiheadAttention(8, 2, batch_first=True).double().eval().requires_grad_(False)
    options = {}
    if masked in ("attn_mask", "both"):
        options["attn_mask"] = torch.ones(5, 5, dtype=torch.bool).triu(1)
    if masked in ("key_padding_mask", "both"):
        options["key_padding_mask"] = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    if masked == "per head":
        options["attn_mask"] = torch.ones(4, 5, 5, dtype=torch.bool).triu(2)
    check(lambda x: module(x, x.tanh(), x, need_weights=False, **options)[0], 2, 5, 8)
    check(lambda x: module(x, x, x, **options)[1], 2, 5, 8)


def test_a_transformer_layer_adds_up():
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu").double().eval()
    check(module.requires_grad_(False), 2, 5, 8)


def test_a_name_belongs_to_one_table():
    tables = UNSEEN, LINEAR, RULES.keys(), DECOMPOSITIONS.keys()
    assert not any(one & other for one, other in combinations(tables, 2))


def test_names_are_those_of_torch():
    aliases = ("vector_norm", "log_sigmoid")
    homes = (torch, torch.Tensor, F, torch._C._nn, torch._C._linalg, torch.linalg)
    operators = (
        "getitem",
        "setitem",
        "rsub",
        "rdiv",
        "rpow",
        "rmatmul",
    )  # with underscores around them
    for name in UNSEEN | LINEAR | RULES.keys() | DECOMPOSITIONS.keys():
        spellings = (name, f"{name}_", f"_{name}")
        found = any(hasattr(home, spelling) for home in homes for spelling in spellings)
        assert found or name in operators or name in aliases, f"nothing is called {name}"


def test_names_tell_what_works_in_place():
    assert canonical_name("add") == canonical_name("__add__") == canonical_name("__radd__") == ("add", False)
    assert canonical_name("mul_") == canonical_name("__imul__") == ("mul", True)
    assert canonical_name("__rtruediv__") == canonical_name("__rdiv__") == ("rdiv", False)
