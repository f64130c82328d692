"""`anyipctl check`: read a policy, say everything that is wrong with it."""

from __future__ import annotations

import argparse

from anyipd import arguments, policy
from anyipd.ctl import routed_on


def run(options: argparse.Namespace) -> None:
    """Print that the file is good, or end with EX_CONFIG and all its mistakes."""
    file = options.file or options.config
    if options.file and not file.exists():
        arguments.fail(arguments.CONFIGURATION, f"{file}: there is no such file")
    try:
        found = policy.read(file)
    except policy.PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
    names = ", ".join(subnet.name for subnet in found.subnets) or "none"
    about = "" if file.exists() else ", which does not exist: the default policy"
    static = ", ".join(each.name or str(each.prefix) for each in found.static)
    print(f"{file}{about}: good; subnets: {names}" + (f"; static: {static}" if static else ""))
    if found.links:
        print(policy.TURN_NEIGHBOURS_ON)
    for remark in routed_on.lacking(found):
        print(remark)
