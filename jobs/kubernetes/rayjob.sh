#!/bin/sh
# Makes the RayJob, waits until it has ended, and ends with the exit code of its run; 1 if the run
# came to nothing. What the pod of cronjob.yaml runs.
set -eu

manifest=${1:-/jobs/rayjob.yaml}
POLL_S=${POLL_S:-15}

status() { # one field of it; empty if it does not exist or has no status yet
    kubectl get -f "$manifest" --ignore-not-found -o "jsonpath={.status.$1}"
}

# A RayJob that has ended belongs to an earlier night. One that has not was started by an earlier pod
# of this night, or is a long run of the night before: wait for it, and start none beside it.
case $(status jobDeploymentStatus) in
Complete | Failed | ValidationFailed) kubectl delete -f "$manifest" ;;
esac
found=$(kubectl get -f "$manifest" --ignore-not-found -o name)
[ -n "$found" ] || kubectl create -f "$manifest"

while :; do
    if seen=$(kubectl get -f "$manifest" --ignore-not-found \
        -o 'jsonpath={.metadata.name}:{.status.jobDeploymentStatus}'); then
        case $seen in
        *:Complete | *:Failed | *:ValidationFailed) break ;;
        '')
            echo "the RayJob was deleted" >&2
            exit 1
            ;;
        esac
    fi # else Kubernetes does not answer, which may be transient
    sleep "$POLL_S"
done

message=$(status message)
printf '%s\n' "$seen: $message"
[ "$(status jobStatus)" != SUCCEEDED ] || exit 0
# The message begins with Ray's words and continues with the end of the run's log.
code=$(printf '%s\n' "$message" |
    sed -n '1s/^Job entrypoint command failed with exit code \([0-9]\{1,\}\).*/\1/p')
exit "${code:-1}"
