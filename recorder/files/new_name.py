"""Names that no other run has."""

import secrets
import time


def new_name() -> str:
    """The time and a few random digits, such as `20260131-235959-1a2b3c`."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
