"""Which measurements of a tumour decide, for a gradient-boosted model and a perceptron, with names.

    python experiments/tabular.py

Trains both on scikit-learn's table of breast cancer (569 tumours, 30 measurements) and explains tumours that
neither has seen, relative to the mean of the training table: the boosted trees by KernelSHAP, the perceptron
by integrated gradients, each checked by Shapley values from sampled orders. Draws outputs/tabular.png: all
tumours above, one below. Where the package shap is installed, it explains the same tumours with the same
baseline, and the sums of its contributions are printed beside those of this library.
"""

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from common import basic_parser
from toumei.attribution import Explanation, KernelShap, explain
from toumei.plots import look, save_figure

CLASS = "malignant"


@look()
def main(argv: Sequence[str] | None = None) -> Path:
    parser = basic_parser(__doc__, Path("outputs/tabular.png"), steps=300, seed=0)
    parser.add_argument("--rows", type=int, default=60, help="tumours that are explained")
    parser.add_argument("--trees", type=int, default=100, help="trees that are boosted")
    options = parser.parse_args(argv)
    started = time.perf_counter()
    data = load_breast_cancer(as_frame=True)
    names = data.target_names[data.target]
    split = train_test_split(data.data, names, random_state=options.seed, stratify=names)
    seen, unseen, labels, held_out = split
    trees = HistGradientBoostingClassifier(max_iter=options.trees, random_state=options.seed)
    models: dict[str, tuple[Any, dict[str, Any]]] = {
        "boosted trees": (trees.fit(seen, labels), {}),
        "perceptron": (
            perceptron(seen, labels == CLASS, options.steps, options.seed),
            {"class_names": ["benign", CLASS]},
        ),
    }
    rows, baseline = unseen[: options.rows], seen.mean()
    explanations = {}
    for name, (model, classes) in models.items():
        explanation = explain(model, rows, CLASS, baseline, seed=options.seed, verbose=False, **classes)
        explanations[name] = explanation
        right = ((explanation.attribution.output > 0.5).numpy() == (held_out[: options.rows] == CLASS)).mean()
        print(f"{name}: {right:.0%} of {len(rows)} tumours named rightly\n{explanation}")
        if find_spec("shap") is not None:
            print(beside_shap(scores_of(model), explanation, baseline))
    save_figure(figure(explanations), options.out)
    print(f"{options.out}, {time.perf_counter() - started:.0f} s")
    return Path(options.out)


class Standardized(nn.Module):
    """Columns with mean 0 and standard deviation 1 over the training table."""

    mean: Tensor
    scale: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("scale", rows.std(0))

    def forward(self, rows: Tensor) -> Tensor:
        """Returns (N, M) standardized rows."""
        return (rows - self.mean) / self.scale


def perceptron(table: Any, malignant: Any, steps: int, seed: int) -> nn.Module:
    """A perceptron with 16 hidden units that returns probabilities of both classes, trained on a table."""
    rows = torch.tensor(table.to_numpy(), dtype=torch.float32)
    labels = torch.tensor(malignant).long()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        logits = nn.Sequential(Standardized(rows), nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(logits.parameters(), lr=0.01, weight_decay=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits(rows), labels).backward()
        optimizer.step()
    return nn.Sequential(logits, nn.Softmax(1)).eval()


def scores_of(model: Any) -> Callable[[Any], Any]:
    """The probability of the class for an array, as shap takes it."""
    if not isinstance(model, nn.Module):
        place = list(model.classes_).index(CLASS)
        columns = model.feature_names_in_
        import pandas

        return lambda array: model.predict_proba(pandas.DataFrame(array, columns=columns))[:, place]

    def scores(array: Any) -> Any:
        with torch.no_grad():
            return model(torch.tensor(array, dtype=torch.float32))[:, 1].numpy()

    return scores


def beside_shap(scores: Callable[[Any], Any], explanation: Explanation, baseline: Any) -> str:
    """How far the contributions of this library are from those of shap's KernelExplainer."""
    import shap

    data = explanation.attribution.data
    assert data is not None
    background = baseline.to_numpy()[None]
    found = shap.KernelExplainer(scores, background).shap_values(data.numpy(), l1_reg=0, silent=True)
    theirs = torch.as_tensor(found).double()
    ours = KernelShap(lambda rows: scores(rows.numpy()), verbose=False)(data, baselines=baseline)
    assert isinstance(ours.values, Tensor)
    apart, size = (ours.values - theirs).abs().mean(), theirs.abs().mean()
    first, second = ((one.sums - theirs.sum(1)).abs().max() for one in (explanation.attribution, ours))
    return (
        f"shap {shap.__version__}: the sums of {explanation.attribution.method} are at most {first:.1g} from "
        f"those of its KernelExplainer, the sums of KernelShap {second:.1g}; single contributions of both "
        f"are {apart:.1g} apart on average, of {size:.1g}"
    )


def figure(explanations: dict[str, Explanation]) -> Figure:
    """All tumours above, the first of them below, a column for each model."""
    figure = Figure(figsize=(13, 9.5), dpi=100, layout="constrained")
    axes = figure.subplots(2, len(explanations), squeeze=False)
    for (name, explanation), (above, below) in zip(explanations.items(), axes.T, strict=True):
        result = explanation.attribution
        result.beeswarm(ax=above).set_title(f"{name}: {len(result)} tumours, {result.method}")
        result.waterfall(0, ax=below).set_title(f"{name}: one tumour", pad=18)
    figure.suptitle(f"what speaks for a {CLASS} tumour (right) and against it (left)")
    return figure


if __name__ == "__main__":
    main()
