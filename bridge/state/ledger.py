"""The quota's ledger in a Redis that all instances of a group ask (ports.Ledger).

The theory
    Of each API key Redis keeps the calls that count in a sorted set: a permit's name, and when its call ends, as far as
    that is told. A call counts in a window while its end is younger than the window is long. One script takes note of
    ends, counts, and grants, with Redis's own time: nothing can come in between, and no instance's clock matters.

    Redis may forget. Beside the calls a *sentinel* of the group tells since which run of Redis it has been kept, when
    it was written last, and which keys it knows. So the script notices what is missing, and books what may have been:

        no sentinel: emptied, or another Redis       the limit, in each window
        a key's calls missing: evicted, deleted      the limit, in each window
        another run: restarted, or a replica's turn  what the windows allowed between the last write that is known and
                                                     now: a minute's limit for each minute begun
        no sentinel, and whoever asks knows that     nothing
        the group has never committed anything

    What is booked so counts as having ended when all that may be under way has ended, `hold_seconds` later.

The pace, and what a 429 teaches, are those of core/window.py and core/quota.py, over the calls of all instances. (The
adapter does not know the core: the numbers come with each question, and a contract test holds the script to it.)

What may still go wrong: Redis's clock. Where it is put back calls wait for as long; where it leaps ahead, calls count
for so much less. So do not step the clock of that machine while calls are made; slewing (NTP's way) is harmless. A
machine that is suspended for more than a minute may, on waking, make the few calls for which it had permits at hand
(its monotonic clock stood still; a process that is stopped makes none). Two groups do not see each other, even with the
same API key: to each the other one is a neighbour (core/quota.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis import asyncio as client
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bridge.errors import LedgerFailed, StartFailed
from bridge.ports import Ask, Granted

TIMEOUT_SECONDS: Final = 2.0
"""For a connection, and for an answer; then it is asked anew, and meanwhile nothing leaves."""

KEPT_SECONDS: Final = 86_400
"""A key's calls vanish so long after the last of them has ceased to count: a key that was rotated leaves nothing."""

