"""Many tests at once err as seldom as one alone would."""

import pytest

from ovis_model.multiple_tests import holm


def test_holm_keeps_order_and_never_exceeds_one():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
