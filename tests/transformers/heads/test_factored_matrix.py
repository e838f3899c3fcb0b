"""FactoredMatrix against the dense product."""

import pytest
import torch

from toumei.core.errors import ShapeError
from toumei.transformers.heads.factored_matrix import FactoredMatrix


def factors(rows=9, rank=3, columns=7, batch=(2, 4)):
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64}
    return torch.randn(*batch, rows, rank, **options), torch.randn(*batch, rank, columns, **options)


@pytest.mark.parametrize("batch", [(), (4,), (2, 4)])
@pytest.mark.parametrize("sizes", [(9, 3, 7), (7, 3, 9), (2, 5, 9), (2, 5, 3)])
def test_norm_svd_and_transpose_are_those_of_the_product(batch, sizes):
    rows, rank, columns = sizes
    A, B = factors(rows, rank, columns, batch)
    matrix, dense = FactoredMatrix(A, B), A @ B
    assert matrix.shape == dense.shape
    torch.testing.assert_close(matrix.norm(), torch.linalg.matrix_norm(dense))
    torch.testing.assert_close(matrix.T.dense(), dense.mT)
    U, S, Vh = matrix.svd()
    torch.testing.assert_close(U @ torch.diag_embed(S) @ Vh, dense)
    torch.testing.assert_close(S, torch.linalg.svdvals(dense)[..., : S.shape[-1]])
    eye = torch.eye(S.shape[-1], dtype=torch.float64).expand(*batch, -1, -1)
    torch.testing.assert_close(U.mT @ U, eye)
    torch.testing.assert_close(Vh @ Vh.mT, eye)


def test_trace_and_eigenvalues_are_those_of_the_product():
    A, B = factors(8, 3, 8)
    matrix, dense = FactoredMatrix(A, B), A @ B
    torch.testing.assert_close(matrix.trace(), dense.diagonal(dim1=-2, dim2=-1).sum(-1))
    largest = torch.linalg.eigvals(dense).abs().sort(descending=True).values
    torch.testing.assert_close(matrix.eigenvalues().abs().sort(descending=True).values, largest[..., :3])
    torch.testing.assert_close(matrix.eigenvalues().sum(-1).real, matrix.trace())


def test_products_stay_factored_and_are_right_from_both_sides():
    A, B = factors()
    C, D = factors(7, 2, 9)
    matrix, other = FactoredMatrix(A, B), FactoredMatrix(C, D)
    square = matrix @ other
    torch.testing.assert_close(square.dense(), A @ B @ C @ D)
    assert square.rank == 2 and (other @ matrix).rank == 2
    torch.testing.assert_close((other @ matrix).dense(), C @ D @ A @ B)
    wide = torch.randn(7, 5, dtype=torch.float64)
    torch.testing.assert_close((matrix @ wide).dense(), A @ B @ wide)
    tall = torch.randn(5, 9, dtype=torch.float64)
    left = tall @ matrix
    assert isinstance(left, FactoredMatrix)
    torch.testing.assert_close(left.dense(), tall @ A @ B)


def test_products_with_vectors_are_vectors():
    A, B = factors()
    column, row = torch.randn(7, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    torch.testing.assert_close(FactoredMatrix(A, B) @ column, A @ B @ column)
    torch.testing.assert_close(row @ FactoredMatrix(A, B), row @ (A @ B))


def test_batches_rows_and_columns_are_chosen_by_index():
    A, B = factors()
    matrix, dense = FactoredMatrix(A, B), A @ B
    torch.testing.assert_close(matrix[1, 2].dense(), dense[1, 2])
    torch.testing.assert_close(matrix[:, 1].dense(), dense[:, 1])
    torch.testing.assert_close(matrix.rows([3, 0]).columns(slice(2, 5)).dense(), dense[..., [3, 0], 2:5])
    assert matrix.rows(3).shape == (2, 4, 1, 7)
    shared = FactoredMatrix(A, B[0, 0])  # a factor of all
    torch.testing.assert_close(shared[1, 3].dense(), A[1, 3] @ B[0, 0])


def test_a_norm_of_almost_nothing_is_not_lost():
    """The factors are large and nearly cancel; the product of Gram matrices would lose all digits."""
    a = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0], [-1.0 + 1e-10]], dtype=torch.float64)
    torch.testing.assert_close(FactoredMatrix(a, b).norm(), (a @ b).abs().squeeze(), rtol=1e-5, atol=0)


def test_what_does_not_fit_is_refused():
    A, B = factors()
    with pytest.raises(ShapeError, match="expected factors"):
        FactoredMatrix(A, A)
    with pytest.raises(ShapeError, match="do not broadcast"):
        FactoredMatrix(A, B[:, :3])
    matrix = FactoredMatrix(A, B)
    with pytest.raises(ShapeError, match="eigenvalues"):
        matrix.eigenvalues()
    with pytest.raises(ShapeError, match="7 is not 9"):
        matrix @ torch.ones(9)
    with pytest.raises(ShapeError, match="rows"):
        matrix[0, 0, 0]