SCRIPT: Final = """
local sentinel, calls = KEYS[1], KEYS[2]
local ask = cjson.decode(ARGV[1])
local key, windows, rules = ask.key, ask.windows, ask.rules
local now, run = ask.now, ask.run
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
if not run then
  run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  if not run then return redis.error_reply('ERR this Redis does not tell its run_id') end
end

local longest = 0
for _, w in ipairs(windows) do longest = math.max(longest, w.seconds) end

local function exact(number) return string.format('%.17g', number) end
local function get(field) return tonumber(redis.call('HGET', sentinel, field) or nil) end
local function put(field, value) redis.call('HSET', sentinel, field, exact(value)) end

-- What Redis has forgotten
local gap = nil
local known_run = redis.call('HGET', sentinel, 'run')
local written = get(key .. ':last')
if not known_run then
  if not ask.first_use then gap = 1e15 end
elseif known_run ~= run then
  gap = math.max(0, now - (get('last') or 0))
end
if known_run and written and now - written < longest + ask.hold and not redis.call('ZSCORE', calls, 'guard') then
  gap = 1e15
end
local lost_end = get('lost_end')
if gap then
  local gaps = 1
  if lost_end and now < lost_end + longest then gap, gaps = gap + get('gap'), gaps + get('gaps') end
  lost_end = now + ask.hold
  put('gap', gap)
  put('gaps', gaps)
  put('lost_end', lost_end)
end
if known_run ~= run then redis.call('HSET', sentinel, 'run', run) end
gap = get('gap') or 0
local gaps = get('gaps') or 0
local lost = {}
for i, w in ipairs(windows) do
  lost[i] = 0
  if lost_end and now < lost_end + w.seconds then
    lost[i] = w.limit
    for _, v in ipairs(windows) do
      lost[i] = math.min(lost[i], v.limit * (math.floor(gap / v.seconds) + gaps))
    end
  end
end

-- News
redis.call('ZADD', calls, 1e300, 'guard')
redis.call('ZREMRANGEBYSCORE', calls, '-inf', exact(now - longest))
local next_at, gap_of, gap_until, paced = {}, {}, {}, {}
local shortest = windows[1]
for i, w in ipairs(windows) do
  next_at[i], gap_of[i] = get(key .. ':next:' .. i) or 0, get(key .. ':gap:' .. i) or 0
  gap_until[i], paced[i] = get(key .. ':gap_until:' .. i) or 0, get(key .. ':paced:' .. i) or 0
  if w.seconds < shortest.seconds then shortest = w end
end
local even = shortest.limit / shortest.seconds
local ahead = math.max(0, (get(key .. ':ahead') or 0) - math.max(0, now - (get(key .. ':last') or now)) * even)
local burst, learnt = get(key .. ':burst'), get(key .. ':learnt')
if burst and now - learnt > ask.kept then burst = nil end
for _, told in ipairs(ask.ended) do
  local name, ago = told[1], told[2]
  if ago then
    local score = tonumber(redis.call('ZSCORE', calls, name) or nil)
    if score and now - ago < score then redis.call('ZADD', calls, exact(now - ago), name) end
  elseif redis.call('ZREM', calls, name) == 1 then
    ahead = math.max(0, ahead - 1)
    if string.sub(name, -1) == 'c' then
      for i = 1, #windows do next_at[i] = next_at[i] - gap_of[i] end
    end
  end
end

local used, most, ceiling, since = {}, {}, {}, {}
for i, w in ipairs(windows) do
  used[i] = redis.call('ZCOUNT', calls, '(' .. exact(now - w.seconds), '+inf') - 1 + lost[i]
  ceiling[i], since[i] = get(key .. ':ceiling:' .. i), get(key .. ':since:' .. i)
end
local function risen()
  for i, w in ipairs(windows) do
    most[i] = w.limit
    if ceiling[i] then
      local high = ceiling[i] + w.limit * rules.recovery_share * (math.max(0, now - since[i]) / w.seconds) ^ 3
      if high < w.limit then most[i] = math.max(1, math.floor(high)) end
    end
  end
end
risen()

local brake = get(key .. ':brake') or 0
if ask.brake then
  local asked = ask.brake.wait_seconds
  if asked and now >= brake then
    if ahead >= rules.ahead_telling and asked <= math.ceil(1 / even) then
      ahead = math.max(0, ahead - 1)
      burst, learnt = math.max(1, math.min(burst or ahead, ahead / 2)), now
      put(key .. ':burst', burst)
      put(key .. ':learnt', learnt)
    else
      local yields, least = nil, nil
      for i, w in ipairs(windows) do
        local fits = asked <= w.seconds or (not yields and i == #windows)
        if fits and (not yields or used[i] / w.limit > used[yields] / windows[yields].limit) then
          yields = i
        end
        if fits and (not least or w.seconds < windows[least].seconds) then least = i end
      end
      if used[yields] / windows[yields].limit < rules.full_share then yields = least end
      local w = windows[yields]
      local reserve = math.max(0, math.min(math.ceil(w.spare * used[yields] / math.max(1, w.limit)), used[yields] - 1))
      local less = math.max(1, used[yields] * rules.give_way - reserve)
      local least_ceiling = math.max(1, w.limit * rules.full_share)
      ceiling[yields], since[yields] = math.max(least_ceiling, math.min(most[yields], used[yields]) - less), now
      put(key .. ':ceiling:' .. yields, ceiling[yields])
      put(key .. ':since:' .. yields, now)
      risen()
    end
  end
  brake = math.max(brake, now + ask.brake.seconds)
  put(key .. ':brake', brake)
end

-- Permits
local function kept(i, urgent)
  if urgent then return 0 end
  local w = windows[i]
  return math.max(0, math.min(math.ceil(w.spare * most[i] / math.max(1, w.limit)), most[i] - 1))
end
local function fits(urgent)
  if now < brake or (burst and ahead + 1 - burst > 1e-9) then return false end
  for i, w in ipairs(windows) do
    if used[i] >= most[i] - kept(i, urgent) then return false end
    if not urgent and next_at[i] > now then return false end
  end
  return true
end
local function wait(urgent)
  local at = math.max(now, brake)
  if burst then at = math.max(at, now + (ahead + 1 - burst) / even) end
  for i, w in ipairs(windows) do
    local over = used[i] + 1 - most[i] + kept(i, urgent)
    if over > 0 then
      local free = nil
      local found = redis.call('ZRANGEBYSCORE', calls, '(' .. exact(now - w.seconds), '+inf',
        'WITHSCORES', 'LIMIT', over - 1, 1)
      if found[1] and found[1] ~= 'guard' then
        -- A call under way may be answered at once: then it counts for one window from now.
        free = math.min(tonumber(found[2]), now) + w.seconds
      end
      if lost[i] > 0 then
        free = math.min(free or math.huge, lost_end + w.seconds)
      end
      if most[i] < w.limit then
        local lengths = ((most[i] + 1 - ceiling[i]) / (w.limit * rules.recovery_share)) ^ (1 / 3)
        local due = since[i] + lengths * w.seconds
        free = math.min(free or math.huge, due)
      end
      at = math.max(at, free or now + w.seconds)
    end
    if not urgent then at = math.max(at, next_at[i]) end
  end
  return at - now
end
local function gap_after(i)
  local w = windows[i]
  local part, room = w.seconds / rules.parts, w.limit - w.spare
  local first = math.floor(now / part)
  local free, gap = math.max(1, room - used[i] + 1), 0
  local from = '(' .. exact(now - w.seconds)
  for number = first, first + rules.parts - 1 do
    local to = exact((number + 1) * part - w.seconds)
    free = free + redis.call('ZCOUNT', calls, from, '(' .. to)
    if lost[i] > 0 and math.floor((lost_end + w.seconds) / part) == number then free = free + lost[i] end
    gap = math.max(gap, ((number + 1) * part - now) / free)
    from = to
  end
  return gap * math.min(1, used[i] / room)
end
local function keep_pace(i)
  local w = windows[i]
  if w.spare == 0 then return end
  paced[i] = paced[i] + 1
  if paced[i] * rules.gaps >= w.limit or now >= gap_until[i] then
    gap_of[i], gap_until[i], paced[i] = gap_after(i), now + w.seconds / rules.gaps, 0
  end
  next_at[i] = math.max(next_at[i], now - w.seconds * rules.catch_up_share) + gap_of[i]
end
local function grant(names, urgent)
  for n, name in ipairs(names) do
    if not fits(urgent) then return n - 1, wait(urgent) end
    redis.call('ZADD', calls, exact(now + ask.hold), name)
    ahead = ahead + 1
    for i = 1, #windows do
      used[i] = used[i] + 1
      if not urgent then keep_pace(i) end
    end
  end
  return #names, 0
end
local urgent, wait_urgent = grant(ask.urgent, true)
local common, wait_common = grant(ask.common, false)
local lost_seconds = 0
for i, w in ipairs(windows) do
  if lost[i] > 0 and used[i] >= most[i] then lost_seconds = math.max(lost_seconds, lost_end + w.seconds - now) end
end

for i = 1, #windows do
  put(key .. ':next:' .. i, next_at[i])
  put(key .. ':gap:' .. i, gap_of[i])
  put(key .. ':gap_until:' .. i, gap_until[i])
  put(key .. ':paced:' .. i, paced[i])
end
put(key .. ':ahead', ahead)
put(key .. ':last', now)
put('last', now)
redis.call('EXPIRE', calls, math.ceil(longest + ask.hold) + ask.kept)
local function text(list)
  local parts = {}
  for i, value in ipairs(list) do parts[i] = exact(value) end
  return table.concat(parts, ' ')
end
return text({urgent, common, wait_urgent, wait_common, math.max(0, brake - now), lost_seconds}) .. ';' .. text(used)
  .. ';' .. text(most)
"""

