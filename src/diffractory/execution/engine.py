"""Where work runs: in this process, on its threads, on local Dask workers, or on a scheduler that is up.

Dask and joblib are imported where they are used: threads do without, and they take a second.

An engine receives a callable and its arguments and knows nothing of what they mean. Results that
matter go to disk inside the callable; only small receipts come back.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from concurrent.futures import Future as ThreadFuture
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from diffractory.errors import DiffractoryError, ExecutionError
from diffractory.interrupts import out_of_reach_of_ctrl_c

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")

#: Tasks in flight for each worker: one runs, one waits, and a dead worker costs no more than these.
_WINDOW_PER_WORKER = 2
#: Seconds to wait for a scheduler or its first worker.
_PATIENCE = 60
#: Seconds between looks at whether the scheduler is still there.
_HEARTBEAT = 1.0

#: Results are small receipts, so there is nothing to spill; and a worker that pauses because a task left
#: it little memory would never go on. One that takes too much is ended by its nanny, and started again.
#: A hundred looks a second at what a worker is doing would cost it time, and tell little about kernels.
#: Dask has the C library give back memory as soon as it is free: each solve would then ask for its matrix
#: anew, page by page.
WORKER_SETTINGS: dict[str, Any] = {
    "distributed.nanny.pre-spawn-environ": {
        "MALLOC_TRIM_THRESHOLD_": None,
        "OMP_NUM_THREADS": 1,
        "MKL_NUM_THREADS": 1,
        "OPENBLAS_NUM_THREADS": 1,
    },
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """What became of one unit of work: a result, or the error that ended it.

    Parameters
    ----------
    item
        Argument of the callable.
    result
        What it returned; None where it failed.
    error : Exception or None
    """

    item: T
    result: R | None
    error: Exception | None = None


class Engine(Protocol):
    """Runs a callable over many arguments."""

    @property
    def description(self) -> str:
        """Where work runs, for people; with the dashboard's address if there is one."""

    @property
    def workers(self) -> int:
        """How many units of work run at once."""

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """Yield the outcome of each item as it finishes; one failure does not stop the rest."""

    def joblib(self) -> AbstractContextManager[Any]:
        """Return a context in which joblib (and so scikit-learn) runs on this engine."""


def _one_blas_thread() -> AbstractContextManager[Any]:
    """Let BLAS use one thread, as on workers of a cluster: sums of several threads end in other bits."""
    from threadpoolctl import threadpool_limits

    context: AbstractContextManager[Any] = threadpool_limits(limits=1, user_api="blas")
    return context


class InlineEngine:
    """Runs everything in this process, one after the other: for debugging."""

    description = "this process"
    workers = 1

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """Yield the outcome of each item, in order."""
        with _one_blas_thread():
            for item in items:
                try:
                    yield Outcome(item, function(item))
                except DiffractoryError as error:
                    yield Outcome(item, None, error)

    def joblib(self) -> AbstractContextManager[Any]:
        """Return a context that leaves joblib sequential."""
        from joblib import parallel_config

        context: AbstractContextManager[Any] = parallel_config(backend="sequential")
        return context


