-- A unit's place in [0, 1): the first 13 hexadecimal digits of SHA-256 over salt/round/unit.
CREATE OR REPLACE FUNCTION hyperzero_place(salt VARCHAR, round_text VARCHAR, unit VARCHAR)
RETURNS DOUBLE AS $$
    CAST(TO_NUMBER(SUBSTR(SHA2(salt || '/' || round_text || '/' || unit, 256), 1, 13), 'XXXXXXXXXXXXX') AS DOUBLE)
    / 4503599627370496
$$;
