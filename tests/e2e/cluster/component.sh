#!/bin/sh
# usage: component.sh FOLDER NAME COMMAND...
# Starts a component in the background; leaves its pid, its log and, when it ends, its exit status in FOLDER.
folder=$1 name=$2
shift 2
rm -f "$folder/$name.exit" "$folder/$name.pid"
{
	"$@" </dev/null >>"$folder/$name.log" 2>&1 &
	echo $! >"$folder/$name.pid"
	wait $!
	echo $? >"$folder/$name.exit"
} </dev/null >/dev/null 2>&1 &
until [ -s "$folder/$name.pid" ]; do
	sleep 0.01
done
