"""Who is doing this: the name in the log of promotions and in notifications."""

import os
import pwd

#: Whose job it is that runs here, where CI says so.
CI_ACCOUNTS = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILD_REQUESTEDFOR")


def account() -> str:
    """Return the person a CI job runs for, else the account of this process."""
    for name in CI_ACCOUNTS:
        if os.environ.get(name):
            return os.environ[name]
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run as a number that has no name
        return f"uid {os.getuid()}"
