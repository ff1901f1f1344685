#!/usr/bin/env bash
# Submit the night's RayJob and wait for its end: 0 done, 3 failed, 2 a name without a night.
#
# The night is the one the schedule means: the CronJob controller names its Job after the scheduled minute, so a pod
# that is started again, after midnight too, finds the same RayJob and the same run. By hand, for a night that was
# missed:  kubectl -n gan create job --from=cronjob/gan-nightly gan-nightly-2026-11-23
set -euo pipefail

case "$JOB_NAME" in
  *-[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]) night=${JOB_NAME: -10} ;;
  *-[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]) night=$(date --utc --date="@$((${JOB_NAME##*-} * 60))" +%F) ;;
  *) echo "error: no night (job name): $JOB_NAME; expected a name ending in minutes since 1970 or in YYYY-MM-DD" >&2; exit 2 ;;
esac
run="nightly-$night"

status() { kubectl get "rayjob/$run" --ignore-not-found --output "jsonpath={.metadata.name} {.status.jobDeploymentStatus}"; }

until known=$(status); do sleep "${POLL_SECONDS:=15}"; done
if [[ -z "${known// /}" ]]; then
  sed -e "s|\$RUN|$run|g; s|\$JOB_NAME|$JOB_NAME|g; s|\$JOB_UID|$JOB_UID|g; s|\$ARGUMENTS|$ARGUMENTS|g" \
    "$(dirname "$0")/night.yaml" | kubectl create --validate=strict --filename -
fi
while true; do
  case "$(status || true)" in
    *\ Complete) echo "$run: done"; exit 0 ;;
    *\ Failed | *\ ValidationFailed) echo "error: the night failed (rayjob/$run): see kubectl describe; expected Complete" >&2; exit 3 ;;
  esac
  sleep "${POLL_SECONDS:=15}"
done
