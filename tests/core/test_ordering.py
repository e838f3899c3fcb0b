"""The largest numbers of a table."""

import torch

from toumei.core.ordering import largest


def test_the_largest_come_first_and_equal_ones_in_the_order_of_their_places():
    values = torch.randint(0, 9, (3, 4, 5), generator=torch.Generator().manual_seed(0)).double()
    found = largest(values, 60)
    everything = [
        (place, float(values[place]))
        for place in torch.cartesian_prod(*map(torch.arange, values.shape)).tolist()
        for place in [tuple(place)]
    ]
    assert found == sorted(everything, key=lambda item: -item[1])  # sorting is stable
    assert largest(values, 7) == found[:7]


def test_what_is_no_number_is_left_out():
    values = torch.tensor([torch.nan, 1.0, torch.inf, -torch.inf, 3.0])
    assert largest(values, 9) == [((4,), 3.0), ((1,), 1.0)]
    assert largest(torch.full((2, 2), torch.nan), 3) == [] == largest(torch.zeros(0, 3), 2)
