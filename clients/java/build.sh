#!/usr/bin/env bash
# Builds the Java client, its examples and its tests from jars that are installed; nothing is downloaded.
#
#   build.sh OUT            into the folder OUT: matchcut-client.jar, tour, quickstart
#   build.sh --test OUT     the same, then the library's own tests
#   build.sh --sources OUT  only the generated sources, into OUT/gen
#   build.sh --missing      prints the Debian packages that are missing, one a line
#
# Jars are looked for in the folders of MATCHCUT_JARS, "/usr/share/java" unless it is set; colons separate them.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
contract=$here/../../proto
IFS=: read -ra folders <<<"${MATCHCUT_JARS:-/usr/share/java}"
javac=(javac -J-XX:TieredStopAtLevel=1 -J-XX:+UseSerialGC --release 17 -encoding UTF-8 -proc:none)

# Debian package : what it is needed for, a command or a jar's name without version.
compiled_with=(libgrpc-java:grpc-api libgrpc-java:grpc-context libgrpc-java:grpc-stub libgrpc-java:grpc-protobuf
  libprotobuf-java:protobuf libguava-java:guava)
run_with=(libgrpc-java:grpc-core libgrpc-java:grpc-netty libgrpc-java:grpc-protobuf-lite)
underneath=(libnetty-java:netty-* libperfmark-java:perfmark* libnetty-tcnative-java:netty-tcnative
  libjctools-java:jctools*) # cut into jars as it pleases
openssl=libnetty-tcnative-jni:libnetty-tcnative.so # Debian's netty cannot speak ALPN, which HTTP/2 over TLS is, without
tools=(openjdk-17-jdk-headless:javac openjdk-17-jdk-headless:jar protobuf-compiler:protoc
  protobuf-compiler-grpc-java-plugin:grpc_java_plugin)

# The paths of the jars in the first folder that has one of this name, in which a * may be.
jars_of() {
  local folder found
  for folder in "${folders[@]}"; do
    found=$(compgen -G "$folder/$1.jar") && { printf '%s\n' "$found"; return; }
  done
  return 1
}

missing() {
  local need
  for need in "${tools[@]}"; do command -v "${need#*:}" >/dev/null || echo "${need%:*}"; done
  for need in "${compiled_with[@]}" "${run_with[@]}" "${underneath[@]:0:3}"; do
    jars_of "${need#*:}" >/dev/null || echo "${need%:*}"
  done
  [ -n "${MATCHCUT_JARS:-}" ] || [ -n "$(openssl_of)" ] || echo "${openssl%:*}"
}

# The path of netty's door to OpenSSL; nothing where it is not there, as with jars from elsewhere.
openssl_of() { compgen -G "/usr/lib/*/jni/${openssl#*:}" || true; }

# A class path of these needs; one that is there under two names comes once.
class_path() {
  local need
  for need in "$@"; do jars_of "${need#*:}" || true; done \
    | xargs -d '\n' readlink -f | awk '!seen[$0]++' | paste -sd:
}

# Whether $1 was made by other sources than these files, or not at all; notes that it is being made.
stale() {
  local stamp=$1.sha256 now
  shift
  now=$(printf '%s\0' "$here/build.sh" "$@" | sort -z | xargs -0 sha256sum | sha256sum)$compile_path
  [ "$now" != "$(cat "$stamp" 2>/dev/null)" ] || return 1
  rm -f "$stamp"
  printf '%s' "$now" >"$stamp.new"
}

made() { mv "$1.sha256.new" "$1.sha256"; }

