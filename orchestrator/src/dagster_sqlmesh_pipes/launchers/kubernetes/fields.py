"""Fields of pods as users write them, in snake or camel case, as the API's JSON has them."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kubernetes.client import models

from dagster_sqlmesh_pipes.errors import LaunchError

__all__ = ["api_fields", "merged", "tag_config"]

CONFIG_TAG: Final = "dagster-k8s/config"
_OWN_CONTAINER_FIELDS: Final = {"args", "command", "image", "name", "stdin", "tty"}
_OWN_POD_FIELDS: Final = {"activeDeadlineSeconds", "containers", "restartPolicy"}
"""What a tag may say of the pod of the Dagster run itself, and is not for the runner's."""

_GENERIC = re.compile(r"(?:list\[|dict\(str, )(?P<inner>.+?)[\])]")


def api_fields(kind: str, value: Any, *, where: str) -> Any:
    """Return a value of the API's type `kind` (`V1PodSpec`, `list[V1Volume]`) as JSON.

    Raises:
        LaunchError: the type has no such field. `where` says whose value it is.
    """
    generic = _GENERIC.fullmatch(kind)
    if generic and isinstance(value, Sequence) and not isinstance(value, str):
        return [api_fields(generic["inner"], each, where=where) for each in value]
    if generic and isinstance(value, Mapping):
        return {
            name: api_fields(generic["inner"], each, where=where) for name, each in value.items()
        }
    model = getattr(models, kind, None)
    if model is None or not isinstance(value, Mapping):
        return value
    return dict(_model_field(model, name, each, where) for name, each in value.items())


def _model_field(model: Any, name: str, value: Any, where: str) -> tuple[str, Any]:
    for attribute, api_name in model.attribute_map.items():
        if name in (attribute, api_name):
            return api_name, api_fields(model.openapi_types[attribute], value, where=where)
    kind = model.__name__.removeprefix("V1")
    msg = f"{where} has {name!r}, which Kubernetes' {kind} does not have."
    raise LaunchError(msg)


def tag_config(tags: Mapping[str, str], *, where: str) -> Mapping[str, Any]:
    """Return what the tag `dagster-k8s/config` says of a pod: metadata, spec and container.

    Raises:
        LaunchError: the tag is not JSON, or not of a pod's fields.
    """
    text = tags.get(CONFIG_TAG)
    if not text:
        return {}
    where = f"The tag {CONFIG_TAG} of the {where}"
    try:
        config = dict(json.loads(text))
    except (ValueError, TypeError) as exc:
        msg = f"{where} is not a JSON object: {exc}"
        raise LaunchError(msg) from exc
    container = api_fields("V1Container", config.get("container_config") or {}, where=where)
    spec = api_fields("V1PodSpec", config.get("pod_spec_config") or {}, where=where)
    metadata = api_fields(
        "V1ObjectMeta", config.get("pod_template_spec_metadata") or {}, where=where
    )
    return {
        "metadata": {
            name: value for name, value in metadata.items() if name in ("labels", "annotations")
        },
        "spec": {name: value for name, value in spec.items() if name not in _OWN_POD_FIELDS},
        "container": {
            name: value for name, value in container.items() if name not in _OWN_CONTAINER_FIELDS
        },
    }


def merged(first: Any, second: Any) -> Any:
    """Merge as dagster-k8s does: mappings by key, lists one after the other, else the second."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {
            **first,
            **{
                name: merged(first[name], value) if name in first else value
                for name, value in second.items()
            },
        }
    if isinstance(first, list) and isinstance(second, list):
        return [*first, *second]
    return second
