-- Sends one request again and again, with the id of a random task in place of {id}; DELETE names each task once.
-- Arguments: method, path, body, number of tasks, number of threads, a file with a token per line, which take turns.
-- The last line of output is JSON.

local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  method, path, tasks, step = args[1], args[2], tonumber(args[4]), tonumber(args[5])
  body = args[3] ~= "" and args[3] or nil
  following = number
  bearers = {}
  for token in io.lines(args[6]) do
    bearers[#bearers + 1] = "Bearer " .. token
  end
  turn = math.floor(#bearers / step) * number -- each thread begins in another place
  wrk.headers["Content-Type"] = "application/json"
  math.randomseed(number)
end

function request()
  local id = math.random(0, tasks - 1)
  if method == "DELETE" then
    id = following
    following = following + step -- the other threads have those between
  end
  turn = turn % #bearers + 1
  wrk.headers["Authorization"] = bearers[turn]
  local named = path:gsub("{id}", string.format("00000000-0000-4000-8000-%012x", id))
  return wrk.format(method, named, nil, body)
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '\n{"requests": %d, "seconds": %f, "failures": %d, "p50": %d, "p99": %d}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
