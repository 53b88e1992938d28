-- everyhop policy compile --target haproxy; do not edit.  Service payments.
-- Asks everyhop's authorizer.  The configuration refuses whatever this does not expressly allow.

local SOCKET = "unix@/run/everyhop/authorizer-http.sock"
local SERVICE = "payments"
local SECONDS = 3
local MAX_BODY, MAX_FIELDS = 65536, 64
-- What the authorizer is told by us alone, and what belongs to one connection.
local OURS = {
  ["x-original-method"] = true, ["x-original-uri"] = true, ["x-client-certificate"] = true,
  ["x-client-address"] = true, ["host"] = true, ["connection"] = true, ["content-length"] = true,
  ["transfer-encoding"] = true, ["keep-alive"] = true, ["proxy-connection"] = true, ["te"] = true,
  ["trailer"] = true, ["expect"] = true,
}
-- What an application believes, and where the log finds it.
local ANSWERED = {
  "x-everyhop-caller", "x-everyhop-operation", "x-everyhop-decision", "x-everyhop-user",
  "x-everyhop-user-roles", "txn-token",
}
local REFUSALS = { ["400"] = 400, ["401"] = 401, ["403"] = 403, ["429"] = 429, ["503"] = 503 }

local function refuse(txn, status, body, more)
  local reply = txn:reply()
  reply:set_status(status)
  reply:add_header("content-type", "application/problem+json")
  for name, value in pairs(more or {}) do reply:add_header(name, value) end
  reply:set_body(body)
  txn:done(reply)
end

local function unavailable(txn, why)
  txn:Warning("everyhop: " .. why)
  refuse(txn, 503, '{"type":"about:blank","status":503,"code":"CHECK_UNAVAILABLE"}')
end

-- A certificate as PEM in one line: what is no letter or digit is percent-encoded.
local function escaped_pem(txn)
  local base64 = txn.f:ssl_c_der() and txn.sc:base64(txn.f:ssl_c_der())
  if base64 == nil or base64 == "" then return nil end
  local lines = { "-----BEGIN CERTIFICATE-----" }
  for at = 1, #base64, 64 do lines[#lines + 1] = string.sub(base64, at, at + 63) end
  lines[#lines + 1] = "-----END CERTIFICATE-----"
  local pem = table.concat(lines, "\n") .. "\n"
  return (string.gsub(pem, "[^%w]", function(c) return string.format("%%%02X", string.byte(c)) end))
end

local function question(txn, certificate)
  local lines = {
    "GET /nginx/" .. SERVICE .. " HTTP/1.1", "host: everyhop", "connection: close",
    "x-original-method: " .. txn.f:method(),
    "x-original-uri: " .. txn.f:pathq(),
    "x-client-certificate: " .. certificate,
    "x-client-address: " .. txn.f:src(),
  }
  for name, values in pairs(txn.http:req_get_headers()) do
    if not OURS[string.lower(name)] then
      for index = 0, #values do
        if values[index] ~= nil then lines[#lines + 1] = name .. ": " .. values[index] end
      end
    end
  end
  for _, line in ipairs(lines) do
    if string.find(line, "[\r\n]") then return nil end
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- Returns status, fields and body of the answer; nil where there is none that can be read in one way.
local function answer_to(text)
  local socket = core.tcp()
  socket:settimeout(SECONDS)
  if socket:connect(SOCKET) == nil then return nil end
  if socket:send(text) == nil then socket:close() return nil end
  local status = string.match(socket:receive("*l") or "", "^HTTP/1%.1 (%d%d%d)")
  local fields, count = {}, 0
  local line = status and socket:receive("*l")
  while line ~= nil and line ~= "" and line ~= "\r" do
    local name, value = string.match(line, "^([^:%s]+):%s*(.-)%s*$")
    count = count + 1
    if name == nil or count > MAX_FIELDS or fields[string.lower(name)] ~= nil then status = nil break end
    fields[string.lower(name)] = value
    line = socket:receive("*l")
  end
  local length = tonumber(fields["content-length"] or "")
  local body = ""
  if status ~= nil and line ~= nil and length ~= nil and length >= 0 and length <= MAX_BODY then
    if length > 0 then body = socket:receive(length) end
  else
    body = nil
  end
  socket:close()
  if body == nil then return nil end
  return status, fields, body
end

core.register_action("everyhop", { "http-req" }, function(txn)
  local certificate = escaped_pem(txn)
  local text = certificate and question(txn, certificate)
  if text == nil then return unavailable(txn, "the question cannot be put") end
  local status, fields, body = answer_to(text)
  if status == nil then return unavailable(txn, "the authorizer gave no answer") end
  txn:set_var("txn.everyhop_decision", fields["x-everyhop-decision"] or "")
  if status ~= "200" then
    local meant = REFUSALS[fields["x-everyhop-status"] or status] or 403
    local more = { ["x-everyhop-decision"] = fields["x-everyhop-decision"] }
    more["www-authenticate"] = fields["www-authenticate"]
    more["retry-after"] = fields["retry-after"]
    return refuse(txn, meant, body, more)
  end
  for _, name in ipairs(ANSWERED) do
    txn.http:req_del_header(name)
    if fields[name] ~= nil then txn.http:req_set_header(name, fields[name]) end
  end
  txn:set_var("txn.everyhop_caller", fields["x-everyhop-caller"] or "")
  txn:set_var("txn.everyhop_operation", fields["x-everyhop-operation"] or "")
  txn:set_var("txn.everyhop", "allowed")
end, 0)
