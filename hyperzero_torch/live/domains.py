"""Other domains as a loop reads them: what they say is journaled, and nothing holds up a round."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..errors import ConfigError
from ..study.history import History
from ..transfer.journaled import record
from ..transfer.refresh import Named
from ..tuner.tuner import Tuner
from .remarks import Calls

_KIND = "transfer source"  # of the remarks


def learn_from_domains(tuner: Tuner, calls: Calls, read: Callable[[History], Named]) -> None:
    """Read the other domains that are due; one that cannot be read stays as it was."""
    answers = calls.read(
        calls.domains, _KIND, "reading other domains", partial(read, tuner.history.branch())
    )
    for answer in answers:
        for remark in answer.remarks:
            calls.remarks.add(_KIND, remark)
        note = partial(record, tuner.study, answer.refused, answer.withdrawn)
        calls.journal("withdrawing revoked domains", note)
        learn = partial(tuner.learn_from, answer.sources)
        try:
            calls.journal("learning from other domains", learn, (ConfigError,))
        except ConfigError as error:
            calls.remarks.add(_KIND, str(error))
