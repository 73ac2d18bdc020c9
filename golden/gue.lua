-- Generic UDP encapsulation (draft-ietf-intarea-gue) for tshark, which knows none:
-- tests/tshark.rs loads it. Variant 1 is IP directly in UDP, variant 0 a header of four bytes.
local gue = Proto("gue", "Generic UDP Encapsulation")

function gue.dissector(buffer, info, tree)
    local first = buffer(0, 1):uint()
    if bit.rshift(first, 6) == 1 then
        local name = bit.rshift(first, 4) == 4 and "ip" or "ipv6"
        return Dissector.get(name):call(buffer, info, tree)
    end
    local header = 4 + 4 * bit.band(first, 31)
    tree:add(gue, buffer(0, header), "Generic UDP Encapsulation")
    local protocol = buffer(1, 1):uint()
    return DissectorTable.get("ip.proto"):try(protocol, buffer(header):tvb(), info, tree)
end

DissectorTable.get("udp.port"):add(6080, gue)
