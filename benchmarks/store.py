"""Bytes a pattern: encodings of intensities, hkl and orientations compared, and a whole run measured.

The sample is crystals by quantiles of the primitive volume, each in some of its 100 orientations, at the
paper's settings and two grids of thicknesses. Speeds are process time of one core, in MB of float32
intensities. The whole run takes fewer crystals in all 100 orientations and counts every byte of its folder.

Example::

    python benchmarks/store.py --catalogue catalogue.parquet
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, describe, write_json
from numcodecs import Blosc
from threadpoolctl import threadpool_limits

from diffractory import Catalogue, SimulationSpec
from diffractory.dataset.intensity_codes import FLOOR, RELATIVE, STEPS, encode_intensity
from diffractory.dataset.partition import simulate_partition
from diffractory.dataset.plan import MAX_SHARD_BYTES, PEAK_CHUNK, make_plan
from diffractory.dataset.run import Run
from diffractory.dataset.survey import crystal_orientations
from diffractory.scattering.simulate import Scatterer
from diffractory.specs import OrientationSpec

RESULT = Path(__file__).parent / "results" / "store.json"
GRIDS = {
    "20:2000:20": tuple(20.0 * i for i in range(1, 101)),
    "100:500:50": tuple(100.0 + 50.0 * i for i in range(9)),
}
ORIENTATIONS = OrientationSpec(count=100)
#: Patterns and solves of the paper.
PAPER_PATTERNS, PAPER_SOLVES = 366_000_000, 3_660_000
#: What must be kept, and a bound that machine learning and verification could live with.
KEPT, COARSE_BOUND = 1e-6, (1e-6, 2e-3)
TARGET_BYTES = 400.0
SHUFFLES = {"none": Blosc.NOSHUFFLE, "bytes": Blosc.SHUFFLE, "bits": Blosc.BITSHUFFLE}

Coder = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Encoding:
    """A way to store intensities: numbers, then a layout and a compressor."""

    name: str
    encode: Coder
    decode: Coder
    shuffle: str = "bytes"
    level: int = 5
    chunk: int = PEAK_CHUNK
    transposed: bool = False


@dataclass(frozen=True)
class Sample:
    """Peaks of the sample at one grid of thicknesses."""

    intensity: np.ndarray
    hkl: np.ndarray
    rotation: np.ndarray

    @property
    def n_patterns(self) -> int:
        """Number of patterns."""
        return len(self.rotation) * self.intensity.shape[1]


def by_volume(catalogue: Catalogue, count: int) -> list[int]:
    """Return crystals at the middles of equal shares of the primitive volume's distribution."""
    volumes = catalogue.table["volume_primitive"].to_numpy(dtype=float)
    places = np.round((np.arange(count) + 0.5) / count * len(volumes) - 0.5).astype(int)
    return [int(i) for i in np.argsort(volumes, kind="stable")[places]]


def take_sample(catalogue: Catalogue, indices: list[int], thicknesses: tuple[float, ...]) -> Sample:
    """Simulate each crystal in four of its orientations, drawn at random."""
    rng, spec = np.random.default_rng(0), SimulationSpec(thicknesses=thicknesses)
    intensity, hkl, rotation = [], [], []
    for index in indices:
        scatterer = Scatterer.prepare(catalogue.crystal(index), spec)
        drawn = np.sort(rng.choice(ORIENTATIONS.count, 4, replace=False))
        for matrix in crystal_orientations(catalogue, index, ORIENTATIONS)[drawn]:
            pattern = scatterer.solve(matrix)
            intensity.append(pattern.intensity.T.astype(np.float32))
            hkl.append(pattern.hkl.astype(np.int16))
            rotation.append(matrix.ravel())
    return Sample(np.concatenate(intensity), np.concatenate(hkl), np.array(rotation))


def without_small(intensity: np.ndarray) -> np.ndarray:
    """Set what is below 1e-6 to 0."""
    return np.where(intensity < KEPT, np.float32(0), intensity)


def rounded(bits: int) -> Coder:
    """Return a coder that drops what is below 1e-6 and rounds mantissas to some bits."""
    drop = 23 - bits

    def encode(intensity: np.ndarray) -> np.ndarray:
        raw = without_small(intensity).view(np.uint32)
        return ((raw + (1 << (drop - 1))) >> drop << drop).view(np.float32)

    return encode


