"""A signal that is ready while a file is there."""

from pathlib import Path

from sqlmesh import DatetimeRanges, signal


@signal()
def arrived(batch: DatetimeRanges) -> bool | DatetimeRanges:
    return Path("ready").exists()
