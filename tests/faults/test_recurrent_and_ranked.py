"""DeepLift adds up through recurrent layers, losses, distances, products and what is picked by its rank."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from toumei.attribution import DeepLift, Saliency
from toumei.core import recurrent_layers
from toumei.core.errors import ArgumentError


class Applied(nn.Module):
    """A function of a linear layer, summed over all but the batch with weights."""

    def __init__(self, function, width=6):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.function = nn.Linear(6, width), function

    def forward(self, x):
        found = self.function(self.linear(x))
        found = found.reshape(len(x), -1)
        return (found * torch.arange(1.0, found.shape[1] + 1, dtype=found.dtype).cos()).sum(1)


def gap(network, shape=(3, 6)):
    """The completeness gap in double precision, next to the change of the score."""
    generator = torch.Generator().manual_seed(1)
    x, x0 = (2 * torch.randn(shape, generator=generator, dtype=torch.double) for _ in range(2))
    result = DeepLift(network.double().eval())(x, None, x0)
    assert (result.output - result.baseline_output).abs().min() > 1e-6
    assert all(torch.isfinite(part).all() for part in (result.values, result.gap))
    direct = network(x)
    torch.testing.assert_close(result.output, direct.detach())
    return float(result.gap.abs().max())


class Sequences(nn.Module):
    def __init__(self, kind, packed=False, **options):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.packed = kind(4, 3, **options), packed

    def forward(self, x):
        if self.packed:
            lengths, first = torch.tensor([5, 3, 2]), self.layer.batch_first
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=first)
        output, state = self.layer(x)
        if self.packed:
            output, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=self.layer.batch_first)
        output = output if self.layer.batch_first else output.transpose(0, 1)
        states = state if isinstance(state, tuple) else (state,)
        return output.flatten(1).cos().sum(1) + sum(one.sin().sum((0, 2)) for one in states)


OPTIONS = (
    {"batch_first": True},
    {"batch_first": True, "num_layers": 2, "bidirectional": True},
    {"batch_first": True, "bias": False, "num_layers": 2},
)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_add_up(kind, options):
    assert gap(Sequences(kind, **options), (3, 5, 4)) < 1e-9


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_packed_sequences_add_up(kind):
    assert gap(Sequences(kind, packed=True, batch_first=True, bidirectional=True), (3, 5, 4)) < 1e-9


def test_other_nonlinearities_and_projections_add_up():
    assert gap(Sequences(nn.RNN, nonlinearity="relu", batch_first=True), (3, 5, 4)) < 1e-9
    assert gap(Sequences(nn.LSTM, proj_size=2, batch_first=True), (3, 5, 4)) < 1e-9


class Cells(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        torch.manual_seed(0)
        self.cell = kind(4, 3, **options)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return sum(part.sum(1) for part in (state if isinstance(state, tuple) else (state,)))


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_cells_add_up(kind):
    assert gap(Cells(kind), (3, 5, 4)) < 1e-9
    assert gap(Cells(kind, bias=False), (3, 5, 4)) < 1e-9


def test_an_lstm_has_the_contributions_of_the_one_that_is_written_by_hand():
    network = Sequences(nn.LSTM, batch_first=True).double().eval()

    class ByHand(nn.Module):
        def forward(self, x):
            layer = network.layer
            h = c = x.new_zeros(len(x), 3)
            outputs = []
            for step in x.unbind(1):
                gates = F.linear(step, layer.weight_ih_l0, layer.bias_ih_l0)
                i, f, g, o = (gates + F.linear(h, layer.weight_hh_l0, layer.bias_hh_l0)).chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
                outputs.append(h)
            return torch.stack(outputs, 1).flatten(1).cos().sum(1) + h.sin().sum(1) + c.sin().sum(1)

    x = torch.randn(3, 5, 4, dtype=torch.double)
    torch.testing.assert_close(DeepLift(network)(x).values, DeepLift(ByHand())(x).values)


RANKED = {
    "amin": lambda x: x.amin(1, keepdim=True),
    "amin of all axes": lambda x: x.reshape(len(x), 2, 3).amin((1, 2)),
    "min": lambda x: x.min(1).values,
    "minimum of two": lambda x: torch.min(x, x.flip(1)),
    "aminmax": lambda x: torch.stack(list(x.aminmax(dim=1)), 1),
    "prod": lambda x: x.prod(1),
    "cumprod": lambda x: x.cumprod(1),
    "sort": lambda x: x.sort(1).values,
    "sort descending": lambda x: torch.sort(x, dim=-1, descending=True, stable=True)[0],
    "sort along another axis": lambda x: x.reshape(len(x), 3, 2).sort(dim=1).values,
    "msort": lambda x: x.T.msort().T,
    "topk": lambda x: x.topk(3, 1).values,
    "topk of the smallest": lambda x: torch.topk(x, 2, dim=1, largest=False)[0],
    "kthvalue": lambda x: x.kthvalue(2, 1).values,
    "median": lambda x: x.median(1, keepdim=True).values,
    "logaddexp": lambda x: torch.logaddexp(x, x.flip(1)),
    "hypot": lambda x: torch.hypot(x, x.flip(1)),
    "cdist": lambda x: torch.cdist(x.reshape(len(x), 3, 2), x.reshape(len(x), 3, 2).flip(2)),
    "cdist p=1": lambda x: torch.cdist(x.reshape(len(x), 2, 3), x.reshape(len(x), 3, 2).mT, p=1.0),
    "pairwise_distance": lambda x: F.pairwise_distance(x[:, :3], x[:, 3:]),
}


@pytest.mark.parametrize("name", RANKED)
def test_products_ranks_and_distances_add_up(name):
    assert gap(Applied(RANKED[name])) < 1e-9


def test_a_sorted_row_belongs_to_the_numbers_that_it_is():
    x, x0 = torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[0.0, 1.0, 2.0]])
    ranks = torch.tensor([1.0, 10.0, 100.0])

    class Ranked(nn.Module):
        def forward(self, x):
            return (x.sort(1).values * ranks).sum(1)

    # from 0, 1, 2 to 1, 2, 3: only the first number has changed, past the two others
    values = DeepLift(Ranked())(x, None, x0).values
    torch.testing.assert_close(values, torch.tensor([[111.0, 0.0, 0.0]]))


CLASSES = torch.tensor([1, 0, 3])
SHARES = torch.softmax(torch.arange(18.0, dtype=torch.double).reshape(3, 6).sin(), 1)
SIGNS = torch.tensor([[1.0, -1, 1, 1, -1, 1]] * 3, dtype=torch.double)
WEIGHTS = torch.arange(1.0, 7, dtype=torch.double)
LOSSES = {
    "mse": lambda x: F.mse_loss(x, SHARES, reduction="none"),
    "l1": lambda x: F.l1_loss(x, SHARES, reduction="none"),
    "smooth l1": lambda x: F.smooth_l1_loss(x, SHARES, reduction="none", beta=0.5),
    "huber": lambda x: F.huber_loss(x, SHARES, reduction="none", delta=0.7),
    "cross entropy": lambda x: F.cross_entropy(x, CLASSES[: len(x)], reduction="none"),
    "weighted": lambda x: F.cross_entropy(x, CLASSES, WEIGHTS, reduction="none", label_smoothing=0.1),
    "shares": lambda x: F.cross_entropy(x, SHARES, reduction="none"),
    "nll": lambda x: F.nll_loss(F.log_softmax(x, 1), CLASSES, ignore_index=0, reduction="none") + x[:, 0],
    "bce": lambda x: F.binary_cross_entropy(x.sigmoid(), SHARES, reduction="none"),
    "bce with logits": lambda x: F.binary_cross_entropy_with_logits(
        x, SHARES, reduction="none", pos_weight=WEIGHTS
    ),
    "kl": lambda x: F.kl_div(x.log_softmax(1), SHARES, reduction="none"),
    "kl of logarithms": lambda x: F.kl_div(x.log_softmax(1), SHARES.log(), reduction="none", log_target=True),
    "soft margin": lambda x: F.soft_margin_loss(x, SIGNS, reduction="none"),
    "hinge": lambda x: F.hinge_embedding_loss(x, SIGNS, reduction="none"),
    "ranking": lambda x: F.margin_ranking_loss(x, x.flip(1), SIGNS, reduction="none"),
    "cosine": lambda x: F.cosine_embedding_loss(x, SHARES, SIGNS[:, 0], reduction="none"),
    "triplet": lambda x: F.triplet_margin_loss(x, SHARES, -SHARES, reduction="none", swap=True) + x[:, 0],
    "poisson": lambda x: F.poisson_nll_loss(x, SHARES, reduction="none"),
    "gaussian": lambda x: F.gaussian_nll_loss(x, SHARES, SHARES, reduction="none"),
}


# The targets are those of all rows, so one row alone has another loss.
@pytest.mark.filterwarnings("ignore:the score of the first row", "ignore:Using a target size")
@pytest.mark.parametrize("name", LOSSES)
def test_losses_add_up(name):
    assert gap(Applied(LOSSES[name])) < 1e-9


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reduced_losses_are_those_of_torch(reduction):
    class Trained(nn.Module):
        def forward(self, x):
            weight = torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=x.dtype)
            losses = (
                F.cross_entropy(x, CLASSES[:1], weight, reduction=reduction, label_smoothing=0.2),
                F.mse_loss(x, SHARES[:1], reduction=reduction),
                F.smooth_l1_loss(x, SHARES[:1], reduction=reduction),
                F.kl_div(x.log_softmax(1), SHARES[:1], reduction="batchmean"),
                F.nll_loss(x.log_softmax(1), CLASSES[:1], reduction=reduction),
                F.cross_entropy(x, SHARES[:1], weight, reduction=reduction),
                F.gaussian_nll_loss(x, SHARES[:1], SHARES[:1], full=True, reduction=reduction),
            )
            return torch.stack(losses).sum()[None]

    assert gap(Trained(), (1, 6)) < 1e-9


def test_dropout_at_work_between_recurrent_layers_is_named():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LSTM(4, 3, 2, dropout=0.5, batch_first=True)

        def forward(self, x):
            self.layer.train()
            return self.layer(x)[0].sum((1, 2))

    with pytest.raises(ArgumentError, match="lstm"):
        DeepLift(Dropping())(torch.randn(2, 5, 4))


def test_recurrent_layers_on_cuda_run_without_cudnn_in_evaluation_mode(monkeypatch):
    """cuDNN has no backward pass there; a stand-in says that the layer is on CUDA."""
    seen = []

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            seen.append(torch.backends.cudnn.enabled)
            return self.lstm(x)[0][:, -1]

    model, x = Reads().eval(), torch.randn(2, 5, 3)
    wanted = Saliency(model)(x, 1).values
    assert seen and all(seen)
    monkeypatch.setattr(recurrent_layers, "_lacks_gradients", lambda model: not model.training)
    seen.clear()
    assert torch.equal(Saliency(model)(x, 1).values, wanted)
    assert False in seen and torch.backends.cudnn.enabled
    seen.clear()
    with torch.no_grad(), recurrent_layers.differentiable_recurrent(model):
        model(x)
    assert all(seen)
