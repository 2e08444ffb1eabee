#!/usr/bin/env bash
# Run a study as a Slurm job array: `sbatch slurm-array.sh`. See docs/cluster.md.
#
# Each task is a launch of its own, with its own Ray, on the cores and GPUs that it gets. The tasks share the study through its
# store: each cell is computed by one of them. They may start at different times, and further ones may be submitted at any time.

# Requeue a task after a preemption, a lost node or the time limit; others take over its cells, from their checkpoints.
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120

# ---- edit: number of tasks, and resources of each ---------------------------------------------------------------------------
#SBATCH --job-name=tiekd
#SBATCH --array=1-8
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --output=tiekd-%A-%a.log
# ---- edit: study and store; all nodes must see every path under this name ---------------------------------------------------
ENVIRONMENT=/shared/tiekd/.venv # a virtual environment with tiekd
FOLDER=/shared/tiekd # contains data/ as the study names it
STUDY=ablations/studies/kitti.yaml
STORE=/shared/stores/kitti # or s3://bucket/prefix
OPTIONS=() # more options of `tiekd ablate`, such as (--seeds 1)
# ---- nothing to edit below --------------------------------------------------------------------------------------------------

set -euo pipefail
# shellcheck source=/dev/null
source "$ENVIRONMENT/bin/activate"
cd "$FOLDER"

# Ray's files go to the node's own disk. The path must be short, because it contains sockets.
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/tiekd-$SLURM_JOB_ID}
mkdir -p "$RAY_TMPDIR"
export RAY_USAGE_STATS_ENABLED=0

tiekd ablate "$STUDY" --store "$STORE" "${OPTIONS[@]}" &
requeue() {
    trap '' TERM
    echo "slurm-array.sh: the time limit is near; the task is requeued and will go on with what is left then"
    kill -TERM %1
    scontrol requeue "$SLURM_JOB_ID" || echo "slurm-array.sh: cannot requeue the task; submit it again"
}
trap requeue TERM
ended=0
wait %1 || ended=$?
exit "$ended"
