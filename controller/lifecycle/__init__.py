"""Station 4, decide, and what it decides by: one job's life as a pure function of its objects and its stored status.

In: `observed`. Out: `decision`. No module here knows an API server, a thread or a clock.
"""
