from sqlmesh import DatetimeRanges, ExecutionContext, signal


@signal()
def raw_events_arrived(batch: DatetimeRanges, context: ExecutionContext) -> DatetimeRanges:
    """Return those intervals that the raw events cover whole.

    The shop has an event every five minutes, so an interval that ends later than that after the
    last one may lack some.
    """
    row = context.engine_adapter.fetchone(
        "SELECT MAX(occurred_at) + INTERVAL '5 minutes' FROM raw.events"
    )
    covered_until = row[0] if row else None  # UTC, without saying so
    return [
        interval
        for interval in batch
        if covered_until and interval[1].replace(tzinfo=None) <= covered_until
    ]
