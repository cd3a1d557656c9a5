"""Station 5, apply: what is watched and kept of the cluster, one job as observed in, its decision carried out.

The only rooms between the pure decisions of `controller.lifecycle` and the engine of `controller.runtime`.
"""
