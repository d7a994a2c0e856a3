"""The command that says on purpose: this journal is the one whose plans are to be served."""

from __future__ import annotations

from ..errors import ConfigError
from ..live.build import updater_of
from ..live.clock import Schedule, SystemClock
from ..live.lease import terms_of
from ..live.serve.fence import in_words
from ..study.config import StudyConfig
from .output import note
from .study import Config, DryRun, Reason, open_study
from .switches import By


def take_over(config: Config, reason: Reason, by: By = None, dry_run: DryRun = False) -> None:
    """Serve this journal's plans although the flags belong to another journal or study.

    A journal that was lost, begun anew or restored from an old backup does not replace what is
    served: other commands refuse. This one begins a new epoch of the study, starts it where the
    journal does not hold it, and gives all traffic to the control until the next round. Processes
    that still use the other journal cannot serve their plans any more.

    Example:

      hyperzero take-over -c tuning.yaml --reason "study.db was lost with its disk"
    """
    study = StudyConfig.from_file(config)
    if study.live is None:
        raise ConfigError(f"{config} has no 'live' section, so no flags or table to take over")
    updater = updater_of(study.live, config.resolve().parent)
    stamp = updater.owner()
    served = "no plan of any study" if stamp is None else in_words(stamp)
    if dry_run:
        note(f"dry run: {study.live.place} serves {served}; nothing was written")
        return
    if not reason.strip():
        raise ConfigError("give a reason, in a sentence; the journal stores it")
    tuner = open_study(config, create=True, anew=True)
    tuner.study.begin_epoch(reason, by)
    schedule = Schedule(tuner, SystemClock(), study.live.round_seconds)
    terms = terms_of(schedule, tuner.history.last_round or 0, study.live.lease_rounds)
    updater.on_behalf_of(terms).take_over()
    note(
        f"{study.live.place} served {served}; it serves the control until the "
        f"next round of study {tuner.study.name!r}, now epoch {terms.epoch}"
    )
