"""The user's side of a cluster: what `kubectl grpo` asks the API server and what it makes of the answers.

In: a kubeconfig, and names of jobs. Out: plain data, and `Trouble` with a sentence for whoever typed the command. It
prints nothing, and knows no command line.
"""
