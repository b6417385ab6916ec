"""joblib's dask backend, which sees when a task is lost.

joblib's own waits for ever for a task that dask gives up (KilledWorker, a cancelled one), lets a
task run on every worker there is, and runs tasks in the calling process where the cluster has one
thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from distributed import Client, Future
from joblib._dask import DaskDistributedBackend

DRAWN_AT_ONCE = 2  # tasks that joblib takes from the list at a time; with 1 it asks no backend


class DaskBackend(DaskDistributedBackend):
    """Takes functions of (name, number, ...); gives (number, result), or None for a lost one's.

    workers: says on which addresses a task may run, asked anew for each.
    """

    def __init__(self, client: Client, workers: Callable[[], list[str]]) -> None:
        super().__init__(client=client)
        self.workers = workers
        self.under_way: dict[Future, tuple[int, frozenset[str], Callable[[Any], None]]] = {}

    def effective_n_jobs(self, n_jobs: int) -> int:
        return DRAWN_AT_ONCE

    def compute_batch_size(self) -> int:
        return 1

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Future:
        assert callback is not None
        ((function, arguments, _),) = func.items
        workers = self.workers()
        future = self.client.submit(function, *arguments, workers=workers, pure=False)
        self.under_way[future] = (arguments[1], frozenset(workers), callback)
        self.waiting_futures.add(future)
        return future

    async def _collect(self) -> None:
        while self._continue:
            async for future, result in self.waiting_futures:
                number, _, callback = self.under_way.pop(future)
                callback([(number, result if future.status == "finished" else None)])
            await asyncio.sleep(0.01)

    def retrieve_result_callback(self, out: list[Any]) -> list[Any]:
        return out

    def give_up_lost(self, alive: set[str]) -> None:
        """Take back the tasks that wait for workers of which none is left."""
        lost = [f for f, (_, workers, _) in list(self.under_way.items()) if not workers & alive]
        if lost:
            self.client.cancel(lost, force=True)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        super().abort_everything(ensure_ready)
        if self.under_way and self.client.status == "running":
            self.client.cancel(list(self.under_way), asynchronous=True, force=True)
        self.under_way.clear()
