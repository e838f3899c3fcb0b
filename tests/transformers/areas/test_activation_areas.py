"""Areas of models: states against those of plain passes, both ways to read, and bad input."""

import sys
from types import SimpleNamespace

import pytest
import torch
from architectures import build
from area_helpers import texts_of_two_kinds
from encoders import build_encoder
from sklearn.decomposition import PCA as Components
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from toumei.core.errors import ArgumentError, ForwardError, LayerError, NonFiniteError, ShapeError
from toumei.transformers import HookedModel
from toumei.transformers.areas import PCA, ActivationAreas

QUIET = {"map_dimension": 4, "verbose": False}
TEXTS, LABELS = texts_of_two_kinds(16)


@pytest.fixture
def areas_with(language_model, tokenizer):
    """From the name of an architecture to areas of a tiny model of it."""

    def make(kind="gpt2", texts=TEXTS, labels=LABELS, **options):
        model = language_model(kind)
        return ActivationAreas(model, texts, labels, **{"tokenizer": tokenizer, **QUIET, **options})

    return make


@pytest.fixture(scope="module", autouse=True)
def hooks_of_transformers():
    """Those with which transformers records hidden states stay on a model after their first use."""
    for model in (*map(build, ("gpt2", "llama", "gpt_neox")), *map(build_encoder, ("bert", "roberta", "t5"))):
        model(torch.tensor([[3, 4]]), output_hidden_states=True)


def plain_states(model, tokenizer, pooling):
    """The hidden states of each text alone, pooled, (layers, texts, width)."""
    rows = []
    for text in TEXTS:
        with torch.no_grad():
            found = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        states = torch.stack(found)[:, 0]
        rows.append({"last": states[:, -1], "first": states[:, 0], "mean": states.mean(1)}[pooling])
    return torch.stack(rows, 1)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("kind", "pooling"), [("gpt2", "last"), ("llama", "mean"), ("gpt_neox", "first")])
def test_states_are_those_of_each_text_alone(areas_with, tokenizer, kind, pooling, side):
    tokenizer.padding_side = side
    areas = areas_with(kind, pooling=pooling)
    areas.process_activation_areas()
    found = torch.stack([areas.states[layer] for layer in areas.layers])
    expected = plain_states(areas.model, tokenizer, pooling)
    # the final norm, which Hugging Face applies to the last one, comes after the last block
    assert torch.allclose(found[:-1], expected[:-1], atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "t5"])
def test_encoders(kind, tokenizer, watched):
    model = watched(build_encoder(kind))
    areas = ActivationAreas(model, TEXTS, LABELS, tokenizer=tokenizer, **QUIET)
    assert areas.process_activation_areas().pooling == "mean" and len(areas.layers) == 4
    found = torch.stack([areas.states[layer] for layer in areas.layers[:-1]])
    assert torch.allclose(found, plain_states(model, tokenizer, "mean")[:-1], atol=1e-4)


def test_decoders_take_the_last_state_by_default(areas_with):
    assert areas_with("llama").process_activation_areas().pooling == "last"


def test_kinds_that_a_model_tells_apart_lie_apart(areas_with):
    texts = [f"w{word} {end}" for end in ("w1 w1", "w60 w60") for word in range(10, 26)]
    areas = areas_with(texts=texts, labels=["one"] * 16 + ["other"] * 16).process_activation_areas()
    found = areas.compare("one", "other", permutations=99)
    assert (found.distance_p_values == 0.01).all()


def test_reading_twice_without_keeping_states_gives_the_same(areas_with):
    kept = areas_with(batch_size=5).process_activation_areas()
    streamed = areas_with(batch_size=5, keep_states=False)
    again = streamed.process_activation_areas()
    assert torch.allclose(again.coordinates, kept.coordinates, atol=1e-8)
    assert torch.equal(again.cells, kept.cells) and torch.equal(again.labels, kept.labels)
    with pytest.raises(ArgumentError, match="states were not kept"):
        streamed.evaluate()


def test_iterators_are_read_once(areas_with):
    found = areas_with(texts=iter(TEXTS), labels=iter(LABELS)).process_activation_areas()
    assert torch.equal(found.cells, areas_with().process_activation_areas().cells)
    with pytest.raises(ArgumentError, match="an iterator can be read once"):
        areas_with(texts=iter(TEXTS), keep_states=False)
    with pytest.raises(ArgumentError, match="more texts than labels"):
        areas_with(texts=iter(TEXTS), labels=iter(LABELS[:-1])).process_activation_areas()


