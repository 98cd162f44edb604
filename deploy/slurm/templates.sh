#!/bin/bash
#SBATCH --job-name=skysub-templates
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --open-mode=append
# New templates by band and date, as often as EVERY says; as nightly.sh, the job hands in its successor.
# Start the first one by `sbatch templates.sh`, end the schedule by `scancel --name=skysub-templates`.
set -u
: "${SKYSUB_OUTPUT:?the output of the campaign}" "${SKYSUB_TEMPLATES:?the folder of templates}"
: "${EVERY:=30days}"
# a requeued job has a successor already
if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then
    sbatch --begin="now+$EVERY" --export=ALL "${SKYSUB_SCRIPT:-$0}"
fi
exec skysub templates "$SKYSUB_OUTPUT" --output "$SKYSUB_TEMPLATES" --threads 2 ${SKYSUB_TEMPLATES_OPTIONS:-}