def octaves(floor: float, steps: int, dtype: str = "uint16") -> tuple[Coder, Coder]:
    """Return coder and decoder of a scale like the store's, with another floor or other steps."""
    offset, dropped = floor * 2 * steps, 52 - (steps.bit_length() - 1)

    def encode(intensity: np.ndarray) -> np.ndarray:
        bits = (intensity.astype(np.float64) / offset + 1.0).view(np.int64)
        return (((bits + (1 << (dropped - 1))) >> dropped) - 1023 * steps).astype(dtype)

    # Codes beyond 100 octaves do not occur, and float32 could not hold them.
    codes = np.arange(min(1 << (8 * np.dtype(dtype).itemsize), 100 * steps))
    table = (offset * (np.ldexp(1.0 + codes % steps / steps, codes // steps) - 1.0)).astype(np.float32)
    return encode, table.take


def square_roots(scale: float) -> tuple[Coder, Coder]:
    """Return coder and decoder of rounded square roots."""
    return (
        lambda intensity: np.rint(np.sqrt(intensity) * scale).astype(np.uint16),
        lambda codes: (codes.astype(np.float32) / np.float32(scale)) ** 2,
    )


def along_thickness(coders: tuple[Coder, Coder]) -> tuple[Coder, Coder]:
    """Return coders of the differences between neighbouring thicknesses, signs in the last bit."""

    def encode(intensity: np.ndarray) -> np.ndarray:
        # Differences and their sums are taken modulo 2**16.
        steps = np.diff(coders[0](intensity), axis=1, prepend=np.uint16(0)).view(np.int16)
        return ((steps << 1) ^ (steps >> 15)).view(np.uint16)

    def decode(stored: np.ndarray) -> np.ndarray:
        steps = (stored >> 1) ^ (np.uint16(0) - (stored & 1))
        return coders[1](np.cumsum(steps, axis=1, dtype=np.uint16))

    return encode, decode


def encodings() -> Iterator[Encoding]:
    """Yield what is compared."""

    def plain(values: np.ndarray) -> np.ndarray:
        return values

    ours = octaves(FLOOR, STEPS)
    yield Encoding("float32 as before", plain, plain, "bits")
    yield Encoding("float32, below 1e-6 dropped", without_small, plain, "bits")
    for bits in (12, 9, 7):
        yield Encoding(f"float32 of {bits} bits, below 1e-6 dropped", rounded(bits), plain, "bits")
    for scale in (2048, 11180):
        yield Encoding(f"round({scale} sqrt(I))", *square_roots(scale))
    yield Encoding("octaves in 8 bits: 1e-6 + 3e-2 I", *octaves(1e-6, 16, "uint8"), "none")
    yield Encoding("octaves, chosen", *ours)
    for shuffle in ("none", "bits"):
        yield Encoding(f"octaves, shuffle {shuffle}", *ours, shuffle)
    yield Encoding("octaves, thickness by thickness", *ours, transposed=True)
    yield Encoding("octaves, differences along thickness", *along_thickness(ours))
    yield Encoding("octaves, differences, thickness by thickness", *along_thickness(ours), transposed=True)
    for level in (1, 3, 7, 9):
        yield Encoding(f"octaves, zstd {level}", *ours, level=level)
    for chunk in (2048, 65536):
        yield Encoding(f"octaves, chunks of {chunk} peaks", *ours, chunk=chunk)


def pack(array: np.ndarray, shuffle: str, level: int, chunk: int, transposed: bool) -> list[bytes]:
    """Compress an array chunk by chunk."""
    codec = Blosc("zstd", level, SHUFFLES[shuffle], 0)
    chunks = (array[i : i + chunk] for i in range(0, len(array), chunk))
    return [codec.encode(np.ascontiguousarray(rows.T if transposed else rows)) for rows in chunks]


def measure(encoding: Encoding, sample: Sample) -> dict[str, Any]:
    """Return the bytes, speeds and errors of one encoding."""
    started = time.process_time()
    stored = encoding.encode(sample.intensity)
    packed = pack(stored, encoding.shuffle, encoding.level, encoding.chunk, encoding.transposed)
    encoded = time.process_time()
    codec, n_columns, parts = Blosc(), stored.shape[1], []
    for data in packed:
        rows = np.frombuffer(codec.decode(data), dtype=stored.dtype)
        parts.append(rows.reshape(n_columns, -1).T if encoding.transposed else rows.reshape(-1, n_columns))
    back = encoding.decode(np.concatenate(parts))
    decoded = time.process_time()
    true = sample.intensity.astype(np.float64)
    error = np.abs(back - true)
    megabytes = sample.intensity.nbytes / 1e6
    return {
        "name": encoding.name,
        "bytes_a_pattern": round(sum(map(len, packed)) / sample.n_patterns, 1),
        "encode_mb_per_s": round(megabytes / (encoded - started), 1),
        "decode_mb_per_s": round(megabytes / (decoded - encoded), 1),
        "largest_error": float(error.max()),
        "largest_relative_error_from_1e-3": float((error / true)[true >= 1e-3].max()),
        "share_of_1e-6_plus_2e-3_I": float((error / (COARSE_BOUND[0] + COARSE_BOUND[1] * true)).max()),
        "lost_from_1e-6": int(np.count_nonzero((true >= KEPT) & (back <= 0.0))),
    }


def trade_off(sample: Sample) -> list[dict[str, float]]:
    """Return what each bound FLOOR + RELATIVE * I costs."""
    rows = []
    for exponent in (20, 21, 22, 23):
        for steps in (256, 1024, 4096):
            codes = octaves(2.0**-exponent, steps)[0](sample.intensity)
            size = sum(map(len, pack(codes, "bytes", 5, PEAK_CHUNK, False)))
            bound = {"floor": 2.0**-exponent, "relative": 0.5 / steps}
            rows.append(bound | {"bytes_a_pattern": round(size / sample.n_patterns, 1)})
    return rows


def other_arrays(sample: Sample) -> dict[str, dict[str, float]]:
    """Return the bytes a pattern of hkl and orientations in several layouts."""
    arrays = {"hkl int16": sample.hkl, "hkl int8": sample.hkl.astype(np.int8), "rotation": sample.rotation}
    return {
        name: {
            f"shuffle {shuffle}{', transposed' * transposed}": round(
                sum(map(len, pack(array, shuffle, 5, PEAK_CHUNK, transposed))) / sample.n_patterns, 2
            )
            for shuffle in SHUFFLES
            for transposed in ((False,) if name == "rotation" else (False, True))
        }
        for name, array in arrays.items()
    }


def whole_run(catalogue: Catalogue, thicknesses: tuple[float, ...]) -> dict[str, Any]:
    """Simulate a run through the program itself and count the bytes of its folder."""
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(catalogue, SimulationSpec(thicknesses=thicknesses), ORIENTATIONS)
        run = Run.create(Path(folder) / "run", plan, catalogue)
        for partition in range(len(plan.partitions)):
            simulate_partition(run.path, partition)
        sizes = {
            name: sum(p.stat().st_size for p in run.path.glob(pattern) if p.is_file())
            for name, pattern in (
                *((array, f"peaks.zarr/{array}/c/**/*") for array in ("intensity", "hkl", "rotation")),
                ("records", "records/**/*"),
                ("everything", "**/*"),
            )
        }
        n_patterns = plan.n_items * len(thicknesses)
        return {
            "crystals": len(catalogue),
            "patterns": n_patterns,
            "partitions": len(plan.partitions),
            "beams_a_pattern": round(plan.n_peaks / plan.n_items, 1),
            "bytes_a_pattern": {name: round(size / n_patterns, 2) for name, size in sizes.items()},
            "planned_bytes_a_pattern": round(plan.likely_disk_bytes / n_patterns, 1),
            "bound_bytes_a_pattern": round(plan.disk_bytes / n_patterns, 1),
        }


def paper_scale(run: dict[str, Any]) -> dict[str, Any]:
    """Extrapolate a run at the paper's thicknesses to all of its patterns."""
    peaks = run["beams_a_pattern"] * PAPER_SOLVES
    partitions = int(-(-peaks // (MAX_SHARD_BYTES // (4 * len(GRIDS["20:2000:20"])))))
    return {
        "patterns": PAPER_PATTERNS,
        "terabytes": round(PAPER_PATTERNS * run["bytes_a_pattern"]["everything"] / 1e12, 4),
        "partitions_at_least": partitions,
        "files_of_shards": 3 * partitions,
        "files_of_shards_and_records": 4 * partitions,
    }


def describe_sample(sample: Sample) -> dict[str, float]:
    """Return how many beams a pattern has and how many of them matter."""
    n = len(sample.rotation)
    ever = (sample.intensity >= KEPT).any(axis=1)
    return {
        "patterns": sample.n_patterns,
        "beams_a_pattern": round(len(sample.intensity) / n, 1),
        "beams_from_1e-6_at_any_thickness": round(np.count_nonzero(ever) / n, 1),
        "beams_from_1e-6": round(np.count_nonzero(sample.intensity >= KEPT) / sample.n_patterns, 1),
    }


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--crystals", type=int, default=40, help="of the sample")
    parser.add_argument("--run-crystals", type=int, default=20, help="of the whole run")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    catalogue = Catalogue.from_parquet(arguments.catalogue)
    chosen = by_volume(catalogue, arguments.crystals)
    few = catalogue.take(by_volume(catalogue, arguments.run_crystals))
    result: dict[str, Any] = {"command": command(), **describe()}
    result |= {"chosen": {"floor": FLOOR, "relative": RELATIVE}, "target_bytes_a_pattern": TARGET_BYTES}
    for grid, thicknesses in GRIDS.items():
        with threadpool_limits(limits=1, user_api="blas"):
            sample = take_sample(catalogue, chosen, thicknesses)
        same = octaves(FLOOR, STEPS)[0](sample.intensity)
        np.testing.assert_array_equal(same, encode_intensity(sample.intensity))
        found = {"sample": describe_sample(sample), "encodings": [], "bounds": trade_off(sample)}
        print(grid, found["sample"])
        for encoding in encodings():
            found["encodings"].append(row := measure(encoding, sample))
            print(
                f"  {row['name']:48s}{row['bytes_a_pattern']:8.1f} B  {row['encode_mb_per_s']:7.0f} and "
                f"{row['decode_mb_per_s']:6.0f} MB/s  |ΔI| ≤ {row['largest_error']:.1e}"
            )
        found["other_arrays"] = other_arrays(sample)
        found["whole_run"] = whole_run(few, thicknesses)
        print("  a whole run:", found["whole_run"])
        result[grid] = found
    result["paper"] = paper_scale(result["20:2000:20"]["whole_run"])
    print("the paper's scale:", result["paper"])
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
