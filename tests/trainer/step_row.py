"""The row of metrics of one step, as the loop hands it to what is shown."""

ROW = {
    "step": 12,
    "reward/total/mean": 0.5125,
    "reward/correct/mean": 0.41,
    "reward/unscorable": 0,
    "update/loss": -0.00124,
    "update/grad_norm": 0.3141,
    "length/completion/mean": 213.4,
    "throughput/completion_tokens_per_s": 4120.4,
    "time/step_s": 12.13,
    "time/rollout_s": 9.0,
    "time/rewards_s": 0.1,
    "time/update_s": 2.9,
}
