"""Whatever fits, or does not fit, the document of the API: no answer is of class 500."""

import collections
import contextlib
import unittest

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from support.served_study import ROLES, Client, study_file

schemathesis = pytest.importorskip("schemathesis", reason="the extra test is not installed")
pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx2", reason="the client of Starlette's tests is not installed")
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance",
)  # fmt: skip
EXAMPLES = 3


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    from starlette.testclient import TestClient

    from hyperzero_torch.integrations.http.app import create_app
    from hyperzero_torch.integrations.http.files import places
    from hyperzero_torch.integrations.http.tokens import TokenFile

    folder = tmp_path_factory.mktemp("served")
    tokens = TokenFile(folder / "tokens.json")
    secrets = {role: tokens.add(role, role) for role in ROLES}
    app = create_app(places([study_file(folder)]), tokens, rate=1e6)
    with TestClient(app, raise_server_exceptions=False) as http:
        client = Client(http, secrets)
        client.play(4)
        yield client


def request_of(case):
    """The method, the address and the content of a case, as the test's client sends them."""
    sent = case.as_transport_kwargs()
    for unknown in ("cookies", "auth"):
        sent.pop(unknown, None)
    if isinstance(sent.get("data"), bytes):
        sent["content"] = sent.pop("data")
    headers = {
        name: text
        for name, text in dict(sent.pop("headers", None) or {}).items()
        if name.lower() in ("content-type", "idempotency-key") and text.isascii() and text.strip()
    }
    return sent, headers


def fuzz(served, operation, mode, seen):
    """Some calls of one operation."""
    checks = [getattr(schemathesis.checks, name) for name in CHECKS]
    role = "platform" if operation.path.endswith(("/ask", "/tell")) else "approver"
    token = {"Authorization": f"Bearer {served.secrets[role]}"}

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case):
        if "study" in case.path_parameters:
            case.path_parameters["study"] = "feed"
        sent, headers = request_of(case)
        answer = served.http.request(**sent, headers=headers | token)
        seen[operation.label].append(answer.status_code)
        case.validate_response(answer, checks=checks)

    # Some operations have nothing that could be wrong.
    with contextlib.suppress(Unsatisfiable, unittest.SkipTest):
        call()


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_no_call_breaks_the_server_and_each_answer_fits_the_document(served, mode):
    schema = schemathesis.openapi.from_dict(served.http.get("/openapi.json").json())
    seen = collections.defaultdict(list)
    for operation in schema.get_all_operations():
        fuzz(served, operation.ok(), schemathesis.GenerationMode[mode], seen)
    statuses = {status for answers in seen.values() for status in answers}
    assert len(seen) >= (20 if mode == "POSITIVE" else 10)
    assert max(statuses) < 500
    assert 200 in statuses
