# SPDX-License-Identifier: Apache-2.0
"""Sliding windows that servers share, in Redis: the rules of ``anomaly.window`` in one script.

One subject is one hash of at most 61 buckets and ten further fields, under a key with a hash tag of its own, so a cluster
keeps it in one slot; each bucket renews its life, so what is not used goes by itself.  Time is the server's.  A call that
was sent and not answered may have counted: with its position, repeating it counts nothing twice.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from everyhop.anomaly.window import BUCKETS, NOTHING, Count, Crossing, Look
from everyhop.core.errors import SettingsError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from everyhop.anomaly.window import Hit, Threshold

TIMEOUT_SECONDS: Final = 0.05
"""How long one answer may take; then it is Unavailable."""

CHUNK: Final = 500
"""Calls that are sent together."""

# Fields: h the newest bucket, t the sum, a when the alert was told, u until when it is blocked, f from when calls count, p the
# newest position, w the width of a bucket, x what the call at position y crossed, and z its count; and buckets by their number
# modulo 61.  All times in milliseconds.
_STATE: Final = """
local key = KEYS[1]
local now = tonumber(ARGV[1])
if now == 0 then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
local got = redis.call('HMGET', key, 'h', 't', 'a', 'u', 'f', 'p', 'w')
local head, total, alerted = tonumber(got[1] or 0), tonumber(got[2] or 0), tonumber(got[3] or 0)
local blocked, floor = tonumber(got[4] or 0), tonumber(got[5] or 0)
local seen, was = tonumber(got[6] or 0), tonumber(got[7] or 0)
if now < head * was then now = head * was end
if now < floor then now = floor end
"""

# ARGV: now, width, alert, block, block_ms; then age and position of each call.  The answer is n and crossing of each.
_COUNT: Final = (
    _STATE
    + """
