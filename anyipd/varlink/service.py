"""What is answered to a call: the methods of io.anyipd and org.varlink.service. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Protocol

from anyipd.model import Prefix
from anyipd.varlink.message import INTERFACE, MAX_NAME, Call, Json, VarlinkError, encode_reply

URL = "man:io.anyipd(7)"

_VARLINK = "org.varlink.service"
_INTERFACES = (_VARLINK, INTERFACE)


class Asked(Protocol):
    """What the daemon does where somebody calls for it."""

    def forget(self, prefix: Prefix) -> bool:
        """End a delegation until it is granted again; say whether there was one."""

    def reload(self) -> Sequence[str]:
        """Have the configuration read again; return its errors, none where it will be in force."""


class Current(Enum):
    """An answer that is the daemon's View."""

    ONCE = 1
    AND_EACH_NEW = 2


class Service:
    """Answers calls for the daemon of a network namespace, named by its inode; `version` is anyipd's."""

    def __init__(self, asked: Asked, network_namespace: int, version: str) -> None:
        self._asked, self._network_namespace, self._version = asked, network_namespace, version
        self._methods: dict[str, Callable[[Call], bytes | Current]] = {
            f"{_VARLINK}.GetInfo": self._get_info,
            f"{_VARLINK}.GetInterfaceDescription": _get_interface_description,
            f"{INTERFACE}.Describe": _describe,
            f"{INTERFACE}.Monitor": _monitor,
        }
        self._privileged: dict[str, Callable[[Call], bytes | Current]] = {
            f"{INTERFACE}.Forget": self._forget,
            f"{INTERFACE}.Reload": self._reload,
        }

    def answer(self, call: Call, *, privileged: bool) -> bytes | Current:
        """Return the reply to a call; raises VarlinkError where that is an error."""
        if call.interface not in _INTERFACES:
            raise VarlinkError(f"{_VARLINK}.InterfaceNotFound", interface=call.interface)
        method = self._methods.get(call.method) or self._privileged.get(call.method)
        if not method:
            raise VarlinkError(f"{_VARLINK}.MethodNotFound", method=call.method)
        if call.upgrade:
            raise VarlinkError(f"{_VARLINK}.MethodNotImplemented", method=call.method)
        if call.method in self._privileged and not privileged:
            raise VarlinkError(f"{_VARLINK}.PermissionDenied")
        return method(call)

    def _get_info(self, call: Call) -> bytes:
        _check(call.parameters, {})
        return encode_reply(
            {
                "vendor": "anyipd",
                "product": "anyipd",
                "version": self._version,
                "url": URL,
                "interfaces": _INTERFACES,
            }
        )

    def _forget(self, call: Call) -> bytes:
        _check(call.parameters, {"prefix": str}, {"network_namespace": int})
        self._check_network_namespace(call)
        text = call.parameters["prefix"]
        try:
            prefix = Prefix.parse(text)
        except ValueError:
            raise _invalid("prefix") from None
        if not self._asked.forget(prefix):
            raise VarlinkError(f"{INTERFACE}.NotDelegated", prefix=str(prefix))
        return encode_reply({})

    def _reload(self, call: Call) -> bytes:
        _check(call.parameters, {}, {"network_namespace": int})
        self._check_network_namespace(call)
        errors = self._asked.reload()
        if errors:
            raise VarlinkError(f"{INTERFACE}.BadConfiguration", errors=list(errors))
        return encode_reply({})

    def _check_network_namespace(self, call: Call) -> None:
        wanted = call.parameters.get("network_namespace")
        if wanted not in {None, self._network_namespace}:
            raise VarlinkError(
                f"{INTERFACE}.OtherNetworkNamespace", network_namespace=self._network_namespace
            )


@cache
def description(interface: str) -> str:
    """Return the definition of one of the interfaces."""
    return Path(__file__).with_name(f"{interface}.varlink").read_text()


def _get_interface_description(call: Call) -> bytes:
    _check(call.parameters, {"interface": str})
    interface = call.parameters["interface"]
    if interface not in _INTERFACES:
        raise VarlinkError(f"{_VARLINK}.InterfaceNotFound", interface=interface[:MAX_NAME])
    return encode_reply({"description": description(interface)})


def _describe(call: Call) -> Current:
    _check(call.parameters, {})
    return Current.ONCE


def _monitor(call: Call) -> Current:
    _check(call.parameters, {})
    if not call.more:
        raise VarlinkError(f"{_VARLINK}.ExpectedMore")
    return Current.AND_EACH_NEW


def _check(parameters: Json, needed: dict[str, type], optional: dict[str, type] | None = None) -> None:
    """Raise VarlinkError where parameters are missing, of another type, or none of the method's."""
    for name, kind in needed.items():
        if type(parameters.get(name)) is not kind:
            raise _invalid(name)
    known = {**needed, **(optional or {})}
    for name, value in parameters.items():
        if name not in known or (value is not None and type(value) is not known[name]):
            raise _invalid(name)


def _invalid(parameter: str) -> VarlinkError:
    return VarlinkError(f"{_VARLINK}.InvalidParameter", parameter=parameter[:MAX_NAME])
