"""What stands beside the usual arguments: tensors as loaders, results for parts, other modes of torch."""

import warnings

import pytest
import torch
from matplotlib import pyplot
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from torchvision.models import VisionTransformer

import toumei.attribution as att
import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
import toumei.transformers as trans
import toumei.transformers.features as feats
from toumei.bench import PlotSpec
from toumei.cnns import dataset_examples, expanded_weights, sample_activations, sanity_check
from toumei.core.errors import ArgumentError, ForwardError, NonFiniteError, ShapeError
from toumei.core.summaries import LINE
from toumei.instrument import AttentionHeadClusterAnalyzer, TensorMap
from toumei.instrument.memories.store import StoreStats
from toumei.misc import hessian_trace, neural_tangent_kernel, top_eigenvalue
from toumei.misc.circuits import CircuitDetector
from toumei.misc.modularity import chain, lesion_test
from toumei.models import facts_gpt
from toumei.plots import attention_page, side_by_side, to_pil, token_spans
from toumei.transformers.heads import FactoredMatrix
from toumei.transformers.model.model_inputs import plain_rows
from toumei.transformers.tools import CausalTracingIntervention

PICTURES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SETTINGS = trans.DictionarySettings(features=8, k=2, tokens=64, batch_size=16, buffer=32)


def convolutional():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return nn.Sequential(*layers).eval()


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


