"""Every mistake that a configuration may hold, with its place and words in full."""

import pytest

from anyipd.policy import PolicyError, parse

DNS_LABEL = "a DNS label: 1 to 63 of a-z, 0-9 and -, the first and last no -; quoted where it looks a number"
INTERFACE = "the name of one interface: 1 to 15 bytes, no space, no /, no : and no glob"
PROTOCOL = "a route protocol: dhcp or another name of rt_protos, or a number from 1 to 255 but our own 150"
PARENT = "expected 'eno1.832', found 'eno1.832@eno1': leave out '@eno1', which `ip link` adds"
BY_IP_LINK = ", which `ip link` adds"
AN_INTERFACE = "the name of an interface"
SUBNET_ID = "a subnet ID: a whole number from 0, of at most 128 bits"
COUNT = "a whole number from 1 to 65536, or all"
HOLES_OF_NOBODY = "found holes beside `bind: false`; a subnet that is bound, or has `neighbours`"
SUBNET_KEYS = "name, id, count, length, uplink, address, bind, neighbours, except"
STATIC_KEYS = "prefix, name, neighbours, bind, except"
UNANSWERED = "found false; true, or links in `neighbours` that an IPv6 prefix is answered for on"
MOVES = "found links and no ID; one beside `bind: false`, else it moves off what is routed on"
NO_SOLICITATIONS = "found links for 192.0.2.0/24; none, for Neighbor Solicitations are of IPv6 alone"
ROOT_KEYS = "subnets, accept, unassigned, source_routes, static, listen"
ACCEPT_KEYS = "uplinks, within, shortest, at_most, protocols"
HOST_BITS = "the bits of an address below its subnet, such as ::1, and not all of them zero"
FREE = "one that is not taken"
NARROW = "as the shortest of accept.within, a /"


def lines(text: str) -> list[str]:
    with pytest.raises(PolicyError) as error:
        parse(text, "f")
    return error.value.lines


