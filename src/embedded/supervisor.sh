# Makes a Postgres cluster where there is none, runs Postgres on it, stops it when the pipe on
# standard input is closed, and cleans up. The program that holds the other end may be killed at any
# moment; the kernel closes the pipe then.
#
# HF_BIN             the directory of Postgres's programs
# HF_DIR             the directory for the cluster
# HF_USER            the user to make; HF_DATABASE: the database to make
# HF_INITDB_OPTIONS  more options for initdb, split at spaces
# HF_STOP_SIGNAL     how to stop Postgres: INT closes connections and writes data out, QUIT does not
# HF_SOCKET_DIR      a directory to remove at the end
# HF_DISCARD         another one; empty for none
# arguments          options for postgres

set -u
umask 077
# What is sent to everything at once, by a terminal or by a service manager, must not keep this from
# cleaning up. The pipe is what counts.
trap '' HUP INT TERM
# Background commands lose standard input, so the pipe moves to descriptor 3. Nothing else gets it.
exec 3<&0 </dev/null

# initdb may be interrupted, so it works beside the directory of the result.
make_cluster() {
    rm -rf -- "$HF_DIR/data.new"
    # shellcheck disable=SC2086
    "$HF_BIN/initdb" --auth=trust --username="$HF_USER" --encoding=UTF8 --locale=C \
        --no-instructions $HF_INITDB_OPTIONS --pgdata="$HF_DIR/data.new" || return
    echo "CREATE DATABASE $HF_DATABASE" |
        "$HF_BIN/postgres" --single -D "$HF_DIR/data.new" -c exit_on_error=on postgres || return
    mv -- "$HF_DIR/data.new" "$HF_DIR/data" || return
    [ -n "$HF_DISCARD" ] || sync
}

# Waits until the pipe is closed, then stops process $1. Asks again and again: a process that has
# only just started may miss the first, and one that takes too long is asked less gently.
stop_at_close() {
    read -r _ <&3
    signal=$HF_STOP_SIGNAL
    asked=0
    while kill -s "$signal" "$1"; do
        sleep 1
        asked=$((asked + 1))
        [ "$asked" -lt 30 ] || signal=QUIT
    done
}

run_postgres() {
    "$HF_BIN/postgres" -D "$HF_DIR/data" -k "$HF_SOCKET_DIR" "$@" 3<&- &
    postgres=$!
    stop_at_close "$postgres" >/dev/null 2>&1 &
    stopper=$!
    wait "$postgres"
    status=$?
    kill -s KILL "$stopper"
    wait "$stopper"
    return "$status"
}

status=0
if [ ! -d "$HF_DIR/data" ]; then
    make_cluster 3<&-
    status=$?
fi
if [ "$status" -eq 0 ]; then
    run_postgres "$@"
    status=$?
fi
cd /
rm -rf -- "$HF_SOCKET_DIR" ${HF_DISCARD:+"$HF_DISCARD"}
exit "$status"