PROBE: Final = """
redis.call('TIME')
redis.call('EXISTS', KEYS[1], KEYS[2])
local info = redis.call('INFO', 'server') .. redis.call('INFO', 'replication')
return {string.match(info, 'run_id:(%w+)'), string.match(info, 'role:(%w+)')}
"""


class RedisLedger:
    """See `ports.Ledger`. Connects with the first use. Raises StartFailed for a URL that is none.

    `now` and `run` stand for Redis's time and run: a test's own.
    """

    def __init__(
        self, url: str, *, group: str, now: Callable[[], float] | None = None, run: Callable[[], str] | None = None
    ) -> None:
        # The braces keep both in one slot of a cluster.
        self._sentinel = f"meisa-bridge:{{{group}}}:quota"
        self._now, self._run = now, run
        try:
            self._redis: Any = client.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                max_connections=16,  # one for each API key, which are seven at most, and those that have just failed
                retry=Retry(NoBackoff(), 0),  # what has perhaps been done is not to be done again with the same names
                decode_responses=True,
            )
        except ValueError as error:
            said = str(error).partition("\n")[0]
            raise StartFailed(f"meisa.quota.shared is no URL of a Redis: {said}") from None
        options = self._redis.connection_pool.connection_kwargs
        self.where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        """For messages; a URL may hold a password."""
        self._script = self._redis.register_script(SCRIPT)

    async def ask(self, key: str, ask: Ask) -> Granted:
        question: dict[str, Any] = {
            "key": key,
            "windows": [window._asdict() for window in ask.windows],
            "urgent": ask.urgent,
            "common": ask.common,
            "ended": [[end.permit] if end.ago_seconds is None else [end.permit, end.ago_seconds] for end in ask.ended],
            "hold": ask.hold_seconds,
            "first_use": ask.first_use,
            "rules": ask.rules._asdict(),
            "kept": KEPT_SECONDS,
        }
        if ask.brake is not None:
            question["brake"] = {name: value for name, value in ask.brake._asdict().items() if value is not None}
        if self._now is not None:
            question["now"] = self._now()
        if self._run is not None:
            question["run"] = self._run()
        answer = await self._redis_says(
            lambda: self._script(keys=[self._sentinel, f"{self._sentinel}:{key}"], args=[json.dumps(question)])
        )
        granted = _read(answer, ask)
        if granted is None:
            raise LedgerFailed(f"Redis at {self.where} gives an answer that makes no sense")
        return granted

    async def probe(self) -> None:
        found = await self._redis_says(lambda: self._redis.eval(PROBE, 2, self._sentinel, f"{self._sentinel}:default"))
        if not isinstance(found, list) or len(found) != 2:
            raise LedgerFailed(f"what answers at {self.where} does not tell the run_id and the role of a Redis")
        if found[1] != "master":
            raise LedgerFailed(f"Redis at {self.where} is a replica: name the primary")

    async def close(self) -> None:
        await self._redis.aclose()

    async def _redis_says(self, question: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await question()
        except (exceptions.RedisError, OSError, ValueError) as error:
            said = (str(error) or type(error).__name__).partition("\n")[0]
            raise LedgerFailed(f"Redis at {self.where}: {said}") from None


def _read(answer: Any, ask: Ask) -> Granted | None:
    """The script's answer; None where it makes no sense."""
    try:
        facts, used, most = ([float(each) for each in part.split()] for part in answer.split(";"))
        urgent, common, wait_urgent, wait_common, brake, lost = facts
    except (AttributeError, TypeError, ValueError):
        return None
    if not all(math.isfinite(each) and each >= 0 for each in facts):
        return None
    if urgent > len(ask.urgent) or common > len(ask.common) or {len(used), len(most)} != {len(ask.windows)}:
        return None
    return Granted(
        int(urgent),
        int(common),
        wait_urgent,
        wait_common,
        tuple(int(each) for each in used),
        tuple(int(each) for each in most),
        brake,
        lost,
    )
