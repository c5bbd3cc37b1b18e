# Sourced by every script here. Two things: whatever a script starts is stopped when it ends, however it
# ends; and a MySQL and a Redis are found, or made, before a command that needs them.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
PATH=$PATH:/usr/local/sbin:/usr/sbin # where Debian keeps mysqld and mariadbd, off a user's PATH
ulimit -S -n 16384 2>/dev/null || true # a burst has more connections than the usual 1024
release=${CARGO_TARGET_DIR:-target}/release
server_folder=                       # data and logs of what was started: .dibs/run or .dibs/test.XXXX
started=' '                          # process ids, the last one first, a space around each
declare -A name_of=()                # of those that should go on until they are stopped
disposable=()                        # paths to remove at the end
database_name=                       # which database it is that Redis stands beside
container_label=                     # of the containers to remove at the end, if there may be any

bold='' plain=''
if [[ -t 2 ]]; then bold=$'\e[1m' plain=$'\e[0m'; fi
say() { echo "${bold}dibs:${plain} $*" >&2; }
# The next one of so many steps, where a script has said how many there are.
step() { [[ -z ${steps:-} ]] || say "$((++steps_done)) of $steps: $*"; }
steps_done=0
fail() { say "$@"; exit 1; }
fail_with_log() { # NAME SENTENCE
  tail -n 40 "$server_folder/$1.log" >&2 || true
  fail "$2 (above: the end of $server_folder/$1.log)"
}

# ---- processes ----------------------------------------------------------------------------------------

# In a session of its own, so that Ctrl-C reaches only the script, which then stops things in order; and
# tied to the script, so that not even kill -9 leaves an orphan. Leaves the process id in $started_last.
start() { # COMMAND...
  (trap - INT QUIT && exec setsid setpriv --pdeathsig TERM -- "$@") &
  started_last=$!
  started=" $started_last$started"
}

start_named() { # NAME COMMAND...: the same, with a log, and expected to stay
  start "${@:2}" >"$server_folder/$1.log" 2>&1
  name_of[$started_last]=$1
}

# Started and waited for, not run in the foreground: bash would put SIGTERM off until the command ends.
# Without the lock (9), which a daemon that the command leaves behind would hold on to.
run_to_end() { # COMMAND...
  start "$@" 9<&-
  local process=$started_last status=0
  wait "$process" 2>/dev/null || status=$? # bash would print how it was killed, and this file's line
  stop "$process"
  return "$status"
}

run_quietly() { # NAME COMMAND...: shows its log only when it fails
  run_to_end "${@:2}" >"$server_folder/$1.log" 2>&1 || fail_with_log "$1" "$1 failed"
}

pause() { setsid sleep "$1"; } # out of reach of a signal to the whole group, which bash would report
is_alive() { kill -0 "$1" 2>/dev/null; }
group_is_gone() { ! kill -0 -- "-$1" 2>/dev/null; }

await() { # SECONDS PROCESS COMMAND...: until the command succeeds; fails when time is up or the process gone
  local end=$((SECONDS + $1)) process=$2
  shift 2
  until "$@"; do
    ((SECONDS < end)) && is_alive "$process" || return 1
    pause 0.1
  done
}

stop() { # PROCESS: with all its group
  kill -TERM -- "-$1" 2>/dev/null || true
  await 15 $$ group_is_gone "$1" || kill -KILL -- "-$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
  unset "name_of[$1]"
  started=${started/" $1 "/ }
}

stop_everything() {
  local status=$? process
  trap '' INT TERM HUP QUIT # a second Ctrl-C must not cut this short
  trap - EXIT
  set +e
  for process in $started; do
    [[ -n ${name_of[$process]:-} ]] && say "stopping ${name_of[$process]}"
    stop "$process"
  done
  [[ -z $container_label ]] || remove_containers
  rm -rf -- "${disposable[@]}"
  exit "$status"
}
trap stop_everything EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 131' QUIT
trap 'exit 143' TERM

# ---- building -----------------------------------------------------------------------------------------

as_root() { if ((EUID)); then sudo "$@"; else "$@"; fi; }

