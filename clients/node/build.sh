#!/usr/bin/env bash
# Builds the client for Node.js and its example programs; needs Node.js 18 or newer with npm.
#
#   build.sh OUT           everything into OUT: OUT/package (what `npm pack` takes), OUT/tour, OUT/quickstart
#   build.sh --test OUT    the same, then the library's own tests
#   build.sh --missing     the Debian packages that this system lacks, one a line
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
protos=$here/../../proto

missing() {
  node -e 'process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)' 2>/dev/null || echo nodejs
  command -v npm >/dev/null || echo npm
}

# What decides what is built.
fingerprint() {
  { node --version
    cd "$here"
    find . -type f -print0 | sort -z | xargs -0 sha256sum
    cd "$protos"
    sha256sum matchcut/v1/*.proto
  } | sha256sum
}

wrapper() { # NAME: an executable that runs the example of that name from anywhere
  cat >"$out/$1" <<SH
#!/usr/bin/env bash
exec node "\$(dirname "\$(readlink -f "\${BASH_SOURCE[0]}")")/package/programs/example/$1.js" "\$@"
SH
  chmod +x "$out/$1"
}

build() {
  local package=$out/package stamp=$out/package/built now lock
  [ -z "$(missing)" ] || { echo "build.sh: missing of the system: $(missing | xargs)" >&2; exit 1; }
  now=$(fingerprint)
  [ "$(cat "$stamp" 2>/dev/null)" != "$now" ] || return 0
  mkdir -p "$package"
  rm -rf "$stamp" "$package"/{src,example,test,proto,dist,programs}
  cp -r "$here"/{package.json,package-lock.json,tsconfig.json,tsconfig.programs.json,README.md} "$package"
  cp -r "$here"/{src,example,test,proto} "$package"
  mkdir -p "$package/proto/matchcut"
  cp -r "$protos/matchcut/v1" "$package/proto/matchcut/"
  find "$package/proto" -type f -not -name '*.proto' -delete
  cd "$package"

  lock=$(sha256sum <package-lock.json)
  if [ "$(cat node_modules/.lock 2>/dev/null)" != "$lock" ]; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --update-notifier=false >&2
    echo "$lock" >node_modules/.lock
  fi
  # The same choices are made where src/contract.ts loads the files. In requests names end in Input.
  node_modules/.bin/proto-loader-gen-types --longs=Number --enums=String --defaults --oneofs --includeComments \
    --inputTemplate=%sInput --outputTemplate=%s --grpcLib=@grpc/grpc-js --importFileExtension=.js \
    -I proto -O src/generated \
    matchcut/v1/{catalog,events,recommender}.proto grpc/health/v1/health.proto google/rpc/details.proto
  node_modules/.bin/tsc -p tsconfig.json
  node_modules/.bin/tsc -p tsconfig.programs.json
  wrapper tour
  wrapper quickstart
  echo "$now" >"$stamp"
}

case "${1:-}" in
  --missing) missing ;;
  --test) out=$(mkdir -p "$2" && cd "$2" && pwd); build; timeout 300 node --test "$out"/package/programs/test/*.test.js ;;
  '' | -*) sed -n '2,6s/^# \?//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  *) out=$(mkdir -p "$1" && cd "$1" && pwd); build ;;
esac
