"""Dataset examples: those of a full search, whatever happens on the way, at the right place."""

import gc
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from matplotlib import pyplot
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from toumei import plots
from toumei.cnns import DatasetExamples, dataset_examples
from toumei.cnns.examples import checkpoint as example_state
from toumei.core import run
from toumei.core.errors import (
    ArgumentError,
    LayerError,
    NonFiniteError,
    ShapeError,
    UnitError,
    UnreachedLayerError,
)

LAYERS = ("conv1", "relu2", "head")


def noise(count, side=12, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def search(model, layers=LAYERS, images=None, k=4, batch_size=7, **options):
    loader = DataLoader(noise(40) if images is None else images, batch_size=batch_size)
    return dataset_examples(model, layers, loader, k, verbose=False, **options)


def numbers_alive():
    gc.collect()
    return sum(item.numel() for item in gc.get_objects() if issubclass(type(item), torch.Tensor))


def same(first, second):
    assert first.seen == second.seen and first.fields == second.fields
    for end in ("highest", "lowest"):
        mine, theirs = getattr(first, end), getattr(second, end)
        assert list(mine) == list(theirs)
        for layer in mine:
            for part in ("values", "indices", "positions"):
                assert torch.equal(getattr(mine[layer], part), getattr(theirs[layer], part)), (layer, part)


class Tokens(nn.Module):
    """A class token and a square grid of patches, (N, 1 + side * side, 5)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.patches = nn.Conv2d(3, 5, 4, stride=4)
        self.norm = nn.LayerNorm(5)

    def forward(self, images):
        patches = self.patches(images).flatten(2).transpose(1, 2)
        return self.norm(torch.cat([patches.mean(1, keepdim=True), patches], 1))


# ---------------------------------------------------------------- what is found


@pytest.mark.parametrize("reduction", ["max", "mean"])
@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_the_examples_are_those_of_sorting_all_activations(small_cnn, reduction, batch_size):
    images = noise(40)
    found = search(small_cnn, images=images, reduction=reduction, batch_size=batch_size)
    with torch.no_grad():
        activations = run(small_cnn.eval(), images, record=LAYERS)
    small_cnn.train()
    for layer in LAYERS:
        maps = (
            activations[layer].flatten(2) if activations[layer].dim() > 2 else activations[layer][..., None]
        )
        for lowest in (False, True):
            extreme = maps.amin(2) if lowest else maps.amax(2)
            values = (maps.mean(2) if reduction == "mean" else extreme).T
            order = values.sort(dim=1, descending=not lowest, stable=True).indices[:, :4]
            torch.testing.assert_close(
                found.values(layer, lowest=lowest), values.gather(1, order), rtol=1e-5, atol=1e-6
            )
            if layer != "relu2":  # where many are 0, and rounding would decide
                assert torch.equal(found.indices(layer, lowest=lowest), order)


def test_the_place_is_where_the_activation_is(small_cnn):
    images = noise(20, side=13)
    found = search(small_cnn, images=images, layers="conv2")
    with torch.no_grad():
        maps = run(small_cnn.eval(), images, record=["conv2"])["conv2"]
    small_cnn.train()
    height, width = maps.shape[2:]
    for unit in range(5):
        for end in (False, True):
            positions = found.positions(f"conv2:{unit}", lowest=end) * torch.tensor([height, width])
            for value, index, (y, x) in zip(
                found.values(f"conv2:{unit}", lowest=end),
                found.indices(f"conv2:{unit}", lowest=end),
                positions.long(),
                strict=True,
            ):
                torch.testing.assert_close(maps[index, unit, y, x], value)


def test_the_lowest_are_the_highest_of_the_negated_layer(watched):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3)
    model = watched(nn.Sequential(conv, nn.Identity()))
    found = search(model, "0")
    with torch.no_grad():
        conv.weight.neg_()
        conv.bias.neg_()
    negated = search(model, "0")
    with torch.no_grad():
        conv.weight.neg_()
        conv.bias.neg_()
    torch.testing.assert_close(found.values("0", lowest=True), -negated.values("0"))
    assert torch.equal(found.indices("0", lowest=True), negated.indices("0"))
    assert torch.equal(found.positions("0", lowest=True), negated.positions("0"))


def test_an_image_built_to_excite_a_unit_comes_out_on_top(small_cnn):
    """The image that follows a unit's own kernel wins over noise, and its negative loses."""
    images = 0.5 + 0.1 * (noise(60) - 0.5)
    kernel = small_cnn.conv1.weight[2].detach()
    images[33, :, 4:7, 6:9] = (0.5 + 10 * kernel).clamp(0, 1)
    images[51, :, 4:7, 6:9] = (0.5 - 10 * kernel).clamp(0, 1)
    found = search(small_cnn, "conv1", images, k=2)
    assert found.indices("conv1:2")[0] == 33 and found.indices("conv1:2", lowest=True)[0] == 51
    crop = found.crops("conv1:2")[0]
    assert torch.equal(crop, images[33, :, 4:7, 6:9])
    torch.testing.assert_close(found.positions("conv1:2")[0] * 12, torch.tensor([5.5, 7.5]))


def test_of_equal_images_the_earlier_ones_are_taken_in_their_order(small_cnn):
    images = noise(1).expand(30, -1, -1, -1)
    found = search(small_cnn, "conv1", images, k=5, batch_size=4)
    assert torch.equal(found.indices("conv1"), torch.arange(5).expand(6, 5))
    assert torch.equal(found.indices("conv1", lowest=True), torch.arange(5).expand(6, 5))


def test_tokens_stand_on_a_grid_and_the_class_token_for_the_whole_image(watched):
    model = watched(Tokens())
    images = noise(10, side=16)
    found = search(model, "norm", images, k=10)
    tokens = model(images).detach()
    assert found.values("norm").shape == (5, 10)
    for unit in range(5):
        for value, index, place in zip(
            found.values(f"norm:{unit}"),
            found.indices(f"norm:{unit}"),
            found.positions(f"norm:{unit}"),
            strict=True,
        ):
            token = tokens[index, :, unit].argmax()
            torch.testing.assert_close(value, tokens[index, token, unit])
            y, x = (token - 1) // 4, (token - 1) % 4
            expected = torch.tensor([0.5, 0.5]) if token == 0 else torch.stack([y + 0.5, x + 0.5]) / 4
            torch.testing.assert_close(place, expected)


def test_the_channels_of_swin_maps_are_named(watched):
    class Last(nn.Module):
        def forward(self, images):
            return images.movedim(1, 3)

    model, images = watched(nn.Sequential(Last())), noise(9)
    images = images[..., :7]
    found = search(model, "0", images, channel_axis=3)
    assert torch.equal(found.values("0"), images.amax((2, 3)).T.sort(dim=1, descending=True).values[:, :4])
    y, x = (found.positions("0")[1, 0] * torch.tensor([12, 7])).long()
    assert images[found.indices("0:1")[0], 1, y, x] == found.values("0:1")[0]


def test_half_precision_is_ranked_in_full(watched):
    model = watched(nn.Sequential(nn.Conv2d(3, 4, 3)).bfloat16())
    found = search(model, "0")
    assert found.values("0").dtype == torch.float32 and found.indices("0").min() >= 0


# ---------------------------------------------------------------- loaders


def test_batches_may_be_tuples_and_any_iterable_numbers_them_as_they_come(small_cnn):
    images = noise(40)
    expected = search(small_cnn, images=images)
    labelled = DataLoader(TensorDataset(images, torch.arange(40)), batch_size=7)
    same(expected, dataset_examples(small_cnn, LAYERS, labelled, 4, verbose=False))
    stream = dataset_examples(small_cnn, LAYERS, iter(images.split(7)), 4, verbose=False)
    same(expected, stream)
    with pytest.raises(ArgumentError, match="the dataset, which is not available"):
        stream.images("conv1:0")
    assert torch.equal(replace(stream, dataset=images).images("conv1:0"), expected.images("conv1:0"))


@pytest.mark.parametrize("given", [lambda images: images, lambda images: images.numpy()])
def test_images_in_one_tensor_or_array_are_shown_and_one_unit_needs_no_list(small_cnn, given):
    images = noise(20)
    wanted = search(small_cnn, images=images)
    found = dataset_examples(small_cnn, LAYERS, given(images), 4, verbose=False)
    assert torch.equal(found.images("conv1:2"), wanted.images("conv1:2"))
    one, several = found.plot("conv1:2"), wanted.plot(["conv1:2"])
    assert (one.images[0].get_array() == several.images[0].get_array()).all()
    pyplot.close("all")


def test_a_stream_cannot_be_asked_for_pictures(small_cnn):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(noise(40))

    found = dataset_examples(small_cnn, LAYERS, DataLoader(Stream(), batch_size=7), 4, verbose=False)
    same(found, search(small_cnn))
    assert found.dataset is None


def test_preprocessing_is_seen_by_the_network_and_not_in_the_pictures(small_cnn):
    images = (noise(40) * 255).byte()
    found = search(small_cnn, images=images, preprocess=lambda batch: batch / 255)
    same(found, search(small_cnn, images=images / 255))
    assert found.images("conv1:0").dtype == torch.uint8


def test_a_forward_pass_ends_behind_the_deepest_layer_and_leaves_the_model_as_it_was(watched):
    class Forbidden(nn.Module):
        def forward(self, images):
            raise AssertionError("not needed")

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Conv2d(4, 4, 3), Forbidden())
    model[0].eval()
    watched(model)
    first, second = search(model, ["0", "2"]), search(model, ["2", "0"])
    torch.testing.assert_close(first.values("2"), second.values("2"))  # nothing was dropped