# In the foreground: sudo may ask for a password, and apt must not be stopped half way. For as long as it
# takes, policy-rc.d keeps the packages from starting services of their own.
install_packages() { # PACKAGE...
  local output
  type -P apt-get >/dev/null && { ((EUID == 0)) || type -P sudo >/dev/null; } || return 1
  say "installing $* with apt-get"
  # shellcheck disable=SC2016
  output=$(as_root env DEBIAN_FRONTEND=noninteractive bash -euc '
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
      trap "rm -f $policy" EXIT
      printf "#!/bin/sh\nexit 101\n" >$policy && chmod 755 $policy
    fi
    apt-get -q update && apt-get -qy install "$@"' bash "$@" 2>&1 </dev/null) ||
    { tail -n 25 <<<"$output" >&2 && return 1; }
  hash -r
}

# rustc links with cc, and a few crates hold C; the client of Kafka is built with make, and holds C++ too.
need_compiler() {
  type -P cc >/dev/null && type -P c++ >/dev/null && type -P make >/dev/null || install_packages build-essential ||
    fail "install a compiler of C and C++, and make (Debian and Ubuntu: apt-get install build-essential)"
}

# What a plain cargo build leaves out, as it builds for minutes.
all_features=(--features dibs-worker/kafka)

# With the client of Kafka only where brokers are set.
build_release() { # PACKAGE...
  local options=() package
  for package; do options+=(--package "$package"); done
  [[ -z ${KAFKA_BROKERS:-} ]] || options+=("${all_features[@]}")
  need_compiler
  run_to_end cargo build --release "${options[@]}"
}

# ---- tools of other registries ------------------------------------------------------------------------

cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}

# Installs something once, into a folder of the cache that is named by what it holds. Fails, with a log beside the folder,
# where its registry cannot be reached.
install_once() { # FOLDER COMMAND...: in the folder
  local folder=$1 status=0
  shift
  mkdir -p "$cache"
  exec 7>"$folder.lock"
  flock 7 # two scripts may begin at once
  if [[ ! -e $folder/.complete ]]; then
    say "installing ${folder##*/} into $folder"
    rm -rf "$folder"
    mkdir -p "$folder"
    (cd "$folder" && timeout 300 "$@" >"$folder.log" 2>&1 && touch .complete) || status=$?
    ((status == 0)) || rm -rf "$folder"
  fi
  exec 7>&-
  return "$status"
}

# ---- servers ------------------------------------------------------------------------------------------

# Takes the folder of one purpose, for this script alone. The lock is inherited by the servers: after
# kill -9 of a script the folder is free again only when they too have gone.
open_server_folder() { # run | test | bench | load
  mkdir -p .dibs/run
  if [[ $1 == run ]]; then
    server_folder=$PWD/.dibs/run
    exec 9<"$server_folder"
    flock --timeout 5 9 || fail "another 'make run' has its servers in .dibs/run"
    return
  fi
  exec 8<.dibs # one at a time: no other script removes a folder between its making and its locking
  flock --timeout 10 8 || fail "the folder .dibs is locked"
  local leftover
  for leftover in .dibs/{test,bench,load}.*; do
    if [[ -d $leftover ]]; then flock --nonblock "$leftover" rm -rf "$leftover" || true; fi
  done
  server_folder=$(mktemp -d "$PWD/.dibs/$1.XXXX")
  disposable+=("$server_folder")
  exec 9<"$server_folder"
  flock 9
  exec 8<&-
}

# HOST:PORT as /dev/tcp wants it, without the brackets of IPv6.
device_of() { local host=${1%:*} && echo "/dev/tcp/${host//[][]/}/${1##*:}"; }
is_taken() { (: <"$(device_of "$1")") 2>/dev/null; }

free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)) && is_taken "127.0.0.1:$port"; do :; done
  echo "$port"
}

# @port@ in the arguments stands for a free port, which is left in $port. Another process may take that
# port first, so a server that ends at once gets another chance; and ready is what the server's own log
# says, since anyone may answer at the port.
start_server() { # NAME READY-PATTERN COMMAND...
  local name=$1 ready=$2
  shift 2
  for _ in 1 2 3; do
    port=$(free_port)
    start_named "$name" "${@//@port@/$port}"
    if await 120 "$started_last" grep -q "${ready//@port@/$port}" "$server_folder/$name.log"; then
      say "$name is ready on port $port"
      return
    fi
    stop "$started_last"
  done
  fail_with_log "$name" "$name does not start"
}

# Where the server listens in its container. Not detached: a docker client passes SIGTERM on and ends with
# its container, so a container is stopped like any other process.
start_container() { # NAME READY-PATTERN INNER-PORT DATA-FOLDER [OPTION...] -- IMAGE ARGUMENT...
  local name=$1 ready=$2 inner=$3 data=$4 options=() volume
  shift 4
  while [[ $1 != -- ]]; do options+=("$1") && shift; done
  if [[ -z $container_label ]]; then
    container_label=dibs=$server_folder
    remove_containers # of an earlier script that could not
  fi
  if [[ $purpose == run ]]; then
    volume=dibs-$(checksum "$PWD")-$name${database_name:+-of-$database_name}
    options+=(--volume "$volume:$data")
    # Half made, or its .dibs removed: start again.
    [[ -e $server_folder/$volume ]] || docker volume rm --force "$volume" >/dev/null
  fi
  start_server "$name" "$ready" docker run --rm --label "$container_label" \
    --publish "127.0.0.1:@port@:$inner" "${options[@]}" "${@:2}"
  [[ $purpose != run ]] || touch "$server_folder/$volume"
}

