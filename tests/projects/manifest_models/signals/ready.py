from sqlmesh import DatetimeRanges, signal


@signal()
def events_arrived(batch: DatetimeRanges, after: int = 0) -> bool:
    return True