def subnets(*entries: str) -> str:
    return "subnets:\n" + "".join(f"  - {entry}\n" for entry in entries)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: b: c", "f:1:5: not YAML: mapping values are not allowed here"),
        ("a: [\n}", "f:2:1: not YAML: while parsing a flow node, expected the node content, but found '}'"),
        ("accept: {",
         "f:1:10: not YAML: while parsing a flow node, expected the node content, but found '<stream end>'"),
        ("a: 1\n---\nb: 2",
         "f:2:1: not YAML: expected a single document in the stream, but found another document"),
        ("a: b\n  \x07", "f:2:3: not YAML: found the character '\\x07'"),
        ('a: "\\UFFFFFFFF"', "f:1:7: not YAML: found a number beyond its range"),
        ('a: "\\ud800"', "f:1:4: found half of a surrogate pair; one escape for one character"),
        ("subnets: &x []", "f:1:10: found the anchor &x; the value without one"),
        ("subnets: *x", "f:1:10: found the alias *x; the value written out"),
        ("subnets: !!python/object:os.system x",
         "f:1:10: found the tag tag:yaml.org,2002:python/object:os.system; the value without one"),
        ("[" * 100_000, "f:1:17: found a value 17 levels deep; at most 16"),
        ("- " * 100_000, "f:1:33: found a value 17 levels deep; at most 16"),
        ("[]", f"f:1:1: found an empty list; a mapping with the keys {ROOT_KEYS}"),
        ("web", f"f:1:1: found web; a mapping with the keys {ROOT_KEYS}"),
        ("\n1: 2", "f:2:1: found 1 as a key; a key is text"),
        ("[a]: 2", "f:1:1: found a list as a key; a key is text"),
        ("true: 2", "f:1:1: found true as a key; a key is text"),
        ("<<: {unassigned: none}",
         f"f:1:1: ['<<']: unknown key; the keys are {ROOT_KEYS}"),
        ("unassigned: none\nunassigned: none",
         "f:2:1: unassigned: found again, after line 1, column 1; a key once"),
        ("accept:\n  within: [fc00::/7]\n  within: [fc00::/7]",
         "f:3:3: accept.within: found again, after line 2, column 3; a key once"),
        ("unasigned: none", "f:1:1: unasigned: unknown key; did you mean unassigned?"),
        ("foo:", f"f:1:1: foo: unknown key; the keys are {ROOT_KEYS}"),
        ("subnets: web", "f:1:10: subnets: found web; a list"),
        ("subnets: {name: web}", "f:1:10: subnets: found a mapping; a list"),
        (subnets("web"), f"f:2:5: subnets[0]: found web; a mapping with the keys {SUBNET_KEYS}"),
        (subnets(""), f"f:2:4: subnets[0]: found nothing; a mapping with the keys {SUBNET_KEYS}"),
        (subnets("{id: 1}"), "f:2:5: subnets[0].name: found nothing; this key is required"),
        (subnets("{name: }"), "f:2:11: subnets[0].name: found nothing; this key is required"),
        (subnets("{name: a, neighbors: [e]}"),
         "f:2:15: subnets[0].neighbors: unknown key; did you mean neighbours?"),
        (subnets("{name: a, mtu: 1}"), f"f:2:15: subnets[0].mtu: unknown key; the keys are {SUBNET_KEYS}"),
        (subnets('{name: a, "m\\nu": 1}'),
         f"f:2:15: subnets[0]['m\\nu']: unknown key; the keys are {SUBNET_KEYS}"),
        (subnets("{name: Web}"), f"f:2:12: subnets[0].name: found Web; {DNS_LABEL}"),
        (subnets("{name: ''}"), f"f:2:12: subnets[0].name: found ''; {DNS_LABEL}"),
        (subnets("{name: 010}"), f"f:2:12: subnets[0].name: found 010; {DNS_LABEL}"),
        (subnets("{name: a-}"), f"f:2:12: subnets[0].name: found a-; {DNS_LABEL}"),
        (subnets("{name: -a}"), f"f:2:12: subnets[0].name: found -a; {DNS_LABEL}"),
        (subnets('{name: "a\\n"}'), f"f:2:12: subnets[0].name: found 'a\\n'; {DNS_LABEL}"),
        (subnets(f"{{name: {'a' * 64}}}"),
         f"f:2:12: subnets[0].name: found {'a' * 60}...; {DNS_LABEL}"),
        (subnets("{name: a, id: '0'}"), f"f:2:19: subnets[0].id: found '0'; {SUBNET_ID}"),
        (subnets("{name: a, id: true}"), f"f:2:19: subnets[0].id: found true; {SUBNET_ID}"),
        (subnets("{name: a, id: 1.0}"), f"f:2:19: subnets[0].id: found 1.0; {SUBNET_ID}"),
        (subnets("{name: a, id: -1}"), f"f:2:19: subnets[0].id: found -1; {SUBNET_ID}"),
        (subnets("{name: a, id: 1:30}"), f"f:2:19: subnets[0].id: found 1:30; {SUBNET_ID}"),
        (subnets("{name: a, id: 1_0}"), f"f:2:19: subnets[0].id: found 1_0; {SUBNET_ID}"),
        (subnets("{name: a, id: .inf}"), f"f:2:19: subnets[0].id: found .inf; {SUBNET_ID}"),
        (subnets(f"{{name: a, id: {'9' * 5000}}}"),
         f"f:2:19: subnets[0].id: found {'9' * 60}...; {SUBNET_ID}"),
        (subnets(f"{{name: a, id: 0x{'9' * 5000}}}"),
         f"f:2:19: subnets[0].id: found 0x{'9' * 58}...; {SUBNET_ID}"),
        (subnets("{name: a, count: 0}"), f"f:2:22: subnets[0].count: found 0; {COUNT}"),
        (subnets("{name: a, count: 65537}"), f"f:2:22: subnets[0].count: found 65537; {COUNT}"),
        (subnets("{name: a, count: true}"), f"f:2:22: subnets[0].count: found true; {COUNT}"),
        (subnets("{name: a, count: some}"), f"f:2:22: subnets[0].count: found some; {COUNT}"),
        (subnets("{name: a, length: 130}"),
         "f:2:23: subnets[0].length: found 130; a subnet length from 1 to 128"),
        (subnets("{name: a, length: 2}"),
         "f:2:23: subnets[0].length: found 2; at least 3, the shortest length of accept.within"),
        (subnets("{name: a, bind: no}"), "f:2:21: subnets[0].bind: found no; true or false"),
        (subnets("{name: a, bind: 1}"), "f:2:21: subnets[0].bind: found 1; true or false"),
        (subnets("{name: a, uplink: eth*}"), f"f:2:23: subnets[0].uplink: found eth*; {INTERFACE}"),
        (subnets("{name: a, uplink: ''}"), f"f:2:23: subnets[0].uplink: found ''; {INTERFACE}"),
        (subnets("{name: a, uplink: ..}"), f"f:2:23: subnets[0].uplink: found ..; {INTERFACE}"),
        (subnets("{name: a, uplink: ääääääää}"), f"f:2:23: subnets[0].uplink: found ääääääää; {INTERFACE}"),
        (subnets("{name: a, uplink: eno1.832@eno1}"), f"f:2:23: subnets[0].uplink: {PARENT}"),
        (subnets("{name: a, neighbours: [e, eno1.832@eno1]}"),
         f"f:2:31: subnets[0].neighbours[1]: {PARENT}"),
        ("static: [{prefix: '2001:db8::/64', neighbours: [eno1.832@eno1]}]",
         f"f:1:49: static[0].neighbours[0]: {PARENT}"),
        ("accept: {uplinks: [eno1.832@eno1]}", f"f:1:20: accept.uplinks[0]: {PARENT}"),
        ("listen: [eth0, eno1.832@eno1]", f"f:1:16: listen[1]: {PARENT}"),
        (subnets("{name: a, uplink: wan.7@if2}"),
         "f:2:23: subnets[0].uplink: expected 'wan.7', found 'wan.7@if2': leave out '@if2'" + BY_IP_LINK),
        (subnets("{name: a, uplink: '@e'}"),
         f"f:2:23: subnets[0].uplink: expected {AN_INTERFACE}, found '@e': leave out '@e'{BY_IP_LINK}"),
        (subnets("{name: a, uplink: wan@" + "e" * 99 + "}"),
         f"f:2:23: subnets[0].uplink: found wan@{'e' * 56}...; {INTERFACE}"),
        (subnets("{name: a, address: '::'}"), f"f:2:24: subnets[0].address: found '::'; {HOST_BITS}"),
        (subnets("{name: a, address: 1}"), f"f:2:24: subnets[0].address: found 1; {HOST_BITS}"),
        (subnets("{name: a, address: '::1/128'}"),
         f"f:2:24: subnets[0].address: found '::1/128'; {HOST_BITS}"),
        (subnets("{name: a, address: 192.0.2.1}"),
         f"f:2:24: subnets[0].address: found 192.0.2.1; {HOST_BITS}"),
        (subnets("{name: a, address: 1:0:0:0:1}"),
         f"f:2:24: subnets[0].address: found 1:0:0:0:1; {HOST_BITS}"),
        (subnets("{name: a, address: '1::1'}"),
         "f:2:24: subnets[0].address: found 1::1; at most 64 bits, which a /64 leaves to its hosts"),
        (subnets("{name: a, length: 126, address: '::4'}"),
         "f:2:37: subnets[0].address: found ::4; at most 2 bits, which a /126 leaves to its hosts"),
        (subnets("{name: a, count: 1, address: '::1'}"),
         "f:2:34: subnets[0].address: found ::1 beside `count`; one of the two"),
        (subnets("{name: a, bind: false, address: '::1'}"),
         "f:2:37: subnets[0].address: found ::1 beside `bind: false`; one of the two"),
        (subnets("{name: a, neighbours: eth0}"), "f:2:27: subnets[0].neighbours: found eth0; a list"),
        (subnets("{name: a, neighbours: [e, a/b]}"),
         f"f:2:31: subnets[0].neighbours[1]: found a/b; {INTERFACE}"),
        (subnets("{name: a}", "{name: a}"),
         f"f:3:12: subnets[1].name: found a, the name of subnets[0]; {FREE}"),
        (subnets("{name: a-1}", "{name: a, count: 2}"),
         f"f:2:12: subnets[0].name: found a-1, which subnets[1] makes by count; {FREE}"),
        (subnets("{name: a, count: all}", "{name: a-70000}"),
         f"f:3:12: subnets[1].name: found a-70000, which subnets[0] makes by count; {FREE}"),
        (subnets(f"{{name: {'a' * 60}, count: 101}}"),
         "f:2:12: subnets[0].name: found 60 characters; at most 59, for the count adds to them"),
        (subnets("{name: a, id: 3, count: all}"),
         "f:2:19: subnets[0].id: found an ID beside `count: all`; one of the two"),
        (subnets("{name: a, count: all, uplink: e}", "{name: b, count: all}"),
         "f:3:22: subnets[1].count: found all, as in subnets[0]; a number, or an uplink each"),
        (subnets("{name: a, count: all, uplink: e}", "{name: b, count: all, uplink: e}"),
         "f:3:22: subnets[1].count: found all, as in subnets[0]; a number, or an uplink each"),
        (subnets("{name: a, id: 14, count: 3}", "{name: b, id: 0x10}"),
         "f:3:19: subnets[1].id: found 16, which overlaps subnets[0]; an ID clear of it"),
        (subnets("{name: a, id: 5}", "{name: b, id: 1, length: 62, uplink: e}"),
         "f:3:19: subnets[1].id: found 1, which overlaps subnets[0]; an ID clear of it"),
        (subnets("{name: a, id: 1}", "{name: b, id: 1, uplink: e}"),
         "f:3:19: subnets[1].id: found 1, which overlaps subnets[0]; an ID clear of it"),
        (subnets("{name: a, id: 0, count: 9}", "{name: b, id: 20}", "{name: c, id: 8}"),
         "f:4:19: subnets[2].id: found 8, which overlaps subnets[0]; an ID clear of it"),
        ("accept: {within: [fd00::/48]}\n" + subnets("{name: a, id: 0x10000}"),
         f"f:3:19: subnets[0].id: found 65536; at most 65535, {NARROW}48, has room for 65536 of /64"),
        ("accept: {within: [fd00::/56, fd00::/60]}\n" + subnets("{name: a, id: 253, count: 4}"),
         f"f:3:19: subnets[0].id: found 253; at most 252, {NARROW}56, has room for 256 of /64"),
        ("accept: {within: [fd00::/63]}\n" + subnets("{name: a, count: 3}"),
         f"f:3:22: subnets[0].count: found 3; at most 2, {NARROW}63, has room for 2 of /64"),
        ("accept: {within: [fd00::/72]}",
         "f:1:1: subnets[0].length: found 64; at least 72, the shortest length of accept.within"),
        ("accept: []", f"f:1:9: accept: found an empty list; a mapping with the keys {ACCEPT_KEYS}"),
        ("accept: false", f"f:1:9: accept: found false; a mapping with the keys {ACCEPT_KEYS}"),
        ("accept: {uplinks: []}", "f:1:19: accept.uplinks: found an empty list; a list of at least one"),
        ("accept: {uplinks: eth0}", "f:1:19: accept.uplinks: found eth0; a list"),
        ("accept: {uplinks: ['']}",
         "f:1:20: accept.uplinks[0]: found ''; a glob of interface names, such as eth* or *"),
        ("accept: {within: [192.0.2.0/24]}",
         "f:1:19: accept.within[0]: found 192.0.2.0/24; delegated prefixes are IPv6, such as 2001:db8::/32"),
        ("accept: {within: [fc00::1/7]}",
         "f:1:19: accept.within[0]: 'fc00::1/7' has host bits set; its network is fc00::/7"),
        ("accept: {within: [[1, 2]]}",
         "f:1:19: accept.within[0]: found a list; an IP prefix, such as 2001:db8::/48"),
        ("accept: {protocols: [150]}", f"f:1:22: accept.protocols[0]: found 150; {PROTOCOL}"),
        ("accept: {protocols: [dhpc]}", f"f:1:22: accept.protocols[0]: found dhpc; {PROTOCOL}"),
        ("accept: {protocols: [256]}", f"f:1:22: accept.protocols[0]: found 256; {PROTOCOL}"),
        ("accept: {protocols: ['16']}", f"f:1:22: accept.protocols[0]: found '16'; {PROTOCOL}"),
        ("accept: {protocols: [[dhcp]]}", f"f:1:22: accept.protocols[0]: found a list; {PROTOCOL}"),
        ("unassigned: no", "f:1:13: unassigned: found no; unreachable, blackhole, prohibit or none"),
        ("static: 192.0.2.0/24", "f:1:9: static: found 192.0.2.0/24; a list"),
        ("static: [7]", f"f:1:10: static[0]: found 7; a mapping with the keys {STATIC_KEYS}"),
        ("subnets: [{name: a, bind: false, neighbours: [eth0]}]", f"f:1:46: subnets[0].neighbours: {MOVES}"),
        ("static: [{prefix: '2001:db8::/64', bind: false}]", f"f:1:42: static[0].bind: {UNANSWERED}"),
        ("static: [{prefix: 192.0.2.0/24, bind: false}]", f"f:1:39: static[0].bind: {UNANSWERED}"),
        ("static: [{prefix: 192.0.2.0/24, neighbours: [eth0], bind: false}]",
         f"f:1:45: static[0].neighbours: {NO_SOLICITATIONS}"),
        ("static: [{prefix: '2001:db8::/64', neighbours: [eth0], bind: 0}]",
         "f:1:62: static[0].bind: found 0; true or false"),
        ("static: [{name: a}]", "f:1:10: static[0].prefix: found nothing; this key is required"),
        (
            "static: [127.1.0.0/16]",
            "f:1:10: static[0].prefix: found 127.1.0.0/16, which is loopback; one routed to this host",
        ),
        (
            "static: ['fe80::/9']",
            "f:1:10: static[0].prefix: found fe80::/9, which is link-local; one routed to this host",
        ),
        (
            "static: ['ff05::/16']",
            "f:1:10: static[0].prefix: found ff05::/16, which is multicast; one routed to this host",
        ),
        ("static: ['::/0']", "f:1:10: static[0].prefix: found ::/0; a prefix length from 8"),
        ("static: [0.0.0.0/0]", "f:1:10: static[0].prefix: found 0.0.0.0/0; a prefix length from 8"),
        ("static: [{prefix: 2000::/7}]", "f:1:19: static[0].prefix: found 2000::/7; a prefix length from 8"),
        ("static: [9.0.0.0/8, 9.0.0.0/9]",
         "f:1:21: static[1].prefix: found 9.0.0.0/9, which overlaps 9.0.0.0/8 of static[0]; one of the two"),
        ("static: [{prefix: 192.0.2.0/24, name: default}]",
         f"f:1:39: static[0].name: found default, the name of subnets[0]; {FREE}"),
        ("subnets: [{name: a, count: 2}]\nstatic: [{prefix: 192.0.2.0/24, name: a-0}]",
         f"f:2:39: static[0].name: found a-0, which subnets[0] makes by count; {FREE}"),
        ("source_routes: no", "f:1:16: source_routes: found no; auto, always or never"),
        (subnets("{name: a, except: ['::5', 2001:db8::1]}"),
         "f:2:31: subnets[0].except[1]: found 2001:db8::1/128; the bits below the subnet"),
        (subnets("{name: a, except: [192.0.2.1]}"),
         "f:2:24: subnets[0].except[0]: found 192.0.2.1/32; the bits below the subnet, such as ::5/128"),
        (subnets("{name: a, except: ['::/64']}"),
         "f:2:24: subnets[0].except[0]: found ::/64; a prefix longer than /64"),
        (subnets("{name: a, except: ['::/80', '::7/128']}"),
         "f:2:33: subnets[0].except[1]: found ::7/128, which overlaps ::/80; one of the two"),
        (subnets("{name: a, except: ['::/65', '::8000:0:0:0/65']}"),
         "f:2:23: subnets[0].except: found holes that leave nothing; a part of the subnet at most"),
        (subnets(f"{{name: a, except: {[f'::{i:x}' for i in range(257)]}}}"),
         "f:2:23: subnets[0].except: found 257 holes; at most 256"),
        (subnets("{name: a, count: all, except: ['::7']}"),
         "f:2:35: subnets[0].except: found holes beside `count: all`; a count of 256 at most"),
        (subnets("{name: a, count: 257, except: ['::7']}"),
         "f:2:35: subnets[0].except: found holes beside `count: 257`; a count of 256 at most"),
        (subnets("{name: a, bind: false, except: ['::7']}"),
         f"f:2:36: subnets[0].except: {HOLES_OF_NOBODY}"),
        (subnets("{name: a, address: '::7', except: ['::/124']}"),
         "f:2:24: subnets[0].address: found ::7, which is in the hole ::/124; one outside of `except`"),
        (subnets("{name: a, except: '::7'}"), "f:2:23: subnets[0].except: found '::7'; a list"),
        ("static: [{prefix: 192.0.2.0/24, except: [192.0.2.7, 192.0.3.1]}]",
         "f:1:53: static[0].except[1]: found 192.0.3.1/32; a part of 192.0.2.0/24"),
        ("static: [{prefix: 192.0.2.0/24, except: ['::7']}]",
         "f:1:42: static[0].except[0]: found ::7/128; a part of 192.0.2.0/24"),
        ("listen: eth0", "f:1:9: listen: found eth0; a list"),
        ("listen: [eth0, eth*]", f"f:1:16: listen[1]: found eth*; {INTERFACE}"),
    ],
)  # fmt: skip
def test_mistake(text: str, line: str) -> None:
    assert lines(text) == [line]


