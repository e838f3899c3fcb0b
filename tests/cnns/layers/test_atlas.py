"""Activation atlases: cells partition the points, planted clusters part, and the page needs nothing else."""

import re
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from toumei.cnns import ActivationAtlas, activation_atlas, render_icons
from toumei.cnns.layers.atlas_points import grid_cells, lay_out, sample_activations, unit_square, whitened
from toumei.core.errors import ArgumentError, LayerError, MissingDependencyError, ShapeError
from toumei.models import ShapesCNN, ShapesDataset


@pytest.fixture(scope="module")
def batches():
    dataset = ShapesDataset(seed=1)
    return [dataset.batch(range(start, start + 50)) for start in (0, 50)]


@pytest.fixture(scope="module")
def atlas(batches):
    model = ShapesCNN(pretrained=True)
    return activation_atlas(model, "relu5", batches, grid=3, layout="pca", steps=2, size=16, verbose=False)


def test_the_model_is_left_as_it_was(watched, batches):
    model = watched(ShapesCNN(pretrained=True).train())
    activation_atlas(
        model, "relu5", batches[:1], grid=2, min_count=1, layout="pca", steps=1, size=16, verbose=False
    )


def test_cells_partition_the_points_that_are_kept():
    points = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)).square()
    cells, members = grid_cells(points, 5, 6)
    places = (points * 5).long()
    for index, cell in enumerate(cells):
        inside = (places == cell).all(1)
        assert torch.equal(members == index, inside) and inside.sum() >= 6
    for left in places[members < 0]:
        assert (places == left).all(1).sum() < 6
    assert 0 < (members < 0).sum() < 300


def test_the_border_belongs_to_the_last_cell():
    cells, members = grid_cells(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), 2, 1)
    assert cells.tolist() == [[0, 0], [1, 1]] and members.tolist() == [0, 1]


def test_the_direction_of_a_cell_is_the_mean_of_its_members(batches, atlas):
    samples = sample_activations(ShapesCNN(pretrained=True), "relu5", batches, logits="head", verbose=False)
    for index in range(len(atlas.cells)):
        mine = atlas.members == index
        assert torch.allclose(atlas.directions[index], samples.activations[mine].mean(0), atol=1e-6)
        assert torch.allclose(atlas.attributions[index], samples.attributions[mine].mean(0), atol=1e-5)
        assert atlas.counts[index] == mine.sum()
    assert len(atlas.icons) == len(atlas.cells) == len(atlas.labels)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_planted_clusters_land_in_different_cells(method):
    generator = torch.Generator().manual_seed(0)
    which = torch.arange(120) % 3
    noise = torch.rand(120, 6, generator=generator)
    activations = 5 * torch.eye(6)[which] + 0.2 * noise
    points = lay_out(activations * (1 + which[:, None]), method)
    assert points.amin() == 0 and points.amax() == 1
    _, members = grid_cells(points, 4, 1)
    homes = [set(members[which == cluster].tolist()) for cluster in range(3)]
    assert not homes[0] & homes[1] and not homes[0] & homes[2] and not homes[1] & homes[2]
    assert torch.equal(points, lay_out(activations * (1 + which[:, None]), method))


def test_outliers_are_moved_to_the_border():
    places = torch.stack([torch.arange(201.0), torch.arange(201.0)], 1)
    places[-1] = 1e6
    square = unit_square(places)
    low, high = places.quantile(torch.tensor([0.01, 0.99]), dim=0)[:, 0]
    top = high + 0.1 * (high - low)
    assert square[-1].tolist() == [1, 1] and square[0].tolist() == [0, 0]
    assert square[100, 0] == pytest.approx(100 / top.item())


def test_umap_is_used_where_it_is_installed(monkeypatch):
    if "umap" not in sys.modules:
        monkeypatch.setitem(sys.modules, "umap", None)
        with pytest.raises(MissingDependencyError, match="umap-learn"):
            lay_out(torch.rand(9, 3), "umap")
    options = {}

    def fake(**given):
        options.update(given)
        return SimpleNamespace(fit_transform=lambda values: values[:, :2])

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=fake))
    assert lay_out(torch.rand(9, 3), "umap").shape == (9, 2)
    assert options["metric"] == "cosine" and options["n_neighbors"] == 8


def test_activations_come_from_one_place_of_each_image(batches):
    model = ShapesCNN(pretrained=True)
    images = batches[0][0]
    samples = sample_activations(model, "relu4", batches, 70, seed=3, verbose=False)
    with torch.no_grad():
        names = [name for name, _ in model.named_children()]
        maps = nn.Sequential(*list(model)[: names.index("relu4") + 1])(images).flatten(2)
    distances = (maps - samples.activations[:50, :, None]).abs().amax(1).amin(1)
    assert distances.max() < 1e-5 and len(samples.activations) == 70
    again = sample_activations(model, "relu4", batches, 70, seed=3, verbose=False)
    assert torch.equal(again.activations, samples.activations) and samples.attributions.shape == (70, 0)
    more = sample_activations(model, "relu4", batches[:1], 100, per_image=2, seed=3, verbose=False)
    assert len(more.activations) == 100 and not torch.equal(more.activations[:50], more.activations[50:])


