"""What the demo must show: greedy exact match on questions never seen rises. In: curves. Out: complaints, or none.

Pure: it reads no file and prints nothing.
"""

from examples.demo.curve import Curve

LEAST_RISE = 0.10
LEAST_QUESTIONS = 200


def complaints(curve: Curve, steps: int) -> list[str]:
    """Why this run does not show what the demo promises; empty where it does. `steps` is what the job asked for."""
    found = []
    if curve.questions < LEAST_QUESTIONS:
        found.append(f"{curve.label}: evaluated on {curve.questions} held-out questions; it takes {LEAST_QUESTIONS}")
    if not curve.eval_steps or curve.eval_steps[0] != 0 or curve.eval_steps[-1] != steps:
        found.append(f"{curve.label}: evaluated at steps {list(curve.eval_steps)}, both 0 and {steps} are needed")
    elif curve.rise < LEAST_RISE:
        found.append(
            f"{curve.label}: greedy exact match went from {curve.before:.3f} to {curve.after:.3f}, "
            f"a rise of {curve.rise:.3f}; at least {LEAST_RISE:.2f} was promised"
        )
    return found
