"""`explain` chooses the method that suits, explains what is predicted, and compares it with another."""

import numpy as np
import pandas
import pytest
import torch
from sklearn.datasets import load_sample_image
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from torch import nn

from toumei.attribution import Attribution, Explanation, explain
from toumei.attribution.explanation import rank_agreement
from toumei.core.errors import ArgumentError, NotATensorError, ShapeError, UnitError
from toumei.models import ShapesCNN, ShapesDataset, facts_gpt

ROWS = np.random.default_rng(0).normal(size=(30, 4))
TABLE = pandas.DataFrame(ROWS, columns=list("abcd"))
WIDE = np.random.default_rng(0).normal(size=(30, 12))


def test_a_linear_model_of_a_table_is_explained_by_its_weights():
    """Contributions are weight times distance from the mean, by both methods."""
    weights = np.array([1.0, -2.0, 0.0, 3.0])
    model = LinearRegression().fit(TABLE, ROWS @ weights)
    found = explain(model, TABLE, verbose=False)
    wanted = torch.from_numpy((ROWS - ROWS.mean(0)) * weights)
    torch.testing.assert_close(found.attribution.values, wanted)
    assert found.attribution.feature_names == tuple("abcd") and found.gap.abs().max() < 1e-9
    assert found.agreement.min() > 0.999 and found.baseline == "the mean of the given rows"


@pytest.mark.parametrize(
    ("model", "rows", "method"),
    [
        (nn.Linear(4, 3), ROWS, "ExactShapley"),
        (nn.Linear(12, 3), WIDE, "IntegratedGradients"),
        (lambda rows: rows.sum(1), WIDE, "KernelShap"),
        (LogisticRegression().fit(WIDE, WIDE[:, 0] > 0), WIDE, "KernelShap"),
    ],
)
def test_the_method_suits_the_model_and_the_table(model, rows, method):
    found = explain(model, rows[:3], verbose=False)
    assert found.attribution.method == method != found.check.method
    assert method in str(found) and "columns" in found.reason and len(repr(found)) < 200


def test_a_table_is_explained_for_the_class_that_is_predicted_most_often():
    labels = np.array(["no", "yes", "yes"])[np.arange(30) % 3]
    model = LogisticRegression().fit(TABLE, labels)
    assert explain(model, TABLE, verbose=False).attribution.names == ("yes",)
    assert explain(model, TABLE, "no", verbose=False).attribution.names == ("no",)


@pytest.fixture(scope="module")
def of_pictures():
    images, labels, _ = ShapesDataset(seed=11).batch(range(2))
    return images, labels, explain(ShapesCNN(pretrained=True), images, verbose=False)


def test_pictures_are_explained_for_their_classes(of_pictures):
    images, labels, found = of_pictures
    names = ShapesCNN().categories
    assert found.attribution.classes == tuple(names[label] for label in labels.tolist())
    assert found.attribution.method == "PartitionShap" and found.check.method == "Occlusion"
    assert found.agreement.min() > 0.2 and torch.equal(found.images, images)
    shown = [text.get_text() for text in found.plot().texts]
    assert shown[-3:] == ["original", "PartitionShap", "Occlusion"]
    assert shown[0].startswith(found.attribution.classes[0])


def test_an_explanation_is_saved(tmp_path, of_pictures):
    found = of_pictures[2]
    found.save(tmp_path / "found.safetensors")
    loaded = Explanation.load(tmp_path / "found.safetensors")
    assert torch.equal(loaded.attribution.values, found.attribution.values) and str(loaded) == str(found)
    assert "<img" in loaded._repr_html_()


def test_a_photograph_and_a_function():
    """Only the upper left quarter counts, so all of the contribution is there."""
    photo = torch.from_numpy(load_sample_image("china.jpg")[:64:2, :64:2].copy()).movedim(2, 0)[None] / 255
    found = explain(
        lambda images: images[:, :, :16, :16].mean((1, 2, 3)), photo, baselines=0.0, verbose=False
    )
    assert found.attribution.method == "PartitionShap"
    magnitudes = found.attribution.values.abs()
    assert magnitudes[..., :20, :20].sum() > 0.8 * magnitudes.sum()


