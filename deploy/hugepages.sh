#!/usr/bin/env bash
# hugepages.sh COMMAND...: runs COMMAND with some 2 MiB huge pages free, and takes away afterwards what it added.
# POINTSMAN_HUGEPAGES says how many (512).
set -uo pipefail

wanted=${POINTSMAN_HUGEPAGES:-512}
setting=/proc/sys/vm/nr_hugepages
number() { awk -v name="$1:" '$1 == name { print $2 }' /proc/meminfo; }
free=$(number HugePages_Free)
free=${free:-0}

if [ "$free" -lt "$wanted" ]; then
    if [ "$(id -u)" = 0 ] && [ -w $setting ]; then
        before=$(cat $setting)
        echo $((before + wanted - free)) >$setting
        added=$(($(cat $setting) - before))
        # Not back to what it was, but as many fewer: another run may have added some for itself.
        trap 'left=$(($(cat $setting) - added)); echo $((left > 0 ? left : 0)) >$setting' EXIT
        trap 'exit 130' INT TERM
        free=$(number HugePages_Free)
        echo "reserved $added huge pages of 2 MiB for this run, $free are free now; they are given back afterwards"
        if [ "$free" -lt "$wanted" ]; then
            echo "only $free of the $wanted pages that were wanted: memory is short or in pieces; as root:" \
                "echo 3 >/proc/sys/vm/drop_caches; echo 1 >/proc/sys/vm/compact_memory"
        fi
    else
        echo "only $free huge pages of 2 MiB are free: this runs on ordinary pages too, but slower." \
            "To reserve them, as root: echo $wanted >$setting"
    fi
fi
"$@"
