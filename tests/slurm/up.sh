#!/usr/bin/env bash
# Starts a SLURM of one machine in a folder, with two GPUs that are none and no accounting: tests/slurm/up.sh DIR, then
# export SLURM_CONF=DIR/slurm.conf PATH=DIR/bin:$PATH. Nothing outside the folder is written; one that is up already is left
# as it is.
set -euo pipefail
mkdir -p "${1:?a folder}"
dir=$(cd "$1" && pwd)
export SLURM_CONF=$dir/slurm.conf
if [ -f "$SLURM_CONF" ] && scontrol ping 2>/dev/null | grep -q "is UP"; then exit 0; fi
host=$(hostname -s) user=$(id -un)
# ports that are free now, so that another SLURM may run on this machine
read -r controller daemon < <(python3 -c 'import socket
a, b = socket.socket(), socket.socket()
a.bind(("", 0)), b.bind(("", 0))
print(a.getsockname()[1], b.getsockname()[1])')
mkdir -p "$dir/state" "$dir/spool" "$dir/bin"
# the executor starts srun without SLURM_CONF
printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(command -v srun)" > "$dir/bin/srun"
chmod +x "$dir/bin/srun"
cat > "$SLURM_CONF" <<C
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$daemon
SlurmUser=$user
SlurmdUser=$user
# neither munge nor cgroups nor a database
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# the node has what is said here, whatever the machine has
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=600
KillWait=1
SchedulerParameters=sched_min_interval=0
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=24 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=$host Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=$host MaxTime=INFINITE State=UP
C
# a GPU needs a device of its own, or the node is invalid
printf 'Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n' > "$dir/gres.conf"
slurmctld -c
slurmd
for _ in $(seq 100); do
  if [ "$(sinfo --noheader --partition gpu --format %t 2>/dev/null)" = idle ]; then exit 0; fi
  sleep 0.2
done
echo "the node did not become idle; see $dir/slurmctld.log and $dir/slurmd.log" >&2
exit 1