class WithoutGradients(nn.Module):
    def __init__(self, net, mode=torch.no_grad):
        super().__init__()
        self.net, self.mode = net, mode

    def forward(self, x):
        with self.mode():
            return self.net(x)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.cells, self.head = kind(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


def test_a_tensor_of_pictures_is_a_loader_and_a_dataset_is_none():
    model = convolutional()
    found = dataset_examples(model, "0", PICTURES, k=2, verbose=False)
    wanted = model[0](PICTURES).amax((2, 3)).T.topk(2).indices
    assert torch.equal(found.highest["0"].indices, wanted)
    assert len(sample_activations(model, "0", PICTURES, count=3, verbose=False).activations) == 3
    for ask in (dataset_examples, sample_activations):
        with pytest.raises(ShapeError, match=r"got an image \(3, 8, 8\): give a dataset as DataLoader"):
            ask(model, "0", TensorDataset(PICTURES), verbose=False)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_the_tangent_kernel_of_a_recurrent_network_is_that_of_its_gradients(kind):
    model, x = Recurrent(kind).eval(), torch.rand(2, 3, 4)
    rows = []
    for single in x:
        outputs = model(single[None])[0]
        found = [torch.autograd.grad(one, [*model.parameters()], retain_graph=True) for one in outputs]
        rows.append(torch.stack([torch.cat([part.flatten() for part in parts]) for parts in found]))
    jacobian = torch.stack(rows)
    wanted = torch.einsum("nkp,mkp->nm", jacobian, jacobian) / 2
    torch.testing.assert_close(neural_tangent_kernel(model, x), wanted)


def test_a_network_without_gradients_has_no_curvature_of_zero():
    model, x, labels = WithoutGradients(perceptron()), torch.rand(2, 4), torch.tensor([0, 1])
    for ask in (hessian_trace, top_eigenvalue):
        with pytest.raises(ArgumentError, match="computes without gradients"):
            ask(model, F.cross_entropy, x, labels)
    for mode in (torch.no_grad, torch.inference_mode):
        with pytest.raises(ArgumentError, match="computes without gradients"):
            neural_tangent_kernel(WithoutGradients(perceptron(), mode), x)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_trains_has_gradients_in_any_mode(mode):
    model, x, labels = perceptron(), torch.rand(2, 4), torch.tensor([0, 1])
    values = torch.rand(64, 4)
    wanted = hessian_trace(model, F.cross_entropy, x, labels, samples=2), neural_tangent_kernel(model, x)
    trained = trans.train_dictionary(values, SETTINGS, verbose=False)
    with mode():
        assert hessian_trace(model, F.cross_entropy, x, labels, samples=2) == wanted[0]
        assert torch.equal(neural_tangent_kernel(model, x), wanted[1])
        again = trans.train_dictionary(values.clone(), SETTINGS, verbose=False)
        feats.train_superposition(3, 2, density=0.5, steps=2, batch_size=4)
    assert torch.equal(again.dictionary.W_dec, trained.dictionary.W_dec)


def test_pictures_in_inference_mode_are_not_said_to_be_without_gradient():
    with torch.inference_mode(), pytest.raises(ArgumentError, match=r"in torch.inference_mode\(\)"):
        obj.Pipeline(param.PixelImage(1, 3, 8, 8), "0:1").attach(convolutional()).optimize(1, verbose=False)


def test_a_sanity_check_names_the_size_that_a_network_takes():
    model = VisionTransformer(16, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    layer, exciting = "encoder.layers.encoder_layer_0:1", torch.rand(2, 3, 16, 16)
    with pytest.raises(ForwardError, match="16 by 16 pixels"):
        sanity_check(model.eval(), layer, torch.rand(1, 3, 24, 24), exciting, exciting)


def test_pixels_that_are_cut_off_are_told_wherever_pictures_are_drawn():
    normalized = 4 * PICTURES - 2
    options = {"linear_relu": True, "average_pool": True}
    expanded = expanded_weights(convolutional(), "0", "4", PICTURES[:1], **options)
    drawn = (
        lambda: to_pil(normalized[0]),
        lambda: side_by_side({"a": [normalized]}, ["x"]),
        lambda: expanded.plot(pictures={"4:0": normalized[0]}),
    )
    for draw in drawn:
        with pytest.warns(UserWarning, match="what is outside is cut off"):
            draw()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_pil(PICTURES[0])
    pyplot.close("all")


def test_tokens_without_a_contribution_are_named_by_their_argument():
    with pytest.raises(NonFiniteError, match="values has NaN"):
        token_spans(["a", "b"], torch.tensor([1.0, torch.nan]))


def test_a_training_stands_for_its_dictionary_and_a_circuit_for_its_nodes():
    trained = trans.train_dictionary(torch.rand(64, 4), SETTINGS, verbose=False)
    source = torch.rand(32, 4)
    found = [feats.reconstruction(one, source) for one in (trained, trained.dictionary)]
    assert repr(found[0]) == repr(found[1])
    model = feats.train_superposition(3, 2, density=0.5, steps=2, batch_size=4)[0]
    assert torch.equal(feats.interference(model), feats.interference(model.directions))
    circuit = CircuitDetector(perceptron(), nodes=["0"])(torch.rand(2, 4), 0.0, 1)
    assert circuit.auroc(circuit.prune(top=2)) == circuit.auroc(circuit.prune(top=2).nodes) == 1.0


def test_a_hooked_model_from_a_folder_has_the_weights_of_the_folder(tmp_path):
    sizes = {"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = trans.HookedAutoConfig("gpt-neox", intermediate_size=8, **sizes)
    made = trans.HookedAutoModel(config, seed=3)
    made.model.save_pretrained(tmp_path)
    ids = [[3, 4, 5]]
    torch.testing.assert_close(trans.HookedAutoModel.from_pretrained(str(tmp_path))(ids), made(ids))


@pytest.mark.parametrize(
    "made",
    [
        lambda: trans.EditRequest("{} " + "x" * 900, "a" * 300, "b" * 300),
        lambda: trans.EditSettings(layers=tuple(range(80))),
        lambda: trans.TraceSettings(),
        lambda: SETTINGS,
        lambda: PlotSpec("attention", [f"blocks.{layer}.mlp.hook_post" for layer in range(60)], "a" * 300),
        lambda: FactoredMatrix(torch.rand(2, 64, 8), torch.rand(2, 8, 64)).svd(),
        lambda: StoreStats(
            {f"transformer.h.{layer}.mlp.c_proj": 512 for layer in range(96)}, 9, 9, 9, 9, 9, "prefix"
        ),
        lambda: att.FromData(torch.rand(1000, 50)),
        lambda: att.IntegratedGradients(
            nn.Sequential(*(nn.Linear(4, 4) for _ in range(60))), layer=[str(layer) for layer in range(60)]
        ),
        lambda: sum((obj.Channel(f"stage{index}.block:1") for index in range(60)), obj.Channel("0:1")),
        lambda: obj.ChannelWeights("0", dict.fromkeys(range(512), 0.5)),
        lambda: sample_activations(convolutional(), "0", PICTURES, count=8, per_image=2, verbose=False),
    ],
)
def test_settings_and_parts_of_real_size_are_a_line(made):
    text = repr(made())
    assert len(text) <= LINE and "\n" not in text and text[0].isupper()


def test_values_of_a_graph_are_one_for_each_node():
    graph = chain(["a", "b"], [torch.ones(2, 3)])
    assert {name: len(part) for name, part in graph.by_layer(torch.rand(5)).items()} == {"a": 3, "b": 2}
    with pytest.raises(ShapeError, match=r"\(\.\.\., 5\)"):
        graph.by_layer(torch.rand(4))
    with pytest.raises(ArgumentError, match="no device"):
        graph.to("nowhere")


def test_devices_of_generators_are_named_before_anything_moves():
    picture = param.PixelImage(1, 3, 8, 8)
    for wrong in ("nowhere", True, torch.ones(1), None):
        with pytest.raises(ArgumentError, match="device"):
            picture.to(wrong)
    assert picture.get_image().shape == (1, 3, 8, 8)


def test_spectra_that_cannot_be_left_again_are_refused():
    for wrong in ({"decay": float("inf")}, {"saturation": float("inf")}, {"saturation": 0.0}):
        with pytest.raises(ArgumentError, match="decay .* and saturation"):
            param.FFTImage(1, 3, 8, 8, **wrong)


def test_statistics_are_merged_with_statistics(tmp_path):
    model, tokenizer, world = facts_gpt()
    texts = [fact.text for fact in world.facts[:2]]
    found = trans.collect_statistics(model, tokenizer, texts, [1], verbose=False)
    with pytest.raises(ArgumentError, match="other is a KeyStatistics"):
        found.merge("more")
    with pytest.raises(ArgumentError, match="path is a string or a path"):
        found.save(3)


def test_functions_of_the_user_that_return_something_else_are_named():
    values, masks = torch.rand(2, 3, 4, 4), torch.rand(2, 4, 4) > 0.5
    for wrong in (None, (1, 2), torch.ones(3), 1.0):
        with pytest.raises(ArgumentError, match=r"measure returns a number for each image, \(2,\)"):
            att.chance_level(lambda *given, wrong=wrong: wrong, values, masks)
    with pytest.raises(NonFiniteError, match="measure"):
        att.chance_level(lambda *given: torch.full((2,), torch.nan), values, masks)
    kept = TensorMap([{"a": torch.ones(2)}])
    assert list(kept.filter_ids(lambda name: 1)) == ["a"] and not list(kept.filter_ids(lambda name: []))
    with pytest.raises(ArgumentError, match="wanted returns True or False"):
        kept.filter_ids(lambda name: torch.ones(2))


def test_tensors_of_another_kind_or_without_rows_are_named():
    model, ones = perceptron(), torch.ones(2, 4)
    for metric in (att.insertion, att.deletion):
        for inputs, values in ((torch.tensor(2.0), ones), (ones, ones.bool()), (ones, ones + 0j)):
            with pytest.raises((ArgumentError, ShapeError), match="contributions"):
                metric(model, inputs, values, 0)
    with pytest.raises(ShapeError, match="no positions"):
        obj.gram(torch.ones(2, 3, 0, 8))
    gpt, tokenizer, world = facts_gpt()
    hooked = trans.HookedModel(gpt, tokenizer)
    for texts in (torch.tensor(2), torch.eye(3).long().to_sparse()):
        with pytest.raises(ArgumentError, match="several texts"):
            trans.cache_many(hooked, texts, ("resid_post", 2), verbose=False)
    with pytest.raises(ArgumentError, match="weight_decay"):
        trans.TunedLens.train(gpt, tokenizer, [world.facts[0].text], steps=1, weight_decay=float("inf"))
    heads = AttentionHeadClusterAnalyzer(separators=[1])
    with pytest.raises(ArgumentError, match="tokens are whole numbers"):
        heads.add({"layer": torch.full((1, 2, 4, 4), 0.25)}, tokens=torch.zeros(1, 4))


def test_numbers_that_are_not_finite_and_tensors_without_axes_are_named():
    model, scalar = perceptron(), torch.tensor(2.0)
    for wrong in ({"lasso": float("inf")}, {"ridge": float("inf")}):
        with pytest.raises(ArgumentError, match="lasso and ridge finite"):
            att.Lime(model, **wrong)
    graph = chain("ab", [torch.eye(4)])
    with pytest.raises(ShapeError, match="a target for each"):
        lesion_test(model, graph, torch.zeros(8, dtype=torch.long), scalar, torch.zeros(2))
    with pytest.raises(ShapeError, match="attention weights of layers"):
        attention_page(scalar, tokens=["a"])
    with pytest.raises(ArgumentError, match="dense"):
        plain_rows(torch.eye(3).long().to_sparse())
    gpt, tokenizer, world = facts_gpt()
    tool = CausalTracingIntervention(trans.HookedModel(gpt, tokenizer))
    with pytest.raises(ArgumentError, match="scale is a finite number"):
        tool.intervene_on_neuron(world.facts[0].text, 1, 2, float("inf"))