def test_any_layer_names(areas_with):
    names = [
        "transformer.h.0.attn",
        "transformer.h.1.mlp.act#0",
        "transformer.h.2.ln_1",
        "transformer.h.2/add#0",
    ]
    areas = areas_with(layers=names, reduction="svd")
    found = areas.process_activation_areas()
    assert list(found.layers) == names and found.coordinates.shape == (4, 32, 2)
    assert areas.states["transformer.h.1.mlp.act#0"].shape == (32, 128)
    with pytest.raises(LayerError, match=r"h\.1\.mlp"):
        areas_with(layers=["transformer.h.1.mpl"])
    with pytest.raises(ArgumentError, match="names of different layers"):
        areas_with(layers=["transformer.h.0"] * 2)
    with pytest.raises(ShapeError, match=r"layer 'transformer.wpe' has no vector for each token"):
        areas_with(layers=["transformer.wpe"]).process_activation_areas()


def test_names_of_the_workbench_are_layers(areas_with):
    native = areas_with(layers=["transformer.h.0", "transformer.h.1", "transformer.h.2"])
    expected = native.process_activation_areas()
    for names in ("resid_post", [("resid_post", 0), "blocks.1.hook_resid_post", "transformer.h.2"]):
        found = areas_with(layers=names).process_activation_areas()
        assert torch.equal(found.coordinates, expected.coordinates)
    assert len(areas_with(layers=("post", 1)).layers) == 1
    with pytest.raises(ShapeError, match="no layer with a vector for each token"):
        areas_with(layers=("z", 1))
    with pytest.raises(LayerError, match="no activation"):
        areas_with(layers=["blocks.9.hook_mlp_out"])


def test_another_map_dimension_does_not_run_the_model_again(areas_with):
    areas = areas_with()
    first = areas.process_activation_areas()
    areas._reader.batches = None  # would fail
    second = areas.process_activation_areas(2)
    assert second.size == 2 and torch.equal(first.coordinates, second.coordinates)
    assert areas.areas is second


def test_more_components_make_graphs_of_components(areas_with):
    areas = areas_with(reduction=PCA(3))
    areas.process_activation_areas()
    assert "occupied" not in str(areas.areas)
    assert set(areas.get_graph("low").nodes) == {f"{layer}_{part}" for layer in range(4) for part in range(3)}
    with pytest.raises(ArgumentError, match="give n_components=2"):
        areas.get_layer_image(1, "low")


def test_umap_places_the_states_of_layers_that_vary(areas_with, monkeypatch):
    class Stand(Components):
        """Takes the settings of umap-learn, which need not be installed."""

        def __init__(self, n_components=2, metric="", random_state=None, n_jobs=None):
            self.metric, self.n_jobs = metric, n_jobs
            super().__init__(n_components, random_state=random_state)

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Stand))
    areas = areas_with(reduction="umap")
    found, linear = areas.process_activation_areas(), areas_with(reduction="pca").process_activation_areas()
    assert torch.allclose(found.coordinates.abs(), linear.coordinates.abs(), atol=1e-4)
    assert found.explained.isnan().all() and found.reduction == "umap"


def test_hooked_models_and_groups(language_model, tokenizer):
    hooked = HookedModel(language_model("gpt2"), tokenizer)
    groups = [f"document {index // 4}" for index in range(32)]
    areas = ActivationAreas(hooked, TEXTS, LABELS, groups=groups, **QUIET)
    assert areas.process_activation_areas().groups.tolist() == [index // 4 for index in range(32)]
    with pytest.raises(ArgumentError, match="got 31 for 32 texts"):
        ActivationAreas(hooked, TEXTS, LABELS, groups=groups[1:], **QUIET).process_activation_areas()


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ([], [], "empty corpus"),
        (iter([]), iter([]), "empty corpus"),
        (TEXTS, None, "labels are missing"),
        (TEXTS, LABELS[:-1], "32 texts and 31 labels"),
        (["w1", " "], [0, 1], "got ' ' as text 1"),
        (["w1", 7], [0, 1], "got 7 as text 1"),
        (["w1", "w2"], [0, None], "got None for text 1"),
        (["w1", "w2"], [0, 1.5], "got 1.5 for text 1"),
        (["w1", "w2"], [0, "a"], "strings or whole numbers, got both"),
        ("w1 w2", [0], "texts are a list"),
        (["w1", "w2"], "ab", "labels are a list"),
        ({"text": ["w1"], "label": [0]}, None, "texts are a list"),
        ([{"text": "w1"}], None, "rows with a 'text' and a 'label'"),
        (None, LABELS, "expected texts with labels"),
        (["w1"], [0], "category '0' has one of the 1 text,"),
        (
            ["w1", "w2", "w3"],
            ["a", "b", "c"],
            "categories 'a', 'b', 'c' have one text each, of 3",
        ),
        (TEXTS, ["rare", *["often"] * 31], "category 'rare' has one of the 32 texts"),
    ],
)
def test_bad_corpora(areas_with, texts, labels, message):
    with pytest.raises(ArgumentError, match=message):
        areas_with(texts=texts, labels=labels).process_activation_areas()