remove_containers() {
  local list
  list=$(docker ps --all --quiet --filter "label=$container_label")
  # shellcheck disable=SC2086
  [[ -z $list ]] || docker rm --force --volumes $list >/dev/null 2>&1 || true
}

has_image() { # IMAGE, where a Docker engine answers
  type -P docker >/dev/null && timeout 20 docker info >/dev/null 2>&1 || return 1
  docker image inspect "$1" >/dev/null 2>&1 && return
  say "fetching the container image $1"
  run_to_end timeout 600 docker pull --quiet "$1" >&2
}

private_database() { # PROGRAM
  local program=$1 version kind=mysqld data
  # A tmpdir of its own: MariaDB empties it of other servers' temporary tables when it starts.
  local self=(--no-defaults "--user=$(id -un)" "--tmpdir=$server_folder")
  version=$("$program" --no-defaults --version)
  [[ $version != *MariaDB* ]] || kind=mariadbd # Debian's mysqld is MariaDB too
  [[ $version =~ Ver\ ([0-9]+) ]] # kinds and versions cannot read each other's files
  kind+=-${BASH_REMATCH[1]}
  data=$server_folder/$kind
  if [[ ! -d $data ]]; then # made beside and renamed: half a data folder is never found
    say "making a database in ${data#"$PWD/"}"
    rm -rf "$data.new"
    if [[ $kind == mariadbd* ]]; then
      run_quietly "$kind" mariadb-install-db "${self[@]}" --datadir="$data.new" \
        --auth-root-authentication-method=normal --skip-test-db
    else
      run_quietly "$kind" "$program" "${self[@]}" --initialize-insecure --datadir="$data.new"
    fi
    mv "$data.new" "$data"
  fi
  # There may be no client to make the database with. The socket's path is relative, to the data folder:
  # it may have 107 bytes, and the checkout may lie deep.
  echo "CREATE DATABASE IF NOT EXISTS dibs CHARACTER SET utf8mb4;" >"$server_folder/init.sql"
  rm -f "$data/socket" "$data/socket.lock" # of a server that was killed
  start_server "$kind" "port: @port@ " "$program" "${self[@]}" --datadir="$data" --socket=socket \
    --bind-address=127.0.0.1 --port=@port@ --init-file="$server_folder/init.sql" "${database_options[@]}"
  database_name=$kind
}

container_database() { # IMAGE
  start_container mysql-9 "port: 3306 " 3306 /var/lib/mysql \
    --env MYSQL_ALLOW_EMPTY_PASSWORD=yes --env MYSQL_DATABASE=dibs -- "$1" "${database_options[@]}"
  database_name=container
}

private_redis() { # PROGRAM
  local kind data
  [[ $("$1" --version) =~ ^([A-Za-z]+).*\ v=([0-9]+) ]]
  kind=${BASH_REMATCH[1],,}-${BASH_REMATCH[2]}
  data=$server_folder/$kind-of-$database_name # what it holds is true of this database only
  mkdir -p "$data"
  start_server "$kind" "Ready to accept connections" "$1" --bind 127.0.0.1 --port @port@ \
    --dir "$data" "${redis_options[@]}"
}

container_redis() { # IMAGE
  start_container redis-8 "Ready to accept connections" 6379 /data \
    -- "$1" redis-server --protected-mode no "${redis_options[@]}"
}

checksum() { cksum <<<"$1" | cut -d ' ' -f 1; }

first_program() {
  local name
  for name; do type -P "$name" && return; done
  return 1
}

provide() { # database|redis IMAGE PACKAGE PROGRAM...
  local program
  if [[ -z ${containers_only:-} ]] && program=$(first_program "${@:4}"); then "private_$1" "$program"
  elif has_image "$2"; then "container_$1" "$2"
  elif install_packages "$3" && program=$(first_program "${@:4}"); then "private_$1" "$program"
  else
    fail "no $1 server: install mysqld or mariadbd and redis-server or valkey-server" \
      "(Debian and Ubuntu: apt-get install mariadb-server redis-server), or Docker," \
      "or set DATABASE_URL and REDIS_URL"
  fi
}

