-- A unit's place in [0, 1): the first 13 hexadecimal digits of SHA-256 over salt/round/unit.
CREATE TEMP FUNCTION hyperzero_place(salt STRING, round_text STRING, unit STRING)
RETURNS FLOAT64 AS (
    CAST(CONCAT('0x', SUBSTR(TO_HEX(SHA256(CONCAT(salt, '/', round_text, '/', unit))), 1, 13)) AS INT64)
    / 4503599627370496
);
