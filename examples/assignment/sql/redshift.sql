-- A unit's place in [0, 1): the first 13 hexadecimal digits of SHA-256 over salt/round/unit.
-- Arguments: salt, the round as text, unit.
CREATE OR REPLACE FUNCTION hyperzero_place(VARCHAR, VARCHAR, VARCHAR)
RETURNS DOUBLE PRECISION IMMUTABLE AS $$
    SELECT CAST(STRTOL(SUBSTRING(SHA2($1 || '/' || $2 || '/' || $3, 256), 1, 13), 16) AS DOUBLE PRECISION)
           / 4503599627370496
$$ LANGUAGE sql;
