"""The programs' entry points: they settle what signals do, and only then import the program.

Importing takes a fifth of a second. Until then Python answers SIGINT with a traceback, and SIGTERM and SIGHUP
kill. Imports nothing else of ours by itself.
"""

from __future__ import annotations

import signal

from anyipd.signals import take_signals


def anyipd() -> None:
    """Run `anyipd`."""
    take_signals()
    from anyipd.__main__ import main  # noqa: PLC0415  see above

    main()


def anyipctl() -> None:
    """Run `anyipctl`. An interrupt ends it as it ends any program."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from anyipd.ctl.__main__ import main  # noqa: PLC0415  see above

    main()


def anyipd_neighbour() -> None:
    """Run `anyipd-neighbour`."""
    take_signals()
    from anyipd.neighbour.__main__ import main  # noqa: PLC0415  see above

    main()
