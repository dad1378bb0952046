#!/usr/bin/env bash
# Stops the SLURM that up.sh started in a folder, with its jobs: tests/slurm/down.sh DIR. One that is down is left so.
set -uo pipefail
dir=$(cd "${1:?a folder}" && pwd) || exit 1
export SLURM_CONF=$dir/slurm.conf
timeout 10 scancel --user "$(id -un)" 2>/dev/null
for _ in $(seq 50); do
  [ -z "$(timeout 5 squeue --noheader 2>/dev/null)" ] && break
  sleep 0.2
done
for name in slurmd slurmctld; do
  pid=$(cat "$dir/$name.pid" 2>/dev/null) || continue
  # a number that another process has by now is not ours
  is_ours() { [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ]; }
  is_ours && kill "$pid"
  for _ in $(seq 50); do is_ours || break; sleep 0.1; done
  is_ours && kill -9 "$pid"
  rm -f "$dir/$name.pid"
done
exit 0
