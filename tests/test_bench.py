"""What decides whether a goal is met, and how many pairs that takes."""

from __future__ import annotations

from itertools import chain, cycle, repeat

import pytest

from bench.row import MAX_PAIRS, Row, in_turn, is_settled


@pytest.mark.parametrize(
    ("ratios", "settled"),
    [
        ([0.5] * 4, False),  # one in eight times by chance
        ([0.5] * 5, True),
        ([2.0] * 5, True),
        ([0.5] * 4 + [2.0], False),
        ([0.5] * 12 + [2.0] * 4, False),
        ([0.5] * 13 + [2.0] * 3, True),
        ([1.0] * 5, True),  # the goal itself is good enough
    ],
)
def test_a_median_is_settled_where_chance_hardly_makes_it(ratios: list[float], *, settled: bool) -> None:
    assert is_settled(ratios, 1) is settled


def test_pairs_are_measured_until_noise_does_not_decide() -> None:
    figures = chain([9.0, 2.0], repeat(0.5))
    ours, theirs = in_turn(lambda: next(figures), lambda: 1.0, 5, 1)
    assert ours == [2.0, *[0.5] * 7]  # the first warms up
    assert theirs == [1.0] * 8
    assert Row("row", "ms", ours, "peer", theirs, 1).reached


def test_pairs_are_measured_up_to_a_limit() -> None:
    figures = cycle([0.5, 2.0])
    ours, theirs = in_turn(lambda: next(figures), lambda: 1.0, 5, 1)
    assert len(ours) == len(theirs) == MAX_PAIRS * 5


def test_without_a_goal_as_many_pairs_as_asked_for() -> None:
    assert in_turn(lambda: 1.0, lambda: 1.0, 5) == ([1.0] * 5, [1.0] * 5)
