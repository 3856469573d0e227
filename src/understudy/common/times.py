"""Times as they stand in files, and in the names of run directories."""

from __future__ import annotations

from datetime import UTC, datetime

RUN_ID = "%Y%m%d-%H%M%SZ"


def utc_text(time: datetime) -> str:
    """Return a time as it stands in every file: ISO 8601, UTC, whole seconds, ``Z``."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_now() -> str:
    """Return the current time as it stands in every file."""
    return utc_text(datetime.now(UTC))


def new_run_id() -> str:
    """Return the id of a run that begins now, which is also its directory's name."""
    return datetime.now(UTC).strftime(RUN_ID)


def run_began(run_id: str) -> datetime:
    """Return when a run began, by its id.

    Raises:
        ValueError: it is no run id.
    """
    return datetime.strptime(run_id, RUN_ID).replace(tzinfo=UTC)
