"""A matrix of low rank as the product of two thin ones, whose full product is never computed."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError, ShapeError
from ...core.summaries import counted, line_of


class SVD(NamedTuple):
    """A singular value decomposition, ``U @ diag(S) @ Vh``.

    Attributes:
        U: (..., rows, rank), the left singular vectors as columns.
        S: (..., rank), the singular values, the largest first.
        Vh: (..., rank, columns), the right singular vectors as rows.

    Example:
        >>> svd = FactoredMatrix(torch.rand(5, 2), torch.rand(2, 4)).svd()
        >>> svd.U.shape, svd.S.shape, svd.Vh.shape
        (torch.Size([5, 2]), torch.Size([2]), torch.Size([2, 4]))
    """

    U: Tensor
    S: Tensor
    Vh: Tensor

    def __repr__(self) -> str:
        return line_of(self)


class FactoredMatrix:
    """The matrix ``A @ B``, or one for each layer and head, without computing it.

    Circuits of attention heads are such matrices: as large as the residual stream or the vocabulary, with the
    rank of a head (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").

    Args:
        A: (..., rows, rank).
        B: (..., rank, columns). Axes before the last two are batches, and broadcast as in `torch.matmul`.

    Raises:
        ShapeError: The factors do not fit.
        ArgumentError: Their precisions differ.

    Example:
        >>> A, B = torch.randn(12, 1000, 4), torch.randn(12, 4, 1000)
        >>> matrix = FactoredMatrix(A, B)
        >>> matrix
        FactoredMatrix(12 x 1000 x 1000, rank 4)
        >>> matrix.svd().S.shape, matrix.eigenvalues().shape, matrix[3].shape
        (torch.Size([12, 4]), torch.Size([12, 4]), torch.Size([1000, 1000]))
        >>> torch.allclose(matrix[3].columns([7]).dense(), A[3] @ B[3][:, [7]])
        True
    """

    @checked
    def __init__(self, A: Tensor, B: Tensor) -> None:
        if A.dim() < 2 or B.dim() < 2 or A.shape[-1] != B.shape[-2]:
            raise ShapeError(
                f"expected factors (..., rows, rank) and (..., rank, columns), got {tuple(A.shape)} and "
                f"{tuple(B.shape)}"
            )
        if A.dtype != B.dtype:
            raise ArgumentError(f"expected factors of the same precision, got {A.dtype} and {B.dtype}")
        try:
            self._batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
        except RuntimeError:
            raise ShapeError(
                f"the batches of the factors do not broadcast: {tuple(A.shape)} and {tuple(B.shape)}"
            ) from None
        self.A, self.B = A, B

    @property
    def shape(self) -> torch.Size:
        """The shape of the product."""
        return torch.Size((*self._batch, self.A.shape[-2], self.B.shape[-1]))

    @property
    def rank(self) -> int:
        """The width of the factors, the largest rank that the product can have."""
        return self.A.shape[-1]

    @property
    def T(self) -> "FactoredMatrix":
        """The transposed matrix."""
        return FactoredMatrix(self.B.mT, self.A.mT)

    def __repr__(self) -> str:
        return f"FactoredMatrix({' x '.join(map(str, self.shape))}, rank {self.rank})"

    def __getitem__(self, index: Any) -> "FactoredMatrix":
        """Returns some of the batch, such as ``matrix[layer, head]``.

        Raises:
            ShapeError: There are more indices than axes of the batch; `rows` and `columns` take the others.
            ArgumentError: There is no such part.
        """
        count = len(index) if isinstance(index, tuple) else 1
        if count > len(self._batch):
            raise ShapeError(
                f"the batch has {counted(len(self._batch), 'axis', 'axes')}, got "
                f"{counted(count, 'index', 'indices')}: rows(...) and columns(...) choose parts of a matrix"
            )
        A, B = (one.expand(*self._batch, *one.shape[-2:]) for one in (self.A, self.B))
        return FactoredMatrix(_chosen(A, index), _chosen(B, index))

    @checked
    def __matmul__(self, other: "Tensor | FactoredMatrix") -> "Tensor | FactoredMatrix":
        """Returns the product with a matrix or a `FactoredMatrix`, factored; with a vector, the vector.

        Raises:
            ShapeError: The shapes do not fit.
            ArgumentError: The precisions do not.
        """
        self._check_product(self.shape[-1], -1 if len(other.shape) == 1 else -2, other)
        if isinstance(other, FactoredMatrix):
            middle = self.B @ other.A
            if self.rank <= other.rank:
                return FactoredMatrix(self.A, middle @ other.B)
            return FactoredMatrix(self.A @ middle, other.B)
        if other.dim() == 1:
            return (self.A @ (self.B @ other)[..., None])[..., 0]
        return FactoredMatrix(self.A, self.B @ other)

    @checked
    def __rmatmul__(self, other: Tensor) -> "Tensor | FactoredMatrix":
        """Returns the product of a matrix, or of a vector as a row, and this one."""
        self._check_product(self.shape[-2], -1, other)
        if other.dim() == 1:
            return ((other @ self.A)[..., None, :] @ self.B)[..., 0, :]
        return FactoredMatrix(other @ self.A, self.B)

    @checked
    def rows(self, index: Any) -> "FactoredMatrix":
        """Returns some rows: an index as of a tensor that keeps the axis, such as ``[3, 7]`` or a slice."""
        return FactoredMatrix(_chosen(self.A, (..., _kept(index), slice(None))), self.B)

    @checked
    def columns(self, index: Any) -> "FactoredMatrix":
        """Returns some columns; see `rows`."""
        return FactoredMatrix(self.A, _chosen(self.B, (..., _kept(index))))

    def dense(self) -> Tensor:
        """Returns the product as a tensor."""
        return self.A @ self.B

    def svd(self) -> SVD:
        """Returns the singular value decomposition, from the QR decompositions of the factors."""
        left, upper = torch.linalg.qr(self.A)
        right, lower = torch.linalg.qr(self.B.mT)
        U, S, Vh = torch.linalg.svd(upper @ lower.mT, full_matrices=False)
        return SVD(left @ U, S, Vh @ right.mT)

    def norm(self) -> Tensor:
        """Returns the Frobenius norms (...), from the QR decompositions of the factors."""
        upper, lower = torch.linalg.qr(self.A, "r").R, torch.linalg.qr(self.B.mT, "r").R
        result: Tensor = torch.linalg.matrix_norm(upper @ lower.mT)
        return result

    def trace(self) -> Tensor:
        """Returns the sums (...) of the diagonals.

        Raises:
            ShapeError: The matrix is not square.
        """
        self._check_square("a trace")
        return (self.A * self.B.mT).sum((-2, -1))

    def eigenvalues(self) -> Tensor:
        """Returns the eigenvalues (..., rank), complex, those of ``B @ A``; all others are 0.

        Raises:
            ShapeError: The matrix is not square.
        """
        self._check_square("eigenvalues")
        result: Tensor = torch.linalg.eigvals(self.B @ self.A)
        return result

    def _check_square(self, what: str) -> None:
        if self.shape[-2] != self.shape[-1]:
            raise ShapeError(f"a square matrix has {what}, got {self!r}")

    def _check_product(self, size: int, axis: int, other: "Tensor | FactoredMatrix") -> None:
        given = tuple(other.shape) if isinstance(other, Tensor) else other
        if not other.shape or other.shape[axis] != size:
            sizes = f": {size} is not {other.shape[axis]}" if other.shape else ""
            raise ShapeError(f"{self!r} cannot be multiplied with {given}{sizes}")
        factor = other if isinstance(other, Tensor) else other.A
        if factor.dtype != self.A.dtype or factor.layout != self.A.layout:
            raise ArgumentError(
                f"{self!r} of {self.A.dtype} cannot be multiplied with {given} of {factor.dtype}, "
                f"{factor.layout}"
            )


def _chosen(factor: Tensor, index: Any) -> Tensor:
    try:
        return factor[index]
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ArgumentError(f"a factor of shape {tuple(factor.shape)} has no such part: {error}") from error


def _kept(index: Any) -> Any:
    """An index that keeps its axis."""
    return [index] if isinstance(index, int) else index
