# Runs one Postgres, as often as it is told to, until the pipe on standard input is closed; then
# stops it and removes its directory. The program that holds the other end may be killed at any moment.
#
# DIR        the directory: its data is in DIR/data, its socket in DIR, its log is DIR/log
# BIN        the directory of Postgres's programs
# SOURCE     for "copy": the socket's directory of the Postgres to copy
# standard input, a command a line: init, copy, start, quit, fill, free. Each is answered with its
#            status.

set -u
umask 077
trap '' HUP INT TERM
exec 3<&0 </dev/null
postgres=

quit() {
    [ -z "$postgres" ] || kill -s "$1" "$postgres" 2>/dev/null
    [ -z "$postgres" ] || wait "$postgres"
    postgres=
}

while read -r command <&3; do
    case $command in
    init)
        "$BIN/initdb" --auth=trust --username=holdfast --encoding=UTF8 --locale=C --no-sync \
            --no-instructions --pgdata="$DIR/data" >>"$DIR/log" 2>&1 3<&-
        ;;
    copy)
        "$BIN/pg_basebackup" --host="$SOURCE" --username=holdfast --pgdata="$DIR/data" \
            --checkpoint=fast --wal-method=stream --write-recovery-conf --no-sync \
            >>"$DIR/log" 2>&1 3<&-
        ;;
    start)
        "$BIN/postgres" -D "$DIR/data" -k "$DIR" "$@" >>"$DIR/log" 2>&1 3<&- &
        postgres=$!
        ;;
    # At once: connections are cut, nothing is written out, and the next start recovers.
    quit) quit QUIT ;;
    # The disk is full, but for what Postgres has already.
    fill) dd if=/dev/zero of="$DIR/data/filler" bs=64k >/dev/null 2>&1 || true ;;
    free) rm -f "$DIR/data/filler" ;;
    esac
    echo $?
done
quit QUIT >/dev/null 2>&1
cd /
rm -rf -- "$DIR" 2>/dev/null