choose_options() { # run | load | bench | test
  # `loose`: MySQL and MariaDB each pass over what only the other knows.
  database_options=(--max-connections=500 --loose-mysqlx=OFF --performance-schema=OFF)
  redis_options=(--save '' --appendonly no)
  case $1 in
    run | load) redis_options=(--save '' --appendonly yes --appendfsync always) ;;
  esac
  case $1 in
    test) database_options+=(--innodb-flush-log-at-trx-commit=2 --sync-binlog=0 --skip-log-bin --innodb-doublewrite=OFF) ;;
    *) database_options+=(--innodb-buffer-pool-size=512M
      --loose-innodb-redo-log-capacity=512M --loose-innodb-log-file-size=512M) ;;
  esac
}

# run:   data is kept, and what was answered outlives a crash
# load:  the same on data that is thrown away
# bench: the database as durable as it comes, Redis in memory: it measures Dibs, not the disk under an AOF
# test:  fast, nothing outlives a crash
start_servers() { # run | load | bench | test
  purpose=$1
  [[ -n $server_folder ]] || open_server_folder "$purpose"
  choose_options "$purpose"
  if [[ -n ${DATABASE_URL:-} ]]; then
    database_name=given-$(checksum "$DATABASE_URL")
  else
    provide database mysql:9 mariadb-server mysqld mariadbd
    # Without TLS, which a server on the same machine does not need and each large statement would wait for.
    DATABASE_URL="mysql://root@127.0.0.1:$port/dibs?ssl-mode=DISABLED"
  fi
  if [[ -z ${REDIS_URL:-} ]]; then
    provide redis redis:8 redis-server redis-server valkey-server
    REDIS_URL=redis://127.0.0.1:$port
  fi
  export DATABASE_URL REDIS_URL
}

# ---- the stack ----------------------------------------------------------------------------------------

# The programs read .env themselves, but what the scripts export would go before it.
read_dotenv() {
  local name value
  [[ -f .env ]] || return 0
  while IFS='=' read -r name value || [[ -n $name ]]; do
    name=${name#export }
    [[ $name =~ ^[A-Z_]+$ && -z ${!name+set} ]] || continue
    if [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]]; then value=${BASH_REMATCH[1]}; fi
    export "$name=$value"
  done <.env
}

# Where `make run` says what it runs, for other terminals. A file that kill -9 left behind is not believed.
environment_file=.dibs/run/environment
environment_names=(DATABASE_URL REDIS_URL REDIS_KEY_PREFIX API_URL WORKER_URL ADMIN_TOKEN)
running_stack() {
  [[ -s $environment_file ]] || return 1
  # shellcheck disable=SC1090
  (source "$environment_file" && answers_ready "${API_URL#http://}") || return 1
  # shellcheck disable=SC1090
  source "$environment_file"
  export "${environment_names[@]}"
}

answers_ready() ( # HOST:PORT
  exec 2>/dev/null 3<>"$(device_of "$1")" || exit
  printf 'GET /health/ready HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$1" >&3
  read -r -t 2 line <&3 && [[ $line == *' 200 '* ]]
)

start_program() { # NAME HOST:PORT [ARGUMENT...]
  start_named "$1" env NO_COLOR=1 "$release/$1" "${@:3}"
  await 30 "$started_last" answers_ready "$2" || fail_with_log "$1" "$1 is not ready on $2"
}

# Servers, tables, a campaign, the worker, the API, in that order; stopped the other way round. The open
# campaign's id is left in $coupon.
start_stack() { # run | load
  step "finding a database and Redis"
  start_servers "$1"
  local token=$server_folder/admin-token
  [[ -s $token ]] || (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$token")
  export ADMIN_TOKEN=${ADMIN_TOKEN:-$(<"$token")} API_ADDRESS WORKER_ADDRESS
  export API_URL=http://${API_ADDRESS/#0.0.0.0/127.0.0.1} WORKER_URL=http://${WORKER_ADDRESS/#0.0.0.0/127.0.0.1}
  export SHUTDOWN_DELAY_SECONDS=${SHUTDOWN_DELAY_SECONDS:-0} # no load balancer is in front
  export LOG_FORMAT=${LOG_FORMAT:-text} # the logs are files, but a person reads them
  step "updating the tables, adding demo data where there is none"
  run_quietly migrate "$release/dibs-worker" migrate
  run_quietly seed "$release/dibs-worker" seed
  # shellcheck disable=SC2034
  coupon=$(sed -n 's/^couponId=//p' "$server_folder/seed.log")
  step "starting worker and API"
  start_program dibs-worker "$WORKER_ADDRESS" run
  start_program dibs-api "$API_ADDRESS"
}
