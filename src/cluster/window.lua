-- Counts a request against all of its limits, or against none of them. One call is one round trip.
--
-- The window is that of src/domain/window.rs, which says why it is as it is. A window is a hash: `t` what counts, `f` and
-- `l` the first and the last bucket that may hold something, and each bucket under its number. Requests under way are a
-- hash with a field for each replica: how many it has, until when that is believed, and which of its reports it was.
--
-- KEYS[1]  whether this server still knows what it was told
-- KEYS[n]  one for each item
-- ARGV     now in ms (0: this server's clock), ms of a bucket, buckets, ms without change until a window is thrown away,
--          the replica, ms a replica is believed without hearing from it; then the items, one after the other:
--          'w' limit need extra  n (bucket amount)*n to give back  n (age amount)*n to count that was counted elsewhere
--          'c' limit want extra report
--          A limit of -1 counts without asking. An extra of -1: so many are under way, and no more places are held; with
--          any other, places that are held already stay so, because the replica may be filling them now.
-- Answer   1 or 0, now in ms, what KEYS[1] holds; then for each item four numbers:
--          'w' used, granted of the extra, ms until the need fits (0 now, -1 never), ms until nothing is used
--          'c' under way elsewhere, places held now, 0 or -1 if there is no place, 0

local now, micros = tonumber(ARGV[1]), 0
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  micros = time[2] % 1000
end
local bucket_ms, buckets, expiry = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local replica, belief = ARGV[5], tonumber(ARGV[6])
local present = math.floor(now / bucket_ms)
local low = present - buckets

local at = 6
local function argument()
  at = at + 1
  return ARGV[at]
end
local function number()
  return tonumber(argument())
end

local function range(first, last)
  local numbers = {}
  for bucket = first, last do
    numbers[#numbers + 1] = bucket
  end
  return numbers
end

local function counts(key, numbers)
  return redis.call('HMGET', key, unpack(numbers))
end

-- A window is written once, at the end: what is in the present bucket is known from its loading, and the key was given its
-- time when that bucket began.
local function save(window)
  if window.total == 0 then
    redis.call('DEL', window.key)
  elseif window.here > 0 then
    redis.call('HSET', window.key, 't', window.total, 'f', window.first, 'l', window.last, present, window.here)
  else
    redis.call('HSET', window.key, 't', window.total, 'f', window.first, 'l', window.last)
    if window.was_here > 0 then
      redis.call('HDEL', window.key, present)
    end
  end
  if window.total > 0 and not window.lasts then
    redis.call('PEXPIRE', window.key, expiry)
  end
end

local function put(window, bucket, amount)
  if amount > 0 then
    if window.total == 0 then
      window.first, window.last = bucket, bucket
    end
    if bucket == present then
      window.here = window.here + amount
    else
      redis.call('HINCRBY', window.key, bucket, amount)
    end
    window.total = window.total + amount
    window.first = math.min(window.first, bucket)
    window.last = math.max(window.last, bucket)
    window.changed = true
  end
end

-- What a window is while it holds nothing.
local function empty(window)
  window.total, window.first, window.last = 0, present, present
  window.here, window.was_here, window.lasts = 0, 0, false
end

local function load(key)
  local found = redis.call('HMGET', key, 't', 'f', 'l', present)
  local window = {key = key, total = tonumber(found[1]) or 0, first = tonumber(found[2]), last = tonumber(found[3])}
  if window.total == 0 then
    empty(window)
    return window
  end
  window.here = tonumber(found[4]) or 0
  window.was_here, window.lasts = window.here, window.last == present
  if window.last > present then
    -- The clock was set back, and the window goes with it.
    local by, numbers = window.last - present, range(window.first, window.last)
    local before = counts(key, numbers)
    redis.call('DEL', key)
    empty(window)
    for i, amount in ipairs(before) do
      put(window, math.max(numbers[i] - by, 0), tonumber(amount) or 0)
    end
  end
  if window.last < low then
    redis.call('DEL', key)
    empty(window)
  elseif window.first < low then
    local numbers = range(window.first, low - 1)
    for _, amount in ipairs(counts(key, numbers)) do
      window.total = window.total - (tonumber(amount) or 0)
    end
    redis.call('HDEL', key, unpack(numbers))
    window.first = low
    window.changed = true
  end
  return window
end

local function give_back(window, bucket, amount)
  local there = window.here
  if bucket ~= present then
    there = tonumber(redis.call('HGET', window.key, bucket) or 0)
  end
  local back = math.min(there, amount)
  if back > 0 then
    window.total = window.total - back
    window.changed = true
    if bucket == present then
      window.here = window.here - back
    elseif back < there then
      redis.call('HINCRBY', window.key, bucket, -back)
    else
      redis.call('HDEL', window.key, bucket)
    end
    while back == there and window.total > 0 and window.last > window.first
      and (window.last == present and window.here or redis.call('HEXISTS', window.key, window.last)) == 0 do
      window.last = window.last - 1
    end
  end
end

-- Milliseconds until `excess` of a window counts no more.
local function wait(window, excess)
  local numbers, freed = range(window.first, window.last), 0
  for i, amount in ipairs(counts(window.key, numbers)) do
    freed = freed + (numbers[i] == present and window.here or tonumber(amount) or 0)
    if freed >= excess then
      return (numbers[i] + buckets + 1) * bucket_ms - now
    end
  end
  return -1
end

local memory = redis.call('GETEX', KEYS[1], 'PX', 600000)
if not memory then
  memory = string.format('%.0f', now * 1000 + micros)
  redis.call('SET', KEYS[1], memory, 'PX', 600000)
end

local fits, items = true, {}
for i = 2, #KEYS do
  local item = {kind = argument(), limit = number()}
  items[i] = item
  if item.kind == 'w' then
    item.need, item.extra = number(), number()
    local window = load(KEYS[i])
    item.window, item.wait = window, 0
    for _ = 1, number() do
      local bucket = number()
      give_back(window, bucket, number())
    end
    for _ = 1, number() do
      local age = number()
      put(window, math.max(present - math.min(age, buckets), 0), number())
    end
    if item.limit >= 0 then
      if item.need > item.limit then
        item.wait, fits = -1, false
      elseif window.total + item.need > item.limit then
        item.wait, fits = wait(window, window.total + item.need - item.limit), false
      end
    end
  else
    item.want, item.extra, item.report, item.elsewhere, item.wait = number(), number(), number(), 0, 0
    item.ahead = item.want + item.extra
    local all = redis.call('HGETALL', KEYS[i])
    for field = 1, #all, 2 do
      local count, till, report = string.match(all[field + 1], '^(%d+) (%d+) (%d+)$')
      count, till = tonumber(count), tonumber(till)
      if all[field] == replica then
        if tonumber(report) > item.report then
          -- Overtaken on the way: the later report counts this request as well, or nobody waits for it any more.
          item.want, item.ahead, item.report = count, 0, tonumber(report)
        elseif item.extra >= 0 and till > now then
          item.want = math.max(item.want, count)
        end
      elseif till <= now then
        redis.call('HDEL', KEYS[i], all[field])
      else
        if till > now + belief then
          -- The clock was set back.
          redis.call('HSET', KEYS[i], all[field], string.format('%d %.0f %s', count, now + belief, report))
        end
        item.elsewhere = item.elsewhere + count
      end
    end
    if item.limit >= 0 and item.elsewhere + item.want > item.limit then
      item.wait, fits = -1, false
    end
  end
end

local answer = {fits and 1 or 0, now, tonumber(memory)}
for i = 2, #KEYS do
  local item = items[i]
  if item.kind == 'w' then
    local window, granted = item.window, 0
    if fits then
      put(window, present, item.need)
      if item.limit >= 0 then
        -- Near the limit nobody gets anything ahead, so that the last places go to whoever asks for them.
        granted = math.max(0, math.min(item.extra, math.floor((item.limit - window.total) / 4)))
        put(window, present, granted)
      end
    end
    if window.changed then
      save(window)
    end
    local clears = 0
    if window.total > 0 then
      clears = (window.last + buckets + 1) * bucket_ms - now
    end
    answer[#answer + 1] = window.total
    answer[#answer + 1] = granted
    answer[#answer + 1] = item.wait
    answer[#answer + 1] = clears
  else
    if fits then
      if item.limit >= 0 and item.ahead > item.want then
        local free = item.limit - item.elsewhere - item.want
        item.want = item.want + math.max(0, math.min(item.ahead - item.want, math.floor(free / 4)))
      end
      -- None at all is kept as well, for its number: what it overtook may still come.
      redis.call('HSET', KEYS[i], replica, string.format('%d %.0f %.0f', item.want, now + belief, item.report))
      redis.call('PEXPIRE', KEYS[i], belief)
    end
    answer[#answer + 1] = item.elsewhere
    answer[#answer + 1] = item.want
    answer[#answer + 1] = item.wait
    answer[#answer + 1] = 0
  end
end
return answer
