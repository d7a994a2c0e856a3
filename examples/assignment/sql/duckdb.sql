-- A unit's place in [0, 1): the first 13 hexadecimal digits of SHA-256 over salt/round/unit.
CREATE OR REPLACE MACRO hyperzero_place(salt, round_text, unit) AS
    CAST(CAST('0x' || substr(sha256(salt || '/' || round_text || '/' || unit), 1, 13) AS BIGINT) AS DOUBLE)
    / 4503599627370496;
