"""The sets of transforms of lucid and of the Distill article."""

import pytest
import torch
from pictures import every_size, pictures, ramps

from toumei.cnns import robustness
from toumei.core import seeded

PRESETS = ["lucid", "distill", "light"]
every_preset = pytest.mark.parametrize("name", PRESETS)


@every_preset
def test_presets_draw_for_each_image_or_once(name):
    image = pictures(1, 24, 24).expand(16, -1, -1, -1)
    with seeded(6):
        views = getattr(robustness, name)()(image)
        shared = getattr(robustness, name)(same_on_batch=True)(image)
    assert len(views.flatten(1).unique(dim=0)) > 8
    torch.testing.assert_close(shared, shared[:1].expand_as(shared), atol=1e-6, rtol=0)


@every_preset
@every_size
def test_views_of_the_presets_have_the_size_that_they_promise(name, size):
    larger = 12 if name == "lucid" else 0
    view = getattr(robustness, name)()(pictures(2, *size))
    assert view.shape == (2, 3, size[0] + larger, size[1] + larger)


@every_preset
def test_presets_keep_the_middle_of_the_picture_near_the_middle_of_the_view(name):
    preset = getattr(robustness, name)(fill=0.0)
    size = (40, 60)
    with seeded(7):
        view = preset(ramps(400, *size))
    y, x = (view.shape[2] - 1) // 2, (view.shape[3] - 1) // 2
    assert view[:, 0, y, x].mean().item() == pytest.approx((size[1] - 1) / 2, abs=1)
    assert view[:, 1, y, x].mean().item() == pytest.approx((size[0] - 1) / 2, abs=1)
