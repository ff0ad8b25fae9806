"""Workers: AI jobs run in a process of their own, which has the memory, the devices and the rights that it needs and no
more. The manager goes on whatever happens there.

| module | is |
|---|---|
| `settings` | `[worker]` of a node's settings |
| `runner` | `WorkerRunner`, the port that flight software sees, and `open_runner` |
| `process`, `channel` | one worker process, and the talk with it |
| `memory` | the memory that holds the models, which manager and worker map |
| `program` | what runs in the worker: no flight code, and an interpreter of its own if need be |
| `interpreter` | which interpreter that is, and what it can import |
| `isolation` | ways to confine a process, and the proof that they do |
| `check` | `python -m boards.worker.check`: what this machine can do |

docs/isolation.md explains it.
"""
