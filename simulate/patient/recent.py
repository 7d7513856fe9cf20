"""A small memory of what was drawn last, safe to use from several threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")

_LOCK = Lock()  # one for all, so that what holds a memory can still be copied to another process


class Recent(Generic[Value]):
    """Keeps the last ``room`` values that were asked for."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def get_or(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of ``key``, made now if it is not remembered; two threads may both make it."""
        with _LOCK:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with _LOCK:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._room:
                self._values.popitem(last=False)
        return value
