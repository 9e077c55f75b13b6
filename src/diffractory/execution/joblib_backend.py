"""joblib on workers that come and go: its own Dask backend counts those that are up, and waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from distributed import Client
from joblib._dask import DaskDistributedBackend

from diffractory.errors import ExecutionError

#: Seconds between questions whether the workers are still looked after.
_HEARTBEAT = 1.0


class WatchedBackend(DaskDistributedBackend):
    """Sends tasks to workers that were asked for; ends with an error when nobody looks after them any more.

    Parameters
    ----------
    client : distributed.Client
    workers : int
        Workers that were asked for. Those that are up now say little: jobs start one by one.
    check : callable
        Raises ExecutionError once the workers are given up.
    """

    def __init__(self, client: Client, workers: int, check: Callable[[], None]) -> None:
        super().__init__(client=client)
        self._workers = workers
        self._check = check

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return the number of workers asked for; tasks wait in the scheduler for those not up yet."""
        # The work of one worker joblib would do in this process.
        return max(self._workers, 2)

    def start_call(self) -> None:
        """Look after the workers for as long as a call of joblib lasts."""
        super().start_call()
        self.client.loop.add_callback(self._watch)

    async def _watch(self) -> None:
        while self._continue:
            try:
                self._check()
            except ExecutionError as error:
                # joblib takes it for the answer of each task that it waits for.
                for callback in list(self._callbacks.values()):
                    callback(error)
                return
            await asyncio.sleep(_HEARTBEAT)

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the result of a task, or raise what ended it."""
        if isinstance(out, ExecutionError):
            raise out
        return super().retrieve_result_callback(out)
