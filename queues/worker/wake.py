"""An event that a thread can wait for together with a socket."""

from __future__ import annotations

import os
import select
import threading


class Wake:
    """Like threading.Event, but wait() also ends when one of `files` can be read."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self._lock = threading.Lock()
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        if self._set:
            return
        with self._lock:
            if not self._set:
                self._set = True
                os.write(self._write, b"x")

    def clear(self) -> None:
        with self._lock:
            if self._set:
                os.read(self._read, 1)
                self._set = False

    def wait(self, seconds: float, *files: int) -> list[int]:
        """Wait until set, until one of `files` can be read, or for so long; those that can be."""
        poll = select.poll()
        for file in (self._read, *files):
            poll.register(file, select.POLLIN)
        return [file for file, _ in poll.poll(seconds * 1000) if file != self._read]
