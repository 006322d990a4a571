"""What every checkpoint that writes shares: each text is a job of engine steps that stops in time for its deadline.

`job` defines the job and the time it has, and `time_slicing` lets the texts share the engine. `beam_search` chooses
tokens, and `shared_runs` has what equal texts share. `answers` is the replica that makes a request's answer, also as it
grows, and `step_log` records when each step ran.
"""
