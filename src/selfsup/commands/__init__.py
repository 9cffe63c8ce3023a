"""The commands: one file each, which reads its options, calls the module that does the work, and returns the result."""

from selfsup.base.opening import recorded_by


def _record(name: str) -> None:
    """Record named data that are not there yet, whichever command opens them."""
    from selfsup.control.named import record_named

    record_named(name)


recorded_by(_record)
