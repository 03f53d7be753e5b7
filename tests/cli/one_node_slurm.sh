#!/usr/bin/env bash
# Runs a command with a Slurm of one node, this machine, which is there as long as the command runs. Root.
#   one_node_slurm.sh FOLDER COMMAND...
set -euo pipefail

folder=$1
shift
export SLURM_CONF=$folder/slurm.conf
mkdir -p "$folder/state" "$folder/spool"
port=$((20000 + $$ % 20000))
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=0
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF

/usr/sbin/slurmctld -D 2>/dev/null &
controller=$!
/usr/sbin/slurmd -D 2>/dev/null &
node=$!
trap 'kill $node $controller 2>/dev/null; wait $node $controller 2>/dev/null || true' EXIT
for _ in $(seq 300); do
  [ "$(sinfo -h -o %t 2>/dev/null)" = idle ] && break
  kill -0 $controller 2>/dev/null && kill -0 $node 2>/dev/null ||
    { tail -n 5 "$folder"/slurm*.log >&2; exit 3; }
  sleep 0.1
done
"$@"
