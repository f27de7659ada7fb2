#!/usr/bin/env bash
# The servers that chaski runs on, for development and tests: Apache Kafka, ZooKeeper and Cassandra
# as plain java processes on loopback. Needs java 17, and mvn to fetch the jars the first time.
#
#   backends.sh up [--brokers N]  start all (Kafka with 3 brokers) and print `export NAME=value` lines;
#                                 already up: only print them
#   backends.sh down              stop all, remove their data
#   backends.sh status            one line per server; exit 0 if all run, 1 if not
#   backends.sh kill NAME...      kill -9 some servers (kafka-2, zookeeper-1, cassandra-1, ...)
#   backends.sh start NAME...     start them again with the data they had
#   backends.sh tool NAME ARGS... a stock Kafka tool (kafka-topics, ...) against these brokers
#   backends.sh prefetch          fetch the jars, start nothing
#
# CHASKI_BACKENDS_DIR  where the servers live (default: target/backends of this repository)
# CHASKI_JARS          where jars are kept, for all clones (default: ~/.cache/chaski/jars)
# CHASKI_JAVA          the java to use
# CHASKI_BACKENDS_ADVERTISE  proxies, one HOST:PORT for each broker, separated by commas: each broker
#                      gets a second listener, whose clients are told these addresses. Where the
#                      listeners are, `up` prints as CHASKI_BACKENDS_BEHIND
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=$(realpath -m "${CHASKI_BACKENDS_DIR:-$here/../../target/backends}")
run=$state/run # one directory per server: configuration, data, log; and the file `exports` once all are up
jars=$(realpath -m "${CHASKI_JARS:-${XDG_CACHE_HOME:-$HOME/.cache}/chaski/jars}")
patience=120 # seconds in which a server must be ready

say() { echo "backends: $*" >&2; }
die() { say "error: $*"; exit 1; }

# Cassandra 5 runs on java 11 or 17 only, so a newer default java is passed over if 17 is installed.
java_bin() {
  local java17=(/usr/lib/jvm/java-17-openjdk-*/bin/java)
  if [[ -n ${CHASKI_JAVA:-} ]]; then echo "$CHASKI_JAVA"
  elif [[ -x ${java17[0]} ]]; then echo "${java17[0]}"
  else type -P java || die "no java found: install openjdk-17-jre-headless"; fi
}

# --- Jars ---------------------------------------------------------------------------------------

# The directory of a server's jars. Its name holds the hash of the pom, so that clones at different
# versions share one place; it appears whole or not at all.
jar_dir() { echo "$jars/$1-$(sha256sum <"$here/$1/pom.xml" | cut -c1-12)"; }

fetch() (
  dir=$(jar_dir "$1")
  [[ ! -d $dir ]] || exit 0
  mkdir -p "$jars"
  exec 8<"$jars"
  flock 8 # another clone may be fetching the same
  [[ ! -d $dir ]] || exit 0
  command -v mvn >/dev/null || die "$1: its jars are not in $jars and there is no mvn to fetch them"
  rm -rf "$jars/.$1"
  for try in 1 2 3; do
    say "$1: fetching its jars (try $try)"
    # -U: ask again for what was missing the last time.
    if mvn -B -q -U -f "$here/$1/pom.xml" dependency:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory="$jars/.$1" >"$dir.log" 2>&1; then
      mv "$jars/.$1" "$dir"
      rm "$dir.log"
      exit 0
    fi
  done
  head -n 5 "$dir.log" >&2
  die "$1: its jars cannot be fetched; log: $dir.log"
)

prefetch() {
  local server
  for server in kafka zookeeper cassandra; do fetch "$server"; done
}

