"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input or configuration, told in one sentence: where, what was found, what was expected, what to do."""


_NO_ACCESS = ("GatedRepoError", "RepositoryNotFoundError", "gated repo", "401 Client Error", "403 Client Error")


def login(error: BaseException) -> str:
    """What to do first about an error of the hub, where it lets nobody in; a clause or nothing."""
    if any(word in f"{type(error).__name__} {error}" for word in _NO_ACCESS):
        return "accept its terms on its page and run `hf auth login`, or "
    return ""
