"""The configuration: what is taken, from which file, and that nothing else is raised than its error."""

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from anyipd.model import Prefix, address_text
from anyipd.policy import DEFAULT, Accept, Policy, PolicyError, Static, SubnetPolicy, parse, read


def subnets(*entries: str) -> str:
    return "subnets:\n" + "".join(f"  - {entry}\n" for entry in entries)


def subnet(entry: str) -> SubnetPolicy:
    return parse(subnets(entry), "f").subnets[0]


def test_whole_example() -> None:
    text = """\
subnets:                  # carved out of every accepted delegated prefix
  - name: web             # unique, a DNS label
    id: 0                 # subnet ID (int or hex); without it the lowest free, in file order
  - name: proxies
    count: 4              # proxies-0 ... proxies-3; `all` takes what is left
  - name: docker
    id: 0xf
    bind: false           # reserved: someone else uses it
  - name: lab
    length: 62            # default 64; `id` counts in units of this length
    uplink: eth1          # only from delegations that came in there
accept:                   # which delegated prefixes to use; these are the defaults
  uplinks: ["*"]          # globs; where the uplink is not known only "*" matches
  within: [2000::/3, fc00::/7]
  protocols: [dhcp]       # of the discard routes
unassigned: unreachable   # or blackhole, prohibit, none
static:                   # no DHCP server involved
  - 192.0.2.0/24
  - {prefix: 2001:db8:5::/64, name: rented, neighbours: [eth0]}
  - {prefix: 2001:db8:6::/64, bind: false, neighbours: [eth0]}
"""
    assert parse(text, "f") == Policy(
        subnets=(
            SubnetPolicy(name="web", id=0),
            SubnetPolicy(name="proxies", count=4),
            SubnetPolicy(name="docker", id=15, bind=False),
            SubnetPolicy(name="lab", length=62, uplink="eth1"),
        ),
        accept=Accept(
            uplinks=("*",),
            within=(Prefix(0x2000 << 112, 3), Prefix(0xFC00 << 112, 7)),
            protocols=(16,),
        ),
        unassigned="unreachable",
        static=(
            Static(prefix=Prefix(0xC0000200, 24, 32)),
            Static(prefix=Prefix(0x20010DB8_0005 << 80, 64), name="rented", neighbours=("eth0",)),
            Static(prefix=Prefix(0x20010DB8_0006 << 80, 64), neighbours=("eth0",), bind=False),
        ),
    )


def test_default_is_one_subnet_of_that_name() -> None:
    assert DEFAULT.subnets == (SubnetPolicy(name="default", id=None, count=None, length=64),)
    assert DEFAULT.accept == Accept(
        uplinks=("*",), within=(Prefix.parse("2000::/3"), Prefix.parse("fc00::/7")), protocols=(16,)
    )
    assert (DEFAULT.unassigned, DEFAULT.static) == ("unreachable", ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only words\n",
        "---\n",
        "~",
        "{}",
        "subnets:\n",
        "accept:\nstatic: ~\nunassigned: null\n",
        "\ufeff",
    ],
)
def test_nothing_means_default(text: str) -> None:
    assert parse(text, "f") == DEFAULT


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("subnets: []", Policy(subnets=())),
        ("unassigned: none", Policy(unassigned="none")),
        ("accept: {protocols: [static, 3, bgp, dhcp]}", Policy(accept=Accept(protocols=(4, 3, 186, 16)))),
        ("accept: {within: , uplinks: [eth*]}", Policy(accept=Accept(uplinks=("eth*",)))),
        ('{"static": ["192.0.2.1"]}', Policy(static=(Static(prefix=Prefix.parse("192.0.2.1")),))),
    ],
)
def test_sections(text: str, policy: Policy) -> None:
    assert parse(text, "f") == policy


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{name: a, id: 010}", SubnetPolicy(name="a", id=10)),
        ("{name: a, id: 0o17}", SubnetPolicy(name="a", id=15)),
        ("{name: a, id: 0xF}", SubnetPolicy(name="a", id=15)),
        ("{name: a, id: +7}", SubnetPolicy(name="a", id=7)),
        ("{name: yes}", SubnetPolicy(name="yes")),
        ("{name: no}", SubnetPolicy(name="no")),
        ("{name: 2001-12-14}", SubnetPolicy(name="2001-12-14")),
        ("{name: '010'}", SubnetPolicy(name="010")),
        ("{name: a, bind: FALSE}", SubnetPolicy(name="a", bind=False)),
        ("{name: a, count: all}", SubnetPolicy(name="a", count="all")),
        ("{name: a, count: 65536, id: , uplink: ~}", SubnetPolicy(name="a", count=65536)),
        ("{name: a, uplink: eth0.100, neighbours: [br-lan, wg0]}",
         SubnetPolicy(name="a", uplink="eth0.100", neighbours=("br-lan", "wg0"))),
    ],
)  # fmt: skip
def test_subnet(entry: str, expected: SubnetPolicy) -> None:
    assert subnet(entry) == expected