# The version of what really runs, from the name of its jar: version SERVER JAR.
version() {
  local jar
  jar=$(echo "$(jar_dir "$1")/$2"-[0-9]*.jar)
  jar=${jar##*/"$2"-}
  echo "$1=${jar%.jar}"
}

# --- Processes ----------------------------------------------------------------------------------

# Each process carries two marks as arguments, by which it is found in /proc: no pid is stored that
# could be lost, or be another process's by now.
mark_all="-Dchaski.backends=$run"
mark() { echo "-Dchaski.backend=$run/$1"; }
pids() { # MARK; the option is joined to it so that grep does not find itself
  # shellcheck disable=SC2062 # the files are a pattern, meant as one
  { grep -lzxF "--regexp=$1" /proc/[0-9]*/cmdline 2>/dev/null || true; } | cut -d/ -f3
}
names() { for dir in "$run"/*/; do [[ ! -d $dir ]] || basename "$dir"; done; }

# Starts a server in a session of its own, so that it outlives this script and its terminal.
launch() { # NAME
  [[ ! -s $run/$1/log ]] || cat "$run/$1/log" >>"$run/$1/log.old"
  setsid "$run/$1/start.sh" "$(mark "$1")" "$mark_all" </dev/null >"$run/$1/log" 2>&1 9<&- &
  disown # no message when it is killed
}

stop() { # MARK, TERM or KILL: returns when there is none left
  local signal=$2 pid deadline=$((SECONDS + 6))
  while pid=$(pids "$1") && [[ -n $pid ]]; do
    # shellcheck disable=SC2086 # a list of numbers
    [[ -z $signal ]] || kill "-$signal" $pid 2>/dev/null || true
    signal=
    if ((SECONDS >= deadline)); then signal=KILL deadline=$((SECONDS + 1)); fi
    sleep 0.1
  done
}

# --- Is it ready? -------------------------------------------------------------------------------

# Sends bytes to a port and prints the first N of the answer in hex: ask PORT BYTES N.
ask() {
  # shellcheck disable=SC2016 # expanded by the inner bash
  timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && printf "$1" >&3 && head -c "$2" <&3' "$@" 2>/dev/null |
    od -An -v -tx1 | tr -d ' \n'
}

# A real request each. Kafka: ApiVersions, after the broker said that the controller let it in.
# Cassandra: OPTIONS. ZooKeeper: `srvr`; a node has "Mode: leader" or "Mode: follower" with a quorum only.
ready() {
  local port answer
  port=$(<"$run/$1/port")
  case $1 in
  kafka-*) grep -q 'Kafka Server started' "$run/$1/log" &&
    answer=$(ask "$port" '\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff' 10) && [[ $answer == ????????000000010000 ]] ;;
  cassandra-*) answer=$(ask "$port" '\x04\0\0\0\x05\0\0\0\0' 5) && [[ $answer == 8400000006 ]] ;;
  zookeeper-*) answer=$(ask "$port" srvr 1000) && [[ $answer == *4d6f64653a20@(6c65|666f)* ]] ;;
  esac
}

await() { # NAME...
  local name still begun=$SECONDS
  while (($#)); do
    sleep 0.4
    still=()
    for name; do
      if ready "$name"; then say "$name is ready ($((SECONDS - begun)) s)"
      elif [[ -z $(pids "$(mark "$name")") ]]; then failed "$name" "ended by itself"
      elif ((SECONDS - begun > patience)); then failed "$name" "is not ready after $patience s"
      else still+=("$name"); fi
    done
    set -- "${still[@]}"
  done
}
failed() {
  tail -n 20 "$run/$1/log" >&2
  die "$1 $2; log: $run/$1/log"
}

# --- Configuration ------------------------------------------------------------------------------

# Prints N free ports below (else above) the range from which the kernel gives ports to clients: a port
# from inside it could be taken by any connection while its server is down.
free_ports() {
  local low high from to port address n used=()
  while read -r _ address _; do
    [[ $address != *:* ]] || used[16#${address##*:}]=1
  done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
  read -r low high </proc/sys/net/ipv4/ip_local_port_range
  from=20000 to=$((low - 1))
  if ((to - from < 1000)); then from=$((high + 1)) to=65535; fi
  if ((to - from < 1000)); then from=10000 to=30000; fi
  port=$((from + SRANDOM % (to - from - 500))) # two clones that start at once differ
  for ((n = $1; n > 0 && port <= to; port++)); do
    [[ -n ${used[port]:-} ]] || { echo "$port"; n=$((n - 1)); }
  done
}

# The optimizing compiler comes in four times later than by default: for all servers together, that
# takes a quarter off the time to start, and what is hot still gets compiled within seconds of load.
later=(-XX:Tier4InvocationThreshold=20000 -XX:Tier4MinInvocationThreshold=2400
  -XX:Tier4CompileThreshold=60000 -XX:Tier4BackEdgeThreshold=160000)

# Makes the directory of a server, with the script that runs it: server NAME PORT JAVA-ARGS...; what
# comes on standard input is done before. Temporary files stay inside, so that a kill leaves nothing behind.
server() {
  local name=$1 dir=$run/$1 classpath
  classpath="$(jar_dir "${1%-*}")/*"
  mkdir -p "$dir/data" "$dir/tmp"
  echo "$2" >"$dir/port"
  shift 2
  {
    echo '#!/usr/bin/env bash'
    echo "# Made by backends.sh, which starts it with the marks of $name as arguments."
    printf 'set -euo pipefail\ncd %q\n' "$dir"
    printf 'run=('
    printf '%q ' "$(java_bin)" -XX:-UsePerfData -XX:+ExitOnOutOfMemoryError "${later[@]}" \
      "-Djava.io.tmpdir=$dir/tmp" "-Djna.tmpdir=$dir/tmp" -cp "$classpath"
    printf '"$@")\n'
    cat
    # shellcheck disable=SC2016 # expanded by start.sh
    printf 'exec "${run[@]}"'
    printf ' %q' "$@"
    echo
  } >"$dir/start.sh"
  chmod +x "$dir/start.sh"
}

configure() { # BROKERS
  local brokers=$1 replicas in_sync cluster p i voters='' kafka='' ensemble='' zookeeper=''
  local proxies behind=()
  replicas=$((brokers < 3 ? brokers : 3))
  in_sync=$((replicas > 1 ? replicas - 1 : 1))
  IFS=, read -r -a proxies <<<"${CHASKI_BACKENDS_ADVERTISE:-}"
  ((${#proxies[@]} == 0 || ${#proxies[@]} == brokers)) ||
    die "CHASKI_BACKENDS_ADVERTISE names ${#proxies[@]} addresses for $brokers brokers"
  # Pairs for Kafka, then 3 x 3, then 3, then for what stands behind proxies.
  mapfile -t p < <(free_ports $((2 * brokers + 9 + 3 + ${#proxies[@]})))
  ((${#p[@]} == 2 * brokers + 12 + ${#proxies[@]})) || die "not enough free ports"
  for ((i = 0; i < ${#proxies[@]}; i++)); do behind+=("127.0.0.1:${p[2 * brokers + 12 + i]}"); done

  cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c1-22)
  for ((i = 1; i <= brokers; i++)); do
    kafka+=,127.0.0.1:${p[2 * i - 2]}
    voters+=,$i@127.0.0.1:${p[2 * i - 1]}
  done
  for ((i = 1; i <= brokers; i++)); do
    server "kafka-$i" "${p[2 * i - 2]}" -Xms128m -Xmx400m -XX:+UseSerialGC \
      "-Dlog4j2.configurationFile=$here/kafka/log4j2.properties" kafka.Kafka server.properties <<END
[[ -e data/meta.properties ]] || "\${run[@]}" -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \\
  kafka.tools.StorageTool format --cluster-id=$cluster --config=server.properties
END
    cat "$here/kafka/server.properties" - >"$run/kafka-$i/server.properties" <<END

node.id=$i
listeners=PLAINTEXT://127.0.0.1:${p[2 * i - 2]},CONTROLLER://127.0.0.1:${p[2 * i - 1]}
controller.quorum.voters=${voters#,}
log.dirs=$run/kafka-$i/data
default.replication.factor=$replicas
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$replicas
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$in_sync
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$in_sync
END
    ((${#proxies[@]})) || continue
    cat >>"$run/kafka-$i/server.properties" <<END

# Again, with a listener for those who come over a proxy.
listeners=PLAINTEXT://127.0.0.1:${p[2 * i - 2]},PROXIED://${behind[i - 1]},CONTROLLER://127.0.0.1:${p[2 * i - 1]}
advertised.listeners=PLAINTEXT://127.0.0.1:${p[2 * i - 2]},PROXIED://${proxies[i - 1]}
END
  done

  p=("${p[@]:2*brokers}")
  for i in 1 2 3; do
    zookeeper+=,127.0.0.1:${p[3 * i - 3]}
    ensemble+="server.$i=127.0.0.1:${p[3 * i - 2]}:${p[3 * i - 1]};127.0.0.1:${p[3 * i - 3]}"$'\n'
  done
  for i in 1 2 3; do
    server "zookeeper-$i" "${p[3 * i - 3]}" -Xms32m -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
      "-Dlogback.configurationFile=$here/logback.xml" \
      org.apache.zookeeper.server.quorum.QuorumPeerMain ./zoo.cfg </dev/null
    cat "$here/zookeeper/zoo.cfg" - >"$run/zookeeper-$i/zoo.cfg" <<END

dataDir=$run/zookeeper-$i/data
$ensemble
END
    echo "$i" >"$run/zookeeper-$i/data/myid"
  done

  p=("${p[@]:9}")
  server cassandra-1 "${p[0]}" "@$here/cassandra/jvm.options" -Xms400m -Xmx1200m -XX:+UseSerialGC \
    "-javaagent:$(echo "$(jar_dir cassandra)"/jamm-*.jar)" \
    "-Dcassandra.config=file://$run/cassandra-1/cassandra.yaml" "-Dcassandra.storagedir=$run/cassandra-1/data" \
    "-Dlogback.configurationFile=$here/logback.xml" \
    -Dcassandra-foreground=true org.apache.cassandra.service.CassandraDaemon </dev/null
  cat "$here/cassandra/cassandra.yaml" - >"$run/cassandra-1/cassandra.yaml" <<END

listen_address: 127.0.0.1
rpc_address: 127.0.0.1
native_transport_port: ${p[0]}
storage_port: ${p[1]}
ssl_storage_port: ${p[2]}
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{seeds: "127.0.0.1:${p[1]}"}]
END

  cat >"$run/exports.new" <<END
export CHASKI_LOG=kafka://${kafka#,}
export CHASKI_STORE=scylla://127.0.0.1:${p[0]}/chaski
export CHASKI_COORDINATOR=zookeeper://${zookeeper#,}/chaski
export CHASKI_BACKEND_VERSIONS=$(version kafka kafka_2.13),$(version zookeeper zookeeper),$(version cassandra cassandra-all)
END
  ((${#behind[@]} == 0)) || echo "export CHASKI_BACKENDS_BEHIND=$(IFS=,; echo "${behind[*]}")" >>"$run/exports.new"
}

# --- Commands -----------------------------------------------------------------------------------

# One command at a time. The lock goes with this process, however it ends.
lock() {
  mkdir -p "$state"
  exec 9<"$state"
  flock 9
}

up() {
  local brokers=3 asked='' name
  case ${1:-} in
  '') ;;
  --brokers) brokers=${2:-} asked=1 ;;
  --brokers=*) brokers=${1#*=} asked=1 ;;
  *) die "up: what is $1?" ;;
  esac
  [[ $brokers =~ ^[1-9]$ ]] || die "up: --brokers needs a number from 1 to 9"
  lock
  if [[ -e $run/exports ]] && status >/dev/null; then
    [[ -z $asked || $(names | grep -c kafka) == "$brokers" ]] ||
      die "already up with another number of brokers: run down first"
    cat "$run/exports"
    return
  fi
  clean
  prefetch
  configure "$brokers"
  trap 'stop "$mark_all" KILL' EXIT # whatever goes wrong from here on; logs stay until the next up or down
  trap 'exit 130' INT TERM HUP
  for name in $(names); do launch "$name"; done
  # shellcheck disable=SC2046 # names have no blanks
  await $(names)
  mv "$run/exports.new" "$run/exports"
  trap - EXIT
  cat "$run/exports"
}

clean() {
  [[ ! -d $run ]] || say "stopping and removing what is in $run"
  stop "$mark_all" TERM
  rm -rf "$run"
}

down() {
  lock
  clean
}

status() {
  local name pid port missing=0
  for name in $(names); do
    port=$(<"$run/$name/port") pid=$(pids "$(mark "$name")" | head -n 1)
    if [[ -z $pid ]]; then
      echo "$name down port=$port"
      missing=1
    else
      echo "$name up port=$port pid=$pid rss=$(($(awk '/^VmRSS/ {print $2}' "/proc/$pid/status") / 1024))MiB"
    fi
  done
  [[ -e $run/exports ]] || { echo "not up"; missing=1; }
  return "$missing"
}

# kill NAME... and start NAME...
some() {
  local verb=$1 name
  shift
  (($#)) || die "$verb: no name given; there are: $(names | xargs)"
  for name; do
    [[ -e $run/exports && -d $run/$name ]] || die "$verb: no server named $name; there are: $(names | xargs)"
  done
  lock
  for name; do
    if [[ $verb == kill ]]; then stop "$(mark "$name")" KILL
    elif [[ -n $(pids "$(mark "$name")") ]]; then say "$name runs already"
    else launch "$name"; fi
  done
  # Others may be started meanwhile: some are ready only once another one is.
  exec 9<&-
  [[ $verb == kill ]] || await "$@"
}

tool() {
  local class args=("${@:2}")
  case ${1:-} in
  kafka-topics) class=TopicCommand ;;
  kafka-consumer-groups) class=consumer.group.ConsumerGroupCommand ;;
  kafka-console-consumer) class=consumer.ConsoleConsumer ;;
  kafka-console-producer) class=ConsoleProducer ;;
  kafka-get-offsets) class=GetOffsetShell ;;
  kafka-producer-perf-test) class=ProducerPerformance ;;
  kafka-metadata-quorum) class=MetadataQuorumCommand ;;
  kafka-dump-log) class=DumpLogSegments ;;
  kafka-configs) class=kafka.admin.ConfigCommand ;;
  *) die "tool: kafka-topics, -consumer-groups, -console-consumer, -console-producer, -get-offsets, -producer-perf-test, -metadata-quorum, -dump-log or -configs" ;;
  esac
  [[ $class == kafka.* ]] || class=org.apache.kafka.tools.$class
  # The brokers that run here, unless others are named.
  if [[ $class != *DumpLog* && " $* " != *" --bootstrap-"* ]]; then
    [[ -e $run/exports ]] || die "tool: not up, and no --bootstrap-server given"
    args+=(--bootstrap-server "$(sed -n 's|^export CHASKI_LOG=kafka://||p' "$run/exports")")
  fi
  fetch kafka
  exec "$(java_bin)" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData \
    "-Dlog4j2.configurationFile=$here/kafka/log4j2.properties" -cp "$(jar_dir kafka)/*" "$class" "${args[@]}"
}

case ${1:-} in
up | down | status | prefetch | tool) "$@" ;;
kill | start) some "$@" ;;
*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
