"""Reads kubeconfig files: their contexts, and which kind of credentials a user has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlcar.errors import ConfigError, UserError, reason_of
from rlcar.settings.explain import nearest
from rlcar.settings.files import parse_yaml

Json = dict[str, Any]
HINT = "name another file with --kubeconfig or KUBECONFIG"


class Kubeconfig(NamedTuple):
    """The entries of one or several files; the first file that has a name counts, as in kubectl."""

    files: tuple[str, ...]
    current: str | None
    contexts: dict[str, Json]
    users: dict[str, Json]
    clusters: dict[str, Json]

    def choose(self, wanted: str | None) -> str:
        """Returns the name of the context to use; raises UserError if it does not exist."""
        where, names = ", ".join(self.files), list(self.contexts)
        listed = f"there are: {', '.join(names)}"
        if not names:
            raise UserError(f"kubeconfig {where} has no contexts: {HINT}")
        name = wanted or self.current
        if name is None:
            raise UserError(f"kubeconfig {where} has no current context: add --context; {listed}")
        if name not in names:
            said = f"--context {name}" if wanted else f"the current context {name}"
            hint = nearest(name, names)
            listed = "" if "there are" in hint else f"; {listed}"
            raise UserError(f"{said} does not exist in kubeconfig {where}{hint}{listed}")
        context = self.contexts[name]
        for kind, entries in (("cluster", self.clusters), ("user", self.users)):
            named = context.get(kind)
            if named and named not in entries:
                raise UserError(
                    f"context {name} of kubeconfig {where} names the {kind} {named}, which does "
                    f"not exist: correct the file, or {HINT}"
                )
        if not (self.clusters.get(str(context.get("cluster"))) or {}).get("server"):
            raise UserError(
                f"context {name} of kubeconfig {where} names no server: correct the file, or {HINT}"
            )
        return name

    def credentials_of(self, user: str) -> str:
        """Describes a user's kind of credentials, without the credentials themselves."""
        about = self.users.get(user) or {}
        if "tokenFile" in about:
            return f"token in {about['tokenFile']}"
        if "token" in about:
            return "token"
        if isinstance(about.get("exec"), dict):
            return f"token of the plugin {about['exec'].get('command')}"
        if any(name in about for name in ("client-certificate", "client-certificate-data")):
            return "client certificate"
        return "password" if "username" in about else "identity"


def read_kubeconfig(files: Sequence[str]) -> Kubeconfig:
    """Reads and merges files; raises UserError for one that is not a kubeconfig.

    Messages never repeat the content, which holds secrets.
    """
    found = Kubeconfig(tuple(files), None, {}, {}, {})
    for file in files:
        config = _read(file)
        for part, entries in (
            ("context", found.contexts),
            ("user", found.users),
            ("cluster", found.clusters),
        ):
            for entry in _entries(config, f"{part}s", file):
                entries.setdefault(str(entry["name"]), entry.get(part) or {})
        found = found._replace(current=found.current or config.get("current-context") or None)
    return found


def _read(file: str) -> Json:
    try:
        config = parse_yaml(Path(file).read_text())
    except ConfigError as error:
        mark = getattr(error.__cause__, "problem_mark", None)  # its message may quote a secret
        line = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"kubeconfig {file} is not valid YAML{line}: {HINT}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read kubeconfig {file}: {reason_of(error)}") from error
    if not isinstance(config, dict):
        raise UserError(f"kubeconfig {file} is {'empty' if not config else 'no mapping'}: {HINT}")
    return config


def _entries(config: Json, part: str, file: str) -> list[Json]:
    entries = config.get(part) or []
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get(part[:-1]) or {}, dict) and "name" in entry
        for entry in entries
    ):
        raise UserError(f"{part} in kubeconfig {file} is not a list of named entries: {HINT}")
    return entries
