"""Steps of the hourly query that are the same for all metrics; ``query.py`` fills in the types."""

#: The step `screened` where absurd values count.
NO_SCREENING = (
    """screened AS (
    SELECT amounts.*, flaw AS flawed
    FROM amounts
)""",
)
#: The step `screened` where they are left out, with their users.
SCREENING = (
    """sized AS (
    SELECT amounts.*,
           ROW_NUMBER() OVER (PARTITION BY round, metric, sizes ORDER BY ABS(amount)) AS place,
           SUM(sizes) OVER (PARTITION BY round, metric) AS num
    FROM amounts
)""",
    """medians AS (
    SELECT sized.*,
           AVG(CASE WHEN sizes = 1 AND 2 * place IN (num, num + 1, num + 2) THEN ABS(amount) END)
               OVER (PARTITION BY round, metric) AS middle
    FROM sized
)""",
    """screened AS (  -- beyond 2^40 medians a value is absurd
    SELECT medians.*,
           CASE WHEN flaw = 0 AND (middle IS NULL OR ABS(amount) <= {absurd} * middle)
                THEN 0 ELSE 1 END AS flawed
    FROM medians
)""",
)
_ARM = "OVER (PARTITION BY round, arm, metric)"
_HOUR = "OVER (PARTITION BY round, metric)"
#: From y and x of each user to rows that are ready to be chosen.
REPORT = (
    f"""deviations AS (
    SELECT cells.*, AVG(x) {_ARM} AS below,
           SUM(y) {_ARM} / NULLIF(SUM(x) {_ARM}, 0) AS ratio
    FROM cells
)""",
    """arms AS (  -- the variance of the linearised ratio; for a plain metric x is 1
    SELECT round, arm, metric, COUNT(y) AS num, MAX(ratio) AS average,
           SUM(POWER((y - ratio * x) / NULLIF(below, 0), 2)) / NULLIF(COUNT(y) - 1, 0) AS spread
    FROM deviations
    GROUP BY round, arm, metric
)""",
    f"""totals AS (
    SELECT arms.*,
           MAX(CASE WHEN arm = 0 AND average IS NULL THEN 1 ELSE 0 END) {_HOUR}
               AS is_control_undefined,
           MAX(CASE WHEN average <> 0 THEN 1 ELSE 0 END) {_HOUR} AS has_events,
           SUM(CASE WHEN num > 1 THEN num * average END) {_HOUR} AS total,
           SUM(CASE WHEN num > 1 THEN num * spread END) {_HOUR} AS squares,
           ROW_NUMBER() OVER (PARTITION BY round, metric ORDER BY arm) AS arm_place
    FROM arms
)""",
    """hours AS (  -- how many events an hour has, as far as their noise shows it
    SELECT totals.*,
           CASE WHEN squares > 0 THEN total * total / squares
                WHEN total <> 0 THEN CAST('{huge}' AS {real}) ELSE 0 END AS events,
           CASE WHEN arm_place = 1 THEN 1 ELSE 0 END AS is_first
    FROM totals
)""",
    """ranked_hours AS (
    SELECT hours.*,
           ROW_NUMBER() OVER (PARTITION BY metric, is_first ORDER BY events) AS hour_place,
           SUM(is_first) OVER (PARTITION BY metric) AS num_hours
    FROM hours
)""",
    """usual AS (  -- where a usual hour has few events, one without any is a reading, no failure
    SELECT ranked_hours.*, MAX(events) OVER (PARTITION BY metric) AS most_events,
           AVG(CASE WHEN is_first = 1
                     AND 2 * hour_place IN (num_hours, num_hours + 1, num_hours + 2)
                    THEN events END) OVER (PARTITION BY metric) AS usual_events
    FROM ranked_hours
)""",
)
