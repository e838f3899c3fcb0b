"""What users of pandas and scikit-learn give: rows by name, classes by name, arrays in any order, labels."""

from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from torch import nn

from toumei.attribution import (
    ExactShapley,
    FromData,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    attribute_many,
    explain,
)
from toumei.core.errors import (
    ArgumentError,
    ForwardError,
    NotATensorError,
    OutputError,
    ShapeError,
    UnitError,
)

NAMES = ("age", "dose", "weight")
ROWS = np.random.default_rng(0).normal(size=(40, 3))
TABLE = pandas.DataFrame(ROWS, columns=NAMES)
LABELS = np.where(ROWS[:, 0] + 2 * ROWS[:, 1] > 0, "ill", "well")
MODEL = LogisticRegression().fit(TABLE, LABELS)
PICTURES = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def test_a_row_that_was_taken_out_has_no_number_that_is_not_its_own():
    found = ExactShapley(MODEL)(TABLE[:3], "ill", TABLE.mean())
    assert found.waterfall(2).get_title() == "ExactShapley, row 2"
    assert found[2].waterfall().get_title() == "ExactShapley"
    named = ExactShapley(MODEL)(TABLE[3:6], "ill", TABLE.mean())
    assert named[2].bar(0).get_title() == "ExactShapley, row 5"


def test_a_table_in_a_notebook_writes_what_rounding_leaves_as_zero():
    model = nn.Linear(3, 1, bias=False)
    torch.nn.init.zeros_(model.weight).data[0, 0] = 1.0
    found = ExactShapley(model)(torch.tensor([[3.0, 1.0, 2.0]]), baselines=torch.zeros(3))
    found = replace(found, values=found.values + torch.tensor([0.0, 1e-17, -1e-9]))
    assert found._repr_html_().count(">0</td>") == 2 and "e-" not in found._repr_html_().split("<table>")[1]


def test_a_frame_of_rows_that_were_drawn_is_joined_with_its_table():
    drawn = TABLE.sample(5, random_state=1)
    found = ExactShapley(MODEL)(drawn, "ill", TABLE.mean())
    joined = drawn.join(found.to_frame().add_prefix("why "))
    assert not joined.isna().any().any()
    np.testing.assert_allclose(joined["why dose"], found.values[:, 1])
    named = ExactShapley(MODEL)(drawn.set_axis(list("vwxyz")), "ill", TABLE.mean())
    assert list(named.to_frame().index) == list("vwxyz")
    padded = ExactShapley(MODEL)(drawn[:2].set_axis(["01", "2"]), "ill", TABLE.mean())
    assert list(padded.to_frame().index) == ["01", "2"]


def test_a_loop_over_an_attribution_ends():
    found = ExactShapley(MODEL)(TABLE[:3], "ill", TABLE.mean())
    rows = list(found)
    assert [len(row) for row in rows] == [1, 1, 1]
    assert torch.equal(torch.cat([row.values for row in rows]), found.values)
    several = ExactShapley(MODEL)(TABLE[:3], ["ill", "well"], TABLE.mean())
    assert [one.names for one in several] == [("ill",), ("well",)]
    assert torch.equal(list(several)[1].values, several["well"].values)


@pytest.mark.parametrize("baseline", [TABLE.mean(), FromData(TABLE[10:20])], ids=["mean", "rows"])
def test_columns_of_a_baseline_are_taken_by_name(baseline):
    order = ["weight", "age", "dose"]
    data = TABLE[10:20][order]
    other = TABLE.mean()[order] if isinstance(baseline, pandas.Series) else FromData(data)
    wanted = ExactShapley(MODEL)(TABLE[:3], "ill", baseline)
    for rows in (TABLE[:3], ROWS[:3]):  # an array has the columns of the estimator
        found = ExactShapley(MODEL)(rows, "ill", other)
        torch.testing.assert_close(found.values, wanted.values, rtol=0, atol=1e-15)
    many = attribute_many(ExactShapley(MODEL), TABLE[:3], "ill", other, batch_size=2, verbose=False)
    torch.testing.assert_close(many.baseline_output, wanted.baseline_output)
    network = nn.Linear(3, 2)
    one, two = (
        IntegratedGradients(network)(TABLE[:3], 1, mean) for mean in (TABLE.mean(), TABLE.mean()[order])
    )
    assert torch.equal(one.values, two.values)
    frame = ExactShapley(MODEL)(TABLE[:3], "ill", TABLE[10:13][order])
    assert torch.equal(frame.values, ExactShapley(MODEL)(TABLE[:3], "ill", TABLE[10:13]).values)


