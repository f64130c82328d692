"""Gaps, against plain sets of integers."""

from hypothesis import given
from hypothesis import strategies as st

from anyipd.decide.gaps import Gaps, Span, aligned

MOST = 40
spans = st.tuples(st.integers(0, MOST), st.integers(1, 10)).map(lambda span: Span(span[0], sum(span)))


def integers(found: list[Span]) -> set[int]:
    """Check that spans are in order and not adjacent, and return what is in them."""
    edges = [edge for span in found for edge in span]
    assert edges == sorted(set(edges))
    return {each for span in found for each in range(*span)}


@given(st.lists(st.tuples(st.booleans(), spans)), spans, st.integers(1, 8))
def test_like_a_set(steps: list[tuple[bool, Span]], window: Span, size: int) -> None:
    gaps, expected = Gaps(0, MOST), set(range(MOST))
    for adds, span in steps:
        (gaps.add if adds else gaps.remove)(*span)
        expected = expected | set(range(*span)) if adds else expected - set(range(*span))
        assert integers(list(gaps)) == expected
        assert bool(gaps) == bool(expected)
    assert integers(list(gaps.within(*window))) == expected & set(range(*window))
    units = {each for each in range(MOST + 10) if expected >= set(range(each * size, (each + 1) * size))}
    found = list(aligned(gaps, size))
    assert all(start % size == end % size == 0 for start, end in found)
    assert {each // size for start, end in found for each in range(start, end, size)} == units


@given(st.lists(spans))
def test_of_spans_is_all_that_is_in_any(some: list[Span]) -> None:
    assert integers(list(Gaps.of(some))) == {each for span in some for each in range(*span)}


def test_nothing() -> None:
    assert not Gaps()
    assert list(Gaps(3, 3)) == []
