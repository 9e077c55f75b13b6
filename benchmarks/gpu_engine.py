"""The GPU engine on a catalogue's mix of sizes: orientations a second, and share of the memory's speed.

Two steps, as the machine with the GPU may have neither this package's dependencies nor a network.
The first needs the package and writes a work file; the second needs Python, NumPy, Numba and
PyTorch only, and runs the kernel of this checkout.

Example::

    python benchmarks/gpu_engine.py --export work.npz --catalogue catalogue.parquet
    python benchmarks/gpu_engine.py --run work.npz --device cuda --out benchmarks/results/gpu-engine.json
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

SERIES = tuple(20.0 * i for i in range(1, 101))
ONE = (200.0,)
#: Where ONE stands in SERIES: references are stored once.
AT_ONE = SERIES.index(ONE[0])
#: Beam counts and matrix bytes at which single products are timed.
WIDTHS, PRODUCT_BYTES = (64, 192, 384, 768, 1536), {"cuda": 2_000_000_000, "cpu": 50_000_000}


def export(path: Path, catalogue_path: Path | None, n_crystals: int, n_orientations: int) -> None:
    """Write the work file: crystals at quantiles of the primitive volume, one reference for each."""
    from diffractory import Catalogue, SimulationSpec
    from diffractory.crystals.build import CatalogueFilter, build_catalogue
    from diffractory.crystals.sources.aflow import aflow_candidates
    from diffractory.dataset.survey import crystal_orientations
    from diffractory.scattering.simulate import Scatterer
    from diffractory.scattering.torch_solver import coupling_table, indexed_beams
    from diffractory.specs import OrientationSpec

    if catalogue_path:
        catalogue = Catalogue.from_parquet(catalogue_path)
    else:
        catalogue = build_catalogue(aflow_candidates(), CatalogueFilter()).catalogue
    by_volume = np.argsort(catalogue.table["volume_primitive"].to_numpy(), kind="stable")
    quantiles = (np.arange(n_crystals) + 0.5) / n_crystals
    tables, table_of, indices, diagonals, references = [], [], [], [], []
    for place, row in enumerate(by_volume[(quantiles * len(by_volume)).astype(int)]):
        scatterer = Scatterer.prepare(catalogue.crystal(int(row)), SimulationSpec(thicknesses=SERIES))
        tables.append(coupling_table(scatterer))
        orientations = crystal_orientations(catalogue, int(row), OrientationSpec(count=n_orientations))
        for orientation in orientations:
            chosen, errors = scatterer.select_beams(orientation)
            index, diagonal = indexed_beams(scatterer, tables[-1], np.flatnonzero(chosen), errors[0])
            table_of.append(place)
            indices.append(index)
            diagonals.append(diagonal)
        references.append(scatterer.solve(orientations[-1], "dense", "double").intensity)
        print(f"{catalogue.ids[int(row)]}: {len(indices[-1])} beams", file=sys.stderr)
    np.savez_compressed(
        path,
        tables=np.concatenate([table.ravel() for table in tables]),
        table_sizes=[table.size for table in tables],
        table_of=table_of,
        index=np.concatenate(indices).astype(np.int32),
        diagonal=np.concatenate(diagonals),
        sizes=[len(index) for index in indices],
        reference=np.concatenate([r.ravel() for r in references]).astype(np.float32),
        reference_of=np.arange(1, n_crystals + 1) * n_orientations - 1,
    )
    print(f"{len(indices)} orientations, {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def split(values: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Cut a flat array into pieces of given sizes."""
    return np.split(values, np.cumsum(sizes)[:-1])


def seconds(function: Callable[[], Any], synchronise: Callable[[], None], repeats: int = 5) -> float:
    """Return the shortest time of some calls, after one that is not timed."""
    times = []
    for _ in range(repeats + 1):
        synchronise()
        started = time.perf_counter()
        function()
        synchronise()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def copy_rate(torch: Any, device: Any, synchronise: Callable[[], None]) -> float:
    """Return the bytes a second that a copy on the device reads and writes."""
    source = torch.zeros(PRODUCT_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source), synchronise)


