"""The sanity score: 1 for natural images that excite the unit, 0 for others, whatever the layer."""

import weakref

import pytest
import torch
from matplotlib import pyplot
from scipy.stats import spearmanr
from torch import nn

from toumei.cnns import SanityScore, sanity_check
from toumei.core import run
from toumei.core.errors import ArgumentError, LayerError, ShapeError, UnitError, UnreachedLayerError


def noise(count, side=10, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def kind(count, color, seed=0):
    """Images that are alike: one colour and a little noise."""
    return (torch.tensor(color)[:, None, None] + 0.2 * (noise(count, seed=seed) - 0.5)).clamp(0, 1)


RED, BLUE = (0.9, 0.2, 0.1), (0.1, 0.3, 0.9)


@pytest.fixture
def wide(watched):
    torch.manual_seed(0)
    return watched(
        nn.Sequential(
            nn.Conv2d(3, 12, 3), nn.ReLU(inplace=True), nn.Conv2d(12, 16, 3), nn.ReLU(), nn.AvgPool2d(2)
        )
    )


def test_the_similarities_are_mean_rank_correlations(wide):
    """Against scipy, pair by pair, with the ties that a ReLU makes."""
    picture, exciting, others = noise(1), noise(3, seed=1), noise(4, seed=2)
    score = sanity_check(wide, "3:0", picture, exciting, others)
    assert score.layers == ("0", "1", "2", "3") and score.similarities.shape == (1, 4)
    for column, layer in enumerate(score.layers):

        def code(images, layer=layer):
            with torch.no_grad():
                return run(wide, images, record=[layer])[layer].mean((2, 3)).numpy()

        def mean(first, second, code=code):
            pairs = [(a, b) for a in code(first) for b in code(second) if (a != b).any()]
            return sum(spearmanr(a, b).statistic for a, b in pairs) / len(pairs)

        assert score.similarities[0, column].item() == pytest.approx(mean(picture, exciting), abs=1e-5)
        assert score.exciting[0, column].item() == pytest.approx(mean(exciting, exciting), abs=1e-5)
        assert score.others[0, column].item() == pytest.approx(mean(exciting, others), abs=1e-5)


def test_natural_images_that_excite_the_unit_have_1_and_others_0(wide):
    exciting, others = kind(12, RED), kind(12, BLUE, seed=1)
    natural = sanity_check(wide, "2:0", kind(1, RED, seed=5), exciting, others)
    unrelated = sanity_check(wide, "2:0", kind(1, BLUE, seed=6), exciting, others)
    assert natural.scores.item() == pytest.approx(1, abs=0.15)
    assert unrelated.scores.item() == pytest.approx(0, abs=0.15)


def test_the_mean_score_of_all_other_images_is_exactly_0(wide):
    exciting, others = kind(6, RED), kind(5, BLUE, seed=1)
    scores = sanity_check(wide, ["2:0"] * 5, others, exciting, others)
    assert scores.normalized.mean(0).abs().max() < 1e-4


def test_similarities_are_bounded_and_symmetric(wide):
    first, second, other = noise(2, seed=1), noise(2, seed=2), noise(3, seed=3)
    there = sanity_check(wide, "2:0", first[:1], torch.cat([second[:1]] * 2), other)
    back = sanity_check(wide, "2:0", second[:1], torch.cat([first[:1]] * 2), other)
    torch.testing.assert_close(there.similarities, back.similarities)
    for score in (there, back):
        for values in (score.similarities, score.exciting, score.others):
            assert values.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(there.exciting, torch.ones(1, 3))  # an image is like itself


def test_several_units_at_once_have_the_scores_that_each_has_alone(wide):
    exciting, others = [kind(4, RED), kind(3, BLUE)], noise(5)
    pictures, units = noise(2, seed=7), ["2:3", "0:1"]
    both = sanity_check(wide, units, pictures, exciting, others)
    assert both.layers == ("0", "1", "2")
    assert both.similarities[1, 1:].isnan().all()  # behind the unit
    for index, unit in enumerate(units):
        alone = sanity_check(wide, unit, pictures[index : index + 1], [exciting[index]], others)
        torch.testing.assert_close(alone.scores, both.scores[index : index + 1])


def test_images_may_differ_in_size_and_layers_can_be_chosen(wide):
    score = sanity_check(
        wide,
        ["2:0"],
        [noise(1, 9)[0]],
        noise(2, 14),
        noise(3, 11),
        ["4", "0"],
        preprocess=lambda x: 2 * x - 1,
    )
    assert score.layers == ("4", "0") and score.similarities.isfinite().all()


def test_layers_that_do_not_tell_images_apart_give_no_score(wide):
    same = noise(1).expand(3, -1, -1, -1)
    with pytest.warns(UserWarning, match="there is no score for 0:0: .* not more like each other"):
        score = sanity_check(wide, "0:0", noise(1), same, same)
    assert score.scores.isnan().all()


@pytest.mark.filterwarnings("ignore:there is no score")
def test_modes_and_weights_are_kept(small_cnn):
    small_cnn.train()
    sanity_check(small_cnn, "conv2:1", noise(1), noise(2), noise(2), ["conv1", "relu1"])
    assert small_cnn.training


def test_the_score_is_drawn_written_and_read(wide, tmp_path):
    score = sanity_check(wide, ["2:3", "0:1"], noise(2), noise(4, seed=1), noise(5, seed=2))
    axes = score.plot()
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["exciting images", "picture", "other images"]
    pyplot.close("all")
    score.save(tmp_path / "new" / "score.safetensors")
    loaded = SanityScore.load(tmp_path / "new" / "score.safetensors")
    torch.testing.assert_close(loaded.normalized, score.normalized, equal_nan=True)
    assert repr(loaded) == repr(score) and repr(score).startswith("SanityScore(")


def test_bad_input_says_what_is_wrong(wide):
    images = noise(3)
    with pytest.raises(ArgumentError, match="expected pictures for 2 units, got pictures for 3"):
        sanity_check(wide, ["0:1", "0:2"], images, images, images)
    with pytest.raises(ArgumentError, match="expected other images for 1 unit, got other images for 2"):
        sanity_check(wide, "0:1", images[:1], images, [images, images])
    with pytest.raises(ShapeError, match="at least two exciting images"):
        sanity_check(wide, "0:1", images[:1], images[:1], images)
    with pytest.raises(ShapeError, match="other images must be a tensor"):
        sanity_check(wide, "0:1", images[:1], images, images[:0])
    with pytest.raises(ShapeError, match=r"pictures must be RGB in \[0, 1\]"):
        sanity_check(wide, "0:1", 255 * images[:1], images, images)
    with pytest.raises(UnitError, match="cannot read the unit"):
        sanity_check(wide, "0:one", images[:1], images, images)
    with pytest.raises(LayerError, match="no layer 'conv9'"):
        sanity_check(wide, "conv9:1", images[:1], images, images)


def test_layers_come_in_the_order_in_which_they_run():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first, self.last = nn.Conv2d(8, 8, 3), nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)

        def forward(self, images):
            return self.last(self.second(self.first(images)))

    images = torch.rand(6, 3, 9, 9)
    score = sanity_check(Late(), "last:0", images[:1], images[1:3], images[3:])
    assert score.layers == ("first", "second", "last")


@pytest.mark.filterwarnings("ignore:there is no score")
def test_activations_of_all_layers_are_never_held_at_once():
    made, alive = [], []

    class Watched(nn.Conv2d):
        def forward(self, images):
            output = super().forward(images)
            made.append(weakref.ref(output))
            alive.append(sum(one() is not None for one in made))
            return output

    images = torch.rand(6, 3, 9, 9)
    model = nn.Sequential(Watched(3, 8, 1), *(Watched(8, 8, 1) for _ in range(9)))
    sanity_check(model, "9:0", images[:1], images[1:3], images[3:])
    assert max(alive) <= 3


def test_a_layer_that_is_not_reached_is_named():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.unused = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)

        def forward(self, images):
            return self.conv(images)

    images = torch.rand(6, 3, 9, 9)
    with pytest.raises(UnreachedLayerError, match="'unused' was never reached"):
        sanity_check(Model(), "conv:0", images[:1], images[1:3], images[3:], layers=["conv", "unused"])