local width, alert, block = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local window, here = width * 60, math.floor(now / width)
local told = redis.call('HMGET', key, 'x', 'y', 'z')
local what, where, count = tonumber(told[1] or 0), tonumber(told[2] or 0), tonumber(told[3] or 0)
local was_seen, ready, wiped, added, answers = seen, false, false, {}, {}
if blocked > 0 and blocked <= now then floor, was, blocked = blocked, 0, 0 end
for i = 6, #ARGV, 2 do
  local age, position, n, crossed = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), 0, 0
  if position > 0 and position <= seen then
    if position == where then n, crossed = count, what end
  else
    if position > 0 then seen = position end
    local at = now
    if age > 0 then at = now - age end
    local index = math.floor(at / width)
    if blocked <= now and at >= floor and index > here - 61 then
      if not ready then
        ready = true
        if was ~= width or here - head >= 61 then
          if was ~= width then alerted = 0 end
          wiped, total = true, 0
        else
          for bucket = head + 1, here do
            local gone = redis.call('HGET', key, bucket % 61)
            if gone then
              total = total - gone
              redis.call('HDEL', key, bucket % 61)
            end
          end
        end
      end
      if alerted > 0 and alert > 0 and (total * 2 < alert or now - alerted >= window) then alerted = 0 end
      added[index % 61] = (added[index % 61] or 0) + 1
      total = total + 1
      n = total
      if block > 0 and total >= block then
        crossed, blocked = 2, now + tonumber(ARGV[5])
      elseif alert > 0 and total >= alert and alerted == 0 then
        crossed, alerted = 1, now
      end
      if crossed > 0 and position > 0 then what, where, count = crossed, position, n end
    end
  end
  answers[#answers + 1] = n
  answers[#answers + 1] = crossed
end
if ready then
  if wiped then redis.call('DEL', key) end
  for bucket, more in pairs(added) do redis.call('HINCRBY', key, bucket, more) end
  redis.call('HSET', key, 'h', here, 't', total, 'a', alerted, 'u', blocked, 'f', floor, 'p', seen, 'w', width,
             'x', what, 'y', where, 'z', count)
  redis.call('PEXPIRE', key, window + width + math.max(0, blocked - now))
elseif seen > was_seen and blocked > now then
  redis.call('HSET', key, 'p', seen)
end
return answers
"""
)

_SET: Final = (
    _STATE
    + """
local for_ms, life = tonumber(ARGV[2]), tonumber(ARGV[3])
if for_ms == 0 then
  redis.call('DEL', key)
  redis.call('HSET', key, 'f', now, 'p', seen)
else
  blocked = math.max(blocked, now + for_ms)
  redis.call('HSET', key, 'u', blocked)
  life = life + blocked - now
end
redis.call('PEXPIRE', key, life)
return 1
"""
)

_LOOK: Final = (
    _STATE
    + """
local width = tonumber(ARGV[2])
if blocked > now then return {0, 0, blocked - now} end
if blocked > 0 or was ~= width then return {0, 0, 0} end
local here = math.floor(now / width)
if here - head >= 61 then return {0, 0, 0} end
for i = head + 1, here do total = total - tonumber(redis.call('HGET', key, i % 61) or 0) end
return {total, (total > 0 and alerted > 0) and 1 or 0, 0}
"""
)

_CROSSINGS: Final = {0: None, 1: Crossing.ALERT, 2: Crossing.BLOCK}
_LONGEST_WINDOW_MS: Final = 3_700_000


class _Script:
    """A script by its hash."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisWindows:
    """Shared counters.  Every call raises Unavailable when Redis does not answer in time; see ``anomaly.twin``.

    Used from one thread at a time.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "everyhop",
        timeout_seconds: float = TIMEOUT_SECONDS,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        """Take ``url`` (``redis://``, ``rediss://`` or ``unix://``; it may hold a password and is not repeated).

        ``namespace`` keeps trust domains apart; ``now_ms`` is for tests, in place of the server's clock.
        """
        try:
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                retry=Retry(NoBackoff(), 0),
                health_check_interval=0,
            )
        except (ValueError, TypeError) as error:
            raise SettingsError(f"the address of Redis does not parse ({type(error).__name__})") from None
        self._namespace = namespace
        self._now_ms = now_ms
        self._count, self._set, self._look = _Script(_COUNT), _Script(_SET), _Script(_LOOK)

    def count(self, hits: Sequence[Hit], *, now: float) -> list[Count]:
        """Count calls in their order, many to a round trip; ``now`` is not used.  Raises Unavailable."""
        del now
        found: list[Count] = []
        for start in range(0, len(hits), CHUNK):
            found += self._count_chunk(hits[start : start + CHUNK])
        return found

    def _count_chunk(self, hits: Sequence[Hit]) -> list[Count]:
        """Count calls of many subjects, those of one with one command: a flood costs little more than a call."""
        places: dict[tuple[str, Threshold], list[int]] = {}
        for place, hit in enumerate(hits):
            places.setdefault((hit.key, hit.threshold), []).append(place)
        calls = [
            (*self._arguments(key, limit), *(part for n in of_one for part in _age_and_position(hits[n])))
            for (key, limit), of_one in places.items()
        ]
        found = [NOTHING] * len(hits)
        for of_one, answer in zip(places.values(), self._run(self._count, calls), strict=True):
            for place, n, crossed in zip(of_one, answer[::2], answer[1::2], strict=True):
                found[place] = Count(int(n), _CROSSINGS[int(crossed)])
        return found

    def release(self, key: str, *, now: float) -> None:
        """Begin at zero.  Raises Unavailable."""
        del now
        self._run(self._set, [(self._key(key), self._time(), 0, _LONGEST_WINDOW_MS)])

    def hold(self, key: str, seconds: float, *, now: float) -> None:
        """Take over a block.  Raises Unavailable."""
        del now
        milliseconds = max(1, int(seconds * 1000))
        self._run(self._set, [(self._key(key), self._time(), milliseconds, _LONGEST_WINDOW_MS)])

    def look(self, key: str, window: float, *, now: float) -> Look:
        """Return a counter.  Raises Unavailable."""
        del now
        (answer,) = self._run(self._look, [(self._key(key), self._time(), _width(window))])
        n, alerted, left = (int(value) for value in answer)
        return Look(n, alerted=bool(alerted), blocked_for=left / 1000)

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()
        self._redis.connection_pool.disconnect()

    def _arguments(self, key: str, limit: Threshold) -> tuple[Any, ...]:
        block_ms = max(1, math.ceil(limit.block_seconds * 1000))
        return (
            self._key(key),
            self._time(),
            _width(limit.window),
            limit.alert or 0,
            limit.block or 0,
            block_ms,
        )

    def _key(self, key: str) -> str:
        """Name a subject; hashed, so that it has one length whatever a caller calls himself, and tagged for clusters."""
        return f"{self._namespace}:window:{{{hashlib.sha256(key.encode()).hexdigest()[:40]}}}"

    def _time(self) -> int:
        return 0 if self._now_ms is None else self._now_ms()

    def _run(self, script: _Script, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        try:
            answers = self._send(script, calls)
            missing = [
                place
                for place, answer in enumerate(answers)
                if isinstance(answer, redis.exceptions.NoScriptError)
            ]
            if missing:  # the first call of all, or a server that was restarted or flushed
                self._redis.script_load(script.text)
                for place, answer in zip(
                    missing, self._send(script, [calls[n] for n in missing]), strict=True
                ):
                    answers[place] = answer
        except (redis.RedisError, OSError) as error:
            # `from None`: errors of the client may quote the command, and its address may hold a password.
            raise Unavailable(f"Redis does not answer ({type(error).__name__})") from None
        for answer in answers:
            if isinstance(answer, Exception):
                raise Unavailable(f"Redis does not count ({type(answer).__name__})")
        return answers

    def _send(self, script: _Script, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.evalsha(script.sha, 1, *call)
        return pipeline.execute(raise_on_error=False)


def _width(window: float) -> int:
    return max(1, round(window * 1000 / BUCKETS))


def _age_and_position(hit: Hit) -> tuple[int, int]:
    return max(0, min(int(hit.age * 1000), 2**40)), hit.position
