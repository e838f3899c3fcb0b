"""Several views of each picture in a step: their order, their number, and the score as their mean."""

import pytest
import torch
from torch import nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import Pipeline
from toumei.core.errors import ShapeError


class Shifts(nn.Module):
    """Deterministic views: the pictures moved by 0, 1, 2 ... pixels."""

    def __init__(self, views):
        super().__init__()
        self.views = views

    def forward(self, images):
        return torch.cat([images.roll(shift, dims=-1) for shift in range(self.views)])


def pictures(*transforms, images=2):
    return param.Transform(param.PixelImage(images, 3, 12, 9, sd=0.5, seed=1), *transforms)


def test_views_are_counted_through_sequences_and_nested_transforms():
    assert param.PixelImage(1, 3, 4, 4).views == 1
    assert pictures(lambda x: x).views == 1
    assert pictures(Shifts(3)).views == 3
    assert pictures(nn.Sequential(nn.Identity(), Shifts(3)), lambda x: x, Shifts(2)).views == 6
    assert param.Transform(pictures(Shifts(2)), Shifts(2)).views == 4


def test_the_first_views_of_all_pictures_come_first():
    generator = pictures(Shifts(2), Shifts(3))
    image = generator.get_image()
    seen = generator.view(image)
    expected = [image.roll(inner + outer, dims=-1) for outer in range(3) for inner in range(2)]
    torch.testing.assert_close(seen, torch.cat(expected))


def test_a_transform_with_another_number_of_views_than_it_says_is_named():
    class Liar(Shifts):
        def forward(self, images):
            return images

    generator = pictures(Liar(3))
    with pytest.raises(ShapeError, match=r"Liar\(\) must return 6 pictures .* got \(2, 3, 12, 9\)"):
        generator.view(generator.get_image())


@pytest.mark.parametrize(
    "objective",
    [
        obj.Channel("conv2", channels=[1, 3]),
        obj.Neuron("conv2:1") + obj.Layer("conv1"),
        obj.as_objective(["conv2:0", "conv1:2:3:4"]),
        obj.Channel("conv2:1") - 0.01 * obj.TotalVariation(),
        obj.Diversity("conv1"),
    ],
    ids=str,
)
def test_the_score_is_the_mean_over_the_views(small_cnn, objective):
    together = Pipeline(pictures(Shifts(3)), objective).attach(small_cnn)
    loss = together._task.loss()
    alone = [
        Pipeline(pictures(lambda x, s=shift: x.roll(s, dims=-1)), objective).attach(small_cnn)._task.loss()
        for shift in range(3)
    ]
    torch.testing.assert_close(loss, torch.stack(alone).mean(0))


def test_a_run_with_views_has_one_loss_for_each_picture(small_cnn):
    fv = Pipeline(pictures(Shifts(3)), ["conv2:0", "conv2:1"]).attach(small_cnn)
    result = fv.optimize(4, verbose=False)
    assert result.losses.shape == (4, 2)
    assert result.images.shape == (2, 3, 12, 9)
    assert (result.losses[-1] < result.losses[0]).all()


def test_a_layer_that_loses_the_batch_is_named(watched):
    class Merging(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)
            self.merge = nn.Identity()

        def forward(self, x):
            return self.merge(self.body(x).mean(0, keepdim=True))

    fv = Pipeline(pictures(Shifts(3)), obj.Layer("merge"))
    with pytest.raises(ShapeError, match=r"'merge' should be 3 views of 2 pictures, got \(1, 4, 10, 7\)"):
        fv.attach(watched(Merging()))
