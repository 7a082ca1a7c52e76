"""The Lua scripts: what needs more than one command of Redis 6.2 and yet one atomic step.

Redis runs a script whole, alone. Two rules hold in each: the first write is the one that can fail
(for want of memory, or on a replica), so that a failed script has changed nothing; and no number
that came from a value is ever touched in Lua, whose numbers lose integers above 2^53.
"""

import dataclasses
import hashlib


@dataclasses.dataclass(frozen=True)
class Script:
    """A script by its text, and by the digest that EVALSHA knows it by."""

    name: str
    text: bytes
    sha: bytes


def _script(name: str, text: str) -> Script:
    code = text.strip().encode()
    return Script(name, code, hashlib.sha1(code, usedforsecurity=False).hexdigest().encode())


# Answers the sum as a string, nothing where no entry is, and a list with what it found where Redis
# cannot count. INCRBY keeps the deadline. EXISTS first: INCRBY would create the key.
INCR = _script(
    "incr",
    """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(sum) == 'table' and sum.err then
  if string.find(sum.err, 'not an integer') or string.find(sum.err, 'overflow') then
    return {redis.call('GET', KEYS[1])}
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
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
""",
)

# An entry with less than a millisecond left has a PTTL of 0, which SET refuses.
MOVE = _script(
    "move",
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  redis.call('SET', KEYS[2], ARGV[2])
else
  redis.call('SET', KEYS[2], ARGV[2], 'PX', math.max(left, 1))
end
redis.call('UNLINK', KEYS[1])
return 1
""",
)

# PERSIST alone does not tell an entry without a deadline from no entry.
TOUCH_FOREVER = _script(
    "touch",
    """
redis.call('PERSIST', KEYS[1])
return redis.call('EXISTS', KEYS[1])
""",
)

# ARGV[1] is the TTL in milliseconds, or 0 for none. The whole batch is one step: once a script has
# written, Redis lets it go on past `maxmemory`, so all is stored or nothing.
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

NAMES = {
    known: script.name
    for script in (INCR, REPLACE, DISCARD, MOVE, TOUCH_FOREVER, SET_MANY)
    for known in (script.sha, script.text)
}
