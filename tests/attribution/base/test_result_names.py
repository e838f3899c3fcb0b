"""Names of columns, rows and classes: where they come from, what is done with rows, what is refused."""

import json

import numpy as np
import pandas
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from torch import nn

from toumei.attribution import Attribution, ExactShapley, InputXGradient, KernelShap, Occlusion
from toumei.core.errors import ArgumentError, ShapeError, UnitError
from toumei.models import ShapesCNN

NAMES = ("age", "dose", "weight")
GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.normal(size=(40, 3))
TABLE = pandas.DataFrame(ROWS, columns=NAMES, index=[f"patient {row}" for row in range(40)])
LABELS = np.where(ROWS[:, 0] + ROWS[:, 1] > 0, "ill", "well")


def linear(rows=4, **options):
    """Contributions of a linear network, whose values are weights times inputs."""
    model = nn.Linear(3, 2)
    return model, InputXGradient(model)(torch.from_numpy(ROWS[:rows]).float(), **options)


def test_columns_and_rows_of_a_table_are_kept():
    found = KernelShap(LogisticRegression().fit(TABLE, LABELS))(TABLE[:3], "ill", TABLE.mean())
    assert found.feature_names == NAMES and found.names == ("ill",)
    assert found.row_names == ("patient 0", "patient 1", "patient 2")
    torch.testing.assert_close(found.data, torch.from_numpy(ROWS[:3]))
    frame = found.to_frame()
    assert list(frame.columns) == list(NAMES) and list(frame.index) == list(found.row_names)
    torch.testing.assert_close(torch.tensor(frame.to_numpy()), found.values.double())


def test_an_index_that_only_counts_has_no_names():
    _, plain = linear(target=0)
    assert plain.row_names is None and plain.feature_names is None
    model = nn.Linear(3, 2)
    method = InputXGradient(model)
    assert method(TABLE.reset_index(drop=True), 0).row_names is None
    assert method(TABLE.reset_index(drop=True)[5:7], 0).row_names == ("5", "6")


def test_names_that_are_given_come_first():
    model = LogisticRegression().fit(ROWS, LABELS == "ill")
    found = ExactShapley(model)(TABLE[:2], "ill", class_names=["well", "ill"], feature_names=list("abc"))
    assert found.feature_names == ("a", "b", "c") and found.names == ("ill",)
    wanted = ExactShapley(model)(ROWS[:2], 1)
    torch.testing.assert_close(found.values, wanted.values)


def test_an_array_has_the_columns_that_an_estimator_was_fitted_to():
    found = Occlusion(LogisticRegression().fit(TABLE, LABELS), window=1)(ROWS[:2], "well")
    assert found.feature_names == NAMES


def test_classes_of_rows_are_named():
    model = ShapesCNN()
    found = InputXGradient(model)(torch.rand(2, 3, 32, 32), torch.tensor([1, 0]))
    assert found.classes == (model.categories[1], model.categories[0]) and found.names is None
    assert found[1].classes == (model.categories[0],)
    several = InputXGradient(model)(torch.rand(2, 3, 32, 32), [model.categories[2], "conv1:3"])
    assert several.names == (model.categories[2], "conv1:3")


@pytest.mark.parametrize("several", [False, True])
def test_slices_joined_again_are_the_whole(several):
    _, whole = linear(target=[0, 1] if several else 1, feature_names=NAMES, row_names=list("abcd"))
    parts = whole[:1], whole[torch.tensor([False, True, False, True])], whole[[2]]
    assert [part.row_names for part in parts] == [("a",), ("b", "d"), ("c",)]
    joined = Attribution.cat(parts)[[0, 1, 3, 2]]
    assert len(whole) == len(joined) == 4 and joined.row_names == whole.row_names
    for name in ("values", "output", "data"):
        assert torch.equal(getattr(joined, name), getattr(whole, name))
    assert torch.equal(whole[1:3].values, whole.values[..., 1:3, :])


def test_sums_of_groups_add_up_to_the_whole():
    _, result = linear(target=[0, 1], feature_names=NAMES)
    groups = result.sum({"body": ["age", 2], "drug": ["dose"]})
    assert groups.feature_names == ("body", "drug") and groups.values.shape == (2, 4, 2)
    torch.testing.assert_close(groups.sums, result.sums)
    torch.testing.assert_close(groups.values[..., 0], result.values[..., 0] + result.values[..., 2])
    assert torch.equal(result.sum(["body", "drug", "body"]).values, groups.values)
    assert torch.equal(result.abs().values, result.values.abs()) and not result.abs().complete


