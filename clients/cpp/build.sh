#!/usr/bin/env bash
# Builds the C++ client and its examples: build.sh OUT leaves OUT/tour and OUT/quickstart.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'TEXT'
usage: build.sh OUT           build the library and the examples in the folder OUT
       build.sh --test OUT    build and run the library's own tests there
       build.sh --missing     print the Debian packages that are needed and not there
TEXT
}

missing() {
  command -v g++ >/dev/null || echo g++
  command -v cmake >/dev/null || echo cmake
  command -v make >/dev/null || echo make
  command -v pkg-config >/dev/null || echo pkg-config
  command -v protoc >/dev/null || echo protobuf-compiler
  command -v grpc_cpp_plugin >/dev/null || echo protobuf-compiler-grpc # of the tests' server
  [ -e /usr/include/google/protobuf/message_lite.h ] || echo libprotobuf-dev
  [ -e /usr/include/grpcpp/grpcpp.h ] || echo libgrpc++-dev
  [ -e /usr/include/openssl/evp.h ] || echo libssl-dev
}

build() { # build OUT ON|OFF, with tests or without
  cmake -S "$here" -B "$1" -G "Unix Makefiles" -DCMAKE_BUILD_TYPE=Release -DMATCHCUT_TESTS="$2" \
    -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DNDEBUG" --log-level=WARNING -Wno-dev >/dev/null
  cmake --build "$1" --parallel "$(nproc)" -- --no-print-directory -s
}

case "${1:-}" in
  --missing) missing ;;
  --test) build "${2:?the folder to build in}" ON && ctest --test-dir "$2" --output-on-failure ;;
  "" | -*) usage >&2; exit 2 ;;
  *) build "$1" OFF ;;
esac