def test_a_baseline_of_other_columns_is_refused_and_names_for_display_are_not_compared():
    other = TABLE.mean().rename({"dose": "pills"})
    with pytest.raises(ArgumentError, match=r"unknown \['pills'\], missing \['dose'\]"):
        ExactShapley(MODEL)(TABLE[:2], "ill", other)
    shown = InputXGradient(nn.Linear(3, 2))(TABLE[:2], 0, feature_names=list("abc"))
    assert shown.feature_names == ("a", "b", "c")
    method = IntegratedGradients(nn.Linear(3, 2))
    renamed = method(torch.from_numpy(ROWS[:2]).float(), 0, TABLE.mean(), feature_names=list("abc"))
    assert torch.equal(renamed.values, method(ROWS[:2], 0, TABLE.mean().to_numpy()).values)


def test_a_list_of_numbers_is_a_row():
    found = ExactShapley(MODEL)(ROWS[:2], "ill", [0.5, 0.0, 1.0])
    assert torch.equal(found.values, ExactShapley(MODEL)(ROWS[:2], "ill", np.array([0.5, 0.0, 1.0])).values)
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        ExactShapley(MODEL)(ROWS[:2], "ill", [0.5, 0.0])
    with pytest.raises(ArgumentError, match="2 baselines for 1 input"):
        ExactShapley(MODEL)(ROWS[:2], "ill", [torch.zeros(3), torch.zeros(3)])


@pytest.mark.parametrize("kind", [np.asarray, pandas.Series, pandas.Categorical])
def test_an_array_of_names_is_a_class_for_each_row(kind):
    labels = kind(LABELS[:6])
    numbers = torch.tensor([int(label == "well") for label in LABELS[:6]])
    found = ExactShapley(MODEL)(TABLE[:6], labels, TABLE.mean())
    assert found.classes == tuple(LABELS[:6])
    assert torch.equal(found.values, ExactShapley(MODEL)(TABLE[:6], numbers, TABLE.mean()).values)
    many = attribute_many(ExactShapley(MODEL), TABLE[:6], labels, TABLE.mean(), batch_size=4, verbose=False)
    assert many.classes == found.classes
    assert explain(MODEL, TABLE[:6], labels, verbose=False).attribution.classes == found.classes


def test_names_of_classes_that_fit_no_output_are_refused():
    with pytest.raises(UnitError, match="no class 'il': did you mean ill"):
        ExactShapley(MODEL)(TABLE[:2], np.array(["ill", "il"]), TABLE.mean())
    with pytest.raises(ShapeError, match="2 targets for 3 inputs"):
        ExactShapley(MODEL)(TABLE[:3], np.array(["ill", "well"]), TABLE.mean())
    with pytest.raises(UnitError, match="no class 'macaw': the outputs have no names, give class_names="):
        Saliency(PICTURES)(torch.rand(1, 3, 8, 8), "macaw")
    with pytest.raises(UnitError, match="the whole layer '0'"):
        Saliency(PICTURES)(torch.rand(1, 3, 8, 8), "0")
    with pytest.raises(ArgumentError, match="a class for each input is an array"):
        explain(MODEL, TABLE[:2], ["ill", "well"])


