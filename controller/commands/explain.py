"""`grpoctl explain RULE`: the rule's title, reason and example, from the contract's table."""

from shutil import get_terminal_size

import click

from trainer.contract.rules import RULES


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [rule for rule in RULES if rule.startswith(incomplete)]


@click.command
@click.argument("rule", required=False, metavar="[RULE]", shell_complete=_complete)
def explain(rule: str | None) -> None:
    """Say what RULE asks for, and why; without RULE, list all rules."""
    if rule is None:
        width = max(map(len, RULES))
        for name, entry in RULES.items():
            click.echo(f"{click.style(name.ljust(width), bold=True)}  {entry.title}")
        return
    if rule not in RULES:
        raise click.BadParameter(_unknown(rule), param_hint="RULE")
    entry = RULES[rule]
    click.echo(f"{click.style(entry.id, bold=True)}: {entry.title}\n")
    click.echo(f"{click.wrap_text(entry.explanation, width=min(get_terminal_size().columns, 100))}\n")
    click.echo(
        f"{click.style('Example', bold=True)} (in the spelling of a runner YAML; a GRPOJob has camelCase below spec)"
    )
    click.echo(f"  {entry.example}")


def _unknown(rule: str) -> str:
    import difflib

    near = difflib.get_close_matches(rule, RULES, n=1)
    return f"{rule} is no rule; {f'use {near[0]}' if near else '`grpoctl explain` lists them'}"