class ThreadEngine:
    """Runs work on threads of this process: nothing to start, nothing to send, one copy of everything.

    For compiled work that lets go of the interpreter's lock; other work it does not speed up.

    Parameters
    ----------
    workers : int
        Number of threads.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    @property
    def description(self) -> str:
        """Number of threads."""
        return f"{self.workers} thread(s) of this process"

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """Yield the outcome of each item as it finishes."""
        waiting = iter(items)
        with _one_blas_thread(), ThreadPoolExecutor(self.workers) as pool:
            running: dict[ThreadFuture[R], T] = {}
            try:
                while True:
                    for item in islice(waiting, _WINDOW_PER_WORKER * self.workers - len(running)):
                        running[pool.submit(function, item)] = item
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        item = running.pop(future)
                        try:
                            yield Outcome(item, future.result())
                        except DiffractoryError as error:
                            yield Outcome(item, None, error)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def joblib(self) -> AbstractContextManager[Any]:
        """Return a context in which joblib uses threads too."""
        from joblib import parallel_config

        context: AbstractContextManager[Any] = parallel_config(backend="threading", n_jobs=self.workers)
        return context


class DaskEngine:
    """Runs work on the workers of a Dask client, a bounded number of tasks at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def description(self) -> str:
        """Number of workers and the dashboard's address."""
        return f"{self.workers} Dask worker(s), dashboard {self._client.dashboard_link}"

    @property
    def workers(self) -> int:
        """Threads of all workers."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """Yield outcomes as tasks finish; futures are released at once, so memory stays flat."""
        waiting = iter(items)
        owners: dict[str, T] = {}
        finished: SimpleQueue[Future[R]] = SimpleQueue()
        # Submitting all at once would hold a future for each of thousands of partitions.
        window, looked = _WINDOW_PER_WORKER * self.workers, time.monotonic()
        for item in islice(waiting, window):
            self._submit(function, item, owners, finished)
        while owners and (future := self._next(finished)) is not None:
            self._check()
            if future.status in ("lost", "pending"):
                # Its worker went away before the result was fetched: it is being computed again.
                future.add_done_callback(finished.put)
                continue
            outcome: Outcome[T, R]
            if future.status == "finished":
                try:
                    outcome = Outcome(owners[future.key], future.result(timeout=_PATIENCE))
                except OSError:
                    # No answer in time, or the connection broke: the client tries to mend that, or closes.
                    if self._client.status == "closed":
                        break
                    time.sleep(_HEARTBEAT)
                    finished.put(future)
                    continue
            else:
                outcome = Outcome(owners[future.key], None, _as_error(future.exception()))
            del owners[future.key]
            future.release()
            if time.monotonic() > looked + _HEARTBEAT:
                # Workers come and go on a scheduler that others started.
                # No scheduler: that is noticed above. A client that just closed has no attribute to ask.
                with contextlib.suppress(OSError, RuntimeError, AttributeError):
                    window = _WINDOW_PER_WORKER * self.workers
                looked = time.monotonic()
            for following in islice(waiting, max(window - len(owners), 0)):
                self._submit(function, following, owners, finished)
            yield outcome
        # Nothing is left here, unless the client lost its scheduler for good.
        for item in (*owners.values(), *waiting):
            yield Outcome(item, None, _as_error(None))

    def _submit(
        self, function: Callable[[T], R], item: T, owners: dict[str, T], finished: SimpleQueue[Future[R]]
    ) -> None:
        from dask.utils import funcname

        key = f"{funcname(function)}-{uuid.uuid4().hex}"
        owners[key] = item
        try:
            self._client.submit(function, item, key=key, pure=False).add_done_callback(finished.put)
        except Exception:
            # What cannot be sent any more stays with its owner, to be reported as lost.
            if self._client.status not in ("closing", "closed"):
                raise

    def _next(self, finished: SimpleQueue[Future[R]]) -> Future[R] | None:
        """Wait for the next future that is done; None if the client is closed and none will be."""
        while True:
            try:
                return finished.get(timeout=_HEARTBEAT)
            except Empty:
                self._check()
                if self._client.status == "closed":
                    return None

    def _check(self) -> None:
        """Raise if what keeps the workers up has given up; nothing does here."""

    def joblib(self) -> AbstractContextManager[Any]:
        """Return a context in which joblib sends its tasks to the workers."""
        from joblib import parallel_config

        # joblib waits 10 s for workers by default, too short for a busy cluster.
        context: AbstractContextManager[Any] = parallel_config(
            backend="dask", client=self._client, wait_for_workers_timeout=_PATIENCE
        )
        return context


def _as_error(error: BaseException | None) -> Exception:
    if isinstance(error, Exception):
        return error
    return ExecutionError(
        "a task was lost before it gave an answer" + (f" ({error!r})" if error else ""),
        "its scheduler or its worker went away",
        "Run the same command again: what was finished is kept",
    )


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does, so that what was opened is closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        # Once: whoever asks again must not break off the cancelling of jobs.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def open_engine(cluster: str, workers: int, worker_memory: int) -> Iterator[Engine]:
    """Start or join the place where work runs, and close it afterwards; SIGTERM ends the work as Ctrl-C does.

    Parameters
    ----------
    cluster : str
        ``inline``, ``threads``, ``local``, or the address of a running scheduler (``tcp://host:port``).
    workers : int
        Threads, or worker processes of a local cluster, one thread each.
    worker_memory : int
        Bytes each of them may use.

    Raises
    ------
    ExecutionError
        If the name is unknown or the scheduler does not answer.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminable())
        if cluster == "inline":
            yield InlineEngine()
            return
        if cluster == "threads":
            yield ThreadEngine(workers)
            return
        if cluster == "local":
            client = stack.enter_context(_local_client(workers, worker_memory))
        elif "://" in cluster:
            client = stack.enter_context(_remote_client(cluster))
        else:
            raise ExecutionError(
                f"unknown cluster {cluster!r}",
                fix="Use inline, threads, local, or a scheduler's address tcp://host:port",
            )
        yield DaskEngine(client)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's own words about lost connections off the terminal: what matters is said by errors."""
    log = logging.getLogger("distributed")
    children = [logging.getLogger(f"distributed.{name}") for name in ("client", "comm", "core", "utils")]
    levels = [(logger, logger.level) for logger in (log, *children)]
    for logger, _ in levels:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)


@contextmanager
def _local_client(workers: int, worker_memory: int) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security

    settings = {
        "distributed.scheduler.allowed-failures": 10,
        # Kernels hold the interpreter lock for seconds: a silent worker is not a dead one.
        "distributed.comm.timeouts.tcp": "120s",
        "distributed.worker.daemon": True,
        **WORKER_SETTINGS,
    }
    with dask.config.set(settings):
        with out_of_reach_of_ctrl_c():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=worker_memory,
                host="127.0.0.1",
                # Any free port: two runs on one machine must not quarrel about 8787.
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
                # Other users of this machine can open connections too: only who has the key is heard.
                security=Security.temporary(),
            )
        with cluster, Client(cluster) as client:
            yield client


@contextmanager
def _remote_client(address: str) -> Iterator[Client]:
    from distributed import Client

    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        try:
            client = stack.enter_context(Client(address, timeout=_PATIENCE))
            client.wait_for_workers(1, timeout=_PATIENCE)
        except (OSError, ValueError, TypeError, TimeoutError) as error:
            raise ExecutionError(
                f"no Dask scheduler with a worker answers at {address} ({type(error).__name__})",
                fix="Start it, or use --cluster local. The keys of a scheduler at tls:// stand in Dask's "
                "configuration (distributed.comm.tls)",
            ) from None
        yield client
