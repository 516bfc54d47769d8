#!/usr/bin/env bash
# Records the workflow history of a task, for the replay tests: every change of workflow logic comes with one.
# Those of batch jobs and schedules come from a test: QUICFLOW_RECORD=1 go test ./internal/rollout -run TestRollouts
# usage: scripts/record-history.sh DATA_DIR TASK_ID NAME   (writes workflows/testdata/NAME.json)
set -euo pipefail
[ $# -eq 3 ] || { sed -n '2,4p' "$0"; exit 2; }
data=$1 task=$2 out=workflows/testdata/$3.json
api=$(jq -r .api "$data/endpoint.json")
# The token goes to curl by a file, as others can read its arguments.
header=$(mktemp)
trap 'rm -f "$header"' EXIT
printf 'Authorization: Bearer %s' "$(cat "$data/admin.token")" >"$header"
workflow=$(curl -fsS -H @"$header" "$api/api/release/tasks/$task" | jq -r '.workflow_id|@uri')
mkdir -p "$(dirname "$out")"
curl -fsS -H @"$header" "$api/temporal/api/v1/namespaces/default/workflows/$workflow/history" | jq -c .history >"$out"
echo "$out: $(jq '.events|length' "$out") events"
