-- SPDX-License-Identifier: Apache-2.0
-- A script for wrk: one body, sent again and again, that cuts nothing off. wrk itself closes its connections when the time is up,
-- with requests under way that no count can settle; here each connection, once the time is up, sends an empty write and waits. When all
-- wait, every request sent was answered: "drained" is said on standard error, and whoever started wrk interrupts it.
--   wrk -t1 -c16 -d60s -s load.lua URL -- SECONDS BODY-FILE KEY CONNECTIONS
local ffi = require("ffi")
ffi.cdef("typedef struct { long s, ns; } moment; int clock_gettime(int id, moment *out);")
local at = ffi.new("moment[1]")

local function now()
    ffi.C.clock_gettime(1, at)
    return tonumber(at[0].s) + tonumber(at[0].ns) / 1e9
end

local thread

function setup(t) thread = t end

function init(args)
    seconds = tonumber(args[1])
    local f = assert(io.open(args[2], "rb"))
    local body = f:read("*a")
    f:close()
    whole = wrk.format("POST", "/v1/chat/completions",
        { ["Content-Type"] = "application/json", ["Content-Length"] = #body, ["Authorization"] = "Bearer " .. args[3] }, body)
    busy = tonumber(args[4])
    sent = -1 -- wrk asks once before it begins
end

function request()
    if sent >= 0 then
        local t = now()
        ends = ends or t + seconds
        if t >= ends then
            busy = busy - 1
            if busy == 0 then io.stderr:write("drained\n") end
            return ""
        end
    end
    sent = sent + 1
    return whole
end

function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        'RESULT {"completed":%d,"sent":%d,"refused":%d,"broken":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"bytes":%d}\n',
        summary.requests, thread:get("sent"), e.status, e.connect + e.read + e.write + e.timeout,
        latency:percentile(50), latency:percentile(99), latency.max, summary.bytes))
end
