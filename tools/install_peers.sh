#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install the peers that slow tests and benchmarks compare us with, where this can be done without asking anyone.
# Never fails: what needs an absent peer is skipped and says why.
#
# From Debian's packages, when root: nginx, haproxy, redis-server, golang-golang-x-mod-dev. From Go modules, where Go is: opa, opa-envoy-plugin, into
# .peers/bin (ignored by git; tests find them with tests/support/peers.py). The Go checksum database vouches for them.
# EVERYHOP_ISTIO_CHECK=1 also builds istio-check (tests/peers/istio_check) on Istio's own packages: some 1,100 packages, a gigabyte of
# caches, and on two slow cores far more minutes than all the others.
set -u

here=$(cd "$(dirname "$0")/.." && pwd)
bin="$here/.peers/bin"
OPA=github.com/open-policy-agent/opa@v1.22.3
OPA_ENVOY=github.com/open-policy-agent/opa-envoy-plugin/cmd/opa-envoy-plugin@v1.19.1-envoy
BUILD_SECONDS=1200 # two slow cores take five minutes for the first

install_packages() {
    missing=""
    command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ] || missing="$missing nginx"
    command -v haproxy >/dev/null 2>&1 || [ -x /usr/sbin/haproxy ] || missing="$missing haproxy"
    command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
    # The sources of Go's own transparency logs, for the second verifier of ours.
    [ -d /usr/share/gocode/src/golang.org/x/mod ] || missing="$missing golang-golang-x-mod-dev"
    if [ -z "$missing" ]; then
        return
    fi
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "peers: not root or no apt; tests that need these will be skipped:$missing"
        return
    fi

    export DEBIAN_FRONTEND=noninteractive
    # The packages' own services must not start and take ports.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi

    # shellcheck disable=SC2086  # one word a package
    if (apt-get update -qq && apt-get install -qq -y --no-install-recommends $missing) </dev/null >/dev/null 2>&1; then
        echo "peers: installed$missing"
    else
        echo "peers: could not install$missing; tests that need them will be skipped"
    fi
}

build() { # NAME MODULE@VERSION
    if [ -x "$bin/$1" ] || command -v "$1" >/dev/null 2>&1; then
        return
    fi
    if ! command -v go >/dev/null 2>&1; then
        echo "peers: no Go toolchain; what needs $1 will be skipped"
        return
    fi
    echo "peers: building $1 (minutes, once)"
    # A place of its own until it is complete, so that an interrupted build leaves nothing to be found.
    mkdir -p "$bin/.build-$1"
    if GOBIN="$bin/.build-$1" timeout "$BUILD_SECONDS" \
        go install -trimpath -ldflags='-s -w' "$2" </dev/null >"$bin/$1.log" 2>&1 \
        && mv "$bin/.build-$1/$1" "$bin/$1"; then
        echo "peers: built $1 from $2"
    else
        echo "peers: could not build $1 ($(grep -v downloading "$bin/$1.log" | tail -n 1 | tr -d '\t')); what needs it will be skipped"
    fi
    rm -rf "$bin/.build-$1"
}

build_istio_check() {
    if [ "${EVERYHOP_ISTIO_CHECK:-}" != 1 ] || [ -x "$bin/istio-check" ] || ! command -v go >/dev/null 2>&1; then
        return
    fi
    echo "peers: building istio-check (many minutes, once)"
    work="$bin/.build-istio-check"
    mkdir -p "$work" && cp "$here"/tests/peers/istio_check/main.go "$here"/tests/peers/istio_check/go.mod "$work"
    # No -trimpath: an interrupted build goes on where it was.
    if (cd "$work" && GOFLAGS=-mod=mod timeout "$((3 * BUILD_SECONDS))" go build -o istio-check . </dev/null >"$bin/istio-check.log" 2>&1) \
        && mv "$work/istio-check" "$bin/istio-check"; then
        echo "peers: built istio-check"
    else
        echo "peers: could not build istio-check ($(grep -v downloading "$bin/istio-check.log" | tail -n 1 | tr -d '\t')); what needs it will be skipped"
    fi
    rm -rf "$work"
}

install_packages
build opa "$OPA"
build opa-envoy-plugin "$OPA_ENVOY"
build_istio_check
exit 0
