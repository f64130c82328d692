"""What is applied to a real table: additions first, and nothing goes whose replacement did not come."""

import errno
from itertools import pairwise

from anyipd.apply import Changes, apply
from anyipd.decide.plan import Plan
from anyipd.kernel import wire
from anyipd.kernel.routes import Routes, ours_and_others
from anyipd.kernel.wire import Refusal
from anyipd.model import Prefix
from anyipd.policy import Policy
from tests.lab.namespace import Namespace

WHOLE, LOW, HIGH = map(Prefix.parse, ("2001:db8::/60", "2001:db8::/61", "2001:db8:0:8::/61"))
OTHER = Prefix.parse("2001:db8:1::/64")


def present(routes: Routes) -> set[Prefix]:
    return set(ours_and_others(routes.dump(wire.TABLE_LOCAL))[0])


def change(routes: Routes, *, add: list[Prefix], remove: list[Prefix]) -> tuple[list[Refusal], set[Prefix]]:
    plan = Plan(add=dict.fromkeys(add), remove=remove)
    outcome = apply(routes, Policy(), Changes(present(routes), plan))
    assert set(outcome.present) == present(routes)
    return outcome.refused, present(routes)


def test_a_cover_is_split_and_merged(routes: Routes) -> None:
    steps = [[WHOLE], [LOW, HIGH], [WHOLE], []]
    for before, after in pairwise([[], *steps]):
        assert change(routes, add=after, remove=before) == ([], set(after))


def test_parts_stay_where_the_whole_does_not_come(host: Namespace, routes: Routes) -> None:
    """Somebody was faster, after the table was read; his is read the next time."""
    routes.add_local(dict.fromkeys([LOW, HIGH, OTHER]), 0)
    host.ip(f"-6 route add unreachable {WHOLE} dev lo table local proto static metric 1024")
    refused, left = change(routes, add=[WHOLE], remove=[LOW, HIGH, OTHER])
    assert refused == [Refusal(WHOLE, errno.EEXIST)]
    assert left == {LOW, HIGH}


def test_the_whole_stays_where_a_part_does_not_come(host: Namespace, routes: Routes) -> None:
    routes.add_local({WHOLE: None}, 0)
    host.ip(f"-6 route add local {HIGH} dev lo table local proto static metric 1024")
    refused, left = change(routes, add=[LOW, HIGH], remove=[WHOLE])
    assert refused == [Refusal(HIGH, errno.EEXIST)]
    assert left == {WHOLE, LOW}
