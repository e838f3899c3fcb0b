"""What perturbation methods take in the place of a network: functions, estimators, pipelines."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from ...core.advice import in_place_of
from ...core.conversions import MISFIT, as_tensor
from ...core.errors import ArgumentError, OutputError
from ...core.kinds import shown
from ...core.modules import check_model
from ...core.summaries import counted


class Estimator(Protocol):
    """An estimator of scikit-learn, or what has its interface."""

    def predict(self, X: Any) -> Any:
        """Returns predictions for the rows of an array."""


ModelLike = nn.Module | Callable[..., Any] | Estimator


def as_network(model: ModelLike) -> nn.Module:
    """Returns what computes scores as a module: needs no gradients, so that anything that is called will do.

    Args:
        model: A network, a function from inputs to scores, an estimator of scikit-learn, whose
            `predict_proba` (or else `predict`) is called with arrays, or a pipeline of Hugging Face, whose
            network is taken.

    Raises:
        ArgumentError: Something else, an estimator that is not fitted, or one whose predictions are labels,
            such as a classifier without `predict_proba`.
        ArchitectureError: A network inside which no hooks run.

    Example:
        >>> import torch
        >>> as_network(lambda x: x.sum(1))(torch.ones(2, 3))
        tensor([3., 3.])
    """
    if isinstance(model, nn.Module):
        check_model(model)
        return model
    inner = getattr(model, "model", None)
    if isinstance(inner, nn.Module) and hasattr(model, "task"):
        check_model(inner)
        return inner
    if isinstance(model, type) or not (callable(model) or _predicts(model)):
        raise ArgumentError(
            f"expected a torch.nn.Module as the model, a function, or an estimator with predict_proba or "
            f"predict, got {shown(model)}{in_place_of('model', model)}"
        )
    owner = model if _predicts(model) else getattr(model, "__self__", None)
    if not _predicts(owner):
        return Function(model)  # type: ignore[arg-type]
    _check_fitted(owner)
    estimate: Any = model
    if owner is model:
        estimate = getattr(model, "predict_proba", None) or getattr(model, "predict")  # noqa: B009
    _check_scores(owner, estimate)
    columns = getattr(owner, "feature_names_in_", None)
    found = Function(lambda rows: estimate(_table(rows, columns)), _classes(owner), columns)
    found.numbered = bool(found.categories) and getattr(owner, "classes_", np.empty(0)).dtype.kind in "iu"
    return found


def _check_fitted(estimator: Any) -> None:
    """Refuses an estimator of scikit-learn that is not fitted."""
    sklearn = sys.modules.get("sklearn.base")
    if sklearn is None or not isinstance(estimator, sklearn.BaseEstimator):
        return
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise ArgumentError(
            f"{type(estimator).__name__} is not fitted: call its fit(...) with training data first"
        ) from error


def _check_scores(estimator: Any, estimate: Any) -> None:
    """Refuses predictions that are labels: those of classifiers, of clusters and of outliers."""
    if getattr(estimate, "__name__", "") != "predict":
        return
    classifies = hasattr(estimator, "classes_")
    if not classifies and not hasattr(estimator, "fit_predict"):
        return
    name = type(estimator).__name__
    others = ("predict_proba", "decision_function", "score_samples", "transform")
    there = [f"its {other}" for other in others if hasattr(estimator, other)] or ["a function of scores"]
    say, instead = f"the predictions of {name}", ""
    if classifies and not hasattr(estimator, "predict_proba"):
        say = f"{name} is a classifier without predict_proba, and its predictions"
        instead = ", or fit it with probabilities, such as by sklearn.calibration.CalibratedClassifierCV"
    raise ArgumentError(f"{say} are labels, no scores: give {' or '.join(there)} as the model{instead}")


class Function(nn.Module):
    """A function as a module; arrays that it returns become tensors.

    Attributes:
        categories: The names of the classes, empty if there are none.
        feature_names: The columns of the table that an estimator was fitted to.
        numbered: Whether the names of the classes are numbers that are other than those of the outputs.
    """

    numbered = False

    def __init__(
        self, function: Callable[..., Any], categories: tuple[str, ...] = (), columns: Any = None
    ) -> None:
        super().__init__()
        self.function = function
        self.categories = categories
        self.feature_names = None if columns is None else tuple(map(str, columns))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the scores; other structures than arrays and lists of numbers as they are.

        Raises:
            OutputError: Labels in the place of scores, or the arrays of a classifier with several outputs.
        """
        output = self.function(*args, **kwargs)
        _check_one_array(output)
        found = as_tensor(output) if not isinstance(output, Tensor) else output
        if found is MISFIT:
            if isinstance(output, np.ndarray | str) or _holds_text(output):
                raise OutputError(f"the function returns scores, which are numbers, got {shown(output)}")
            return output
        if not (found.is_floating_point() or found.is_complex()):
            found = found.double()  # such as counts
        given = next((one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)
        return found if given is None else found.to(given.device)


def _check_one_array(output: Any) -> None:
    """Refuses a list with the probabilities of several outputs, as `MultiOutputClassifier` returns it."""
    if not isinstance(output, list) or not output:
        return
    if not all(isinstance(one, np.ndarray) and one.ndim == 2 for one in output):
        return
    shapes = ", ".join(str(one.shape) for one in output[:3]) + ", ..." * (len(output) > 3)
    raise OutputError(
        f"the estimator has {counted(len(output), 'output')}, and its probabilities are a list of arrays "
        f"{shapes}: give a function of one as the model, such as lambda rows: "
        f"estimator.predict_proba(rows)[0], and the names of its classes as "
        f"class_names=[str(one) for one in estimator.classes_[0]]"
    )


def _holds_text(output: Any) -> bool:
    return isinstance(output, Sequence) and any(isinstance(one, str) for one in output)


def _classes(estimator: object) -> tuple[str, ...]:
    """The labels of an estimator as names; none for those that only count."""
    labels = getattr(estimator, "classes_", None)
    if not isinstance(labels, np.ndarray):
        return ()
    if labels.dtype.kind != "b" and labels.tolist() == list(range(len(labels))):
        return ()
    return tuple(map(str, labels))


def _predicts(model: object) -> bool:
    return not isinstance(model, type) and any(hasattr(model, name) for name in ("predict_proba", "predict"))


def _table(rows: Tensor, columns: Any) -> Any:
    """Rows as an estimator takes them: an array, or a table where it was fitted to one."""
    array: np.ndarray[Any, Any] = rows.detach().cpu().numpy()
    pandas = sys.modules.get("pandas")  # who fitted an estimator to a table has imported it
    if columns is None or pandas is None or array.ndim != 2 or array.shape[1] != len(columns):
        return array
    return pandas.DataFrame(array, columns=columns)
