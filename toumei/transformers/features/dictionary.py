"""A dictionary of features: a sparse autoencoder, or a transcoder."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import Self

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.serialization import Saved
from ...core.summaries import counted
from ...core.tensor_specs import Spec, specs

Activation = Literal["relu", "topk", "batch_topk", "jump_relu"]
Normalization = Literal["none", "layer_norm", "constant_norm"]
ACTIVATIONS: tuple[Activation, ...] = ("relu", "topk", "batch_topk", "jump_relu")
NORMALIZATIONS: tuple[Normalization, ...] = ("none", "layer_norm", "constant_norm")
_EPSILON = 1e-5  # that SAELens adds to the standard deviation


@dataclass(frozen=True, repr=False, eq=False)
class SparseAutoencoder(Saved):
    """Features of an activation: few of them sum to it (Bricken et al. 2023, Cunningham et al. 2023).

    Of an activation x, the features are z = f((x - b_dec) W_enc + b_enc), and the reconstruction is
    z W_dec + b_dec, with an activation function f:

    - ``relu``: positive numbers.
    - ``topk``: the k largest, where they are positive (Gao et al. 2024, arXiv:2406.04093).
    - ``batch_topk``: numbers above a threshold that was measured in the training, where the largest n k of a
      batch of n were kept (Bussmann et al. 2024, arXiv:2412.06410).
    - ``jump_relu``: numbers above the threshold of the feature (Rajamanoharan et al. 2024, arXiv:2407.14435).

    A transcoder is the same with another activation as its target: it reads the input of an MLP and
    reconstructs its output (Dunefsky et al. 2024, arXiv:2406.11944).

    Attributes:
        W_enc: The directions that are read, (width, features).
        b_enc: (features,).
        W_dec: The directions that are written, (features, output width).
        b_dec: (output width,).
        thresholds: Of each feature, (features,); 0 for ``relu`` and ``topk``.
        activation: The activation function.
        k: How many features are active: exactly, on average, or 0 where that was not set.
        subtract_bias: Whether b_dec is subtracted from the input.
        normalization: What happens to each input, and is undone in the reconstruction: ``"none"``,
            ``"layer_norm"`` (mean 0 and standard deviation 1) or ``"constant_norm"`` (norm sqrt(width)).
        reads: The name of the activation that is read.
        writes: The name of the activation that is reconstructed.

    Example:
        >>> dictionary = SparseAutoencoder.of_directions(torch.eye(3))
        >>> dictionary.encode(torch.tensor([[2.0, -1.0, 0.5]]))
        tensor([[2.0000, 0.0000, 0.5000]])
        >>> dictionary(torch.tensor([[2.0, 0.0, 0.5]]))
        tensor([[2.0000, 0.0000, 0.5000]])
        >>> dictionary
        SparseAutoencoder(3 features of width 3, relu, reads activations)
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    thresholds: Tensor
    activation: Activation
    k: int
    subtract_bias: bool
    normalization: Normalization
    reads: str
    writes: str

    _specs = specs(
        W_enc=Spec("width features", finite=True),
        b_enc=Spec("features", finite=True),
        W_dec=Spec("features out_size", finite=True),
        b_dec=Spec("out_size", finite=True),
        thresholds=Spec("features", finite=True),
    )

    def __post_init__(self) -> None:
        """Makes sure that the settings agree.

        Raises:
            ArgumentError: They do not.
        """
        if self.activation not in ACTIVATIONS or self.normalization not in NORMALIZATIONS:
            raise ArgumentError(
                f"activation is one of {', '.join(ACTIVATIONS)} and normalization one of "
                f"{', '.join(NORMALIZATIONS)}, got {self.activation!r} and {self.normalization!r}"
            )
        if self.activation == "topk" and not 1 <= self.k <= self.features:
            raise ArgumentError(f"k is from 1 to {self.features}, the number of features, got {self.k}")
        if self.subtract_bias and self.width != self.output_width:
            raise ArgumentError(
                f"b_dec of width {self.output_width} cannot be subtracted from inputs of width {self.width}"
            )
        if self.normalization != "none" and self.is_transcoder:
            raise ArgumentError(f"a transcoder cannot undo {self.normalization!r} of what it reads")

    @classmethod
    @checked
    def of_directions(
        cls, directions: Tensor, bias: Tensor | None = None, *, reads: str = "activations"
    ) -> Self:
        """Returns the dictionary that reads and writes the same directions.

        Args:
            directions: (features, width), of length 1 for activations that are products with them.
            bias: What is subtracted before and added after, (width,); by default 0.
            reads: The name of the activation that is read and reconstructed, such as
                ``"blocks.2.hook_resid_post"``; without one the dictionary is of tensors, not of a model.

        Raises:
            ShapeError: The directions are no matrix.

        Example:
            >>> SparseAutoencoder.of_directions(torch.eye(3), reads="blocks.0.hook_mlp_out")
            SparseAutoencoder(3 features of width 3, relu, reads blocks.0.hook_mlp_out)
        """
        if directions.dim() != 2:
            raise ShapeError(f"expected directions (features, width), got {tuple(directions.shape)}")
        if not directions.is_floating_point():
            directions = directions.to(torch.get_default_dtype())
        zeros = directions.new_zeros(len(directions))
        return cls(
            W_enc=directions.T.contiguous(),
            b_enc=zeros,
            W_dec=directions,
            b_dec=directions.new_zeros(directions.shape[1]) if bias is None else bias,
            thresholds=zeros.clone(),
            activation="relu",
            k=0,
            subtract_bias=bias is not None,
            normalization="none",
            reads=reads,
            writes=reads,
        )

    @property
    def width(self) -> int:
        """How many numbers an input has."""
        return self.W_enc.shape[0]

    @property
    def features(self) -> int:
        """How many features there are."""
        return self.W_enc.shape[1]

    @property
    def output_width(self) -> int:
        """How many numbers a reconstruction has."""
        return self.W_dec.shape[1]

    @property
    def is_transcoder(self) -> bool:
        """Whether it reconstructs another activation than it reads."""
        return self.reads != self.writes

    @checked
    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Returns the dictionary on a device, in a precision."""
        moved = {name: getattr(self, name).to(device, dtype) for name in self._specs}
        return replace(self, **moved)

    @checked
    def encode(self, inputs: Tensor) -> Tensor:
        """Returns the activations of the features, (..., features), for inputs (..., width).

        Raises:
            ShapeError: The inputs have another width.
        """
        normalized, _, _ = self._normalized(self._fitting(inputs))
        return self._activated(self._before(normalized))

    @checked
    def decode(self, features: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Returns the reconstructions (..., output width) of feature activations (..., features).

        Args:
            features: The activations of the features.
            inputs: What was encoded; needed to undo its normalization where there is one.

        Raises:
            ShapeError: There are another number of features.
            ArgumentError: The inputs are needed.
        """
        if features.shape[-1:] != (self.features,):
            raise ShapeError(
                f"expected {counted(self.features, 'feature')}, got a tensor {tuple(features.shape)}"
            )
        summed = features.to(self.W_dec.dtype) @ self.W_dec + self.b_dec
        if self.normalization == "none":
            return summed
        if inputs is None:
            raise ArgumentError(f"give the inputs too, whose {self.normalization!r} is undone")
        _, mean, scale = self._normalized(self._fitting(inputs))
        return summed * scale + mean

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the reconstructions (..., output width) of inputs (..., width)."""
        return self.decode(self.encode(inputs), inputs)

    __call__ = forward

    @checked
    def written(self, inputs: Tensor, features: list[int]) -> Tensor:
        """Returns what some features add to the reconstructions, (..., output width).

        Args:
            inputs: (..., width).
            features: Which.

        Raises:
            ArgumentError: There is no such feature.
        """
        self.check_features(features)
        normalized, _, scale = self._normalized(self._fitting(inputs))
        if self.activation == "topk":  # which ones are active depends on all
            active = self._activated(self._before(normalized))[..., features]
        else:
            active = self._activated(self._before(normalized, features), features)
        return active @ self.W_dec[features] * scale

    def check_features(self, features: list[int]) -> None:
        """Makes sure that there are such features.

        Raises:
            ArgumentError: There are not.
        """
        wrong = [one for one in features if not 0 <= one < self.features]
        if wrong or not features:
            given = wrong[0] if wrong else "none"
            raise ArgumentError(f"features are from 0 to {self.features - 1}, got {given}")

    def _fitting(self, inputs: Tensor) -> Tensor:
        if inputs.shape[-1:] != (self.width,):
            raise ShapeError(
                f"{self!r} reads vectors of width {self.width}, got a tensor {tuple(inputs.shape)}: was it "
                f"trained on another layer or model?"
            )
        return inputs.to(self.W_enc.device, self.W_enc.dtype)

    def _normalized(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inputs as the encoder reads them, and the mean and scale that give them back."""
        one = inputs.new_ones(())
        if self.normalization == "layer_norm":
            mean, scale = inputs.mean(-1, keepdim=True), inputs.std(-1, keepdim=True)
            return (inputs - mean) / (scale + _EPSILON), mean, scale
        if self.normalization == "constant_norm":
            scale = inputs.norm(dim=-1, keepdim=True) / self.width**0.5
            return inputs / scale, one * 0, scale
        return inputs, one * 0, one

    def _before(self, normalized: Tensor, features: list[int] | slice = slice(None)) -> Tensor:
        """The numbers before the activation function."""
        centred = normalized - self.b_dec if self.subtract_bias else normalized
        return centred @ self.W_enc[:, features] + self.b_enc[features]

    def _activated(self, before: Tensor, features: list[int] | slice = slice(None)) -> Tensor:
        positive = before.relu()
        if self.activation == "relu":
            return positive
        if self.activation == "topk":
            best = positive.topk(self.k, dim=-1, sorted=False)
            return torch.zeros_like(positive).scatter_(-1, best.indices, best.values)
        return positive * (before > self.thresholds[features])

    def __repr__(self) -> str:
        kind = self.activation + (f" {self.k}" if self.k else "")
        place = f"reads {self.reads}" + (f", writes {self.writes}" if self.is_transcoder else "")
        return (
            f"SparseAutoencoder({counted(self.features, 'feature')} of width {self.width}, {kind}, {place})"
        )
