#!/usr/bin/env bash
# Run a study on the nodes of one Slurm job: `sbatch slurm.sh`. See docs/cluster.md.

# Whole nodes: `ray symmetric-run` refuses to start where Ray is already running, and stops every Ray process at its end.
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
# Requeue the job after a preemption, a lost node or the time limit; it resumes from the checkpoints in the store.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120

# ---- edit: resources of the job ---------------------------------------------------------------------------------------------
#SBATCH --job-name=tiekd
#SBATCH --nodes=4
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --output=tiekd-%j.log
# ---- edit: study and store; all nodes must see every path under this name ---------------------------------------------------
ENVIRONMENT=/shared/tiekd/.venv # a virtual environment with tiekd
FOLDER=/shared/tiekd # contains data/ as the study names it
STUDY=ablations/studies/kitti.yaml
STORE=/shared/stores/kitti # or s3://bucket/prefix
OPTIONS=() # more options of `tiekd ablate`, such as (--seeds 1)
PORT=6399 # on the first node; not Ray's default 6379, which another Ray may use
# ---- nothing to edit below --------------------------------------------------------------------------------------------------

set -euo pipefail
# shellcheck source=/dev/null
source "$ENVIRONMENT/bin/activate"
cd "$FOLDER"

# This script runs on the first node. Use its address: some machines resolve their own name to 127.0.1.1.
read -r HEAD _ <<<"$(hostname -I)"

# A token for this job only, so that no other user can connect to its Ray; srun passes the environment to all nodes.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
# Ray's files go to each node's own disk. The path must be short, because it contains sockets. Not --temp-dir: symmetric-run
# would not find the cluster that it has started.
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/tiekd-$SLURM_JOB_ID}
export RAY_USAGE_STATS_ENABLED=0
# Seconds until all nodes must have joined; the default of 30 is too short for a slow shared disk.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# When the first node has ended, the others stop after 15 s instead of 60. (Not for the launch itself, which may wait longer.)
export RAY_gcs_rpc_server_reconnect_timeout_s=15

requeue() {
    trap '' TERM
    echo "slurm.sh: the time limit is near; the job is requeued and will resume from the store"
    scontrol requeue "$SLURM_JOB_ID" || echo "slurm.sh: cannot requeue the job; submit it again"
}
trap requeue TERM

# A file passes on the study's exit code: symmetric-run exits with 1 after any study, and with 0 if Ray could not start.
code=$(mktemp)
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run --address "$HEAD:$PORT" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus="$SLURM_CPUS_PER_TASK" -- \
    bash -c '"${@:2}"; echo $? >"$1"' study "$code" \
    env --unset=RAY_gcs_rpc_server_reconnect_timeout_s \
    tiekd ablate "$STUDY" --store "$STORE" --address "$HEAD:$PORT" "${OPTIONS[@]}" &
wait $! || true # a signal also ends the wait
read -r ended <"$code" || ended=1
rm "$code"
exit "$ended"
