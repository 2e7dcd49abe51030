"""Another order in every epoch, the same on every machine."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from linearize.data import epoch_order


@given(st.integers(0, 300), st.integers(0, 2**40), st.integers(0, 1000))
def test_orders_are_permutations_and_repeatable(n, seed, epoch):
    order = epoch_order(n, seed, epoch)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    np.testing.assert_array_equal(order, epoch_order(n, seed, epoch))


def test_every_epoch_and_seed_has_its_own_order():
    orders = {tuple(epoch_order(50, s, e)) for s in range(20) for e in range(20)}
    assert len(orders) == 400
