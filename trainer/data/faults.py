"""What a user is told when data cannot be used."""


class DataError(Exception):
    """*path: value, rule, fix*. `permanent` is False where asking again may help: a hub that did not answer."""

    def __init__(self, message: str, *, permanent: bool = True):
        super().__init__(message)
        self.permanent = permanent
