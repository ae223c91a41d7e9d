#!/bin/sh
# running, success or failed: what has become of the PBS job $1. A server that does not answer is
# no failed job: it is asked again for ten minutes.
for _ in 1 2 3 4 5 6 7 8 9 10; do
  if answer=$(qstat -x -f "$1" 2>&1); then
    state=$(printf '%s\n' "$answer" | sed -n 's/^ *job_state = //p')
    code=$(printf '%s\n' "$answer" | sed -n 's/^ *Exit_status = //p')
    case "$state" in
      F | C | X) if [ "$code" = 0 ]; then echo success; else echo failed; fi ;;
      *) echo running ;;
    esac
    exit 0
  fi
  case "$answer" in *[Uu]nknown\ [Jj]ob*) echo failed; exit 0 ;; esac
  sleep 60
done
echo running
