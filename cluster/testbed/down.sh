#!/usr/bin/env bash
# Stop what up.sh started, process by process, and nothing else.
#
#   sudo cluster/testbed/down.sh [FOLDER]                cancel all jobs, stop the daemons
#   sudo cluster/testbed/down.sh --purge [FOLDER]        the same, then delete the folder with its logs
#   sudo cluster/testbed/down.sh --crash NODE [FOLDER]   kill a node with all its jobs, as a power cut
#                                                        does; up.sh brings it back
#
# Succeeds where nothing runs.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$HERE/common.sh"

CRASH='' PURGE=''
case ${1:-} in
    --crash)
        CRASH=${2:?name a node, such as n2}
        shift 2
        ;;
    --purge)
        PURGE=1
        shift
        ;;
esac
DIR=${1:-$DIR}
[ -d "$DIR" ] || { say "nothing at $DIR"; exit 0; }
DIR=$(cd "$DIR" && pwd -P)
[ -e "$DIR/.lock" ] || die "$DIR is no testbed: up.sh did not make it"
[ "$(id -u)" = 0 ] || die "must run as root, as up.sh did"
lock
export SLURM_CONF=$DIR/slurm.conf

kill_all() {
    local pid
    for pid in "$@"; do kill -KILL "$pid" 2>/dev/null || true; done
}

running() { [ -d "/proc/$1" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }

# stop NAME PIDFILE: ask the daemon to end, insist after 10 s.
stop() {
    local pid
    if pid=$(daemon_pid "$1" "$2"); then
        kill -TERM "$pid" 2>/dev/null || true
        for _ in $(seq 1 100); do
            running "$pid" || break
            sleep 0.1
        done
        if running "$pid"; then kill_all "$pid"; fi
    fi
    rm -f "$2"
}

cancel_jobs() {
    daemon_pid slurmctld "$DIR/run/slurmctld.pid" >/dev/null || return 0
    local jobs
    mapfile -t jobs < <(timeout 20 squeue -h -o %A 2>/dev/null | sort -u)
    [ "${#jobs[@]}" -gt 0 ] || return 0
    timeout 20 scancel "${jobs[@]}" || true
    for _ in $(seq 1 60); do
        [ -n "$(timeout 20 squeue -h -o %A 2>/dev/null)" ] || break
        sleep 0.25
    done
}

if [ -n "$CRASH" ]; then
    pid=$(daemon_pid slurmd "$DIR/run/slurmd.$CRASH.pid") || die "node $CRASH does not run"
    kill_all "$pid"
    # Twice: a job may have been starting a process meanwhile.
    for _ in 1 2; do
        mapfile -t pids < <(step_pids "$CRASH"; job_pids "$CRASH")
        kill_all "${pids[@]}"
    done
    rm -f "$DIR/run/slurmd.$CRASH.pid"
    say "crashed $CRASH"
    exit 0
fi

cancel_jobs
for pidfile in "$DIR"/run/slurmd.*.pid; do
    if [ -e "$pidfile" ]; then stop slurmd "$pidfile"; fi
done
mapfile -t pids < <(step_pids; job_pids)
kill_all "${pids[@]}"
stop slurmctld "$DIR/run/slurmctld.pid"
stop munged "$DIR/run/munged.pid"
# The next start finds an empty queue.
rm -rf "$DIR/state" "$DIR/spool" "$DIR/run/munge.socket" "$DIR/run/munge.socket.lock"
if [ -n "$PURGE" ]; then rm -rf "$DIR"; fi
say "stopped"
