"""The trace of a run."""


def is_of_a_trace(key: str) -> bool:
    return key.startswith("trace/")
