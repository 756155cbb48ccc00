#!/bin/sh
# Runs batchlight as a job of a Ray cluster and ends with the run's own exit code:
#
#     RAY_API_SERVER_ADDRESS=http://HEAD:8265 submit.sh CONFIG [OPTION...]
#
# OPTIONs are those of "batchlight run" and override CONFIG. The run's log is printed; Ctrl-C and
# SIGTERM stop the run. Needs ray[default] here, in the cluster's version, and batchlight there.
set -eu

POLL_S=${POLL_S:-10}    # between two checks whether the run has ended
PATIENCE=${PATIENCE:-30} # how many checks in a row may go unanswered

die() {
    echo "submit.sh: $2" >&2
    exit "$1"
}

[ $# -ge 1 ] || die 2 "usage: submit.sh CONFIG [OPTION...], e.g. submit.sh nightly.yaml"
[ -r "$1" ] || die 2 "cannot read $1"
# Without an address "ray job submit" would start a cluster of its own.
address=${RAY_API_SERVER_ADDRESS:-}
[ -n "$address" ] || die 2 "set RAY_API_SERVER_ADDRESS, e.g. to http://HEAD:8265"
config=$1
shift

id=batchlight-$(date +%Y%m%dT%H%M%S)-$$
folder=$(mktemp -d)
following=
trap 'rm -rf "$folder"' EXIT

# shellcheck disable=SC2329  # the traps below call it
stop() {
    trap '' INT TERM
    [ -z "$following" ] || kill "$following" 2>/dev/null || true
    ray job stop --address "$address" "$id" >&2 || true
    die "$1" "stopped $id; run the same command again to continue"
}
trap 'stop 130' INT
trap 'stop 143' TERM

# A folder that holds nothing else, since Ray sends all of it to every node.
cp -- "$config" "$folder/run.yaml"
ray job submit --address "$address" --submission-id "$id" --working-dir "$folder" --no-wait \
    -- batchlight run --config run.yaml "$@" ||
    die 1 "cannot submit to $address; check that the cluster is up, and if it demands a token, \
set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"

# In the background, for a shell handles signals only between commands or in "wait".
ray job logs --address "$address" --follow "$id" &
following=$!
wait "$following" || true # the log may break off; it says nothing of how the run ends
following=

# Neither "ray job submit" nor "ray job logs" tells how a run ended: both end with 0 if the log
# breaks off or the run is stopped, and with 1 for every failure. Ray's list of jobs has the code.
ask() {
    ray list jobs --address "$address" --filter "submission_id=$id" --detail --format json
}
field() { # of a job, as JSON; quotes inside of texts are escaped, so they cannot be mistaken
    printf '%s\n' "$job" | sed -n "s/.*\"$1\": \"\{0,1\}\([A-Za-z0-9_-]*\).*/\1/p"
}
silent=0
while :; do
    # Also in the background, so that a signal need not wait for it.
    ask >"$folder/job" 2>"$folder/errors" &
    if wait $!; then
        silent=0
        job=$(cat "$folder/job")
        case $(field status) in
        SUCCEEDED | FAILED | STOPPED) break ;;
        esac
    else
        silent=$((silent + 1))
        if [ "$silent" -ge "$PATIENCE" ]; then
            tail -n 1 "$folder/errors" >&2
            die 1 "the cluster at $address no longer answers; run the same command again"
        fi
    fi
    sleep "$POLL_S" &
    wait $!
done

code=$(field driver_exit_code)
case $(field status):$code in
STOPPED:*) die 143 "$id was stopped; run the same command again to continue" ;;
SUCCEEDED:*) code=0 ;;
FAILED:[0-9]*) ;; # the run's own
*) die 1 "the run was killed, or the cluster lost it; run the same command again to continue" ;;
esac
echo "submit.sh: $id ended with exit code $code" >&2
exit "$code"
