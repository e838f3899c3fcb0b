"""Probes of one activation: trained on some groups, tested on others."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.checks import check_no_nan
from ...core.errors import ArgumentError
from ...core.seeding import make_generator
from ...core.summaries import counted

_HIDDEN = 64  # neurons of an MLP probe


class Probes:
    """Trains and tests probes on one division of examples into folds.

    Args:
        labels: The class of each example, from 0 on.
        groups: Which examples belong together, by number: they are never divided.
        kind: ``"linear"``, logistic regression, or ``"mlp"`` with one hidden layer of 64 neurons.
        splits: How many folds.
        seed: Of the folds, and of the weights of an MLP.

    Raises:
        ArgumentError: There are fewer groups of a class than folds.
    """

    def __init__(self, labels: Tensor, groups: Tensor, kind: str, splits: int, seed: int) -> None:
        from sklearn.model_selection import StratifiedGroupKFold

        self._kind, self._seed = kind, seed
        if len(groups.unique()) < splits:
            raise ArgumentError(
                f"{counted(len(groups.unique()), 'group')} cannot be divided into {counted(splits, 'split')}"
            )
        folds = StratifiedGroupKFold(splits, shuffle=True, random_state=seed % 2**32)
        places = np.zeros(len(labels))
        self._folds = list(folds.split(places, labels.numpy(), groups.numpy()))
        for number, (train, _) in enumerate(self._folds):
            missing = set(labels.tolist()) - set(labels[train].tolist())
            if missing or not len(self._folds[number][1]):
                raise ArgumentError(
                    f"with {counted(splits, 'split')} there is a class without examples to train on: give "
                    "fewer splits, or more groups of examples of each class"
                )

    def correct(self, features: Tensor, labels: Tensor) -> Tensor:
        """Returns whether each example is classified right by the probe that was not trained on its group.

        Args:
            features: (examples, numbers).
            labels: The classes to learn, (examples,).
        """
        check_no_nan("activations", features)
        given, wanted = features.numpy(), labels.numpy()
        right = np.zeros(len(wanted), dtype=bool)
        for train, test in self._folds:
            right[test] = self._predicted(given[train], wanted[train], given[test]) == wanted[test]
        return torch.from_numpy(right)

    def _predicted(self, given: Any, wanted: Any, asked: Any) -> Any:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if len(np.unique(wanted)) == 1:  # of control labels
            return np.full(len(asked), wanted[0])
        probe = (
            LogisticRegression(C=0.1, max_iter=300)
            if self._kind == "linear"
            else MLPClassifier((_HIDDEN,), alpha=1e-2, max_iter=200, random_state=self._seed % 2**32)
        )
        with warnings.catch_warnings():  # a probe that has not converged is tested as it is
            warnings.simplefilter("ignore", ConvergenceWarning)
            return make_pipeline(StandardScaler(), probe).fit(given, wanted).predict(asked)


def control_labels(types: Sequence[Any], labels: Tensor, seed: int) -> Tensor:
    """Returns a random label for each type of word, drawn from the distribution of the labels.

    A probe can learn them only by learning types by heart (Hewitt & Liang 2019, "Designing and Interpreting
    Probes with Control Tasks").

    Args:
        types: The type of each example, such as the id of its token.
        labels: The labels of the task, (examples,).
        seed: Of the draws.

    Example:
        >>> found = control_labels(["a", "b", "a"], torch.tensor([0, 0, 1]), seed=0)
        >>> bool(found[0] == found[2])
        True
    """
    numbers = {one: number for number, one in enumerate(dict.fromkeys(types))}
    draws = torch.randint(len(labels), (len(numbers),), generator=make_generator(seed))
    return labels[draws][torch.tensor([numbers[one] for one in types])]
