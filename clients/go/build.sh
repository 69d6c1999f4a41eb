#!/usr/bin/env bash
# Builds the Go client and its examples from the distribution's packages, without a network.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: clients/go/build.sh OUT           build into the folder OUT: the programs OUT/tour and OUT/quickstart, and the
                                         library with its generated messages in OUT/gopath/src/matchcut
       clients/go/build.sh --test OUT    also check format and vet, run the library's own tests, compile it as a module
       clients/go/build.sh --missing     print the Debian packages that are missing, one a line
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
proto=$(cd "$here/../../proto" && pwd)
system=/usr/share/gocode # where the distribution puts Go sources
protos=(matchcut/v1/{common,media,catalog,events,recommender}.proto)

missing() {
  command -v go >/dev/null || echo golang-go
  command -v protoc >/dev/null || echo protobuf-compiler
  command -v protoc-gen-go >/dev/null || echo protoc-gen-go
  command -v protoc-gen-go-grpc >/dev/null || echo protoc-gen-go-grpc
  [ -d "$system/src/google.golang.org/grpc" ] || echo golang-google-grpc-dev
  # The package for version 1.3 has the same folder; with it all builds, and panics when it runs.
  grep -qs 'google.golang.org/protobuf' "$system/src/github.com/golang/protobuf/go.mod" \
    || echo golang-github-golang-protobuf-1-5-dev
}

build() {
  local lacking file args=()
  lacking=$(missing)
  if [ -n "$lacking" ]; then
    printf 'clients/go: packages are missing; on Debian or Ubuntu: sudo apt-get install %s\n' "${lacking//$'\n'/ }" >&2
    exit 1
  fi
  mkdir -p "$1"
  out=$(cd "$1" && pwd)
  tree=$out/gopath/src/matchcut
  export GO111MODULE=off GOPATH=$out/gopath:$system GOCACHE=$out/cache GOENV=off GOFLAGS='' CGO_ENABLED=0
  if command -v gcc >/dev/null; then CGO_ENABLED=1; fi # the standard library is there compiled with it
  rm -rf "$tree" # what is gone from the sources must be gone here; what has not changed comes from the cache
  mkdir -p "$tree"
  cp -r "$here"/*.go "$here"/*.mod "$here/example" "$tree"
  for file in "${protos[@]}"; do
    args+=("--go_opt=M$file=matchcut/v1" "--go-grpc_opt=M$file=matchcut/v1" "$proto/$file")
  done
  protoc -I "$proto" --go_out="$out/gopath/src" --go-grpc_out="$out/gopath/src" "${args[@]}"
  cd "$tree"
  go build -o "$out/" matchcut/example/tour matchcut/example/quickstart
}

tests() {
  local loose race=()
  loose=$(gofmt -l "$here")
  if [ -n "$loose" ]; then
    printf 'clients/go: gofmt would change %s\n' "$loose" >&2
    exit 1
  fi
  go vet . ./example/...
  if [ "$CGO_ENABLED" = 1 ]; then race=(-race); fi
  go test "${race[@]}" .
  GO111MODULE=on GOPROXY=off go build -modfile=debian.mod . # as a module
}

case "${1:---help}" in
  --missing) missing ;;
  --test) build "${2:?the folder to build into is missing}"; tests ;;
  -*) usage; [ "${1:-}" = --help ] || exit 2 ;;
  *) build "$1" ;;
esac
