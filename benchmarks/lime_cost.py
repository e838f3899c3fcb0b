"""LIME and KernelSHAP of a photograph against the passes that they need, captum, lime and shap.

The real SqueezeNet on a photograph of 224 x 224 with about 50 superpixels, in the batches in which bare
inputs pass fastest. Before each batch of ours as many bare inputs pass, in inference mode, too, and are timed
apart, so that other load on the machine falls on both; ratios are to one bare pass for each sample, in time
and in CPU time (wanted: at most 1.1). Peers run once, captum in the batches that suit it best; those that are
not installed are left out.

    python benchmarks/lime_cost.py [--samples 1000] [--rounds 3] [--no-peers]
"""

import statistics
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from timing import REALDATA, SQUEEZENET, Call, basic_parser, clocks, describe, squeezenet, timed, write
from toumei.attribution import KernelShap, Lime, Method, superpixels
from toumei.cnns import robustness

SIZES, TRIED = (8, 16, 32, 64, 128), 128  # batches that are tried, on so many samples
CLASS = 282  # tiger cat
WANTED = 1.1  # of the passes that a method needs, at most


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--weights", type=Path, default=SQUEEZENET)
    parser.add_argument("--photograph", type=Path, default=REALDATA / "images" / "chelsea.png")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = nn.Sequential(robustness.preprocess("imagenet"), squeezenet(options.weights)).to(device)
    image = photograph(options.photograph).to(device)
    segments = superpixels(image)
    print(f"{describe(device)}, torch {torch.__version__}, {options.threads} threads")
    size = fastest(lambda size: bare(model, image, size), device)
    print(f"{int(segments.max()) + 1} superpixels, {options.samples} samples, batches of {size}")
    figures, passes = against_passes(model, image, segments, options.samples, size, options.rounds)
    if not options.no_peers:
        figures |= of_peers(peers(model, image, segments, options.samples, size), passes, device)
    write(figures, options.json)
    return figures


@torch.inference_mode()
def bare(model: nn.Module, image: Tensor, size: int) -> None:
    """As many passes as are tried, in batches of a size."""
    batch = image.expand(size, -1, -1, -1).clone()
    for _ in range(TRIED // size):
        model(batch)


def fastest(call: Callable[[int], object], device: torch.device) -> int:
    """The size of batches with which a call takes least, at its second run."""
    for size in SIZES:
        call(size)
    return min(SIZES, key=lambda size: timed(lambda: call(size), device))


def against_passes(
    model: nn.Module, image: Tensor, segments: Tensor, samples: int, batch_size: int, rounds: int
) -> tuple[dict[str, float], float]:
    """The ratios of both methods to the passes that they need, and the seconds of these."""
    ours: dict[str, Method] = {
        "Lime": Lime(model, samples=samples, features=segments, batch_size=batch_size, verbose=False),
        "KernelShap": KernelShap(
            model, samples=samples, features=segments, batch_size=batch_size, verbose=False
        ),
    }
    figures: dict[str, float] = {}
    seconds_bare: list[float] = []
    for name, method in ours.items():
        own, passes = np.array([beside(method, image, samples) for _ in range(rounds)]).swapaxes(0, 1)
        seconds, processor = np.median(own / passes, axis=0).tolist()
        figures |= {f"{name} / passes, time": seconds, f"{name} / passes, CPU time": processor}
        seconds_bare += passes[:, 0].tolist()
        print(
            f"  {name}: {np.median(own[:, 0]):.2f} s, passes {np.median(passes[:, 0]):.2f} s, ratio "
            f"{seconds:.3f}, of CPU time {processor:.3f}, wanted at most {WANTED}"
        )
    return figures, statistics.median(seconds_bare)


def of_peers(
    others: Mapping[str, Callable[[], Call]], passes: float, device: torch.device
) -> dict[str, float]:
    """The ratios of other packages to the seconds of the passes."""
    figures = {}
    for name, prepare in others.items():
        try:
            seconds = timed(prepare(), device)
        except ImportError as error:
            print(f"  {name}: left out, {error}")
            continue
        figures[f"{name} / passes"] = seconds / passes
        print(f"  {name}: {seconds:.2f} s, {seconds / passes:.3f} times the passes")
    return figures


def photograph(path: Path) -> Tensor:
    """The middle of a photograph, (1, 3, 224, 224) in [0, 1]."""
    if not path.is_file():
        raise SystemExit(f"no photograph at {path}: give one as --photograph")
    with Image.open(path) as file:
        picture = file.convert("RGB")
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

    def __init__(self, net: nn.Module, image: Tensor, batch_size: int) -> None:
        super().__init__()
        self.net = net
        self.bare = image.expand(batch_size, -1, -1, -1).clone()
        self.spent, self.inputs = np.zeros(2), 0

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the network does."""
        start = clocks(x.device)
        self.net(self.bare[: len(x)])
        self.spent += clocks(x.device) - start
        self.inputs += len(x)
        logits: Tensor = self.net(x)
        return logits


def beside(method: Method, image: Tensor, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Time and CPU time of a method, and of as many bare passes as it has samples."""
    network = Beside(method.model, image, method.batch_size)
    timed_method = method.with_model(network, None)
    start = clocks(image.device)
    timed_method(image, CLASS)
    own = clocks(image.device) - start - network.spent
    return own, network.spent * samples / network.inputs


def peers(
    model: nn.Module, image: Tensor, segments: Tensor, samples: int, batch_size: int
) -> dict[str, Callable[[], Call]]:
    """What gets other packages ready to do the same with the same superpixels and as many samples."""
    count = int(segments.max()) + 1

    def captum(name: str) -> Call:
        from captum import attr

        method = getattr(attr, name)(model)

        def attribute(size: int, samples: int) -> object:
            torch.manual_seed(0)
            with warnings.catch_warnings(), torch.inference_mode():
                warnings.simplefilter("ignore")
                options = {"feature_mask": segments, "n_samples": samples, "perturbations_per_eval": size}
                return method.attribute(image, target=CLASS, **options)

        best = fastest(lambda size: attribute(size, TRIED), image.device)
        print(f"  {name} of captum is fastest in batches of {best}")
        return lambda: attribute(best, samples)

    def lime() -> object:
        from lime.lime_image import LimeImageExplainer

        picture = image[0].permute(1, 2, 0).double().cpu().numpy()

        def classify(pictures: np.ndarray) -> np.ndarray:
            batch = torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2).float().to(image.device)
            with torch.inference_mode():
                result: np.ndarray = model(batch).cpu().numpy()
                return result

        return LimeImageExplainer(random_state=0).explain_instance(
            picture,
            classify,
            labels=(CLASS,),
            top_labels=None,
            hide_color=0,
            num_samples=samples,
            batch_size=batch_size,
            segmentation_fn=lambda _: segments[0, 0].cpu().numpy(),
        )

    def shap() -> object:
        from shap import KernelExplainer

        index = segments[0, 0].cpu()

        def scores(keep: np.ndarray) -> np.ndarray:
            found = []
            with torch.inference_mode():
                for part in torch.from_numpy(keep).split(batch_size):
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
