-- A unit's place in [0, 1): the first 13 hexadecimal digits of SHA-256 over salt/round/unit.
CREATE FUNCTION hyperzero_place AS (salt, round_text, unit) ->
    toFloat64(bitShiftRight(
        reinterpretAsUInt64(reverse(substring(SHA256(concat(salt, '/', round_text, '/', unit)), 1, 8))), 12
    )) / 4503599627370496;
