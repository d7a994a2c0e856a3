"""A server in this process over a small study, and the tokens of everybody."""

import contextlib
import json
import threading

from support.small_study import CONFIG

import hyperzero_torch as hz

ROLES = ("viewer", "platform", "operator", "approver")
#: A study file of the small study, with a platform.
STUDY_FILE = """
study: {name}
journal: sqlite:///{name}.db
parameters:
  - {{kind: float, name: a, low: 0.0, high: 1.0}}
  - {{kind: float, name: b, low: 0.0, high: 1.0}}
base: {{a: 0.4, b: 0.6}}
metrics: [gain, guard]
objective: gain
constraints: ["guard >= -5%"]
traffic: {traffic}
live:
  exposures: exposures/*.parquet
  events: events/*.parquet
  flags: {name}.json
"""


def study_file(folder, name="feed", **traffic):
    """A study file in a folder, with the small study's configuration."""
    fields = CONFIG.model_dump(mode="json", exclude_unset=True) | traffic
    path = folder / f"{name}.yaml"
    path.write_text(STUDY_FILE.format(name=name, traffic=json.dumps(fields)), encoding="utf-8")
    return path


def rows_of(readings):
    """A message of readings as JSON rows."""
    names = ("gain", "guard")
    fields = ("round", "candidate", "metric", "count", "mean", "var")
    columns = [getattr(readings, field).tolist() for field in fields]
    rows = [dict(zip(fields, row)) for row in zip(*columns)]
    for row in rows:
        row["metric"] = row["metric"] if isinstance(row["metric"], str) else names[row["metric"]]
    return rows


class Client:
    """The API with the token of each role."""

    def __init__(self, http, secrets, study="feed"):
        self.http, self.secrets, self.study = http, secrets, study

    def get(self, path, role="viewer", **how):
        return self._call("GET", path, role, **how)

    def post(self, path, role="approver", **how):
        return self._call("POST", path, role, **how)

    def _call(self, method, path, role, **how):
        headers = {"Authorization": f"Bearer {self.secrets[role]}"} | how.pop("headers", {})
        place = path if path.startswith("/") else f"/v1/studies/{self.study}/{path}"
        return self.http.request(method, place, headers=headers, **how)

    def play(self, rounds):
        """So many rounds by a platform that answers at once."""
        from support.small_study import reply

        for _ in range(rounds):
            plan = self.post("ask", "platform").json()["plan"]
            answer = self.post("tell", "platform", json={"rows": rows_of(reply(plan_of(plan)))})
            assert answer.status_code == 200, answer.text


def plan_of(plan):
    """A plan of the API as the small study's platform reads it."""
    import torch

    arms = plan["arms"]
    theta = torch.tensor([[arm["parameters"]["a"], arm["parameters"]["b"]] for arm in arms])
    return hz.Plan(
        plan["round"],
        tuple(arm["candidate"] for arm in arms),
        tuple(arm["parameters"] for arm in arms),
        theta.double(),
        tuple(arm["slots"] for arm in arms),
        tuple(arm["share"] for arm in arms),
    )


@contextlib.contextmanager
def serving(places_of, folder):
    """A server of its own, in a thread; gives its address and the tokens."""
    from hyperzero_torch.integrations.http.app import create_app
    from hyperzero_torch.integrations.http.run import listener, server_of
    from hyperzero_torch.integrations.http.tokens import TokenFile

    tokens = TokenFile(folder / "tokens.json")
    secrets = {role: tokens.add(role, role) for role in ROLES}
    made = listener("127.0.0.1", 0)
    server = server_of(create_app(places_of, tokens, look_every=0.1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [made]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.getsockname()[1]}", secrets
    finally:
        server.should_exit = True
        thread.join(20)
