"""LIME and KernelSHAP of a photograph against the passes that they need, captum, lime and shap.

The real SqueezeNet on a photograph of 224 x 224 with about 50 superpixels, in batches of 32. Ours and the
bare passes run in turns, the peers once. Peers that are not installed are left out.

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

    def passes() -> None:
        batch = image.expand(BATCH, -1, -1, -1).clone()
        with torch.inference_mode():
            for start in range(0, samples, BATCH):
                model(batch[: min(BATCH, samples - start)])

    ours: dict[str, Callable[[], object]] = {
        "passes": passes,
        "Lime": lambda: Lime(model)(image, CLASS, samples=samples, batch_size=BATCH, verbose=False),
        "KernelShap": lambda: KernelShap(model)(
            image, CLASS, features=segments, samples=samples, batch_size=BATCH, verbose=False
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in ours}
    for _ in range(options.rounds):
        for name, function in ours.items():
            times[name].append(timed(function, options.device))
    figures = {}
    for name in ("Lime", "KernelShap"):
        figures[f"{name} / passes"] = statistics.median(
            mine / bare for mine, bare in zip(times[name], times["passes"], strict=True)
        )
        print(
            f"  {name}: {statistics.median(times[name]):.2f} s, passes "
            f"{statistics.median(times['passes']):.2f} s, ratio {figures[f'{name} / passes']:.3f}, wanted at "
            f"most 1.1"
        )
    if not options.no_peers:
        for name, peer in peers(model, image, segments, samples).items():
            try:
                seconds = timed(peer, options.device)
            except ImportError as error:
                print(f"  {name}: left out, {error}")
                continue
            figures[f"{name} / passes"] = seconds / statistics.median(times["passes"])
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


def timed(function: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peers(model: nn.Module, image: Tensor, segments: Tensor, samples: int) -> dict[str, Callable[[], object]]:
    """What other packages do for the same superpixels, sample count and batch size."""
    count = int(segments.max()) + 1

    def captum(name: str) -> object:
        from captum import attr

        torch.manual_seed(0)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            return getattr(attr, name)(model).attribute(
                image,
                target=CLASS,
                feature_mask=segments,
                n_samples=samples,
                perturbations_per_eval=BATCH,
            )

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
        "package lime": lime,
        "package shap": shap,
    }


if __name__ == "__main__":
    main()
