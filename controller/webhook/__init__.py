"""The door at the API server: every rule of a job, told before it is stored, in the words of `grpoctl validate`."""