@pytest.mark.parametrize("labels", [LABELS, ["rare", *["often"] * 31]])
def test_too_few_texts_are_refused_before_the_model_runs(areas_with, labels):
    areas = areas_with(map_dimension=6, labels=labels)
    areas._reader.batches = None  # would fail
    with pytest.raises(ArgumentError, match="36 cells for 32 texts|'rare' has one of the 32 texts"):
        areas.process_activation_areas()
    with pytest.raises(ArgumentError, match="call process_activation_areas"):
        areas.get_graph()


def test_maps_have_at_most_as_many_cells_as_there_are_texts(areas_with):
    areas = areas_with()
    found = areas.process_activation_areas(5)
    for wrong in (areas.process_activation_areas, found.resized):
        with pytest.raises(ArgumentError, match=r"6 x 6 .* map_dimension=5 or less \(2 gives four"):
            wrong(6)
    assert areas.areas is found
    assert areas_with(map_dimension=6, reduction=PCA(3)).process_activation_areas().size == 6  # has no maps


def test_texts_of_an_iterator_are_read_once_where_maps_have_too_many_cells(areas_with):
    areas = areas_with(texts=iter(TEXTS), labels=iter(LABELS), map_dimension=6)
    with pytest.raises(ArgumentError, match="36 cells for 32 texts"):
        areas.process_activation_areas()
    assert torch.equal(areas.process_activation_areas(4).cells, areas_with().process_activation_areas().cells)


def test_what_makes_maps_say_nothing_is_warned_of(areas_with):
    class Declared(list):
        features = {"label": SimpleNamespace(names=["low", "middle", "high"])}  # noqa: RUF012

    rows = Declared(
        {"text": one, "label": 0 if kind == "low" else 2} for one, kind in zip(TEXTS, LABELS, strict=True)
    )
    with pytest.warns(UserWarning, match="categories without texts, which have no area: 'middle'$"):
        found = areas_with(texts=rows, labels=None).process_activation_areas()
    assert found.categories == ("low", "middle", "high")
    same = [f"w7 {text}" for text in TEXTS]
    with pytest.warns(UserWarning, match="all 32 texts have the same first state in transformer.drop#0, "):
        found = areas_with(texts=same, pooling="first").process_activation_areas()
    assert found.constant == found.layers and (found.cells == 2).all()
    long = [*TEXTS, " ".join(["w3"] * 80), "w4"]
    with pytest.warns(UserWarning, match="1 of 34 texts cut off at the 64 tokens"):
        areas_with(texts=long, labels=[*LABELS, "low", "low"]).process_activation_areas()
    cut = areas_with(texts=long, labels=[*LABELS, "low", "low"], max_length=5).process_activation_areas()
    assert len(cut) == 34


def test_other_bad_input(areas_with, language_model, tokenizer):
    with pytest.raises(ArgumentError, match="call process_activation_areas"):
        areas_with().get_graph()
    with pytest.raises(ArgumentError, match="tokenizer of the model, got None"):
        ActivationAreas(language_model("gpt2"), TEXTS, LABELS)
    with (
        pytest.raises(ArgumentError, match="UMAP needs the states")
        if _has_umap()
        else pytest.raises(ImportError)
    ):
        areas_with(reduction="umap", keep_states=False)
    with pytest.raises(ArgumentError, match="two names of the same"):
        areas_with(dataset=TEXTS)
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(100)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    larger = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")
    with pytest.raises(ForwardError, match="GPT2LMHeadModel cannot run"):
        areas_with(tokenizer=larger, texts=["w1", "w99"] * 8, labels=[0, 1] * 8).process_activation_areas()


def test_states_that_are_no_numbers_are_refused(areas_with):
    areas = areas_with()
    with torch.no_grad():
        weight = areas.model.transformer.h[1].mlp.c_proj.bias
        before = weight.clone()
        weight[0] = torch.nan
        try:
            with pytest.raises(NonFiniteError, match=r"in layer 'transformer.h.1' is NaN"):
                areas.process_activation_areas()
        finally:
            weight.copy_(before)


def _has_umap():
    from importlib.util import find_spec

    return find_spec("umap") is not None
