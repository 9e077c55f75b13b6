#!/usr/bin/env bash
# A real SLURM of several virtual nodes on one machine, for tests and rehearsals.
#
#   sudo cluster/testbed/up.sh [FOLDER]     install SLURM if it is missing, start, wait for the nodes
#   . FOLDER/env.sh                         sbatch, squeue and diffractory talk to it in this shell
#   sudo cluster/testbed/down.sh [FOLDER]   stop it
#
# Needs Debian or Ubuntu and root, because SLURM starts jobs as their owners; no systemd, no containers,
# no cgroups. Each node is a slurmd of its own with its own port, so a node can really die. Everything
# but the packages is written below FOLDER (default: $DIFFRACTORY_TESTBED or /tmp/diffractory-slurm).
# What runs already is left alone, and what died is started again. Settings: see common.sh.
set -euo pipefail
umask 022
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$HERE/common.sh"
# shellcheck source-path=SCRIPTDIR source=slurm-conf.sh
. "$HERE/slurm-conf.sh"
DIR=${1:-$DIR}

[ "$(uname -s)" = Linux ] || die "needs Linux: every node is a slurmd of this machine"
[ "$(id -u)" = 0 ] || die "must run as root: SLURM starts jobs as their owners (try: sudo $0)"
mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd -P)
[ "${#DIR}" -le 60 ] || die "the path $DIR is too long for Unix sockets: name a folder of at most 60 characters"
HOST=$(hostname -s 2>/dev/null || hostname)
lock

install_missing() {
    local missing=() pair
    for pair in munge:munged slurmctld:slurmctld slurmd:slurmd slurm-client:sbatch; do
        command -v "${pair#*:}" >/dev/null || missing+=("${pair%%:*}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "SLURM is not installed and there is no apt-get to install it"
    say "installing ${missing[*]}"
    # The packages' own services must not start: they would use /etc/slurm and the usual ports.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=1
    fi
    local status=0
    {
        apt-get update -q -o Acquire::Retries=3 &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
                -o DPkg::Lock::Timeout=120 "${missing[@]}"
    } >"$DIR/apt.log" 2>&1 || status=$?
    if [ -n "$made" ]; then rm -f "$policy"; fi
    if [ "$status" != 0 ]; then
        tail -n 20 "$DIR/apt.log" >&2
        die "apt-get could not install ${missing[*]} (whole log: $DIR/apt.log)"
    fi
}

# launch COMMAND...: start a daemon without this script's open files, which it would keep for good.
launch() {
    (
        for descriptor in /proc/self/fd/*; do
            descriptor=${descriptor##*/}
            if [ "$descriptor" -gt 2 ]; then eval "exec $descriptor>&-"; fi
        done
        exec "$@" </dev/null >>"$DIR/log/start.log" 2>&1
    )
}

# start NAME PIDFILE LOG PORT COMMAND...: start a daemon unless it runs; PORT may be empty.
start() {
    local name=$1 pidfile=$2 log=$3 port=$4
    shift 4
    if daemon_pid "$name" "$pidfile" >/dev/null; then return 1; fi
    if [ -n "$port" ] && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        die "port $port is taken by another program: set TESTBED_PORT"
    fi
    rm -f "$pidfile"
    launch "$@" && return 0
    tail -n 20 "$log" "$DIR/log/start.log" >&2 || true
    die "$name did not start"
}

write_settings() {
    local new
    new=$(mktemp "$DIR/slurm.conf.XXXXXX")
    slurm_conf "$HOST" >"$new"
    if ! cmp -s "$new" "$DIR/slurm.conf" && daemon_pid slurmctld "$DIR/run/slurmctld.pid" >/dev/null; then
        rm -f "$new"
        die "a testbed with other settings runs in $DIR: stop it first ($HERE/down.sh $DIR)"
    fi
    mv -f "$new" "$DIR/slurm.conf"
    chmod 644 "$DIR/slurm.conf"
    printf 'export SLURM_CONF=%s DIFFRACTORY_TESTBED=%s\n' "$DIR/slurm.conf" "$DIR" >"$DIR/env.sh"
}

bad_nodes() {
    sinfo -h -N -o '%N %t' 2>/dev/null | sort -u | awk '$2 !~ /^(idle|mix|alloc)$/ { print $1 }'
}

# A node that was started anew may still be asked about jobs that died with it: down forgets them.
revive() {
    local node
    for node in $(bad_nodes); do
        case " $STARTED " in
            *" $node "*) scontrol update nodename="$node" state=down reason=restarted 2>/dev/null || true ;;
        esac
        scontrol update nodename="$node" state=resume 2>/dev/null || true
    done
}

wait_for_nodes() {
    local turn
    for turn in $(seq 1 160); do
        if sinfo -h >/dev/null 2>&1 && [ -z "$(bad_nodes)" ]; then return 0; fi
        if [ $((turn % 8)) = 0 ]; then revive; fi
        sleep 0.25
    done
    sinfo -N -l >&2 || true
    tail -n 20 "$DIR/log/slurmctld.log" >&2
    die "nodes are not ready after 40 s: $(bad_nodes | tr '\n' ' ')"
}

install_missing
mkdir -p "$DIR"/{run,log,state,spool}
chmod 755 "$DIR" "$DIR/run"
chmod 700 "$DIR/state"
write_settings
export SLURM_CONF=$DIR/slurm.conf

if [ ! -s "$DIR/munge.key" ]; then
    (umask 077 && head -c 1024 /dev/urandom >"$DIR/munge.key")
fi
chmod 400 "$DIR/munge.key"
SOCKET=$DIR/run/munge.socket
if ! daemon_pid munged "$DIR/run/munged.pid" >/dev/null; then rm -f "$SOCKET" "$SOCKET.lock"; fi
start munged "$DIR/run/munged.pid" "$DIR/log/munged.log" "" \
    munged --key-file="$DIR/munge.key" --socket="$SOCKET" --pid-file="$DIR/run/munged.pid" \
    --log-file="$DIR/log/munged.log" --seed-file="$DIR/run/munged.seed" --num-threads=2 || true
munge -S "$SOCKET" -n | unmunge -S "$SOCKET" >/dev/null || die "munge does not answer"

# shellcheck disable=SC2153  # PORT is set in common.sh
start slurmctld "$DIR/run/slurmctld.pid" "$DIR/log/slurmctld.log" "$PORT" slurmctld -f "$SLURM_CONF" || true
for _ in $(seq 1 60); do
    if scontrol ping 2>/dev/null | grep -q UP; then break; fi
    sleep 0.25
done
scontrol ping 2>/dev/null | grep -q UP || { tail -n 20 "$DIR/log/slurmctld.log" >&2; die "slurmctld does not answer"; }

STARTED=
for i in $(seq 1 "$NODES"); do
    mkdir -p "$DIR/spool/n$i"
    if start slurmd "$DIR/run/slurmd.n$i.pid" "$DIR/log/slurmd.n$i.log" "$((PORT + i))" \
        slurmd -f "$SLURM_CONF" -N "n$i"; then
        STARTED="$STARTED n$i"
    fi
done
wait_for_nodes
sinfo -o '%P %a %D %T %N %c %m'
say "ready. In your shell: . $DIR/env.sh"
