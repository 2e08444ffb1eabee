#!/usr/bin/env bash
# A study on the nodes of one Slurm job: `sbatch slurm.sh`. docs/cluster.md says more.

# One Ray per node, and none of anybody else's there: `ray symmetric-run` refuses to begin beside one, and its end stops all.
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
# A job that is preempted, loses a node or runs out of time is queued again, and goes on from the checkpoints in the store.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120

# ---- edit: what the job asks for --------------------------------------------------------------------------------------------
#SBATCH --job-name=tiekd
#SBATCH --nodes=4
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --output=tiekd-%j.log
# ---- edit: what it computes, and where; every path is seen by all nodes -----------------------------------------------------
ENVIRONMENT=/shared/tiekd/.venv # a virtual environment with tiekd
FOLDER=/shared/tiekd # with data/ and maps/, as studies name them
STUDY=ablations/studies/kitti.yaml
STORE=/shared/stores/kitti # or s3://bucket/prefix
OPTIONS=() # further ones of `tiekd ablate`, such as (--seeds 1)
PORT=6399 # on the first node; not Ray's own 6379, where another Ray might be met by accident
# ---- nothing to edit below --------------------------------------------------------------------------------------------------

set -euo pipefail
# shellcheck source=/dev/null
source "$ENVIRONMENT/bin/activate"
cd "$FOLDER"

# This script runs on the first node. Its address and not its name, which some nodes resolve to 127.0.1.1 for themselves.
read -r HEAD _ <<<"$(hostname -I)"

# A token of this job alone, so that nobody else's processes reach its Ray; srun hands the environment to all nodes.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
# Ray's files on each node's own disk; a short path, since sockets lie there. With --temp-dir instead, symmetric-run would not
# find the cluster that it has started.
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/tiekd-$SLURM_JOB_ID}
export RAY_USAGE_STATS_ENABLED=0
# For all nodes to start; its own 30 s are few where the environment comes from a slow disk.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# When the first node has ended, the others need not wait a minute for its return. (The launch itself has more patience.)
export RAY_gcs_rpc_server_reconnect_timeout_s=15

queue_again() {
    trap '' TERM
    echo "slurm.sh: time is nearly up; the job is queued again and goes on from the store"
    scontrol requeue "$SLURM_JOB_ID" || echo "slurm.sh: it cannot be queued again here: submit it again"
}
trap queue_again TERM

# The study's exit code goes by a file: symmetric-run exits with 1 after any study, and with 0 where Ray could not start.
code=$(mktemp)
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run --address "$HEAD:$PORT" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus="$SLURM_CPUS_PER_TASK" -- \
    bash -c '"${@:2}"; echo $? >"$1"' study "$code" \
    env --unset=RAY_gcs_rpc_server_reconnect_timeout_s \
    tiekd ablate "$STUDY" --store "$STORE" --address "$HEAD:$PORT" "${OPTIONS[@]}" &
wait $! || true # a signal ends the wait, too
read -r ended <"$code" || ended=1
rm "$code"
exit "$ended"
