"""What a claimed task gets for a timeout when it brings none."""

from __future__ import annotations

import json
import time

from queues.claimed import ClaimedTask
from queues.database import query


class DefaultTimeouts:
    """The queues' default timeouts in seconds as JSON text, asked for again after `keep` seconds.

    Joining the queues to every claim would cost a lone task a tenth of its way to a worker.
    """

    def __init__(self, keep: float = 0.0) -> None:
        self._keep = keep
        self._text = ""
        self._asked = float("-inf")

    def text(self, *, anew: bool = False) -> str:
        if anew or time.monotonic() > self._asked + self._keep:
            [(self._text,)] = query(
                "SELECT coalesce(jsonb_object_agg(name, date_part('epoch', default_timeout)), '{}')"
                "::text FROM queues",
                [],
            )
            self._asked = time.monotonic()
        return self._text

    def complete(self, task: ClaimedTask) -> ClaimedTask:
        """The task with the timeout of its queue, which is newer than what was known."""
        return task._replace(timeout_seconds=json.loads(self.text(anew=True))[task.queue])
