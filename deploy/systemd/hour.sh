#!/bin/sh
# One hour of a study: readings from the warehouse, and the next plan. Repeating it changes nothing.
set -eu
: "${BEGAN:?the time at which round 0 began, in seconds since 1970}"
: "${WAREHOUSE:?the address of the warehouse, such as postgresql://reader@host/logs}"
folder=${HYPERZERO_FOLDER:-/etc/hyperzero}
round=$(( ($(date +%s) - BEGAN) / 3600 ))
psql "$WAREHOUSE" --no-psqlrc --csv --quiet --set ON_ERROR_STOP=1 --set round="$round" \
  --file "$folder/hour.sql" > readings.csv
set --
[ "$(wc -l < readings.csv)" -gt 1 ] && set -- --readings readings.csv
exec hyperzero step -c "$folder/tuning.yaml" --round "$round" "$@" --plan plan.json
