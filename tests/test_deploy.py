"""The files under deploy/: they parse, agree with each other, and call commands that exist.

Nothing here needs a container engine or a cluster. ``kubectl kustomize``, ``systemd-analyze`` and
``sh`` are used where they are installed.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import typer
import yaml

import hyperzero_torch as hz
from hyperzero_torch.cli.app import app
from hyperzero_torch.integrations.http.tokens import Role
from hyperzero_torch.live import hourly_query
from hyperzero_torch.live.build import metrics_of

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
YAML = sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")])
STUDIES = [DEPLOY / "tuning.yaml", DEPLOY / "kubernetes/tuning.yaml"]
UNITS = sorted([*DEPLOY.glob("systemd/*.service"), *DEPLOY.glob("systemd/*.timer")])
METRICS_PORT, PAGE_PORT, FLAGS_PORT = 9108, 8000, 8013


def manifests(name):
    text = (DEPLOY / "kubernetes" / name).read_text(encoding="utf-8")
    return list(yaml.safe_load_all(text))


def pod(name):
    (manifest,) = manifests(name)
    spec = manifest["spec"]
    spec = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
    return spec["template"]["spec"]


PODS = ["deployment.yaml", "cronjob.yaml"]
PAGE = "page/deployment.yaml"  # what it adds to the first of them


def containers(name):
    return [*pod(name).get("initContainers", []), *pod(name)["containers"]]


def words_of_commands():
    """Every call of ``hyperzero`` in these files, without its name."""
    yield json.loads(re.search(r"^CMD (.*)$", DOCKERFILE, re.M)[1])
    for service in COMPOSE["services"].values():
        if str(service.get("image", "")).startswith("hyperzero:"):
            yield service["command"]
    for container in [*containers("deployment.yaml"), *pod(PAGE)["containers"]]:
        if container["image"].startswith("hyperzero:"):
            yield container["args"]
    scripted = [*containers("cronjob.yaml"), *pod(PAGE)["initContainers"]]
    scripts = [" ".join(c.get("args", [])) for c in scripted]
    files = [*UNITS, DEPLOY / "systemd/hour.sh"]
    scripts += [path.read_text(encoding="utf-8") for path in files]
    for text in scripts:
        joined = text.replace("\\\n", " ")
        for call in re.findall(r"(?:exec |bin/)hyperzero ([^\n]+)", joined):
            yield shlex.split(call)


def test_every_command_exists_with_its_options():
    group = typer.main.get_command(app)
    calls = list(words_of_commands())
    assert len(calls) >= 7
    for name, *words in calls:
        if words[:2] == ["token", "add"]:
            options = {"--role", "--tokens"}
            assert words[words.index("--role") + 1] in get_args(Role)
            assert {word for word in words if word.startswith("--")} == options
            continue
        options = {o for p in group.commands[name].params for o in (*p.opts, *p.secondary_opts)}
        used = {word for word in words if word.startswith("-")}
        assert used <= options, f"{name}: {used - options}"


@pytest.mark.parametrize("path", YAML, ids=lambda p: p.name)
def test_yaml_is_read_and_has_nothing_of_a_secret(path):
    text = path.read_text(encoding="utf-8")
    assert all(document for document in yaml.safe_load_all(text))
    for found in re.findall(r"[Pp]assword[^\n]{0,3}[:=] *(\S+)", text):
        assert found.startswith(("${", "replace-me", "...")), found


def test_images_are_pinned():
    images = [service["image"] for service in COMPOSE["services"].values()]
    images += [container["image"] for name in [*PODS, PAGE] for container in containers(name)]
    images += re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.M)
    assert len(images) >= 10
    for image in images:
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)*$", image), image
    ours = {image for image in images if image.startswith("hyperzero:")}
    assert ours == {f"hyperzero:{hz.__version__}"}


def test_the_image_is_built_from_files_that_exist_with_pinned_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = re.search(r"python:(\d+\.\d+)\.\d+-slim", DOCKERFILE)[1]
    assert version >= project["requires-python"].removeprefix(">=")
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = {s for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M)
              for s in line.split()[:-1]}  # fmt: skip
    assert {line[1:] for line in ignored if line.startswith("!")} == {
        source.removeprefix("./") for source in copied
    }
    installs = re.findall(r"pip install(.+?)(?=\n[A-Z#])", DOCKERFILE, re.S)
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in words for words in installs)
    assert all("download.pytorch.org/whl/cpu" in words for words in installs)
    extras = re.search(r"'\.\[(.+?)\]'", DOCKERFILE)[1].split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert re.search(r"^torch==", pins, re.M)


def test_nothing_runs_as_root():
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.M)[-1] == "10001:10001"
    for name in PODS:
        context = pod(name)["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == context["fsGroup"] == 10001
        assert pod(name)["automountServiceAccountToken"] is False
    for name in [*PODS, PAGE]:
        for container in containers(name):
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
    for name, service in COMPOSE["services"].items():
        if name != "journal":  # the database's image changes its user by itself
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
    for unit in DEPLOY.glob("systemd/*.service"):
        text = unit.read_text(encoding="utf-8")
        assert "User=hyperzero" in text
        assert "NoNewPrivileges=yes" in text


def test_ports_agree():
    assert f"EXPOSE {METRICS_PORT} {PAGE_PORT}" in DOCKERFILE
    assert f"http://127.0.0.1:{METRICS_PORT}/healthz" in DOCKERFILE
    for words in words_of_commands():
        if words[0] == "run":
            assert words[words.index("--metrics-port") + 1] == str(METRICS_PORT)
        if words[0] == "serve" and words[1] != "token":
            assert words[words.index("--port") + 1] == str(PAGE_PORT)
    for name, port in (("flagd", FLAGS_PORT), ("prometheus", 9090), ("page", PAGE_PORT)):
        assert COMPOSE["services"][name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"loop:{METRICS_PORT}"]}]
    named = {p["name"]: p["containerPort"] for c in containers("deployment.yaml")
             for p in c["ports"]}  # fmt: skip
    assert named == {"metrics": METRICS_PORT, "flags": FLAGS_PORT}
    (deployment,) = manifests("deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    for service in manifests("services.yaml"):
        assert service["spec"]["selector"] == labels
        (port,) = service["spec"]["ports"]
        assert named[port["targetPort"]] == port["port"]
    (page,) = pod(PAGE)["containers"]
    assert page["ports"] == [{"name": "page", "containerPort": PAGE_PORT}]
    service = manifests("page/services.yaml")[0]["spec"]
    assert service["selector"] == labels
    assert service["ports"] == [{"name": "page", "port": PAGE_PORT, "targetPort": "page"}]
    loop = containers("deployment.yaml")[0]
    probes = {
        name: loop[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert {probe["port"] for probe in probes.values()} == {"metrics"}
    assert [probe["path"] for probe in probes.values()] == ["/healthz", "/healthz", "/readyz"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.parent.name)
def test_study_files_are_valid_and_their_folders_are_mounted(path, monkeypatch):
    monkeypatch.setenv("DATABASE_HOST", "journal")
    monkeypatch.setenv("DATABASE_PASSWORD", "p%40ss")
    study = hz.StudyConfig.from_file(path)
    assert study.problem().metrics == ("views", "watch_time")
    assert study.live.monitoring.port == METRICS_PORT
    assert study.live.monitoring.address == "0.0.0.0"  # of the container, not of the machine
    if path.parent == DEPLOY:
        mounts = [v.rsplit(":", 2) if v.endswith(":ro") else v.rsplit(":", 1)
                  for v in COMPOSE["services"]["loop"]["volumes"]]  # fmt: skip
        writable = {parts[1]: len(parts) == 2 for parts in mounts}
        given = COMPOSE["services"]["loop"]["environment"]
    else:
        loop = containers("deployment.yaml")[0]
        writable = {m["mountPath"]: not m.get("readOnly") for m in loop["volumeMounts"]}
        given = {e["name"] for e in loop["env"]}
    assert {"DATABASE_HOST", "DATABASE_PASSWORD"} <= set(given)
    assert any("/etc/hyperzero" in place and not can for place, can in writable.items())
    for name in (study.live.exposures, study.live.events):
        assert [place for place in writable if name.startswith(place)] == ["/srv/log"]
    assert writable[str(Path(study.live.flags).parent)] is True


def test_flags_are_written_where_flagd_reads():
    assert COMPOSE["services"]["flagd"]["command"][2] == "file:/srv/flags/flags.json"
    assert "flags:/srv/flags" in COMPOSE["services"]["loop"]["volumes"]
    assert "flags:/srv/flags:ro" in COMPOSE["services"]["flagd"]["volumes"]
    loop, flagd = containers("deployment.yaml")
    assert flagd["args"][2] == "file:/srv/flags/flags.json"
    both = [{m["mountPath"]: m["name"] for m in c["volumeMounts"]} for c in (loop, flagd)]
    assert both[0]["/srv/flags"] == both[1]["/srv/flags"]


def test_volumes_and_secrets_are_declared():
    used = {v.split(":")[0] for s in COMPOSE["services"].values() for v in s.get("volumes", ())}
    assert {v for v in used if not v.startswith((".", "$"))} == set(COMPOSE["volumes"])
    example = (DEPLOY / "env.example").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()))
    assert asked == set(re.findall(r"^(\w+)=$", example, re.M))
    claims = {m["metadata"]["name"] for m in manifests("storage.yaml")}
    (secret,) = manifests("secret.yaml")
    for name in PODS:
        declared = {v["name"]: v for v in pod(name)["volumes"]}
        mounted = {m["name"] for c in containers(name) for m in c["volumeMounts"]}
        assert mounted == set(declared)
        for volume in declared.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        for variable in (e for c in containers(name) for e in c.get("env", ())):
            if "valueFrom" in variable:
                ref = variable["valueFrom"]["secretKeyRef"]
                assert ref["name"] == secret["metadata"]["name"]
                assert ref["key"] in secret["stringData"]


def test_alert_rules_are_those_of_the_runbook_and_name_series_that_exist():
    page = (ROOT / "docs/how-to/monitoring.md").read_text(encoding="utf-8")
    shown = yaml.safe_load(re.search(r"```yaml\n(groups:.*?)```", page, re.S)[1])
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text(encoding="utf-8"))
    assert rules == shown
    source = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "hyperzero_torch/live").glob("*.py")
    )
    for rule in rules["groups"][0]["rules"]:
        assert rule["alert"] in page.split("## Runbook")[1]
        for series in re.findall(r"hyperzero_(\w+)", rule["expr"]):
            assert series.removesuffix("_total") in source, series


def test_the_query_of_the_cron_job_is_current(monkeypatch):
    monkeypatch.setenv("DATABASE_HOST", "journal")
    monkeypatch.setenv("DATABASE_PASSWORD", "p")
    study = hz.StudyConfig.from_file(DEPLOY / "kubernetes/tuning.yaml")
    query = hourly_query(metrics_of(study.live, study.metrics), "postgres", arrived="arrived")
    text = (DEPLOY / "kubernetes/hour.sql").read_text(encoding="utf-8")
    assert text.partition("\nWITH\n")[2].strip() == query.removeprefix("WITH\n").strip()


def test_kubernetes_manifests_are_put_together():
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert {m["metadata"].get("namespace", "hyperzero") for m in built} == {"hyperzero"}
    (study,) = [m for m in built if m["kind"] == "ConfigMap"]
    assert set(study["data"]) == {"tuning.yaml", "hour.sql"}
    (deployment,) = [m for m in built if m["kind"] == "Deployment"]
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert study["metadata"]["name"] in {v.get("configMap", {}).get("name") for v in volumes}


def test_the_page_is_put_beside_the_loop_and_shares_its_flags(tmp_path):
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    folder = shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    main = folder / "kustomization.yaml"
    text = main.read_text(encoding="utf-8")
    assert "# components: [page]" in text
    main.write_text(text.replace("# components: [page]", "components: [page]"), encoding="utf-8")
    run = [kubectl, "kustomize", folder]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    (deployment,) = [m for m in built if m["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    by_name = {container["name"]: container for container in spec["containers"]}
    assert set(by_name) == {"page", "loop", "flagd"}
    flags = [
        {m["mountPath"]: m for m in by_name[name]["volumeMounts"]}["/srv/flags"]
        for name in ("page", "loop")
    ]
    assert flags[0] == flags[1] == {"name": "flags", "mountPath": "/srv/flags"}
    volumes = {volume["name"] for volume in spec["volumes"]}
    every = [*spec["containers"], *spec["initContainers"]]
    assert {m["name"] for c in every for m in c["volumeMounts"]} == volumes
    claims = {m["metadata"]["name"] for m in built if m["kind"] == "PersistentVolumeClaim"}
    used = [v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"]
            if "persistentVolumeClaim" in v]  # fmt: skip
    assert set(used) <= claims


def test_the_first_token_lets_the_page_start_and_is_made_once(tmp_path):
    """The script of the pod, with the real program."""
    (container,) = pod(PAGE)["initContainers"]
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "hyperzero"
    code = "from hyperzero_torch.cli import main; main()"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    program.chmod(0o755)
    (script,) = container["args"]
    script = script.replace("/var/lib/hyperzero", str(tmp_path)).replace("/tmp/token", "token")
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    made = []
    for _ in range(2):
        run = [*container["command"], script]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        made.append((tmp_path / "tokens.json").read_text(encoding="utf-8"))
    assert made[0] == made[1]
    (token,) = json.loads(made[0])["tokens"]
    assert token["role"] == "viewer"


def test_systemd_accepts_the_units(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    done = subprocess.run([analyze, "verify", *UNITS], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert complaints == []
    timer = (DEPLOY / "systemd/hyperzero-step.timer").read_text(encoding="utf-8")
    when = re.search(r"OnCalendar=(.+)", timer)[1]
    subprocess.run([analyze, "calendar", when], capture_output=True, check=True, timeout=60)


FAKES = {
    "psql": 'echo "$@" > psql.txt\nprintf "%b" "$ROWS"\n',
    "hyperzero": 'echo "$@" > hyperzero.txt\n',
}
HEADER = "round,candidate,metric,count,mean,var,revision\\n"


@pytest.fixture
def run_script(tmp_path):
    """Runs a script in an empty folder with a fake psql and a fake hyperzero."""
    for name, does in FAKES.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{does}")
        path.chmod(0o755)

    def run(words, rows, **variables):
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        began = str(int(time.time()) - 3600 * 18 - 60)
        environment = {"PATH": path, "ROWS": rows, "BEGAN": began, "WAREHOUSE": "postgresql://w"}
        return subprocess.run(
            words, cwd=tmp_path, env=environment | variables, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("rows", [HEADER, f"{HEADER}17,0,views,9,1.0,2.0,0\\n"])
def test_the_hour_of_systemd(run_script, tmp_path, rows):
    done = run_script(["sh", DEPLOY / "systemd/hour.sh"], rows)
    assert done.returncode == 0, done.stderr
    query, step = ((tmp_path / f"{name}.txt").read_text() for name in FAKES)
    assert "round=18" in query
    assert "--file /etc/hyperzero/hour.sql" in query
    given = "--readings readings.csv " if rows != HEADER else ""
    expected = f"step -c /etc/hyperzero/tuning.yaml --round 18 {given}--plan plan.json"
    assert step.strip() == expected
    without = run_script(["sh", DEPLOY / "systemd/hour.sh"], rows, BEGAN="")
    assert without.returncode != 0
    assert "the time at which round 0 began" in without.stderr


@pytest.mark.parametrize("rows", [HEADER, f"{HEADER}17,0,views,9,1.0,2.0,0\\n"])
def test_the_hour_of_kubernetes(run_script, tmp_path, rows):
    (tmp_path / "hour").mkdir()
    for container in containers("cronjob.yaml"):
        (script,) = container["args"]
        words = [*container["command"], script.replace("/srv/hour/", f"{tmp_path}/hour/")]
        done = run_script(words, rows)
        assert done.returncode == 0, done.stderr
    step = (tmp_path / "hyperzero.txt").read_text().strip()
    given = f"--readings {tmp_path}/hour/readings.csv " if rows != HEADER else ""
    plan = "--plan /srv/plan/plan.json"
    assert step == f"step -c /etc/hyperzero/tuning.yaml --round 18 {given}{plan}"
