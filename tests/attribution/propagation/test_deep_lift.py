import pytest
import torch
from torch import nn
from torch.nn import functional as F

from toumei.attribution import DeepLift, DeepLiftShap, FromData, Gaussian
from toumei.attribution.base.inputs import parts_of
from toumei.core.errors import ArgumentError, LayerError, NonFiniteError, ShapeError, UnitError


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make()


@pytest.fixture
def network(watched):
    """Functional, shared and in-place activations, pools that overlap, a residual sum."""
    return watched(seeded(lambda: Network().double()))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(6 * 9, 4)

    def forward(self, x):
        x = F.max_pool2d(self.relu(self.conv1(x)), 3, 2, 1)
        x = self.relu(x + self.norm(self.conv2(F.gelu(x))))
        return self.head(self.dropout(F.adaptive_avg_pool2d(x, 3).flatten(1)))


def test_contributions_add_up(network):
    x, x0 = draw(3, 3, 11, 9), draw(3, 3, 11, 9, seed=1)
    result = DeepLift(network)(x, target=2, baselines=x0)
    network.eval()
    torch.testing.assert_close(result.output, network(x)[:, 2].detach())
    torch.testing.assert_close(result.baseline_output, network(x0)[:, 2].detach())
    network.train()
    assert result.values.shape == x.shape and not result.values.requires_grad
    assert result.gap.abs().max() < 1e-12


def test_a_batch_gives_what_its_inputs_give_alone(network):
    x, x0 = draw(3, 3, 11, 9), draw(3, 11, 9, seed=1)
    targets = torch.tensor([0, 3, 1])
    together = DeepLift(network)(x, targets, x0).values
    for index in range(3):
        alone = DeepLift(network)(x[index : index + 1], int(targets[index]), x0).values
        torch.testing.assert_close(together[index : index + 1], alone)


def test_several_targets_are_each_alone(network):
    x = draw(2, 3, 8, 8)
    several = DeepLift(network)(x, [1, lambda output: output[:, 0] - output[:, 2]])
    assert several.values.shape == (2, *x.shape) and several.gap.abs().max() < 1e-12
    torch.testing.assert_close(several[0].values, DeepLift(network)(x, 1).values)
    first, second = (DeepLift(network)(x, index).values for index in (0, 2))
    torch.testing.assert_close(several[1].values, first - second)  # the multipliers of a sum are sums


def test_several_targets_take_one_pass_there_and_one_back(network):
    passes = []

    def noted(x):
        passes.append("there")
        if x.requires_grad:
            x.register_hook(lambda gradient: passes.append("back"))
        return x

    x = draw(2, 3, 8, 8)
    several = DeepLift(network, preprocess=noted)(x, [0, 1, 2, 3])
    assert passes[:3] == ["there", "there", "back"]  # there at the baselines and at the inputs
    assert passes[3:] == ["there"]  # the first row again
    for target in range(4):
        torch.testing.assert_close(several[target].values, DeepLift(network)(x, target).values)


def test_a_layer_gets_all_of_it(network):
    x, x0 = draw(2, 3, 8, 8), draw(2, 3, 8, 8, seed=1)
    result = DeepLift(network, layer="conv2")(x, 1, x0)
    assert result.values.shape == (2, 6, 4, 4)
    # what conv2 does not carry, the residual way, stays as it is at the input
    assert result.gap.abs().max() < 1e-12
    head = DeepLift(network, layer="dropout")(x, 1, x0)
    features = _before_head(network, x, x0)
    torch.testing.assert_close(head.values, (features[0] - features[1]) * network.head.weight[1].detach())


@torch.no_grad()
def _before_head(network, *inputs):
    head, network.head = network.head, nn.Identity()
    features = [network.eval()(tensor) for tensor in inputs]
    network.train().head = head
    return features


def test_preprocessing_belongs_to_the_network():
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).double())
    x = draw(3, 4)
    plain = DeepLift(nn.Sequential(Double(), *model))(x, 1).values
    torch.testing.assert_close(DeepLift(model, preprocess=lambda tensor: 2 * tensor)(x, 1).values, plain)


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


def test_tuples_and_dictionaries_of_inputs():
    class Two(nn.Module):
        def forward(self, a, b):
            return (a * b.tanh()).sum(1, keepdim=True)

    a, b = draw(3, 4), draw(3, 4, seed=1)
    result = DeepLift(Two())((a, b), 0)
    named = DeepLift(Two())({"a": a, "b": b}, 0)
    assert isinstance(result.values, tuple) and set(named.values) == {"a", "b"}
    assert result.gap.abs().max() < 1e-12
    for part, other in zip(parts_of(result.values), parts_of(named.values), strict=True):
        assert torch.equal(part, other)


def test_a_linear_model_gives_weight_times_difference():
    model = seeded(lambda: nn.Linear(6, 3).double())
    x, x0 = draw(5, 6), draw(6, seed=1)
    result = DeepLift(model)(x, 1, x0)
    torch.testing.assert_close(result.values, model.weight[1].detach() * (x - x0))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.Softplus])
