#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install the peers that the slow tests compare us with, where this can be done without asking anyone.
# Never fails: a test whose peer is absent is skipped and says why.
set -u

missing=""
command -v nginx >/dev/null 2>&1 || missing="$missing nginx"
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"

if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "peers: not root or no apt; tests that need these will be skipped:$missing"
    exit 0
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
