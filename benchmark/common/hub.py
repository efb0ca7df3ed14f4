"""The Hugging Face hub, for models and data alike: whether it can be reached, and what its errors mean."""

from collections.abc import Iterator
from functools import cache

from benchmark.common.errors import OF_THE_MACHINE, BenchError, MachineError


@cache
def hub_answers() -> bool:
    """Return whether the hub can be reached. Checked once: offline, its clients retry for up to a minute each time."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:
        return False
    return True


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and its causes: clients wrap the hub's answer."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def client_failed(message: str, error: BaseException) -> BenchError:
    """Make the error for what a client could not load: a ``MachineError`` if a disk is full, or the like."""
    of_the_machine = any(isinstance(cause, OSError) and cause.errno in OF_THE_MACHINE for cause in causes(error))
    return (MachineError if of_the_machine else BenchError)(message)


def one_line(error: BaseException) -> str:
    """Return kind and message of an error on one line, cut to 300 characters: some messages are pages long."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