def product_rates(torch: Any, device: Any, synchronise: Callable[[], None], width: int) -> dict[str, Any]:
    """Time the products of one term alone: in complex numbers as the engine does, and in real pairs."""
    count = max(1, PRODUCT_BYTES[device.type] // (8 * width**2))
    matrix = torch.randn((count, width, width), dtype=torch.complex64, device=device)
    wave = torch.randn((count, width, 1), dtype=torch.complex64, device=device)
    term = torch.empty_like(wave)
    pairs = torch.randn((count, 2 * width, 2), device=device)
    flat = torch.view_as_real(matrix).view(count, width, 2 * width)
    real_term = torch.empty((count, width, 2), device=device)
    ways: dict[str, Callable[[], Any]] = {
        "complex": lambda: term.baddbmm_(matrix, wave, beta=-1.0, alpha=1e-3),
        "real": lambda: torch.bmm(flat, pairs, out=real_term),
    }
    rates = {
        f"{name}_bytes_per_s": 8 * matrix.numel() / seconds(way, synchronise) for name, way in ways.items()
    }
    return {"width": width, "count": count, **rates}


def matrix_bytes(torch: Any, solve: Callable[[], Any]) -> int:
    """Return how many bytes of structure matrices a solve reads for its products."""
    total = 0

    def counted(product: Callable[..., Any], place: int) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal total
            # The matrix is the larger of the two factors.
            total += 8 * max(factor.numel() for factor in arguments[place : place + 2])
            return product(*arguments, **options)

        return wrapped

    with (
        patch.object(torch.Tensor, "baddbmm_", counted(torch.Tensor.baddbmm_, 1)),
        patch.object(torch, "bmm", counted(torch.bmm, 0)),
    ):
        solve()
    return total


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Solve a work file at one thickness and at a hundred."""
    import torch

    from diffractory.scattering import torch_batches

    device = torch_batches.usable_device(options.device)
    on_gpu = device.type == "cuda"
    synchronise = torch.cuda.synchronize if on_gpu else lambda: None
    memory = int(options.memory * 1e9) if options.memory else torch_batches.default_memory(device)
    with np.load(options.run) as work:
        data = {name: work[name] for name in work.files}
    tables = split(data["tables"], data["table_sizes"])
    pieces = zip(
        data["table_of"],
        split(data["index"].astype(np.int64), data["sizes"]),
        split(data["diagonal"], data["sizes"]),
        strict=True,
    )
    beam_sets = [torch_batches.BeamSet(int(place), index, diagonal) for place, index, diagonal in pieces]
    n_reference = data["sizes"][data["reference_of"]]
    references = split(data["reference"], len(SERIES) * n_reference)
    references = [r.reshape(len(SERIES), n) for r, n in zip(references, n_reference, strict=True)]
    copied = copy_rate(torch, device, synchronise)
    result: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "memory_bytes": memory,
        "orientations": options.repeat * len(beam_sets),
        "beams_quantiles": np.quantile(data["sizes"], [0.0, 0.1, 0.5, 0.9, 1.0]).tolist(),
        "copy_bytes_per_s": copied,
        "products": [product_rates(torch, device, synchronise, width) for width in WIDTHS],
        "solves": [],
    }
    for thicknesses, rows in ((ONE, slice(AT_ONE, AT_ONE + 1)), (SERIES, slice(None))):

        def solve(thicknesses: tuple[float, ...] = thicknesses) -> list[Any]:
            return torch_batches.solve_beam_sets(
                beam_sets * options.repeat, tables, thicknesses, device, memory
            )

        read = matrix_bytes(torch, solve)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        taken = []
        for _ in range(options.timed):
            started = time.perf_counter()
            found = solve()
            taken.append(time.perf_counter() - started)
        compared = zip(data["reference_of"], references, strict=True)
        best = min(taken)
        result["solves"].append(
            {
                "thicknesses": len(thicknesses),
                "seconds": taken,
                "orientations_per_s": len(found) / best,
                "diverged": sum(intensity is None for intensity in found),
                "largest_difference": max(
                    float(np.abs(found[i] - r[rows]).max()) for i, r in compared if found[i] is not None
                ),
                "matrix_bytes_per_s": read / best,
                "share_of_copy_bandwidth": read / best / copied,
                "peak_device_bytes": torch.cuda.max_memory_allocated(device) if on_gpu else None,
            }
        )
        print(json.dumps(result["solves"][-1]), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument("--export", type=Path, metavar="FILE", help="write a work file")
    step.add_argument("--run", type=Path, metavar="FILE", help="solve a work file")
    parser.add_argument("--catalogue", type=Path, help="catalogue; the embedded crystals by default")
    parser.add_argument("--crystals", type=int, default=24, help="crystals in the work file")
    parser.add_argument("--orientations", type=int, default=50, help="orientations of each")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--memory", type=float, help="GB to use on the device; four fifths by default")
    parser.add_argument("--repeat", type=int, default=1, help="times the work is solved in one go")
    parser.add_argument("--timed", type=int, default=3, help="solves that are timed")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    if options.export:
        export(options.export, options.catalogue, options.crystals, options.orientations)
        return
    result = run(options)
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
