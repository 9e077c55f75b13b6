# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. Scale out on SLURM
#
# You have more crystals than one machine can do. The road of [notebook 2](2-build-a-dataset-and-train.ipynb)
# stays the same, and so do the commands; only where the work runs changes. On a cluster you would type them
# in a terminal on the login node, so this notebook uses the command line.
#
# It looks for SLURM first. Where there is none, the last steps run on local Dask workers instead, and the
# notebook says so.

# %%
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp(prefix="diffractory-"))  # on a cluster: a folder that all nodes see


def slurm_answers():
    """Return whether there is a SLURM here that answers."""
    if shutil.which("scontrol") is None:
        return False
    try:
        answer = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return False
    return "UP" in answer.stdout


# The testbed of this repository (cluster/testbed/up.sh) is a real SLURM on one machine.
testbed = Path(os.environ.get("DIFFRACTORY_TESTBED", "/tmp/diffractory-slurm")) / "slurm.conf"
if "SLURM_CONF" not in os.environ and testbed.exists():
    os.environ["SLURM_CONF"] = str(testbed)
slurm = slurm_answers()
if slurm:
    print("SLURM answers: the work below runs in its jobs")
else:
    print("NO SLURM HERE: the job script is shown (--dry-run), and the work runs on local Dask workers")

# %% [markdown]
# ## Describe the site
#
# A site file says what a job may ask for. This one fits the testbed; for a real cluster, usually partition,
# account, walltime, cores and memory differ (`cluster/sites/` has examples, Perlmutter's among them).

# %%
site = folder / "site.toml"
site.write_text(
    """
partition = "main"
walltime = "00:10:00"
cores = 1            # workers of one job: a core each
memory = "1200 MiB"  # of one job
jobs = 2             # jobs to keep running
interface = "lo"     # network between nodes; InfiniBand is often ib0
"""
)


def diffractory(*words):
    """Run a command as in a terminal, and print what it says."""
    done = subprocess.run(
        ["diffractory", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "FORCE_COLOR": "", "COLUMNS": "110"},
    )
    print(done.stdout.replace(str(folder), "FOLDER").replace(sys.prefix, "ENVIRONMENT"))
    if done.returncode:
        raise SystemExit(f"diffractory ended with code {done.returncode}")


# %% [markdown]
# ## Plan for that site
#
# The plan counts beams, seconds, memory and disk before anything runs, and refuses what the site's workers
# cannot hold. For 36,600 crystals it is the same command (`--estimate` to see the costs without making
# anything).

# %%
diffractory(
    "catalogue",
    "build",
    folder / "crystals.parquet",
    "--source",
    "aflow",
    "--limit",
    "16",
    "--max-volume",
    "150",
)

# %%
run = folder / "run"
diffractory(
    *(
        "plan",
        run,
        "--catalogue",
        folder / "crystals.parquet",
        "--orientations",
        "20",
        "--thickness",
        "100:500:100",
    ),
    *("--partition-seconds", "0.05", "--site", site),
)

# %% [markdown]
# ## Look at the job script
#
# Nothing is submitted yet. This is what SLURM would get, `jobs` times:

# %%
diffractory("simulate", run, "--cluster", "slurm", "--site", site, "--dry-run")

# %% [markdown]
# ## Run
#
# Jobs that die are replaced, within a budget. Walltimes that end, nodes that fail and a driver that is killed
# lose nothing but the partitions in flight: type the same command again. On a cluster the driver is a job,
# too (`sbatch cluster/driver.sh`), so that you can log out.

# %%
where = ("--cluster", "slurm", "--site", site) if slurm else ("--cluster", "local", "--workers", "2")
diffractory("simulate", run, *where)

# %% [markdown]
# ## Watch, and check
#
# `status` reads the run folder alone, so it answers from any machine, while the run goes on and years later.
# Each finished partition has left a record with its checksum, host and seconds.

# %%
diffractory("status", run)

# %% [markdown]
# The driver's log has a line for each partition, for scripts and for pictures: what ran when? The first
# partitions take longer, because a new worker has libraries to load.

# %%
import pandas as pd

from diffractory.report.style import new_figure, tidy

log = pd.concat(pd.read_json(path, lines=True) for path in sorted((run / "log").glob("*.jsonl")))
ended = pd.to_datetime(log["time"])
start = (ended - ended.min()).dt.total_seconds() - log["seconds"]
start -= start.min()
figure = new_figure(6.2, 3.0)
axes = figure.subplots()
axes.barh(range(len(log)), log["seconds"], left=start, color="#0072B2")
axes.set(xlabel="time since the first partition began (s)", ylabel="partitions, as finished")
axes.set_yticks(range(len(log)), log["partition"])
tidy(axes)
figure

# %% [markdown]
# From here on it is notebook 2 again: `diffractory verify RUN`, `features`, `train`. `verify` and `features`
# take the same `--cluster` options; training runs inside one job.
#
# What happens when something goes wrong, case by case, is in `cluster/README.md` of the repository.