@pytest.mark.parametrize(
    "entries",
    [
        ("{name: a, count: 2}", "{name: a-2}", "{name: a-00}", "{name: a-x}"),
        ("{name: a, id: 0}", "{name: b, id: 1}", "{name: c, id: 1, length: 63}"),
        ("{name: a, id: 0, uplink: e0}", "{name: b, id: 0, uplink: e1}"),
        ("{name: a, count: all, uplink: e0}", "{name: b, count: all, uplink: e1}"),
    ],
)
def test_subnets_that_go_together(entries: tuple[str, ...]) -> None:
    assert len(parse(subnets(*entries), "f").subnets) == len(entries)


def test_no_file_is_default(tmp_path: Path) -> None:
    assert read(tmp_path / "none.yaml") is DEFAULT


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "anyipd.yaml"
    path.write_text("subnets: [{name: büro}]")
    with pytest.raises(PolicyError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:1:18: subnets[0].name: found büro; a DNS label")
    path.write_text("unassigned: none")
    assert read(path) == Policy(unassigned="none")


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "anyipd.yaml"

    def line() -> str:
        with pytest.raises(PolicyError) as error:
            read(path)
        return str(error.value).removeprefix(str(path))

    path.mkdir()
    assert line() == ": cannot be read: Is a directory; a file of YAML, or none"
    path.rmdir()
    path.symlink_to(path)
    assert line() == ": cannot be read: Too many levels of symbolic links; a file of YAML, or none"
    path.unlink()
    path.write_bytes("# Büro\nunassigned: ü".encode("latin-1"))
    assert line() == ":1:4: found the byte 0xfc; text in UTF-8"
    path.write_bytes(b"#" * (1 << 20))
    assert read(path) == DEFAULT
    path.write_bytes(b"#" * ((1 << 20) + 1))
    assert line() == ": found more than 1048576 bytes; at most so many"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "anyipd.yaml"
    path.touch(mode=0)
    with pytest.raises(PolicyError, match="cannot be read: Permission denied; a file of YAML, or none"):
        read(path)


def told(text: str) -> list[str]:
    try:
        parse(text, "f")
    except PolicyError as error:
        return error.lines
    return []


def assert_taken_or_told(text: str) -> None:
    """Whatever else is raised fails the test."""
    for line in told(text):
        assert line.startswith("f:")
        assert len(line.splitlines()) == 1


@given(st.text() | st.text(alphabet="{}[]&*!?|>%@`'\"#-:,.~ \n\t\r\\01Uuxnd8<="))
def test_any_text_is_taken_or_told(text: str) -> None:
    assert_taken_or_told(text)


WORDS = st.sampled_from(
    [*Policy.model_fields, *Accept.model_fields, *Static.model_fields, *SubnetPolicy.model_fields]
) | st.sampled_from(["default", "all", "fc00::/7", "dhcp", "eth0", "a", "a-1"])
SCALARS = WORDS | st.text(max_size=5) | st.none() | st.booleans() | st.integers() | st.floats()
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=30,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "subnets": TREES | st.lists(st.dictionaries(WORDS, TREES)),
            "accept": TREES,
            "static": TREES | st.lists(TREES),
        },
    )
    | TREES
)
def test_any_tree_is_taken_or_told(tree: object) -> None:
    assert_taken_or_told(yaml.safe_dump(tree))


