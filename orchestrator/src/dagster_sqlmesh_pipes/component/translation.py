"""`translation` in YAML: templates of each model's asset."""

from typing import Any

import dagster as dg
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver

from dagster_sqlmesh_pipes.errors import TranslationError
from dagster_sqlmesh_pipes.manifest import Model
from dagster_sqlmesh_pipes.specs import usable_key

__all__ = ["Translation"]

_RESOLVER = TranslationFnResolver[Model](lambda model: {"node": model, "model": model})


def _resolve(context: dg.ResolutionContext, written: Any) -> TranslationFn[Model]:
    """Return the function of the templates. Its errors have the YAML's file and line.

    An attribute that a model does not have is empty in a template, without an error: the check of
    the key finds it.
    """
    translate = _RESOLVER.fn.callable(context, written)
    at_key = context.at_path("key") if getattr(written, "key", None) else context

    def translate_and_check(base: dg.AssetSpec, model: Model) -> dg.AssetSpec:
        spec: dg.AssetSpec = translate(base, model)
        try:
            usable_key(spec.key, model.fqn)
        except TranslationError as exc:
            reason = [f"translation.key: {exc}\n"]
            raise at_key.build_resolve_fn_exc(reason, "translation", written) from None
        return spec

    return translate_and_check


Translation = dg.Resolver(
    _resolve, model_field_type=_RESOLVER.model_field_type, inject_before_resolve=False
)
"""Resolves a mapping of asset attributes to a function of an asset spec and its model."""
