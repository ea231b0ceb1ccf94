"""Reference of environment variables."""

from docs._generate import markdown

_USES = {
    "option": "Defaults of options",
    "user": "Variables that change how the program works",
    "library": "Variables that the program sets for libraries, where you have not",
    "internal": "Variables between processes of the program",
}


def render() -> str:
    """Returns the variables in Markdown, by their use."""
    from rlcar.system.environment_variables import VARIABLES

    text = ""
    for use, title in _USES.items():
        text += markdown.heading(2, title) + "\n"
        for one in VARIABLES:
            if one.use == use:
                text += markdown.entry(markdown.anchored(one.name, one.name), one.meaning, ())
    return text
