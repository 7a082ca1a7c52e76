"""The Lua scripts: every atomic step that needs more than one command of Redis 6.2.

Redis runs a script as a whole, without other commands in between. Each script follows two rules.
The first write is the one that can fail (no memory left, or a replica), so a failed script has
changed nothing. No number from a value is computed in Lua, as its numbers lose integers above 2^53;
soft deadlines and fencing tokens are below that.

Times come from the client, in whole milliseconds since 1970, because SharedCache checks the
payloads that it has read by the same clock.
"""

import dataclasses
import hashlib

from cacheapp.backends.core import lease_format

WAKE_CHANNEL = "cacheapp:lease:"
"""The channel of a key is this prefix and the key. Each script that ends a lease publishes there."""


@dataclasses.dataclass(frozen=True)
class Script:
    """A script: its text, and the digest under which EVALSHA finds it."""

    name: str
    text: bytes
    sha: bytes


def _script(name: str, text: str) -> Script:
    code = text.strip().encode()
    return Script(name, code, hashlib.sha1(code, usedforsecurity=False).hexdigest().encode())


# `lease_format.is_visible` on the server. Strings are compared only for equality, because Lua's `<`
# depends on the server's locale. A refused PUBLISH (the user may lack the permission) is ignored:
# callers that wait also poll.
_LEASE_FUNCTIONS = f"""
local function head(key)
  local found = redis.pcall('GETRANGE', key, 0, {lease_format.HEAD_BYTES - 1})
  return type(found) == 'string' and found or ''
end
local function is_lease(head)
  return #head == {lease_format.LEASE_BYTES} and string.byte(head) == {lease_format.LEASE}
end
local function is_soft(head)
  return #head >= {lease_format.SOFT_HEAD_BYTES} and string.byte(head) == {lease_format.SOFT}
end
local function is_hidden(head, now)
  if is_lease(head) then return true end
  if not is_soft(head) then return false end
  local deadline = 0
  for i = {lease_format.SOFT_DEADLINE.start + 1}, {lease_format.SOFT_DEADLINE.stop} do
    deadline = deadline * 256 + string.byte(head, i)
  end
  return tonumber(now) >= deadline
end
local function is_visible(key, head, now)
  if head == '' then return redis.call('EXISTS', key) == 1 end
  return not is_hidden(head, now)
end
local function wake(key) redis.pcall('PUBLISH', '{WAKE_CHANNEL}' .. key, '') end
local function set(key, payload, ttl)
  if ttl == '0' then redis.call('SET', key, payload)
  else redis.call('SET', key, payload, 'PX', ttl) end
end
"""

# Stores the lease if the key is missing, else returns what is stored. Finding the caller's own lease
# counts as success, so the script can be repeated after a lost reply.
LEASE = _script(
    "lease",
    """
local found = redis.call('GET', KEYS[1])
if not found then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return false
end
if found == ARGV[1] then return false end
return found
""",
)

# Stores the payload only over the expected one. Finding the payload already stored counts as
# success, so the script can be repeated after a lost reply. A lease over itself is a renewal.
FILL = _script(
    "fill",
    _LEASE_FUNCTIONS
    + """
local found = redis.call('GET', KEYS[1])
if found ~= ARGV[1] then return found == ARGV[2] and 1 or 0 end
set(KEYS[1], ARGV[2], ARGV[3])
if is_lease(ARGV[1]) and ARGV[1] ~= ARGV[2] then wake(KEYS[1]) end
return 1
""",
)

ADD = _script(
    "add",
    _LEASE_FUNCTIONS
    + """
local old = head(KEYS[1])
if is_visible(KEYS[1], old, ARGV[1]) then return 0 end
set(KEYS[1], ARGV[2], ARGV[3])
if is_lease(old) then wake(KEYS[1]) end
return 1
""",
)

SET_EXISTING = _script(
    "set_existing",
    _LEASE_FUNCTIONS
    + """
if not is_visible(KEYS[1], head(KEYS[1]), ARGV[1]) then return 0 end
set(KEYS[1], ARGV[2], ARGV[3])
return 1
""",
)

# An entry with a soft deadline becomes a plain one: the caller replaces its deadline.
TOUCH = _script(
    "touch",
    _LEASE_FUNCTIONS
    + f"""
local old, ttl = head(KEYS[1]), ARGV[2]
if not is_visible(KEYS[1], old, ARGV[1]) then return 0 end
if is_soft(old) then
  set(KEYS[1], string.sub(redis.call('GET', KEYS[1]), {lease_format.SOFT_HEAD_BYTES + 1}), ttl)
elseif ttl == '0' then redis.call('PERSIST', KEYS[1])
else redis.call('PEXPIRE', KEYS[1], ttl) end
return 1
""",
)

PERSIST = _script(
    "persist",
    _LEASE_FUNCTIONS
    + f"""
local old = head(KEYS[1])
if not is_visible(KEYS[1], old, ARGV[1]) then return 0 end
if not is_soft(old) then return redis.call('PERSIST', KEYS[1]) end
redis.call('SET', KEYS[1], string.sub(redis.call('GET', KEYS[1]), {lease_format.SOFT_HEAD_BYTES + 1}))
return 1
""",
)

