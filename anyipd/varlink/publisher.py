"""Publishes the daemon's View to whoever asks, and takes a tenth of the processor at most for all of them.

Its connections are an epoll set of their own, beside the socket that listens. So the event loop sees two
descriptors, and each of its turns does a slice of the work. The kernel goes round among the ready ones.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections import Counter
from collections.abc import Callable, Mapping
from operator import attrgetter

import structlog

from anyipd.varlink import peer
from anyipd.varlink.connection import Connection
from anyipd.varlink.listening import Listening
from anyipd.varlink.message import MAX_CALL, ProtocolError, VarlinkError, encode_error, parse_call
from anyipd.varlink.publication import Publication
from anyipd.varlink.service import Current, Service

MAX_CONNECTIONS, MAX_OF_A_USER = 64, 16
"""At once, of all users but root. What is over that is closed unanswered."""

MAX_OF_ROOT = 256
"""Root's are counted apart: nobody keeps the others out, and the daemon has descriptors left."""

MAX_BEGUN = 4
"""Views that are kept because somebody has read a part: who stays behind that many is closed."""

SLICE_OF_NEWCOMERS, SLICE = 0.0002, 0.0001
"""Seconds of processor time of a turn of the loop: for newcomers, and then for those who are connected.

A single message may take longer. Apart, lest a newcomer wait for a crowd, or all others for one of newcomers.
"""

REST = 9
"""How long the loop is for others afterwards, as a multiple."""

UNTIL_DESCRIPTORS = 1.0
"""Seconds until connections are accepted again, after one could not be."""

MAX_COMPLAINTS = 64
"""Users of whom the log says, once, that they send what nobody may."""

_log = structlog.get_logger()


class Publisher:
    """Who is connected, and the View for all of them. Nobody is accepted before there is one."""

    def __init__(self, listening: Listening, service: Service) -> None:
        self._listening, self._service = listening, service
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._of_user: Counter[int] = Counter()
        self._newest: Publication | None = None
        self._room = memoryview(bytearray(MAX_CALL + 1))
        self._complained: set[int] = set()
        self._rest: asyncio.TimerHandle | None = None
        self._until_descriptors: asyncio.TimerHandle | None = None

    def publish(self, view: Callable[[], Mapping[str, object]]) -> None:
        """Send a View, from the next turn of the loop on, to whoever wants it; `view` gives it as JSON."""
        is_first = self._newest is None
        self._newest = Publication(self._newest.number + 1 if self._newest else 0, view)
        for connection in self._connections.values():
            if connection.monitors:
                connection.lacks_newest = True
                self._wait_for(connection)
        if is_first:
            self._go_on()

    def close(self) -> None:
        """End it, and all connections."""
        self._pause()
        for timer in filter(None, (self._rest, self._until_descriptors)):
            timer.cancel()
        for connection in list(self._connections.values()):
            self._close(connection)
        self._epoll.close()
        self._listening.close()

    def _go_on(self) -> None:
        self._rest = None
        loop = asyncio.get_running_loop()
        loop.add_reader(self._epoll, self._on_ready)
        if not self._until_descriptors:
            loop.add_reader(self._listening.socket, self._on_ready)

    def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._epoll)
        loop.remove_reader(self._listening.socket)

    def _on_ready(self) -> None:
        begun = now = time.thread_time()
        while not self._until_descriptors and now - begun < SLICE_OF_NEWCOMERS and self._accept():
            now = time.thread_time()
        half = now
        while now - half < SLICE and (ready := self._epoll.poll(0, 1)):
            self._turn_to(*ready[0])
            now = time.thread_time()
        self._pause()
        self._rest = asyncio.get_running_loop().call_later(REST * (now - begun), self._go_on)

    def _turn_to(self, descriptor: int, events: int) -> None:
        connection = self._connections[descriptor]
        try:
            # Its end shows, too, whatever is waited for; what was called for before is done all the same.
            if events & ~select.EPOLLOUT and not connection.messages.has_whole:
                connection.receive(self._room)
            self._take_a_step(connection)
        except ProtocolError as error:
            self._complain(connection.user, str(error))
            self._close(connection)
        except (OSError, EOFError):
            self._close(connection)
        else:
            self._wait_for(connection)

    def _take_a_step(self, connection: Connection) -> None:
        """Send the rest, or the newest View, or the answer to one message."""
        if connection.is_sending:
            connection.send_rest()
        elif connection.monitors:
            if connection.lacks_newest:
                connection.lacks_newest = False
                newest = self._current()
                connection.send(newest.one_of_many, newest)
        elif (message := connection.messages.take()) is not None:
            self._answer(connection, message)

    def _answer(self, connection: Connection, message: bytes) -> None:
        call = parse_call(message)
        try:
            answer = self._service.answer(call, privileged=peer.may_command(connection.user))
        except VarlinkError as error:
            answer = encode_error(error)
        if call.oneway:
            return
        if answer is Current.ONCE:
            newest = self._current()
            connection.send(newest.once, newest)
        elif answer is Current.AND_EACH_NEW:
            if connection.messages.holds_any:
                raise ProtocolError("a call after Monitor")
            connection.monitors = connection.lacks_newest = True
        else:
            connection.send(answer)

    def _current(self) -> Publication:
        """Return the newest View; where it is made now, one that was made long ago may have to go."""
        assert self._newest
        if not self._newest.is_made:
            begun = {each.sending for each in self._connections.values() if each.sending}
            if len(begun) >= MAX_BEGUN:
                oldest = min(begun, key=attrgetter("number"))
                for each in [each for each in self._connections.values() if each.sending is oldest]:
                    self._close(each)
        return self._newest

    def _wait_for(self, connection: Connection) -> None:
        wanted = connection.to_await
        if wanted != connection.awaited:
            self._epoll.modify(connection, wanted)
            connection.awaited = wanted

    def _accept(self) -> bool:
        """Accept who is next; say whether there was anybody."""
        try:
            connected, _ = self._listening.socket.accept()
        except BlockingIOError:
            return False
        except OSError:
            # No descriptor is left, or no memory. Who connects can stay in line.
            loop = asyncio.get_running_loop()
            self._until_descriptors = loop.call_later(UNTIL_DESCRIPTORS, self._accept_again)
            return False
        user = peer.uid(connected)
        if self._is_full(user):
            connected.close()
            return True
        connection = Connection(connected, user)
        self._connections[connection.fileno()] = connection
        self._of_user[user] += 1
        self._epoll.register(connection, connection.awaited)
        return True

    def _accept_again(self) -> None:
        self._until_descriptors = None
        if not self._rest:
            self._go_on()

    def _is_full(self, user: int) -> bool:
        of_root = self._of_user[peer.ROOT]
        if user == peer.ROOT:
            return of_root >= MAX_OF_ROOT
        others = len(self._connections) - of_root
        return self._of_user[user] >= MAX_OF_A_USER or others >= MAX_CONNECTIONS

    def _close(self, connection: Connection) -> None:
        del self._connections[connection.fileno()]
        self._of_user[connection.user] -= 1
        if not self._of_user[connection.user]:
            del self._of_user[connection.user]
        connection.close()

    def _complain(self, user: int, reason: str) -> None:
        if user not in self._complained and len(self._complained) < MAX_COMPLAINTS:
            self._complained.add(user)
            _log.warning("varlink connection dropped", user=user, reason=reason)