def test_a_text_is_explained_by_its_tokens():
    model, tokenizer, world = facts_gpt()
    fact = world.facts[0]
    found = explain(model, fact.text, fact.target, tokenizer=tokenizer)
    assert found.attribution.tokens == found.check.tokens and found.images is None
    ax = found.plot()
    assert len(ax.patches) == 2 * 7 and ax.get_title() == f"contributions to '{fact.target}'"
    assert [text.get_text() for text in ax.texts[::15]] == ["PartitionShap", "Occlusion"]


def test_a_notebook_shows_the_reasons_and_both_methods(of_pictures):
    page = of_pictures[2]._repr_html_()
    assert page.count("<img") == 4 and page.count("PartitionShap: ") == 2 and "baseline: the mean" in page
    assert all(page.count(f"<br>{name}<") == 2 for name in of_pictures[2].attribution.classes)


def test_several_texts_are_refused():
    model, tokenizer, world = facts_gpt()
    texts = [fact.text for fact in world.facts[:2]]
    for given in (texts, tokenizer(texts, padding=True, return_tensors="pt")):
        with pytest.raises(ArgumentError, match="of one text, got 2: call it for each"):
            explain(model, given, tokenizer=tokenizer)


def test_agreement_is_that_of_ranks():
    one = Attribution(torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]), torch.zeros(3))
    other = Attribution(torch.tensor([[1.0, 8.0, 9.0], [0.0, -1.0, -5.0], [1.0, 2.0, 3.0]]), torch.zeros(3))
    assert rank_agreement(one, other)[:2].tolist() == pytest.approx([1.0, -1.0])
    assert rank_agreement(one, other)[2].isnan()


def test_what_cannot_be_explained_is_refused():
    with pytest.raises(ArgumentError, match="give baselines="):
        explain(nn.Linear(4, 2), ROWS[:1])
    with pytest.raises(ArgumentError, match="pictures .* a table .* picture.None."):
        explain(nn.Linear(4, 2), torch.rand(1, 2, 3))
    with pytest.raises(ArgumentError, match="of one target, got .*: call it for each"):
        explain(nn.Linear(4, 2), ROWS, [0, 1])
    with pytest.raises(ArgumentError, match="tokenizer="):
        explain(nn.Linear(4, 2), "a text")
    with pytest.raises(NotATensorError, match="a table or a text"):
        explain(nn.Linear(4, 2), object())
    with pytest.raises(ArgumentError, match="without predict_proba"):
        explain(RidgeClassifier().fit(ROWS, ROWS[:, 0] > 0), ROWS)
    with pytest.raises(ArgumentError, match="no numbers: 'a'"):
        explain(LinearRegression().fit(ROWS, ROWS[:, 0]), TABLE.assign(a="text"))
    with pytest.raises(UnitError, match="did you mean ring"):
        explain(ShapesCNN(), torch.rand(1, 3, 32, 32), "rings")


@pytest.mark.parametrize("preprocess", [None, lambda pictures: pictures - 0.5])
def test_pictures_of_another_range_are_refused(preprocess):
    images = torch.rand(1, 3, 16, 16)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    given = [255 * images, (255 * images).byte()]
    given += [] if preprocess is None else [4 * images - 2]  # normalized twice
    for pictures in given:
        with pytest.raises(ArgumentError, match=r"values in \[0, 1\], got .*: divide those of bytes by 255"):
            explain(model, pictures, preprocess=preprocess, verbose=False)
    if preprocess is None:
        assert explain(model, 4 * images - 2, verbose=False).attribution.method == "PartitionShap"


def test_names_of_another_number_than_outputs_and_texts_in_an_array_are_refused():
    model = nn.Linear(4, 3)
    for names in (["one"], list("four")):
        with pytest.raises(ShapeError, match=f"class_names has {len(names)} names? for 3 outputs"):
            explain(model, ROWS, 0, class_names=names, verbose=False)
    assert explain(model, ROWS, "b", class_names=list("abc"), verbose=False).attribution.names == ("b",)
    with pytest.raises(ArgumentError, match="columns that are no numbers, got an array"):
        explain(model, TABLE.assign(a="text").to_numpy(), 0, verbose=False)
