# SPDX-License-Identifier: Apache-2.0
"""Single use across processes and machines: the name of each used token, in Redis, until the token is over.

One command does it (``SET … NX``), so of any number of simultaneous uses exactly one is the first.  Whatever goes
wrong is raised, and who asks refuses the call: a token is never taken because it could not be looked up.

The life of an entry is sent as a duration and not as a moment: with a Redis whose clock runs ahead, a moment would
end entries while their tokens are still good.  Redis must not evict (``maxmemory-policy noeviction``) and should
persist; what it forgets could be used again for the rest of its five minutes.  :meth:`RedisReplayGuard.check` asks.
"""

from __future__ import annotations

import hashlib
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from everyhop.core.clock import Clock
from everyhop.core.errors import SettingsError, Unavailable
from everyhop.tokens.limits import EXPIRY_SKEW_SECONDS

MARGIN_SECONDS: Final = 60  # clocks of replicas that differ by less cannot disagree about what is over
TIMEOUT_SECONDS: Final = 1.0
_MAX_CONNECTIONS: Final = 64
_SAFE_POLICY: Final = "noeviction"


class RedisReplayGuard:
    """The ``ReplayGuard`` of replicas that share a Redis.  Safe to use from many threads."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        namespace: str = "everyhop",
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """Take ``url`` (``redis://``, ``rediss://`` or ``unix://``; it may hold a password and is not repeated).

        ``namespace`` keeps trust domains apart that share a Redis.  Connects at the first use.
        """
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=_MAX_CONNECTIONS,
                timeout=timeout_seconds,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                # A command that was sent and not answered may have been done: repeating it would call the first use
                # a second one, and only that.
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, TypeError) as error:
            raise SettingsError(f"the address of Redis does not parse ({type(error).__name__})") from None
        self._redis = redis.Redis(connection_pool=pool)
        self._clock = clock
        self._namespace = namespace

    def use(self, jti: str, expires_at: int) -> bool:
        """Return True only for the first use of a name that is not over yet.

        Raises Unavailable when Redis does not answer in time; the caller refuses then.
        """
        left = expires_at + EXPIRY_SKEW_SECONDS - self._clock.now().timestamp()
        if left <= 0:
            return False
        try:
            done = self._redis.set(self._key(jti), b"", nx=True, ex=int(left) + 1 + MARGIN_SECONDS)
        except (redis.RedisError, OSError) as error:
            # `from None`: errors of the client may quote the command, and its address may hold a password.
            raise Unavailable(f"Redis does not answer ({type(error).__name__})") from None
        return done is True

    def check(self) -> None:
        """Ask whether Redis answers and keeps what it is given.

        Raises Unavailable when it does not answer, SettingsError when it may evict entries.  A Redis that does not
        tell its configuration is taken at its owner's word.
        """
        try:
            self._redis.ping()
            answer = self._redis.config_get("maxmemory-policy")
        except redis.ResponseError:
            return
        except (redis.RedisError, OSError) as error:
            raise Unavailable(f"Redis does not answer ({type(error).__name__})") from None
        policy = answer.get("maxmemory-policy", _SAFE_POLICY)
        if policy != _SAFE_POLICY:
            raise SettingsError(
                f"Redis may evict entries (maxmemory-policy {policy}), and what it forgets can be used again",
                hint=f"set maxmemory-policy {_SAFE_POLICY}, or use a Redis of its own",
            )

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()
        self._redis.connection_pool.disconnect()

    def _key(self, jti: str) -> str:
        """Name an entry; hashed, so that it has one length whatever the token says."""
        return f"{self._namespace}:jti:{hashlib.sha256(jti.encode()).hexdigest()}"
