"""``skysub completion``: scripts by which shells complete verbs and options; files where neither fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]

_BASH = """\
# bash: put this into ~/.bashrc:  source <(skysub completion bash)
_skysub() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{verbs} --help --version"
    elif [ "${{current:0:1}}" = "-" ]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _skysub skysub
"""
_ZSH = """\
# zsh: put this into ~/.zshrc, after compinit:  source <(skysub completion zsh)
autoload -U bashcompinit && bashcompinit
"""
_FISH = "# fish: skysub completion fish > ~/.config/fish/completions/skysub.fish\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument(
        "shell", choices=("bash", "zsh", "fish"), help="which shell; the script says where to put it"
    )


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    from skysub.cli import options_of_verbs

    verbs = options_of_verbs()
    if options.shell == "fish":
        print(_FISH + "\n".join(_fish(verbs)))
        return 0
    cases = "\n".join(f'            {verb}) words="{" ".join(given)}" ;;' for verb, given in verbs.items())
    script = _BASH.format(verbs=" ".join(verbs), cases=cases)
    print((_ZSH + script.partition("\n")[2] if options.shell == "zsh" else script).rstrip())
    return 0


def _fish(verbs: dict[str, list[str]]) -> list[str]:
    lines = [f"complete -c skysub -n __fish_use_subcommand -f -a '{' '.join(verbs)}'"]
    lines += [
        f"complete -c skysub -n '__fish_seen_subcommand_from {verb}' -l {option.removeprefix('--')}"
        for verb, options in verbs.items()
        for option in options
    ]
    return lines
