"""The deployment in the folder `kubernetes`: the shop end to end, from a step in the cluster."""

import itertools
import json
import secrets
from collections.abc import Iterator

import patience
import pytest
from acceptance.kubernetes.deployment import IMAGES, Deployment, build_images, deployed

from dagster_sqlmesh_pipes import KubernetesLauncher

pytestmark = pytest.mark.kubernetes

DAYS_AHEAD = itertools.count(1)


@pytest.fixture(scope="module")
def deployment(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    build_images()
    name = f"sqlmesh-shop-{secrets.token_hex(4)}"
    with deployed(name, tmp_path_factory.mktemp("deployment")) as up:
        yield up


def test_shop_runs_in_pods_under_the_role(deployment: Deployment) -> None:
    """The step itself runs in a pod: its configuration is the cluster's own."""
    run = deployment.launch(days_ahead=next(DAYS_AHEAD))
    assert deployment.wait_for_end(run) == "SUCCESS", deployment.logged(run)
    assert deployment.materialized(run) >= {
        "shop/marts/customer_activity",
        "shop/marts/customer_history",
    }
    checks = deployment.checks(run)
    assert len(checks) > 5
    # Hourly models join in where the hour turned since the plan: two of their audits only warn.
    warnings = {
        "shop/marts/product_sales:every_product_sells",
        "shop/staging/order_lines:accepted_range_6fece845",
    }
    assert {name for name, passed in checks.items() if not passed} <= warnings
    log = deployment.logged(run)
    assert "Started pod sqlmesh-" in log
    assert "A shell like the runner's: kubectl run" in log
    patience.wait_until(
        lambda: not deployment.namespace.pods(), "the runner's pod is deleted", every=0.5
    )


def test_results_are_stored_before_the_step_ends(deployment: Deployment) -> None:
    run = deployment.launch(days_ahead=next(DAYS_AHEAD))
    assert deployment.wait_for_end(run) == "SUCCESS", deployment.logged(run)
    events = deployment.events(run)
    ends = [event for event in events if event.get("eventType") == "STEP_SUCCESS"]
    results = [event for event in events if event["__typename"] == "MaterializationEvent"]
    assert float(results[0]["timestamp"]) < float(ends[0]["timestamp"]) - 500  # milliseconds


def test_termination_stops_the_query_and_deletes_the_pod(deployment: Deployment) -> None:
    with deployment.locked("raw.customers") as is_waited_for:
        run = deployment.launch(days_ahead=next(DAYS_AHEAD))
        patience.wait_until(is_waited_for, "the runner waits for the table", every=1.0)
        (pod,) = deployment.namespace.pods(f"dagster/run_id={run}")
        (owner,) = pod["metadata"]["ownerReferences"]
        assert owner["kind"] == "Pod"
        assert owner["name"].startswith("code-location-"), "the step's pod takes the runner's along"
        deployment.terminate(run)
        assert deployment.wait_for_end(run) == "CANCELED"
        patience.wait_until(lambda: not is_waited_for(), "the query is cancelled", every=0.5)
    patience.wait_until(lambda: not deployment.namespace.pods(), "the pod is deleted", every=0.5)


def test_manifest_is_made_in_the_cluster(deployment: Deployment) -> None:
    launcher = KubernetesLauncher(
        image=IMAGES["shop-runner"],
        image_pull_policy="IfNotPresent",
        namespace=deployment.namespace.name,
        env_secrets=["warehouse"],
        resources={"limits": {"memory": "1Gi"}},
    )
    output = launcher.run_to_end(["manifest", "--gateway", "postgres", "--column-lineage"])
    manifest = json.loads(output)
    assert manifest["schema_version"] == 1
    assert "marts.daily_revenue" in {model["name"] for model in manifest["models"]}
