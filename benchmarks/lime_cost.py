"""LIME and KernelSHAP of a photograph against the passes that they need, captum, lime and shap.

The real SqueezeNet on a photograph of 224 x 224 with about 50 superpixels, in batches of 32. Before each
batch of ours as many bare inputs pass, in inference mode, too, and are timed apart, so that other load on
the machine falls on both; ratios are to one bare pass for each sample, in time and in CPU time. Peers run
once, captum in the batches that suit it best; those that are not installed are left out.

    python benchmarks/lime_cost.py [--samples 1000] [--rounds 3] [--no-peers]
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from toumei.attribution import KernelShap, Lime, superpixels

BATCH = 32
SIZES, TRIED = (8, 16, 32, 64, 128), 128  # batches that captum is tried with, on so many samples
CLASS = 282  # tiger cat


class Normalized(nn.Module):
    """SqueezeNet on RGB in [0, 1]."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        import torchvision
        from safetensors.torch import load_file

        self.net = torchvision.models.squeezenet1_1()
        weights = next((folder / "squeezenet1_1").glob("*.safetensors"), None)
        if weights is None:
            print("no real SqueezeNet: random weights")
        else:
            self.net.load_state_dict(load_file(weights))
        self.normalize = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, 1000)."""
        logits: Tensor = self.net(self.normalize(x))
        return logits


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    default = Path(__file__).parents[2] / "shared" / "realdata"
    folder = Path(os.environ.get("TOUMEI_REALDATA", default))
    model = Normalized(folder).eval().to(options.device)
    image = photograph(folder).to(options.device)
    segments = superpixels(image)
    samples = options.samples
    features = int(segments.max()) + 1
    print(f"{features} superpixels, {samples} samples, batches of {BATCH}")

    ours: dict[str, Callable[[nn.Module], object]] = {
        "Lime": lambda net: Lime(net)(image, CLASS, samples=samples, batch_size=BATCH, verbose=False),
        "KernelShap": lambda net: KernelShap(net)(
            image, CLASS, features=segments, samples=samples, batch_size=BATCH, verbose=False
        ),
    }
    figures, bare = {}, []
    for name, method in ours.items():
        rounds = [beside(method, model, image, samples) for _ in range(options.rounds)]
        for place, kind in enumerate(("time", "CPU time")):
            ratio = statistics.median(own[place] / passes[place] for own, passes in rounds)
            figures[f"{name} / passes, {kind}"] = ratio
        bare += [passes[0] for _, passes in rounds]
        print(
            f"  {name}: {statistics.median(own[0] for own, _ in rounds):.2f} s, passes "
            f"{statistics.median(passes[0] for _, passes in rounds):.2f} s, ratio "
            f"{figures[f'{name} / passes, time']:.3f}, of CPU time "
            f"{figures[f'{name} / passes, CPU time']:.3f}, wanted at most 1.1"
        )
    if not options.no_peers:
        for name, prepare in peers(model, image, segments, samples).items():
            try:
                seconds = timed(prepare())
            except ImportError as error:
                print(f"  {name}: left out, {error}")
                continue
            figures[f"{name} / passes"] = seconds / statistics.median(bare)
            print(f"  {name}: {seconds:.2f} s, {figures[f'{name} / passes']:.3f} times the passes")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2))
    return figures


def photograph(folder: Path) -> Tensor:
    path = next((folder / "images").glob("chelsea.*"), None)
    if path is None:
        print("no photograph: noise")
        return torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    picture = Image.open(path).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((224, 224))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 255


class Beside(nn.Module):
    """A network that lets as many bare inputs pass before each batch.

    Attributes:
        spent: Time and CPU time that they took.
        inputs: How many they were.
    """

    def __init__(self, net: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.net = net
        self.bare = image.expand(BATCH, -1, -1, -1).clone()
        self.spent, self.inputs = np.zeros(2), 0

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the network does."""
        start = clocks()
        self.net(self.bare[: len(x)])
        self.spent += clocks() - start
        self.inputs += len(x)
        logits: Tensor = self.net(x)
        return logits


def beside(
    method: Callable[[nn.Module], object], model: nn.Module, image: Tensor, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Time and CPU time of a method, and of as many bare passes as it has samples."""
    network = Beside(model, image)
    start = clocks()
    method(network)
    own = clocks() - start - network.spent
    return own, network.spent * samples / network.inputs


def clocks() -> np.ndarray:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def timed(function: Callable[[], object]) -> float:
    start = clocks()
    function()
    return float((clocks() - start)[0])


def peers(
    model: nn.Module, image: Tensor, segments: Tensor, samples: int
) -> dict[str, Callable[[], Callable[[], object]]]:
    """What gets other packages ready to do the same with the same superpixels and as many samples."""
    count = int(segments.max()) + 1

    def captum(name: str) -> Callable[[], object]:
        from captum import attr

        method = getattr(attr, name)(model)

        def attribute(size: int, samples: int) -> object:
            torch.manual_seed(0)
            with warnings.catch_warnings(), torch.inference_mode():
                warnings.simplefilter("ignore")
                options = {"feature_mask": segments, "n_samples": samples, "perturbations_per_eval": size}
                return method.attribute(image, target=CLASS, **options)

        best = min(SIZES, key=lambda size: timed(lambda: attribute(size, TRIED)))
        print(f"  {name} of captum is fastest in batches of {best}")
        return lambda: attribute(best, samples)

    def lime() -> object:
        from lime.lime_image import LimeImageExplainer  # type: ignore[import-not-found]

        picture = image[0].permute(1, 2, 0).double().cpu().numpy()

        def classify(pictures: np.ndarray) -> np.ndarray:
            batch = torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2).float().to(image.device)
            with torch.inference_mode():
                return model(batch).cpu().numpy()

        return LimeImageExplainer(random_state=0).explain_instance(
            picture,
            classify,
            labels=(CLASS,),
            top_labels=None,
            hide_color=0,
            num_samples=samples,
            batch_size=BATCH,
            segmentation_fn=lambda _: segments[0, 0].cpu().numpy(),
        )

    def shap() -> object:
        from shap import KernelExplainer  # type: ignore[import-not-found]

        index = segments[0, 0].cpu()

        def scores(keep: np.ndarray) -> np.ndarray:
            found = []
            with torch.inference_mode():
                for part in torch.from_numpy(keep).split(BATCH):
                    masks = part.bool()[:, index][:, None].to(image.device)
                    found.append(model(torch.where(masks, image, 0.0))[:, CLASS].cpu())
            return torch.cat(found).numpy()

        explainer = KernelExplainer(scores, np.zeros((1, count)))
        return explainer.shap_values(np.ones((1, count)), nsamples=samples, silent=True)

    return {
        "captum's Lime": lambda: captum("Lime"),
        "captum's KernelShap": lambda: captum("KernelShap"),
        "package lime": lambda: lime,
        "package shap": lambda: shap,
    }


if __name__ == "__main__":
    main()
