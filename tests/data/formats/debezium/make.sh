#!/bin/sh
# Makes plain.jsonl, with-schema.jsonl and avro.jsonl anew: PostgreSQL, and Debezium's connector in its embedded engine, all on this machine. Needs Java 17, Maven, PostgreSQL (not as root: it refuses) and Python. About a minute.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
port=54329
PATH="$PATH:$bin"
cp "$here/Make.java" "$here/pom.xml" "$work"
cd "$work"
mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs
javac -cp 'libs/*' Make.java
initdb -A trust -U postgres -D data > /dev/null
pg_ctl -D data -o "-p $port -c wal_level=logical -c listen_addresses=127.0.0.1 -k $work" -l log -w start
trap 'pg_ctl -D "$work/data" -m fast stop; rm -rf "$work"' EXIT
for kind in plain with-schema avro; do
  java -cp 'libs/*:.' -Dorg.slf4j.simpleLogger.defaultLogLevel=error Make "$port" "$kind.jsonl" "$kind"
  python3 "$here/trim.py" "$kind.jsonl" > "$here/$kind.jsonl"
done