def test_with_one_hidden_layer_it_is_integrated_gradients(activation):
    model = seeded(lambda: nn.Sequential(nn.Linear(5, 7), activation(), nn.Linear(7, 2)).double())
    x, x0 = draw(3, 5), draw(3, 5, seed=1)
    steps = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    path = (x0[None] + steps[:, None, None] * (x - x0)).requires_grad_()
    (gradient,) = torch.autograd.grad(model(path)[..., 1].sum(), path)
    torch.testing.assert_close(
        DeepLift(model)(x, 1, x0).values, (x - x0) * gradient.mean(0), atol=1e-3, rtol=1e-3
    )


def test_two_functions_that_agree_everywhere_may_differ():
    """The networks of Sundararajan et al. (2017), figure 7: DeepLift depends on how a function is written."""

    class Written(nn.Module):
        def __init__(self, outer):
            super().__init__()
            self.outer = outer

        def forward(self, x):
            first, second = x[:, :1], x[:, 1:]
            inner = F.relu(first) - 1 if self.outer else F.relu(first - 1)
            return F.relu(inner - F.relu(second))

    x = torch.tensor([[3.0, 1.0]])
    first, second = Written(True), Written(False)
    assert torch.equal(first(x), second(x))
    torch.testing.assert_close(DeepLift(first)(x, 0).values, torch.tensor([[1.5, -0.5]]))
    torch.testing.assert_close(DeepLift(second)(x, 0).values, torch.tensor([[2.0, -1.0]]))


def test_it_sees_past_a_flat_gradient():
    class Flat(nn.Module):
        def forward(self, x):
            return 1 - F.relu(1 - x)

    assert float(DeepLift(Flat())(torch.tensor([[2.0]]), 0).values) == 1.0


def test_it_agrees_with_captum_where_captum_is_right():
    captum = pytest.importorskip("captum.attr")

    def make():
        layers = (
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AvgPool2d(2),
        )
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 8), nn.Sigmoid(), nn.Linear(8, 3)).eval()

    model = seeded(make)
    x, x0 = draw(2, 3, 8, 8, dtype=torch.float32), draw(2, 3, 8, 8, seed=1, dtype=torch.float32)
    values = DeepLift(model)(x, 1, x0).values
    with pytest.warns(UserWarning):  # of its hooks
        theirs = captum.DeepLift(model).attribute(x, x0, target=1).detach()
    torch.testing.assert_close(values, theirs, atol=1e-6, rtol=0)


def test_the_mean_over_every_row_is_the_mean_of_single_baselines(network):
    x, rows = draw(2, 3, 8, 8), draw(5, 3, 8, 8, seed=1)
    mean = DeepLiftShap(network, samples=5, batch_size=3)(x, 1, FromData(rows, replace=False))
    single = torch.stack([DeepLift(network)(x, 1, row).values for row in rows])
    torch.testing.assert_close(mean.values, single.mean(0))
    torch.testing.assert_close(mean.standard_error, single.std(0) / 5**0.5)
    assert mean.gap.abs().max() < 1e-12 and mean.values.dtype == torch.float64


def test_the_mean_over_baselines_of_a_linear_model():
    model, rows = seeded(lambda: nn.Linear(6, 3).double()), draw(40, 6, seed=1)
    x = draw(2, 6)
    result = DeepLiftShap(model, samples=40)(x, [0, 2], FromData(rows, replace=False))
    torch.testing.assert_close(result.values[1], model.weight[2].detach() * (x - rows.mean(0)))


def test_baseline_samples_follow_the_seed(network):
    x = draw(1, 3, 8, 8)
    first, same, other = (
        DeepLiftShap(network, samples=3, seed=seed)(x, 1, Gaussian(mean=0.0)).values for seed in (4, 4, 5)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_a_network_in_half_precision():
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))).bfloat16()
    x = draw(2, 6).bfloat16()
    result = DeepLift(model)(x, 1)
    assert result.values.dtype == torch.bfloat16 and result.gap.abs().max() < 0.05


def test_small_numbers_in_half_precision_are_normalized():
    model = seeded(lambda: nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 3))).half()
    x, x0 = (0.03 * draw(2, 8)).half(), (0.03 * draw(8, seed=1)).half()
    result = DeepLift(model)(x, 1, x0)
    assert result.values.dtype == torch.float16 and result.gap.abs().max() < 0.01


def test_contributions_that_cancel_beyond_rounding_are_warned_of():
    class Cancelling(nn.Module):
        def forward(self, x):
            return (1e12 * x[:, :1] + x[:, 1:2]) - 1e12 * x[:, 2:]

    x = torch.tensor([[1.0, 1.0, 1.0], [0.3, 1.0, 0.3]])
    with pytest.warns(UserWarning, match="in all cancel, more than torch.float32 can tell"):
        DeepLift(Cancelling())(x, 0, torch.tensor([0.1, 0.0, 0.1 + 1e-7]))


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(NonFiniteError, match="scores of the inputs are not finite in 1 of 1 row,"):
        DeepLift(nn.Linear(2, 1))(torch.tensor([[torch.inf, 1.0]]), 0)