def test_an_attribution_is_the_product_with_the_gradient_of_the_logit(watched):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(True), nn.Conv2d(4, 5, 3), nn.ReLU(True), nn.Flatten())
    model.append(nn.Linear(5, 3)).append(nn.Softmax(1))
    nn.init.ones_(model[0].bias)
    model = watched(model)
    images = torch.rand(6, 3, 3, 3)
    samples = sample_activations(model, "1", [images], logits="5", verbose=False)
    maps = torch.relu(model[0](images)).detach().requires_grad_()
    logits = model[2:6](maps)
    places = (maps.flatten(2) - samples.activations[:, :, None]).abs().sum(1).argmin(1)
    for label in range(3):
        (gradient,) = torch.autograd.grad(logits[:, label].sum(), maps, retain_graph=True)
        products = (gradient * maps).sum(1).flatten(1)[torch.arange(6), places]
        assert torch.allclose(samples.attributions[:, label], products, atol=1e-6)


@pytest.mark.parametrize("kind", ["torchvision", "hugging face"])
def test_vision_transformers_have_positions_and_logits_too(kind):
    torch.manual_seed(0)
    if kind == "torchvision":
        from torchvision.models.vision_transformer import VisionTransformer

        model = VisionTransformer(
            image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=8, num_classes=6
        )
        nn.init.normal_(model.heads.head.weight)
        layer = "encoder.layers.encoder_layer_0"
    else:
        from transformers import ViTConfig, ViTForImageClassification

        model = ViTForImageClassification(
            ViTConfig(
                hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8,
                image_size=32, patch_size=8, num_labels=6,
            )
        )  # fmt: skip
        layer = next(
            name for name, _ in model.named_modules() if re.fullmatch(r"vit(\.encoder)?\.layers?\.0", name)
        )
    atlas = activation_atlas(
        model, layer, [{"pixel_values": torch.rand(40, 3, 32, 32)}], grid=2, min_count=1, layout="pca",
        logits="", steps=1, verbose=False,
    )  # fmt: skip
    assert atlas.directions.shape[1] == 12 and atlas.attributions.shape[1] == 6
    assert atlas.attributions.any()
    assert atlas.labels[0].startswith("class " if kind == "torchvision" else "LABEL_")


def test_whitened_activations_are_equally_rare():
    """With uncorrelated channels the inverse second moment divides each channel by its mean square."""
    scales = torch.tensor([1.0, 2.0, 4.0])
    activations = torch.cat([torch.diag(scales)] * 10)
    directions = torch.ones(1, 3)
    rare = whitened(directions, activations)
    assert rare.norm().item() == pytest.approx(3**0.5, rel=1e-5)
    squares = scales.square() / 3
    wanted = 1 / (squares + 1e-3 * squares.mean())
    assert torch.allclose(rare / rare[:, :1], (wanted / wanted[0])[None], rtol=1e-5)


def test_icons_do_not_depend_on_their_batch_and_similar_directions_look_alike():
    model = ShapesCNN(pretrained=True)
    generator = torch.Generator().manual_seed(0)
    first, other = torch.rand(2, 64, generator=generator)
    directions = torch.stack([first, 1.01 * first + 0.01 * other, other])
    together = render_icons(model, "relu4", directions, size=16, steps=6, verbose=False)
    alone = render_icons(model, "relu4", directions, size=16, steps=6, batch_size=1, verbose=False)
    assert together.shape == (3, 3, 16, 16) and torch.allclose(together, alone, atol=1e-3)
    near, far = ((together[0] - together[index]).abs().mean() for index in (1, 2))
    assert near < 0.5 * far


def test_an_interrupted_atlas_keeps_what_it_has(monkeypatch):
    from toumei.cnns.layers import atlas_icons as module

    bars = []

    class Bar(module.tqdm):
        def update(self, n=1):
            bars.append(n)
            if len(bars) == 3:
                raise KeyboardInterrupt
            return super().update(n)

    monkeypatch.setattr(module, "tqdm", Bar)
    model = ShapesCNN(pretrained=True)
    icons = render_icons(model, "relu4", torch.rand(3, 64), size=16, steps=2, batch_size=1, verbose=False)
    assert len(bars) == 3 and not torch.equal(icons[0], icons[2])


def test_gray_images(watched):
    torch.manual_seed(0)
    model = watched(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus()))
    atlas = activation_atlas(
        model, "1", [torch.rand(30, 1, 9, 9)], grid=1, layout="pca", steps=1, size=8, channels=1,
        whiten=True, verbose=False,
    )  # fmt: skip
    assert atlas.icons.shape == (1, 1, 8, 8) and atlas.picture().shape == (3, 8, 8)
    assert atlas.labels == ()


