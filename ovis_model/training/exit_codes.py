"""How a training ends, as the launcher, the train step and a scheduler see it.

The numbers of `sysexits.h` where it has one: 75 asks to be tried again.
"""

DONE = 0
FAILED = 1
#: A wrong call, or a setting that cannot be used.
MISUSED = 2
#: No step ended within `hang_timeout_seconds`.
HUNG = 70
#: Stopped by SIGTERM or SIGUSR1; the same command goes on from there.
STOPPED = 75
#: What a shell reports for a program ended by Ctrl+C.
INTERRUPTED = 130
