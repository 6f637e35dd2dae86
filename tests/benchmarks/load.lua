-- wrk: the requests of the benchmarks. Environment: API_KEY; RUN, a name for this run, so that each write has an
-- Idempotency-Key of its own, which begins with a random number: as UUIDs do, keys fall anywhere in the index; USERS, how many there are from telegram id 1000000 on; KIND:
--   announce  POST /v1/deposits            mixed  announcements and debits of 1 won by turns
--   empty     POST /empty with the body of an announcement, which stores nothing
--   balance   GET /v1/users/…/balance      empty_get  GET /empty/…
local counter, threads = 0, 0
local kind = os.getenv("KIND")
local users = tonumber(os.getenv("USERS"))
local key = "Bearer " .. os.getenv("API_KEY")
local run = os.getenv("RUN")

function setup(thread)
  threads = threads + 1
  thread:set("thread_number", threads) -- a global of that thread's own script
end

function init()
  -- Another sequence in every run: the same name and amount again would be a collision, which costs more.
  local seed = thread_number
  for byte in run:gmatch(".") do
    seed = (seed * 31 + byte:byte()) % 2147483647
  end
  math.randomseed(seed)
end

local function post(path, body)
  return wrk.format("POST", path, {
    ["Authorization"] = key,
    ["Content-Type"] = "application/json",
    ["Idempotency-Key"] = string.format("%08x-%s-%d-%d", math.random(0, 0x7fffffff), run, thread_number, counter),
  }, body)
end

function request()
  counter = counter + 1
  local user = 1000000 + math.random(0, users - 1)
  if kind == "balance" then
    return wrk.format("GET", string.format("/v1/users/%d/balance", user), {["Authorization"] = key})
  elseif kind == "empty_get" then
    return wrk.format("GET", string.format("/empty/%d", user), {["Authorization"] = key})
  elseif kind == "mixed" and counter % 2 == 0 then
    return post("/v1/debits", string.format('{"telegram_id": "%d", "amount": 1, "reason": "한글.kr"}', user))
  end
  return post(kind == "empty" and "/empty" or "/v1/deposits", string.format(
    '{"telegram_id": "%d", "amount": %d, "depositor_name": "홍길동%d"}', user, math.random(1, 5000000), user))
end

function done(summary, latency, requests)
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "not_2xx": %d, "broken": %d, "p50_us": %d, "p99_us": %d}\n',
    summary.requests, summary.duration, summary.errors.status, summary.errors.connect + summary.errors.read
      + summary.errors.write + summary.errors.timeout, latency:percentile(50), latency:percentile(99)))
end
