"""The settings that all methods share which hide parts of the inputs."""

from torch import nn

from ...core.checks import check_counts
from ..base.baselines import BaselineLike
from ..base.batching import BATCH_SIZE
from ..base.inputs import Layers, Preprocess
from ..base.method import Method
from ..base.models import ModelLike, as_network
from ..base.problem import Problem
from .features import FeaturesLike
from .masking import Masking


class PerturbationMethod(Method):
    """A method that hides parts of the inputs and reads the score; a subclass says which parts.

    Args:
        model: The network; as no gradients are needed, a function or an estimator will do (`as_network`).
        layer: Attribute to the activation of this layer, or of several in a list, instead of the inputs.
        preprocess: Applied to the inputs before the network.
        features: Which numbers of the inputs belong together: whole numbers in a shape that broadcasts to the
            inputs or to one of them, a tuple or dictionary of such tensors for several inputs, or a function
            from the inputs to these, such as `superpixels`. An input without any is never hidden.
        channel_axis: The axis of the channels; by default axis 1 of maps (N, C, H, W) and videos
            (N, C, T, H, W), and the last of tokens (N, T, C). For signals (N, C, L), the inputs of an
            nn.Conv1d, give 1: by default their channels are taken for positions.
        baseline_samples: A score is the mean over so many samples of a random baseline, such as `FromData`.
        batch_size: How many inputs pass through the network at a time.
        seed: Seed of everything that is drawn.
        verbose: Show progress after two seconds.

    Raises:
        LayerError: A layer that the model does not have.
        ArgumentError: A setting that makes no sense.
    """

    def __init__(
        self,
        model: ModelLike,
        layer: Layers = None,
        preprocess: Preprocess | None = None,
        *,
        features: FeaturesLike = None,
        channel_axis: int | None = None,
        baseline_samples: int = 10,
        batch_size: int = BATCH_SIZE,
        seed: int | None = 0,
        verbose: bool = True,
    ) -> None:
        super().__init__(model, layer, preprocess, batch_size=batch_size)
        check_counts(1, baseline_samples=baseline_samples)
        self.features = features
        self.channel_axis = channel_axis
        self.baseline_samples = baseline_samples
        self.seed = seed
        self.verbose = verbose

    def network(self, model: ModelLike) -> nn.Module:
        """Returns what the user gave as a model as a network; see `as_network`."""
        return as_network(model)

    def masking(self, problem: Problem, baselines: BaselineLike) -> Masking:
        """Returns the masking engine for a problem, with the settings of the method."""
        settings = self.baseline_samples, self.batch_size, self.seed, self.verbose
        return Masking(problem, baselines, *settings, name=type(self).__name__)
