-- wrk: announces deposits, each with an Idempotency-Key of its own. Environment: API_KEY, RUN (a name for this run).
local counter, threads = 0, 0

function setup(thread)
  threads = threads + 1
  thread:set("thread_number", threads) -- a global of that thread's own script
end

function init()
  -- Another sequence in every run: the same name and amount again would be a collision, which costs more.
  local seed = thread_number
  for byte in os.getenv("RUN"):gmatch(".") do
    seed = (seed * 31 + byte:byte()) % 2147483647
  end
  math.randomseed(seed)
end

function request()
  counter = counter + 1
  local user = math.random(1, 1000)
  local body = string.format(
    '{"telegram_id": "%d", "amount": %d, "depositor_name": "홍길동%d"}', user, math.random(1, 50000), user)
  return wrk.format("POST", nil, {
    ["Authorization"] = "Bearer " .. os.getenv("API_KEY"),
    ["Content-Type"] = "application/json",
    ["Idempotency-Key"] = string.format("%s-%d-%d", os.getenv("RUN"), thread_number, counter),
  }, body)
end

function done(summary, latency, requests)
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "not_2xx": %d, "p50_us": %d, "p99_us": %d}\n',
    summary.requests, summary.duration, summary.errors.status + summary.errors.connect + summary.errors.read
      + summary.errors.write + summary.errors.timeout, latency:percentile(50), latency:percentile(99)))
end
