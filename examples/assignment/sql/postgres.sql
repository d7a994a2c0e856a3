-- A unit's place in [0, 1): the first 13 hexadecimal digits of SHA-256 over salt/round/unit.
CREATE OR REPLACE FUNCTION hyperzero_place(salt TEXT, round_text TEXT, unit TEXT)
RETURNS DOUBLE PRECISION LANGUAGE sql IMMUTABLE AS $$
    SELECT ('x000' || substr(encode(sha256(convert_to(salt || '/' || round_text || '/' || unit, 'UTF8')), 'hex'), 1, 13))
           ::bit(64)::bigint::double precision / 4503599627370496
$$;
