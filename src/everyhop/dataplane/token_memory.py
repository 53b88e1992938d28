# SPDX-License-Identifier: Apache-2.0
"""The program that lets a sidecar remember which credentials were verified: Envoy runs it, in Lua, before each check.

It can only ever *spare* the question to the agent.  The filter behind it (:mod:`everyhop.dataplane.checks`) asks
unless this program said ``ok`` for this very request; a program that fails, or is not there, says nothing.

What a request needs is in the verdict that let it in (:func:`everyhop.dataplane._names.verdict`), so the policy's
filter and this program cannot disagree.  What was verified is remembered under the operation, the peer (what
Envoy itself says in ``x-forwarded-client-cert``: the digest of its certificate and its SPIFFE ID), the access token
and the transaction token, until the moment that the agent named, and no longer than this text is in force: a new
snapshot or a new revocation is a new text, and a new text begins with an empty memory.  A request with a token in its
query is always asked about, because it is always refused.  Two generations bound it: when the younger is full, the older is forgotten.
"""

from __future__ import annotations

from typing import Final

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import Json, typed

LUA: Final = "envoy.extensions.filters.http.lua.v3.Lua"
MAX_REMEMBERED: Final = 8192
"""Entries of one generation, for each worker of Envoy."""
_MAX_CREDENTIAL: Final = 8192  # bytes; longer ones are asked about each time

_NOTHING_TO_CHECK: Final = "-- no operation of this service asks for a token or a user\n"

_PROGRAM: Final = """\
-- snapshot @SNAPSHOT@, revocations @EPOCH@
local SNAPSHOT, MAX, LONGEST = "@SNAPSHOT@", @MAX@, @LONGEST@
local needs, young, old, count = {}, {}, {}, 0
local now, asked = os.time, 0  -- asked: when a question was last put; answers are looked for a minute long

local function read(verdict)
  local snapshot, letters = string.match(verdict, "^(%x+)|[a-z]+%+?([a-zA-Z]*)|")
  if snapshot == nil then return nil end
  local need = {
    token = string.find(letters, "[so]") ~= nil,
    once = string.find(letters, "x") ~= nil,
    user = string.find(letters, "[uU]") ~= nil,
    must = string.find(letters, "[Uc]") ~= nil,
    facts = string.find(letters, "c") ~= nil,
    current = snapshot == SNAPSHOT,
  }
  needs[verdict] = need
  return need
end

local function find(memory, operation, peer, token, user)
  local level = memory[operation]
  level = level and level[peer]
  level = level and level[token]
  return level and level[user]
end

local function down(level, key)
  local below = level[key]
  if below == nil then
    below = {}
    level[key] = below
  end
  return below
end

local function remember(key, entry)
  if count >= MAX then
    old, young, count = young, {}, 0
  end
  down(down(down(young, key.operation), key.peer), key.token)[key.user] = entry
  count = count + 1
end

function envoy_on_request(handle)
  local info = handle:streamInfo()
  local metadata = info:dynamicMetadata()
  local decided = metadata:get("@RBAC@")
  local verdict = decided.enforced_effective_policy_id
  local need = needs[verdict] or read(verdict)
  if need == nil then return end
  local headers = handle:headers()
  local user = ""
  if need.user then
    user = headers:get("@TXN@") or ""
  else
    headers:remove("@TXN@")
  end
  if not need.token and not need.must and user == "" then
    metadata:set("@OURS@", "ok", true)
    return
  end
  if need.once or need.facts or not need.current then return end
  local token = need.token and headers:get("authorization") or ""
  if #token > LONGEST or #user > LONGEST then return end
  local path = headers:get(":path") or "?"
  local query = string.find(path, "?", 1, true)
  if query ~= nil and string.find(path, "token", query, true) ~= nil then return end
  local operation = decided.shadow_effective_policy_id
  local peer = headers:get("x-forwarded-client-cert")
  if peer == nil then return end
  local entry = find(young, operation, peer, token, user)
  if entry == nil then
    entry = find(old, operation, peer, token, user)
    if entry ~= nil then remember({operation = operation, peer = peer, token = token, user = user}, entry) end
  end
  if entry ~= nil and now() < entry.fresh then
    for index = 1, #entry, 2 do headers:replace(entry[index], entry[index + 1]) end
    metadata:set("@OURS@", "ok", true)
    return
  end
  asked = now()
  metadata:set("@OURS@", "key", {operation = operation, peer = peer, token = token, user = user})
end

function envoy_on_response(handle)
  if now() > asked + 60 then return end
  local metadata = handle:streamInfo():dynamicMetadata()
  local answer = metadata:get("@CHECK@")
  if answer == nil or answer["@UNTIL@"] == nil then return end
  local ours = metadata:get("@OURS@")
  if ours == nil or ours.key == nil then return end
  local entry = {fresh = math.floor(answer["@UNTIL@"])}
  for name, value in pairs(answer["@HEADERS@"] or {}) do
    if string.sub(name, 1, 11) == "x-everyhop-" then
      entry[#entry + 1] = name
      entry[#entry + 1] = value
    end
  end
  remember(ours.key, entry)
end
"""


def memory_filter(snapshot: str, epoch: str) -> Json:
    """Return the filter for a service with checks: it remembers under one snapshot and one revocation epoch.

    ``epoch`` is any text that differs whenever keys, issuers or revocations differ.
    """
    text = _PROGRAM
    for mark, value in {
        "SNAPSHOT": snapshot[: names.SNAPSHOT_DIGITS],
        "EPOCH": _plain(epoch),
        "MAX": str(MAX_REMEMBERED),
        "LONGEST": str(_MAX_CREDENTIAL),
        "RBAC": names.HTTP_RBAC,
        "CHECK": names.EXT_AUTHZ,
        "OURS": names.OURS,
        "TXN": names.TXN_HEADER,
        "UNTIL": names.UNTIL,
        "HEADERS": names.HEADERS,
    }.items():
        text = text.replace(f"@{mark}@", value)
    return program(text)


def no_memory() -> Json:
    """Return the filter for a service without checks."""
    return program(_NOTHING_TO_CHECK)


def program(text: str) -> Json:
    """Return a Lua filter with this program."""
    return typed(LUA, default_source_code={"inline_string": text})


def _plain(text: str) -> str:
    """Return a text as a word that ends no comment."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "_" for c in text)[:100]