def test_all_mistakes_at_once() -> None:
    """Of keys, of a value, of YAML, and those between entries that are right by themselves, by place."""
    text = """\
subnets:
  - name: proxies
    cuont: 4
  - name: web
    id: 0
    id: 7
  - name: web
    id: 0x0
  - name: lab
    length: 130
"""
    with pytest.raises(PolicyError) as error:
        parse(text, "/etc/anyipd.yaml")
    assert str(error.value) == (
        "/etc/anyipd.yaml:3:5: subnets[0].cuont: unknown key; did you mean count?\n"
        "/etc/anyipd.yaml:6:5: subnets[1].id: found again, after line 5, column 5; a key once\n"
        "/etc/anyipd.yaml:7:11: subnets[2].name: found web, the name of subnets[1]; one that is not taken\n"
        "/etc/anyipd.yaml:8:9: subnets[2].id: found 0, which overlaps subnets[1]; an ID clear of it\n"
        "/etc/anyipd.yaml:10:13: subnets[3].length: found 130; a subnet length from 1 to 128"
    )


def test_overlap_with_one_that_reaches_over_another() -> None:
    assert lines(subnets("{name: a, id: 0, count: 9}", "{name: b, id: 2}", "{name: c, id: 8}")) == [
        "f:3:19: subnets[1].id: found 2, which overlaps subnets[0]; an ID clear of it",
        "f:4:19: subnets[2].id: found 8, which overlaps subnets[0]; an ID clear of it",
    ]


def test_equal_length_is_id_0_alone() -> None:
    assert parse("accept: {within: ['fd00::/64']}\nsubnets: [{name: a, id: 0}]", "f").subnets[0].id == 0
    assert lines("accept: {within: ['fd00::/64']}\nsubnets: [{name: a, id: 1}]") == [
        f"f:2:25: subnets[0].id: found 1; at most 0, {NARROW}64, has room for 1 of /64"
    ]
