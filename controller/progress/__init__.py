"""What running trainers tell of themselves: an HTTPS endpoint for them, and the newest report of each job for us.

In: posts of `ProgressReport`s with a pod's token. Out: `Reports`, which the reconciler reads. They are kept in memory
alone: they are news, and who missed one hears the next within seconds.
"""
