"""HTML in a project's texts, as Dagster's pages show it in a real browser: nothing of it runs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from acceptance.local.deployment import Deployment
from acceptance.local.webserver import webserver
from patience import PATIENCE

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
MARK = "document.documentElement.setAttribute('data-ran','yes')"
IMAGE = f'<img src=x onerror="{MARK}">'
CONFIG = """\
gateways: {local: {connection: {type: duckdb, database: hostile.duckdb}}}
model_defaults: {dialect: duckdb, start: 2026-01-01, cron: '@daily'}
"""
MODEL = f"""\
/* {IMAGE} <script>{MARK}</script> ``` {IMAGE} */
MODEL (
  name hostile.orders,
  kind FULL,
  owner "{IMAGE.replace('"', "'")}",
  tags ["{IMAGE.replace('"', "'")}"],
  column_descriptions (id = '{IMAGE.replace("'", "''")}'),
  audits (not_null(columns := (id)))
);

/* ``` {IMAGE} */
SELECT
  CASE WHEN @execution_ds > '2026-01-02' THEN '{IMAGE.replace("'", "''")}' ELSE '1' END::INT AS id
"""


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    project = tmp_path / "hostile"
    (project / "models").mkdir(parents=True)
    (project / "config.yaml").write_text(CONFIG)
    (project / "models" / "orders.sql").write_text(MODEL)
    deployment = Deployment(root=tmp_path, project=project)
    deployment.sqlmesh("plan", "--auto-apply", "--no-prompts", "--execution-time", "2026-01-02")
    deployment.write()
    return deployment


def shown(url: str, profile: Path) -> tuple[str, bool]:
    """Return what a page is in the browser once it has loaded, and whether HTML of ours ran."""
    options = ["--headless", "--no-sandbox", f"--user-data-dir={profile}", "--dump-dom"]
    command = [str(CHROMIUM), *options, "--virtual-time-budget=30000", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    return done.stdout, re.search("<html[^>]* data-ran=", done.stdout) is not None


def test_html_in_texts_of_a_project_does_not_run(deployment: Deployment, tmp_path: Path) -> None:
    run = deployment.execute(config={"execution_time": "2026-01-04"})
    assert "onerror" in run.error
    (run_id,) = {entry.run_id for entry in run.logs}
    asset = "/assets/hostile/hostile/orders"
    pages = {
        f"{asset}?view=overview": "sqlmesh/query",
        f"{asset}?view=events": "Observed in run",
        f"/runs/{run_id}": "Conversion Error",
    }
    profile, plain = tmp_path / "profile", tmp_path / "plain.html"
    plain.write_text(IMAGE)
    assert shown(plain.as_uri(), profile)[1], "it runs where nothing stops it"
    with webserver(deployment) as server:
        for page, text in pages.items():
            document, has_run = shown(server.url(page), profile)
            assert text in document, page
            assert not has_run, page
