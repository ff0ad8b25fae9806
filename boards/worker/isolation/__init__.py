"""Ways to confine a worker, and the proof that they do.

| way | memory | processor | tasks | network | files | privileges |
|---|---|---|---|---|---|---|
| `systemd` | cgroup | cgroup | cgroup | none | read-only | none new, user of its own |
| `cgroup2` | cgroup | cgroup | cgroup | as bubblewrap or rlimits, whichever there is | | |
| `bubblewrap` | rlimit | – | rlimit, not for root | none | read-only, few | none |
| `rlimits` | rlimit | – | rlimit, not for root | none where it may | no writing | none new |

An `Isolator` (`isolation.isolator`) makes the command that starts a confined program, and says what the program has to
give up by itself (`boards.worker.program.confine`) before it reads anything foreign. Whether the memory limit holds is
never believed: some kernels and boot settings ignore it without a word. `isolation.proof` starts a hog that must be
stopped.
"""