# The sources of messages and stubs, into OUT/gen. That each message is a class of its own is an option which the
# contract leaves out.
sources() {
  local proto name
  rm -rf "$out/gen" "$out/proto"
  mkdir -p "$out/gen" "$out/proto/matchcut/v1"
  for proto in "$contract"/matchcut/v1/*.proto; do
    name=$(basename "$proto" .proto)
    cp "$proto" "$out/proto/matchcut/v1/"
    printf 'option java_multiple_files = true;\noption java_outer_classname = "%sProto";\n' "${name^}" \
      >>"$out/proto/matchcut/v1/$name.proto"
  done
  cp "$here"/src/main/proto/*.proto "$out/proto/"
  protoc -I "$out/proto" --java_out="$out/gen" --grpc_out="$out/gen" \
    --plugin=protoc-gen-grpc="$(command -v grpc_java_plugin)" "$out"/proto/matchcut/v1/*.proto "$out"/proto/*.proto
  # The annotation was in Java up to version 8, and is of no use at run time.
  find "$out/gen" -name '*Grpc.java' -exec sed -i '/^@javax.annotation.Generated(/,/)$/d' {} +
}

# Messages and stubs compiled, into OUT/generated.
generate() {
  stale "$out/generated" "$contract"/matchcut/v1/*.proto "$here"/src/main/proto/*.proto || return 0
  sources
  rm -rf "$out/generated"
  find "$out/gen" -name '*.java' >"$out/generated.files"
  "${javac[@]}" -nowarn -cp "$compile_path" -d "$out/generated" "@$out/generated.files"
  made "$out/generated"
}

# compile NAME CLASSPATH SOURCE...: into OUT/NAME, unless that is there already; with every warning an error.
compile() {
  local name=$1 path=$2
  shift 2
  stale "$out/$name" "$out/generated.sha256" "$@" "$here"/src/main/java/matchcut/client/*.java || return 0
  rm -rf "${out:?}/$name"
  # Annotations of the libraries' own builds are in no jar; that they cannot be read is no fault of these sources.
  "${javac[@]}" -Xlint:all,-classfile -Xdoclint:all,-missing -Werror -cp "$path" -d "$out/$name" "$@"
  made "$out/$name"
}

# A command OUT/$1 that runs the class $2.
command_for() {
  local jars
  jars=$(class_path "${compiled_with[@]}" "${run_with[@]}" "${underneath[@]}")
  mkdir -p "$out/native"
  # netty looks for this name, and follows no link.
  [ -z "$(openssl_of)" ] || cp -u "$(openssl_of)" "$out/native/libnetty_tcnative.so"
  cat >"$out/$1" <<SH
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.library.path="\$here/native" \\
  -cp "\$here/examples:\$here/matchcut-client.jar:$jars" $2 "\$@"
SH
  chmod +x "$out/$1"
}

build() {
  local lacking
  lacking=$(missing | sort -u | tr '\n' ' ')
  [ -z "$lacking" ] || { echo "clients/java/build.sh: these Debian packages are missing: $lacking" >&2; exit 1; }
  mkdir -p "$out"
  compile_path=$(class_path "${compiled_with[@]}")
  generate
  compile classes "$out/generated:$compile_path" "$here"/src/main/java/matchcut/client/*.java
  if [ ! "$out/matchcut-client.jar" -nt "$out/classes.sha256" ]; then
    jar --create --file "$out/matchcut-client.jar" -C "$out/generated" . -C "$out/classes" .
  fi
  compile examples "$out/classes:$out/generated:$compile_path" "$here"/example/*.java
  command_for tour Tour
  command_for quickstart Quickstart
}

run_tests() {
  local path
  path=$out/classes:$out/generated:$(class_path "${compiled_with[@]}" "${run_with[@]}" "${underneath[@]}")
  compile tests "$path" "$here"/src/test/java/matchcut/client/*.java
  java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -ea -cp "$out/tests:$path" matchcut.client.TestRunner
}

case ${1:-} in
  --missing) missing | sort -u ;;
  --sources) out=$(mkdir -p "${2:?OUT}" && cd "$2" && pwd); sources ;;
  --test) out=$(mkdir -p "${2:?OUT}" && cd "$2" && pwd); build; run_tests ;;
  "" | -*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
  *) out=$(mkdir -p "$1" && cd "$1" && pwd); build ;;
esac