def test_what_carries_no_gradient_is_warned_of():
    class Detached(nn.Module):
        def forward(self, x):
            return (x * x.detach().tanh()).sum(1, keepdim=True)

    with pytest.warns(UserWarning, match="do not add up"):
        DeepLift(Detached())(draw(2, 4), 0, draw(4, seed=1))
    with pytest.warns(UserWarning, match="do not add up"):  # a thousandth is missing
        DeepLift(nn.Linear(1, 1), preprocess=lambda x: x + 1e-3 * x.detach())(torch.ones(1, 1), 0)


def test_an_operation_without_a_rule_is_an_error_or_a_warning():
    class Products(nn.Module):
        def forward(self, x):
            return x.cummax(1).values

    with pytest.raises(ArgumentError, match="no rule for 'cummax'"):
        DeepLift(Products())(draw(2, 4), 1)
    with pytest.warns(UserWarning, match="no rule for 'cummax'"):
        DeepLift(Products(), unknown="warn")(draw(2, 4), 0)
    with pytest.raises(ArgumentError, match="unknown is one of 'error', 'warn', got 'ignore'"):
        DeepLift(Products(), unknown="ignore")


def test_a_constant_output_gives_zeros():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 2)

    result = DeepLift(Constant())(draw(2, 4), 1)
    assert torch.equal(result.values, torch.zeros(2, 4, dtype=torch.float64)) and result.gap.abs().max() == 0


def test_bad_arguments_are_named(network):
    x = draw(2, 3, 8, 8)
    with pytest.raises(UnitError, match="0 to 3"):
        DeepLift(network)(x, 4)
    with pytest.raises(ShapeError, match="baseline"):
        DeepLift(network)(x, 1, draw(3, 7, 7))
    with pytest.raises(ArgumentError, match="have no gradient"):
        DeepLift(network)(x.long(), 1)
    with pytest.raises(LayerError, match="conv1"):
        DeepLift(network, layer="conv")
    with pytest.raises(ArgumentError, match="DeepLiftShap"):
        DeepLift(network)(x, 1, Gaussian())
    with pytest.raises(ArgumentError, match="samples is a whole number from 2 on, got 1"):
        DeepLiftShap(network, samples=1)
    with pytest.raises(TypeError, match="'steps'"):
        DeepLift(network, steps=3)


def test_an_input_that_needs_a_gradient_is_left_alone(network):
    x = draw(1, 3, 8, 8).requires_grad_()
    values = DeepLift(network)(x, 1).values
    assert x.grad is None and x.requires_grad
    assert torch.equal(values, DeepLift(network)(x.detach(), 1).values)


@pytest.mark.parametrize("name", ["GPT2", "Llama", "Bert"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_transformers_add_up(name, attention):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        attn_implementation=attention,
        **({"bos_token_id": 0, "eos_token_id": 0} if name == "GPT2" else {"intermediate_size": 64}),
        **({"num_key_value_heads": 2} if name == "Llama" else {}),
    )
    kind = {"GPT2": "GPT2LMHeadModel", "Llama": "LlamaForCausalLM", "Bert": "BertForMaskedLM"}[name]
    model = seeded(lambda: getattr(transformers, kind)(config)).double()
    tokens = {"inputs_embeds": draw(2, 5, 32)}
    result = DeepLift(model)(tokens, lambda logits: logits[:, -1, 3], baselines=draw(2, 5, 32, seed=1))
    # Llama normalizes in float32 whatever it is given
    assert result.gap.abs().max() < 1e-6 * (result.output - result.baseline_output).abs().max()
    layer = {
        "GPT2": "transformer.wte",
        "Llama": "model.embed_tokens",
        "Bert": "bert.embeddings.word_embeddings",
    }[name]
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    at_layer = DeepLift(model, layer=layer)({"input_ids": ids}, lambda logits: logits[:, -1, 3], baselines=0)
    assert at_layer.values.shape == (2, 4, 32)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_networks_for_pictures_add_up(name):
    models = pytest.importorskip("torchvision.models")
    model = seeded(lambda: models.get_model(name, weights=None)).eval()
    x, x0 = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), draw(1, 3, 64, 64).float()
    result = DeepLift(model)(x, 3, x0)
    change = (result.output - result.baseline_output).abs().clamp(min=1e-3)
    assert (result.gap.abs() / change).max() < 1e-4


def test_a_vision_transformer_adds_up():
    models = pytest.importorskip("torchvision.models")
    sizes = {
        "image_size": 32,
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 16,
        "mlp_dim": 32,
    }
    model = seeded(lambda: models.VisionTransformer(**sizes, num_classes=5).double())
    nn.init.normal_(model.heads.head.weight)  # zeros by default
    result = DeepLift(model)(draw(1, 3, 32, 32), 3, draw(1, 3, 32, 32, seed=1))
    assert result.gap.abs().max() < 1e-10