def test_numbers_are_refused_where_they_may_be_labels():
    labels = np.where(LABELS == "ill", 3, 1)
    model = LogisticRegression().fit(TABLE, labels)
    for target in (1, labels[:4], torch.tensor([0, 1, 1, 0])):
        with pytest.raises(UnitError, match="the labels of the classes are numbers, 1, 3, and other ones"):
            ExactShapley(model)(TABLE[:4], target, TABLE.mean())
    found = ExactShapley(model)(TABLE[:4], labels[:4].astype(str), TABLE.mean())
    assert found.classes == tuple(labels[:4].astype(str))
    assert explain(model, TABLE[:4], verbose=False).attribution.names in (("1",), ("3",))
    counted = LogisticRegression().fit(TABLE, labels == 3)
    assert ExactShapley(counted)(TABLE[:4], "True", TABLE.mean()).names == ("True",)
    assert ExactShapley(counted)(TABLE[:4], 1, TABLE.mean()).names == ("True",)


def test_as_many_rows_as_inputs_are_pairs_and_a_background_is_drawn_from():
    background = ROWS[10:13]
    pairs = ExactShapley(MODEL)(ROWS[:3], "ill", background)
    for row in range(3):
        alone = ExactShapley(MODEL)(ROWS[row : row + 1], "ill", background[row])
        assert torch.allclose(pairs.values[row], alone.values[0])
    drawn = ExactShapley(MODEL)(ROWS[:3], "ill", FromData(background))
    assert len(set(drawn.baseline_output.tolist())) == 1 and len(set(pairs.baseline_output.tolist())) == 3
    with pytest.raises(ShapeError, match=r"rows to draw from are FromData"):
        ExactShapley(MODEL)(ROWS[:3], "ill", ROWS[10:15])


@pytest.mark.parametrize(
    "door", [ExactShapley.__call__, explain, attribute_many], ids=lambda door: door.__name__
)
def test_a_user_of_shap_reads_how_a_background_is_given(door):
    told = door.__doc__.split(" baselines: ")[1].split("_names: ")[0]
    assert "as shap takes" in told and "FromData(background)" in told


def test_rows_that_are_their_own_baselines_are_told():
    with pytest.warns(UserWarning, match="the baseline of each input is that input.*FromData"):
        ExactShapley(MODEL)(TABLE[:3], "ill", TABLE[:3])


def test_reversed_axes_of_arrays_are_taken():
    turned = ROWS[:4][::-1]
    found = ExactShapley(MODEL)(turned, "ill", TABLE.mean())
    assert torch.equal(found.values, ExactShapley(MODEL)(turned.copy(), "ill", TABLE.mean()).values)
    colours = np.random.default_rng(1).random((1, 3, 8, 8)).astype("float32")[:, ::-1]  # as of OpenCV
    wanted = Saliency(PICTURES)(colours.copy(), 1)
    assert torch.equal(Saliency(PICTURES)(colours, 1).values, wanted.values)
    with pytest.raises(NotATensorError):
        Saliency(PICTURES)(colours.astype(object), 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (KMeans(2, n_init=1).fit(ROWS), "predictions of KMeans are labels, no scores: give its transform"),
        (IsolationForest(n_estimators=5).fit(ROWS), "its decision_function or its score_samples"),
        (
            RidgeClassifier().fit(ROWS, LABELS).predict,
            "RidgeClassifier is a classifier without",
        ),
        (MODEL.predict, "predictions of LogisticRegression are labels, no scores: give its predict_proba"),
        (LogisticRegression(), "LogisticRegression is not fitted"),
    ],
    ids=["clusters", "outliers", "labels", "labels of probabilities", "not fitted"],
)
def test_estimators_without_scores_are_refused(model, message):
    with pytest.raises(ArgumentError, match=message):
        explain(model, ROWS[:3], verbose=False)


def test_a_classifier_with_several_outputs_says_how_one_of_them_is_explained():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    labels = (rows[:, :2] > 0).astype(int)
    model = MultiOutputClassifier(LogisticRegression()).fit(rows, labels)
    message = (
        r"has 2 outputs, .* \(3, 2\), \(3, 2\): give .* lambda rows: estimator\.predict_proba\(rows\)\[0\]"
    )
    for given in (model, model.predict_proba):
        with pytest.raises(OutputError, match=message):
            explain(given, rows[:3], verbose=False)
    names = [str(one) for one in model.classes_[1]]
    second = ExactShapley(lambda given: model.predict_proba(given)[1])(rows[:3], "1", class_names=names)
    assert torch.allclose(second.values, ExactShapley(model.estimators_[1])(rows[:3], 1).values)


