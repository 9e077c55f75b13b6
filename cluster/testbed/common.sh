# Shared by up.sh and down.sh: where the testbed is, and which processes are its own. Sourced, not run.
# shellcheck shell=bash disable=SC2034  # the settings are used by the scripts that source this

#: Folder of everything the testbed writes. Unix sockets lie below it, so its path must be short.
DIR=${DIFFRACTORY_TESTBED:-${TMPDIR:-/tmp}/diffractory-slurm}
#: Virtual nodes, and the processors and MB of memory that each declares (they may exceed the machine's).
NODES=${TESTBED_NODES:-3}
CPUS=${TESTBED_CPUS:-2}
MEMORY_MB=${TESTBED_MEMORY_MB:-4096}
#: First of NODES + 1 TCP ports.
PORT=${TESTBED_PORT:-27810}
#: Seconds after which a silent node is down.
NODE_TIMEOUT=${TESTBED_NODE_TIMEOUT:-10}

PATH=/usr/local/sbin:/usr/sbin:/sbin:$PATH

say() { printf 'testbed: %s\n' "$*" >&2; }
die() { say "ERROR: $*"; exit 1; }

# Only one script works on a testbed at a time. Daemons do not inherit the lock (see launch in up.sh).
lock() {
    exec 9>"$DIR/.lock"
    flock -w 120 9 || die "another up.sh or down.sh is at work on $DIR"
}

# daemon_pid NAME PIDFILE: print the pid if that process is the daemon NAME of this folder. A pid may
# have been given to somebody else since, so the name and the command line have to agree.
daemon_pid() {
    local pid
    pid=$(cat "$2" 2>/dev/null) || return 1
    [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$DIR/" || return 1
    printf '%s\n' "$pid"
}

# step_pids [NODE]: the daemons that watch over jobs; they hold the log of their node open.
step_pids() {
    local process
    for process in /proc/[0-9]*; do
        [ "$(cat "$process/comm" 2>/dev/null)" = slurmstepd ] || continue
        find "$process/fd" -lname "$DIR/log/slurmd.${1:-*}.log" 2>/dev/null | grep -q . || continue
        printf '%s\n' "${process#/proc/}"
    done
}

# job_pids [NODE]: the processes of jobs, which know their cluster and node by their environment.
job_pids() {
    local process environment
    for process in /proc/[0-9]*; do
        environment=$(tr '\0' '\n' 2>/dev/null <"$process/environ") || continue
        grep -qxF "SLURM_CONF=$DIR/slurm.conf" <<<"$environment" || continue
        grep -qx "SLURMD_NODENAME=${1:-n[0-9]*}" <<<"$environment" || continue
        [ "${process#/proc/}" = "$$" ] || printf '%s\n' "${process#/proc/}"
    done
}
