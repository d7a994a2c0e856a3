-- Made by: hyperzero sql -c tuning.yaml --dialect postgres --arrived-column arrived
-- Make it anew whenever the metrics of the study change.
WITH
amounts AS (  -- a value that is missing or not finite is a flaw
    SELECT user_id, round, metric, CAST(value AS DOUBLE PRECISION) AS amount,
           CASE WHEN ABS(CAST(value AS DOUBLE PRECISION)) <= CAST('1e300' AS DOUBLE PRECISION)
                THEN 0 ELSE 1 END AS flaw,
           CASE WHEN ABS(CAST(value AS DOUBLE PRECISION)) <= CAST('1e300' AS DOUBLE PRECISION) AND value <> 0
                THEN 1 ELSE 0 END AS sizes
    FROM events
    WHERE round > :round - 6 AND round < :round AND round >= 0
      AND user_id IS NOT NULL AND CAST(user_id AS TEXT) <> ''
      AND metric IN ('views', 'watch_time')
      AND (arrived < :round OR arrived IS NULL)
),
sized AS (
    SELECT amounts.*,
           ROW_NUMBER() OVER (PARTITION BY round, metric, sizes ORDER BY ABS(amount)) AS place,
           SUM(sizes) OVER (PARTITION BY round, metric) AS num
    FROM amounts
),
medians AS (
    SELECT sized.*,
           AVG(CASE WHEN sizes = 1 AND 2 * place IN (num, num + 1, num + 2) THEN ABS(amount) END)
               OVER (PARTITION BY round, metric) AS middle
    FROM sized
),
screened AS (  -- beyond 2^40 medians a value is absurd
    SELECT medians.*,
           CASE WHEN flaw = 0 AND (middle IS NULL OR ABS(amount) <= 1099511627776 * middle)
                THEN 0 ELSE 1 END AS flawed
    FROM medians
),
listed AS (  -- exposures, and events with -1 in place of a candidate
    SELECT user_id, round, candidate, '' AS metric, CAST(0 AS DOUBLE PRECISION) AS amount, 0 AS flawed
    FROM exposures
    WHERE round > :round - 6 AND round < :round AND round >= 0
      AND user_id IS NOT NULL AND CAST(user_id AS TEXT) <> ''
      AND candidate >= 0
    UNION ALL
    SELECT user_id, round, -1 AS candidate, metric, amount, flawed
    FROM screened
),
users AS (
    SELECT user_id, round, MAX(candidate) AS arm,
           MIN(CASE WHEN candidate >= 0 THEN candidate END) AS lowest,
           SUM(CASE WHEN candidate < 0 AND flawed = 0 THEN 1 ELSE 0 END) AS num_events,
           SUM(CASE WHEN metric = 'views' AND flawed = 0 THEN amount ELSE 0 END) AS s0,
           MAX(CASE WHEN metric = 'views' THEN flawed ELSE 0 END) AS b0,
           SUM(CASE WHEN metric = 'watch_time' AND flawed = 0 THEN amount ELSE 0 END) AS s1,
           MAX(CASE WHEN metric = 'watch_time' THEN flawed ELSE 0 END) AS b1
    FROM listed
    GROUP BY user_id, round
),
counted AS (  -- users of one arm; those without events count as zeros
    SELECT round, arm, s0, b0, s1, b1
    FROM users
    WHERE lowest = arm
),
cells AS (
    SELECT round, arm, 'views' AS metric,
           CASE WHEN b0 = 0 THEN CAST(s0 AS DOUBLE PRECISION) END AS y,
           CASE WHEN b0 = 0 THEN CAST(1 AS DOUBLE PRECISION) END AS x
    FROM counted
    UNION ALL
    SELECT round, arm, 'watch_time' AS metric,
           CASE WHEN b1 = 0 THEN CAST(s1 AS DOUBLE PRECISION) END AS y,
           CASE WHEN b1 = 0 THEN CAST(1 AS DOUBLE PRECISION) END AS x
    FROM counted
),
deviations AS (
    SELECT cells.*, AVG(x) OVER (PARTITION BY round, arm, metric) AS below,
           SUM(y) OVER (PARTITION BY round, arm, metric) / NULLIF(SUM(x) OVER (PARTITION BY round, arm, metric), 0) AS ratio
    FROM cells
),
arms AS (  -- the variance of the linearised ratio; for a plain metric x is 1
    SELECT round, arm, metric, COUNT(y) AS num, MAX(ratio) AS average,
           SUM(POWER((y - ratio * x) / NULLIF(below, 0), 2)) / NULLIF(COUNT(y) - 1, 0) AS spread
    FROM deviations
    GROUP BY round, arm, metric
),
totals AS (
    SELECT arms.*,
           MAX(CASE WHEN arm = 0 AND average IS NULL THEN 1 ELSE 0 END) OVER (PARTITION BY round, metric)
               AS is_control_undefined,
           MAX(CASE WHEN average <> 0 THEN 1 ELSE 0 END) OVER (PARTITION BY round, metric) AS has_events,
           SUM(CASE WHEN num > 1 THEN num * average END) OVER (PARTITION BY round, metric) AS total,
           SUM(CASE WHEN num > 1 THEN num * spread END) OVER (PARTITION BY round, metric) AS squares,
           ROW_NUMBER() OVER (PARTITION BY round, metric ORDER BY arm) AS arm_place
    FROM arms
),
hours AS (  -- how many events an hour has, as far as their noise shows it
    SELECT totals.*,
           CASE WHEN squares > 0 THEN total * total / squares
                WHEN total <> 0 THEN CAST('1e300' AS DOUBLE PRECISION) ELSE 0 END AS events,
           CASE WHEN arm_place = 1 THEN 1 ELSE 0 END AS is_first
    FROM totals
),
ranked_hours AS (
    SELECT hours.*,
           ROW_NUMBER() OVER (PARTITION BY metric, is_first ORDER BY events) AS hour_place,
           SUM(is_first) OVER (PARTITION BY metric) AS num_hours
    FROM hours
),
usual AS (  -- where a usual hour has few events, one without any is a reading, no failure
    SELECT ranked_hours.*, MAX(events) OVER (PARTITION BY metric) AS most_events,
           AVG(CASE WHEN is_first = 1
                     AND 2 * hour_place IN (num_hours, num_hours + 1, num_hours + 2)
                    THEN events END) OVER (PARTITION BY metric) AS usual_events
    FROM ranked_hours
)
SELECT round AS round, arm AS candidate,
       metric AS metric,
       num AS count, average AS mean, spread AS var,
       :round - round - 1 AS revision
FROM usual
WHERE num > 1 AND average IS NOT NULL  -- the variance of one user is unknown
  AND is_control_undefined = 0
  AND (has_events = 1 OR (most_events > 0 AND usual_events < 15))
ORDER BY 1, 2, 3