def test_a_regression_of_several_outputs_is_explained_by_their_numbers():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    model = MultiOutputRegressor(Ridge()).fit(rows, rows[:, :2] * 2)
    second = ExactShapley(model)(rows[:3], 1)
    assert torch.allclose(second.values, ExactShapley(model.estimators_[1])(rows[:3]).values)


def test_functions_return_numbers_and_counts_are_numbers():
    found = ExactShapley(lambda rows: (rows > 0).sum(1))(ROWS[:3], None, [-1.0, -1.0, -1.0])
    torch.testing.assert_close(found.values, torch.from_numpy(ROWS[:3] > 0).to(found.values.dtype))
    for labels in (lambda rows: np.array(["ill"] * len(rows)), lambda rows: ["ill"] * len(rows)):
        with pytest.raises(OutputError, match="scores, which are numbers"):
            ExactShapley(labels)(ROWS[:3])


def test_models_inputs_and_baselines_of_another_kind_are_told_the_way_out():
    with pytest.raises(NotATensorError, match=r"got 'a tumour': texts are explained by token_attr"):
        Saliency(PICTURES)("a tumour")
    with pytest.raises(ArgumentError, match="got LogisticRegression: estimators are explained by"):
        IntegratedGradients(MODEL)
    with pytest.raises(ArgumentError, match=r"got a csr_matrix: give inputs.toarray\(\)"):
        ExactShapley(MODEL)(csr_matrix(ROWS[:2]), "ill")
    with pytest.raises(ArgumentError, match="give inputs.toarray"):
        explain(MODEL, csr_matrix(ROWS[:2]), "ill")
    with pytest.raises(ArgumentError, match=r"such as Mean\(\), Blur\(\) or FromData\(rows\), got 'blur'"):
        IntegratedGradients(PICTURES)(torch.rand(1, 3, 8, 8), 1, "blur")
    with pytest.raises(ArgumentError, match=r"data.iloc\[\[0\]\]"):
        explain(MODEL, TABLE.iloc[0], "ill")
    with pytest.raises(ArgumentError, match="'a' is the name of the features"):
        InputXGradient(nn.Linear(3, 2))(ROWS[:2], 0, feature_names=list("aab")).scatter("a")


def test_attribute_as_in_captum_says_what_to_call():
    method = InputXGradient(nn.Linear(3, 2))
    rows = torch.rand(2, 3)
    for call in (lambda: method.attribute(rows, target=1), lambda: method.attribute(inputs=rows)):
        with pytest.raises(
            ArgumentError, match=r"call the method, as InputXGradient\(model\)\(inputs, target"
        ):
            call()


def test_an_attribution_is_an_array_of_its_contributions():
    found = InputXGradient(nn.Linear(3, 2))(ROWS[:2], 0)
    assert np.array_equal(np.asarray(found), found.values.numpy())
    assert np.asarray(found, dtype="float64").dtype == np.float64
    pair = InputXGradient(nn.Bilinear(3, 3, 1))((torch.rand(2, 3), torch.rand(2, 3)))
    with pytest.raises(ArgumentError, match="several inputs"):
        np.asarray(pair)


def test_pictures_without_a_batch_and_with_channels_last_are_told_their_order():
    with pytest.raises(ForwardError, match=r"one picture needs an axis of the batch, as picture\[None\]"):
        Saliency(PICTURES)(torch.rand(3, 8, 8), 1)
    with pytest.raises(ForwardError, match=r"pictures are \(N, C, H, W\)"):
        Saliency(PICTURES)(torch.rand(2, 8, 8, 3), 1)
    for shape in ((8, 9, 3), (2, 8, 9, 3)):
        with pytest.raises(ArgumentError, match="channels come before height and width"):
            explain(PICTURES, torch.rand(shape))
    with pytest.raises(ForwardError) as told:
        Saliency(nn.Linear(5, 2))(torch.rand(3, 8, 8), 1)
    assert "picture" not in str(told.value)