class Page(HTMLParser):
    """Collects hover areas and addresses, and fails where tags are not balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.areas, self.addresses = [], [], []
        self.feed(text)
        assert not self.open, f"{self.open} are never closed"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]
        if attributes.get("class") == "cell":
            self.areas.append(attributes)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_has_an_area_for_each_cell_and_needs_no_other_file(atlas, tmp_path):
    atlas.save(tmp_path / "new" / "atlas.html")
    text = (tmp_path / "new" / "atlas.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.areas) == len(atlas.cells)
    assert [int(area["data-count"]) for area in page.areas] == atlas.counts.tolist()
    assert [area["style"] for area in page.areas] == [f"--x:{x};--y:{y}" for x, y in atlas.cells.tolist()]
    assert not page.addresses and not re.search(r"https?:|@import|//", re.sub("base64,[^)]*", "", text))
    assert re.findall(r"url\((.{10})", text) == ["data:image"]
    assert all(f">{label}</li>" in text for label in atlas.labels)


def test_names_of_classes_cannot_break_the_page(atlas):
    names = tuple(f"</script><b>{index} & $side" for index in range(8))
    fields = {name: getattr(atlas, name) for name in atlas.__dataclass_fields__}
    Page(ActivationAtlas(**{**fields, "categories": names}).page())


def test_a_page_without_classes(atlas):
    fields = {name: getattr(atlas, name) for name in atlas.__dataclass_fields__}
    bare = ActivationAtlas(**{**fields, "attributions": torch.zeros(len(atlas.cells), 0), "categories": ()})
    assert len(Page(bare.page()).areas) == len(atlas.cells)


def test_the_map_shows_each_icon_in_its_cell(atlas, tmp_path):
    picture = atlas.picture()
    assert picture.shape == (3, 48, 48)
    for (column, row), icon in zip(atlas.cells.tolist(), atlas.icons, strict=True):
        assert torch.equal(picture[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16], icon)
    atlas.save(tmp_path / "atlas.png")
    with Image.open(tmp_path / "atlas.png") as image:
        assert image.size == (48, 48)
    assert atlas.plot().images


def test_a_saved_atlas_comes_back(atlas, tmp_path):
    atlas.save(tmp_path / "atlas.safetensors")
    loaded = ActivationAtlas.load(tmp_path / "atlas.safetensors")
    assert repr(loaded) == repr(atlas) and loaded.labels == atlas.labels
    for name, value in vars(atlas).items():
        mine = getattr(loaded, name)
        assert torch.equal(mine, value) if isinstance(value, torch.Tensor) else mine == value
    with pytest.raises(ArgumentError, match=r"there are .png, .html and .safetensors"):
        atlas.save(tmp_path / "atlas.jpg")


def test_bad_input_says_what_is_wrong(batches):
    model = ShapesCNN(pretrained=True)

    def made(layer="relu5", loader=batches, **options):
        return activation_atlas(model, layer, loader, **{"layout": "pca", "verbose": False, **options})

    with pytest.raises(ArgumentError, match="the loader is empty"):
        made(loader=[])
    with pytest.raises(ShapeError, match="expected maps .* from layer 'flatten'"):
        made("flatten")
    with pytest.raises(LayerError, match="no layer 'relu7'"):
        made("relu7")
    with pytest.raises(ArgumentError, match="too few activations, 100: none of 20 x 20 cells has 60"):
        made(min_count=60)
    with pytest.raises(ArgumentError, match="too few activations to lay out: 2"):
        made(count=2)
    with pytest.raises(ArgumentError, match="layout is one of"):
        made(layout="sne")
    with pytest.raises(ArgumentError, match="count and per_image are 1 at least"):
        made(count=0)
    with pytest.raises(ArgumentError, match="grid and min_count are 1 at least"):
        made(grid=0)
    with pytest.raises(ShapeError, match="a loader of images"):
        made(loader=[batches[0][0][0]])
    with pytest.raises(ArgumentError, match="'conv1' makes no logits"):
        made(logits="conv1")
    with pytest.raises(ArgumentError, match="is zero at all positions"):
        sample_activations(nn.Sequential(nn.ReLU()), "0", [-torch.ones(2, 3, 4, 4)], verbose=False)


def test_a_model_is_never_moved(batches, monkeypatch):
    """A network may be spread over several devices."""
    model = ShapesCNN()
    monkeypatch.setattr(model, "to", lambda *_: pytest.fail("the model was moved"))
    activation_atlas(model, "relu5", batches, grid=1, layout="pca", steps=1, size=16, verbose=False)


def test_no_forward_pass_is_made_beyond_the_count():
    calls = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3))

    def pictures(images):
        calls.append(len(images))
        return nn.Sequential.forward(model, images)

    model.forward = pictures
    batch = torch.rand(4, 3, 8, 8)
    samples = sample_activations(model, "0", [batch, batch], 6, per_image=5, verbose=False)
    assert len(samples.activations) == 6 and calls == [1, 1, 1, 4, 4]  # one shows axes, two repeats


@pytest.mark.parametrize("batch", [{"labels": torch.zeros(4)}, [torch.rand(3, 8, 8)], "images"])
def test_a_loader_without_images_is_an_error(batch):
    with pytest.raises(ShapeError, match="images"):
        sample_activations(nn.Sequential(nn.Conv2d(3, 4, 3)), "0", [batch], 6, verbose=False)
