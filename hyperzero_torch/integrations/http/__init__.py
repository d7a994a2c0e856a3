"""A JSON API and a live page over studies: ``hyperzero serve``.

tokens     who may do what: names, roles and hashes in a file
limits     sizes, rates, deadlines and headers of requests
studies    the studies that are served; writers of one study take turns
files      study files and journals to studies
answers    errors and values as JSON
bodies     what requests may hold
gate       who is asking: tokens, sessions, and pages of other hosts
reading    routes that read
feeding    routes of platforms: ask and tell
deciding   routes of people: switches, launches, goals
snapshot   what the page shows of a study, computed once per change
pages      the addresses of the page
page/      its views, forms, style and script
events     one look at the journal for all viewers, sent as server-sent events
app        all of it as one ASGI application
run        the server itself
"""

from ...errors import MissingExtraError

try:
    from .app import create_app
    from .run import run
except ImportError as error:
    name = error.name or "fastapi"
    raise MissingExtraError("hyperzero serve", name, "serve") from error

__all__ = ["create_app", "run"]
