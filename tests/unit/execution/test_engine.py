import contextlib
import gc
import pickle
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import create_connection, socket
from types import SimpleNamespace
from typing import ClassVar

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from joblib import Parallel, delayed
from sklearn.ensemble import RandomForestClassifier

import diffractory.errors as errors_module
import worker_tasks
from diffractory.errors import DiffractoryError, ExecutionError, RunError
from diffractory.execution import engine as engine_module
from diffractory.execution.engine import DaskEngine, Engine, InlineEngine, open_engine

MEMORY = 2_000_000_000
KINDS = [
    kind
    for kind in vars(errors_module).values()
    if isinstance(kind, type) and issubclass(kind, DiffractoryError)
]


@pytest.fixture
def collected() -> Iterator[None]:
    """Finalise clients that could not connect, before the collector does it in a Dask thread."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def local() -> Iterator[Engine]:
    # Workers import this folder's callables by name.
    tests = str(Path(worker_tasks.__file__).parent)
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ.PYTHONPATH": tests}),
        open_engine("local", 2, MEMORY) as engine,
    ):
        yield engine


@pytest.fixture(params=["inline", "local"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return InlineEngine() if request.param == "inline" else request.getfixturevalue("local")


def test_every_item_has_one_outcome(engine: Engine):
    outcomes = list(engine.run(worker_tasks.square, range(-3, 9)))
    assert sorted(outcome.item for outcome in outcomes) == list(range(-3, 9))
    assert all(outcome.result == outcome.item**2 and outcome.error is None for outcome in outcomes)


def test_equal_items_are_not_merged(engine: Engine):
    assert [o.result for o in engine.run(worker_tasks.square, [5, 5, 5])] == [25, 25, 25]


def test_no_items_give_no_outcomes(engine: Engine):
    assert list(engine.run(worker_tasks.square, [])) == []


def test_one_failure_does_not_stop_the_rest(engine: Engine):
    outcomes = {o.item: o for o in engine.run(worker_tasks.fail_on_three, range(8))}
    assert len(outcomes) == 8
    assert {item for item, o in outcomes.items() if o.error is not None} == {3, 4}
    error = outcomes[3].error
    assert type(error) is RunError
    assert (error.what, error.why, error.fix) == ("three is damaged", "bits flipped", "repair it")
    assert str(error) == "three is damaged. bits flipped. repair it."
    assert type(outcomes[4].error) is ExecutionError
    assert outcomes[3].result is None


def test_a_defect_stops_the_inline_engine_where_it_is(local: Engine):
    with pytest.raises(ZeroDivisionError):
        list(InlineEngine().run(worker_tasks.break_on_two, range(4)))
    outcomes = {o.item: o.error for o in local.run(worker_tasks.break_on_two, range(4))}
    assert type(outcomes.pop(2)) is ZeroDivisionError
    assert set(outcomes.values()) == {None}


@pytest.mark.parametrize(
    "kind",
    [
        value
        for value in vars(errors_module).values()
        if isinstance(value, type) and issubclass(value, DiffractoryError)
    ],
    ids=lambda k: k.__name__,
)
def test_errors_survive_the_trip(kind: type):
    error = pickle.loads(pickle.dumps(kind("what", "why", "fix")))
    assert type(error) is kind
    assert (error.what, error.why, error.fix, str(error)) == ("what", "why", "fix", "what. why. fix.")


def test_inline_runs_in_order_and_no_earlier_than_asked():
    started: list[int] = []

    def note(item: int) -> int:
        started.append(item)
        return item

    outcomes = InlineEngine().run(note, [3, 1, 2])
    assert started == []
    assert next(outcomes).item == 3
    assert started == [3]
    assert [o.item for o in outcomes] == [1, 2]
    assert InlineEngine().workers == 1
    assert InlineEngine().description == "this process"
    with InlineEngine().joblib():
        assert Parallel(n_jobs=2)(delayed(worker_tasks.square)(i) for i in range(3)) == [0, 1, 4]


class CountingClient:
    """A client that counts the futures alive."""

    status = "running"

    def __init__(self, client: Client) -> None:
        self._client, self.most, self.submitted = client, 0, 0
        self.alive: set[str] = set()

    def nthreads(self) -> dict[str, int]:
        return self._client.nthreads()

    def submit(self, *arguments: object, **keywords: object) -> object:
        future = self._client.submit(*arguments, **keywords)
        self.alive.add(future.key)
        self.submitted += 1
        self.most = max(self.most, len(self.alive))
        release = future.release

        def released() -> None:
            self.alive.discard(future.key)
            release()

        future.release = released
        return future


def test_at_most_two_tasks_a_worker_are_in_flight(local: DaskEngine):
    counting = CountingClient(local._client)
    outcomes = list(DaskEngine(counting).run(worker_tasks.square, range(25)))
    assert len(outcomes) == 25
    assert counting.submitted == 25
    assert counting.most == 2 * local.workers == 4
    assert counting.alive == set()


def test_workers_that_come_later_get_work_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_module, "_HEARTBEAT", 0.05)
    settings = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(processes=False, **settings) as cluster, Client(cluster) as client:
        counting = CountingClient(client)
        outcomes = DaskEngine(counting).run(worker_tasks.nap, range(30))
        next(outcomes)
        assert counting.most == 2
        cluster.scale(3)
        client.wait_for_workers(3, timeout=60)
        assert sorted(outcome.item for outcome in outcomes)[-1] == 29
    assert counting.most == 6


def test_work_is_handed_out_as_outcomes_are_taken(local: Engine, tmp_path: Path):
    outcomes = local.run(worker_tasks.log_and_nap, [(str(tmp_path), i) for i in range(12)])
    assert list(tmp_path.iterdir()) == []
    next(outcomes)
    assert len(list(tmp_path.iterdir())) <= 5
    outcomes.close()


def test_the_dashboard_is_on_loopback_and_answers(local: Engine):
    assert local.workers == 2
    assert "2 Dask worker(s)" in local.description
    address = local.description.split()[-1]
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address.replace("/status", "/health"), timeout=20) as answer:
        assert answer.status == 200


def test_the_cluster_listens_on_loopback_only(local: DaskEngine):
    addresses = [local._client.scheduler.address, *local._client.nthreads()]
    assert all(address.startswith("tls://127.0.0.1:") for address in addresses)


def test_the_cluster_hears_nobody_without_its_key(local: DaskEngine):
    address = local._client.scheduler.address
    with pytest.raises(ExecutionError, match=r"no Dask scheduler .* answers.*distributed\.comm\.tls"):
        _open(address)
    port = int(address.rpartition(":")[2])
    # Another user of this machine, who knows Dask's protocol and not the key.
    with create_connection(("127.0.0.1", port), timeout=10) as stranger:
        stranger.sendall(bytes(64))
        stranger.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while answer := stranger.recv(4096):
                # At most what says that no key was offered: the alert of TLS.
                assert answer[:1] == b"\x15"


def test_scikit_learn_trains_on_the_workers(local: DaskEngine):
    rng = np.random.default_rng(0)
    X, y = rng.random((60, 4)), np.arange(60) % 3
    with local.joblib():
        directories = Parallel()(delayed(worker_tasks.process_id)() for _ in range(8))
        there = RandomForestClassifier(6, random_state=1).fit(X, y)
    here = RandomForestClassifier(6, random_state=1).fit(X, y)
    np.testing.assert_array_equal(there.predict_proba(X), here.predict_proba(X))
    pids = set(local._client.run(worker_tasks.process_id).values())
    assert set(directories) <= pids


def test_a_worker_killed_in_the_middle_is_replaced_and_its_task_finished(local: DaskEngine, tmp_path: Path):
    outcomes = list(local.run(worker_tasks.die_once, [(str(tmp_path), i) for i in range(6)]))
    assert (tmp_path / "died-1").exists()
    assert sorted(o.result for o in outcomes) == list(range(6))
    assert all(o.error is None for o in outcomes)
    local._client.wait_for_workers(2, timeout=60)


def test_a_cancelled_task_is_an_error_and_not_a_wait(local: DaskEngine, tmp_path: Path):
    class Cancelling:
        status = "running"
        nthreads = staticmethod(local._client.nthreads)

        @staticmethod
        def submit(*arguments: object, **keywords: object) -> object:
            future = local._client.submit(*arguments, **keywords)
            if arguments[1][1] == 1:
                future.cancel()
            return future

    tasks = [(str(tmp_path), i) for i in range(4)]
    outcomes = {o.item[1]: o for o in DaskEngine(Cancelling()).run(worker_tasks.log_and_nap, tasks)}
    assert set(outcomes) == {0, 1, 2, 3}
    assert isinstance(outcomes[1].error, Exception)
    assert [outcomes[i].result for i in (0, 2, 3)] == [0, 2, 3]


def test_a_running_scheduler_is_joined_and_left_running():
    here = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, **here) as cluster:
        for _ in range(2):
            with open_engine(cluster.scheduler_address, 7, MEMORY) as joined:
                assert joined.workers == 2
                assert sorted(o.result for o in joined.run(worker_tasks.square, range(3))) == [0, 1, 4]


def _open(address: str) -> None:
    with open_engine(address, 1, MEMORY):
        pytest.fail("opened")


def test_threads_run_everything_and_name_what_failed():
    def half(number: int) -> int:
        if number == 3:
            raise RunError("three cannot be halved")
        return number // 2

    with open_engine("threads", 2, 0) as engine:
        assert (engine.workers, engine.description) == (2, "2 thread(s) of this process")
        outcomes = {outcome.item: outcome for outcome in engine.run(half, range(20))}
        with engine.joblib():
            assert Parallel()(delayed(half)(number) for number in (4, 6)) == [2, 3]
    right = {item: outcome.result for item, outcome in outcomes.items() if outcome.error is None}
    assert right == {number: number // 2 for number in range(20) if number != 3}
    assert isinstance(outcomes[3].error, RunError)


def test_what_is_no_error_of_this_package_ends_the_threads():
    done: list[int] = []

    def fail(number: int) -> None:
        done.append(number)
        raise ZeroDivisionError

    with open_engine("threads", 1, 0) as engine, pytest.raises(ZeroDivisionError):
        list(engine.run(fail, range(1000)))
    assert len(done) < 5


@pytest.mark.parametrize("name", ["slrum", "", "LOCAL", "localhost:8786"])
def test_an_unknown_cluster_is_named(name: str):
    with pytest.raises(
        ExecutionError, match=rf"unknown cluster '{name}'.*inline, threads, local, or .*tcp://"
    ):
        _open(name)


@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:{port}", "nonsense://x:1", "tcp://127.0.0.1:port", "tls://127.0.0.1:1"]
)
def test_a_scheduler_that_does_not_answer_is_named(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_module, "_PATIENCE", 1)
    with closing(socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        address = address.format(port=unused.getsockname()[1])
    with pytest.raises(ExecutionError, match=rf"no Dask scheduler .* answers at {address}.*--cluster local"):
        _open(address)


@pytest.mark.usefixtures("collected")
def test_a_scheduler_without_workers_is_named_and_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_module, "_PATIENCE", 1)
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        with pytest.raises(ExecutionError, match="no Dask scheduler with a worker"):
            _open(cluster.scheduler_address)
        assert not [name for name in cluster.scheduler.clients if name.startswith("Client-")]


@pytest.mark.usefixtures("collected")
def test_a_scheduler_that_goes_away_is_an_error_for_everything_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_module, "_PATIENCE", 2)
    tests = str(Path(worker_tasks.__file__).parent)
    with dask.config.set({"distributed.nanny.pre-spawn-environ.PYTHONPATH": tests}):
        cluster = LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        )
    tasks = [(str(tmp_path), i) for i in range(8)]
    with cluster, open_engine(cluster.scheduler_address, 1, MEMORY) as engine:
        running = engine.run(worker_tasks.log_and_nap, tasks)
        first = next(running)
        cluster.close()
        rest = list(running)
    assert sorted([first.item, *(o.item for o in rest)]) == tasks
    lost = [o for o in rest if o.error is not None]
    assert len(lost) >= 5
    assert all("was lost before it gave an answer" in str(o.error) for o in lost)


@pytest.mark.parametrize(("status", "lost"), [("closed", True), ("closing", True), ("running", False)])
def test_what_cannot_be_sent_is_lost_only_if_the_client_is_closed(
    status: str, lost: bool, monkeypatch: pytest.MonkeyPatch
):
    class Refusing:
        @staticmethod
        def nthreads() -> dict[str, int]:
            return {"tcp://x": 1}

        @staticmethod
        def submit(*arguments: object, **keywords: object) -> None:
            Refusing.status = "closed" if lost else status
            raise RuntimeError("cannot be sent")

    monkeypatch.setattr(engine_module, "_HEARTBEAT", 0.01)
    Refusing.status = status
    running = DaskEngine(Refusing()).run(worker_tasks.square, range(5))
    if not lost:
        with pytest.raises(RuntimeError, match="cannot be sent"):
            next(running)
        return
    outcomes = list(running)
    assert [o.item for o in outcomes] == list(range(5))
    assert all(isinstance(o.error, ExecutionError) for o in outcomes)


def test_a_result_whose_worker_died_before_it_was_fetched_is_waited_for_again():
    class LostTwice:
        def __init__(self, key: str, value: int) -> None:
            self.key, self._value, self.asked, self.released = key, value, 0, False
            self._states = iter(["lost", "pending", "finished", "finished"])
            self.status = "pending"

        def add_done_callback(self, put) -> None:
            self.status = next(self._states)
            put(self)

        def result(self, timeout: float) -> int:
            self.asked += 1
            if self.asked == 1:
                raise TimeoutError
            return self._value

        def release(self) -> None:
            self.released = True

    class Losing:
        status = "running"
        futures: ClassVar[list[LostTwice]] = []

        @staticmethod
        def nthreads() -> dict[str, int]:
            return {"tcp://x": 1}

        @staticmethod
        def submit(function, item: int, *, key: str, pure: bool) -> LostTwice:
            Losing.futures.append(LostTwice(key, function(item)))
            return Losing.futures[-1]

    outcomes = list(DaskEngine(Losing()).run(worker_tasks.square, range(5)))
    assert sorted(o.result for o in outcomes) == [0, 1, 4, 9, 16]
    assert all(o.error is None for o in outcomes)
    assert [(f.asked, f.released) for f in Losing.futures] == [(2, True)] * 5


def test_a_client_that_closes_between_two_answers_loses_nothing_that_was_asked(
    monkeypatch: pytest.MonkeyPatch,
):
    class Done:
        status = "finished"

        def __init__(self, key: str, value: int) -> None:
            self.key, self._value = key, value

        def add_done_callback(self, put) -> None:
            put(self)

        def result(self, timeout: float) -> int:
            return self._value

        def release(self) -> None:
            pass

    class Closing:
        """As distributed's client, which drops its scheduler before anything else when it closes."""

        status = "running"
        scheduler = SimpleNamespace(ncores=lambda: {"tcp://x": 1})

        def nthreads(self) -> dict[str, int]:
            return self.scheduler.ncores()

        def submit(self, function, item: int, *, key: str, pure: bool) -> Done:
            if self.scheduler is None:
                raise RuntimeError("cannot be sent")
            return Done(key, function(item))

    monkeypatch.setattr(engine_module, "_HEARTBEAT", 0)
    client = Closing()
    running = DaskEngine(client).run(worker_tasks.square, range(6))
    outcomes = [next(running)]
    client.scheduler, client.status = None, "closed"
    outcomes += running
    assert sorted(o.item for o in outcomes) == list(range(6))
    # Two were in flight when it closed, and one more was sent for the first answer.
    assert [o.result for o in outcomes if o.error is None] == [0, 1, 4]
    assert all("lost before it gave an answer" in str(o.error) for o in outcomes if o.error is not None)
