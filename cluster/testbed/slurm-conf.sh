# The testbed's slurm.conf on standard output, from the settings in common.sh. Sourced, not run.
# shellcheck shell=bash disable=SC2154

slurm_conf() {
    local host=$1 bind='# CommunicationParameters: default, all interfaces (munge vouches for requests)'
    # Loopback only, where the host's name means just that; elsewhere the daemons could not be reached.
    if [ "$(getent ahostsv4 "$host" | awk 'NR == 1 { print $1 }')" = 127.0.0.1 ]; then
        bind='CommunicationParameters=NoInAddrAny,NoCtldInAddrAny'
    fi
    cat <<CONF
ClusterName=testbed
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
$bind
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.socket
CredType=cred/munge
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
StateSaveLocation=$DIR/state
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmdLogFile=$DIR/log/slurmd.%n.log
SlurmdSpoolDir=$DIR/spool/%n
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
# Neither cgroups nor systemd.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# A job above its memory is killed, as at a real site.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
# Quick turns.
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=1
SelectType=select/cons_tres
# Jobs spread over the nodes: the least loaded comes first.
SelectTypeParameters=CR_CPU_Memory,CR_LLN
DefMemPerCPU=256
# Nodes that die and come back.
ReturnToService=2
SlurmdTimeout=$NODE_TIMEOUT
KillWait=5
UnkillableStepTimeout=20
# Nodes may declare more than the machine has.
SlurmdParameters=config_overrides
NodeName=n[1-$NODES] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((PORT + 1))-$((PORT + NODES))] CPUs=$CPUS RealMemory=$MEMORY_MB
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=00:30:00 State=UP
CONF
}
