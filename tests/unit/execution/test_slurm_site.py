"""Site files, requests and job scripts: everything about SLURM that needs no SLURM."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.errors import AccessError, ExecutionError, SpecError
from diffractory.execution import slurm as slurm_module
from diffractory.execution import slurm_commands
from diffractory.execution.site import Site, SlurmRequest, read_site, slurm_megabytes
from diffractory.execution.slurm import job_script, open_slurm, preflight

MINIMAL = {"walltime": "01:00:00", "cores": 4, "memory": "8 GiB"}
SITES = Path(__file__).parents[3] / "cluster" / "sites"


def _script(folder: Path, **values: object) -> list[str]:
    return job_script(SlurmRequest(Site(**MINIMAL | values), 1, folder, print)).splitlines()


def test_three_values_are_enough():
    site = Site(**MINIMAL)
    assert (site.workers, site.jobs, site.partition, site.directives) == (4, 1, None, ())
    assert site.memory_bytes == 8 * 2**30
    assert 4 * site.worker_memory == pytest.approx(0.9 * 8 * 2**30)
    assert site.seconds == 3600
    assert site.lifetime == 3600 - 360


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:01:00", 60), ("01:30:05", 5405), ("100:00:00", 360_000), ("2-12:00:00", 216_000)],
)
def test_walltimes(text: str, seconds: int):
    assert Site(**MINIMAL | {"walltime": text}).seconds == seconds


@given(
    st.integers(1, 100_000).map(lambda minutes: f"{minutes // 60 % 1000:02}:{minutes % 60:02}:30"),
    st.none() | st.floats(1, 1e6),
)
def test_workers_always_end_before_the_walltime(walltime: str, margin: float | None):
    try:
        site = Site(**MINIMAL | {"walltime": walltime, "lifetime_margin": margin})
    except SpecError:
        return
    assert 0 < site.lifetime - site.stagger < site.lifetime + site.stagger < site.seconds


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"queue": "debug"}, "queue = 'debug': Extra inputs are not permitted"),
        ({"cores": 0}, "cores = 0"),
        ({"cores": -4}, "cores = -4"),
        ({"cores": "4"}, "cores = '4'"),
        ({"cores": 4.5}, "cores = 4.5"),
        ({"cores": True}, "cores = True"),
        ({"processes": 5}, "5 processes of one thread each do not fit on 4 cores"),
        ({"processes": 0}, "processes = 0"),
        ({"jobs": 0}, "jobs = 0"),
        ({"jobs": -1}, "jobs = -1"),
        ({"replacements": -1}, "replacements = -1"),
        ({"death_timeout": 0}, "death_timeout = 0"),
        ({"walltime": "1h"}, "HH:MM:SS or D-HH:MM:SS"),
        ({"walltime": "00:00:59"}, "one minute or more"),
        ({"walltime": "00:60:00"}, "HH:MM:SS"),
        ({"walltime": 3600}, "walltime = 3600"),
        ({"walltime": ""}, "HH:MM:SS"),
        ({"memory": "8"}, "with its unit"),
        ({"memory": 8}, "memory = 8"),
        ({"memory": "lots"}, "with its unit"),
        ({"memory": "nan GB"}, "with its unit"),
        ({"memory": "1e999 GB"}, "with its unit"),
        ({"memory": "-8 GB"}, "with its unit"),
        ({"memory": "100 MB"}, "256 MiB or more"),
        ({"memory": "1 GiB"}, "leaves less than 256 MiB for each process"),
        ({"lifetime_margin": 3600.0}, "not below the walltime"),
        ({"lifetime_margin": 0.0}, "lifetime_margin = 0.0"),
        ({"lifetime_margin": float("nan")}, "lifetime_margin = nan"),
        ({"partition": ""}, "partition = ''"),
        ({"partition": "a b"}, "partition = 'a b'"),
        ({"partition": "a\n#SBATCH -N 99"}, "partition = "),
        ({"account": 7}, "account = 7"),
        ({"directives": "--qos=debug"}, "directives = '--qos=debug'"),
        ({"directives": ["--qos=debug\n--nodes=99"]}, "directives.0"),
        ({"directives": [""]}, "directives.0"),
        ({"prologue": ["module load x", 3]}, "prologue.1 = 3"),
        ({"prologue": "module load x"}, "prologue = 'module load x'"),
        ({"local_directory": 'a"b'}, "local_directory"),
        ({"interface": "ib0 ib1"}, "interface = 'ib0 ib1'"),
    ],
)
def test_a_bad_value_is_named(values: dict[str, object], words: str):
    with pytest.raises(SpecError) as caught:
        Site(**MINIMAL | values)
    assert words in str(caught.value)
    assert "Correct the value" in caught.value.fix


@pytest.mark.parametrize("missing", ["walltime", "cores", "memory"])
def test_a_missing_value_is_named(missing: str):
    with pytest.raises(SpecError, match=f"{missing} = .*Field required"):
        Site(**{name: value for name, value in MINIMAL.items() if name != missing})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"walltime: 01:00:00", "a site file is TOML"),
        (b"\xff\xfe", "a site file is TOML"),
        (b"cores = 4\ncores = 5", "a site file is TOML"),
        (b"", "walltime"),
        (b'walltime = "01:00:00"\ncores = 4\nmemory = "8 GiB"\ncolour = 1', "colour = 1"),
        (b'[slurm]\nwalltime = "01:00:00"', "slurm = "),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "site.toml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_site(path)
    assert str(path) in caught.value.what
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str):
    with pytest.raises(AccessError, match=r"cannot be read .*generic\.toml"):
        read_site(tmp_path / name)


@pytest.mark.parametrize("path", sorted(SITES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_sites_that_come_along_are_valid(path: Path, tmp_path: Path):
    site = read_site(path)
    script = job_script(SlurmRequest(site, site.jobs, tmp_path, print))
    assert f"#SBATCH -t {site.walltime}" in script
    assert f"--nworkers {site.workers}" in script or site.workers == 1


def test_the_job_script_says_what_the_site_says(tmp_path: Path):
    script = _script(
        tmp_path / "a run",
        partition="long",
        account="m1234",
        processes=3,
        interface="ib0",
        local_directory="$TMPDIR/a b",
        prologue=["module load python"],
        directives=["--constraint=cpu"],
        python="/opt/my python/bin/python",
        death_timeout=77,
    )
    head, worker = script[:-1], next(line for line in script if "dask_worker" in line)
    assert script[0].startswith("#!")
    for line in (
        "#SBATCH -p long",
        "#SBATCH -A m1234",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=8192M",
        "#SBATCH -t 01:00:00",
        "#SBATCH --constraint=cpu",
        "#SBATCH --no-requeue",
        f'#SBATCH --output="{tmp_path}/a run/slurm/job-%j.log"',
        "module load python",
    ):
        assert line in head
    assert worker.startswith("'/opt/my python/bin/python' -m distributed.cli.dask_worker tls://")
    for words in (
        "--nthreads 1 ",
        "--nworkers 3 ",
        "--memory-limit 2.40GiB ",
        "--death-timeout 77 ",
        '--local-directory "$TMPDIR/a b" ',
        "--lifetime 3240s --lifetime-stagger 180s",
        "--no-dashboard --dashboard-address 127.0.0.1:0",
        "--interface ib0",
        "--protocol tls://",
        f"--tls-key '{tmp_path}/a run/slurm/",
    ):
        assert words in worker
    assert not list(tmp_path.iterdir())


def test_the_drivers_python_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slurm_module.sys, "executable", "/here/python")
    assert any(line.startswith("/here/python -m distributed") for line in _script(tmp_path))


@pytest.mark.parametrize(("count", "text"), [(1, "1M"), (2**20, "1M"), (2**20 + 1, "2M"), (2**33, "8192M")])
def test_slurm_sizes_are_rounded_up(count: int, text: str):
    assert slurm_megabytes(count) == text


def test_where_there_is_no_slurm_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    request = SlurmRequest(Site(**MINIMAL), 1, tmp_path / "run", print)
    with pytest.raises(ExecutionError, match=r"sbatch, squeue, scancel not found.*--cluster local"):
        open_slurm(request).__enter__()
    assert not list(tmp_path.iterdir())


def _fake_slurm(folder: Path, sbatch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, body in (("sbatch", sbatch), ("squeue", ""), ("scancel", "")):
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_the_words_of_sbatch_are_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _fake_slurm(tmp_path, "echo 'sbatch: error: no money left' >&2; exit 1", monkeypatch)
    with pytest.raises(ExecutionError, match=r"SLURM refuses .*no money left.*--dry-run"):
        preflight("#!/bin/sh\n")


def test_sbatch_is_only_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _fake_slurm(
        tmp_path, f'echo "$1" > {tmp_path}/asked; while read l; do echo "$l"; done < "$2"', monkeypatch
    )
    preflight("#!/bin/sh\ntrue\n")
    assert (tmp_path / "asked").read_text() == "--test-only\n"


def test_a_slurm_that_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slurm_commands, "COMMAND_PATIENCE", 0.2)
    _fake_slurm(tmp_path, "exec /bin/sleep 20", monkeypatch)
    with pytest.raises(ExecutionError, match="timed out"):
        preflight("#!/bin/sh\n")


def test_jobs_that_could_not_be_cancelled_are_told(monkeypatch: pytest.MonkeyPatch):
    def no_answer(*_: str) -> str:
        raise slurm_commands.CommandError("slurmctld does not answer")

    monkeypatch.setattr(slurm_module, "command", no_answer)
    told: list[str] = []
    quiet = SimpleNamespace(close=lambda **_: None, sync=lambda *_: None)
    slurm_module._close(quiet, quiet, "diffractory-7", told.append)
    (line,) = told
    assert "slurmctld does not answer" in line
    assert line.endswith("scancel --name=diffractory-7")
