"""What the package shows to its users."""

import dagster_sqlmesh_pipes as pipes


def test_the_public_names_are_these_and_each_is_there() -> None:
    assert pipes.__all__ == [
        "DockerLauncher",
        "KubernetesLauncher",
        "SQLMeshProject",
        "SQLMeshProjectComponent",
        "SQLMeshResource",
        "SQLMeshRunConfig",
        "SQLMeshTranslator",
        "SubprocessLauncher",
        "build_schedule_from_sqlmesh_selection",
        "build_sqlmesh_asset_selection",
        "freshness_from_cron",
        "remove_orphans",
        "sqlmesh_adaptive_schedule_factory",
        "sqlmesh_assets",
        "sqlmesh_assets_factory",
        "sqlmesh_definitions_factory",
        "sqlmesh_state_sensor_factory",
    ]
    assert [name for name in pipes.__all__ if not hasattr(pipes, name)] == []
    assert not hasattr(pipes, "NoSuchLauncher")
