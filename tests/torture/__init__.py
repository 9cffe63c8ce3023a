"""The promises of docs/reliability.md at full length, one module each: `cd tests && python -m torture.kill`."""


class PromiseBroken(Exception):
    """A promise of docs/reliability.md that was not kept."""
