-- wrk's side of the benchmark: which requests are sent, and one line of JSON at the end.
-- Arguments: the method, the file with one session token a line (or nothing), the body, its type, and Authorization.
local requests, turn = nil, 0

function init(args)
   local path, body = args[2] or "", args[3] or ""
   wrk.method = args[1] or "GET"
   if wrk.method == "POST" then wrk.headers["Content-Length"] = tostring(#body) end
   if body ~= "" then
      wrk.body = body
      wrk.headers["Content-Type"] = args[4]
   end
   if args[5] then wrk.headers["Authorization"] = args[5] end
   requests = {}
   if path ~= "" then
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
