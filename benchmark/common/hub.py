"""What models and data have in common where they come from the Hugging Face hub."""

from collections.abc import Iterator
from functools import cache


@cache
def hub_answers() -> bool:
    """Whether the hub can be reached. Asked once: without network its clients try for up to a minute each time."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:
        return False
    return True


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it came from: clients wrap what the hub answered."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def one_line(error: BaseException) -> str:
    """What kind of error it is and what it says, which may be pages, in up to 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
