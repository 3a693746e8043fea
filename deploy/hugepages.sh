#!/usr/bin/env bash
# hugepages.sh COMMAND...: runs COMMAND with some 2 MiB huge pages free, and puts the machine's setting back afterwards.
set -uo pipefail

wanted=${POINTSMAN_HUGEPAGES:-512}
setting=/proc/sys/vm/nr_hugepages
before=$(cat $setting 2>/dev/null || echo 0)
free=$(awk '/^HugePages_Free:/ { print $2 }' /proc/meminfo)
free=${free:-0}

if [ "$free" -lt "$wanted" ]; then
    if [ "$(id -u)" = 0 ] && [ -w $setting ]; then
        trap 'echo "$before" >$setting' EXIT
        trap 'exit 130' INT TERM
        echo $((before + wanted - free)) >$setting
        free=$(awk '/^HugePages_Free:/ { print $2 }' /proc/meminfo)
        echo "reserved huge pages of 2 MiB for this run: $free are free now, the setting goes back to $before afterwards"
    else
        echo "only $free huge pages of 2 MiB are free: this runs on ordinary pages too, but slower." \
            "To reserve them, as root: echo $wanted >$setting"
    fi
fi
"$@"
