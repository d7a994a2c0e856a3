"""``hyperzero sql``: the hourly query for a study's metrics, in a database's own SQL."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from ..live.aggregate.query import hourly_query
from ..live.build import metrics_of
from ..study.config import LiveConfig, StudyConfig
from .output import show
from .study import Config

# For a study file without a section 'live': nothing of it but the defaults is used.
_DEFAULT = LiveConfig(exposures="exposures", events="events", table="table.json")


class Database(enum.StrEnum):
    """Databases that the query is written for."""

    BIGQUERY = "bigquery"
    CLICKHOUSE = "clickhouse"
    DUCKDB = "duckdb"
    POSTGRES = "postgres"
    REDSHIFT = "redshift"
    SNOWFLAKE = "snowflake"


def sql(
    config: Config,
    dialect: Annotated[Database, typer.Option(help="The database that runs the query.")],
    round: Annotated[
        str | None,
        typer.Option(
            "--round",
            help="The current round, or a parameter that a client or scheduler fills in, such as "
            ":round or '{{ round }}'; by default the dialect's own.",
        ),
    ] = None,
    exposures: Annotated[
        str, typer.Option(help="Table or view: user, round, candidate.")
    ] = "exposures",
    events: Annotated[
        str, typer.Option(help="Table or view: user, round, metric, value.")
    ] = "events",
    user_column: Annotated[
        str, typer.Option("--user-column", help="The column with the user, in both.")
    ] = "user_id",
    arrived_column: Annotated[
        str | None,
        typer.Option(
            "--arrived-column",
            help="Column of the events with the round in which a row arrived. With it, the same "
            "--round gives the same readings whenever it runs.",
        ),
    ] = None,
    study_column: Annotated[
        str | None,
        typer.Option(
            "--study-column",
            help="Column of the exposures with a study's name; those of other studies are left "
            "out.",
        ),
    ] = None,
    screen: Annotated[
        bool,
        typer.Option(
            "--screen/--no-screen",
            help="Leave out users with absurd values; the database sorts the events for it.",
        ),
    ] = True,
) -> None:
    """Print the hourly query: from exposures and events to the readings that step takes.

    Metrics, ratios and winsorising are those of the study file, and so are live.lateness and
    live.max_events. Users without events count as zeros; users in two arms, bots and values that
    cannot be used are left out as 'hyperzero run' leaves them out.

    Not in the query: metrics with a covariate (refused), the test for users who keep their arm,
    and candidates that are no arm of the round, which only the journal knows.

    Examples:

      hyperzero sql -c tuning.yaml --dialect postgres > hour.sql

      psql --csv -v round=18 -f hour.sql | hyperzero step -c tuning.yaml --round 18 --readings -

      hyperzero sql -c tuning.yaml --dialect bigquery --exposures logs.seen --events logs.events
    """
    study = StudyConfig.from_file(config)
    live = study.live or _DEFAULT
    query = hourly_query(
        metrics_of(live, study.metrics),
        dialect.value,
        as_of=round,
        exposures=exposures,
        events=events,
        user=user_column,
        arrived=arrived_column,
        study=None if study_column is None else (study_column, study.study),
        lateness=live.lateness,
        max_events=live.max_events,
        screen=screen,
    )
    show(query.removesuffix("\n"))