def test_frames_of_several_targets_and_of_texts():
    _, result = linear(target=[0, 1], class_names=["no", "yes"])
    frame = result.to_frame()
    assert frame.loc[("yes", 2)].to_list() == pytest.approx(result["yes"].values[2].tolist())
    words = Attribution(torch.tensor([[1.0, 2.0]]), torch.zeros(1), tokens=(("a", "b"),)).to_frame()
    assert words["token"].to_list() == ["a", "b"] and words["contribution"].to_list() == [1.0, 2.0]


def test_names_are_saved_and_files_without_them_are_read(tmp_path):
    _, result = linear(target=0, feature_names=NAMES, row_names=list("abcd"))
    result.save(tmp_path / "named.safetensors")
    loaded = Attribution.load(tmp_path / "named.safetensors")
    assert loaded.feature_names == NAMES and loaded.row_names == tuple("abcd")
    assert torch.equal(loaded.data, result.data)
    Attribution(result.values, result.output).save(tmp_path / "plain.safetensors")
    header = (tmp_path / "plain.safetensors").read_bytes()
    size = int.from_bytes(header[:8], "little")
    stored = json.loads(json.loads(header[8 : 8 + size])["__metadata__"]["toumei"])["header"]
    assert "feature_names" not in stored and "tokens" in stored  # as files before there were names
    assert Attribution.load(tmp_path / "plain.safetensors").feature_names is None


def refused(error, match, call, *args, **kwargs):
    with pytest.raises(error, match=match):
        call(*args, **kwargs)


def test_names_of_another_number_are_refused():
    method = InputXGradient(nn.Linear(3, 2))
    rows = torch.rand(2, 3)
    refused(ShapeError, "feature_names has 2 names for 3 columns", method, rows, 0, feature_names=["a", "b"])
    refused(ShapeError, "row_names has 1 name for 2 inputs", method, rows, 0, row_names=["a"])
    refused(ArgumentError, "columns of a table", Occlusion(ShapesCNN()), torch.rand(1, 3, 32, 32), 0,
            feature_names=["a", "b", "c"])  # fmt: skip


def test_classes_that_do_not_exist_are_refused_with_the_nearest():
    model = LogisticRegression().fit(TABLE, LABELS)
    refused(UnitError, "no class 'wel': did you mean well", ExactShapley(model), TABLE[:1], "wel")
    refused(UnitError, "there are ill, well", ExactShapley(model), TABLE[:1], "q")
    twice = {"class_names": ["crane", "crane"]}
    refused(UnitError, r"classes \[0, 1\]", ExactShapley(nn.Linear(3, 2)), torch.rand(1, 3), "crane", **twice)


def test_tables_that_do_not_fit_are_refused():
    model = LinearRegression().fit(TABLE, ROWS[:, 0])
    text = TABLE[:2].assign(dose=["low", "high"])
    refused(ArgumentError, r"columns that are no numbers: 'dose'.*get_dummies", ExactShapley(model), text)
    refused(ArgumentError, "another order", ExactShapley(model), TABLE[["dose", "age", "weight"]])
    other = TABLE.rename(columns={"dose": "pills"})
    refused(ArgumentError, r"unknown \['pills'\], missing \['dose'\]", ExactShapley(model), other)


def test_a_classifier_without_probabilities_is_refused_and_its_decisions_are_not():
    model = RidgeClassifier().fit(ROWS, LABELS)
    refused(ArgumentError, "RidgeClassifier is a classifier without predict_proba", ExactShapley, model)
    found = ExactShapley(model.decision_function)(ROWS[:2])
    torch.testing.assert_close(found.output, torch.from_numpy(model.decision_function(ROWS[:2])))


def test_rows_and_groups_that_do_not_exist_are_refused():
    _, result = linear(target=0, feature_names=NAMES, row_names=list("abcd"))
    refused(ArgumentError, "no feature 'dos': did you mean dose", result.sum, {"x": ["dos"]})
    refused(ArgumentError, r"in none or in several are \['weight'\]", result.sum, {"x": ["age", "dose"]})
    refused(ArgumentError, "2 groups for 3 columns", result.sum, ["a", "b"])
    refused(ArgumentError, "at least one row", result.__getitem__, slice(0, 0))
    refused(ArgumentError, "rows are a slice", result.__getitem__, [7])
    refused(ArgumentError, "no row 'e'", result.bar, "e")
    refused(ArgumentError, "no row 9", result.bar, 9)
    refused(ArgumentError, "different feature_names", Attribution.cat, [result, linear(target=0)[1]])
    refused(ArgumentError, "at least one attribution", Attribution.cat, [])
