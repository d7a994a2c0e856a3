"""Commands of hyperzero transfer, and studies for them to work on."""

import yaml
from support.transfer_study import CONFIG, METRICS, reply

import hyperzero_torch as hz
from hyperzero_torch.cli import main

GUARD = METRICS[1]


def run(capsys, *arguments, group="transfer"):
    """Exit code, standard output and standard error of one command."""
    try:
        main([*group.split(), *map(str, arguments)])
        code = 0
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def begin(folder, name, rounds, seed, sources=()):
    """A study's file, and rounds of it in its journal."""
    config = folder / f"{name}.yaml"
    study = {
        "study": name, "journal": f"sqlite:///{name}.db", "seed": seed,
        "parameters": [
            {"kind": "float", "name": "a", "low": 0.0, "high": 1.0},
            {"kind": "float", "name": "b", "low": 0.0, "high": 1.0},
        ],
        "base": {"a": 0.4, "b": 0.6}, "metrics": list(METRICS), "objective": "gain",
        "constraints": [f"`{GUARD}` >= -8%"],
        "export_without_noise": True,
        "traffic": CONFIG.model_dump(mode="json", exclude_defaults=True),
    }  # fmt: skip
    config.write_text(yaml.safe_dump(study))
    if rounds:
        file = hz.StudyConfig.from_file(config)
        url = file.journal_url(folder)
        tuner = hz.Tuner(file.problem(), file.traffic, url, name, seed, sources=sources)
        for _ in range(rounds):
            plan = tuner.ask()
            tuner.tell(reply(tuner, plan))
    return config