TTL = _script(
    "ttl",
    _LEASE_FUNCTIONS
    + """
return {head(KEYS[1]), redis.call('PTTL', KEYS[1])}
""",
)

# Returns each value, and the milliseconds that it has left: two of one moment.
FETCH = _script(
    "fetch",
    """
local found = {}
for i = 1, #KEYS do
  found[#found + 1] = redis.call('GET', KEYS[i])
  found[#found + 1] = redis.call('PTTL', KEYS[i])
end
return found
""",
)

# Removes all keys, and returns how many were visible.
REMOVE = _script(
    "remove",
    _LEASE_FUNCTIONS
    + """
local count = 0
for i = 1, #KEYS do
  local old = head(KEYS[i])
  local gone = redis.call('UNLINK', KEYS[i])
  if not is_hidden(old, ARGV[1]) then count = count + gone end
  if is_lease(old) then wake(KEYS[i]) end
end
return count
""",
)

# Returns the indexes, from 1, of the visible keys.
VISIBLE = _script(
    "visible",
    _LEASE_FUNCTIONS
    + """
local found = {}
for i = 1, #KEYS do
  if is_visible(KEYS[i], head(KEYS[i]), ARGV[1]) then found[#found + 1] = i end
end
return found
""",
)

# Returns the sum as a string, nothing if there is no entry, and a list with the stored value if Redis
# cannot count it. INCRBY keeps the deadline. EXISTS comes first because INCRBY would create the key.
# A lease does not count as an entry.
INCR = _script(
    "incr",
    f"""
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(sum) == 'table' and sum.err then
  if string.find(sum.err, 'not an integer') or string.find(sum.err, 'overflow') then
    local found = redis.call('GET', KEYS[1])
    if #found == {lease_format.LEASE_BYTES} and string.byte(found) == {lease_format.LEASE} then return false end
    return {{found}}
  end
  return sum
end
return redis.call('GET', KEYS[1])
""",
)

REPLACE = _script(
    "replace",
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
""",
)

DISCARD = _script(
    "discard",
    _LEASE_FUNCTIONS
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
if is_lease(ARGV[1]) then wake(KEYS[1]) end
return 1
""",
)

# An entry with less than a millisecond left has a PTTL of 0, which SET rejects.
MOVE = _script(
    "move",
    _LEASE_FUNCTIONS
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local old = head(KEYS[2])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  redis.call('SET', KEYS[2], ARGV[2])
else
  redis.call('SET', KEYS[2], ARGV[2], 'PX', math.max(left, 1))
end
redis.call('UNLINK', KEYS[1])
if is_lease(old) then wake(KEYS[2]) end
return 1
""",
)

# ARGV[1] is the TTL in milliseconds, or 0 for none. The batch is atomic: after a script's first write
# Redis lets it exceed `maxmemory`, so either all values are stored or none.
SET_MANY = _script(
    "set_many",
    """
local ttl = ARGV[1]
if ttl == '0' then
  for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1]) end
else
  for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1], 'PX', ttl) end
end
return 1
""",
)

# KEYS: the lock, which holds its token until it expires; the fence, which holds the last token and
# does not expire. TIME keeps tokens growing if the fence is lost: microseconds since 1970 grow faster
# than tokens are issued, and stay below 2^53 until the year 2255. The fence is written first: an
# unused token does no harm, a repeated one does.
ACQUIRE_LOCK = _script(
    "acquire_lock",
    """
if redis.call('EXISTS', KEYS[1], KEYS[3]) > 0 then return false end
local time = redis.call('TIME')
local token = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', KEYS[2]) or 0)
if last >= token then token = last + 1 end
local text = string.format('%.0f', token)
redis.call('SET', KEYS[2], text)
local held = text .. ' ' .. ARGV[2]
if ARGV[1] == '0' then redis.call('SET', KEYS[1], held)
else redis.call('SET', KEYS[1], held, 'PX', ARGV[1]) end
return text
""",
)

CANCEL_LOCK = _script(
    "cancel_lock",
    """
redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
local held = redis.call('GET', KEYS[1])
if not held or string.match(held, ' (.*)') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""",
)

RENEW_LOCK = _script(
    "renew_lock",
    """
local held = redis.call('GET', KEYS[1])
if not held or string.match(held, '%d+') ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('PERSIST', KEYS[1])
else redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
""",
)

RELEASE_LOCK = _script(
    "release_lock",
    """
local held = redis.call('GET', KEYS[1])
if not held or string.match(held, '%d+') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""",
)

_ALL = (
    *(
        LEASE,
        FILL,
        ADD,
        SET_EXISTING,
        TOUCH,
        PERSIST,
        TTL,
        FETCH,
        REMOVE,
        VISIBLE,
        INCR,
        REPLACE,
        DISCARD,
        MOVE,
    ),
    *(SET_MANY, ACQUIRE_LOCK, CANCEL_LOCK, RENEW_LOCK, RELEASE_LOCK),
)
SCRIPT_NAMES = {known: script.name for script in _ALL for known in (script.sha, script.text)}
TEXTS = {script.sha: script.text for script in _ALL}
