"""Grows the trees of a random forest, some in each task, from features that workers read themselves.

scikit-learn's forests hand the whole matrix to every task, which a cluster would ship over the
network. Here a matrix that lies in a ``.npy`` file travels as its path: each worker maps it, and the
workers of one node share its pages. The targets lie in a file beside it, so that nothing is lost with
a worker. Seeds are drawn as scikit-learn draws them, so the trees are
those of its own forests, whatever the number of tasks or workers.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from diffractory.learning.trees import TreeArrays

#: Tasks for each worker: enough to even out trees of unequal size.
_TASKS_A_WORKER = 4


@dataclass(frozen=True)
class _MappedRows:
    """Consecutive rows of a matrix in a ``.npy`` file."""

    path: Path
    first: int
    stop: int

    def read(self) -> NDArray[np.float32]:
        return np.asarray(np.load(self.path, mmap_mode="r")[self.first : self.stop])


def grow_trees(
    kind: Literal["classifier", "regressor"],
    X: NDArray[np.float32],
    y: NDArray[Any],
    n_trees: int,
    settings: Mapping[str, Any],
    random_state: int | None,
    n_jobs: int | None,
) -> TreeArrays:
    """Grow trees on bootstrap samples, under whatever joblib backend is active.

    Parameters
    ----------
    kind : {"classifier", "regressor"}
    X : ndarray of shape (n, n_features), float32
        Finite. Rows of a mapped ``.npy`` file are not sent but read where the trees grow.
    y : ndarray of shape (n,) or (n, n_outputs)
        Codes 0 … n_classes − 1, or targets.
    n_trees : int
    settings : mapping
        Arguments of scikit-learn's tree.
    random_state : int or None
    n_jobs : int or None
        Tasks at the same time; None = what the backend offers.
    """
    generator = np.random.RandomState(random_state)
    # As scikit-learn's forests seed their trees.
    seeds = [int(generator.randint(np.iinfo(np.int32).max)) for _ in range(n_trees)]
    n_tasks = min(n_trees, _TASKS_A_WORKER * max(joblib.effective_n_jobs(n_jobs), 1))
    mapped = _mapped_rows(X)
    # Where nothing can be written beside the matrix, targets travel with the tasks.
    beside = mapped is not None and os.access(mapped.path.parent, os.W_OK)
    with _beside(mapped.path, y) if mapped and beside else contextlib.nullcontext(y) as targets:
        parts = joblib.Parallel(n_jobs=n_jobs)(
            joblib.delayed(_grow)(kind, mapped or X, targets, [seeds[i] for i in chosen], dict(settings))
            for chosen in np.array_split(np.arange(n_trees), n_tasks)
        )
    return TreeArrays.concatenate(parts)


def training_memory(n_rows: int, n_features: int, n_outputs: int, workers: int) -> int:
    """Return the bytes that growing trees takes on a node: the mapped matrix once, and each worker's own.

    A worker holds targets, weights, bootstrap counts and scikit-learn's buffers of one tree.
    """
    matrix = 4 * n_rows * n_features
    own = n_rows * (8 * (2 * n_outputs + 2) + 32)
    return matrix + workers * own


def _grow(
    kind: str,
    rows: _MappedRows | NDArray[np.float32],
    targets: Path | NDArray[Any],
    seeds: list[int],
    settings: dict[str, Any],
) -> TreeArrays:
    X = rows.read() if isinstance(rows, _MappedRows) else rows
    y = np.load(targets) if isinstance(targets, Path) else targets
    make = DecisionTreeClassifier if kind == "classifier" else DecisionTreeRegressor
    grown = []
    for seed in seeds:
        drawn = np.random.RandomState(seed).randint(0, len(X), len(X), dtype=np.int32)
        counts = np.bincount(drawn, minlength=len(X)).astype(np.float64)
        tree = make(**settings, random_state=seed)
        grown.append(tree.fit(X, y, sample_weight=counts, check_input=False).tree_)
    return TreeArrays.from_trees(grown, classifier=kind == "classifier")


@contextlib.contextmanager
def _beside(matrix: Path, targets: NDArray[Any]) -> Iterator[Path]:
    """Keep targets in a file beside the matrix while trees grow."""
    with tempfile.NamedTemporaryFile(prefix=".targets-", suffix=".npy", dir=matrix.parent) as file:
        np.save(file, targets)
        file.flush()
        yield Path(file.name)


def _mapped_rows(X: NDArray[np.float32]) -> _MappedRows | None:
    """Return where rows lie in a mapped ``.npy`` file; None if they do not, or are not whole rows."""
    base: Any = X
    # The outermost map knows the file; arrays in between are views of it.
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    while base is not None and isinstance(base.base, np.memmap):
        base = base.base
    # The header of a .npy file is an offset; what was changed in a private map is not in the file.
    if base is None or not base.offset or base.mode == "c":
        return None
    path = Path(str(base.filename))
    if base.offset != _header_bytes(path):
        return None
    if base.ndim != 2 or not X.flags.c_contiguous or X.shape[1] != base.shape[1]:
        return None
    start = X.ctypes.data - base.ctypes.data
    first = start // base.strides[0]
    return _MappedRows(path, first, first + len(X))


def _header_bytes(path: Path) -> int:
    """Return where the numbers of a ``.npy`` file begin; 0 if it is none."""
    try:
        stored = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return 0
    return int(stored.offset) if isinstance(stored, np.memmap) else 0
