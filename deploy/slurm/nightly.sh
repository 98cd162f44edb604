#!/bin/bash
#SBATCH --job-name=skysub-nightly
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:INT@120
# A schedule for sites without cron: the job hands in its successor, which begins EVERY later, and then does what is new.
# Start the first one by `sbatch nightly.sh`, end the schedule by `scancel --name=skysub-nightly`.
set -u
: "${SKYSUB_RECIPE:?the recipe}" "${SKYSUB_OUTPUT:?the output}"
: "${EVERY:=1hour}"
# a requeued job has a successor already
if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then
    sbatch --begin="now+$EVERY" --export=ALL "${SKYSUB_SCRIPT:-$0}"
fi
trap 'kill -INT "$child"' INT TERM
skysub run "$SKYSUB_RECIPE" --output "$SKYSUB_OUTPUT" ${SKYSUB_OPTIONS:-} &
child=$!
while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
# 75: an earlier job works still; 2: the time was over, and the successor goes on
[ "$code" = 75 ] || [ "$code" = 2 ] || exit "$code"