class Written(yaml.SafeDumper):
    def ignore_aliases(self, _data: object) -> bool:
        return True


NAMES = st.from_regex("[a-z]([a-z-]{0,10}[a-z])?", fullmatch=True)
LINKS = st.from_regex(r"[a-z][a-z0-9.-]{0,14}", fullmatch=True)


@st.composite
def policies(draw: st.DrawFn) -> dict[str, object]:
    """A right policy with every key written; pinned subnets stand one behind the other."""
    names = draw(st.lists(NAMES, unique=True, max_size=8))
    split = draw(st.integers(0, len(names)))
    free = 0
    carved = []
    for name in names[:split]:
        count = draw(st.none() | st.integers(1, 65536))
        pinned, bind = draw(st.booleans()), draw(st.booleans())
        own = draw(st.none() | st.integers(1, (1 << 64) - 1).map(address_text)) if bind and pinned else None
        carved.append(
            {
                "name": name,
                "id": free if pinned else None,
                "count": count,
                "length": 64 if pinned else draw(st.integers(20, 128)),
                "uplink": draw(st.none() | LINKS),
                "address": None if count else own,
                "bind": bind,
                "neighbours": draw(st.lists(LINKS, max_size=3)) if bind or pinned else [],
                "except": [],
            }
        )
        if carved[-1]["length"] == 64 and (count or 1) <= 256 and carved[-1]["bind"]:
            carved[-1]["except"] = draw(st.lists(st.sampled_from(["::5/128", "::a:0:0/96"]), unique=True))
        free += (count or 1) + draw(st.integers(0, 1 << 32)) if pinned else 0
    static = []
    for i, name in enumerate(names[split:]):
        prefix = draw(st.sampled_from([f"10.{i}.0.0/16", f"2001:db8:{i + 1:x}::/{48 + i}"]))
        links = draw(st.lists(LINKS, max_size=3)) if ":" in prefix else []
        bind = draw(st.booleans()) or not links
        entry = {"prefix": prefix, "name": name, "neighbours": links, "bind": bind, "except": []}
        static.append(entry)
    protocols = st.integers(1, 255).filter(lambda number: number != 150)
    return {
        "subnets": carved,
        "accept": {
            "uplinks": draw(st.lists(LINKS | st.just("*"), min_size=1, max_size=3)),
            "shortest": draw(st.integers(1, 128)),
            "at_most": draw(st.integers(1, 100)),
            "within": ["2000::/3", *draw(st.lists(st.sampled_from(["fd00::/8", "2001:db8::/32"])))],
            "protocols": draw(st.lists(protocols, min_size=1, max_size=3)),
        },
        "unassigned": draw(st.sampled_from(["unreachable", "blackhole", "prohibit", "none"])),
        "source_routes": draw(st.sampled_from(["auto", "always", "never"])),
        "static": static,
        "listen": draw(st.lists(LINKS, max_size=3)),
    }


def plain(value: object) -> object:
    match value:
        case Prefix():
            return str(value)
        case tuple():
            return [plain(item) for item in value]
        case Policy() | SubnetPolicy() | Accept() | Static():
            aliases = {name: field.alias for name, field in type(value).model_fields.items()}
            return {
                aliases[key] or key: address_text(item) if key == "address" and item else plain(item)
                for key, item in value
            }
    return value


@given(policies())
def test_what_is_written_is_read(written: dict[str, object]) -> None:
    assert plain(parse(yaml.dump(written, Dumper=Written), "f")) == written
    assert plain(parse(json.dumps(written), "f")) == written


@given(policies())
def test_what_the_daemon_hands_over_is_its_policy(written: dict[str, object]) -> None:
    policy = parse(json.dumps(written), "f")
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
