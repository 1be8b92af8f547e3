-- wrk's side of the benchmark: which requests are sent, and one line of JSON at the end.
-- Arguments: the method, then the file with one session token a line (or none).
local requests, turn = nil, 0

function init(args)
   local method, path = args[1] or "GET", args[2]
   wrk.method = method
   if method == "POST" then wrk.headers["Content-Length"] = "0" end
   requests = {}
   if path then
      for token in io.lines(path) do
         wrk.headers["Authorization"] = "Bearer " .. token
         requests[#requests + 1] = wrk.format()
      end
   else
      requests[1] = wrk.format()
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency, _)
   local e = summary.errors
   io.write(string.format(
      '\n{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"refused":%d,"broken":%d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
      e.status, e.connect + e.read + e.write + e.timeout))
end
