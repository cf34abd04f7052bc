"""What begins between the blocks that a device moves."""

from __future__ import annotations

import pytest

from backends.devices.limits import LIMITS, Misaligned, misaligned


@pytest.mark.parametrize(
    ("start", "steps", "says"),
    [
        (512, (512, 2), []), (32, (512, 2), []), (16, (512, 2), [Misaligned(0, "tensor", 16)]),
        (512, (88, 1), [Misaligned(0, "rows", 88)]), (512, (24, 2), []),  # rows shorter than a block
        (512, (1, 88), []),  # scattered: nothing lies together
        (512, (), []), (-1, (64, 2), []), (512, (4096, 100, 4), [Misaligned(0, "rows", 100)]),
    ],
)  # fmt: skip
def test_a_tensor_is_judged_by_where_it_and_its_rows_begin(start, steps, says):
    assert list(misaligned(LIMITS["ascend-910b"], (start,), (steps,))) == says


def test_devices_move_blocks_of_their_own_size():
    tensor = ((16,), ((512, 2),))
    assert list(misaligned(LIMITS["nvidia"], *tensor)) == []
    assert list(misaligned(LIMITS["unlimited"], (1,), ((3, 1),))) == []


def test_every_ascend_has_the_limit_of_its_launcher():
    for name in ("ascend", "ascend-910b", "ascend-910c"):
        assert (LIMITS[name].max_grid_product, LIMITS[name].allows_empty_grid) == (65535, False)
        assert LIMITS[name].family == name
