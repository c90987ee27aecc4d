"""The Pipes context as environment variables, for launchers that can't hand over a file."""

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContextData, encode_param

from dagster_sqlmesh_pipes.errors import LaunchError

__all__ = ["context_variables"]

_CHUNK = 96 * 1024  # bytes; Linux takes 128 KiB per variable, its name included


def context_variables(context: PipesContextData, *, limit: int) -> dict[str, str]:
    """Encode the Pipes context as variables: one, or as many as it takes.

    See docs/reference/messages.md.

    `limit` is in bytes: what the launcher's engine can hand over in all.

    Raises:
        LaunchError: the context is larger than that.
    """
    encoded = encode_param({"data": context})
    if len(encoded) > limit:
        msg = (
            f"The selection's Pipes context takes {len(encoded):,} bytes, and a container can be "
            f"given {limit:,}. Select fewer assets in one run, or split the project's assets into "
            "several."
        )
        raise LaunchError(msg)
    if len(encoded) <= _CHUNK:
        return {DAGSTER_PIPES_CONTEXT_ENV_VAR: encoded}
    chunks = [encoded[start : start + _CHUNK] for start in range(0, len(encoded), _CHUNK)]
    return {
        DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"chunks": len(chunks)}),
        **{
            f"{DAGSTER_PIPES_CONTEXT_ENV_VAR}_{number}": chunk
            for number, chunk in enumerate(chunks)
        },
    }