def test_the_memory_does_not_depend_on_the_number_of_images(small_cnn):
    """No tensor is alive after many batches that was not alive after few."""
    alive = []

    def batches():
        for index in range(60):
            if index in (20, 50):
                alive.append(numbers_alive())
            yield noise(4, seed=index)

    dataset_examples(small_cnn, LAYERS, batches(), 4, verbose=False)
    assert alive[0] == alive[1]


# ---------------------------------------------------------------- going on


class Breaking:
    """A dataset that fails at one image, until it is repaired; counts what is read."""

    def __init__(self, images, at):
        self.images, self.at, self.read = images, at, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index == self.at:
            raise RuntimeError("the disk is gone")
        self.read.append(index)
        return self.images[index]


@pytest.mark.parametrize("at", [3, 16, 39])
def test_a_killed_search_goes_on_and_ends_like_one_that_was_not(small_cnn, tmp_path, at):
    path, dataset = tmp_path / "new" / "state.safetensors", Breaking(noise(40), at)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        search(small_cnn, images=dataset, resume=path)
    dataset.at, dataset.read = None, []
    found = search(small_cnn, images=dataset, resume=path)
    same(found, search(small_cnn))
    assert dataset.read == list(range(at // 7 * 7, 40))  # nothing is read twice
    dataset.read = []
    same(found, search(small_cnn, images=dataset, resume=path))
    assert not dataset.read  # a finished search is only read from its file
    same(found, DatasetExamples.load(path))
    assert [file.name for file in path.parent.iterdir()] == ["state.safetensors"]


def test_a_stream_goes_on_behind_the_images_that_were_seen(small_cnn, tmp_path):
    images, path = noise(40), tmp_path / "state.safetensors"

    def broken():
        yield from images[:20].split(5)
        raise RuntimeError("the line is dead")

    with pytest.raises(RuntimeError, match="the line is dead"):
        dataset_examples(small_cnn, LAYERS, broken(), 4, resume=path, verbose=False)
    found = dataset_examples(small_cnn, LAYERS, images.split(8), 4, resume=path, verbose=False)
    assert found.seen == 40
    assert torch.equal(found.indices("conv1"), search(small_cnn).indices("conv1"))


def test_the_state_is_written_now_and_then_and_not_only_at_the_end(small_cnn, tmp_path, monkeypatch):
    monkeypatch.setattr(example_state, "_SAVE_SECONDS", 0.0)
    path, seen = tmp_path / "state.safetensors", []

    def batches():
        for batch in noise(40).split(10):
            seen.append(DatasetExamples.load(path).seen if path.exists() else 0)
            yield batch

    dataset_examples(small_cnn, LAYERS, batches(), 4, resume=path, verbose=False)
    assert seen == [0, 10, 20, 30]


def test_the_state_of_another_search_is_refused_and_kept(small_cnn, tmp_path):
    path = tmp_path / "state.safetensors"
    search(small_cnn, resume=path)
    before = path.read_bytes()
    others = (
        {"k": 5},
        {"layers": "conv1"},
        {"lowest": False},
        {"reduction": "mean"},
        {"preprocess": nn.Identity()},
        {"images": noise(41)},
    )
    for other in others:
        with pytest.raises(ArgumentError, match="holds another search: of layers"):
            search(small_cnn, resume=path, **other)
    model = nn.Sequential()
    for name, layer in small_cnn.named_children():
        model.add_module(name, layer)
    model.conv2 = nn.Conv2d(6, 5, 3, stride=2, padding=1)
    with pytest.raises(ArgumentError, match="holds another search"):
        search(model, resume=path)
    assert path.read_bytes() == before


def test_a_state_with_another_ending_is_refused_before_the_search(small_cnn, tmp_path):
    with pytest.raises(ArgumentError, match="cannot save a search as .*saved as .safetensors"):
        dataset_examples(small_cnn, LAYERS, iter(()), 4, resume=tmp_path / "state.pt", verbose=False)


# ---------------------------------------------------------------- the result


def test_the_result_is_frozen_and_comes_back_from_a_file(small_cnn, tmp_path):
    found = search(small_cnn)
    with pytest.raises(FrozenInstanceError):
        found.seen = 3
    found.save(tmp_path / "examples.safetensors")
    loaded = DatasetExamples.load(tmp_path / "examples.safetensors", noise(40))
    same(found, loaded)
    assert torch.equal(loaded.crops("conv1:3"), found.crops("conv1:3"))
    assert repr(loaded) == (
        "DatasetExamples(4 highest and lowest of 40 images: "
        "6 units of conv1, 5 units of relu2, 4 units of head)"
    )
    assert "4 highest of" in repr(search(small_cnn, lowest=False))


def test_crops_are_as_large_as_what_a_unit_sees_and_never_leave_the_image(small_cnn):
    found = search(small_cnn, ["conv1", "conv2", "head"], k=10)
    assert found.crops("conv1:0").shape == (10, 3, 3, 3)
    assert found.crops("conv2:0").shape == (10, 3, 5, 5)
    assert torch.equal(found.crops("head:0"), found.images("head:0"))
    assert found.crops("conv1:0", size=12).shape == (10, 3, 12, 12)
    with pytest.raises(ArgumentError, match="size is 13, but the images are 12 by 12 pixels"):
        found.crops("conv1:0", size=13)


def test_a_row_a_unit_with_its_picture_and_examples(small_cnn):
    found = search(small_cnn)
    axes = found.plot(["conv1:0", "head:3"], torch.rand(2, 3, 8, 8))
    assert [text.get_text() for text in axes.texts] == ["picture", "highest", "lowest", "conv1:0", "head:3"]
    axes = search(small_cnn, lowest=False).plot(["conv1:0"], ax=axes)
    assert [text.get_text() for text in axes.texts][5:] == ["highest", "conv1:0"]
    pyplot.close("all")


def test_pictures_of_any_shape_are_compared_in_squares_that_keep_it():
    tall, wide = torch.zeros(1, 1, 30, 10), torch.zeros(4, 3, 7, 14)
    axes = plots.side_by_side({"a": [tall, tall], "b": [wide, wide]}, ["x", "y"], columns=2)
    canvas = torch.from_numpy(axes.images[0].get_array()).mean(2)
    side = (canvas[:, : canvas.shape[1] // 4] < 0.5).any(0).sum(), (canvas < 0.5).any(1).sum()
    assert side == (64, 192)  # the tall one fills the height of its square and a third of its width
    pyplot.close("all")
    with pytest.raises(ArgumentError, match=r"groups of 2 batches, one a title, got \{'a': 1\}"):
        plots.side_by_side({"a": [tall]}, ["x", "y"])
    with pytest.raises(ShapeError, match="expected pictures"):
        plots.side_by_side({"a": [torch.zeros(0, 3, 4, 4)]}, ["x"])


# ---------------------------------------------------------------- bad input


def test_bad_input_says_what_is_wrong(small_cnn):
    with pytest.raises(ArgumentError, match="k is 4, but the dataset has 0 images"):
        search(small_cnn, images=noise(0))
    with pytest.raises(ArgumentError, match="k is 4, but the loader has 0 images"):
        dataset_examples(small_cnn, "conv1", [], 4, verbose=False)
    with pytest.raises(ArgumentError, match="k is 41, but the dataset has 40 images"):
        search(small_cnn, k=41)
    with pytest.raises(ArgumentError, match="k is 9, but the loader has 8 images"):
        dataset_examples(small_cnn, "conv1", [noise(8)], 9, verbose=False)
    with pytest.raises(ArgumentError, match="from 1 up, got 0"):
        search(small_cnn, k=0)
    with pytest.raises(ArgumentError, match="at least one layer"):
        search(small_cnn, [])
    with pytest.raises(LayerError, match="did you mean conv1"):
        search(small_cnn, "conv")
    with pytest.raises(ArgumentError, match="reduction is one of 'max', 'mean', got 'median'"):
        search(small_cnn, reduction="median")
    with pytest.raises(ShapeError, match=r"expected images as floating-point numbers, got torch.uint8"):
        search(small_cnn, images=noise(40).byte())


def test_a_shuffled_loader_is_refused(small_cnn):
    images = noise(10)
    for options in (
        {"shuffle": True},
        {"sampler": [3, 1, 2]},
        {"batch_sampler": [[0, 1], [2]]},
    ):
        with pytest.raises(ArgumentError, match="does not go through its dataset in order"):
            dataset_examples(small_cnn, "conv1", DataLoader(images, **options), 2, verbose=False)


def test_a_layer_that_is_not_reached_or_has_no_channels(watched):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.mean, self.conv = nn.ReLU(), Mean(), nn.Conv2d(3, 2, 3)

        def forward(self, images):
            return self.mean(self.conv(images))

    class Mean(nn.Module):
        def forward(self, maps):
            return maps.mean((1, 2, 3))

    model = watched(Odd())
    with pytest.raises(UnreachedLayerError, match="'unused' was never reached"):
        search(model, ["conv", "unused"])
    with pytest.raises(ShapeError, match=r"a batch and a channel axis 1, got \(7,\)"):
        search(model, "mean")


def test_activations_that_cannot_be_ranked(small_cnn):
    images = noise(40)
    images[20, 0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        search(small_cnn, images=images)


def test_units_that_were_not_looked_at(small_cnn):
    found = search(small_cnn, "conv1", lowest=False)
    with pytest.raises(UnitError, match="no layer 'conv2': there are conv1"):
        found.values("conv2:1")
    with pytest.raises(UnitError, match="no layer 'conv1': there are none"):
        found.values("conv1:1", lowest=True)
    with pytest.raises(UnitError, match="no channel 6 in layer 'conv1': it has 6 channels, 0 to 5"):
        found.images("conv1:6")
    with pytest.raises(UnitError, match="'conv1' is a layer: name one of its units, such as 'conv1:0'"):
        found.images("conv1")


def test_a_network_may_overwrite_what_it_is_given():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3))
    examples = dataset_examples(model, "1", [torch.rand(4, 3, 8, 8)], k=2, verbose=False)
    assert examples.fields["1"] == (3 / 8, 3 / 8)


def test_images_are_taken_out_of_batches_by_their_name():
    images = torch.rand(4, 3, 8, 8)
    batch = {"labels": torch.zeros(4), "pixel_values": images}
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    named, plain = (dataset_examples(model, "0", [given], k=2, verbose=False) for given in (batch, images))
    assert torch.equal(named.values("0:1"), plain.values("0:1"))
